"""Ours, on a PostgreSQL: the URL stands in the file `url` of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders.resilience import jobs_on

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    every = jobs_on(Path(folder, "url").read_text())
    return {name: every[name] for name in ("closed", "failure")}
