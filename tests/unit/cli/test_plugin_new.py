"""`resilience plugin new`: a project that is complete, that works as it is, and that uses public names only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from public_api import foreign

import resilience
from resilience.cli.plugin.new import INTERPRETERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from unit.cli.command_line import Install, Run

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tests" / "plugin_example"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def project(here: Path, run: Run) -> Path:
    done = run("plugin", "new", "my-store")
    assert (done.status, done.err) == (0, "")
    return here / "resilience-my-store"


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


TREE = {
    "README.md",
    "pyproject.toml",
    "src/resilience_my_store/__init__.py",
    "src/resilience_my_store/py.typed",
    "src/resilience_my_store/reading.py",
    "src/resilience_my_store/settings.py",
    "src/resilience_my_store/storage.py",
    "tests/test_conformance.py",
    "tests/test_plugin.py",
    "tox.ini",
}


# --- the project ------------------------------------------------------------------------------------------------------


def test_all_files_are_written_and_named(here: Path, run: Run) -> None:
    done = run("plugin", "new", "my-store")
    assert tree(here / "resilience-my-store") == TREE
    assert [path.name for path in here.iterdir()] == ["resilience-my-store"], "nothing else is left there"
    assert set(done.out.splitlines()) >= {f"resilience-my-store/{file}" for file in TREE}


def test_the_interpreter_is_named_as_the_shell_finds_it(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert run("plugin", "new", "my-store").out.endswith(f"; {Path(sys.executable).name} -m pytest\n")
    monkeypatch.setenv("PATH", str(here))
    told = run("plugin", "new", "store", "--folder", "my own").out
    assert told.endswith(f"now: cd 'my own'; {sys.executable} -m pytest\n")


def test_nothing_of_the_template_is_left_open(project: Path) -> None:
    for file in TREE:
        text = (project / file).read_text("utf-8")
        assert not re.search(r"\{\{|PACKAGE", text), file
        if file.endswith(".py"):
            compile(text, file, "exec")


def test_the_entry_point_names_the_class(project: Path) -> None:
    settings = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert settings["name"] == "resilience-my-store"
    assert settings["entry-points"]["resilience.storage"] == {"my-store": "resilience_my_store:MyStoreStorage"}
    assert settings["dependencies"] == [f"resilience-framework>={resilience.__version__}"]


def test_the_interpreters_are_ours(project: Path) -> None:
    ours = re.search(r"py3\{([\d,]+)\}", (ROOT / "tox.ini").read_text("utf-8"))
    assert ours is not None
    assert ours[1] == INTERPRETERS
    assert f"env_list = py3{{{INTERPRETERS}}}\n" in (project / "tox.ini").read_text("utf-8")


def its_tests(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a project as an editable installation has it: its `src` on the path, its entry point known."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    information = project / "src" / f"{metadata['name'].replace('-', '_')}-{metadata['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {metadata['name']}\nVersion: 1\n")
    ((scheme, value),) = metadata["entry-points"]["resilience.storage"].items()
    (information / "entry_points.txt").write_text(f"[resilience.storage]\n{scheme} = {value}\n")
    path = os.pathsep.join(filter(None, [str(project / "src"), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=110,
        check=False,
        encoding="utf-8",
    )


def test_its_own_tests_pass(project: Path) -> None:
    """On every interpreter."""
    done = its_tests(project, "-k", "test_plugin or hooks or conflicts or damaged or unreachable")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b15 passed, \d+ deselected", done.stdout), done.stdout


FORKS_WHILE_A_LOCK_IS_OPENED = """
import os, sys, threading
from resilience import Key
from resilience_my_store import MyStoreStorage

def fork():
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(0)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def opened_slowly(*arguments):
    global descriptor
    descriptor = opened(*arguments)
    forking.start()
    forking.join(0.2)
    return descriptor

forking = threading.Thread(target=fork)
opened, os.open = os.open, opened_slowly
with MyStoreStorage("my-store://" + sys.argv[1]).resilience_lock(Key("test", "key"), 1):
    os.open = opened
    forking.join()
