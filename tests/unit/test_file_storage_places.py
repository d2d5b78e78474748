"""Where the file storage keeps its files, what it refuses, and what `examine` says of a place."""
# ruff: noqa: FBT001 - parametrized tests take booleans as they come

from __future__ import annotations

import errno
import mmap
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resilience import CircuitBreaker, ConfigurationError, Key, Runtime, Snapshot, StorageUnavailable
from resilience.testing import Recorder
from resilience_filelock import FileStorage, _doctor, _file, _folder, _paths, _system, storage
from resilience_filelock._lock import native

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Key("circuit_breaker", "payments")
SECOND = 1.0


def giving(value: object) -> Callable[..., Any]:
    """Make a function that takes anything and gives the same each time."""
    return lambda *_args, **_named: value


def put(one: FileStorage, payload: bytes, key: Key = KEY) -> Snapshot:
    with one.resilience_lock(key, SECOND):
        return one.resilience_save(key, payload, one.resilience_load(key, SECOND).version, None, SECOND)


# --- an older copy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notices", [CircuitBreaker.status, CircuitBreaker.record_failure], ids=["a look", "a commit"])
def test_an_older_copy_that_was_restored_is_told_and_gone_by(
    tmp_path: Path, notices: Callable[[CircuitBreaker], object]
) -> None:
    told = Recorder()
    with Runtime(storage=f"file://{tmp_path}/state", observers=[told]):
        breaker = CircuitBreaker("payments", failure_threshold=10)
        breaker.record_failure()
        (path,) = tmp_path.glob("state/*/*.state")
        copy = path.read_bytes()
        breaker.record_failure()
        breaker.record_failure()
        with path.open("r+b") as file:
            file.write(copy)
        notices(breaker)
        notices(breaker)
        count = 1 if notices is CircuitBreaker.status else 3
        assert breaker.status().failure_count == count
    assert [(event.name, event.key, event.data) for event in told.events] == [
        ("version_regression", KEY, {"seen": 3, "found": 1})
    ]


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:///var/lib/app", "/var/lib/app"),
        ("file:/var/lib/app/", "/var/lib/app"),
        ("FILE://localhost/var/lib/app", "/var/lib/app"),
        ("file:///with%20space/%C3%BC/100%25/a%3Fb%23", "/with space/ü/100%/a?b#"),
        ("file:///not/utf-8/%ff", "/not/utf-8/\udcff"),
        ("file:///a/./b/../c", "/a/c"),
    ],
)
def test_urls_name_folders(url: str, folder: str) -> None:
    assert FileStorage(url).folder == folder


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:", "no absolute path"),
        ("file:relative/folder", "no absolute path"),
        ("file://server/share", r"names the host 'server'.*file:///server/share with three slashes"),
        ("file:///a?durability=fsync", "has a query.*RESILIENCE_FILE__DURABILITY"),
        ("file:///a#b", "has a fragment.*%23"),
        ("file:///a%2", "without two hexadecimal digits; write %25"),
        ("file:///a%zz", "without two hexadecimal digits"),
        ("file:///a%00b", "NUL"),
        ("memory:", "is not a file URL"),
        ("/var/lib/app", "is not a file URL"),
    ],
)
def test_urls_that_name_none_say_how_to_write_them(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        FileStorage(url)


# --- names ------------------------------------------------------------------------------------------------------------

ODD = [
    *("a", "A", "a.", "a ", ".", "..", "...", "/", "a/b", "a\\b", "a:b", "a*b", "~", "-", "--help", "$HOME", "%00"),
    *(
        "con",
        "CON",
        "nul.txt",
        "com1",
        "é",
        "e\u0301",
        "É",
        "ß",
        "ss",
        "\u0131",
        "i",
        "İ",
        "🦆",
        "日本",
        "x" * 300,
        "x" * 301,
    ),
    *("payments.state", "payments.damaged-1-1", "payments.new", "ﬁ", "fi", "Σ", "ς", "\u03c3"),
]


def test_odd_names_have_files_of_their_own(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    keys = [Key(kind, name) for kind in ("circuit_breaker", "a/b", "..", "con") for name in ODD if name == name.strip()]
    for key in keys:
        put(one, repr(key).encode(), key)
    two = FileStorage(one.url)
    for key in keys:
        assert two.resilience_load(key, SECOND).payload == repr(key).encode()
    assert sorted(two.resilience_keys()) == sorted(keys)
    files = [path.relative_to(one.folder) for path in Path(one.folder).glob("**/*") if path.is_file()]
    assert len({str(path).lower() for path in files}) == len(keys)
    for path in files:
        assert len(path.parts) == 2
        assert str(path).isascii()
        assert max(map(len, path.parts)) < 120
        assert path.stem.lower() not in {"con", "nul", "com1"}


def test_the_place_of_a_name_never_changes() -> None:
    """Another place in a later version would be another state."""
    assert _paths.base_of(KEY) == "circuit_breaker/payments-afee5b297a757fbdd4a0"
    assert (
        _paths.base_of(Key("bulkhead", "Zahlungen/ü"))
        == "bulkhead/zahlungen-" + _paths.base_of(Key("bulkhead", "Zahlungen/ü")).rpartition("-")[2]
    )


# --- folders that cannot be trusted -----------------------------------------------------------------------------------


def refused(url: str, match: str) -> None:
    one = FileStorage(url)
    for work in (
        lambda: one.resilience_load(KEY, SECOND),
        lambda: one.resilience_lock(KEY, SECOND),
        lambda: one.resilience_save(KEY, b"", None, None, SECOND),
    ):
        with pytest.raises(StorageUnavailable, match=match) as caught:
            work()
        assert caught.value.key is None


@pytest.mark.parametrize("mask", [0, 0o022, 0o177])
def test_parents_are_made_and_private(tmp_path: Path, mask: int) -> None:
    """Also under a mask that is meant for files, which takes the right to enter a folder."""
    one = FileStorage(f"file://{tmp_path}/a/b/c")
    old = os.umask(mask)
    try:
        one.resilience_load(KEY, SECOND)
    finally:
        os.umask(old)
    assert [(tmp_path / part).stat().st_mode & 0o777 for part in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    refused(f"file://{tmp_path}/state", "is not a folder; remove")
    refused(f"file://{tmp_path}/state/below", "cannot be made or read: Not a directory; .* is not a folder; remove")
    for path in ("state", "state/below"):
        with pytest.raises(StorageUnavailable, match=r"cannot list.*: Not a directory; .* is not a folder; remove"):
            FileStorage(f"file://{tmp_path}/{path}").resilience_keys()
    assert (tmp_path / "state").read_text() == "a file"


def test_a_file_in_the_place_of_the_kinds_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circuit_breaker").write_text("a file")
    refused(f"file://{tmp_path}", "is not a folder; remove")


def test_a_file_that_comes_into_the_folders_place_is_said(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StorageUnavailable, match="Not a directory"):
        one.resilience_load(KEY, SECOND)
    with pytest.raises(StorageUnavailable, match="cannot list"):
        FileStorage(f"file://{tmp_path}/\0".replace("\0", "state/..") + "/missing/../state").resilience_keys()


def test_a_folder_that_everyone_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    refused(f"file://{tmp_path}/state", "can be written by every user; run chmod o-w")
    (tmp_path / "state").chmod(0o1777)
    assert put(FileStorage(f"file://{tmp_path}/state"), b"here").payload == b"here"
    (tmp_path / "state").chmod(0o770)
    assert put(FileStorage(f"file://{tmp_path}/state"), b"here").payload == b"here"


def test_a_symbolic_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to("real")
    assert put(FileStorage(f"file://{tmp_path}/state"), b"here").payload == b"here"
    (tmp_path / "dangling").symlink_to("nowhere")
    refused(f"file://{tmp_path}/dangling", "cannot be made or read")


def status(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("link", "target", "problem"),
    [
        (status(stat.S_IFLNK | 0o777, 4711), status(stat.S_IFDIR | 0o700, 0), "link or folder of another user"),
        (status(stat.S_IFLNK | 0o777, 0), status(stat.S_IFDIR | 0o700, 4711), "belongs to another user .uid 4711"),
        (status(stat.S_IFDIR | 0o700, 4711), status(stat.S_IFDIR | 0o700, 4711), "link or folder of another user"),
        (status(stat.S_IFLNK | 0o777, 0), status(stat.S_IFSOCK | 0o700, 0), "is not a folder"),
    ],
)
def test_folders_of_other_users_are_not_trusted(link: os.stat_result, target: os.stat_result, problem: str) -> None:
    found = _paths.distrust(link, target)
    assert found is not None
    assert problem.replace(".uid", "(uid") in found


def test_another_process_may_make_the_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def twice(path: str, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", twice)
    assert put(FileStorage(f"file://{tmp_path}/a/b"), b"here").payload == b"here"


def test_the_folders_may_be_removed_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    make_file = _file.make_file

    def removed(path: str, image: bytes, *, durable: bool) -> _file.Descriptor:
        monkeypatch.undo()
        for name in ("state/circuit_breaker", "state"):
            (tmp_path / name).rmdir()
        return make_file(path, image, durable=durable)

    (path,) = Path(one.folder).glob("*/*.state")
    path.unlink()
    monkeypatch.setattr(storage, "make_file", removed)
    assert one.resilience_load(KEY, SECOND).version is None
    assert put(one, b"again").payload == b"again"


def test_a_folder_that_is_removed_again_and_again_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed(path: str, image: bytes, *, durable: bool) -> _file.Descriptor:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(storage, "make_file", removed)
    with pytest.raises(StorageUnavailable, match="No such file") as caught:
        FileStorage(f"file://{tmp_path}/state").resilience_load(KEY, SECOND)
    assert caught.value.key is None


def test_another_process_may_make_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = FileStorage(f"file://{tmp_path}/state")
    make_file = _file.make_file

    def slower(path: str, image: bytes, *, durable: bool) -> _file.Descriptor:
        monkeypatch.undo()
        put(other, b"of the other")
        return make_file(path, image, durable=durable)

    monkeypatch.setattr(storage, "make_file", slower)
    one = FileStorage(f"file://{tmp_path}/state")
    assert one.resilience_load(KEY, SECOND).payload == b"of the other"
    assert not list(tmp_path.glob("state/*/*.new"))


# --- what may stand in a file's place ---------------------------------------------------------------------------------


def fifo(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)


def link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    path.symlink_to(tmp_path / "target")


def dangling(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "nowhere")


def folder(path: Path, tmp_path: Path) -> None:
    path.mkdir()


def device(path: Path, tmp_path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("may not make devices")


def unix_socket(path: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [fifo, link, dangling, folder, device, unix_socket], ids=lambda make: make.__name__)
def test_what_is_no_file_is_refused_and_untouched(
    tmp_path: Path, make: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    put(one, b"of another", Key("circuit_breaker", "other"))
    (path,) = Path(one.folder).glob("*/payments-*.state")
    path.unlink()
    monkeypatch.chdir(path.parent)
    make(path, tmp_path)
    before = path.lstat()
    for work in (
        lambda: one.resilience_load(KEY, SECOND),
        lambda: one.resilience_lock(KEY, SECOND),
        lambda: one.resilience_discard(KEY, "test", SECOND),
        lambda: one.resilience_delete(KEY, None, SECOND),
    ):
        with pytest.raises(StorageUnavailable, match=r"payments.*remove it") as caught:
            work()
        assert caught.value.key == KEY
    assert os.path.samestat(path.lstat(), before)
    assert one.resilience_load(Key("circuit_breaker", "other"), SECOND).payload == b"of another"
    if make is link:
        assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    one.close()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    monkeypatch.setattr(storage, "prepare", giving(None))
    with pytest.raises(StorageUnavailable, match="belongs to another user") as caught:
        one.resilience_load(KEY, SECOND)
    assert caught.value.key == KEY


# --- errors of the system ---------------------------------------------------------------------------------------------


class Failing:
    """Let a function fail at its nth call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __call__(self, place: object, name: str, number: int, *, at: int = 1, after: bool = False) -> None:
        original = getattr(place, name)
        calls = 0

        def failing(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls < at:
                return original(*args, **kwargs)
            if after:
                original(*args, **kwargs)
            raise OSError(number, os.strerror(number))

        self._patch.setattr(place, name, failing)

    def no_more(self) -> None:
        self._patch.undo()


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


def durable(tmp_path: Path) -> FileStorage:
    return FileStorage(f"file://{tmp_path}/state", FileStorage.Settings(durability="fsync"))


@pytest.mark.parametrize(
    ("name", "at", "after", "unknown", "stands"),
    [
        ("pwrite", 1, False, False, b"old"),
        ("pwrite", 2, False, False, b"old"),
        ("pwrite", 2, True, True, b"new"),
        ("sync", 1, False, True, b"new"),
    ],
    ids=["slot", "head", "after the head", "to disk"],
)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_commit_that_fails_says_whether_it_may_have_happened(
    tmp_path: Path,
    fail: Failing,
    name: str,
    at: int,
    after: bool,
    unknown: bool,
    stands: bytes,
    number: int,
) -> None:
    one = durable(tmp_path)
    version = put(one, b"old").version
    with one.resilience_lock(KEY, SECOND):
        fail(_file, name, number, at=at, after=after)
        with pytest.raises(StorageUnavailable, match=os.strerror(number)) as caught:
            one.resilience_save(KEY, b"new", version, None, SECOND)
        fail.no_more()
        assert caught.value.outcome_unknown is unknown
        assert caught.value.key is None
    assert one.resilience_load(KEY, SECOND).payload == stands
    assert FileStorage(one.url).resilience_load(KEY, SECOND).payload == stands
    assert put(one, b"newer").payload == b"newer"


@pytest.mark.parametrize("first", [True, False], ids=["of the record", "of a process"])
def test_a_first_commit_that_fails_before_its_head_has_not_happened(tmp_path: Path, fail: Failing, first: bool) -> None:
    if not first:
        put(durable(tmp_path), b"old")
    one = durable(tmp_path)
    version = one.resilience_load(KEY, SECOND).version
    with one.resilience_lock(KEY, SECOND):
        fail(_file, "sync" if first else "sync_folder", errno.EIO)
        with pytest.raises(StorageUnavailable) as caught:
            one.resilience_save(KEY, b"new", version, None, SECOND)
        fail.no_more()
    assert not caught.value.outcome_unknown
    assert FileStorage(one.url).resilience_load(KEY, SECOND).payload == (None if first else b"old")
    assert put(one, b"newer").payload == b"newer"


def test_a_head_that_cannot_be_looked_at_after_a_failure_is_unknown(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state", FileStorage.Settings(freshness="read"))
    version = put(one, b"old").version
    with one.resilience_lock(KEY, SECOND):
        fail(_file, "pwrite", errno.EIO, at=2)
        fail(_file, "pread", errno.EIO, at=2)
        with pytest.raises(StorageUnavailable) as caught:
            one.resilience_save(KEY, b"new", version, None, SECOND)
        assert caught.value.outcome_unknown
        fail.no_more()
    assert put(one, b"newer").payload == b"newer"


def test_a_head_that_cannot_be_read_is_said(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state", FileStorage.Settings(freshness="read"))
    known = put(one, b"old")
    with one.resilience_lock(KEY, SECOND):
        fail(_file, "pread", errno.EIO)
        assert known.is_current is not None
        assert not known.is_current()
        with pytest.raises(StorageUnavailable, match=r"cannot read.*Input/output"):
            one.resilience_load(KEY, SECOND)
        with pytest.raises(StorageUnavailable, match=r"cannot read.*Input/output"):
            one.resilience_save(KEY, b"new", known.version, None, SECOND)
    with pytest.raises(StorageUnavailable, match="Input/output"):
        one.resilience_lock(KEY, SECOND)
    fail.no_more()
    assert one.resilience_load(KEY, SECOND).payload == b"old"


def test_a_head_that_fails_once_the_lock_is_there_is_said(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state", FileStorage.Settings(freshness="read"))
    put(one, b"old")
    one.close()
    fail(_file, "pread", errno.EIO, at=2)  # the first one reads the header
    with pytest.raises(StorageUnavailable, match="Input/output"):
        one.resilience_lock(KEY, SECOND)
    fail.no_more()
    with one.resilience_lock(KEY, 0):
        pass


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    os_pwrite = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        return os_pwrite(fd, data[:100], offset)

    for module in (_file, _system):
        monkeypatch.setattr(module, "pwrite", pwrite)
    assert put(one, bytes(1000)).version is not None
    put(one, b"x" * 5000)
    assert FileStorage(one.url).resilience_load(KEY, SECOND).payload == b"x" * 5000


def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_system, "pwrite", giving(0))
    with pytest.raises(StorageUnavailable, match="nothing was written"):
        FileStorage(f"file://{tmp_path}/state").resilience_load(KEY, SECOND)
    assert not list(tmp_path.glob("state/*/*"))


@pytest.mark.parametrize(
    ("place", "name", "at", "unknown"),
    [
        (storage, "make_file", 1, False),
        (native, "lock", 2, False),
        (_file, "pwrite", 1, False),
        (os, "replace", 1, False),
        (_file, "sync_folder", 1, True),
    ],
)
@pytest.mark.parametrize("how", ["grow", "discard"])
def test_a_replacement_that_fails_leaves_the_old_record(
    tmp_path: Path,
    fail: Failing,
    place: object,
    name: str,
    at: int,
    unknown: bool,
    how: str,
) -> None:
    one = durable(tmp_path)
    version = put(one, b"old").version
    fail(place, name, errno.ENOSPC, at=at)
    works: dict[str, Callable[[], object]] = {
        "grow": lambda: one.resilience_save(KEY, bytes(5000), version, None, SECOND),
        "discard": lambda: one.resilience_discard(KEY, "test", SECOND),
    }
    with pytest.raises(StorageUnavailable) as caught, one.resilience_lock(KEY, SECOND):
        works[how]()
    fail.no_more()
    assert caught.value.outcome_unknown is unknown
    stands = b"old" if not unknown else bytes(5000) if how == "grow" else None
    assert one.resilience_load(KEY, SECOND).payload == stands
    assert FileStorage(one.url).resilience_load(KEY, SECOND).payload == stands
    assert not list(tmp_path.glob("state/*/*.new"))
    assert put(one, b"newer").payload == b"newer"


def test_a_temporary_file_that_cannot_be_removed_is_left_for_the_sweep(tmp_path: Path, fail: Failing) -> None:
    fail(os, "unlink", errno.EIO)
    one = FileStorage(f"file://{tmp_path}/state")
    assert put(one, b"here").payload == b"here"
    assert len(list(tmp_path.glob("state/*/*.new"))) == 1


@pytest.mark.parametrize(
    ("place", "name", "gone", "unknown"),
    [(os, "unlink", False, False), (_file, "pwrite", False, False), (storage, "sync_folder", True, False)],
)
def test_a_deletion_that_fails_is_said(
    tmp_path: Path,
    fail: Failing,
    place: object,
    name: str,
    gone: bool,
    unknown: bool,
) -> None:
    one = durable(tmp_path)
    put(one, b"old")
    fail(place, name, errno.EIO)
    with pytest.raises(StorageUnavailable, match="cannot delete") as caught:
        one.resilience_delete(KEY, None, SECOND)
    fail.no_more()
    assert caught.value.outcome_unknown is unknown
    assert one.resilience_load(KEY, SECOND).payload == (None if gone else b"old")
    assert one.resilience_delete(KEY, None, SECOND) is not gone


@pytest.mark.parametrize("how", ["delete", "discard"])
def test_a_retirement_that_may_have_happened_is_taken_back_by_whoever_comes_next(
    tmp_path: Path, fail: Failing, how: str
) -> None:
    one = durable(tmp_path)
    put(one, b"old")
    fail(_file, "sync", errno.EIO, at=1 if how == "delete" else 2)
    with pytest.raises(StorageUnavailable) as caught:
        one.resilience_delete(KEY, None, SECOND) if how == "delete" else one.resilience_discard(KEY, "test", SECOND)
    fail.no_more()
    assert caught.value.outcome_unknown
    assert one.resilience_load(KEY, SECOND).payload == b"old"


@pytest.mark.parametrize(
    ("number", "hint", "concerned"),
    [
        (errno.ENOLCK, "has no locks", None),
        (errno.ENOSYS, "no file locks", None),
        (errno.EIO, "Input/output", None),
        (errno.EINVAL, "Invalid argument", None),
    ],
)
def test_a_lock_that_fails_is_said_and_frees_the_thread(
    tmp_path: Path, fail: Failing, number: int, hint: str, concerned: Key | None
) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    fail(native, "lock", number)
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match=hint) as caught:
            one.resilience_lock(KEY, SECOND)
        assert caught.value.key == concerned
    fail.no_more()
    with one.resilience_lock(KEY, 0):
        pass


def test_a_lock_that_cannot_be_given_back_is_given_up_with_the_file(tmp_path: Path, fail: Failing) -> None:
    one, two = (FileStorage(f"file://{tmp_path}/state") for _ in range(2))
    put(one, b"here")
    with one.resilience_lock(KEY, SECOND):
        fail(native, "unlock", errno.EIO)
    fail.no_more()
    with two.resilience_lock(KEY, SECOND):
        pass
    assert put(one, b"goes on").payload == b"goes on"


@pytest.mark.parametrize("strikes", ["lock", "unlock"])
def test_an_interrupt_in_the_system_call_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strikes: str
) -> None:
    one, two = (FileStorage(f"file://{tmp_path}/state") for _ in range(2))
    put(one, b"here")
    original = getattr(native, strikes)

    def struck(*args: object, **kwargs: object) -> None:
        if strikes == "lock":
            original(*args, **kwargs)
        monkeypatch.undo()
        raise KeyboardInterrupt

    for slow in (False, True):
        if slow:
            one.close()
        monkeypatch.setattr(native, strikes, struck)
        with pytest.raises(KeyboardInterrupt), one.resilience_lock(KEY, SECOND):
            pass
        with two.resilience_lock(KEY, 0):
            pass
        with one.resilience_lock(KEY, 0):
            pass


def test_where_nothing_can_be_mapped_the_head_is_read(tmp_path: Path, fail: Failing) -> None:
    fail(mmap, "mmap", errno.ENODEV)
    one, two = (FileStorage(f"file://{tmp_path}/state") for _ in range(2))
    known = put(one, b"here")
    assert known.is_current is not None
    assert known.is_current()
    put(two, b"newer")
    assert not known.is_current()


def test_a_file_that_may_not_be_opened_concerns_its_key_alone(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    one.close()
    fail(os, "open", errno.EACCES)
    with pytest.raises(StorageUnavailable, match="make it readable and writable") as caught:
        one.resilience_load(KEY, SECOND)
    assert caught.value.key == KEY


def test_a_path_that_cannot_be_looked_at_is_said(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    fail(os, "lstat", errno.EIO)
    with pytest.raises(StorageUnavailable, match="Input/output"):
        one.resilience_load(KEY, SECOND)


def test_open_files_that_run_out_close_the_least_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    known = put(one, b"here")
    put(one, b"here", Key("circuit_breaker", "other"))
    one.resilience_load(Key("circuit_breaker", "third"), SECOND)
    os_open = os.open

    def full(path: str, flags: int, mode: int = 0o777) -> int:
        monkeypatch.undo()
        raise OSError(errno.EMFILE, "Too many open files")

    (tmp_path / "state/circuit_breaker").chmod(0o700)
    monkeypatch.setattr(os, "open", full)
    assert one.resilience_load(Key("circuit_breaker", "fourth"), SECOND).version is None
    assert os.open is os_open
    assert known.is_current is not None
    assert not known.is_current()


def test_a_sweep_that_fails_harms_nobody(tmp_path: Path, fail: Failing) -> None:
    fail(os, "listdir", errno.EIO)
    one = FileStorage(f"file://{tmp_path}/state")
    assert put(one, b"here").payload == b"here"
    fail.no_more()
    _folder.sweep(str(tmp_path / "missing"), 0)
    (tmp_path / "empty").mkdir()
    _folder.sweep(str(tmp_path / "empty"), 7)


def test_what_was_set_aside_is_set_aside_also_without_its_note(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"old")
    with one.resilience_lock(KEY, SECOND):
        fail(os, "listdir", errno.EIO, at=2)  # the first one counts what was set aside before
        one.resilience_discard(KEY, "test", SECOND)
    assert one.resilience_load(KEY, SECOND).version is None


# --- file systems -----------------------------------------------------------------------------------------------------

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /proc rw - proc proc rw
30 21 0:40 / /srv/with\\040space rw - nfs4 server:/x rw
31 21 0:41 / /srv/share rw - cifs //server/x rw
32 31 0:42 / /srv/share/local rw - tmpfs tmpfs rw
33 21 0:43 / /fuse rw - fuse.sshfs host:/ rw
34 21 0:44 / /usb rw - fuseblk /dev/sdb1 rw
35 21 0:45 / /over rw - ext4 /dev/sdc1 rw
36 35 0:46 / /over rw - 9p host rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "network"),
    [
        ("/var/lib", "ext4", False),
        ("/srv/with space/state", "nfs4", True),
        ("/srv/share", "cifs", True),
        ("/srv/shared", "ext4", False),
        ("/srv/share/local/state", "tmpfs", False),
        ("/fuse/state", "fuse.sshfs", True),
        ("/usb/state", "fuseblk", False),
        ("/over/state", "9p", True),
        ("\\\\server\\share", "smbfs", True),
    ],
)
def test_file_systems_are_told_by_their_mounts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    kind: str,
    network: bool,
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(_paths, "_MOUNTS", str(tmp_path / "mounts"))
    assert _paths.file_system_of(folder) == kind
    assert _paths.is_network(kind) is network


def test_where_mounts_cannot_be_read_a_folder_is_taken_as_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_paths, "_MOUNTS", "/nowhere")
    assert _paths.file_system_of("/var/lib") is None
    assert not _paths.is_network(None)


# --- examine ----------------------------------------------------------------------------------------------------------


def rows(one: FileStorage) -> dict[str, tuple[bool, str, str]]:
    found = one.examine()
    for name, ok, detail, fix in found:
        assert name
        assert detail
        assert bool(fix) is not ok
    return {name: (ok, detail, fix) for name, ok, detail, fix in found}


def test_examine_finds_a_good_place_good(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    found = rows(one)
    assert list(found) == [
        *("folder", "file system", "free space", "write", "mapping", "lock", "records", "damaged records")
    ]
    assert all(ok for ok, _, _ in found.values())
    assert found["records"][1] == "1"
    assert not list(tmp_path.glob("state/*.new"))
    assert "mapping" not in rows(FileStorage(one.url, FileStorage.Settings(freshness="read")))


def test_examine_tells_what_was_set_aside_and_how_to_restore(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    one.resilience_discard(KEY, "test", SECOND)
    ok, detail, fix = rows(one)["damaged records"]
    assert not ok
    assert detail == "1 set aside for inspection"
    assert "never by cp" in fix


def test_examine_tells_a_folder_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    found = rows(FileStorage(f"file://{tmp_path}/state"))
    assert list(found) == ["folder"]
    assert not found["folder"][0]


def test_examine_tells_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "file_system_of", giving("nfs"))
    assert not rows(FileStorage(f"file://{tmp_path}/state"))["file system"][0]
    allowed = FileStorage(f"file://{tmp_path}/state", FileStorage.Settings(allow_network_filesystem=True))
    assert rows(allowed)["file system"][0]


def test_examine_tells_a_folder_that_cannot_be_written(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    fail(os, "open", errno.EROFS)
    assert not rows(one)["write"][0]


@pytest.mark.parametrize(("place", "name"), [(os, "open"), (_doctor, "pwrite")])
def test_examine_tells_a_full_disk_and_goes_on(tmp_path: Path, fail: Failing, place: object, name: str) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    fail(place, name, errno.ENOSPC)
    found = rows(one)
    assert found["write"][1].endswith(": No space left on device")
    assert found["write"][2].startswith("make room")
    assert {"free space", "records"} <= found.keys()
    assert "mapping" not in found
    assert not list(tmp_path.glob("state/*.new"))


def test_examine_tells_memory_that_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        return offset or os.pwrite(fd, data, offset)

    monkeypatch.setattr(_doctor, "pwrite", pwrite)
    assert rows(FileStorage(f"file://{tmp_path}/state"))["mapping"][1] == "what is written is not seen in mapped memory"


def test_examine_tells_locks_that_do_not_work(tmp_path: Path, fail: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    fail(native, "lock", errno.ENOLCK)
    assert "No locks available" in rows(one)["lock"][1]
    fail.no_more()
    monkeypatch.setattr(native, "lock", giving(True))
    assert rows(one)["lock"][1] == "two processes can hold one lock at a time"
    monkeypatch.undo()
    monkeypatch.setattr(native, "unlock", giving(None))
    assert rows(one)["lock"][1] == "a lock that was given back stays held"


def test_examine_tells_records_that_cannot_be_listed(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    fail(os, "scandir", errno.EACCES)
    assert not rows(one)["records"][0]
    with pytest.raises(StorageUnavailable, match="make it readable"):
        one.resilience_keys()


def test_what_cannot_be_looked_at_is_not_said_to_be_gone(tmp_path: Path, fail: Failing) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    fail(os, "lstat", errno.EIO)
    with pytest.raises(StorageUnavailable, match="cannot delete"):
        one.resilience_delete(KEY, None, SECOND)
    fail.no_more()
    assert one.resilience_delete(KEY, None, SECOND)
    assert not one.resilience_delete(KEY, None, SECOND)


# --- plumbing ---------------------------------------------------------------------------------------------------------


def test_filelock_and_pydantic_are_not_imported_by_a_look(tmp_path: Path) -> None:
    code = f"""
import sys
from resilience import Key
from resilience_filelock import FileStorage
one = FileStorage("file://{tmp_path}/state")
assert one.resilience_load(Key("circuit_breaker", "payments"), 1).version is None
print(sorted({{"filelock", "pydantic", "asyncio", "typing", "dataclasses", "threading"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "filelock" not in run.stdout
    assert "pydantic" not in run.stdout


def test_a_disk_that_fails_when_a_file_is_closed_is_nobody_s_error(tmp_path: Path) -> None:
    descriptor = _file.Descriptor(os.open(tmp_path, os.O_RDONLY))

    def fails(number: int) -> None:
        os.close(number)
        raise OSError(errno.EIO, "the disk fails")

    descriptor.close(fails)
    descriptor.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor.number)
