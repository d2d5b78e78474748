"""The yardsticks of locking: what a breaker pays at least that takes a lock for each call."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.jobs import calls
from filelock import FileLock, lock_descriptor, unlock_descriptor

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    thread_lock = threading.Lock()
    file_lock = FileLock(Path(folder, "lock"))
    descriptor = os.open(Path(folder, "kept"), os.O_RDWR | os.O_CREAT)
    record, word = bytes(256), bytes(8)

    def of_threads() -> None:
        with thread_lock:
            pass

    def of_files() -> None:
        with file_lock:
            pass

    def of_a_descriptor() -> None:
        lock_descriptor(descriptor, blocking=False)
        unlock_descriptor(descriptor)

    def around_two_writes() -> None:
        lock_descriptor(descriptor, blocking=False)
        os.pwrite(descriptor, record, 64)
        os.pwrite(descriptor, word, 8)
        unlock_descriptor(descriptor)

    return {
        "threading.Lock": calls(of_threads),
        "filelock.lock_descriptor": calls(of_a_descriptor),
        "filelock.FileLock": calls(of_files),
        "two writes": calls(around_two_writes),
    }
