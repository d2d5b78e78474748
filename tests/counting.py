"""Counts what a call executes, instead of timing it: bytecode instructions, by the file that they stand in.

What else the machine does changes no count, so a bound may stand close to it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roads import roads

from resilience import Runtime, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import CodeType, FrameType

Instructions = Counter[str]
"""By file: package and module, such as ``resilience/guard``."""

ROUNDS = 7


class WatchingLoadAndSave:
    """Wrappers around the hooks of a storage, which only pluggy can call."""

    @hookimpl(wrapper=True)
    def resilience_load(self) -> Generator[None, object, object]:
        return (yield)

    @hookimpl(wrapper=True)
    def resilience_save(self) -> Generator[None, object, object]:
        return (yield)


def counted_roads(storage: str, *, watched: bool = False) -> dict[str, Instructions]:
    """Count what each road executes, on a storage, with its hooks wrapped or not."""
    observers = [WatchingLoadAndSave()] if watched else []
    with Runtime(storage=storage, environ={}, observers=observers) as runtime:
        return {name: instructions(road) for name, road in roads(runtime).items()}


def instructions(call: Callable[[], object]) -> Instructions:
    """Count what one call executes, the module aside that defines it: the least of several rounds.

    Once a second, and whenever something was gathered for long enough, a call does more; the least is one that does
    not.
    """
    assert hasattr(call, "__code__")
    own = {call.__code__.co_filename, __file__}
    rounds: list[Instructions] = []
    for _ in range(ROUNDS):
        by_code = _counted(call)
        counted = Instructions()
        for code, count in by_code.items():
            if code.co_filename not in own:
                counted[_module(code.co_filename)] += count
        rounds.append(counted)
    return min(rounds, key=lambda counted: counted.total())


def _module(filename: str) -> str:
    path = Path(filename)
    return f"{path.parent.name}/{path.stem}"


if sys.version_info >= (3, 12):

    def _counted(call: Callable[[], object]) -> Counter[CodeType]:
        monitoring = sys.monitoring
        tool = next(tool for tool in (3, 4, 0) if monitoring.get_tool(tool) is None)
        event = monitoring.events.INSTRUCTION
        counted: Counter[CodeType] = Counter()

        def count(code: CodeType, offset: int) -> None:
            counted[code] += 1

        monitoring.use_tool_id(tool, "resilience's tests")
        try:
            monitoring.register_callback(tool, event, count)
            monitoring.set_events(tool, event)
            try:
                call()
            finally:
                monitoring.set_events(tool, 0)
                monitoring.register_callback(tool, event, None)
        finally:
            monitoring.free_tool_id(tool)
        return counted

else:

    def _counted(call: Callable[[], object]) -> Counter[CodeType]:
        counted: Counter[CodeType] = Counter()

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            frame.f_trace_opcodes = True
            if event == "opcode":
                counted[frame.f_code] += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return counted
