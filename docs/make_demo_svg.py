"""Makes the README's picture, ``docs/_static/demo.svg``: ``python docs/make_demo_svg.py``.

It plays the real demo and draws how it ends.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from resilience.cli.demo.screen import conclusion, frame
from resilience.cli.demo.stage import perform

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from resilience.cli.demo.model import Play

PICTURE = Path(__file__).with_name("_static") / "demo.svg"
SECONDS = 12.0
COLUMNS = 80


class Nothing:
    """Shows nothing while the demo plays."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""

    def update(self, play: Play) -> None:
        """Show nothing."""


def picture(play: Play) -> str:
    """Draw a play as SVG, without the fonts that rich would fetch from elsewhere."""
    console = Console(
        record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor", no_color=False
    )
    console.print(frame(play, ascii_only=False))
    console.print(conclusion(play))
    svg = console.export_svg(title="resilience demo", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(perform(Nothing(), SECONDS)), "utf-8")
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")
