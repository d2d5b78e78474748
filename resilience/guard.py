"""What a user holds: it decorates, enters `with`, calls; each a thin shell around admit and report.

The shell for a function is chosen once, at decoration.  The dozen lines that nearly every call takes stand in
`_sync_shell`.
"""

from __future__ import annotations

from resilience.cell import NEVER, Cell, Memo
from resilience.errors import ConfigurationError, PolicyRejected
from resilience.permits import Permit, checked_duration, class_name, error_name, kept_text, parse_token, pop, push
from resilience.policy import FAILURE, NEUTRAL, SUCCESS
from resilience.storage import Key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
    from types import TracebackType
    from typing import Any, ClassVar, ParamSpec, Self, TypeVar

    from resilience.errors import StorageError
    from resilience.policy import Outcome, Policy
    from resilience.runtime import Runtime
    from resilience.settings import Configuration
    from resilience.storage import Version

    P = ParamSpec("P")
    R = TypeVar("R")
    F = TypeVar("F", bound=Callable[..., Any])


class Seen:
    """What was read of a guard: the state of its policy, and how sure that is.

    `now` is the wall-clock second of the look, `policy` what the state means, `version` that of the record (`None`:
    there is none).  `degraded` says why it may not be the shared state; `None`: it is.
    """

    __slots__ = ("degraded", "now", "policy", "state", "version")

    def __init__(
        self, state: Any, policy: Any, now: float, version: Version | None, degraded: StorageError | None
    ) -> None:
        self.state = state
        self.policy = policy
        self.now = now
        self.version = version
        self.degraded = degraded


