"""The demo on a terminal, drawn live with rich."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from resilience.cli.demo.model import FAILING, HEALTHY, RECOVERING, WORKERS, readable, summary

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import RenderableType

    from resilience.cli.demo.model import Play, Row, Strip

MOVES = 5
"""Changes of state that are shown, the last ones."""

_GREEN, _RED, _YELLOW, _DIM = "green", "bold red", "bold yellow", "bright_black"

# Style, sign, and the sign where the terminal has no more than ASCII.
_KINDS = {
    "": ("", " ", " "),
    HEALTHY: (_GREEN, "━", "-"),
    FAILING: (_RED, "━", "!"),
    RECOVERING: (_GREEN, "━", "-"),
    "closed": (_GREEN, "━", "-"),
    "open": (_RED, "┅", "#"),
    "half_open": (_YELLOW, "◇", "?"),
    "ok": (_GREEN, "●", "+"),
    "failed": (_RED, "✗", "x"),
    "rejected": (_DIM, "·", "."),
}


def frame(play: Play, *, ascii_only: bool) -> RenderableType:
    """Draw the play as it stands."""
    left = Text.assemble(("resilience demo", "bold"), f"  {WORKERS} processes share one breaker, {WORKERS} have none")
    heading = Table.grid(expand=True)
    heading.add_column()
    heading.add_column(justify="right")
    heading.add_row(left, Text(f"{play.elapsed:4.1f} s", _DIM))
    arrow = "->" if ascii_only else "→"
    shown: list[Text] = [
        Text.assemble(
            (f"{move.elapsed:5.1f} s  ", _DIM),
            f"{move.label}: {readable(move.old)} {arrow} ",
            (readable(move.new), _KINDS[move.new][0]),
            (f"  {move.reason}", _DIM),
            overflow="ellipsis",
            no_wrap=True,
        )
        for move in play.moves[-MOVES:]
    ]
    # As many lines from the start, so that nothing jumps.
    return Group(
        Padding(heading, (0, 1)), _table(play, ascii_only=ascii_only), *shown, *[Text()] * (MOVES - len(shown))
    )


def _table(play: Play, *, ascii_only: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", min_width=8)
    table.add_column("state", min_width=10)
    for name in ("calls", "failed", "rejected"):
        table.add_column(name, justify="right", min_width=len(name))
    table.add_column("over the time", no_wrap=True)

    def strip(strip: Strip) -> Text:
        runs = ((_KINDS[kind], len(list(run))) for kind, run in groupby(strip.kinds))
        return Text.assemble(*((signs[ascii_only] * length, style) for (style, *signs), length in runs))

    def add(row: Row) -> None:
        counts = row.counts
        table.add_row(
            row.label,
            Text(readable(row.state), _KINDS[row.state][0]) if row.protected else Text("no breaker", _DIM),
            str(row.calls),
            Text(str(counts["failed"]), _RED if counts["failed"] else ""),
            str(counts["rejected"]) if row.protected else "",
            strip(row.strip),
        )

    table.add_row("server", Text(play.phase, _KINDS[play.phase][0]), "", "", "", strip(play.server_strip))
    table.add_row("breaker", Text(readable(play.state), _KINDS[play.state][0]), "", "", "", strip(play.breaker_strip))
    for protected in (True, False):
        table.add_section()
        for row in play.rows:
            if row.protected is protected:
                add(row)
    return table


def conclusion(play: Play) -> RenderableType:
    """Draw the summary."""
    *lines, last = summary(play)
    return Panel(Text.assemble("\n".join(lines), "\n", (last, "bold green")), expand=False)


class Screen:
    """Draws on the console as it goes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii_only = not console.encoding.startswith("utf")
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, play: Play) -> None:
        """Draw again."""
        self._live.update(frame(play, ascii_only=self._ascii_only), refresh=True)

    def end(self, play: Play) -> None:
        """Draw the summary below."""
        self._console.print(conclusion(play))
