"""The small objects that plugins and observers get: frozen, comparable, printable, and whole after pickling."""

from __future__ import annotations

import pickle

import pytest

import resilience
from resilience import (
    Capability,
    CircuitOpenError,
    ConfigurationError,
    Event,
    Key,
    PluginError,
    PolicyRejected,
    ResilienceError,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageError,
    StorageIncompatible,
    StorageLockTimeout,
    StorageUnavailable,
    Transition,
    Version,
    Word,
    testing,
)

KEY = Key("circuit_breaker", "payments")
TOLD = [
    Transition(KEY, "closed", "open", "3 failures", 1.5, Version("abc", 3), 1),
    Event("degraded", KEY, 2.5, {"error": "gone"}),
]


@pytest.mark.parametrize("told", TOLD)
def test_what_observers_are_told(told: Transition | Event) -> None:
    again = pickle.loads(pickle.dumps(told))
    assert again == told
    assert told != 1
    assert repr(told).startswith(f"{type(told).__name__}(")
    with pytest.raises(AttributeError, match="frozen"):
        told.key = KEY
    with pytest.raises(AttributeError, match="frozen"):
        del told.key
    with pytest.raises(TypeError, match="unhashable"):
        hash(told)


@pytest.mark.parametrize("value", [KEY, Version("abcdefghij", 7)])
def test_keys_and_versions(value: Key | Version) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert type(again) is type(value)
    assert hash(again) == hash(value)
    assert eval(repr(value), {"Key": Key, "Version": Version}) == value


def test_their_short_forms() -> None:
    assert str(KEY) == "circuit_breaker 'payments'"
    assert str(Version("abcdefghij", 7)) == "7@abcdefgh"
    assert repr(Snapshot(b"abc", Version("a", 1))) == "<Snapshot 1@a, 3 bytes>"
    assert repr(Snapshot(None, None)) == "<Snapshot of nothing, no payload>"


@pytest.mark.parametrize("name", ["", " ", "a\n", "\0", "x" * 1001, "a ", "\x1b[31m"])
def test_names_that_no_key_has(name: str) -> None:
    with pytest.raises(ValueError, match="name of a key"):
        Key("circuit_breaker", name)


def test_a_name_is_text() -> None:
    with pytest.raises(TypeError, match="not int"):
        Key("circuit_breaker", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_word_is_current_until_it_changes_or_is_released() -> None:
    place = [1]
    assert Word(place, 1)()
    place[0] = 2
    assert not Word(place, 1)()
    view = memoryview(bytearray(8)).cast("Q")
    word = Word(view, 0)
    assert word()
    view.release()
    assert not word()


def test_errors_pickle_whole() -> None:
    unavailable = pickle.loads(pickle.dumps(StorageUnavailable("gone", key=KEY, outcome_unknown=True)))
    assert (str(unavailable), unavailable.key, unavailable.outcome_unknown) == ("gone", KEY, True)
    conflict = pickle.loads(pickle.dumps(StorageConflict("late", current=Snapshot(b"", None))))
    assert (str(conflict), conflict.current) == ("late", None)
    translated = StorageUnavailable.from_os_error(OSError(28, "No space left"), "cannot write", KEY)
    of_a_file = OSError(28, "No space left", "/state/x")
    assert str(StorageUnavailable.from_os_error(of_a_file, "writing")) == "writing: No space left: '/state/x'"
    assert str(StorageUnavailable.from_os_error(of_a_file, "writing /state/x")) == "writing /state/x: No space left"
    assert str(translated) == "cannot write: No space left"
    assert isinstance(translated, ResilienceError)


RAISED = [
    CircuitOpenError("payments", "open", 3.5, "OSError", "maintenance"),
    ConfigurationError("wrong"),
    PluginError("broken"),
    PolicyRejected("no", name="payments", retry_after=None),
    ResilienceError("something"),
    StorageConflict("late", key=KEY),
    StorageCorrupt("damaged", key=KEY),
    StorageError("ill"),
    StorageIncompatible("newer", key=KEY),
    StorageLockTimeout("held", key=KEY),
    StorageUnavailable("gone", key=KEY, outcome_unknown=True),
    testing.Anomaly("I1", "twice", [testing.Operation("a", 1, "write", 0.0, 1.0, None)]),
    testing.Failed("ended", ("OSError", "no")),
    testing.NotLinearizable("no order"),
    testing.ScheduleFailed([("run", 0), ("tick", 0)], AssertionError("lost")),
    testing.SearchTooLong("too many"),
    testing.Skipped("not declared"),
    testing.Violation("seen", "matters", "do"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_out_of_a_process_pool(error: BaseException) -> None:
    again = pickle.loads(pickle.dumps(error))
    fields = [name for name in dir(error) if not name.startswith("_") and not callable(getattr(error, name))]
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert [getattr(again, name) for name in fields] == [getattr(error, name) for name in fields]


def test_every_public_error_is_among_them() -> None:
    public = [getattr(module, name) for module in (resilience, testing) for name in module.__all__]
    raised = {thing for thing in public if isinstance(thing, type) and issubclass(thing, BaseException)}
    assert raised == set(map(type, RAISED))


def test_capabilities_are_text() -> None:
    assert Capability.INLINE == "inline"


def test_the_facade_has_what_it_says_and_no_more() -> None:
    assert all(getattr(resilience, name) is not None for name in resilience.__all__)
    assert set(resilience.__all__) <= set(dir(resilience))
    with pytest.raises(AttributeError, match="no attribute 'Breaker'"):
        getattr(resilience, "Breaker")  # noqa: B009 - as an attribute, type checkers would find it first
