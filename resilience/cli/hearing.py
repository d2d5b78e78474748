"""Doing something with a module when somebody imports it, and not before.

`warnings` and `logging` have to be told where their messages go.  Most runs of a short command need neither, and the
one takes a fiftieth of the time that a bare interpreter takes to start, the other all of it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Hearing:
    """Calls a function when a module has been imported, once: at once if it is there.  Entered, it listens."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then

    def __enter__(self) -> None:
        """Listen: whoever imports the module meets this object, which lets the import go its way."""
        if self._name in sys.modules:
            self._then()
        else:
            sys.meta_path.insert(0, self)

    def __exit__(self, *error: object) -> None:
        """Listen no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find the module as everybody would, and hear when it is there."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:  # pragma: no branch - every interpreter has what is heard
            spec.loader = _Loader(spec.loader, self._then)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads a module as another loader does, and says when it is loaded."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self._loader = loader
        self._then = then
        self.create_module = loader.create_module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then say so."""
        self._loader.exec_module(module)
        self._then()
