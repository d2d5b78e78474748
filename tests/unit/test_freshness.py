"""Whether a snapshot is still current, by what was heard; and who hears when the thread that does cannot."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from storages import Casual

from resilience import CircuitBreaker, CircuitOpenError, Freshness, Key, Runtime, Snapshot, Version, Word, hookimpl
from resilience.freshness import MOVING
from resilience.sharedclock import LOOK_EVERY, SharedClock
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resilience.freshness import Begun

KEY = Key("circuit_breaker", "payments")
V1, V2, V3, OTHER = Version("a", 1), Version("a", 2), Version("a", 3), Version("b", 1)


@pytest.fixture
def freshness() -> Freshness:
    made = Freshness()
    made.prove()
    return made


def answered(freshness: Freshness, version: Version | None) -> Word:
    """What becomes of an answer that comes before any news."""
    word = freshness.judge(version, freshness.begin(b"k"))
    assert word is not None
    return word


def test_an_answer_makes_older_snapshots_old(freshness: Freshness) -> None:
    first, again = answered(freshness, V1), answered(freshness, V1)
    assert (first(), again()) == (True, True)
    second = answered(freshness, V2)
    assert (first(), again(), second()) == (False, False, True)


@pytest.mark.parametrize(
    ("news", "answer", "is_current"),
    [
        ([V2], V2, True),  # the news were of this very one
        ([V2], V3, True),  # a commit that was made upon it
        ([V2], V1, False),
        ([V2, V3], V2, False),
        ([V2, None], V2, False),
        ([None], None, True),
        ([OTHER], V2, False),  # which of the two came later, nobody can tell
        ([V2], None, False),
    ],
)
def test_news_that_come_before_the_answer(
    freshness: Freshness, news: Sequence[Version | None], answer: Version | None, *, is_current: bool
) -> None:
    begun = freshness.begin(b"k")
    for version in news:
        freshness.hear(b"k", version)
    word = freshness.judge(answer, begun)
    assert word is not None
    assert word() is is_current


def test_news_that_are_none(freshness: Freshness) -> None:
    word = answered(freshness, V2)
    for version in (V1, V2):
        freshness.hear(b"k", version)
    freshness.hear(b"another", V3)
    assert word()
    freshness.hear(b"k", None)
    assert not word()
    word = answered(freshness, None)
    freshness.hear(b"k", None)
    assert word()
    freshness.hear(b"k", V1)
    assert not word()


def test_an_older_version_that_is_the_answer_was_restored(freshness: Freshness) -> None:
    newer = answered(freshness, V2)
    assert answered(freshness, V1)()
    assert not newer()


def test_nothing_is_current_unless_it_is_proven() -> None:
    freshness = Freshness()
    assert freshness.judge(V1, freshness.begin(b"k")) is None
    freshness.prove()
    begun, word = freshness.begin(b"k"), answered(freshness, V1)
    freshness.distrust()
    assert (word(), freshness.begin(b"k")) == (False, None)
    late = freshness.judge(V1, begun)  # of an answer that was on its way meanwhile
    assert late is not None
    assert not late()
    freshness.prove()
    word = answered(freshness, V1)
    freshness.after_fork()
    assert (word(), freshness.begin(b"k")) == (False, None)


def test_what_this_process_took_away_may_have_been_born_again(freshness: Freshness) -> None:
    begun = freshness.begin(b"k")  # a load is sent, and finds nothing, as somebody deletes; then it is born again
    freshness.hear(b"k", None)
    freshness.hear(b"k", OTHER)
    freshness.doubt(b"k")  # only now who deleted has his answer
    word = freshness.judge(None, begun)
    assert word is not None
    assert not word()
    assert answered(freshness, OTHER)()
    freshness.doubt(b"of nobody")


def test_a_key_of_which_nobody_holds_a_snapshot_is_forgotten(freshness: Freshness) -> None:
    word = answered(freshness, None)
    assert len(freshness._heard) == 1
    freshness.hear(b"k", V1)
    assert not word()
    del word
    gc.collect()
    assert len(freshness._heard) == 0


# --- who looks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as its only item."""
    seconds = [0.0]
    monkeypatch.setattr("resilience.freshness.monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize("took", [0.0, 0.3])
def test_what_moves_is_held_for_current_for_a_moment_only(
    freshness: Freshness, seconds: list[float], took: float
) -> None:
    begun = freshness.begin(b"k")
    seconds[0] = took
    word = freshness.judge(V1, begun, moves=True)
    assert word is not None
    end = took + max(MOVING, took)
    seconds[0] = end - 0.0001
    freshness.doubt_moving()
    assert word()
    value = word.value
    seconds[0] = end
    assert not word()  # whoever asks the word itself need not look
    assert word.view[0] == value
    freshness.doubt_moving()
    assert word.view[0] != value  # as the engine reads it


@pytest.mark.parametrize("slow_one_is_last", [False, True])
def test_nobody_holds_it_for_longer_as_another_one_took_longer_to_get_it(
    freshness: Freshness, seconds: list[float], *, slow_one_is_last: bool
) -> None:
    slow, soon = freshness.begin(b"k"), freshness.begin(b"k")
    seconds[0] = 0.3
    assert slow is not None
    assert soon is not None
    answers = [slow, (*soon[:2], seconds[0])]
    words = [freshness.judge(V1, begun, moves=True) for begun in (answers[::-1] if slow_one_is_last else answers)]
    freshness.doubt_moving()
    assert all(word is not None and word.view[0] == word.value for word in words)
    seconds[0] += 1.1 * MOVING
    freshness.doubt_moving()
    assert all(word is not None and word.view[0] != word.value for word in words)


def test_to_doubt_what_moves_is_no_news_and_is_done_once(freshness: Freshness, seconds: list[float]) -> None:
    word = freshness.judge(V1, freshness.begin(b"k"), moves=True)
    assert word is not None
    seen = word.view[-1]
    seconds[0] = 1.0
    freshness.doubt_moving()
    doubted = word.view[0]
    freshness.doubt_moving()
    assert (word.view[0], word.view[-1]) == (doubted, seen)
    again = freshness.judge(V1, freshness.begin(b"k"), moves=True)
    assert again is not None
    assert again()
    freshness.hear(b"k", V2)
    assert word.view[-1] != seen
    assert not again()


def test_what_rests_again_is_held_for_current(freshness: Freshness, seconds: list[float]) -> None:
    freshness.judge(V1, freshness.begin(b"k"), moves=True)
    word = answered(freshness, V1)
    seconds[0] = 1.0
    freshness.doubt_moving()
    assert word()


def test_what_was_doubted_while_it_was_asked_for_is_what_the_answer_says(
    freshness: Freshness, seconds: list[float]
) -> None:
    freshness.judge(V1, freshness.begin(b"k"), moves=True)
    begun = freshness.begin(b"k")
    seconds[0] = 1.0
    freshness.doubt_moving()
    word = freshness.judge(V2, begun)
    assert word is not None
    assert word()


def test_nothing_that_moves_is_kept_when_nothing_is_heard(freshness: Freshness, seconds: list[float]) -> None:
    word = freshness.judge(V1, freshness.begin(b"k"), moves=True)
    assert word is not None
    freshness.distrust()
    gone = word.view[0]
    seconds[0] = 1.0
    freshness.doubt_moving()
    assert word.view[0] == gone


def test_a_record_that_moved_and_that_nobody_holds_is_forgotten(freshness: Freshness) -> None:
    word = freshness.judge(V1, freshness.begin(b"k"), moves=True)
    assert len(freshness._moving) == 1
    del word
    gc.collect()
    assert len(freshness._moving) == len(freshness._heard) == 0


def test_the_clock_looks_where_the_time_is_read_and_not_too_often() -> None:
    manual, looks = ManualClock(), list[float]()
    clock = SharedClock(manual, "a test")

    def look() -> None:
        looks.append(manual.monotonic())

    clock.learn(manual.wall(), manual.monotonic())
    clock.wall()
    clock.attend(look)
    for _ in range(100):
        clock.wall()
        clock.attend(look)  # with each load
        manual.advance(LOOK_EVERY / 10)
    assert len(looks) == pytest.approx(10, abs=1)
    clock.attend(looks.clear)
    clock.wall()
    assert looks == []


class Told(Casual):
    """Is told of commits by a message, and by nobody who would read it: its calls have to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.freshness = Freshness(self.look)
        self.freshness.prove()
        self.messages: list[tuple[Key, Version | None]] = []
        self.time = 1e9
        self.moves = False

    def look(self) -> None:
        while self.messages:
            self.freshness.hear(*self.messages.pop(0))

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        begun = self.freshness.begin(key)
        found = super().resilience_load(key, timeout)
        return self._judged(found, begun)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        begun = self.freshness.begin(key)
        return self._judged(super().resilience_save(key, payload, expected, expires_at, timeout), begun)

    def _judged(self, found: Snapshot, begun: Begun | None) -> Snapshot:
        word = self.freshness.judge(found.version, begun, moves=self.moves)
        return Snapshot(found.payload, found.version, word, self.time)


def test_a_call_hears_what_the_thread_has_no_time_for(tmp_path: Path) -> None:
    here, there = Told(f"told:{tmp_path}"), Casual(f"told:{tmp_path}")
    clock = ManualClock(here.time)
    with Runtime(storage=here, clock=clock, environ={}) as runtime, Runtime(storage=there, environ={}) as other:
        guarded = CircuitBreaker("payments", runtime=runtime)
        guarded.call(int)
        guarded.call(int)
        CircuitBreaker("payments", runtime=other).force_open()
        here.messages.append((KEY, there.resilience_load(KEY, 1).version))
        guarded.call(int)  # too soon after the last look
        clock.advance(LOOK_EVERY)
        with pytest.raises(CircuitOpenError):
            guarded.call(int)


class Late(Told):
    """Hears of nothing until the first commit."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.freshness.distrust()
        self.looks = 0

    def look(self) -> None:
        self.looks += 1

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        self.freshness.prove()
        return super().resilience_save(key, payload, expected, expires_at, timeout)


def test_a_call_hears_also_where_the_answer_to_a_commit_is_the_first_that_is_current(tmp_path: Path) -> None:
    here = Late(f"late:{tmp_path}")
    with Runtime(storage=here, clock=ManualClock(here.time), environ={}) as runtime:
        guarded = CircuitBreaker("payments", runtime=runtime)
        guarded.record_failure()
        guarded.call(int)
        assert here.looks == 1


def test_a_success_resets_what_was_not_told_while_it_was_on_its_way(tmp_path: Path, seconds: list[float]) -> None:
    here, there = Told(f"told:{tmp_path}"), Casual(f"told:{tmp_path}")
    here.moves = True
    with Runtime(storage=here, environ={}) as runtime, Runtime(storage=there, environ={}) as other:
        guarded, failing = (CircuitBreaker("payments", runtime=one, gather=0) for one in (runtime, other))

        @guarded
        def long() -> None:
            failing.record_failure()
            seconds[0] += 1

        long()
        long()
        assert failing.status().failure_count == 0


def test_a_lock_that_was_held_at_a_fork_is_no_lock_of_the_child(freshness: Freshness) -> None:
    word = answered(freshness, V1)
    with freshness._lock:
        freshness.after_fork()
        assert not word()
