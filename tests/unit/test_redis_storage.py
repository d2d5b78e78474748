"""What of the Redis storage needs no server and no driver: URLs, names, records, settings."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from resilience import ConfigurationError, Key, PluginError, Runtime, StorageCorrupt, Version
from resilience_redis import RedisSettings, RedisStorage, _connections, _errors, _route, _script, storage
from resilience_redis._address import Address, Place, parse
from resilience_redis._listener import Listener
from resilience_redis._record import Names, Stored, checksum, stored

KEY = Key("test", "one")


@pytest.fixture(autouse=True)
def _the_driver_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported when a storage is made, and nothing is used here; where it is looked into, the test says so."""
    monkeypatch.setattr(storage, "_need_driver", int)


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "place", "shown"),
    [
        ("redis://host", Place("one", (Address("host", 6379),)), "redis://host:6379/0"),
        ("valkey://h:1/", Place("one", (Address("h", 1),)), "redis://h:1/0"),
        (
            "rediss://us%3Aer:p%40ss@h:1/7",
            Place("one", (Address("h", 1),), True, "us:er", "p@ss", 7),
            "rediss://h:1/7",
        ),
        ("valkeys://:pass@h", Place("one", (Address("h", 6379),), True, None, "pass"), "rediss://h:6379/0"),
        ("redis://[::1]:2", Place("one", (Address("::1", 2),)), "redis://[::1]:2/0"),
        ("redis://[::1]", Place("one", (Address("::1", 6379),)), "redis://[::1]:6379/0"),
        ("redis+unix:///run/r%20s", Place("one", (Address("/run/r s"),)), "redis+unix:///run/r s?db=0"),
        (
            "redis+unix://u:p@/run/s?db=3",
            Place("one", (Address("/run/s"),), False, "u", "p", 3),
            "redis+unix:///run/s?db=3",
        ),
        (
            "rediss+sentinel://u:p@a,b:2/my%20master/4",
            Place("sentinel", (Address("a", 26379), Address("b", 2)), True, "u", "p", 4, "my master"),
            "rediss+sentinel://a:26379,b:2/my master/4",
        ),
        (
            "redis+cluster://a,b:2",
            Place("cluster", (Address("a", 6379), Address("b", 2))),
            "redis+cluster://a:6379,b:2",
        ),
    ],
)
def test_urls(url: str, place: Place, shown: str) -> None:
    assert parse(url) == place
    assert str(place) == shown
    assert repr(RedisStorage(url, RedisSettings(push=False))) == f"<RedisStorage {shown}>"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis:", "names no server"),
        ("redis:host", "names no server"),
        ("redis://", "host or host:port"),
        ("redis://h:x", "host or host:port"),
        ("redis://h:0", "host or host:port"),
        ("redis://h:99999", "host or host:port"),
        ("redis://h,i", "too many parts"),
        ("redis://h/0/1", "too many parts"),
        ("redis://h/x", "the database is a number"),
        ("redis://h?timeout=3", "the settings are variables"),
        ("redis+unix://host/run/s", "absolute path"),
        ("redis+unix://", "absolute path"),
        ("redis+unix:///run/s?timeout=3", "the one thing after"),
        ("redis+sentinel://h", "what the Sentinels call"),
        ("redis+cluster://h/0", "too many parts"),
    ],
)
def test_urls_that_are_none(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        RedisStorage(url.replace("//", "//me:swordfish@") if "unix" not in url else url)
    assert "swordfish" not in str(caught.value)
    assert "write redis" in str(caught.value)


def test_what_to_write_instead_is_shown_whole() -> None:
    """What stands before an "@" is blotted out of messages as a secret, so an example has none."""
    with (
        pytest.raises(ConfigurationError) as caught,
        Runtime(storage="rediss://me:swordfish@h/x", environ={}) as runtime,
    ):
        _ = runtime.opened
    assert str(caught.value) == (
        "the given storage: the database is a number; with user:password@ before the host if need be, and %-escapes for"
        " what is special in URLs, write rediss://host:6379/0"
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def test_one_section_of_variables_for_all_schemes() -> None:
    environ = {"RESILIENCE_REDIS__PREFIX": "shop:", "RESILIENCE_REDIS__PUSH": "off"}
    for scheme in ("redis", "valkeys", "rediss+cluster"):
        with Runtime(storage=f"{scheme}://h", environ=environ) as runtime:
            opened: Any = runtime.opened.storage
            assert opened.names.channel == b"shop:changed"
            assert "push" not in opened.capabilities


def test_a_wrong_prefix_and_an_unknown_setting() -> None:
    for prefix in ("a b", "a{b}", "a\tb", "x" * 101):
        with (
            pytest.raises(ConfigurationError, match="RESILIENCE_REDIS__PREFIX"),
            Runtime(storage="redis://h", environ={"RESILIENCE_REDIS__PREFIX": prefix}) as runtime,
        ):
            _ = runtime.opened
    with (
        pytest.raises(ConfigurationError, match="did you mean RESILIENCE_REDIS__MAX_STALENESS"),
        Runtime(storage="redis://h", environ={"RESILIENCE_REDIS__MAX_STALENES": "1"}) as runtime,
    ):
        _ = runtime.opened


def test_passwords_are_not_shown() -> None:
    settings = RedisSettings.model_validate({"password": "swordfish", "sentinel_password": "swordfish"})
    made = RedisStorage("redis+sentinel://u@h/m", settings)
    assert "swordfish" not in repr(settings) + repr(made) + repr(vars(made))
    assert repr(RedisStorage("redis://u:swordfish@h").place) == "<Place redis://h:6379/0>"
    said = made._manner.opening(Address("h", 26379)), made._manner.opening(Address("elsewhere", 1))
    assert said == ([("AUTH", "swordfish")], [("AUTH", "u", "swordfish")])


def test_a_user_without_a_password_is_not_taken_for_the_default_one() -> None:
    manner = RedisStorage("redis://u@h")._manner
    assert manner.opening(Address("h", 6379)) == [("AUTH", "u", "")]
    settings = RedisSettings(username="u", sentinel_username="s")
    manner = RedisStorage("redis+sentinel://h/m", settings)._manner
    assert manner.opening(Address("h", 26379)) == [("AUTH", "s", "")]
    assert manner.opening(Address("elsewhere", 1)) == [("AUTH", "u", "")]


def test_what_is_said_of_tls_where_nothing_is_wrong_with_the_files() -> None:
    manner = RedisStorage("rediss://h", RedisSettings(tls_check_hostname=False))._manner
    refused = ConnectionError("refused")
    refused.__context__ = ConnectionRefusedError()  # before a file is looked at
    for error in (refused, ConnectionError("[SSL: WRONG_VERSION_NUMBER]")):
        assert "redis:// is without, rediss:// with it" in manner.unreached(Address("h", 1), error).advice
    assert RedisStorage("rediss://h", RedisSettings(tls_ca_file="some.pem"))._manner.in_vain == ""


def test_a_private_key_without_its_certificate() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"RESILIENCE_REDIS__TLS_KEY_FILE: .* set tls_cert_file too"),
        Runtime(storage="rediss://h", environ={"RESILIENCE_REDIS__TLS_KEY_FILE": "key.pem"}) as runtime,
    ):
        _ = runtime.opened


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "resilience_redis._driver", None)
    with pytest.raises(PluginError, match=r"pip install 'resilience-framework\[redis\]'"):
        RedisStorage("redis://h")


