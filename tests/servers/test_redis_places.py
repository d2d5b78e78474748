"""Every form of the URL, on servers that are really so: socket, TLS, users, Sentinels, a cluster."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from servers.proxy import Proxy
from servers.redis_server import RedisServer, free_port

from resilience import Key, Snapshot, StorageConflict, StorageUnavailable
from resilience.testing import wait_until
from resilience_redis import RedisSettings, RedisStorage
from resilience_redis._certificates import fault

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = [Key("circuit_breaker", f"one of many {number}") for number in range(12)]


def is_stale(snapshot: Snapshot) -> bool:
    return snapshot.is_current is not None and not snapshot.is_current()


def works(storage: RedisStorage, keys: list[Key]) -> None:
    """Do everything that there is to do, on each key."""
    for key in keys:
        assert storage.resilience_load(key, 5).version is None
        first = storage.resilience_save(key, b"1", None, time.time() + 100, 5)
        second = storage.resilience_save(key, b"2", first.version, None, 5)
        with pytest.raises(StorageConflict) as caught:
            storage.resilience_save(key, b"3", first.version, None, 5)
        assert caught.value.current is not None
        assert caught.value.current.version == second.version
        found = storage.resilience_load(key, 5)
        assert (found.payload, found.version) == (b"2", second.version)
        assert found.time == pytest.approx(time.time(), abs=5)
    assert sorted(storage.resilience_keys()) == sorted(keys)
    storage.resilience_discard(keys[0], "because", 5)
    assert all(storage.resilience_delete(key, None, 5) for key in keys[1:])
    assert storage.resilience_keys() == []


def hears(storage: RedisStorage) -> None:
    """See that it is told of commits."""
    wait_until(lambda: storage.is_pushed, "the push")


# --- one server -------------------------------------------------------------------------------------------------------


def test_through_a_socket_of_the_file_system(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s")
    with RedisServer(folder, "--unixsocket", str(folder / "s")) as server:
        storage = RedisStorage(f"redis+unix://{folder}/s?db=2")
        works(storage, KEYS[:2])
        hears(storage)
        assert str(storage.place) == f"redis+unix://{folder}/s?db=2"
        with server.admin(db=2) as admin:
            assert admin.dbsize() == 1  # what was set aside
        storage.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate for the server and for us."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "names").write_text("subjectAltName=DNS:localhost")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests", "-days", "2", *usage)
    openssl(*new, "-keyout", "key.pem", "-out", "request", "-subj", "/CN=localhost")
    openssl(
        *("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "cert.pem", "-days", "2", "-extfile", "names"),
    )
    return folder


def awaited(storage: RedisStorage) -> Snapshot:
    """Load on an event loop."""
    return asyncio.run(storage.resilience_aload(KEYS[0], 5))


def test_through_tls_with_certificates_on_both_sides(certificates: Path, tmp_path: Path) -> None:
    port = free_port()
    files = ("--tls-ca-cert-file", "ca.pem", "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem")
    options = [option if option.startswith("--") else str(certificates / option) for option in files]
    with RedisServer(tmp_path, "--tls-port", str(port), *options):
        ours = {"tls_cert_file": str(certificates / "cert.pem"), "tls_key_file": str(certificates / "key.pem")}
        known = RedisSettings.model_validate({"tls_ca_file": str(certificates / "ca.pem"), **ours})
        storage = RedisStorage(f"rediss://localhost:{port}", known)
        works(storage, KEYS[:2])
        hears(storage)
        storage.close()
        # The certificate is for a name: the address is refused, unless names are not looked at.
        for settings, url, why in (
            (
                RedisSettings.model_validate(ours),
                "localhost",
                "certificate verify failed.*; RESILIENCE_REDIS__TLS_CA_FILE",
            ),
            (known, "127.0.0.1", "certificate.* and the URL the host that it is for"),
            (RedisSettings(tls_ca_file=str(certificates / "ca.pem")), "localhost", "localhost"),
        ):
            refused = RedisStorage(f"rediss://{url}:{port}", settings.model_copy(update={"push": False}))
            with pytest.raises(StorageUnavailable, match=why):
                refused.resilience_load(KEYS[0], 5)
        both = certificates / "both.pem"  # a certificate with its key
        both.write_bytes((certificates / "cert.pem").read_bytes() + (certificates / "key.pem").read_bytes())
        only = RedisSettings(tls_ca_file=known.tls_ca_file)
        assert [fault(each) for each in (known, only, RedisSettings(tls_cert_file=str(both)))] == ["", "", ""]
        # Of a file of ours that is of no use, it is said which one: the driver names host and port.
        for setting, file in (
            ("tls_ca_file", "missing.pem"),
            ("tls_ca_file", "key.pem"),
            ("tls_cert_file", "missing.pem"),
            ("tls_cert_file", "ca.pem"),
            ("tls_key_file", "missing.pem"),
            ("tls_key_file", "ca.key"),
        ):
            useless = known.model_copy(update={"push": False, setting: str(certificates / file)})
            refused = RedisStorage(f"rediss://localhost:{port}", useless)
            # Which of the two does not belong to the other, nobody knows.
            named = "tls_key_file" if (setting, file) == ("tls_cert_file", "ca.pem") else setting
            for load in (
                partial(refused.resilience_load, KEYS[0], 5),
                partial(awaited, refused),
            ):
                with pytest.raises(StorageUnavailable, match=f"RESILIENCE_REDIS__{named.upper()}: .*in PEM"):
                    load()
        silent = RedisStorage(
            f"rediss://localhost:{port}",
            known.model_copy(update={"push": False, "tls_cert_file": None, "tls_key_file": None}),
        )
        with pytest.raises(StorageUnavailable, match="RESILIENCE_REDIS__TLS_CERT_FILE"):
            silent.resilience_load(KEYS[0], 5)
        careless = RedisStorage(
            f"valkeys://127.0.0.1:{port}", known.model_copy(update={"tls_check_hostname": False, "push": False})
        )
        assert careless.resilience_load(KEYS[0], 5).version is None
        careless.close()


# --- users ------------------------------------------------------------------------------------------------------------

RIGHTS = [
    "on",
    ">secret",
    "resetkeys",
    "~resilience:*",
    "resetchannels",
    "&resilience:changed",
    "-@all",
    *("+eval", "+evalsha", "+time", "+type", "+hmget", "+hset", "+pexpireat", "+persist", "+pexpire"),
    *("+del", "+rename", "+publish", "+subscribe", "+ping", "+scan", "+select"),
]
"""What docs/redis.md gives a user."""


def test_the_page_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text("utf-8")
    shown = page.partition("ACL SETUSER breakers ")[2].partition("```")[0].split()
    assert set(shown) == {">PASSWORD" if right == ">secret" else right for right in RIGHTS}


def test_a_right_that_a_script_lacks(redis_server: RedisServer) -> None:
    """The server says but that it lacks one."""
    with redis_server.admin() as admin:
        admin.acl_setuser(
            "mute", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-publish"]
        )
    storage = RedisStorage(f"redis://mute:x@127.0.0.1:{redis_server.port}", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match=r"the rights of docs/redis\.md: \+eval .*\+publish") as caught:
        storage.resilience_save(KEYS[0], b"1", None, None, 1)
    named = set(re.findall(r"\+[a-z]+", str(caught.value).partition("redis.md")[2]))
    assert named == {right for right in RIGHTS if right.startswith("+")}
    storage.close()


def test_a_user_with_the_rights_of_the_page_can_do_everything(redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "breakers", "reset", *RIGHTS)
    storage = RedisStorage(f"redis://breakers:secret@127.0.0.1:{redis_server.port}/0")
    works(storage, KEYS[:2])
    hears(storage)
    storage.close()
    named = RedisSettings.model_validate({"username": "breakers", "password": "secret"})
    storage = RedisStorage(f"redis://127.0.0.1:{redis_server.port}", named)
    assert storage.resilience_load(KEYS[3], 1).version is None
    assert ("server", True) in [row[:2] for row in storage.examine()]
    storage.close()


RIGHTS_OF_KEYS = (
    *("evalsha", "eval", "time", "type", "hmget", "hset", "publish", "persist", "pexpireat"),
    *("subscribe", "ping"),
)


@pytest.mark.parametrize("right", RIGHTS_OF_KEYS)
def test_each_right_is_needed(right: str, redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        rights = [given for given in RIGHTS if given != f"+{right}"]
        admin.execute_command("ACL", "SETUSER", "breakers", "reset", *rights)
        admin.script_flush()
    storage = RedisStorage(f"redis://breakers:secret@127.0.0.1:{redis_server.port}/0")
    if right in {"subscribe", "ping"}:  # without, it loads each time
        works(storage, KEYS[:2])
        assert not storage.is_pushed
        assert [row[1] for row in storage.examine() if row[0] == "listener"] == [False]
    else:
        with pytest.raises(StorageUnavailable, match=r"docs/redis\.md"):
            works(storage, KEYS[:2])
    storage.close()


# --- Sentinels --------------------------------------------------------------------------------------------------------


class Watched:
    """A primary, a replica of it, and a Sentinel that watches both."""

    def __init__(self, folder: Path) -> None:
        self.primary = RedisServer(folder / "primary", "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(folder / "replica", "--replicaof", f"127.0.0.1 {self.primary.port}")
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor ours 127.0.0.1 {self.primary.port} 1\n"
            "sentinel down-after-milliseconds ours 300\n"
            "sentinel failover-timeout ours 2000\n"
        )
        self.port = free_port()
        command = ["redis-server", str(configuration), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        self.sentinel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def wait(self) -> None:
        """Wait until each knows of the others."""
        with self.replica.admin() as admin:
            wait_until(lambda: admin.info("replication")["master_link_status"] == "up", "the replication")
        wait_until(self._knows_the_replica, "that the Sentinel knows the replica")

    def _knows_the_replica(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as sentinel:
                sentinel.sendall(b"SENTINEL REPLICAS ours\r\n")
                return sentinel.recv(4) == b"*1\r\n"
        except OSError:
            return False

    def close(self) -> None:
        self.sentinel.kill()
        self.sentinel.wait()
        for server in (self.primary, self.replica):
            server.kill()


@pytest.fixture
def watched(redis_server: RedisServer, tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    try:
        watched.wait()
        yield watched
    finally:
        watched.close()


def test_the_one_that_the_sentinels_name_and_its_successor(watched: Watched) -> None:
    down = free_port()
    url = f"redis+sentinel://127.0.0.1:{down},127.0.0.1:{watched.port}/ours/0"
    storage = RedisStorage(url)
    works(storage, KEYS[:2])
    hears(storage)
    saved = storage.resilience_save(KEYS[2], b"kept", None, None, 5)
    with watched.primary.admin() as admin:
        admin.set("last", "")  # it waits for what its own connection wrote, and for all before that
        assert admin.execute_command("WAIT", 1, 5000) == 1
    watched.primary.stop()  # it hangs; the Sentinel promotes the replica
    found: list[Snapshot] = []

    def is_answered() -> bool:
        try:
            found.append(storage.resilience_load(KEYS[2], 0.3))
        except StorageUnavailable:
            return False
        return True

    wait_until(is_answered, "the promotion", 30)
    assert (found[-1].payload, found[-1].version) == (b"kept", saved.version)
    wait_until(lambda: is_saved(storage), "a primary that takes commits", 30)
    wait_until(lambda: storage.is_pushed, "the listener at the successor")
    storage.close()


def is_saved(storage: RedisStorage) -> bool:
    try:
        snapshot = storage.resilience_load(KEYS[2], 0.3)
        storage.resilience_save(KEYS[2], b"after", snapshot.version, None, 0.3)
    except StorageUnavailable:
        return False
    return True


def test_what_to_do_about_a_sentinel_that_refuses(watched: Watched) -> None:
    url = f"redis+sentinel://127.0.0.1:{watched.port}"
    theirs = RedisStorage(f"{url}/theirs", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match="no master 'theirs'; the name behind the hosts in the URL"):
        theirs.resilience_load(KEYS[0], 1)
    misnamed = RedisStorage(f"redis://127.0.0.1:{watched.port}", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match=r"unknown command .*redis\+sentinel://"):
        list(misnamed.resilience_keys())
    sentinel: Any = Redis(host="127.0.0.1", port=watched.port)
    with sentinel as admin:
        admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
    ours = RedisStorage(f"{url}/ours", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match="RESILIENCE_REDIS__SENTINEL_PASSWORD"):
        ours.resilience_load(KEYS[0], 1)


# --- a cluster --------------------------------------------------------------------------------------------------------


class Cluster:
    """Three primaries, a third of the slots each."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [
            RedisServer(
                folder / str(number),
                *("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"),
            )
            for number in range(3)
        ]
        edges = [0, 5461, 10923, 16384]
        for node, first, end in zip(self.nodes, edges, edges[1:], strict=False):
            with node.admin() as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                bus = self.nodes[0].options[3]
                admin.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, bus)

    def wait(self) -> None:
        """Wait until each node knows all slots."""
        for node in self.nodes:
            with node.admin() as admin:
                wait_until(partial(self._is_whole, admin), "the cluster")

    @staticmethod
    def _is_whole(admin: Any) -> bool:
        information = bytes(admin.execute_command("CLUSTER", "INFO"))
        return b"cluster_state:ok" in information and b"cluster_known_nodes:3" in information

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


