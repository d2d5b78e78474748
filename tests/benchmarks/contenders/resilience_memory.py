"""Ours, in the memory of one process: what others offer without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders.resilience import jobs_on

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    return jobs_on("memory:")
