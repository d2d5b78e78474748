"""The file storage by itself: nanoseconds of its hooks, and its fairness with many processes on one key.

python tests/benchmarks/file_storage.py [seconds of the fairness run]
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

from resilience import Key
from resilience_filelock import FileStorage

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

KEY = Key("circuit_breaker", "payments")
PAYLOAD = b"x" * 200
PROCESSES = 16


def single(folder: str) -> None:
    """Print what one call costs, the least of five runs."""
    storage = FileStorage(f"file://{folder}")
    lock, save, load = storage.resilience_lock, storage.resilience_save, storage.resilience_load
    with lock(KEY, 1):
        snapshot = save(KEY, PAYLOAD, load(KEY, 1).version, None, 1)

    def commit() -> None:
        nonlocal snapshot
        with lock(KEY, 1):
            snapshot = save(KEY, PAYLOAD, snapshot.version, None, 1)

    def locked() -> None:
        with lock(KEY, 1):
            pass

    def word() -> bool:
        look = snapshot.is_current
        return look.view[0] == look.value  # type: ignore[union-attr]  # the mapped form has both

    other = FileStorage(f"file://{folder}")

    def seen() -> None:
        commit()
        other.resilience_load(KEY, 1)

    for name, work in (
        ("word compared in line", word),
        ("load, current", lambda: load(KEY, 1)),
        ("lock + unlock", locked),
        ("lock + save + unlock", commit),
        ("the same, and a load elsewhere", seen),
    ):
        print(f"{name:32} {min(timeit.repeat(work, number=20_000, repeat=5)) / 20_000 * 1e9:8.0f} ns")


def worker(folder: str, start: Barrier, seconds: float, results: Queue[tuple[int, list[float]]]) -> None:
    """Commit as often as possible, each from a fresh load."""
    storage = FileStorage(f"file://{folder}")
    with storage.resilience_lock(KEY, 5):  # the import of filelock is not what is measured
        storage.resilience_load(KEY, 1)
    times = []
    start.wait()
    end = time.monotonic() + seconds
    now = time.monotonic()
    while now < end:
        with storage.resilience_lock(KEY, 5):
            version = storage.resilience_load(KEY, 5).version
            storage.resilience_save(KEY, PAYLOAD, version, None, 5)
        before, now = now, time.monotonic()
        times.append(now - before)
    times.sort()
    results.put((len(times), [times[int(len(times) * share)] for share in (0.5, 0.99, 0.999)] + times[-1:]))


def fairness(folder: str, seconds: float) -> None:
    """Print throughput, share and waiting time of processes that do nothing but commit to one key."""
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(PROCESSES), context.Queue()
    workers = [context.Process(target=worker, args=(folder, start, seconds, results)) for _ in range(PROCESSES)]
    for process in workers:
        process.start()
    found = [results.get() for _ in workers]
    for process in workers:
        process.join()
    counts = sorted(count for count, _ in found)
    print(f"{PROCESSES} processes: {sum(counts) / seconds:,.0f} commits/s, share {counts[0]} to {counts[-1]} ", end="")
    worst = [max(times[index] for _, times in found) * 1e3 for index in range(4)]
    print("worst p50 {:.2f} p99 {:.2f} p99.9 {:.2f} max {:.1f} ms".format(*worst))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as scratch:
        single(str(Path(scratch) / "single"))
        fairness(str(Path(scratch) / "fair"), float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
