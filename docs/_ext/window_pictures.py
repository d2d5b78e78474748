"""Draws how each window fills and trips, as SVG.

Calls are played through the breaker's own policy, and what it says after each is drawn.  Only the calls are made up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resilience.policy import FAILURE, SUCCESS, Admit, Report
from resilience_circuit_breaker._config import CircuitBreakerConfig
from resilience_circuit_breaker._errors import Rejection
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from resilience.policy import Outcome

WIDTH = 900
LEFT, RIGHT = 110, 870
"""Where what is drawn begins and ends; the names of the rows stand before it."""
CALL = 17
"""Side of the square that stands for a call."""

FILL = {SUCCESS: "#8fd19e", FAILURE: "#e5736f", "rejected": "#fff"}
BAND = {"closed": "#d9f2df", "open": "#fbdcdc"}
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#222}"
    ".small{font-size:12.5px;fill:#555}"
    ".middle{text-anchor:middle}.end{text-anchor:end}"
    ".name{font-weight:600;text-anchor:end}"
    ".axis{stroke:#bbb;stroke-width:1}"
    ".line{stroke:#2f5d9e;stroke-width:2.2;fill:none;stroke-linejoin:round}"
    ".threshold{stroke:#c0392b;stroke-width:1.6;stroke-dasharray:6 4}"
    ".window{fill:#2f5d9e;fill-opacity:.08;stroke:#2f5d9e;stroke-width:1.6}"
    ".not-judged{fill:#888;fill-opacity:.13}"
)


class Seen(NamedTuple):
    """What a call brought."""

    at: float
    outcome: str
    """What became of it; ``rejected``: it was not let in."""
    state: str
    """The breaker's state after it."""
    failures: int
    calls: int
    """What stands in the window after it; with ``consecutive`` both are the streak."""
    rate: float | None
    """Failures / calls, where it is judged."""


def play(calls: Iterable[tuple[float, Outcome]], **config: Any) -> list[Seen]:
    """Let calls meet a breaker, one after the other: the second at which each ends, and what comes of it."""
    policy = CircuitBreakerPolicy(CircuitBreakerConfig(**config))
    state: Any = policy.initial()
    seen: list[Seen] = []
    for at, outcome in calls:
        admitted = policy.step(state, Admit(at, 0))
        became: str = "rejected"
        if not isinstance(admitted.decision, Rejection):
            became = outcome
            state = policy.step(state, Report(at, 0, outcome, at=at, epoch=None, token=None, error=None)).state
        status = policy.status(state, name="", now=at)
        counted = status.failure_count + (status.success_count or 0)
        seen.append(Seen(at, became, status.state, status.failure_count, counted, status.failure_rate))
    return seen


def consecutive() -> str:
    """Draw a streak."""
    threshold = 3
    seen = play(_one_a_second(".x..xx.x.xxx.."), failure_threshold=threshold)
    step = (RIGHT - LEFT) / len(seen)
    xs = [LEFT + step * (index + 0.5) for index in range(len(seen))]
    parts = _calls(seen, xs, 40)
    bottom, unit = 200, 34
    parts += _chart("streak", bottom, [(unit * number, str(number)) for number in range(threshold + 1)])
    parts += _threshold(bottom - unit * threshold, f"failure_threshold={threshold}")
    for x, one in zip(xs, seen, strict=True):
        if one.outcome != "rejected" and one.failures:
            height = unit * one.failures
            parts.append(f'<rect x="{x - 9:.0f}" y="{bottom - height}" width="18" height="{height}" fill="#2f5d9e"/>')
    parts += _notes(seen, xs, 222, {"a success clears it": 2, "three in a row": 11})
    return _picture("consecutive: a streak of failures fills and trips", 290, [*parts, *_states(seen, xs, step, 245)])


