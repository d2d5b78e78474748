"""What a run of the kit found, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from textwrap import indent, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Outcome = Literal["passed", "failed", "skipped"]

SIGNS = {"passed": "✓", "failed": "✗", "skipped": "-"}


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found.

    `outcome` is ``passed``, ``failed`` or ``skipped``; `what`, `why` and `fix` are those of the violation, `reason`
    says why it was skipped; `notes` are worth telling and no fault.
    """

    name: str
    title: str
    group: str
    outcome: Outcome
    seconds: float
    what: str = ""
    why: str = ""
    fix: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Some lines for a person."""
        lines = [f"{SIGNS[self.outcome]} {self.name:<26} {self.title}"]
        if self.outcome == "failed":
            lines += [_part("", self.what), _part("why it matters: ", self.why), _part("what to do: ", self.fix)]
        elif self.reason:
            lines.append(_part("", self.reason))
        lines += [_part("note: ", note) for note in self.notes]
        return "\n".join(lines)


def _part(label: str, text: str) -> str:
    paragraphs = [line for part in (label + text).splitlines() for line in wrap(part, 92) or [""]]
    return indent("\n".join(paragraphs), "      ")


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the kit found.

    `measured` maps what was measured to numbers; `seconds` is how long it took; `coroutines` says how the engine
    reaches the storage from coroutines.
    """

    storage: str
    kit: str
    quick: bool
    capabilities: tuple[str, ...]
    results: tuple[Result, ...]
    measured: dict[str, float]
    seconds: float
    coroutines: str = ""

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def __getitem__(self, name: str) -> Result:
        """The result of one check.

        :raises KeyError: it was not run.
        """
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def text(self) -> str:
        """For a terminal."""
        lines: list[str] = []
        group = ""
        for result in self.results:
            if result.group != group:
                group = result.group
                lines += ["", group]
            lines.append(indent(str(result), "  "))
        return "\n".join([*self._head(), *lines, *self._tail()])

    def summary(self) -> str:
        """For a terminal, without the results: what was tested, what was measured, how many passed."""
        return "\n".join([*self._head(), *self._tail()])

    def _head(self) -> list[str]:
        return [
            f"{self.storage}, kit {self.kit}{', quick' if self.quick else ''}",
            f"declares: {', '.join(self.capabilities) or 'nothing'}",
            *([f"from coroutines: {self.coroutines}"] if self.coroutines else []),
        ]

    def _tail(self) -> list[str]:
        lines: list[str] = []
        if self.measured:
            lines += ["", "measured"]
            lines += [f"  {what:<48} {number:12.4g}" for what, number in self.measured.items()]
        counts = {
            outcome: sum(result.outcome == outcome for result in self.results)
            for outcome in ("passed", "failed", "skipped")
        }
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return [*lines, "", f"{said or 'nothing was run'} in {self.seconds:.1f} s"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values: what `json` writes."""
        return {"ok": self.ok, **asdict(self)}

    def json(self) -> str:
        """One JSON object."""
        return json.dumps(self.as_dict(), ensure_ascii=False)
