"""The tables of a run, in Markdown.  Pure, like `targets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.outage import CALLS, THRESHOLD
from benchmarks.targets import duration, rounded, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.targets import Results

LABELS = {
    "bare": "bare call",
    "resilience": "**resilience, files**",
    "resilience_memory": "**resilience, memory**",
    "interlock": "interlock-cb",
}
"""How contenders are called where it is not by the name of their module."""

JOBS = {
    "closed": "closed",
    "closed, time window": "`time` window",
    "closed async": "awaited",
    "rejection": "rejected",
    "failure": "failed",
}


def newest(results: Results) -> str:
    """Return the newest interpreter that was measured with."""
    return max(results["machine"]["pythons"], key=lambda version: [int(part) for part in version.split(".")])


def parts(results: Results) -> dict[str, str]:
    """Make all tables, by the names of the files that the page of the documentation includes."""
    return {
        f"cost-{make.__name__.replace('_', '-')}.md": make(results)
        for make in (targets, side_by_side, locks, where, start, many, servers, machine)
    }


def targets(results: Results) -> str:
    """Make the table of all targets."""
    return _table(
        ("what", "Python", "ours", "beside it", "ratio or figure", "target", ""),
        (
            (row.what, row.python, row.ours, row.beside, row.figure, row.target, "met" if row.is_met else "**not met**")
            for row in rows(results)
        ),
    )


def side_by_side(results: Results) -> str:
    """Make the table of all contenders, on the newest interpreter."""
    jobs = results["calls"][newest(results)]
    names: list[str] = sorted(jobs["closed"], key=lambda name: float(jobs["closed"][name]))
    return _table(
        ("one call", *JOBS.values()),
        (
            (LABELS.get(name, name), *(duration(jobs[job][name]) if name in jobs[job] else "–" for job in JOBS))
            for name in names
        ),
    )


def locks(results: Results) -> str:
    """Make the table of what locks cost by themselves."""
    jobs = results["calls"][newest(results)]
    pairs = {
        "`threading.Lock`": "threading.Lock",
        "`filelock.lock_descriptor` on an open file": "filelock.lock_descriptor",
        "`filelock.FileLock`": "filelock.FileLock",
        "the second, and two writes of a record between": "two writes",
    }
    return _table(
        ("taken and given back", "nobody else wants it"),
        ((label, duration(jobs[job]["locks"])) for label, job in pairs.items()),
    )


def where(results: Results) -> str:
    """Make the table of what a call executes, and in which modules."""
    return _table(
        ("call", "instructions", "of them in"),
        (
            (
                f"{road}",
                rounded(sum(found.values())),
                ", ".join(
                    f"`{module}` {count}" for module, count in found.items() if count >= sum(found.values()) / 50
                ),
            )
            for road, found in results["where"].items()
        ),
    )


def start(results: Results) -> str:
    """Make the table of what short commands take."""
    commands = results["startup"][newest(results)]
    bare = commands["python -c pass"]
    return _table(
        ("command", "takes", "bare interpreters"),
        (
            (f"`{name}`" if name[:5] != "check" else name, duration(seconds), f"{seconds / bare:.2f}")
            for name, seconds in commands.items()
        ),
    )


def many(results: Results) -> str:
    """Make the table of what stays the same, or does not, where there are many."""
    scale, lives = results["scale"], results["lives"]
    left = lives["left_behind"]
    stretches = lives["by_stretch"]
    return _table(
        ("what", "figure"),
        (
            ("guard, cell and key of one breaker", f"{scale['bytes']['guard, cell, key']} B"),
            ("all that a process keeps of one that it used, files open", f"{rounded(scale['bytes']['used'])} B"),
            (f"`resilience status --json` of {scale['keys']:,} breakers", duration(scale["status"]["seconds"])),
            (f"{lives['workers']:,} workers, forked, one failure each: a life", duration(lives["seconds"])),
            ("a forked worker that does nothing", duration(lives["bare"])),
            ("a life among the last tenth, by one among the first", f"{stretches[-1] / stretches[0]:.2f}"),
            ("what they left: files, bytes, descriptors", f"{left['files']}, {left['bytes']}, {left['descriptors']}"),
        ),
    )


def servers(results: Results) -> str:
    """Make the table of all contenders on one Redis, and of ours on a PostgreSQL."""
    found = results["servers"]
    calls, trips, released, gone, reached = (
        found[what] for what in ("calls", "trips", "released", "outage", "reached")
    )
    names = {
        "resilience_redis": "**resilience, Redis**",
        "resilience_postgres": "**resilience, PostgreSQL**",
        "pybreaker_redis": "pybreaker, Redis",
        "purgatory_redis": "purgatory, Redis",
        "interlock_redis": "interlock-cb, Redis",
    }
    return _table(
        (
            "",
            "closed call",
            "asks the server",
            "failure",
            "let in at half-open",
            "first call without the server",
            f"of {CALLS} failing ones without it, at a threshold of {THRESHOLD}, get through",
        ),
        (
            (
                label,
                duration(calls["closed"][name]),
                f"{trips[name]['closed']:.1f} times",
                duration(calls["failure"][name]),
                f"{max(released[name]['let_in'])} of {released[name]['processes']}" if name in released else "–",
                duration(gone[name]["first"]) if name in gone else "–",
                f"{reached[name]}" if name in reached else "–",
            )
            for name, label in names.items()
        ),
    )


def machine(results: Results) -> str:
    """Say on which machine, when and with what it was measured."""
    about = results["machine"]
    pythons = ", ".join(about["pythons"].values())
    versions = about["libraries"] | results.get("servers", {}).get("versions", {})
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    haste = "  This was a quick run: its figures are rough." if about["quick"] else ""
    return (
        f"Measured on {about['date']}: {about['processor']}, {about['cores']} cores, {about['kernel']}, state on "
        f"{about['file_system']}, load {about['load_at_start']} before it began; {pythons}; {libraries}.{haste}\n"
    )


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    whole = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in whole) + "\n"
