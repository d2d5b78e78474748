"""``RESILIENCE_TRACE_HOOKS=1``: each call of a hook as one line, without secrets; free where it is off."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from storages import Awaited, Faulty, Recorder

from resilience import CircuitBreaker, Key, PluginError, Runtime, StorageLockTimeout, StorageUnavailable, hookimpl
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Generator

    from unit.cli.command_line import Run

ON = {"RESILIENCE_TRACE_HOOKS": "1", "RESILIENCE_PLUGINS_AUTOLOAD": "0"}
KEY = Key("test", "x")


def traced(err: str) -> list[str]:
    """Lines without the times and the process."""
    lines = err.splitlines()
    for line in lines:
        assert re.match(rf"resilience: \d+\.\d{{6}} s resilience_\w+\(.*\) by .* in process {os.getpid()}: ", line)
        assert len(line) <= 400
    found = [re.sub(r"^resilience: [\d.]+ s | in process \d+", "", line) for line in lines]
    return [re.sub(r"[\d.]+ s\b", "… s", re.sub(r"@\w+, \d+ bytes", "@…", line)) for line in found]


def test_each_call_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Runtime(storage="memory:", environ=ON, observers=[Recorder()]) as runtime:
        CircuitBreaker("payments", failure_threshold=1).record_failure()
        runtime.keys()
        assert runtime.opened.ports.delete is not None
        runtime.opened.ports.delete(KEY, None, 1)
    assert traced(capsys.readouterr().err) == [
        "resilience_load(circuit_breaker 'payments') by memory: nothing stored",
        "resilience_save(circuit_breaker 'payments') by memory: version 1@…",
        "resilience_lock(circuit_breaker 'payments') by memory: waited … s, held … s",
        "resilience_transition(circuit_breaker 'payments': closed -> open) by Recorder #1: done",
        "resilience_keys() by memory: a list",
        "resilience_delete(test 'x') by memory: False",
    ]


def test_events_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with Runtime(storage="memory:", environ=ON, observers=[Recorder()]) as runtime:
        runtime.opened.engine.tell("recovered", {"seconds": 1})
        CircuitBreaker("x").reset()
    lines = traced(capsys.readouterr().err)
    assert lines[0] == "resilience_event(recovered) by Recorder #1: done"
    assert lines[-1] == "resilience_event(reset, circuit_breaker 'x') by Recorder #1: done"


def test_nothing_is_printed_and_nothing_is_wrapped_where_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    storage = MemoryStorage("memory:")
    with Runtime(storage=storage, environ={}) as runtime:
        assert runtime.opened.ports.load == storage.resilience_load
        CircuitBreaker("x").record_failure()
    assert "resilience.trace" not in sys.modules or not capsys.readouterr().err
    assert not capsys.readouterr().err


def test_what_a_hook_raises_is_told_without_secrets_on_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    storage = Faulty("faulty:")
    storage.plan("load", StorageUnavailable(f"no answer of\n redis://me:hunter2@host/0 \x1b[31m {'x' * 500}"))
    storage.plan("lock", StorageLockTimeout("taken"), lambda *_: Unenterable())
    with Runtime(storage=storage, environ=ON) as runtime:
        ports = runtime.opened.ports
        with pytest.raises(StorageUnavailable):
            ports.load(KEY, 1)
        with pytest.raises(StorageLockTimeout):
            ports.lock(KEY, 1)
        with pytest.raises(StorageLockTimeout, match="entering"):
            ports.lock(KEY, 1).__enter__()
    err = capsys.readouterr().err
    assert "hunter2" not in err
    assert "\x1b" not in err
    first, *others = traced(err)
    assert "StorageUnavailable: no answer of\\n redis://***@host/0 \\x1b[31m xxx" in first
    assert len(err.splitlines()[0]) == 400
    assert others == [
        "resilience_lock(test 'x') by Faulty: StorageLockTimeout: taken",
        "resilience_lock(test 'x') by Faulty: StorageLockTimeout: entering",
    ]


class Unenterable(nullcontext[None]):
    def __enter__(self) -> None:
        raise StorageLockTimeout("entering")


def test_the_lock_is_the_storage_s(capsys: pytest.CaptureFixture[str]) -> None:
    with Runtime(storage="memory:", environ=ON) as runtime:
        ports = runtime.opened.ports
        with ports.lock(KEY, 1), pytest.raises(StorageLockTimeout), ports.lock(KEY, 0):
            raise AssertionError("it excludes nobody")
        with pytest.raises(ZeroDivisionError), ports.lock(KEY, 0):
            raise ZeroDivisionError
        with ports.lock(KEY, 0):
            pass
    assert [line.split(" ")[-1] for line in traced(capsys.readouterr().err)] == ["lock", "s", "s", "s"]


def test_awaited_hooks_are_timed_to_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    storage = Awaited("awaited:")

    async def main() -> None:
        with Runtime(storage=storage, environ=ON) as runtime:
            ports: Any = runtime.opened.ports
            await ports.asave(KEY, b"{}", None, None, 1)
            storage.plan("aload", StorageUnavailable("gone"))
            with pytest.raises(StorageUnavailable):
                await ports.aload(KEY, 1)

    asyncio.run(main())
    assert traced(capsys.readouterr().err) == [
        "resilience_asave(test 'x') by Awaited: version 1@…",
        "resilience_aload(test 'x') by Awaited: StorageUnavailable: gone",
    ]


def test_who_watches_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Watching:
        @hookimpl(wrapper=True)
        def resilience_load(self) -> Generator[None, Any, Any]:
            return (yield)

    with Runtime(storage="memory:", environ=ON, observers=[Watching()]) as runtime:
        runtime.opened.ports.load(KEY, 1)
    (line,) = traced(capsys.readouterr().err)
    assert line == "resilience_load(test 'x') by memory, watched by Watching #1: nothing stored"


def test_names_in_any_script_are_written_so_that_every_terminal_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    with Runtime(storage="memory:", environ=ON) as runtime:
        runtime.opened.ports.load(Key("test", "Zahlung ä 支払"), 1)
    assert "'Zahlung \\xe4 \\u652f\\u6255'" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [None, "closed"])
def test_that_nobody_reads_it_changes_nothing(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    written = io.StringIO()
    written.close()
    monkeypatch.setattr(sys, "stderr", written if stream else None)
    with Runtime(storage="memory:", environ=ON) as runtime:
        assert runtime.opened.ports.load(KEY, 1).payload is None


def test_a_storage_that_gives_no_lock_is_a_plugin_s_mistake_all_the_same() -> None:
    class Lockless(MemoryStorage):
        @hookimpl
        def resilience_lock(self) -> None:  # type: ignore[override]
            return None

    with Runtime(storage=Lockless("memory:"), environ=ON):
        breaker = CircuitBreaker("x", on_store_error="raise")
        with pytest.raises(PluginError, match="its lock returned None"):
            breaker.record_failure(strict=True)


def test_on_the_command_line_no_plan_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_TRACE_HOOKS", "1")
    done = run("failure", "x")
    assert done.status == 0
    assert "resilience_save(circuit_breaker 'x') by file: version 1@…" in traced(done.err)
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).glob("resilience/*"))


def test_the_file_turns_it_on_while_the_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text('storage = "memory:"\n')
    with Runtime(environ={"RESILIENCE_CONFIG": str(path)}) as runtime:
        breaker = CircuitBreaker("x")
        breaker.status()
        assert not capsys.readouterr().err
        path.write_text('storage = "memory:"\ntrace_hooks = true\n')
        runtime.reload()
        breaker.status()
    assert "resilience_load(circuit_breaker 'x') by memory: nothing stored" in traced(capsys.readouterr().err)
