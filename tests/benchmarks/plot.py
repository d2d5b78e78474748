"""Plots as SVG, from the figures of a run.  Pure: the same figures make the same picture."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from benchmarks.report import LABELS, newest
from benchmarks.targets import duration, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.targets import Results

    Points = Sequence[tuple[float, float]]
    Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
    """By number of processes, then way of counting, then name."""

WAYS = {"ours": "resilience", "rewritten": "FileLock, load, change and dump JSON"}

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 92, 20, 52, 50
COLOURS = ("#2f7d4f", "#4a5fb0", "#c0653a", "#8a8aa8")
OURS, OTHERS, YARDSTICK = "#2f7d4f", "#9aa3b8", "#d8dbe4"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}"
    ".title{font-size:15px;font-weight:600}"
    ".grid{stroke:#e3e5ec;stroke-width:1}"
    ".line{fill:none;stroke-width:2.2}"
    ".end{text-anchor:end}.middle{text-anchor:middle}"
)


def pictures(results: Results) -> dict[str, str]:
    """Draw all plots for which there are figures, by file name."""
    drawn: dict[str, str] = {}
    if "calls" in results:
        python = newest(results)
        drawn["cost-calls.svg"] = calls(results["calls"][python]["closed"], python)
    if "scale" in results:
        drawn["cost-keys.svg"] = keys(results["scale"]["by_keys"])
    if "contention" in results:
        by_processes = results["contention"]["by_processes"]
        drawn["cost-processes.svg"] = processes(by_processes)
        drawn["cost-waiting.svg"] = waiting(by_processes)
    if "threads" in results:
        drawn["cost-threads.svg"] = threads(results["threads"])
    return drawn


def calls(closed: Mapping[str, float], python: str) -> str:
    """Draw what a closed call costs with each contender."""
    bars = {
        LABELS.get(name, name).strip("*"): (seconds, _colour(name))
        for name, seconds in sorted(closed.items(), key=lambda item: item[1])
    }
    return _bars(f"One closed call, on Python {python}", bars)


def keys(by_keys: Mapping[str, Mapping[str, float]]) -> str:
    """Draw what a call costs beside more and more breakers."""
    names = {
        "closed": "closed call of one of them",
        "in turn": "closed calls of up to 1,000 of them in turn",
        "failure": "committed failure of one of them",
    }
    return _lines(
        "Cost of a call, by the number of breakers",
        "breakers",
        {label: [(int(count), each[name]) for count, each in by_keys.items()] for name, label in names.items()},
        duration,
    )


def processes(by_processes: Figures) -> str:
    """Draw how many failures of one key all processes report together."""
    return _lines(
        "Failures per second on one key, by the number of processes",
        "processes",
        {label: _points(by_processes, name, "per_second") for name, label in WAYS.items()},
        rounded,
    )


def waiting(by_processes: Figures) -> str:
    """Draw how long the reports of failures take while others report as well."""
    return _lines(
        "Time of a failure's report, by the number of processes",
        "processes",
        {
            f"{label}: {said}": _points(by_processes, name, share)
            for name, label in WAYS.items()
            for share, said in (("p50", "half take at most"), ("p99", "99 of 100 take at most"))
        },
        duration,
    )


def threads(paces: Mapping[str, Mapping[str, float]]) -> str:
    """Draw how many closed calls all threads make together."""
    names = {"consecutive": "consecutive: nothing to tell", "time": "time window: gathered, and committed in rows"}
    return _lines(
        "Closed calls per second of one breaker, by the number of threads",
        "threads",
        {label: [(int(size), pace) for size, pace in paces[window].items()] for window, label in names.items()},
        rounded,
    )


def _points(by_count: Figures, who: str, figure: str) -> Points:
    return [(int(count), each[who][figure]) for count, each in by_count.items()]


def _colour(name: str) -> str:
    return YARDSTICK if name == "bare" else OURS if name.startswith("resilience") else OTHERS


# --- drawing ----------------------------------------------------------------------------------------------------------


def _bars(title: str, bars: Mapping[str, tuple[float, str]]) -> str:
    room, left = 26, 160
    height = TOP + room * len(bars) + 12
    scale = (WIDTH - left - 90) / max(seconds for seconds, _ in bars.values())
    parts: list[str] = []
    for row, (label, (seconds, colour)) in enumerate(bars.items()):
        y = TOP + room * row
        width = max(1.0, seconds * scale)
        parts += [
            f'<text class="end" x="{left - 10}" y="{y + 14}">{escape(label)}</text>',
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="18" rx="3" fill="{colour}"/>',
            f'<text x="{left + width + 8:.1f}" y="{y + 14}">{duration(seconds)}</text>',
        ]
    return _picture(title, height, parts)


def _lines(title: str, across: str, lines: Mapping[str, Points], say: Callable[[float], str]) -> str:
    """Draw lines over two logarithmic axes."""
    below = 18 * len(lines)
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
    place_x = _scale(xs[0], xs[-1], LEFT + 10, WIDTH - RIGHT - 20)
    place_y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts: list[str] = []
    decade = low
    while decade <= high * 1.01:
        y = place_y(decade)
        parts += [
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
            f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{say(decade)}</text>',
        ]
        decade *= 10
    parts += [f'<text class="middle" x="{place_x(x):.1f}" y="{HEIGHT - BOTTOM + 20}">{rounded(x)}</text>' for x in xs]
    parts.append(f'<text class="middle" x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 10}">{escape(across)}</text>')
    for row, ((label, points), colour) in enumerate(zip(lines.items(), COLOURS, strict=False)):
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in points)
        y = HEIGHT + 6 + 18 * row
        parts += [
            f'<path class="line" d="M{path}" stroke="{colour}"/>',
            *(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.4" fill="{colour}"/>' for x, y in points),
            f'<rect x="{LEFT}" y="{y - 4}" width="22" height="4" fill="{colour}"/>',
            f'<text x="{LEFT + 30}" y="{y + 3}">{escape(label)}</text>',
        ]
    return _picture(title, HEIGHT + below + 10, parts)


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low) or 1.0
    return lambda value: begin + (end - begin) * math.log(value / low) / span


def _picture(title: str, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<rect width="{WIDTH}" height="{height}" rx="12" fill="#fff"/>
<text class="title" x="20" y="30">{escape(title)}</text>
{body}
</svg>
"""