def count() -> str:
    """Draw a window of calls."""
    size, minimum, rate = 10, 5, 0.5
    seen = play(
        _one_a_second("....x..x.x..x.x.xx.."),
        window="count",
        window_size=size,
        minimum_calls=minimum,
        failure_rate_threshold=rate,
    )
    step = (RIGHT - LEFT) / len(seen)
    xs = [LEFT + step * (index + 0.5) for index in range(len(seen))]
    tripped = next(index for index, one in enumerate(seen) if one.state == "open")
    first = xs[tripped - size + 1] - step / 2
    parts = [
        f'<rect class="window" x="{first:.0f}" y="26" width="{step * size:.0f}" height="46" rx="6"/>',
        _text(first + step * size / 2, 20, f"the last {size} calls when it trips", "small middle"),
        *_calls(seen, xs, 40),
        *_rates(seen, xs, rate, step, f"fewer than {minimum} calls"),
        *_notes(seen, xs, 222, {f"{seen[tripped].failures} of {seen[tripped].calls} failed": tripped}),
    ]
    return _picture("count: a window of the last calls fills and trips", 290, [*parts, *_states(seen, xs, step, 245)])


def time() -> str:
    """Draw a window of time."""
    duration, minimum, rate = 10, 10, 0.5
    # A bucket is a second; each word is what is called in one.
    words = ["...", "..", "...", ".x", "...", "..", "x.", "..", ".x.", "x.", "xx", ".xx", "xx", "xxx", "..."]
    calls: list[tuple[float, Outcome]] = [
        (second + (index + 0.5) / len(word), FAILURE if sign == "x" else SUCCESS)
        for second, word in enumerate(words)
        for index, sign in enumerate(word)
    ]
    seen = play(calls, window="time", window_duration=duration, minimum_calls=minimum, failure_rate_threshold=rate)
    step = (RIGHT - LEFT) / len(words)
    xs = [LEFT + step * one.at for one in seen]
    tripped = next(index for index, one in enumerate(seen) if one.state == "open")
    first = LEFT + step * (int(seen[tripped].at) - 9)
    parts = [
        f'<rect class="window" x="{first:.0f}" y="26" width="{step * 10:.0f}" height="82" rx="6"/>',
        _text(first + step * 5, 20, "the running bucket and the nine before it, when it trips", "small middle"),
        _text(LEFT - 14, 71, "calls", "name"),
    ]
    for second, word in enumerate(words):
        x = LEFT + step * second
        parts.append(f'<line class="axis" x1="{x:.0f}" y1="34" x2="{x:.0f}" y2="104"/>')
        here = [one for one in seen if int(one.at) == second]
        assert len(here) == len(word)
        parts += [_call(one, x + step / 2, 93 - 19 * index) for index, one in enumerate(here)]
    parts += [
        *_rates(seen, xs, rate, step, f"fewer than {minimum} calls", bottom=236),
        *_notes(seen, xs, 258, {f"{seen[tripped].failures} of {seen[tripped].calls} failed": tripped}),
    ]
    return _picture("time: a window of ten buckets fills and trips", 326, [*parts, *_states(seen, xs, 0, 281)])


DRAWINGS = {"window-consecutive.svg": consecutive, "window-count.svg": count, "window-time.svg": time}
"""What is drawn, by the name of its file."""


# -- what the pictures are made of -------------------------------------------------------------------------------------


def _one_a_second(signs: str) -> list[tuple[float, Outcome]]:
    return [(float(second), FAILURE if sign == "x" else SUCCESS) for second, sign in enumerate(signs)]


def _picture(title: str, height: int, parts: Sequence[str]) -> str:
    body = "\n".join([*parts, *_legend(height - 2)])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 12}" role="img">
