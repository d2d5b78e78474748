"""A second circuit breaker, deliberately naive: written from the words of the specification, not from the code.

It keeps everything that ever happened in plain lists and counts anew each time it is asked.  Nothing here is quick,
clever or shared with what it is compared to.  Where the words are silent, the reading taken stands beside the line as
``Reading:``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from typing import Literal

Window = Literal["consecutive", "count", "time"]
Ended = Literal["success", "failure", "neutral", "cancelled"]


@dataclass(frozen=True, repr=False)
class Rules:
    """The settings of one breaker, with the defaults of the specification."""

    window: Window = "consecutive"
    window_size: int = 100
    window_duration: float = 60.0
    failure_threshold: int | None = None
    failure_max_age: float = 3600.0
    minimum_calls: int = 10
    failure_rate_threshold: float = 0.5
    slow_call_rate_threshold: float | None = None
    slow_call_duration: float = 60.0
    reset_timeout: float = 60.0
    reset_timeout_backoff: float = 1.0
    reset_timeout_max: float | None = None
    half_open_max_calls: int | None = 5
    half_open_success_threshold: int = 2
    half_open_failure_threshold: int = 1
    permit_timeout: float | None = None

    def __repr__(self) -> str:
        """What differs from the defaults."""
        plain = {each.name: each.default for each in fields(self)}
        differs = {name: value for name, value in asdict(self).items() if value != plain[name]}
        return f"Rules({', '.join(f'{name}={value!r}' for name, value in differs.items())})"

    @property
    def shape(self) -> tuple[str, float]:
        """Counts are shared by those who count the same calls."""
        if self.window == "count":
            return ("count", self.window_size)
        if self.window == "time":
            return ("time", self.window_duration)
        return ("consecutive", 0)

    @property
    def failures_that_open(self) -> int | None:
        """How many failures open it, whatever the rate."""
        if self.failure_threshold is None and self.window == "consecutive":
            return 3
        return self.failure_threshold

    @property
    def longest_open(self) -> float:
        """What no OPEN exceeds."""
        if self.reset_timeout_max is None:
            return max(600.0, self.reset_timeout)
        return self.reset_timeout_max

    @property
    def lease(self) -> float:
        """How long others wait for a permit."""
        if self.permit_timeout is None:
            return max(self.reset_timeout, self.slow_call_duration)
        return self.permit_timeout

    @property
    def judges_slow(self) -> bool:
        """Whether slow calls are judged: with a window, and where a rate of them is given."""
        return self.window != "consecutive" and self.slow_call_rate_threshold is not None

    def is_slow(self, duration: float | None) -> bool:
        """A call that took longer, not one that took just as long."""
        return self.judges_slow and duration is not None and duration > self.slow_call_duration


@dataclass
class Call:
    """One call that was counted, as it stands in the history."""

    shape: tuple[str, float]
    at: float
    failed: bool
    slow: bool
    is_anew: bool = False
    """The failure before it was too old then: a streak begins here."""
    bucket: int = 0


@dataclass
class Held:
    """A permit: of HALF_OPEN if it has a number, else just the epoch of a call that was let in."""

    epoch: int
    number: int | None = None
    anonymous: bool = False
    taken: float = 0.0
    lease: float = 0.0
    reported: bool = False
    ran_out: bool = False

    def free(self, now: float) -> bool:
        """Whether others need not wait for it."""
        return self.reported or self.ran_out or now >= self.taken + self.lease


@dataclass
class Refused:
    """A rejection."""

    state: str
    retry_after: float | None


@dataclass
class Counts:
    """What stands in a window."""

    failures: int = 0
    successes: int | None = None
    slow: int = 0
    judged: bool = False

    @property
    def calls(self) -> int:
        """All that stand in it."""
        return self.failures + (self.successes or 0)


@dataclass
class Look:
    """What a status must say."""

    state: str
    failure_count: int
    success_count: int | None
    slow_count: int | None
    failure_rate: float | None
    slow_call_rate: float | None
    last_failure_time: float | None
    last_error: str | None
    opened_at: float | None
    retry_after: float | None
    half_open_successes: int
    half_open_failures: int
    permits_in_use: int
    late_count: int
    reason: str


@dataclass
class Model:
    """One name: what all breakers of that name share."""

    state: str = "closed"
    was: str = ""
    """What OPEN was before its time was up, and is told to be, if it was put by hand."""
    ended_at: float | None = None
    """When a state by hand ended by itself, within the present step."""
    epoch: int = 0
    since: float = 0.0
    """From when `until` is measured."""
    until: float | None = None
    opened: float | None = None
    failed_phases: int = 0
    calls: list[Call] = field(default_factory=list[Call])
    late_calls: list[Call] = field(default_factory=list[Call])
    frozen_at: float | None = None
    last_failure: float | None = None
    last_error: str | None = None
    probes_well: int = 0
    probes_bad: int = 0
    permits: list[Held] = field(default_factory=list[Held])
    late: int = 0
    reason: str = ""
    would_have_opened: int = 0
    above: set[tuple[str, float]] = field(default_factory=set[tuple[str, float]])
    moves: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    # -- what a caller does ------------------------------------------------------------------------------------------

    def admit(self, rules: Rules, now: float, *, anonymous: bool = False) -> Held | Refused:
        """A call asks to be let in."""
        self.ended_at = None
        moved = self._rebase(now)
        self._catch_up(now)
        if self.state in {"closed", "disabled", "metrics_only"}:
            return Held(self.epoch)
        # Reading: a time that nothing depends on stays as it is; so `opened_at` moves only with an end that moves.
        if moved and self.until is not None and now < self.until and self.opened is not None:
            self.opened = min(self.opened, now)
        if self.state == "forced_open":
            return Refused(self.state, None if self.until is None else self.until - now)
        if self.state == "open":
            assert self.until is not None
            if now < self.until:
                return Refused("open", self.until - now)
            self._enter("half_open", now)
            self.probes_well = self.probes_bad = 0
        wait = self._wait_for_permit(rules, now)
        if wait > 0:
            return Refused("half_open", wait)
        if rules.half_open_max_calls is None:
            return Held(self.epoch)
        for held in self.permits:  # given to others: that stays so, whatever the clock says later
            held.ran_out = held.ran_out or held.free(now)
        held = Held(self.epoch, len(self.permits), anonymous, now, rules.lease)
        self.permits.append(held)
        return held

    def report(
        self,
        rules: Rules,
        now: float,
        held: Held | None,
        ended: Ended,
        *,
        duration: float | None = None,
        error: str | None = None,
    ) -> None:
        """A call has ended; `held` is its permit, `None` if there is no token."""
        self.ended_at = None
        slow = rules.is_slow(duration)
        if ended == "cancelled":  # after more than `slow_call_duration` a slow call, else neutral
            ended = "success" if slow else "neutral"
        # Reading: a state by hand whose time is up goes on until a call comes, or a report that counts in CLOSED.
        counts = held is None and (ended == "failure" or rules.window != "consecutive")
        if self.state != "forced_open" and counts:
            self._catch_up(now)
        if held is not None and held.epoch != self.epoch:
            # Reading: a neutral report of an earlier epoch says nothing of anything, so it is not late either.
            self.late += ended != "neutral" and self.state != "disabled"
            return
        if self.state == "disabled":
            return  # lets all through, counts nothing: not even what is late
        if self.state in {"open", "forced_open"}:
            self.late += 1
            return
        if self.state == "half_open":
            self._report_probe(rules, now, held, ended, error, slow=slow)
        elif ended != "neutral":
            self._count(rules, now, ended, error, slow=slow)

    def control(self, verb: str, now: float, *, seconds: float | None = None, reason: str = "") -> None:
        """Somebody changes the state by hand."""
        self.ended_at = None
        # Reading: the present state is the one that is shown, also when its time is up.
        goal = {
            "force_open": "forced_open",
            "disable": "disabled",
            "metrics_only": "metrics_only",
            "close": "closed",
            "reset": "closed",
        }[verb]
        if self.state != goal or verb == "reset":
            self._enter(goal, now)
        if verb == "reset":
            self.late = 0  # Reading: it forgets all counts, this one too
        if goal != "closed":
            self.since, self.until = now, None if seconds is None else now + seconds
        self.reason = reason

    def look(self, rules: Rules, now: float) -> Look:
        """Reading changes nothing, so it is done on a copy."""
        copied = replace(self, permits=[replace(held) for held in self.permits])
        copied._rebase(now)
        seen = copied._look(rules, now)
        # Reading: what is stored is shown as it is stored, also a state whose time is up; only who decides takes a time
        # in the future as now.
        seen.opened_at = self.opened
        return seen

    # -- time --------------------------------------------------------------------------------------------------------

    def _rebase(self, now: float) -> bool:
        """A stored time in the future is taken as now by whoever next decides.

        Reading: an admission decides, a report that is late or frees a permit does not.
        """
        moved = self.until is not None and self.since > now
        if self.until is not None and moved:
            self.until -= self.since - now
            self.since = now
        for held in self.permits:
            held.taken = min(held.taken, now)
        return moved

    def _catch_up(self, now: float) -> None:
        """What was put by hand for a given time ends with it."""
        if self.until is not None and now >= self.until:
            if self.state == "forced_open":
                self.epoch += 1
                self.state, self.was = "open", self.state
            elif self.state in {"disabled", "metrics_only"}:
                self._enter("closed", now)
                self.ended_at = now

    # -- the moves ---------------------------------------------------------------------------------------------------

    def _enter(self, state: str, now: float) -> None:
        if self.state != state:
            self._move(self.was or self.state, state, now)
        self.was = ""
        was_counting = self.state in {"closed", "metrics_only"}
        self.state = state
        self.epoch += 1
        self.permits = []
        self.until = None
        self.reason = ""
        if state in {"open", "forced_open"}:
            self.since = self.opened = now
        elif state != "half_open":
            self.opened = None
        if state in {"closed", "metrics_only"}:
            self.calls = []
            self.late_calls = []
            self.frozen_at = None
            self.failed_phases = 0
            self.probes_well = self.probes_bad = 0
            self.last_failure = self.last_error = None
            self.above = set()
        elif was_counting:
            self.frozen_at = now

    def _move(self, old: str, new: str, now: float) -> None:
        if self.ended_at == now and self.moves and self.moves[-1][1] == old:
            old = self.moves.pop()[0]  # one commit: what ended with its time, and what came of it
        self.ended_at = None
        self.moves.append((old, new))

    def _open(self, rules: Rules, now: float) -> None:
        if self.state == "half_open":
            self.failed_phases += 1
        else:
            self.failed_phases = 0
        self._enter("open", now)
        span = rules.reset_timeout
        for _ in range(self.failed_phases):
            span *= rules.reset_timeout_backoff
        self.until = now + min(span, rules.longest_open)

    # -- HALF_OPEN ---------------------------------------------------------------------------------------------------

    def _wait_for_permit(self, rules: Rules, now: float) -> float:
        if rules.half_open_max_calls is None:
            return 0.0
        ends = sorted(held.taken + held.lease for held in self.permits if not held.free(now))
        if len(ends) < rules.half_open_max_calls:
            return 0.0
        # Reading: known is when the leases end; so many have to, until fewer than the limit are left.
        return ends[len(ends) - rules.half_open_max_calls] - now

    def _report_probe(
        self, rules: Rules, now: float, held: Held | None, ended: Ended, error: str | None, *, slow: bool
    ) -> None:
        if not self._claim(rules, now, held):
            self.late += ended != "neutral"
            if held is None and ended == "failure":
                self.last_failure, self.last_error = now, error
            if held is None and (ended == "failure" or slow):
                # The words: it is late, a failure is counted, the state stays.  Reading: counted among the late ones,
                # and among the counts that are shown; as is a slow call.
                self.late_calls.append(Call(rules.shape, now, ended == "failure", slow))
            return
        if ended == "neutral":
            return
        if ended == "failure":
            self.last_failure, self.last_error = now, error
        if ended == "success" and not slow:
            self.probes_well += 1
            if self.probes_well >= rules.half_open_success_threshold:
                self._enter("closed", now)
        else:
            self.probes_bad += 1
            if self.probes_bad >= rules.half_open_failure_threshold:
                self._open(rules, now)

    def _claim(self, rules: Rules, now: float, held: Held | None) -> bool:
        """Find the permit that a report is for, and give it back; whether the report counts."""
        if held is None:
            # Reading: the oldest in flight, so that a place becomes free; if none is, the oldest that ran out, as a
            # report after its own permit ran out counts.
            waiting = [each for each in self.permits if each.anonymous and not each.reported]
            waiting.sort(key=lambda each: (each.free(now), each.taken))
            if not waiting:
                return rules.half_open_max_calls is None
            waiting[0].reported = True
        elif held.number is not None:
            if held.reported:
                return False  # Reading: a report counts once, so what comes after it is late
            held.reported = True
        return True

    # -- CLOSED and METRICS_ONLY: the windows ------------------------------------------------------------------------

    def _count(self, rules: Rules, now: float, ended: Ended, error: str | None, *, slow: bool) -> None:
        shape = rules.shape
        for call in self.calls:
            # Reading: only who counts needs to know when the last failure was; an admission leaves it as it is.
            if call.shape[0] == "consecutive":
                call.at = min(call.at, now)
        before = [call.at for call in self.calls if call.shape == shape and call.failed]
        too_old = bool(before) and now - before[-1] > rules.failure_max_age
        self.calls.append(Call(shape, now, ended == "failure", slow, too_old, _bucket(rules, now)))
        if shape[0] == "time":  # what lies outside now is gone, whatever the clock says later
            here = _bucket(rules, now)
            self.calls = [call for call in self.calls if call.shape != shape or here - 10 < call.bucket <= here + 10]
        if ended == "failure":
            self.last_failure, self.last_error = now, error
        elif rules.window == "consecutive" and all(call.shape == shape for call in self.calls):
            # Reading: a success ends the streak, its last failure included, unless that may be in another's window.
            self.last_failure = self.last_error = None
        reached = self._reached(rules, now)
        if not reached:
            self.above.discard(shape)
        if not reached or (ended == "success" and not slow):
            return
        if self.state == "closed":
            self._open(rules, now)
        elif shape not in self.above:
            self.above.add(shape)
            self.would_have_opened += 1

    def _reached(self, rules: Rules, now: float) -> bool:
        counts = self.counts(rules, now)
        number = rules.failures_that_open
        if number is not None and counts.failures >= number:
            return True
        if not counts.judged:
            return False
        if Fraction(counts.failures, counts.calls) >= Fraction(str(rules.failure_rate_threshold)):
            return True
        slow = rules.slow_call_rate_threshold
        return slow is not None and Fraction(counts.slow, counts.calls) >= Fraction(str(slow))

    def counts(self, rules: Rules, now: float) -> Counts:
        """Count anew what stands in the window of a breaker."""
        if self.frozen_at is not None:
            now = self.frozen_at
        calls = [call for call in self.calls if call.shape == rules.shape]
        late = [call for call in self.late_calls if call.shape == rules.shape]
        if rules.window == "consecutive":
            streak = 0
            for call in calls:
                streak = 0 if not call.failed else 1 if call.is_anew else streak + 1
            return Counts(streak + len(late))
        if rules.window == "count":
            calls = [*calls, *late][-rules.window_size :]
        else:
            here = _bucket(rules, now)
            calls = [*(call for call in calls if here - 10 < call.bucket <= here + 10), *late]
        failures = len([call for call in calls if call.failed])
        slow = len([call for call in calls if call.slow])
        return Counts(failures, len(calls) - failures, slow, len(calls) >= rules.minimum_calls)

    # -- what a status says ------------------------------------------------------------------------------------------

    def _look(self, rules: Rules, now: float) -> Look:
        counts = self.counts(rules, now)
        retry_after: float | None = 0.0
        if self.state == "open":
            assert self.until is not None
            retry_after = max(0.0, self.until - now)
        elif self.state == "forced_open":
            retry_after = None if self.until is None else max(0.0, self.until - now)
        elif self.state == "half_open":
            retry_after = self._wait_for_permit(rules, now)
        return Look(
            state=self.state,
            failure_count=counts.failures,
            success_count=counts.successes,
            slow_count=counts.slow,
            failure_rate=counts.failures / counts.calls if counts.judged else None,
            slow_call_rate=counts.slow / counts.calls if counts.judged else None,
            last_failure_time=self.last_failure,
            last_error=self.last_error,
            opened_at=self.opened,
            retry_after=retry_after,
            half_open_successes=self.probes_well,
            half_open_failures=self.probes_bad,
            permits_in_use=len([held for held in self.permits if not held.free(now)]),
            late_count=self.late,
            reason=self.reason,
        )


def _bucket(rules: Rules, now: float) -> int:
    """The number of the tenth of a window that a time lies in, in integers of nanoseconds."""
    return round(now * 1e9) * 10 // round(rules.window_duration * 1e9)
