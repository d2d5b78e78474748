"""What every group of measurements is given: interpreters, a folder, and how long it may take."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    T = TypeVar("T")

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The version of the interpreter that conducts, and that all runs on that is measured on one only."""


@dataclass
class Bench:
    folder: Path
    """For what is measured; on the disk that is named beside the figures."""
    quick: bool
    pythons: dict[str, str] = field(default_factory=lambda: {HERE: sys.executable})
    """Versions, and interpreters in whose environments framework and rivals are installed."""

    def of(self, whole: T, quick: T) -> T:
        """Choose how much is done."""
        return quick if self.quick else whole
