"""The yardstick: the protected functions by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.jobs import awaits, awork, calls, failing, raising, work

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    return {"closed": calls(work), "closed async": awaits(awork), "failure": raising(failing)}
