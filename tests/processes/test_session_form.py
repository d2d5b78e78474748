"""The session form, from its signatures alone: many processes, one folder, and an end that no order can change."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from processes.support import METHODS, Crowd, number

from resilience import StorageError
from resilience_circuit_breaker import session
from resilience_circuit_breaker.session import (
    CircuitState,
    CircuitStatus,
    check_circuit,
    load_circuit,
    record_failure,
    record_success,
    save_circuit,
)

AGENT = "code reviewer/é"


def expired() -> CircuitStatus:
    return CircuitStatus(
        state=CircuitState.OPEN, failure_count=3, last_failure_time=time.time() - session.RESET_TIMEOUT - 1
    )


@pytest.mark.everywhere
def test_a_few_processes(crew: Crowd, tmp_path: Path) -> None:
    save_circuit(tmp_path, AGENT, expired())
    assert crew.run(check_circuit, tmp_path, AGENT) == [True] * 4
    assert load_circuit(tmp_path, AGENT).state is CircuitState.HALF_OPEN
    crew.run(record_failure, tmp_path, AGENT)
    after = load_circuit(tmp_path, AGENT)
    assert (after.state, after.late_count) == (CircuitState.OPEN, 3)


class TestManyProcesses:
    @pytest.mark.parametrize("count", [5, 20])
    def test_an_expired_open_lets_all_in_and_makes_one_transition(
        self, crowd: Crowd, tmp_path: Path, count: int
    ) -> None:
        save_circuit(tmp_path, AGENT, expired())
        before = load_circuit(tmp_path, AGENT)
        assert before.state is CircuitState.OPEN
        assert crowd.run(check_circuit, tmp_path, AGENT, count=count) == [True] * count
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.failure_count) == (CircuitState.HALF_OPEN, 3)
        assert number(after.version) - number(before.version) == 1

    @pytest.mark.parametrize("count", [5, 20])
    def test_an_open_lets_nobody_in(self, crowd: Crowd, tmp_path: Path, count: int) -> None:
        save_circuit(tmp_path, AGENT, CircuitStatus(CircuitState.OPEN, 3, time.time()))
        before = load_circuit(tmp_path, AGENT)
        assert crowd.run(check_circuit, tmp_path, AGENT, count=count) == [False] * count
        assert load_circuit(tmp_path, AGENT).version == before.version

    @pytest.mark.parametrize("count", [3, 10])
    def test_successes_from_half_open(self, crowd: Crowd, tmp_path: Path, count: int) -> None:
        save_circuit(tmp_path, AGENT, expired())
        assert check_circuit(tmp_path, AGENT)
        before = load_circuit(tmp_path, AGENT)
        statuses = crowd.run(record_success, tmp_path, AGENT, count=count)
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.failure_count, after.half_open_successes) == (CircuitState.CLOSED, 0, 0)
        assert number(after.version) - number(before.version) == 1
        assert {status.state for status in statuses} == {CircuitState.CLOSED}

    @pytest.mark.parametrize("count", [3, 10])
    def test_successes_from_half_open_with_a_higher_threshold(
        self, crowd: Crowd, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_circuit(tmp_path, AGENT, CircuitStatus(CircuitState.HALF_OPEN))
        before = load_circuit(tmp_path, AGENT)
        crowd.run(record_success_of, tmp_path, count + 1, count=count)
        monkeypatch.setattr(session, "HALF_OPEN_SUCCESS_THRESHOLD", count + 1)
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.half_open_successes) == (CircuitState.HALF_OPEN, count)
        assert number(after.version) - number(before.version) == count
        assert record_success(tmp_path, AGENT).state is CircuitState.CLOSED

    @pytest.mark.parametrize("count", [3, 10])
    def test_successes_from_closed(self, crowd: Crowd, tmp_path: Path, count: int) -> None:
        save_circuit(tmp_path, AGENT, CircuitStatus(CircuitState.CLOSED, 2, time.time()))
        before = load_circuit(tmp_path, AGENT)
        crowd.run(record_success, tmp_path, AGENT, count=count)
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.failure_count) == (CircuitState.CLOSED, 0)
        assert number(after.version) - number(before.version) == 1

    @pytest.mark.parametrize("count", [3, 20])
    def test_failures_from_closed(self, crowd: Crowd, tmp_path: Path, count: int) -> None:
        statuses = crowd.run(record_failure, tmp_path, AGENT, count=count)
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.failure_count) == (CircuitState.OPEN, 3)
        assert after.late_count == count - 3  # a failure while it is open is counted as late
        assert number(after.version) == count
        assert all(1 <= status.failure_count <= 3 for status in statuses)
        assert not check_circuit(tmp_path, AGENT)

    @pytest.mark.parametrize("count", [3, 20])
    def test_failures_that_reach_no_threshold(
        self, crowd: Crowd, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crowd.run(record_failure_of, tmp_path, count + 1, count=count)
        monkeypatch.setattr(session, "FAILURE_THRESHOLD", count + 1)
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.failure_count, number(after.version)) == (CircuitState.CLOSED, count, count)

    @pytest.mark.parametrize("count", [5, 20])
    def test_failures_from_half_open(self, crowd: Crowd, tmp_path: Path, count: int) -> None:
        save_circuit(tmp_path, AGENT, CircuitStatus(CircuitState.HALF_OPEN))
        crowd.run(record_failure, tmp_path, AGENT, count=count)
        after = load_circuit(tmp_path, AGENT)
        assert (after.state, after.half_open_failures, after.late_count) == (CircuitState.OPEN, 1, count - 1)

    def test_agents_are_apart(self, crowd: Crowd, tmp_path: Path) -> None:
        agents = [f"agent {index}" for index in range(10)]
        crowd.each([(record_failure, tmp_path, agents[index % 10]) for index in range(20)])
        assert {load_circuit(tmp_path, agent).failure_count for agent in agents} == {2}

    def test_a_fork_within_a_process_that_used_it(self, tmp_path: Path) -> None:
        record_failure(tmp_path, AGENT)
        with Crowd(METHODS[0], 3) as children:
            children.run(record_failure_of, tmp_path, 100)
        assert record_failure_of(tmp_path, 100) == 5


def record_failure_of(session_dir: Path, threshold: int) -> int:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(session, "FAILURE_THRESHOLD", threshold)
        return record_failure(session_dir, AGENT).failure_count


def record_success_of(session_dir: Path, threshold: int) -> int:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(session, "HALF_OPEN_SUCCESS_THRESHOLD", threshold)
        return record_success(session_dir, AGENT).half_open_successes


@pytest.mark.everywhere
class TestOneProcess:
    def test_the_numbers(self) -> None:
        assert (session.FAILURE_THRESHOLD, session.RESET_TIMEOUT, session.HALF_OPEN_SUCCESS_THRESHOLD) == (3, 300, 1)

    def test_the_numbers_are_read_at_each_call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        record_failure(tmp_path, AGENT)
        monkeypatch.setattr(session, "FAILURE_THRESHOLD", 5)
        monkeypatch.setattr(session, "RESET_TIMEOUT", 1000)
        for _ in range(3):
            assert record_failure(tmp_path, AGENT).state is CircuitState.CLOSED
        status = record_failure(tmp_path, AGENT)
        assert status.state is CircuitState.OPEN
        assert 980 < (status.retry_after or 0) <= 1000
        monkeypatch.setattr(session, "HALF_OPEN_SUCCESS_THRESHOLD", 2)
        save_circuit(tmp_path, AGENT, CircuitStatus(CircuitState.HALF_OPEN))
        assert record_success(tmp_path, AGENT).state is CircuitState.HALF_OPEN
        assert record_success(tmp_path, AGENT).state is CircuitState.CLOSED

    def test_nothing_there_is_the_default(self, tmp_path: Path) -> None:
        status, default = load_circuit(tmp_path / "new" / "session", AGENT), CircuitStatus.default()
        fields = ("state", "failure_count", "last_failure_time", "half_open_successes")
        assert [getattr(status, field) for field in fields] == [getattr(default, field) for field in fields]
        assert check_circuit(tmp_path / "new" / "session", AGENT) is True

    def test_what_was_saved_is_loaded(self, tmp_path: Path) -> None:
        saved = CircuitStatus(CircuitState.OPEN, 7, time.time() - 10, 0)
        save_circuit(str(tmp_path), AGENT, saved)
        loaded = load_circuit(tmp_path, AGENT)
        assert (loaded.state, loaded.failure_count, loaded.last_failure_time) == (
            saved.state,
            saved.failure_count,
            saved.last_failure_time,
        )
        assert 270 < (loaded.retry_after or 0) <= 290
        save_circuit(tmp_path, AGENT, loaded)
        assert load_circuit(tmp_path, AGENT).failure_count == 7
        save_circuit(tmp_path, AGENT, CircuitStatus.default())
        assert load_circuit(tmp_path, AGENT).failure_count == 0

    def test_a_count_is_not_forgotten_for_its_age(self, tmp_path: Path) -> None:
        save_circuit(tmp_path, AGENT, CircuitStatus(CircuitState.CLOSED, 2, time.time() - 7 * 86400))
        assert record_failure(tmp_path, AGENT).state is CircuitState.OPEN

    def test_nonsense_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="failure_count"):
            save_circuit(tmp_path, AGENT, CircuitStatus(failure_count=-1))
        assert load_circuit(tmp_path, AGENT).version is None

    def test_it_stands_in_the_folder_of_the_session(self, tmp_path: Path) -> None:
        record_failure(tmp_path / "session", AGENT)
        assert [path.name for path in (tmp_path / "session").iterdir()] == [".circuits"]

    def test_relative_folders_are_those_of_the_call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            assert record_failure("session", AGENT).failure_count == 1
        assert load_circuit(Path(tmp_path, "one", "..", "other", "session"), AGENT).failure_count == 1

    def test_the_environment_changes_no_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD", "1")
        monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
        assert record_failure(tmp_path, AGENT).state is CircuitState.CLOSED
        assert list((tmp_path / ".circuits").iterdir())

    def test_the_environment_says_how_files_are_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RESILIENCE_FILE__DURABILITY", "fsync")
        assert record_failure(tmp_path, AGENT).failure_count == 1
        monkeypatch.setenv("RESILIENCE_FILE__DURABILITY", "fsink")
        with pytest.raises(Exception, match="RESILIENCE_FILE__DURABILITY"):
            record_failure(tmp_path / "other", AGENT)

    def test_sessions_and_agents_beyond_what_is_kept_open(self, tmp_path: Path) -> None:
        for _ in range(2):
            for index in range(70):
                record_failure(tmp_path / str(index), AGENT)
        assert {load_circuit(tmp_path / str(index), AGENT).failure_count for index in range(70)} == {2}

    def test_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "FAILURE_THRESHOLD", 1000)
        threads = [
            threading.Thread(target=lambda: [record_failure(tmp_path, AGENT) for _ in range(20)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert load_circuit(tmp_path, AGENT).failure_count == 160

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert check_circuit(tmp_path / "file", AGENT)  # a private copy decides
        assert load_circuit(tmp_path / "file", AGENT).degraded
        with pytest.raises(StorageError):
            save_circuit(tmp_path / "file", AGENT, CircuitStatus.default())