class Guard:
    """Protects calls with a policy whose state everybody shares who names the same storage.

    Making one checks the arguments and touches nothing: it binds to the current runtime at its first use, and again
    after a fork or when the runtime is replaced.  It may be used from any number of threads and tasks at once.

    :param name: 1 to 1000 printable characters; who uses the same name shares the state.
    :param given: the settings given in code; `None`: there is no code, see `stored`.
    :param runtime: bind to this runtime instead of the current one.
    :raises ConfigurationError: name or settings are impossible.
    """

    __slots__ = ("__weakref__", "_cell", "_given", "_key", "_runtime")

    policy_type: ClassVar[type[Policy]]
    """The policy class; a subclass sets it."""

    def __init__(self, name: str, given: Mapping[str, Any] | None, runtime: Runtime | None = None) -> None:
        label = type(self).__name__
        try:
            self._key = Key(self.policy_type.kind, name)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{label}: {error}") from None
        if runtime is not None:
            from resilience.runtime import Runtime

            if not isinstance(runtime, Runtime):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are checked
                raise ConfigurationError(f"{label}({name!r}): runtime is a Runtime, not {type(runtime).__name__}")
        if given:
            from resilience.settings import check_given

            check_given(label, name, self.policy_type.settings_model(), given)
        self._given = given
        self._runtime = runtime
        self._cell: Cell = _UNBOUND

    @property
    def name(self) -> str:
        """The name it was made with."""
        return self._key.name

    def __repr__(self) -> str:
        """Class and name; the state would need a look at the storage."""
        return f"{type(self).__name__}({self._key.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as name and settings: what is bound here means nothing elsewhere."""
        if self._runtime is not None:
            raise TypeError(f"{self!r} is bound to a runtime of this process and cannot be pickled")
        return _remade, (type(self), self._key.name, None if self._given is None else dict(self._given))

    # -- binding -----------------------------------------------------------------------------------------------------

    def _bound(self) -> Cell:
        """Return the cell, bound to the current runtime."""
        cell = self._cell
        if cell.engine is None:
            from resilience.runtime import Runtime

            runtime = self._runtime or Runtime.current()
            cell = self._cell = self._bind(runtime)
        return cell

    def _bind(self, runtime: Runtime) -> Cell:
        cell = self._bind_with(runtime, None)
        if self._given is None:
            stored = cell.policy.stored_settings(cell.reach().read(cell).state)
            if stored:
                cell = self._bind_with(runtime, stored)
        return cell

    def _bind_with(self, runtime: Runtime, stored: Mapping[str, object] | None) -> Cell:
        remake = _Remake(runtime, self.policy_type, self.name, self._given, stored)
        return runtime.bind(self._key, remake(None), remake)

    @classmethod
    def stored(cls, name: str, runtime: Runtime | None = None) -> Self:
        """Make a guard that has no settings of its own: those bind it that the code which made it stored.

        What a shell verb holds: a shell has no code, and opens a breaker where the code said.
        """
        guard = cls.__new__(cls)
        Guard.__init__(guard, name, None, runtime)
        return guard

    def _admit(self) -> Memo | Permit:
        engine = self._cell.engine
        if engine is None:
            engine = self._bound().reach()
        return engine.admit(self._cell)

    async def _aadmit(self) -> Memo | Permit:
        cell = self._bound()
        return await cell.reach().aadmit(cell)

    def _strayed(self) -> Permit:
        """Make a permit for a block that ends in another context than it began in, where its own is not to be found.

        As with `record_*` without a token, its report belongs to the present epoch.
        """
        return Permit(self._bound(), None)

    # -- use ---------------------------------------------------------------------------------------------------------

    def acquire(self) -> Permit:
        """Let one call in, to be reported through the permit.

        :raises PolicyRejected: the policy lets none in now.
        :raises StorageUnavailable: the storage does not answer and `on_store_error` is ``raise``.
        """
        permit = self._admit()
        return Permit(permit.cell, permit.epoch) if isinstance(permit, Memo) else permit

    def admit(self) -> None:
        """Let one call in that another process may report, without a permit: asking is a promise to `record` it.

        :raises PolicyRejected: the policy lets none in now.
        :raises StorageUnavailable: the storage does not answer and `on_store_error` is ``raise``.
        """
        cell = self._bound()
        cell.reach().admit(cell, anonymous=True)

    def record(
        self,
        outcome: Outcome,
        error: BaseException | str | None = None,
        duration: float | None = None,
        *,
        token: str | None = None,
        strict: bool = False,
    ) -> None:
        """Report how a call went for which there is no permit here.

        :param error: what failed, of which the class name is kept.
        :param duration: seconds that it took.
        :param token: that of the permit, where the caller has one; else the report belongs to the present state.
        :param strict: raise if the report is not in the shared record afterwards; else that never raises.
        :raises TypeError: the duration is no number.
        :raises ValueError: it is no token.
        :raises StorageError: `strict`, and the storage did not do it.
        """
        if duration is not None:
            duration = checked_duration(duration)
        epoch, lease = (None, None) if token is None else parse_token(token)
        cell = self._bound()
        engine = cell.reach()
        (engine.record if strict else engine.report)(cell, outcome, epoch, lease, error_name(error), duration)

    def read(self, *, strict: bool = False) -> Seen:
        """Look at the state of the policy without changing it; a guard makes its `status` of that.

        :param strict: raise if the shared record cannot be read; else that never raises.
        :raises StorageError: `strict`, and it cannot be read.
        """
        cell = self._bound()
        reading = cell.reach().read(cell)
        if strict and reading.degraded is not None:
            raise reading.degraded
        return Seen(reading.state, cell.policy, cell.clock.wall(), reading.version, reading.degraded)

    def control(self, verb: str, /, **arguments: object) -> None:
        """Change the state by hand: the policy gets a `resilience.policy.Control`.

        Texts among the arguments, such as a reason, are kept for all to see: they lose the secrets of URLs.

        :raises ValueError: it makes no sense to the policy.
        :raises StorageError: the storage did not do it; with `outcome_unknown`, it may have.
        """
        cell = self._bound()
        texts = {name: kept_text(value) for name, value in arguments.items() if isinstance(value, str)}
        cell.reach().control(cell, verb, {**arguments, **texts})

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function under protection and return what it returns.

        :raises PolicyRejected: the policy lets no call in now; the function was not called.
        :raises TypeError: it is a coroutine function, for which there is `acall`, or a generator function: each ends
            before its work has begun.
        """
        flags = _flags(function)
        if flags & _CO_COROUTINE:
            raise TypeError(f"{self!r}: {function!r:.80} is a coroutine function; await acall(…), or decorate it")
        if flags & _CO_ANY_GENERATOR:
            raise TypeError(f"{self!r}: {function!r:.80} is a generator function, which runs step by step; decorate it")
        return _sync_shell(self, function)(*args, **kwargs)

    async def acall(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a coroutine function under protection and return what it returns.

        :raises PolicyRejected: the policy lets no call in now; the function was not called.
        :raises TypeError: it is a generator function, or what it returned cannot be awaited; nothing is judged of it.
        """
        flags = _flags(function)
        if flags & _CO_ANY_GENERATOR and not flags & _CO_ITERABLE_COROUTINE:
            raise TypeError(f"{self!r}: {function!r:.80} is a generator function, which runs step by step; decorate it")
        if not flags & _CO_COROUTINE:  # what it returns may be awaitable all the same
            function = _checked(self, function)
        return await _async_shell(self, function)(*args, **kwargs)

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function.

        A generator is admitted at its first step and judged when it ends or fails; closed early it is neutral.  What
        `contextlib` made of a generator function is admitted when its block is entered and judged when that is left,
        below `contextmanager` as above it.  Nothing is judged of a function of another kind that returns a coroutine,
        of which a `RuntimeWarning` tells where an outcome is looked at, as that of a guard's first call always is.
        """
        if isinstance(function, (staticmethod, classmethod)):
            return _method(self, function)  # type: ignore[no-any-return]
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"{self!r} decorates functions; {function!r:.80} is none")
        import functools
        import inspect

        make = _maker_of_manager(function)
        if make is not None:  # it returns before its block begins
            return functools.update_wrapper(make(self(function.__wrapped__)), function)  # type: ignore[attr-defined,return-value]  # `contextlib` sets it
        target: Any = function
        while isinstance(target, functools.partial):
            target = target.func
        if not inspect.isroutine(target) and not inspect.iscoroutinefunction(target):  # what a mock says of itself
            target = target.__call__
        if inspect.iscoroutinefunction(target) or _flags(target) & _CO_ITERABLE_COROUTINE:
            shell: Callable[..., Any] = _async_shell(self, function)
        elif inspect.isasyncgenfunction(target):
            shell = _async_generator_shell(self, function)
        elif inspect.isgeneratorfunction(target):
            shell = _generator_shell(self, function)
        else:
            shell = _sync_shell(self, function)
        return functools.update_wrapper(shell, function)  # type: ignore[return-value]

    def __enter__(self) -> Self:
        """Let the block in.

        :raises PolicyRejected: the policy lets no call in now; the block does not run.
        """
        cell = self._cell
        memo = cell.memo
        permit = memo if memo.refusal is None and memo.holds(memo.clock()) else self._admit()
        push(self._key, permit, _begin(permit))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Report how the block went."""
        permit, begun = pop(self._key) or (self._strayed(), None)
        duration = _lasted(permit, begun)
        if error is not None:
            permit.report(*_judged_error(permit, error, duration))
        else:
            permit.report(SUCCESS, None, duration)

    async def __aenter__(self) -> Self:
        """Let the block in.

        :raises PolicyRejected: the policy lets no call in now; the block does not run.
        """
        cell = self._cell
        memo = cell.memo
        permit = memo if memo.refusal is None and memo.holds(memo.clock()) else await self._aadmit()
        push(self._key, permit, _begin(permit))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Report how the block went."""
        permit, begun = pop(self._key) or (self._strayed(), None)
        duration = _lasted(permit, begun)
        if isinstance(error, GeneratorExit):  # closed from outside: nothing may be awaited any more
            permit.report(*_judged_error(permit, error, duration))
        elif error is not None:
            await permit.areport(*_judged_error(permit, error, duration))
        else:
            await permit.areport(SUCCESS, None, duration)


class _Remake:
    """Makes the policy of a guard, again when the configuration was reloaded.

    A function that knew as much would be four times as big.  It does not know the guard, which holds the cell.
    """

    __slots__ = ("_arguments", "_runtime")

    def __init__(
        self,
        runtime: Runtime,
        kind: type[Policy],
        name: str,
        given: Mapping[str, Any] | None,
        stored: Mapping[str, object] | None,
    ) -> None:
        self._runtime = runtime
        self._arguments = (kind, name, given, stored)

    def __call__(self, configuration: Configuration | None) -> Policy:
        return self._runtime.policy(*self._arguments, configuration)


def _method(guard: Guard, method: Any) -> Any:
    return type(method)(guard(method.__func__))


def _maker_of_manager(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return which decorator of `contextlib` made a context manager of a generator function; `None`: neither did.

    All that one of them makes is the same code, whatever it stands around.
    """
    import contextlib

    code = getattr(function, "__code__", None)
    makers: tuple[Any, ...] = (contextlib.contextmanager, contextlib.asynccontextmanager)
    return next((make for make in makers if make(iter).__code__ is code), None)