"""


def test_a_child_of_another_thread_has_no_lock(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS_WHILE_A_LOCK_IS_OPENED, project / "store"],
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", ""), "the descriptor was open in the child"


# That it passes the whole kit is shown by the page for authors, which runs its tests: docs/writing-a-storage.md.


@pytest.mark.heavy
def test_without_its_lock_it_fails_and_is_told_why(project: Path) -> None:
    storage = project / "src" / "resilience_my_store" / "storage.py"
    text = storage.read_text("utf-8")
    assert "_wait_for(descriptor, key, timeout)\n            yield" in text
    storage.write_text(text.replace("_wait_for(descriptor, key, timeout)\n            yield", "yield"), "utf-8")
    done = its_tests(project, "-k", "lock_excludes_threads")
    assert done.returncode == 1, done.stdout
    assert "another thread got the lock while it was held" in done.stdout


# --- where it is written ----------------------------------------------------------------------------------------------


def test_into_a_folder_that_is_named_or_empty(here: Path, run: Run) -> None:
    (here / "empty").mkdir()
    for folder in ("deep/er", "empty"):
        assert run("plugin", "new", "my-store", "--folder", folder).status == 0
        assert tree(here / folder) == TREE


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_is_there_is_left_alone(here: Path, run: Run, what: str) -> None:
    target = here / "resilience-my-store"
    if what == "folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif what == "file":
        target.write_text("mine")
    else:
        (here / "elsewhere").mkdir()
        target.symlink_to("elsewhere")
    before = tree(here)
    done = run("plugin", "new", "my-store")
    assert done.status == 2
    assert "'resilience-my-store' is there already; nothing was written" in done.err
    assert tree(here) == before


def test_a_folder_that_cannot_be_made_is_told(here: Path, run: Run) -> None:
    (here / "file").write_text("no folder")
    done = run("plugin", "new", "my-store", "--folder", "file/project")
    assert done.status == 74
    assert done.err.startswith("resilience: the output cannot be written: ")


def test_who_fills_the_folder_meanwhile_keeps_it(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def slower(path: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").write_text("theirs")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", slower)
    assert run("plugin", "new", "my-store").status == 2
    assert tree(here) == {"resilience-my-store/theirs"}


def test_a_project_that_cannot_be_put_in_place_leaves_nothing(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, target: Path) -> Path:
        raise OSError("no")

    monkeypatch.setattr(Path, "rename", broken)
    assert run("plugin", "new", "my-store").status == 74
    assert not list(here.iterdir())


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "My", "1st", "a_b", "a--b", "-a", "a-", "ä", "a/b", "..", "a b", "a" * 41])
def test_names_that_are_no_scheme_are_refused(here: Path, run: Run, name: str) -> None:
    done = run("plugin", "new", "--", name)
    assert done.status == 2
    assert "a name is a word of small letters and digits" in done.err
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("file", "is taken, by plugin 'file' (resilience_filelock:FileStorage of resilience-framework"),
        ("circuit-breaker", "is taken, by plugin 'circuit_breaker'"),
        ("logging", "is taken, by plugin 'logging'"),
        ("filelock", "is taken, by the installed package resilience_filelock"),
        ("storage", "is taken, by the setting RESILIENCE_STORAGE"),
        ("policies", "is taken, by the setting RESILIENCE_POLICIES"),
    ],
)
def test_names_that_are_taken_are_refused(here: Path, run: Run, name: str, says: str) -> None:
    done = run("plugin", "new", name)
    assert done.status == 2
    assert says in done.err
    assert not list(here.iterdir())


# --- the words --------------------------------------------------------------------------------------------------------


def test_the_verbs_of_two_words(run: Run) -> None:
    assert "  plugin new    " in run("--help").out
    assert "usage: resilience plugin new [-h] [--folder DIR] NAME" in run("plugin", "new", "--help").out
    for words in (["plugin"], ["plugin", "--help"], ["plugin", "nwe", "x"]):
        done = run(*words)
        assert done.status == 2
        assert "there are plugin new, plugin check" in done.err
    assert "'plugin' has a second word" not in run("plugin new", "--help").err


# --- packaging --------------------------------------------------------------------------------------------------------


def names(folder: Traversable, before: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from names(entry, f"{before}{entry.name}/")
        else:
            yield before + entry.name


def test_the_templates_are_installed_as_they_are_in_the_checkout() -> None:
    """Under tox what is installed is the wheel."""
    checkout = ROOT / "resilience" / "cli" / "plugin" / "template"
    installed = files("resilience.cli.plugin") / "template"
    assert set(names(installed)) == tree(checkout)
    for name in names(installed):
        assert installed.joinpath(*name.split("/")).read_bytes() == (checkout / name).read_bytes()


# --- public names -----------------------------------------------------------------------------------------------------


def test_the_example_uses_public_names_only() -> None:
    paths = list(EXAMPLE.rglob("*.py"))
    assert {path.name for path in paths} >= {"storage.py", "connections.py", "settings.py", "test_conformance.py"}
    assert {path.name: found for path in paths if (found := foreign(path))} == {}


def test_a_new_project_uses_public_names_only(project: Path) -> None:
    assert {path.name: found for path in project.rglob("*.py") if (found := foreign(path))} == {}


# --- plugins ----------------------------------------------------------------------------------------------------------


def test_plugins_shows_the_hooks_of_others(run: Run, install: Install) -> None:
    install("resilience.storage", "unlisted", "UnlistedStorage")
    found = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "--json").out)}
    assert found["unlisted"]["hooks"] == [f"resilience_{hook}" for hook in ("load", "save", "lock", "discard")]