@pytest.fixture(scope="module")
def cluster(_redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.wait()
        yield cluster
    finally:
        cluster.close()


def test_every_node_of_a_cluster_has_its_records(cluster: Cluster) -> None:
    seeds = ",".join(f"127.0.0.1:{port}" for port in (free_port(), cluster.nodes[0].port))
    storage = RedisStorage(f"redis+cluster://{seeds}")
    for key in KEYS:
        storage.resilience_save(key, b"{}", None, None, 5)
    sizes: list[int] = []
    for node in cluster.nodes:
        with node.admin() as admin:
            sizes.append(admin.dbsize())
    assert sum(sizes) == len(KEYS)
    assert all(sizes)
    for key in KEYS:
        assert storage.resilience_delete(key, None, 5)
    works(storage, KEYS)
    hears(storage)
    storage.close()


def test_commits_are_told_from_any_node_to_any_other(cluster: Cluster) -> None:
    here, there = (RedisStorage(f"redis+cluster://127.0.0.1:{node.port}") for node in cluster.nodes[:2])
    for key in KEYS[:6]:
        snapshot = here.resilience_load(key, 5)
        there.resilience_save(key, b"1", snapshot.version, None, 5)
        wait_until(partial(is_stale, snapshot), "the news", 2)
        assert here.resilience_delete(key, None, 5)
    for storage in (here, there):
        storage.close()


def test_a_slot_that_moves(cluster: Cluster) -> None:
    from redis.crc import key_slot

    storage = RedisStorage(f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}", RedisSettings(push=False))
    key = Key("test", "moving")
    saved = storage.resilience_save(key, b"1", None, None, 5)
    name = storage.names.of(key)
    slot = key_slot(name)
    source = slot * 3 // 16384
    target = (source + 1) % 3
    with cluster.nodes[source].admin() as old, cluster.nodes[target].admin() as new:
        ids = [str(admin.execute_command("CLUSTER", "MYID").decode()) for admin in (old, new)]
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        old.execute_command("MIGRATE", "127.0.0.1", cluster.nodes[target].port, name, 0, 5000)
        # ASK: the slot is still the old one's, the record is not.
        second = storage.resilience_save(key, b"2", saved.version, None, 5)
        for admin in (new, old):
            admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        # MOVED: it is known from now on.
        assert storage.resilience_load(key, 5).version == second.version
        assert storage.resilience_delete(key, second.version, 5)


def test_a_node_that_is_asked_alone_says_so(cluster: Cluster) -> None:
    storage = RedisStorage(f"redis://127.0.0.1:{cluster.nodes[0].port}", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match=r"name it by redis\+cluster"):
        for key in KEYS:
            storage.resilience_load(key, 1)
    storage.close()


def test_a_server_that_is_no_node_of_a_cluster(redis_server: RedisServer) -> None:
    storage = RedisStorage(f"redis+cluster://127.0.0.1:{redis_server.port}", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match="it is no node of a cluster: name it by redis://"):
        list(storage.resilience_keys())


def test_the_rights_that_a_cluster_needs_besides(cluster: Cluster) -> None:
    for node in cluster.nodes:
        with node.admin() as admin:
            admin.execute_command("ACL", "SETUSER", "breakers", "reset", *RIGHTS)
    storage = RedisStorage(f"redis+cluster://breakers:secret@127.0.0.1:{cluster.nodes[0].port}")
    with pytest.raises(StorageUnavailable, match=r"give this user \+cluster\|slots as well"):
        list(storage.resilience_keys())
    storage.close()


def test_a_cluster_without_the_node_of_a_record(cluster: Cluster) -> None:
    with Proxy(cluster.nodes[0].port) as proxy:
        storage = RedisStorage(f"redis+cluster://127.0.0.1:{proxy.port}", RedisSettings(push=False))
        proxy.refuse()
        for hook in (lambda: storage.resilience_load(KEYS[0], 0.2), storage.resilience_keys):
            with pytest.raises(StorageUnavailable):
                hook()
        storage.close()
