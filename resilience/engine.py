"""Admit, report, control, read: the one place where a policy and a storage meet.

Each is written once, as a generator of requests to the storage (see `resilience.commit`), and driven with plain calls
or awaited.  The road of nearly every call is none of them: it is the memo that `admit` looks at first.
"""

from __future__ import annotations

from _thread import RLock

from resilience.awaiting import in_thread, is_asyncio, shielded
from resilience.cell import NEVER, Cell, Memo, View
from resilience.commit import Committed, Outrun, adrive, commit, drive, load, perform
from resilience.errors import (
    PolicyRejected,
    ResilienceError,
    StorageCorrupt,
    StorageError,
    StorageIncompatible,
    StorageLockTimeout,
    StorageUnavailable,
)
from resilience.fallback import PrivateRecord
from resilience.gather import MOST_KEYS, UNUSED_AFTER
from resilience.outages import FAULTS, Outages, is_of_the_caller, unusable
from resilience.permits import Permit
from resilience.policy import FAILURE, FOREVER, LATER, NEUTRAL, Admit, Control, Lease, Refusal, Report
from resilience.sharedclock import SharedClock
from resilience.storage import Capability, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar
    from weakref import WeakValueDictionary

    from resilience.announce import Announcer
    from resilience.clock import Clock
    from resilience.commit import Requests
    from resilience.gather import Owed
    from resilience.lane import Lane
    from resilience.outages import Fault
    from resilience.policy import Outcome, Policy, PolicyEvent, Step
    from resilience.ports import Ports
    from resilience.storage import Key, Version

    T = TypeVar("T")

_blank: Callable[[type[Report]], Report] = object.__new__
"""Makes a report without its constructor, which saves 0.1 µs a failure."""
_LOOKED_AT = 3
"""So many keys are looked at each time, see `Engine._unused`."""


class Reading:
    """What was read for a person: the state, the version it has, and why it may not be the shared one."""

    __slots__ = ("degraded", "state", "version")

    def __init__(self, state: Any, version: Version | None, degraded: StorageError | None) -> None:
        self.state = state
        self.version = version
        self.degraded = degraded


