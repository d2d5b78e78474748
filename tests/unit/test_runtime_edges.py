"""What a runtime does where something that nearly always is there is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from resilience import CircuitBreaker, ConfigurationError, Runtime
from resilience.runtime import Alive


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match=r"no home folder .* set it to file:///"):
        _ = Runtime(environ={}).opened


def test_a_storage_that_is_no_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no URL; write scheme:"):
        _ = Runtime(storage="nonsense", environ={}).opened


def test_what_was_not_opened_leaves_no_plan() -> None:
    assert not Runtime(storage="memory:", environ={}).keep_plan({})


def test_an_observer_that_does_not_load_is_left_out_of_a_reload_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "broken-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[resilience]\nbroken = no_such_module:Observer\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Runtime(storage="memory:", environ={}) as runtime:
        with pytest.warns(Warning, match="broken"):
            _ = runtime.opened
        breaker = CircuitBreaker("payments")
        breaker.record_failure()
        runtime.reload()
        assert breaker.status().failure_count == 1


def test_a_setting_of_an_observer_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="RESILIENCE_JOURNAL__ENABLED"):
        _ = Runtime(storage="memory:", environ={"RESILIENCE_JOURNAL__ENABLED": "perhaps"}).opened


def test_what_ends_while_others_are_gone_over_is_passed_over() -> None:
    class Thing:
        pass

    things = [Thing(), Thing()]
    alive = Alive()
    alive.put(things[0], 0)
    alive.put(things[1], 1)
    seen: list[object] = []
    for _, number in alive:
        seen.append(number)
        things.clear()
    assert seen == [0]
