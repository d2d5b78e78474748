"""The two marks that pluggy reads: ours on the specifications, a plugin's on its implementations.

They do what `pluggy.HookspecMarker` and `pluggy.HookimplMarker` do, which is to set one attribute, without the import
of pluggy: that takes twice as long as a bare interpreter, and every plugin needs the mark as soon as it is imported.
"""

from __future__ import annotations

PROJECT = "resilience"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    import pluggy

    F = TypeVar("F", bound=Callable[..., Any])


def _marked(function: F, what: str, options: dict[str, object]) -> F:
    setattr(function, f"{PROJECT}_{what}", options)
    return function


class _Hookspec:
    project_name = PROJECT

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        firstresult: bool = False,  # noqa: FBT001, FBT002 - as in pluggy
        historic: bool = False,  # noqa: FBT001, FBT002 - likewise
        warn_on_impl: Warning | None = None,
        warn_on_impl_args: dict[str, Warning] | None = None,
    ) -> Any:
        if historic and firstresult:
            raise ValueError("cannot have a historic firstresult hook")
        options: dict[str, object] = {
            "firstresult": firstresult,
            "historic": historic,
            "warn_on_impl": warn_on_impl,
            "warn_on_impl_args": warn_on_impl_args,
        }

        def mark(function: F) -> F:
            return _marked(function, "spec", options)

        return mark if function is None else mark(function)


class _Hookimpl:
    """Marks a method as an implementation of the hook whose name it has: ``@hookimpl``.

    What it takes is what pluggy's marker takes, such as ``@hookimpl(wrapper=True)`` for one that watches.
    """

    project_name = PROJECT

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        hookwrapper: bool = False,  # noqa: FBT001, FBT002 - as in pluggy
        optionalhook: bool = False,  # noqa: FBT001, FBT002 - likewise
        tryfirst: bool = False,  # noqa: FBT001, FBT002 - likewise
        trylast: bool = False,  # noqa: FBT001, FBT002 - likewise
        specname: str | None = None,
        wrapper: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> Any:
        options: dict[str, object] = {
            "hookwrapper": hookwrapper,
            "optionalhook": optionalhook,
            "tryfirst": tryfirst,
            "trylast": trylast,
            "specname": specname,
            "wrapper": wrapper,
        }

        def mark(function: F) -> F:
            return _marked(function, "impl", options)

        return mark if function is None else mark(function)


if TYPE_CHECKING:
    hookspec = pluggy.HookspecMarker(PROJECT)
    hookimpl = pluggy.HookimplMarker(PROJECT)
else:
    hookspec = _Hookspec()
    hookimpl = _Hookimpl()
