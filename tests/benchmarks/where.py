"""Where the time goes: the bytecode instructions of each kind of call, by the module that they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from counting import counted_roads

if TYPE_CHECKING:
    from benchmarks.bench import Bench


def measure(bench: Bench) -> dict[str, Any]:
    """Return kind of call, then module: instructions.  Noise does not change them."""
    return {road: dict(found) for road, found in counted_roads((bench.folder / "state").as_uri()).items()}
