"""What is aimed at, and what came of it: one row for each target, from the figures of a run.

Pure: the same figures make the same rows, so the tables of the documentation can be made again from the result file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.outage import CALLS, THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Results = Mapping[str, Any]

PEERS = ("aiobreaker", "circuitbreaker", "interlock", "purgatory", "pyresilience")
"""Those that protect coroutine functions."""

NOISE = 0.05
"""A share that two measurements of the same may differ by."""


@dataclass(frozen=True)
class Row:
    what: str
    python: str
    ours: str
    beside: str
    """What it is compared with, and that one's own figure; empty where it stands alone."""
    figure: str
    """What is held against the target."""
    target: str
    is_met: bool


def rows(results: Results) -> list[Row]:
    """Make the rows of all groups that were measured."""
    found: list[Row] = []
    for group, make in _GROUPS.items():
        if group in results:
            found += make(results[group])
    return found


# --- words ------------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Say a duration with three digits."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if float(f"{seconds * factor:.3g}") >= 1:
            return f"{rounded(seconds * factor)} {unit}"
    return f"{rounded(seconds * 1e9)} ns"


def rounded(number: float) -> str:
    """Say a number with three digits, and thousands apart."""
    kept = float(f"{number:.3g}")
    return f"{kept:,.0f}" if kept >= 100 else f"{kept:g}"


def _at_most(
    what: str, python: str, ours: float, most: float, rival: str, theirs: float, *, base: float = 0.0, note: str = ""
) -> Row:
    """Hold a duration against another, or what it adds to a base against what the other adds."""
    ratio = (ours - base) / (theirs - base)
    beside = f"{rival} {duration(theirs)}"
    return Row(what, python, duration(ours), beside, f"{ratio:.2f}", f"≤ {most:g}{note}", ratio <= most)


def _limit(what: str, python: str, figure: float, most: float) -> Row:
    return Row(what, python, duration(figure), "", duration(figure), f"≤ {duration(most)}", figure <= most)


# --- groups -----------------------------------------------------------------------------------------------------------


def _calls(by_python: Results) -> Iterator[Row]:
    for python, jobs in by_python.items():
        closed = jobs["closed"]
        for rival, most in (("pybreaker", 0.25), ("circuitbreaker", 0.6)):
            yield _at_most("closed call", python, closed["resilience"], most, rival, closed[rival])
        pybreaker = closed["pybreaker"]
        for job, what, most in (
            ("closed, time window", "closed call, `time` window, gathered", 0.35),
            ("closed, time window, slow calls", "the same, slow calls judged too", 0.45),
        ):
            yield _at_most(what, python, jobs[job]["resilience"], most, "pybreaker", pybreaker)
        awaited = jobs["closed async"]
        fastest = min((peer for peer in PEERS if peer in awaited), key=lambda peer: float(awaited[peer]))
        for job, what, most in (
            ("closed async", "closed call, awaited, beyond a bare await", 0.5),
            ("closed async, time window", "the same, `time` window, gathered", 0.75),
        ):
            ours = jobs[job]["resilience"]
            yield _at_most(what, python, ours, most, fastest, awaited[fastest], base=awaited["bare"])
        for job, what, most in (("rejection", "rejection", 0.3), ("failure", "failure, committed", 3.5)):
            yield _at_most(what, python, jobs[job]["resilience"], most, "pybreaker", jobs[job]["pybreaker"])
        ours, theirs = jobs["failure, time window"]["resilience"], jobs["failure"]["pybreaker"]
        yield _at_most("failure, `time` window, committed", python, ours, 5, "pybreaker", theirs)


def _contention(found: Results) -> Iterator[Row]:
    ours, theirs, thinking = found["ours"], found["rewritten"], found["thinking"]
    crowd = f"{found['processes']} processes, one key"
    ratio = ours["per_second"] / theirs["per_second"]
    yield Row(
        f"{crowd}: failures per second",
        "",
        f"{rounded(ours['per_second'])}/s",
        f"lock and rewrite JSON {rounded(theirs['per_second'])}/s",
        f"{ratio:.0f}",
        "≥ 40",
        ratio >= 40,
    )
    yield _limit(f"{crowd}: 99 of 100 failures take at most", "", ours["p99"], 0.010)
    share = ours["largest_share"]
    beside = f"lock and rewrite JSON {rounded(theirs['largest_share'])}"
    yield Row(f"{crowd}: largest share, by the smallest", "", rounded(share), beside, rounded(share), "≤ 4", share <= 4)
    lost = ours["lost"] + thinking["lost"]
    yield Row(f"{crowd}: failures lost", "", f"{lost}", "", f"{lost}", "0", lost == 0)
    yield _limit(f"{crowd}, 0 to 10 ms between failures: 99 of 100", "", thinking["p99"], 0.0005)


