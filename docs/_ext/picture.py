"""Draws a state machine as SVG, from the rows of its table.  Only the places of the states are ours."""

from __future__ import annotations

from html import escape
from math import hypot
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Row = tuple[str, str, str, str]
    """In state, event, condition, to state."""

PLACES = {
    "disabled": (450, 75),
    "metrics_only": (450, 185),
    "closed": (130, 250),
    "open": (770, 250),
    "half_open": (450, 430),
    "forced_open": (770, 430),
}
"""The middle of each state's box."""

WIDTH, HEIGHT = 900, 500
BOX = (150, 52)
FILL = {
    "closed": "#d9f2df",
    "half_open": "#fff1cc",
    "open": "#fbdcdc",
    "forced_open": "#fbdcdc",
    "disabled": "#e8e8ee",
    "metrics_only": "#e8e8ee",
}
OUT = {
    "disabled": (0, -1),
    "metrics_only": (0, 1),
    "closed": (-1, 0),
    "open": (1, 0),
    "half_open": (0, 1),
    "forced_open": (1, 0),
}
"""The side of a box that no arrow of the machine needs: there, what is done by hand comes in."""

STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#222;text-anchor:middle}"
    ".state{font-weight:600;font-size:15px}"
    ".hand{fill:#5a5a78;font-style:italic}"
    "path{stroke:#444;stroke-width:1.6;fill:none}"
    "path.hand{stroke:#8a8aa8;stroke-dasharray:4 3}"
)


def title(state: str) -> str:
    """Return a state as people write it."""
    return state.upper() if state.replace("_", "").isalpha() else state


def draw(rows: Iterable[Row]) -> str:
    """Draw all changes of state.

    An event that leads to one state from every other is one arrow, from anywhere.  `KeyError`: a state has no place.
    """
    moves = [(state, event, condition, to) for state, event, condition, to in rows if to != state]
    states = {state for state, *_ in moves}
    anywhere: dict[str, list[str]] = {}
    between: dict[tuple[str, str], list[str]] = {}
    for state, event, condition, to in moves:
        if to not in states:
            continue  # `restore` says itself where it leads
        others = {begin for begin, other, _, end in moves if (other, end) == (event, to)}
        if others == states - {to}:
            label = event.replace("_", " ")
            if label not in anywhere.setdefault(to, []):
                anywhere[to].append(label)
        else:
            label = event if condition == "always" else f"{event}: {condition}"
            between.setdefault((state, to), []).append(label.replace("_", " "))

    parts: list[str] = []
    for (state, to), labels in between.items():
        parts += _arrow(state, to, labels, both=(to, state) in between)
    for state, labels in anywhere.items():
        parts += _by_hand(state, labels)
    parts += [part for state in sorted(states) for part in _box(state)]
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
<title>The state machine of the circuit breaker</title>
<style>{STYLE}</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 8 4 0 8z" style="fill:#444;stroke:none"/></marker></defs>
<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#fff"/>
{body}
</svg>
"""


def _box(state: str) -> list[str]:
    (x, y), (width, height) = PLACES[state], BOX
    size = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}"'
    return [
        f'<rect {size} rx="10" fill="{FILL[state]}" stroke="#444" stroke-width="1.6"/>',
        f'<text class="state" x="{x}" y="{y + 5}">{escape(title(state))}</text>',
    ]


def _arrow(state: str, to: str, labels: list[str], *, both: bool) -> list[str]:
    x1, y1, x2, y2 = map(float, (*PLACES[state], *PLACES[to]))
    length = hypot(x2 - x1, y2 - y1)
    across = (-(y2 - y1) / length, (x2 - x1) / length)
    shift = 22 if both else 0  # two arrows between the same states run side by side
    x1, y1, x2, y2 = (v + shift * across[i % 2] for i, v in enumerate((x1, y1, x2, y2)))
    begin, end = _edge(x1, y1, x2, y2, PLACES[state]), _edge(x2, y2, x1, y1, PLACES[to])
    x, y = (begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2 - 9 * (len(labels) - 1)
    anchor = "middle"
    if both:
        # Beside the arrow, on the side that its partner does not take.
        anchor, x = ("start", x + 16) if across[0] > 0 else ("end", x - 16)
    parts = [f'<path d="M{begin[0]:.0f} {begin[1]:.0f} {end[0]:.0f} {end[1]:.0f}" marker-end="url(#head)"/>']
    for i, label in enumerate(labels):
        if not both:
            width = 8 * len(label)
            parts.append(
                f'<rect x="{x - width / 2:.0f}" y="{y - 10 + 18 * i:.0f}" width="{width}" height="20" fill="#fff"/>'
            )
        parts.append(f'<text x="{x:.0f}" y="{y + 5 + 18 * i:.0f}" style="text-anchor:{anchor}">{escape(label)}</text>')
    return parts


def _edge(x1: float, y1: float, x2: float, y2: float, middle: tuple[int, int]) -> tuple[float, float]:
    """Where the line from the first point to the second leaves the box around `middle`."""
    dx, dy = x2 - x1, y2 - y1
    reach: list[float] = []
    for start, step, centre, size in ((x1, dx, middle[0], BOX[0]), (y1, dy, middle[1], BOX[1])):
        if step:
            reach.append((centre + (size / 2 + 3 if step > 0 else -size / 2 - 3) - start) / step)
    share = min(reach)
    return x1 + dx * share, y1 + dy * share


def _by_hand(state: str, labels: list[str]) -> list[str]:
    (x, y), (dx, dy) = PLACES[state], OUT[state]
    edge_x, edge_y = x + dx * (BOX[0] / 2 + 3), y + dy * (BOX[1] / 2 + 3)
    far_x, far_y = edge_x + dx * 30, edge_y + dy * 22
    lines = [", ".join(labels), "from anywhere"]
    if dy:
        lines = [", ".join(lines)]
    top = far_y - 6 if dy < 0 else far_y + 16 if dy > 0 else y + BOX[1] / 2 + 20
    return [
        f'<path class="hand" d="M{far_x:.0f} {far_y:.0f} {edge_x:.0f} {edge_y:.0f}" marker-end="url(#head)"/>',
        *(
            f'<text class="hand" x="{x + dx * 10:.0f}" y="{top + 17 * i:.0f}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        ),
    ]