# --- names and records ------------------------------------------------------------------------------------------------


def test_commands_as_they_are_sent() -> None:
    sent = _script.packed([("GET", b"\r\n"), ("SET", "ü", 12)])
    assert sent == b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xbc\r\n$2\r\n12\r\n"


def test_names() -> None:
    names = Names("resilience:")
    assert names.of(Key("circuit_breaker", "payments")) == b"resilience:{circuit_breaker:payments}"
    assert names.of(Key("circuit_breaker", "payments")) is names.of(Key("circuit_breaker", "payments"))
    keys = [Key("a", "b:c"), Key("a:b", "c"), Key("a", "{x}"), Key("{", "}"), Key("%3A", ":"), Key("a", "ü}")]
    assert len({names.of(key) for key in keys}) == len(keys)
    assert [names.key_of(names.of(key)) for key in keys] == keys
    for name in (
        b"resilience:{a}",
        b"resilience:{a: }",
        b"resilience:{a:b",
        b"resilience:{a\xff:b}",
        b"resilience:{:b}",
    ):
        assert names.key_of(name) is None
    assert Names("a*[b]?\\").pattern == rb"a\*\[b\]\?\\{*"


def test_records() -> None:
    version = Version("abc", 3)
    sound = Stored(b"hash", b"abc", b"3", checksum(KEY, b"{}", version), b"{}")
    assert stored([b"none", None, None, None, None]) is None
    assert stored([*sound]) == sound
    assert sound.checked(KEY) == (b"{}", version)
    for damaged in (
        sound._replace(kind=b"list"),
        sound._replace(payload=None),
        sound._replace(payload=b"{ }"),
        sound._replace(number=b"4"),
        sound._replace(number=None),
        sound._replace(number=b"x"),
        sound._replace(incarnation=b"\xff"),
        sound._replace(sum=None),
    ):
        with pytest.raises(StorageCorrupt):
            damaged.checked(KEY)
    with pytest.raises(StorageCorrupt):
        sound.checked(Key("test", "copied to another name"))