def _threads(found: Results) -> Iterator[Row]:
    one, eight = found["consecutive"]["1"], found["consecutive"]["8"]
    yield Row(
        "8 threads, one breaker, closed calls per second",
        "",
        f"{rounded(eight)}/s",
        f"1 thread {rounded(one)}/s",
        f"{eight / one:.2f}",
        f"≥ 1, less {NOISE:.0%} for noise",
        eight / one >= 1 - NOISE,
    )


def _propagation(found: Results) -> Iterator[Row]:
    let_in = found["let_in"]
    yield Row(
        f"opened here {found['rounds']} times: calls let in elsewhere that began after that",
        "",
        f"{let_in}",
        "",
        f"{let_in}",
        "0: the next call is rejected",
        let_in == 0,
    )


def _startup(by_python: Results) -> Iterator[Row]:
    for python, commands in by_python.items():
        bare = commands["python -c pass"]
        for command in commands:
            if command.startswith("check,") and command != "check, uv script, no plan":
                what = f"`resilience check`{command.removeprefix('check')}"
                yield _at_most(what, python, commands[command], 1.5, "`python -c pass`", bare)
        ours = commands["import resilience"]
        more = max(0.0, ours - bare)
        beside = f"`python -c pass` {duration(bare)}"
        yield Row("`import resilience`", python, duration(ours), beside, f"+ {duration(more)}", "+ 5 ms", more <= 0.005)


def _scale(found: Results) -> Iterator[Row]:
    keys, status = found["keys"], found["status"]
    yield _limit(f"`status --json` of {keys:,} breakers", "", status["seconds"], 2)
    by_keys = found["by_keys"]
    one, many = by_keys["1"]["closed"], by_keys[str(keys)]["closed"]
    yield Row(
        f"closed call where {keys:,} breakers are",
        "",
        duration(many),
        f"where 1 is {duration(one)}",
        f"{many / one:.2f}",
        f"1, and {2 * NOISE:.0%} for noise",
        many / one <= 1 + 2 * NOISE,
    )
    size = found["bytes"]["guard, cell, key"]
    yield Row("guard, cell and key of one breaker", "", f"{size} B", "", f"{size} B", "≤ 400 B", size <= 400)


def _lives(found: Results) -> Iterator[Row]:
    lost, left = found["lost"], found["left_behind"]
    yield Row(
        f"{found['workers']:,} workers that fail once each: failures lost, files left behind",
        "",
        f"{lost}, {left['files']}",
        "",
        f"{lost}, {left['files']}",
        "0, 0",
        lost == 0 and left["files"] == 0,
    )