class Engine:
    """Everything that a guard asks, on one open storage.

    :param timeout: seconds that the waiting of one decision may take in all.
    :param max_staleness: seconds for which a snapshot is trusted that cannot tell whether it is current.
    :param recheck: called on the slow road of an admission, which each key in use takes once a second at least, and
        after each report: looks whether the configuration file was touched.
    :param prepare: called once, before something is gathered: sees to it that it is committed before a fork.
    """

    __slots__ = (
        "_announcer",
        "_clock",
        "_debts",
        "_is_inline",
        "_lanes",
        "_making",
        "_max_staleness",
        "_outages",
        "_ports",
        "_prepare",
        "_recheck",
        "_round",
        "_timeout",
    )

    def __init__(
        self,
        ports: Ports,
        announcer: Announcer,
        clock: Clock,
        *,
        timeout: float,
        max_staleness: float,
        recheck: Callable[[], object] | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._recheck = recheck
        self._prepare = prepare
        self._ports = ports
        self._is_inline = ports.aload is None and Capability.INLINE in ports.capabilities
        self._announcer = announcer
        self._clock = SharedClock(clock, ports.name)
        self._timeout = timeout
        self._max_staleness = max_staleness
        self._outages = Outages(ports.name, announcer, self._clock, timeout)
        self._making = RLock()
        self._lanes: WeakValueDictionary[Key, Lane] | None = None
        self._debts: dict[Key, Owed] = {}
        self._round: Iterator[Key] = iter(())

    def retune(self, timeout: float, max_staleness: float, recheck: Callable[[], object] | None) -> None:
        """Go by other settings from now on; the arguments are those it is made with."""
        self._timeout = self._outages.timeout = timeout
        self._max_staleness = max_staleness
        self._recheck = recheck

    def tell(self, name: str, data: Mapping[str, object]) -> None:
        """Tell the observers of something that concerns no single key."""
        self._announcer.event(name, None, self._clock.wall(), data)

    def cell(self, key: Key, policy: Policy) -> Cell:
        """Make this process's view of a key, for one guard."""
        return Cell(key, policy, self._ports, self, self._clock, self._debts, self._lane(key))

    def _lane(self, key: Key) -> Lane | None:
        """Return the one lane of a key, for all guards of it; where a lock is held, `None`."""
        if Capability.MACHINES not in self._ports.capabilities:
            return None
        from weakref import WeakValueDictionary

        from resilience.lane import Lane

        with self._making:
            if self._lanes is None:
                self._lanes = WeakValueDictionary()
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane()
            return lane

    # -- admission ---------------------------------------------------------------------------------------------------

    def admit(self, cell: Cell, *, anonymous: bool = False) -> Memo | Permit:
        """Let a call in.

        :param anonymous: whoever reports will have no token.
        :raises PolicyRejected: the policy does not.
        :raises StorageUnavailable: the storage does not answer and `on_store_error` is ``raise``.
        """
        memo = cell.memo
        now = self._clock.wall() - memo.ahead
        if memo.holds(now):
            if memo.refusal is None:
                return memo
            raise memo.rejection(now)
        if self._recheck is not None:
            self._recheck()
        if len(self._debts) > MOST_KEYS:
            for unused in self._unused():
                self.settle(unused)
        view = cell.view
        trying = False
        if self._outages.touch(cell.key):
            outage, trying = self._outage_of_call(cell)
            if outage is not None:
                return self._admit_in_an_outage(cell, outage, anonymous=anonymous)
        elif view is not None and view.is_fresh(self._clock.monotonic(), self._max_staleness):
            permit = self._answer(cell, view, anonymous=anonymous)
            if permit is not None:
                return permit
        return drive(cell.ports, self._admission(cell, anonymous=anonymous, trying=trying))

    async def aadmit(self, cell: Cell) -> Memo | Permit:
        """Do what `admit` does without blocking the event loop."""
        memo = cell.memo
        now = self._clock.wall() - memo.ahead
        if memo.holds(now):
            if memo.refusal is None:
                return memo
            raise memo.rejection(now)
        if self._recheck is not None:
            self._recheck()
        if len(self._debts) > MOST_KEYS:
            for unused in self._unused():
                await self.asettle(unused)
        outage, trying = self._outage_of_call(cell)
        if outage is not None:  # nothing is asked that would block the loop
            return self._admit_in_an_outage(cell, outage, anonymous=False)
        return await self._conduct(
            lambda deadline, patient: self._admission(cell, deadline, anonymous=False, patient=patient, trying=trying),
            _give_back,
            _agive_back,
        )

    def _admission(
        self, cell: Cell, deadline: float | None = None, *, anonymous: bool, patient: bool = True, trying: bool
    ) -> Requests[Memo | Permit]:
        if deadline is None:
            deadline = self._clock.monotonic() + self._timeout
        try:
            permit = yield from self._decide(cell, deadline, anonymous=anonymous, patient=patient, force=trying)
        except FAULTS as error:
            if not patient and _is_to_be_waited_for(error):
                raise
            outage = self._as_outage(cell, error, trying=trying)
            if outage is None:
                refusal = cell.policy.refuse(cell.state, "the lock of its record could not be had")
                raise refusal.error(cell.key.name, self._clock.wall()) from error
            self._blow(cell, outage, deadline)
        except PolicyRejected:  # the shared state answered: that is an answer of the storage too
            self._mend(cell, trying)
            raise
        else:
            self._mend(cell, trying)
            return permit
        return self._admit_in_an_outage(cell, outage, anonymous=anonymous)

    def _admit_in_an_outage(self, cell: Cell, outage: StorageError, *, anonymous: bool) -> Memo | Permit:
        """Decide without the storage, as `on_store_error` says."""
        mode = cell.policy.on_store_error
        if mode == "allow":
            return Permit(cell, cell.state.epoch, accounted=False)
        if mode == "deny":
            reason = f"the storage does not answer: {outage}" if outage.key is None else str(outage)
            raise cell.policy.refuse(None, reason).error(cell.key.name, self._clock.wall()) from outage
        if mode == "raise":
            raise _again(outage) from outage
        shadow = self._shadow(cell)
        try:
            view = shadow.view
            if view is not None and view.is_current():
                permit = self._answer(shadow, view, anonymous=anonymous)
                if permit is not None:
                    return permit
            # Threads hold the lock of a private copy for the length of a step: even on an event loop, wait for it.
            deadline = self._clock.monotonic() + self._timeout
            return drive(shadow.ports, self._decide(shadow, deadline, anonymous=anonymous, patient=True))
        finally:
            memo = shadow.memo
            if memo is not NEVER:  # the fast road goes on, until the storage may be asked again
                until = memo.clock() + self._outages.seconds_to_retry(cell.key, outage)
                memo.until = min(memo.until, until)
                cell.memo = memo

    def _decide(
        self, cell: Cell, deadline: float, *, anonymous: bool, patient: bool, force: bool = False
    ) -> Requests[Memo | Permit]:
        """Load unless current, step, and commit if the step says NOW; what was gathered goes first, where it is due."""
        admit = Admit(0.0, 0, anonymous=anonymous)
        try:
            if not force:
                view = yield from self._look(cell, deadline)
                admit.now = self._clock.wall()  # read after the load, which may have set it right
                step = cell.policy.step(view.state, admit)
                if not step.keep:
                    if self._is_due(cell, step, admit.now):
                        yield from self._settle_first(cell, deadline, patient=patient)
                        view = yield from self._look(cell, deadline)
                    permit = self._answer(cell, view, anonymous=anonymous, settled=True)
                    if permit is not None:
                        return permit
        except (StorageCorrupt, ValueError):
            pass  # the commit mends it, under the lock
        done = yield from self._commit(cell, (admit,), deadline, patient=patient, force=force)
        assert done.step is not None  # noqa: S101 - that of the admission; for the type checkers
        return self._permit(cell, done.step, done.now, None)

    def _answer(self, cell: Cell, view: View, *, anonymous: bool, settled: bool = False) -> Memo | Permit | None:
        """Answer an admission from what was seen; `None` if something must be committed first."""
        now = self._clock.wall()
        step = cell.policy.step(view.state, Admit(now, 0, anonymous=anonymous))
        if step.keep:
            return None
        if not settled and self._is_due(cell, step, now):
            return None
        fresh_for = self._max_staleness - (self._clock.monotonic() - view.loaded_at)
        return self._permit(cell, step, now, cell.remember(view, step, now, fresh_for))

    @staticmethod
    def _is_due(cell: Cell, step: Step, now: float) -> bool:
        """Whether gathered outcomes or rejections are to be committed before the decision."""
        owed = cell.owed
        return owed is not None and owed.is_due(now, cell.policy.gather, step.asks)

    def _settle_first(self, cell: Cell, deadline: float, *, patient: bool) -> Requests[None]:
        """Commit what was gathered; a lock that cannot be had for it is no reason to keep a call out."""
        try:
            yield from self._commit(cell, (), deadline, patient=patient, force=False)
        except StorageLockTimeout as error:
            if not patient and _is_to_be_waited_for(error):
                raise
            outage = self._as_outage(cell, error, trying=False)
            if outage is not None:
                raise outage from error

    @staticmethod
    def _permit(cell: Cell, step: Step, now: float, memo: Memo | None) -> Memo | Permit:
        decision = step.decision
        if isinstance(decision, Refusal):
            cell.owing().rejected.append(None)
            raise decision.error(cell.key.name, now)
        if isinstance(decision, Lease):
            return Permit(cell, step.state.epoch, decision.token, decision.expires_at)
        return memo or Permit(cell, step.state.epoch)

    # -- report ------------------------------------------------------------------------------------------------------

    def report(
        self,
        cell: Cell,
        outcome: Outcome,
        epoch: int | None,
        lease: str | None,
        error: str | None,
        duration: float | None = None,
    ) -> None:
        """Record how a call went.  Raises nothing that the storage or the policy may come up with.

        :param epoch: the one the call was admitted in; `None`: the present one.
        :param lease: the token of its lease, if it has one.
        :param error: the class name of what failed.
        :param duration: seconds that it took, if that was measured.
        """
        report = _blank(Report)
        report.now = report.at = self._clock.wall()
        report.draw = 0
        report.outcome = outcome
        report.epoch = epoch
        report.token = lease
        report.error = error
        report.duration = duration
        report.count = 1
        try:
            if outcome == FAILURE and cell.origin is None and not self._outages.touch(cell.key):
                # The road of every failure: `_reporting` without what only an outage or a success needs.
                now = self._clock.monotonic()
                deadline = now + self._timeout
                try:
                    perform(
                        cell.ports,
                        commit(cell, (report,), self._announcer, self._clock, deadline, patient=True, now=now),
                    )
                except FAULTS as fault:
                    drive(cell.ports, self._unsettled(cell, report, fault, deadline))
                else:
                    cell.shadow = None
            else:
                requests = self._reporting_to_copy(cell, report)
                perform(cell.ports, requests or self._reporting(cell, report))
                if requests is not None:
                    _share_memo(cell)
        except Exception as failure:  # noqa: BLE001 - the caller's own result or error survives whatever it is
            self._could_not_record(cell, failure)
        if self._recheck is not None:
            self._recheck()

    async def areport(
        self,
        cell: Cell,
        outcome: Outcome,
        epoch: int | None,
        lease: str | None,
        error: str | None,
        duration: float | None = None,
    ) -> None:
        """Do what `report` does without blocking the event loop."""
        at = self._clock.wall()
        report = Report(at, 0, outcome, at, epoch, lease, error, duration, 1)
        try:
            requests = self._reporting_to_copy(cell, report)
            if requests is None:
                await self._conduct(lambda deadline, patient: self._reporting(cell, report, deadline, patient=patient))
            else:  # nothing is asked that would block the loop
                perform(cell.ports, requests)
                _share_memo(cell)
        except Exception as failure:  # noqa: BLE001 - as in `report`
            self._could_not_record(cell, failure)
        if self._recheck is not None:
            self._recheck()

    def record(
        self,
        cell: Cell,
        outcome: Outcome,
        epoch: int | None,
        lease: str | None,
        error: str | None,
        duration: float | None = None,
    ) -> None:
        """Do what `report` does for somebody who must know whether it was done: a command line.

        :raises StorageError: the outcome is not in the shared record.
        """
        at = self._clock.wall()
        self._obey(cell, Report(at, 0, outcome, at, epoch, lease, error, duration, 1))

    def _could_not_record(self, cell: Cell, failure: Exception, deadline: float = FOREVER) -> None:
        outage = failure
        if not isinstance(outage, StorageError):
            outage = StorageUnavailable(str(failure), key=cell.key)
            outage.__cause__ = failure
        self._blow(cell, outage, deadline)

    def _reporting_to_copy(self, cell: Cell, report: Report) -> Requests[object] | None:
        """Report to the private copy that let the call in; `None`: it was none, or it decides no longer."""
        if cell.origin is None:
            return None
        origin, epoch = cell.origin
        if origin.engine is None or origin.shadow is not cell or not self._outages.touch(origin.key):
            return None
        if report.token is None and report.epoch == epoch and self._outages.locks_out(origin.key):
            origin.owe(report.copy())
        if report.outcome != FAILURE:
            return self._settle(cell, report, patient=True)
        deadline = self._clock.monotonic() + self._timeout
        return commit(cell, (report,), self._announcer, self._clock, deadline, patient=True)

    def _reporting(
        self, cell: Cell, report: Report, deadline: float | None = None, *, patient: bool = True
    ) -> Requests[None]:
        if cell.origin is not None:
            origin, epoch = cell.origin
            if origin.engine is None:
                return  # a forked child leaves it to the parent
            if report.token is not None or report.epoch != epoch:
                return  # it belongs to a state that only the private copy was ever in
            cell = origin
        if deadline is None:
            deadline = self._clock.monotonic() + self._timeout
        outage, trying = self._outage_of_call(cell)
        if outage is None:
            try:
                yield from self._settle(cell, report, deadline, patient=patient, force=trying)
            except FAULTS as fault:
                if not patient and _is_to_be_waited_for(fault):
                    self._outages.retry_at_once(cell.key)
                    raise
                yield from self._unsettled(cell, report, fault, deadline, trying=trying)
            else:
                self._mend(cell, trying)
        else:
            yield from self._meanwhile(cell, report, outage)

    def _unsettled(
        self, cell: Cell, report: Report, fault: Fault, deadline: float, *, trying: bool = False
    ) -> Requests[None]:
        """A report met a failure of the storage: owe it, or go on as in an outage."""
        outage = self._as_outage(cell, fault, trying=trying)
        if outage is None:
            cell.owe(report)
        else:
            self._blow(cell, outage, deadline)
            yield from self._meanwhile(cell, report, outage)

    def _meanwhile(self, cell: Cell, report: Report, outage: StorageError) -> Requests[None]:
        """Report in an outage."""
        if is_of_the_caller(outage):
            if not (isinstance(outage, StorageUnavailable) and outage.outcome_unknown):
                cell.owe(report)
            return
        if isinstance(outage.__cause__, StorageLockTimeout):
            cell.owe(report.copy())  # nobody else can have counted it
        if cell.policy.on_store_error == "local":
            yield from self._settle(self._shadow(cell), report, patient=True)

    def _settle(
        self, cell: Cell, report: Report, deadline: float | None = None, *, patient: bool, force: bool = False
    ) -> Requests[None]:
        """Step, and gather it or commit as the step says; a failure is always committed, so it is not tried first."""
        if deadline is None:
            deadline = self._clock.monotonic() + self._timeout
        owed = cell.owed
        if report.outcome != FAILURE and not force and not (owed and owed.reports):
            was_agreed = self._clock.is_agreed
            try:
                view = yield from self._look(cell, deadline)
            except (StorageCorrupt, ValueError):
                pass  # the commit mends it, under the lock
            else:
                report.now = self._clock.wall()
                if not was_agreed and self._clock.is_agreed:
                    report.at = report.now
                step = cell.policy.step(view.state, report)
                if not step.keep or (step.keep == LATER and self._gathers(cell, report, step)):
                    return
        yield from self._commit(cell, (report,), deadline, patient=patient, force=force)

    def prepare(self) -> None:
        """Make ready for something to be gathered."""
        prepare, self._prepare = self._prepare, None
        if prepare is not None:
            try:
                prepare()
            except Exception:  # noqa: BLE001, S110 - a commit says what is wrong
                pass

    def _gathers(self, cell: Cell, report: Report, step: Step) -> bool:
        """Gather a report that was answered by a step, unless this is one too many: then all are committed."""
        if not cell.policy.gather:
            return False
        self.prepare()
        owed = cell.owing()
        if owed.asked is None:
            owed.asked = step.asks
        return owed.gather(report, step.until, cell.policy.gather_limit(step.state, report.now))

    # -- control and reading -----------------------------------------------------------------------------------------

    def control(self, cell: Cell, verb: str, arguments: Mapping[str, object]) -> None:
        """Change the state by hand.

        :raises StorageError: it was not done; with `outcome_unknown`, it may have been.
        """
        self._obey(cell, Control(self._clock.wall(), 0, verb, arguments))

    def _obey(self, cell: Cell, event: PolicyEvent) -> None:
        outage, trying = self._outages.ask(cell.key)
        if outage is not None:
            raise _again(outage) from outage
        deadline = self._clock.monotonic() + self._timeout
        try:
            drive(cell.ports, self._commit(cell, (event,), deadline, patient=True, force=trying))
        except (StorageUnavailable, StorageIncompatible) as error:
            self._blow(cell, error, deadline)
            raise
        self._mend(cell, trying)

    def read(self, cell: Cell) -> Reading:
        """Read the state without changing it; what is owed is committed first, if that can be done.

        While the storage does not answer, the state is the one that decides meanwhile: the private copy's, or the
        last that was seen.
        """
        deadline = self._clock.monotonic() + self._timeout
        self.settle(cell, deadline)
        outage, trying = self._outages.ask(cell.key)
        if outage is None:
            try:
                if trying:
                    drive(cell.ports, self._commit(cell, (), deadline, patient=True, force=True))
                    self._mend(cell, trying)
                view = drive(cell.ports, self._look(cell, deadline))
            except StorageLockTimeout as error:
                outage = error
            except StorageCorrupt as error:
                return Reading(cell.policy.initial(), None, error)
            except ValueError as error:
                return Reading(cell.policy.initial(), None, StorageCorrupt(f"{cell.key}: {error}", key=cell.key))
            except FAULTS as error:
                outage = unusable(error)
                self._blow(cell, outage, deadline)
            else:
                return Reading(view.state, view.snapshot.version, None)
        shown = cell.shadow or cell
        return Reading(shown.state, cell.version, outage)

    def settle(self, cell: Cell, deadline: float | None = None) -> None:
        """Commit what is owed to a key, if the storage answers; else it stays owed.  Raises nothing of a storage's.

        :param deadline: monotonic seconds; the time-out from now if left out.
        """
        if cell.owed:
            self.pay(cell, deadline)

    def pay(self, cell: Cell, deadline: float | None = None, *, patient: bool = True) -> bool:
        """Do what `settle` does, where something is owed: the road of every row of gathered outcomes.

        :return: false if somebody holds the lock who is to be waited for, and `patient` says not to.
        """
        if deadline is None:
            deadline = self._clock.monotonic() + self._timeout
        try:
            if cell.origin is not None or self._outages.touch(cell.key):
                drive(cell.ports, self._settling(cell, deadline, patient=patient))
            else:  # the same without what only an outage or a private copy needs
                perform(cell.ports, commit(cell, (), self._announcer, self._clock, deadline, patient=patient))
                cell.shadow = None
        except StorageLockTimeout as failure:
            return patient or not _is_to_be_waited_for(failure)
        except ResilienceError as failure:
            self._could_not_record(cell, failure, deadline)
        return True

    async def asettle(self, cell: Cell) -> None:
        """Do what `settle` does without blocking the event loop."""
        if cell.owed:
            await self.apay(cell)

    async def apay(self, cell: Cell) -> None:
        """Do what `pay` does without blocking the event loop."""
        if cell.origin is not None:
            self.pay(cell)  # a private copy blocks no loop
        elif self._is_inline and not self._outages.touch(cell.key):
            deadline = self._clock.monotonic() + self._timeout
            if not self.pay(cell, deadline, patient=False):
                await in_thread(lambda: self.pay(cell, deadline), None)
        else:
            await self._conduct(lambda deadline, patient: self._settling(cell, deadline, patient=patient))

    def _settling(self, cell: Cell, deadline: float | None, *, patient: bool) -> Requests[None]:
        outage, trying = self._outages.ask(cell.key) if cell.origin is None else (None, False)
        if outage is None:
            yield from self._paying(cell, deadline, patient=patient, trying=trying)

    def _paying(self, cell: Cell, deadline: float | None, *, patient: bool, trying: bool) -> Requests[None]:
        if deadline is None:
            deadline = self._clock.monotonic() + self._timeout
        try:
            yield from self._commit(cell, (), deadline, patient=patient, force=trying)
        except ResilienceError as failure:
            if isinstance(failure, StorageLockTimeout):
                if not patient and _is_to_be_waited_for(failure):
                    self._outages.retry_at_once(cell.key)
                    raise
            else:
                self._could_not_record(cell, failure, deadline)
        else:
            self._mend(cell, trying)

    def settle_all(self) -> None:
        """Commit what is owed to any key, also by guards that are gone."""
        for owed in list(self._debts.values()):
            self.settle(owed.cell)

    def settle_before_fork(self) -> None:
        """Do what `settle_all` does, as far as one time-out for all keys goes; the rest stays owed."""
        deadline = self._clock.monotonic() + self._timeout
        for owed in list(self._debts.values()):
            if self._clock.monotonic() < deadline:
                self.settle(owed.cell, deadline)

    def finish(self) -> None:
        """Wait for a try that a thread makes, as long as it may take, so that the storage can be closed after it."""
        self._outages.finish()

    def _unused(self) -> list[Cell]:
        """Look at the next few keys: let go of those that nobody uses any more, and return those that owe something.

        Breakers of hosts or tenants come and go by the million.  Each takes the slow road once at least, so that to
        look at a few each time keeps pace.
        """
        owing: list[Cell] = []
        now = self._clock.monotonic()
        if self._outages.is_everywhere:
            return owing  # nothing is asked for their sake
        for _ in range(_LOOKED_AT):
            key = next(self._round, None)
            if key is None:
                self._round = iter(list(self._debts))
                break
            owed = self._debts.get(key)
            if owed is None or now - owed.used_at < UNUSED_AFTER:
                continue
            if owed:
                owing.append(owed.cell)
            elif not owed.lock_timeouts:
                self._debts.pop(key, None)
        return owing

    # -- the storage -------------------------------------------------------------------------------------------------

    def _look(self, cell: Cell, deadline: float) -> Requests[View]:
        """Load unless current."""
        view = cell.view
        if view is not None and view.is_fresh(self._clock.monotonic(), self._max_staleness):
            return view
        loaded = yield from load(cell, self._clock, deadline)
        regression = loaded.regression(view)
        if regression is not None:
            name, data = regression
            self._announcer.event(name, cell.key, self._clock.wall(), data)
        return loaded

    def _commit(
        self, cell: Cell, events: Sequence[PolicyEvent], deadline: float, *, patient: bool, force: bool
    ) -> Requests[Committed]:
        return commit(cell, events, self._announcer, self._clock, deadline, patient=patient, force=force)

    async def _conduct(
        self,
        make: Callable[[float | None, bool], Requests[T]],
        abandon: Callable[[T], None] | None = None,
        aabandon: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Drive requests without blocking the event loop; what has begun is finished even if the caller is cancelled.

        :param make: makes the requests; its arguments are the deadline (`None`: the time-out from when they begin) and
            whether they may wait for the lock.
        :param abandon: what to do with the answer if nobody waits for it any more, in a worker thread.
        :param aabandon: the same, awaitable.
        """
        deadline: float | None = None
        if self._ports.aload is not None or self._is_inline:
            deadline = self._clock.monotonic() + self._timeout
            try:
                if self._ports.aload is None:
                    return drive(self._ports, make(deadline, False))
                if is_asyncio():
                    return await shielded(adrive(self._ports, make(deadline, False)), aabandon)
            except StorageLockTimeout:
                pass  # somebody else holds it: wait elsewhere, the whole commit, for the time that is left
        return await in_thread(lambda: drive(self._ports, make(deadline, True)), abandon)

    # -- outages -----------------------------------------------------------------------------------------------------

    def _outage_of_call(self, cell: Cell) -> tuple[StorageError | None, bool]:
        return self._outages.ask_for_call(cell.key, lambda: self._try(cell))

    def _try(self, cell: Cell) -> None:
        drive(cell.ports, self._paying(cell, None, patient=True, trying=True))

    def _as_outage(self, cell: Cell, error: Fault, *, trying: bool) -> StorageError | None:
        return self._outages.meant_by(error, cell.owing, cell.key, trying=trying)

    def _blow(self, cell: Cell, outage: StorageError, deadline: float) -> None:
        self._outages.failed(cell.key, outage, cell.policy.on_store_error, deadline)
        cell.memo = NEVER

    def _mend(self, cell: Cell, trying: bool) -> None:  # noqa: FBT001 - what `Outages.ask` said
        if not trying and self._outages.touch(cell.key):
            cell.memo = NEVER  # it was asked before the outage began, in which the private copy decides
        else:
            cell.shadow = None
        off_by = self._clock.off_by
        if off_by is not None:  # two threads that come here at once tell it twice, which harms nobody
            self._clock.off_by = None
            self.tell("clock_skew", {"seconds": off_by, "storage": self._ports.name})
        if trying:
            self._outages.succeeded(cell.key)

    def _shadow(self, cell: Cell) -> Cell:
        """Return the private copy of a key; it begins with what was last seen of the shared record."""
        with self._making:
            shadow = cell.shadow  # once: another thread may find the storage well again at any time
            if shadow is None:
                view = cell.view
                snapshot, state = (
                    (Snapshot(None, None), cell.policy.initial()) if view is None else (view.snapshot, view.state)
                )
                record = PrivateRecord(snapshot.payload, snapshot.version)
                shadow = Cell(cell.key, cell.policy, record.ports(self._ports.name), self, self._clock)
                shadow.origin = (cell, state.epoch)
                cell.shadow = shadow
            return shadow


def _is_to_be_waited_for(error: Fault) -> bool:
    """Whether it is a lock that somebody holds, which whoever has only tried it may wait for."""
    return isinstance(error, StorageLockTimeout) and not isinstance(error, Outrun)


def _share_memo(copy: Cell) -> None:
    """Let the next call be answered by what a report left behind in a private copy, as after any other commit."""
    assert copy.origin is not None  # noqa: S101 - a private copy has one; for the type checkers
    origin, _ = copy.origin
    if origin.shadow is copy and copy.memo is not NEVER:
        origin.memo = copy.memo


def _again(outage: StorageError) -> StorageError:
    """Make a fresh error: raising one object over and over makes its traceback grow as long as the outage lasts."""
    from copy import copy

    return copy(outage)


def _give_back(permit: Memo | Permit) -> None:
    """Free a permit whose caller was cancelled while it waited for it."""
    permit.report(NEUTRAL, None, None)


async def _agive_back(permit: Memo | Permit) -> None:
    """Do what `_give_back` does, where the storage is awaited."""
    await permit.areport(NEUTRAL, None, None)