<title>{title}</title>
<style>{STYLE}</style>
<rect width="{WIDTH}" height="{height + 12}" rx="12" fill="#fff"/>
{body}
</svg>
"""


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{text}</text>'


def _call(one: Seen, x: float, middle: float) -> str:
    dashed = ' stroke-dasharray="3 2"' if one.outcome == "rejected" else ""
    return (
        f'<rect x="{x - CALL / 2:.1f}" y="{middle - CALL / 2:.1f}" width="{CALL}" height="{CALL}" rx="4"'
        f' fill="{FILL[one.outcome]}" stroke="#444"{dashed}/>'
    )


def _calls(seen: Sequence[Seen], xs: Sequence[float], top: float) -> list[str]:
    middle = top + CALL / 2
    squares = [_call(one, x, middle) for one, x in zip(seen, xs, strict=True)]
    return [_text(LEFT - 14, middle + 5, "calls", "name"), *squares]


def _chart(name: str, bottom: int, marks: Iterable[tuple[float, str]]) -> list[str]:
    parts = [_text(LEFT - 34, bottom - 45, name, "name")]
    for height, label in marks:
        y = bottom - height
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{y:.0f}" x2="{RIGHT}" y2="{y:.0f}"/>')
        parts.append(_text(LEFT - 8, y + 4, label, "small end"))
    return parts


def _threshold(y: float, label: str) -> list[str]:
    return [
        f'<line class="threshold" x1="{LEFT}" y1="{y:.0f}" x2="{RIGHT}" y2="{y:.0f}"/>',
        _text(RIGHT, y - 6, label, "small end"),
    ]


def _rates(
    seen: Sequence[Seen], xs: Sequence[float], limit: float, step: float, unjudged: str, bottom: int = 200
) -> list[str]:
    """Draw the failure rate after each call, and where there is none yet."""
    tall = 100
    judged = [index for index, one in enumerate(seen) if one.rate is not None]
    begin = xs[judged[0]] - step / 2
    points = [
        f"{xs[index]:.0f} {bottom - tall * (seen[index].rate or 0.0):.0f}"
        for index in judged
        if seen[index].outcome != "rejected"
    ]
    return [
        *_chart("rate", bottom, [(tall * share, f"{share:g}") for share in (0.0, 0.5, 1.0)]),
        f'<rect class="not-judged" x="{LEFT}" y="{bottom - tall}" width="{begin - LEFT:.0f}" height="{tall}"/>',
        _text((LEFT + begin) / 2, bottom - 16, unjudged, "small middle"),
        *_threshold(bottom - tall * limit, f"failure_rate_threshold={limit:g}"),
        f'<path class="line" d="M{" L".join(points)}"/>',
    ]


def _notes(seen: Sequence[Seen], xs: Sequence[float], y: float, notes: dict[str, int]) -> list[str]:
    assert all(0 <= index < len(seen) for index in notes.values())
    return [_text(xs[index], y, text, "small middle") for text, index in notes.items()]


def _states(seen: Sequence[Seen], xs: Sequence[float], step: float, top: int) -> list[str]:
    """Draw the state as a band: it changes at the call that trips."""
    change = xs[next(index for index, one in enumerate(seen) if one.state == "open")] + step / 2
    parts = [_text(LEFT - 14, top + 16, "state", "name")]
    for state, begin, end in (("closed", LEFT, change), ("open", change, RIGHT)):
        size = f'x="{begin:.0f}" y="{top}" width="{end - begin:.0f}" height="22"'
        parts += [
            f'<rect {size} fill="{BAND[state]}" stroke="#444"/>',
            _text((begin + end) / 2, top + 16, state.upper(), "middle"),
        ]
    return parts


def _legend(y: int) -> list[str]:
    parts: list[str] = []
    for x, (outcome, meaning) in zip(
        (LEFT, LEFT + 130, LEFT + 260),
        ((SUCCESS, "success"), (FAILURE, "failure"), ("rejected", "rejected")),
        strict=True,
    ):
        parts += [_call(Seen(0.0, outcome, "", 0, 0, None), x + CALL / 2, y), _text(x + 26, y + 5, meaning, "small")]
    return parts