# --- time -------------------------------------------------------------------------------------------------------------


def test_what_is_waited_for_the_thread_is_taken_from_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = RedisStorage("redis://h")
    given: list[float] = []

    def wait(_: object, patience: float) -> None:
        threading.Event().wait(patience)

    def run(script: object, key: Key, arguments: object, timeout: float) -> list[Any]:
        given.append(timeout)
        return [b"1", b"0", b"none", None, None, None, None]

    monkeypatch.setattr(made, "_run", run)
    monkeypatch.setattr(Listener, "start", wait)
    made.resilience_load(KEY, 0.1)
    assert 0 < given[0] <= 0.05


# --- errors and routes ------------------------------------------------------------------------------------------------


class Refusing:
    """Drives requests and answers each with the next of what was planned."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def drive(self, requests: Any) -> Any:
        try:
            address, commands = next(requests)
            while True:
                self.asked.append((str(address), commands[0][0]))
                answer = self.answers.pop(0)
                if isinstance(answer, _errors.Unreached):
                    address, commands = requests.throw(answer)
                else:
                    address, commands = requests.send([answer])
        except StopIteration as stop:
            return stop.value


A, B, C = Address("a", 1), Address("b", 2), Address("c", 3)
SCRIPT = _script.LOAD


def refused(code: str, rest: str = "…") -> _errors.Refused:
    return _errors.Refused(A, code, f"{code} {rest}")


def test_a_cluster_is_learnt_from_what_it_says() -> None:
    pytest.importorskip("redis")
    route = _route.route_of(Place("cluster", (A, B)))
    driver = Refusing(_errors.Unreached(A, "down", sent=False), refused("MOVED", "1 c:3"), "well", "again")
    assert driver.drive(_route.run(route, SCRIPT, (b"k",), ())) == "well"
    assert driver.drive(_route.run(route, SCRIPT, (b"k",), ())) == "again"
    assert [where for where, _ in driver.asked] == ["a:1", "b:2", "c:3", "c:3"]
    driver = Refusing(_errors.Unreached(C, "down", sent=True))
    with pytest.raises(_errors.Unreached):
        driver.drive(_route.run(route, SCRIPT, (b"k",), ()))
    driver = Refusing(refused("ASK", "1 :7"), refused("NOSCRIPT"), "asked")
    assert driver.drive(_route.run(route, SCRIPT, (b"k",), ())) == "asked"
    assert driver.asked == [("b:2", "EVALSHA"), ("b:7", "ASKING"), ("b:7", "ASKING")]


def test_a_node_that_was_named_only_in_passing_and_is_down() -> None:
    pytest.importorskip("redis")
    route = _route.route_of(Place("cluster", (A, B)))
    driver = Refusing(refused("ASK", "1 c:3"), _errors.Unreached(C, "down", sent=False), "well")
    assert driver.drive(_route.run(route, SCRIPT, (b"k",), ())) == "well"
    assert [where for where, _ in driver.asked] == ["a:1", "c:3", "a:1"]


def test_who_is_sent_around_gives_up() -> None:
    pytest.importorskip("redis")
    route = _route.route_of(Place("cluster", (A,)))
    driver = Refusing(*[refused("MOVED", "1 b:2")] * 9)
    with pytest.raises(_errors.Refused):
        driver.drive(_route.run(route, SCRIPT, (b"k",), ()))
    assert len(driver.asked) == 5


def test_a_replica_makes_the_sentinels_be_asked_again() -> None:
    route = _route.route_of(Place("sentinel", (A, B), master="m"))
    driver = Refusing([b"c", b"3"], refused("READONLY"), None, [b"d", b"4"], "well")
    assert driver.drive(_route.run(route, SCRIPT, (b"k",), ())) == "well"
    assert [where for where, _ in driver.asked] == ["a:1", "c:3", "a:1", "b:2", "d:4"]
    unreached = [_errors.Unreached(A, "down", sent=False)] * 2
    assert route.lose(b"k", Address("d", 4))
    with pytest.raises(_errors.Unreached):
        Refusing(*unreached).drive(_route.run(route, SCRIPT, (b"k",), ()))


def test_who_is_late_to_miss_the_master_does_not_lose_its_successor() -> None:
    route = _route.route_of(Place("sentinel", (A,), master="m"))
    assert Refusing([b"d", b"4"]).drive(route.find(b"k")) == Address("d", 4)
    assert route.lose(b"k", C)  # which another thread has missed before
    assert Refusing().drive(route.find(b"k")) == Address("d", 4)


def test_listing_asks_everybody_and_tells_of_who_does_not_answer() -> None:
    route = _route.route_of(Place("cluster", (A, B)))
    slots = [[0, 1, [b"", 1, b"id"]], [2, 3, [b"c", 3, b"id"], [b"replica", 9, b"id"]]]
    driver = Refusing(_errors.Unreached(A, "down", sent=False), slots, [b"5", [b"x"]], [b"0", [b"x", b"y"]], [b"0", []])
    assert driver.drive(_route.each_key(route, b"*")) == {b"x", b"y"}
    assert {where for where, _ in driver.asked} == {"a:1", "b:2", "b:1", "c:3"}
    for answers in ([refused("NOPERM")], [slots, refused("NOPERM")]):
        with pytest.raises(_errors.Refused):
            Refusing(*answers).drive(_route.each_key(route, b"*"))
    with pytest.raises(_errors.Unreached):
        Refusing(*[_errors.Unreached(A, "down", sent=False)] * 2).drive(_route.each_key(route, b"*"))


def test_what_a_server_says_is_told_with_what_to_do() -> None:
    exceptions = pytest.importorskip("redis").exceptions
    for error, code in (
        (exceptions.AuthenticationError("invalid"), "AUTH"),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "LOADING"),
        (exceptions.ReadOnlyError("You can't write"), "READONLY"),
        (exceptions.ClusterDownError("The cluster is down"), "CLUSTERDOWN"),
        (exceptions.MasterDownError("Link with MASTER is down"), "MASTERDOWN"),
        (exceptions.TryAgainError("Multiple keys"), "TRYAGAIN"),
        (exceptions.ResponseError("MISCONF Redis is configured"), "MISCONF"),
        (exceptions.ResponseError("BUSY Redis is busy"), "BUSY"),
        (exceptions.ResponseError("ACL failure in script: no"), "NOPERM"),
        (exceptions.ResponseError("Error running script: WRONGTYPE Operation"), "WRONGTYPE"),
    ):
        refusal = _errors.refusal(A, error)
        assert refusal.code == code
        said = _errors.unavailable(refusal, "saving it", KEY, saving=True)
        assert isinstance(said, StorageCorrupt) == (code == "WRONGTYPE")
        assert str(said).startswith("saving it: ")
        assert (";" in str(said)) == (code not in {"TRYAGAIN", "WRONGTYPE"})
    moved = exceptions.MovedError("12 h:7")
    assert (_errors.refusal(A, moved).code, _errors.refusal(A, moved).rest) == ("MOVED", "12 h:7")
    assert _errors.refusal(A, exceptions.AskError("12 h:7")).code == "ASK"
    assert not _errors.is_refusal(exceptions.ConnectionError())


def test_redis_py_is_kept_quiet_in_each_of_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = pytest.importorskip("redis")
    _connections._silence.cache_clear()
    monkeypatch.delattr(redis, "DriverInfo", raising=False)
    assert _connections._silence() == {"lib_name": None, "lib_version": None}
    _connections._silence.cache_clear()
