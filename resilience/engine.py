"""Admit, report, control, read: the one place where a policy and a storage meet.

Each is written once, as a generator of requests to the storage (see `resilience.commit`), and driven with plain calls
or awaited.  The road of nearly every call is none of them: it is the memo that `admit` looks at first.
"""

from __future__ import annotations

from resilience.cell import NEVER, Cell, Memo, View
from resilience.commit import adrive, commit, drive
from resilience.errors import (
    ResilienceError,
    StorageCorrupt,
    StorageError,
    StorageIncompatible,
    StorageLockTimeout,
    StorageUnavailable,
)
from resilience.fallback import PrivateRecord
from resilience.fuse import Fuse
from resilience.gather import Owed, Owing
from resilience.permits import Permit
from resilience.policy import FAILURE, NEUTRAL, Admit, Control, Lease, Refusal
from resilience.storage import Capability, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import weakref
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any, TypeVar

    from resilience.announce import Announcer
    from resilience.clock import Clock
    from resilience.commit import Committed, Requests
    from resilience.policy import Outcome, Policy, PolicyEvent, State, Step
    from resilience.ports import Ports
    from resilience.storage import Key, Version

    T = TypeVar("T")

LOCK_TIMEOUTS_OF_AN_OUTAGE = 2
"""So many lock time-outs of a key in a row count as `StorageUnavailable`."""


class Reading:
    """What was read for a person: the state, the version it has, and why it may not be the shared one."""

    __slots__ = ("degraded", "state", "version")

    def __init__(self, state: State, version: Version | None, degraded: StorageError | None) -> None:
        self.state = state
        self.version = version
        self.degraded = degraded