def _servers(found: Results) -> Iterator[Row]:
    calls, trips = found["calls"]["closed"], found["trips"]
    for server, label in SERVERS.items():
        asked = trips[f"resilience_{server}"]["failing"]
        beside = f"pybreaker {trips['pybreaker_redis']['failing']:.2f}" if server == "redis" else ""
        what = f"{label}: questions to the server by call, 1 of 100 failing"
        yield Row(what, "", f"{asked:.3f}", beside, f"{asked:.3f}", "≤ 0.05", asked <= 0.05)
        ours = calls[f"resilience_{server}"]
        yield _at_most(f"{label}: closed call", "", ours, 1.5, "on files", calls["resilience"])
        asked = trips[f"resilience_{server}"]["failure"]
        beside = f"pybreaker {trips['pybreaker_redis']['failure']:.2f}" if server == "redis" else ""
        what, most = f"{label}: questions to the server by committed failure", {"redis": 2, "postgres": 1}[server]
        yield Row(
            what,
            "",
            f"{asked:.2f}",
            beside,
            f"{asked:.2f}",
            f"≤ {most}, and {NOISE:.0%} for the listener's",
            asked <= most + NOISE,
        )
    for server, least, slowest in (
        ("redis", 6_000, 0.050),
        ("postgres, fsync", 700, None),
        ("postgres, asynchronous commit", 5_000, None),
    ):
        yield from _crowded(server, found["failures"][server], least, slowest)
    for name, opened in found["propagation"].items():
        server, _, waiting = name.partition(", ")
        what = (
            f"{SERVERS[server]}: opened here, rejected there, which {'waits in each call' if waiting else 'computes'}"
        )
        yield _limit(f"{what}: half of {opened['rounds']} times within", "", opened["p50"], 0.001)
        yield _limit(f"{what}: 99 of 100 within", "", opened["p99"], 0.010)
    for server, opened in found["without push"].items():
        what = f"{SERVERS[server]}, without push: opened here, rejected there, the longest of {opened['rounds']} times"
        yield _late(what, opened["worst"], STALENESS)
    for server, probed in found["prober"].items():
        what = f"{SERVERS[server]}: the permit of a killed prober is another's, the longest of {probed['rounds']} times"
        yield _late(what, probed["worst"], probed["permit_timeout"])
        closed = f"{probed['closed']} of {probed['rounds']}"
        what = f"{SERVERS[server]}: the breaker closed after that"
        yield Row(what, "", closed, "", closed, "each time", probed["closed"] == probed["rounds"])
    released = found["released"]["resilience_redis"]
    most = max(released["let_in"])
    exactly = set(released["let_in"]) == {1}
    beside = f"pybreaker {max(found['released']['pybreaker_redis']['let_in'])}"
    what = f"Redis: {released['processes']} processes ask at half-open, {released['rounds']} times: let in at one time"
    yield Row(what, "", f"{min(released['let_in'])} to {most}", beside, f"{most}", "exactly 1", exactly)
    outage = found["outage"]
    first = max(outage["resilience_redis"]["first"], outage["resilience_redis, hung"]["first"])
    beside = f"pybreaker, gone {duration(outage['pybreaker_redis']['first'])}"
    yield _late("Redis gone or hung: the first call pays", first, 0.25, beside)
    following = max(outage["resilience_redis"]["following"], outage["resilience_redis, hung"]["following"])
    what = "the following calls"
    yield _at_most(what, "", following, 1.2, "in memory", outage["resilience_memory"]["following"])
    reached = found["reached"]
    beside = ", ".join(
        f"{name.partition('_')[0]} {count}" for name, count in reached.items() if "resilience" not in name
    )
    ours = reached["resilience_redis"]
    what = f"Redis gone: of {CALLS} failing calls, with a threshold of {THRESHOLD}, reach what is protected"
    yield Row(what, "", f"{ours}", beside, f"{ours}", f"{THRESHOLD}", ours == THRESHOLD)


def _late(what: str, figure: float, most: float, beside: str = "") -> Row:
    """Hold a duration against a time-out, after which somebody has to wake."""
    said, limit = duration(figure), f"≤ {duration(most)}, and {NOISE:.0%} for noise"
    return Row(what, "", said, beside, said, limit, figure <= most * (1 + NOISE))


SERVERS = {"redis": "Redis", "postgres": "PostgreSQL"}
STALENESS = 1.0
"""`max_staleness` by default, in seconds."""


def _crowded(server: str, found: Results, least: float, slowest: float | None) -> Iterator[Row]:
    name, _, how = server.partition(", ")
    what = f"{SERVERS[name]}{f', {how}' if how else ''}: {found['processes']} processes, one key"
    pace, share, lost = found["per_second"], found["smallest_of_mean"], found["lost"]
    said = f"{rounded(pace)}/s"
    yield Row(f"{what}: failures per second", "", said, "", said, f"≥ {rounded(least)}/s", pace >= least)
    if slowest is not None:
        yield _limit(f"{what}: 99 of 100 failures take at most", "", found["p99"], slowest)
    said = rounded(share)
    yield Row(f"{what}: smallest share, by the mean", "", said, "", said, "≥ 0.25", share >= 0.25)
    yield Row(f"{what}: failures lost", "", f"{lost}", "", f"{lost}", "0", lost == 0)


_GROUPS = {
    "calls": _calls,
    "contention": _contention,
    "threads": _threads,
    "propagation": _propagation,
    "startup": _startup,
    "scale": _scale,
    "lives": _lives,
    "servers": _servers,
}