def _remade(kind: type[Guard], name: str, given: dict[str, Any] | None) -> Guard:
    return kind.stored(name) if given is None else kind(name, **given)


_UNBOUND = Cell.unbound()
"""The cell of every guard that was not used yet: nothing holds, so the slow road binds."""


# What `inspect` offers under these names, without what it imports.
_CO_COROUTINE = 0x80
_CO_ITERABLE_COROUTINE = 0x100
_CO_ANY_GENERATOR = 0x20 | 0x200


def _flags(function: object) -> int:
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0  # a mock has any attribute


def _is_begun(guard: Guard, function: object, permit: Memo | Permit, result: object) -> bool:
    """Whether a call has done what it was meant to do; else it returned the coroutine of it, and a warning says so.

    Only asked where an outcome must be looked at, as that of the first call always is: to ask each time costs too much.
    """
    if not hasattr(type(result), "cr_await"):
        return True
    from warnings import warn

    permit.report(NEUTRAL, None, None)
    warn(
        f"{guard!r}: {function!r:.80} returned a coroutine, of which nothing is judged; decorate the coroutine "
        "function itself, or await acall(…)",
        RuntimeWarning,
        stacklevel=3,
    )
    return False


class _NotAwaitable(Exception):
    """A function that was to be awaited returned something else; the text says so."""


