"""`resilience doctor` as it is called, on servers that are not as they should be: each cause is told once."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from resilience.cli import main

if TYPE_CHECKING:
    from servers.postgres_server import PostgresServer
    from servers.redis_server import RedisServer

    class Doctor(Protocol):
        """Examine a storage; the checks by name, in order, without those of what is installed."""

        def __call__(self, url: str) -> dict[str, dict[str, Any]]: ...


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def doctor(url: str) -> dict[str, dict[str, Any]]:
        monkeypatch.setenv("RESILIENCE_STORAGE", url)
        monkeypatch.setenv("RESILIENCE_POSTGRES__DURABILITY", "none")  # the server's fsync is off
        main(["doctor", "--json"])
        said = capsys.readouterr()
        assert said.err == ""
        return {check["name"]: check for check in json.loads(said.out)[2:]}

    return doctor


def failed(checks: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, check in checks.items() if not check["ok"]]


def test_servers_that_are_well(doctor: Doctor, postgres_server: PostgresServer, redis_server: RedisServer) -> None:
    for url in (postgres_server.url(), redis_server.url):
        checks = doctor(url)
        assert failed(checks) == []
        assert re.fullmatch(
            r"a commit of another process, which took it [\d.]+ [mµ]?s, was seen here "
            r"(before|[\d.]+ [mµ]?s after) it had returned there, without a load",
            checks["push"]["detail"],
        )


def test_without_update(doctor: Doctor, postgres_server: PostgresServer) -> None:
    """Another process, which cannot commit either, is not waited for."""
    postgres_server.ask("REVOKE UPDATE ON resilience.records FROM app")
    try:
        checks = doctor(postgres_server.url())
    finally:
        postgres_server.ask("GRANT UPDATE ON resilience.records TO app")
    assert failed(checks) == ["rights", "stale commit"]
    assert checks["rights"]["fix"] == "GRANT UPDATE ON resilience.records TO app;"
    assert checks["stale commit"]["fix"] == "mend first what failed above: rights"
    assert list(checks)[-2:] == ["stale commit", "delete"]


def test_without_what_each_commit_needs(doctor: Doctor, postgres_server: PostgresServer) -> None:
    postgres_server.ask("REVOKE EXECUTE ON FUNCTION resilience.records_json FROM app")
    try:
        checks = doctor(postgres_server.url())
    finally:
        postgres_server.ask("GRANT EXECUTE ON FUNCTION resilience.records_json TO app")
    assert failed(checks) == ["rights", "commit"]
    assert checks["rights"]["fix"] == "GRANT EXECUTE ON FUNCTION resilience.records_json TO app;"
    assert "delete" not in checks  # nothing was written


def test_a_script_that_may_not_tell_others(doctor: Doctor, redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        admin.acl_setuser(
            "mute", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-publish"]
        )
    checks = doctor(f"redis://mute:x@127.0.0.1:{redis_server.port}")
    assert failed(checks) == ["commit"]
    assert "+publish" in checks["commit"]["detail"]
    assert checks["delete"]["detail"] == "there is nothing to delete"


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("redis://127.0.0.1:1", "see that it runs, and check the host and port in the URL"),
        ("redis://nobody:wrong-secret@127.0.0.1:{redis}", "RESILIENCE_REDIS__USERNAME and RESILIENCE_REDIS__PASSWORD"),
        ("postgresql://app:wrong-secret@127.0.0.1:{postgres}/postgres", "check user and password in the URL"),
    ],
)
def test_what_cannot_be_reached_is_told_once(
    doctor: Doctor, postgres_server: PostgresServer, redis_server: RedisServer, url: str, fix: str
) -> None:
    checks = doctor(url.format(redis=redis_server.port, postgres=postgres_server.port))
    assert list(checks) == failed(checks) == ["server"]
    assert fix in checks["server"]["fix"]
    assert "wrong-secret" not in str(checks)