class Engine:
    """Everything that a guard asks, on one open storage.

    :param timeout: seconds that the waiting of one decision may take in all.
    :param max_staleness: seconds for which a snapshot is trusted that cannot tell whether it is current.
    """

    __slots__ = ("_announcer", "_cells", "_clock", "_fuse", "_max_staleness", "_ports", "_timeout")

    def __init__(
        self,
        ports: Ports,
        announcer: Announcer,
        clock: Clock,
        cells: weakref.WeakSet[Cell],
        *,
        timeout: float,
        max_staleness: float,
    ) -> None:
        self._ports = ports
        self._announcer = announcer
        self._clock = clock
        self._cells = cells
        self._timeout = timeout
        self._max_staleness = max_staleness
        self._fuse = Fuse()

    def cell(self, key: Key, policy: Policy) -> Cell:
        """Make this process's view of a key, for one guard."""
        cell = Cell(key, policy, self._ports, self, self._clock.wall)
        self._cells.add(cell)
        return cell

    # -- admission ---------------------------------------------------------------------------------------------------

    def admit(self, cell: Cell, *, anonymous: bool = False) -> Memo | Permit:
        """Let a call in.

        :param anonymous: whoever reports will have no token.
        :raises PolicyRejected: the policy does not.
        :raises StorageUnavailable: the storage does not answer and `on_store_error` is ``raise``.
        """
        memo = cell.memo
        now = self._clock.wall()
        if memo.holds(now):
            if memo.refusal is None:
                return memo
            raise memo.refusal.error(cell.key.name, now)
        return drive(self._admission(cell, anonymous=anonymous))

    async def aadmit(self, cell: Cell) -> Memo | Permit:
        """Do what `admit` does without blocking the event loop."""
        memo = cell.memo
        now = self._clock.wall()
        if memo.holds(now):
            if memo.refusal is None:
                return memo
            raise memo.refusal.error(cell.key.name, now)
        return await self._conduct(
            lambda patient: self._admission(cell, anonymous=False, patient=patient), abandon=_give_back
        )

    def _admission(self, cell: Cell, *, anonymous: bool, patient: bool = True) -> Requests[Memo | Permit]:
        deadline = self._clock.monotonic() + self._timeout
        outage, trying = self._outage(cell)
        if outage is None:
            try:
                permit = yield from self._decide(cell, anonymous, deadline, patient=patient, force=trying)
            except StorageLockTimeout as error:
                if not patient:
                    raise
                outage = self._lock_timeout(cell, error)
                if outage is None:
                    refusal = cell.policy.refuse(cell.state, "the lock of its record could not be had")
                    raise refusal.error(cell.key.name, self._clock.wall()) from error
            except (StorageUnavailable, StorageIncompatible) as error:
                outage = error
            else:
                self._mend(cell, trying)
                return permit
            self._blow(cell, outage)
        return (yield from self._admission_in_an_outage(cell, outage, anonymous, deadline, patient=patient))

    def _admission_in_an_outage(
        self, cell: Cell, outage: StorageError, anonymous: bool, deadline: float, *, patient: bool
    ) -> Requests[Memo | Permit]:
        mode = cell.policy.on_store_error
        if mode == "allow":
            return Permit(cell, cell.state.epoch, accounted=False)
        if mode == "deny":
            raise cell.policy.refuse(None, str(outage)).error(cell.key.name, self._clock.wall()) from outage
        if mode == "raise":
            raise outage
        shadow = self._shadow(cell)
        permit = yield from self._decide(shadow, anonymous, deadline, patient=patient)
        if permit is shadow.memo:  # the fast road goes on, until the storage may be asked again
            fuse = self._fuse if outage.key is None or cell.fuse is None else cell.fuse
            until = self._clock.wall() + fuse.seconds_to_retry(self._clock.monotonic())
            shadow.memo.until = min(shadow.memo.until, until)
            cell.memo = shadow.memo
        return permit

    def _decide(
        self, cell: Cell, anonymous: bool, deadline: float, *, patient: bool, force: bool = False
    ) -> Requests[Memo | Permit]:
        """Load unless current, step, and commit if the step says NOW."""
        try:
            view = yield from self._look(cell, deadline)
        except (StorageCorrupt, ValueError):
            pass  # the commit mends it, under the lock
        else:
            now = self._clock.wall()
            step = cell.policy.step(view.state, Admit(now, 0, anonymous=anonymous))
            if not step.keep and not force:
                return self._permit(cell, step, now, cell.remember(view, step, now, self._max_staleness))
        done = yield from self._commit(
            cell,
            lambda now: Admit(now, self._clock.draw(), anonymous=anonymous),
            deadline,
            patient=patient,
            force=force,
        )
        return self._permit(cell, done.step, done.now, None)

    @staticmethod
    def _permit(cell: Cell, step: Step, now: float, memo: Memo | None) -> Memo | Permit:
        decision = step.decision
        if isinstance(decision, Refusal):
            raise decision.error(cell.key.name, now)
        if isinstance(decision, Lease):
            return Permit(cell, step.state.epoch, decision.token, decision.expires_at)
        return memo or Permit(cell, step.state.epoch)

    # -- report ------------------------------------------------------------------------------------------------------

    def report(self, cell: Cell, outcome: Outcome, epoch: int | None, lease: str | None, error: str | None) -> None:
        """Record how a call went.  Raises nothing that the storage or the policy may come up with.

        :param epoch: the one the call was admitted in; `None`: the present one.
        :param lease: the token of its lease, if it has one.
        :param error: the class name of what failed.
        """
        owing = Owing(outcome, self._clock.wall(), epoch, lease, error)
        try:
            drive(self._reporting(cell, owing))
        except ResilienceError as failure:
            self._could_not_record(cell, failure)

    async def areport(
        self, cell: Cell, outcome: Outcome, epoch: int | None, lease: str | None, error: str | None
    ) -> None:
        """Do what `report` does without blocking the event loop."""
        owing = Owing(outcome, self._clock.wall(), epoch, lease, error)
        try:
            await self._conduct(lambda patient: self._reporting(cell, owing, patient=patient))
        except ResilienceError as failure:
            self._could_not_record(cell, failure)

    def record(self, cell: Cell, outcome: Outcome, epoch: int | None, lease: str | None, error: str | None) -> None:
        """Do what `report` does for somebody who must know whether it was done: a command line.

        :raises StorageError: the outcome is not in the shared record.
        """
        owing = Owing(outcome, self._clock.wall(), epoch, lease, error)
        self._obey(cell, lambda now: owing.report(now, self._clock.draw()))

    def _could_not_record(self, cell: Cell, failure: ResilienceError) -> None:
        outage = failure if isinstance(failure, StorageError) else StorageUnavailable(str(failure), key=cell.key)
        self._blow(cell, outage)

    def _reporting(self, cell: Cell, owing: Owing, *, patient: bool = True) -> Requests[None]:
        deadline = self._clock.monotonic() + self._timeout
        if cell.origin is not None:
            shadow, (cell, epoch) = cell, cell.origin
            if cell.shadow is shadow:
                yield from self._settle(shadow, owing, deadline, patient=patient)
                return
            if owing.token is not None or owing.epoch != epoch:
                return  # it belongs to a state that only the private copy was ever in
        outage, trying = self._outage(cell)
        if outage is None:
            try:
                yield from self._settle(cell, owing, deadline, patient=patient, force=trying)
            except StorageLockTimeout as error:
                if not patient:
                    raise
                outage = self._lock_timeout(cell, error)
                if outage is None:
                    self._owe(cell, owing)
                    return
            except (StorageUnavailable, StorageIncompatible) as error:
                outage = error
            else:
                self._mend(cell, trying)
                return
            self._blow(cell, outage)
        if isinstance(outage.__cause__, StorageLockTimeout):
            self._owe(cell, owing)  # nobody else can have counted it
        if cell.policy.on_store_error == "local":
            yield from self._settle(self._shadow(cell), owing, deadline, patient=True)

    def _settle(
        self, cell: Cell, owing: Owing, deadline: float, *, patient: bool, force: bool = False
    ) -> Requests[None]:
        """Step, and commit if the step says NOW; a failure always does, so it is not tried first."""
        if owing.outcome != FAILURE and not force and not cell.owed:
            try:
                view = yield from self._look(cell, deadline)
            except (StorageCorrupt, ValueError):
                pass  # the commit mends it, under the lock
            else:
                if not cell.policy.step(view.state, owing.report(self._clock.wall(), 0)).keep:
                    return
        yield from self._commit(
            cell, lambda now: owing.report(now, self._clock.draw()), deadline, patient=patient, force=force
        )

    # -- control and reading -----------------------------------------------------------------------------------------

    def control(self, cell: Cell, verb: str, arguments: Mapping[str, object]) -> None:
        """Change the state by hand.

        :raises StorageError: it was not done; with `outcome_unknown`, it may have been.
        """
        self._obey(cell, lambda now: Control(now, self._clock.draw(), verb, arguments))

    def _obey(self, cell: Cell, event: Callable[[float], PolicyEvent]) -> None:
        outage, trying = self._outage(cell)
        if outage is not None:
            raise outage
        try:
            drive(self._commit(cell, event, self._clock.monotonic() + self._timeout, patient=True, force=trying))
        except (StorageUnavailable, StorageIncompatible) as error:
            self._blow(cell, error)
            raise
        self._mend(cell, trying)

    def read(self, cell: Cell) -> Reading:
        """Read the state without changing it; what is owed is committed first, if that can be done.

        While the storage does not answer, the state is the one that decides meanwhile: the private copy's, or the
        last that was seen.
        """
        self.settle(cell)
        outage, trying = self._outage(cell)
        if outage is None and not trying:
            try:
                view = drive(self._look(cell, self._clock.monotonic() + self._timeout))
            except StorageCorrupt as error:
                return Reading(cell.policy.initial(), None, error)
            except ValueError as error:
                return Reading(cell.policy.initial(), None, StorageCorrupt(str(error), key=cell.key))
            except (StorageUnavailable, StorageIncompatible) as error:
                self._blow(cell, error)
                outage = error
            else:
                return Reading(view.state, view.snapshot.version, None)
        shown = cell.shadow or cell
        return Reading(shown.state, cell.version, outage)

    def settle(self, cell: Cell) -> None:
        """Commit what is owed to a key, if the storage answers; else it stays owed."""
        if cell.owed:
            owed = cell.owed.take()
            last = owed.pop()
            cell.owed.add(*owed)
            try:
                drive(self._reporting(cell, last))
            except ResilienceError as failure:
                self._could_not_record(cell, failure)

    # -- the storage -------------------------------------------------------------------------------------------------

    def _look(self, cell: Cell, deadline: float) -> Requests[View]:
        """Load unless current."""
        view = cell.view
        now = self._clock.monotonic()
        if view is not None and view.is_fresh(now, self._max_staleness):
            return view
        snapshot = yield cell.ports, "load", (cell.key, max(0.0, deadline - now))
        return cell.adopt(snapshot, now)

    def _commit(
        self,
        cell: Cell,
        event: Callable[[float], PolicyEvent],
        deadline: float,
        *,
        patient: bool,
        force: bool = False,
    ) -> Requests[Committed]:
        """Commit what is owed and one event, and announce what it changed."""
        owed = cell.owed.take() if cell.owed else []

        def events(now: float) -> list[PolicyEvent]:
            return [*(owing.report(now, self._clock.draw()) for owing in owed), event(now)]

        try:
            done = yield from commit(cell, events, self._clock, deadline, patient=patient, force=force)
        except BaseException as error:
            if owed and not (isinstance(error, StorageUnavailable) and error.outcome_unknown):
                self._owe(cell, *owed)
            raise
        cell.lock_timeouts = 0
        self._announcer.committed(cell.key, done, shared=cell.origin is None)
        return done

    async def _conduct(
        self,
        make: Callable[[bool], Requests[T]],
        abandon: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Drive requests without blocking the event loop; what has begun is finished even if the caller is cancelled.

        :param make: makes the requests; its argument says whether they may wait for the lock.
        :param abandon: what to do with the answer if nobody waits for it any more.
        """
        if self._ports.aload is not None:
            return await _shielded(adrive(make(True)), abandon)
        if Capability.INLINE in self._ports.capabilities:
            try:
                return drive(make(False))
            except StorageLockTimeout:
                pass  # somebody else holds it: wait elsewhere, the whole commit
        import asyncio

        return await _shielded(asyncio.to_thread(drive, make(True)), abandon)

    # -- outages -----------------------------------------------------------------------------------------------------

    def _outage(self, cell: Cell) -> tuple[StorageError | None, bool]:
        """Why the storage may not be asked now; or that it may, and whether that is the one try of this second.

        That try is a commit that saves even if nothing changed: nothing less shows that the storage works again.
        """
        trying = False
        for fuse in (self._fuse, cell.fuse):
            if fuse is not None and fuse.is_blown:
                outage = fuse.ask(self._clock.monotonic())
                if outage is not None:
                    return outage, False
                trying = True
        return None, trying

    def _lock_timeout(self, cell: Cell, error: StorageLockTimeout) -> StorageUnavailable | None:
        """Count a lock time-out; the outage if there were too many in a row."""
        cell.lock_timeouts += 1
        if cell.lock_timeouts < LOCK_TIMEOUTS_OF_AN_OUTAGE:
            return None
        outage = StorageUnavailable(str(error), key=cell.key)
        outage.__cause__ = error
        return outage

    def _owe(self, cell: Cell, *owing: Owing) -> None:
        if cell.owed is None:
            cell.owed = Owed()
        cell.owed.add(*owing)

    def _blow(self, cell: Cell, outage: StorageError) -> None:
        if outage.key is None:
            fuse = self._fuse
        else:
            fuse = cell.fuse = cell.fuse or Fuse()
        if fuse.blow(self._clock.monotonic(), outage):
            data = {"error": str(outage), "mode": cell.policy.on_store_error, "storage": self._ports.name}
            self._announcer.event("degraded", outage.key, self._clock.wall(), data)
        cell.memo = NEVER

    def _mend(self, cell: Cell, trying: bool) -> None:  # noqa: FBT001 - what `_outage` said
        cell.shadow = None
        if trying:
            for fuse, key in ((self._fuse, None), (cell.fuse, cell.key)):
                seconds = None if fuse is None else fuse.mend(self._clock.monotonic())
                if seconds is not None:
                    data = {"seconds": seconds, "storage": self._ports.name}
                    self._announcer.event("recovered", key, self._clock.wall(), data)

    def _shadow(self, cell: Cell) -> Cell:
        """Return the private copy of a key; it begins with what was last seen of the shared record."""
        if cell.shadow is None:
            snapshot = Snapshot(None, None) if cell.view is None else cell.view.snapshot
            record = PrivateRecord(snapshot.payload, snapshot.version)
            shadow = Cell(cell.key, cell.policy, record.ports(self._ports.name), self, self._clock.wall)
            shadow.origin = (cell, cell.state.epoch)
            cell.shadow = shadow
        return cell.shadow


async def _give_back(permit: Memo | Permit) -> None:
    """Free a permit whose caller was cancelled while it waited for it."""
    await permit.areport(NEUTRAL, None)


async def _shielded(awaitable: Awaitable[T], abandon: Callable[[T], Awaitable[None]] | None) -> T:
    import asyncio

    abandoned = False

    async def to_the_end() -> T:
        answer = await awaitable
        if abandoned and abandon is not None:
            await abandon(answer)
        return answer

    task = asyncio.ensure_future(to_the_end())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        abandoned = True
        _begun.add(task)  # the loop itself keeps no strong reference
        task.add_done_callback(_finished)
        raise


_begun: set[asyncio.Future[Any]] = set()


def _finished(task: asyncio.Future[Any]) -> None:
    _begun.discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