def _checked(guard: Guard, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Make a function that raises `_NotAwaitable` if what another one returned cannot be awaited."""

    def checked(*args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        from inspect import isawaitable

        result: object = function(*args, **kwargs)
        if not isawaitable(result):
            what = type(result).__name__
            raise _NotAwaitable(f"{guard!r}: {function!r:.80} returned {what}, which cannot be awaited; use call(…)")
        return result

    return checked


def _begin(permit: Memo | Permit) -> float | None:
    """Read when a call begins, where its duration matters: monotonic seconds."""
    timer = permit.cell.timer
    return None if timer is None else timer()


def _lasted(permit: Memo | Permit, begun: float | None) -> float | None:
    timer = permit.cell.timer
    return None if timer is None or begun is None else timer() - begun


def _judged_error(
    permit: Memo | Permit, error: BaseException, duration: float | None
) -> tuple[Outcome, str | None, float | None]:
    cell = permit.cell
    if isinstance(error, PolicyRejected) and error.name == cell.key.name:
        return NEUTRAL, None, duration  # of this guard, used inside itself: it says nothing new of the dependency
    outcome = cell.policy.judge_error(error, duration)
    return outcome, class_name(type(error)) if outcome == FAILURE else None, duration


def _judged_result(
    permit: Memo | Permit, result: object, duration: float | None
) -> tuple[Outcome, str | None, float | None]:
    if permit.tickets is not None:  # whatever is returned is a success
        return SUCCESS, None, duration
    outcome = permit.cell.policy.judge_result(result)
    return outcome, "failure_if" if outcome == FAILURE else None, duration


# The two shells below have in line what would cost a call: `Memo.holds` on the way in, and on the way out what
# `Memo.report` does with a success that changes nothing or is like the others of its row.  Both begin with what the
# cell holds and go by `NEVER` where that holds no longer.


def _sync_shell(guard: Guard, function: Callable[P, R]) -> Callable[P, R]:  # noqa: C901 - see above
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:  # noqa: C901, PLR0912 - likewise
        permit: Memo | Permit
        cell = guard._cell  # noqa: SLF001 - this module's own
        permit = cell.memo
        clock = permit.clock
        now = clock()
        try:
            if permit.view[0] != permit.word or not permit.since <= now < permit.until:
                permit = NEVER
        except ValueError:  # the storage released what it had mapped
            permit = NEVER
        if permit.refusal is not None:
            if permit is not NEVER:
                raise permit.rejection(now)
            permit = guard._admit()  # noqa: SLF001 - the shell is the guard's
            cell = permit.cell
            clock = permit.clock
            now = clock()
        timer = cell.timer
        begun = 0.0 if timer is None else timer()
        try:
            # To merge no keywords costs a sixth of a bare call.
            result = function(*args, **kwargs) if kwargs else function(*args)  # type: ignore[call-arg]
        except BaseException as error:
            took = None if timer is None else timer() - begun
            if isinstance(error, PolicyRejected):
                outcome, name, took = _judged_error(permit, error, took)
            else:  # what that comes to then, without a call and a tuple, which are half of a hundredth of a failure
                outcome = permit.cell.policy.judge_error(error, took)
                name = class_name(type(error)) if outcome == FAILURE else None
            permit.report(outcome, name, took)
            raise
        tickets = permit.tickets
        if tickets is None:
            try:
                if permit.view[0] == permit.quiet:
                    return result
            except ValueError:
                pass
        elif (
            now <= clock() < permit.until
            if timer is None  # else what the call took tells the time as well, and a look at the clock is spared
            else (lasted := timer() - begun) <= cell.policy.slow_after and now + lasted < permit.until
        ):
            for more in tickets:  # takes one, if there is one
                if not more:
                    permit.cell.settle()
                return result
        if _is_begun(guard, function, permit, result):
            permit.report(*_judged_result(permit, result, None if timer is None else timer() - begun))
        return result

    return guarded


def _async_shell(  # noqa: C901 - see above
    guard: Guard, function: Callable[P, Awaitable[R]]
) -> Callable[P, Coroutine[Any, Any, R]]:
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:  # noqa: C901, PLR0912 - likewise
        permit: Memo | Permit
        cell = guard._cell  # noqa: SLF001 - this module's own
        permit = cell.memo
        clock = permit.clock
        now = clock()
        try:
            if permit.view[0] != permit.word or not permit.since <= now < permit.until:
                permit = NEVER
        except ValueError:  # the storage released what it had mapped
            permit = NEVER
        if permit.refusal is not None:
            if permit is not NEVER:
                raise permit.rejection(now)
            permit = await guard._aadmit()  # noqa: SLF001
            cell = permit.cell
            clock = permit.clock
            now = clock()
        timer = cell.timer
        begun = 0.0 if timer is None else timer()
        try:
            result = await (function(*args, **kwargs) if kwargs else function(*args))  # type: ignore[call-arg]
        except _NotAwaitable as refused:
            await permit.areport(NEUTRAL, None, None)
            raise TypeError(str(refused)) from None
        except GeneratorExit as error:  # closed from outside: nothing may be awaited any more
            permit.report(*_judged_error(permit, error, None if timer is None else timer() - begun))
            raise
        except BaseException as error:
            await permit.areport(*_judged_error(permit, error, None if timer is None else timer() - begun))
            raise
        tickets = permit.tickets
        if tickets is None:
            try:
                if permit.view[0] == permit.quiet:
                    return result
            except ValueError:
                pass
        elif (
            now <= clock() < permit.until
            if timer is None
            else (lasted := timer() - begun) <= cell.policy.slow_after and now + lasted < permit.until
        ):
            for more in tickets:
                if not more:
                    await permit.cell.asettle()
                return result
        await permit.areport(*_judged_result(permit, result, None if timer is None else timer() - begun))
        return result

    return guarded


class _Watch:
    """Measures the time that is spent inside a generator; `None` where nobody asks."""

    __slots__ = ("_timer", "spent")

    def __init__(self, permit: Memo | Permit) -> None:
        self._timer = permit.cell.timer
        self.spent = None if self._timer is None else 0.0

    def __enter__(self) -> None:
        """Go in."""
        if self._timer is not None and self.spent is not None:
            self.spent -= self._timer()

    def __exit__(self, *error: object) -> None:
        """Come out."""
        if self._timer is not None and self.spent is not None:
            self.spent += self._timer()


class _Watched:
    """A generator, as far as `yield from` goes, with a watch on each step."""

    __slots__ = ("_generator", "_watch")

    def __init__(self, generator: Generator[Any, Any, Any], watch: _Watch) -> None:
        self._generator = generator
        self._watch = watch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with self._watch:
            return next(self._generator)

    def send(self, value: Any) -> Any:
        with self._watch:
            return self._generator.send(value)

    def throw(self, error: BaseException) -> Any:
        with self._watch:
            return self._generator.throw(error)

    def close(self) -> None:
        with self._watch:
            self._generator.close()


def _generator_shell(
    guard: Guard, function: Callable[P, Generator[Any, Any, R]]
) -> Callable[P, Generator[Any, Any, R]]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        permit = guard._admit()  # noqa: SLF001 - this module's own
        watch = _Watch(permit)
        try:
            generator: Any = function(*args, **kwargs)
            if watch.spent is not None:
                generator = _Watched(generator, watch)
            result: R = yield from generator  # pyright: ignore[reportUnknownVariableType] - as what it was made from
        except BaseException as error:
            permit.report(*_judged_error(permit, error, watch.spent))
            raise
        permit.report(SUCCESS, None, watch.spent)
        return result  # pyright: ignore[reportUnknownVariableType] - likewise

    return guarded


def _async_generator_shell(
    guard: Guard, function: Callable[P, AsyncGenerator[Any, Any]]
) -> Callable[P, AsyncGenerator[Any, Any]]:
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        permit = await guard._aadmit()  # noqa: SLF001 - this module's own
        watch = _Watch(permit)
        at_rest = False
        try:
            generator = function(*args, **kwargs)
            with watch:
                item = await anext(generator)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    with watch:
                        await generator.aclose()
                    at_rest = True
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer: the generator's to handle
                    with watch:
                        item = await generator.athrow(error)
                else:
                    with watch:
                        item = await generator.asend(sent)
        except StopAsyncIteration:
            pass
        except BaseException as error:
            judged = _judged_error(permit, error, watch.spent)
            if isinstance(error, GeneratorExit) and not at_rest:
                permit.report(*judged)  # whoever awaits this was closed: nothing may be awaited any more
            else:
                await permit.areport(*judged)
            raise
        await permit.areport(SUCCESS, None, watch.spent)

    return guarded
