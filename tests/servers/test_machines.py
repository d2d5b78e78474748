"""Several machines: processes with state folders of their own, and half of them cut off from the server."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from processes.support import Crowd

from resilience import CircuitBreaker, CircuitOpenError, Runtime
from resilience.testing import wait_until

if TYPE_CHECKING:
    from servers.proxy import Proxy

MACHINES = 4
CUT_OFF = (0, 1)
WELL = (2, 3)
OPENS_AT = 6
"""Failures: one of each machine, and of two of them another one."""


class Seen(NamedTuple):
    state: str
    failures: int
    is_degraded: bool
    life: str
    """That of the record; a rejection of each is told to the record, so the number of its version grows."""


class Place(NamedTuple):
    url: str
    home: str
    timeout: float
    """Short where the server will not answer, and longer than any busy machine takes elsewhere."""


@cache
def breaker(place: Place) -> CircuitBreaker:
    os.environ["XDG_STATE_HOME"] = place.home
    runtime = Runtime(storage=place.url, storage_timeout=place.timeout)
    return CircuitBreaker("shared", runtime=runtime, failure_threshold=OPENS_AT)


def imports(url: str) -> None:
    """Do what takes its time once, so that no first call is late by it."""
    with Runtime(storage=url, storage_timeout=30, environ={}) as runtime:
        CircuitBreaker("imports", runtime=runtime).status()


def fail(place: Place) -> bool:
    """Call a dependency that is down; whether it was reached."""

    def failing() -> None:
        raise ConnectionError

    try:
        breaker(place).call(failing)
    except ConnectionError:
        return True
    except CircuitOpenError:
        return False
    raise AssertionError


def look(place: Place) -> Seen:
    status = breaker(place).status()
    return Seen(str(status.state), status.failure_count, status.degraded, str(status.version).partition("@")[2])


def come_back(place: Place) -> Seen:
    """Look until the server is there again."""
    wait_until(lambda: not look(place).is_degraded, "the return of the server", 30)
    return look(place)


def told(home: str) -> list[str]:
    """What the journal of a machine has."""
    journal = Path(home) / "resilience" / "events.jsonl"
    return [json.loads(line)["event"] for line in journal.read_text("utf-8").splitlines()] if journal.exists() else []


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_half_of_the_machines_are_cut_off_and_come_back(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    running, proxy = request.getfixturevalue(f"{server}_server"), request.getfixturevalue(f"{server}_proxy")
    if server == "redis":
        urls = [f"redis://127.0.0.1:{proxy.port}", running.url]
    else:
        urls = [running.url(proxy.port), running.url()]
    homes = [str(tmp_path / f"machine {number}") for number in range(MACHINES)]
    places = [
        Place(urls[0], home, 1) if number in CUT_OFF else Place(urls[1], home, 30) for number, home in enumerate(homes)
    ]

    with Crowd("spawn", MACHINES) as crowd:  # not forked: the proxy's threads are at work here
        for number in range(MACHINES):
            crowd.one(number, imports, urls[1])
        live(crowd, proxy, places)
    check_journals(homes)


def await_sight(crowd: Crowd, number: int, place: Place, expected: tuple[str, int, bool]) -> None:
    """Wait until a machine sees what others did: it is told of it after they have gone on."""
    wait_until(lambda: crowd.one(number, look, place)[:3] == expected, f"{expected} at machine {number}", 30)


def live(crowd: Crowd, proxy: Proxy, places: list[Place]) -> None:
    assert [crowd.one(number, fail, places[number]) for number in range(MACHINES)] == [True] * MACHINES
    for number in range(MACHINES):
        await_sight(crowd, number, places[number], ("closed", MACHINES, False))

    proxy.hang()
    assert [crowd.one(number, fail, places[number]) for number in range(MACHINES)] == [True] * MACHINES
    for number in CUT_OFF:  # each goes on by itself, from what it saw last
        assert crowd.one(number, look, places[number])[:3] == ("closed", MACHINES + 1, True)
    for number in WELL:  # the others go on together
        await_sight(crowd, number, places[number], ("open", OPENS_AT, False))
    for number in CUT_OFF:  # the dependency is spared there as well
        assert [crowd.one(number, fail, places[number]) for _ in range(3)] == [True, False, False]

    proxy.recover()
    seen = [crowd.one(number, come_back, places[number]) for number in range(MACHINES)]
    assert set(seen) == {("open", OPENS_AT, False, seen[-1].life)}  # what they counted alone is no part of it
    assert [crowd.one(number, fail, places[number]) for number in range(MACHINES)] == [False] * MACHINES


def check_journals(homes: list[str]) -> None:
    for number in CUT_OFF:
        events = told(homes[number])
        assert (events.count("degraded"), events.count("recovered")) == (1, 1)
    opened = [told(homes[number]) for number in WELL]
    assert sum(events.count("transition") for events in opened) == 1  # by the one of them that opened it
    assert all("degraded" not in events for events in opened)
