"""Programs that are started in odd ways and odd places: their state is as safe as anybody's."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0

# A daemon as many are: no standard streams, several breakers, and a library that reports to the standard error.
DAEMON = """
import os, sys
from resilience import CircuitBreaker, Runtime
runtime = Runtime(storage=sys.argv[1], environ={})
for name in "abcd":
    CircuitBreaker(name, failure_threshold=9, runtime=runtime).record_failure()
for descriptor in (0, 1, 2):
    try:
        os.write(descriptor, b"something has happened that a library has many words for")
    except OSError:
        pass
os.dup2(os.open(os.devnull, os.O_RDWR), 2)
for name in "abcd":
    CircuitBreaker(name, failure_threshold=9, runtime=runtime).record_failure()
"""


def counted(url: str, names: str) -> list[int | None]:
    runtime = Runtime(storage=url, environ={})
    return [CircuitBreaker(name, runtime=runtime).status().failure_count for name in names]


@pytest.mark.everywhere
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-"])
def test_what_is_written_to_closed_standard_streams_reaches_no_record(tmp_path: Path, closed: str) -> None:
    url = (tmp_path / "state").as_uri()
    script = f'exec "$0" -c "$1" "$2" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, DAEMON, url], capture_output=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert counted(url, "abcd") == [2, 2, 2, 2]
    assert sorted(path.suffix for path in (tmp_path / "state").rglob("*") if path.is_file()) == [".state"] * 4


# Where descriptors run out while it is moved, that is said, nothing stays open, and it goes on when there are more.
STARVED = """
import os, resource, sys
from resilience import Key, StorageUnavailable
from resilience_filelock import FileStorage
one, key = FileStorage(sys.argv[1]), Key("circuit_breaker", "a")
one.resilience_load(key, 1)
one.close()
os.closerange(0, 3)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
for allowed in (1, 2, 3):
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, limits[1]))
    try:
        one.resilience_load(key, 1)
    except StorageUnavailable as error:
        assert "ulimit -n" in str(error), error
    else:
        raise AssertionError(allowed)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.dup(9) == 0, "one stayed open"
    os.close(0)
assert one.resilience_load(key, 1).payload is None
"""


@pytest.mark.everywhere
def test_no_descriptor_is_left_behind_where_they_run_out_among_the_standard_streams(tmp_path: Path) -> None:
    script = 'exec "$0" -c "$1" "$2" 9</dev/null 2>"$3"'
    words = [sys.executable, STARVED, (tmp_path / "state").as_uri(), str(tmp_path / "said")]
    done = subprocess.run(["sh", "-c", script, *words], check=False, timeout=PATIENCE)
    assert (done.returncode, (tmp_path / "said").read_text("utf-8")) == (0, "")
