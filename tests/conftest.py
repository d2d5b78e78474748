"""What every test gets: an environment without our variables, a state home of its own, a closed runtime at its end."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A distribution of its own, with its own tests: `tox run -e py313-plugin` installs it and runs them.
collect_ignore = ["plugin_example"]

# The same examples in each run, so that a passing tree goes on passing; `RESILIENCE_TEST_RANDOM=1` looks further.  How
# long one takes says more of the machine than of the code.
settings.register_profile(
    "here",
    deadline=None,
    derandomize=not os.environ.get("RESILIENCE_TEST_RANDOM"),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("here")


@pytest.fixture(scope="session", autouse=True)
def _hears_signals() -> Iterator[None]:
    """Started in the background, or by what else ignores signals, we and our children would ignore them too."""
    heard: dict[str, Any] = {"SIGHUP": signal.SIG_DFL, "SIGINT": signal.default_int_handler, "SIGQUIT": signal.SIG_DFL}
    ignored = {
        number: signal.signal(number, handler)
        for name, handler in heard.items()
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is signal.SIG_IGN
    }
    yield
    for number, handler in ignored.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the tests off the user's own breakers, and off each other's."""
    for name in [name for name in os.environ if name.startswith("RESILIENCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))  # where the command line keeps its plan
    yield
    runtime = sys.modules.get("resilience.runtime")
    if runtime is not None:
        runtime.Runtime.current().close()
