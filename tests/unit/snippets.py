"""Runs the snippets of a page of the documentation, as a reader would who types them in from top to bottom.

    python tests/unit/snippets.py README.md FOLDER

Everything happens in FOLDER: the page's working directory, home and state.  What a page may contain:

* A block in ``python`` is executed, all blocks of a page in one namespace.
* A block in ``console`` is typed into a shell: lines that begin with ``$ `` are commands, those with ``> `` continue
  them, the others are what is printed, errors included.  Variables and folder stay from block to block.  A command must
  end with status 0, unless the next one looks at ``$?``.
* A block in ``text`` that follows a ``python`` block, with nothing but empty lines between, is what that block prints.
  A block that prints must show it.  An uncaught exception prints its last line.
* ``...`` in what is printed stands for anything.
* ``<!-- file: NAME -->`` before a block saves it as NAME in the page's folder instead of running it.
* ``<!-- not-run: REASON -->`` before a block says why it is not run.  ``<!-- demo-command -->`` and
  ``<!-- test-command -->`` mark the two commands of the README, which are run elsewhere.

Blocks in any other language are not code (``text``, ``toml``, ``json`` …), but shell code must be a ``console`` block.
"""

from __future__ import annotations

import linecache
import os
import re
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60.0
"""How long one block may take."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)$")
_MARK = re.compile(r"^ *<!-- *(?P<mark>[a-z-]+)(?:: *(?P<value>.*?))? *--> *$")
_MARKS = {"file", "not-run", "demo-command", "test-command"}
_SHELLS = {"sh", "bash", "shell", "zsh"}


class SnippetError(Exception):
    """A snippet does not do what its page shows."""


@dataclass
class Block:
    """One fenced block; `line` is the number of its first line of code, in the page, from 1."""

    language: str
    code: str
    line: int
    mark: str = ""
    value: str = ""
    follows: bool = False
    """Only empty lines stand between the block before and this one."""


def blocks(text: str) -> Iterator[Block]:
    """Find the fenced blocks of a page."""
    lines = text.splitlines()
    mark = value = ""
    follows = False
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := _FENCE.match(line):
            body: list[str] = []
            first = number + 1
            end = re.compile(rf"^ *{found['ticks'][0]}{{{len(found['ticks'])},}} *$")
            while number < len(lines) and not end.match(lines[number]):
                body.append(lines[number].removeprefix(found["indent"]))
                number += 1
            if number == len(lines):
                raise SnippetError(f"line {first - 1}: the block does not end")
            number += 1
            words = found["info"].split()
            yield Block(words[0] if words else "", "\n".join(body) + "\n", first, mark, value, follows)
            mark = value = ""
            follows = True
        elif (found := _MARK.match(line)) and found["mark"] in _MARKS:
            mark, value = found["mark"], found["value"] or ""
            if mark in {"file", "not-run"} and not value:
                raise SnippetError(f"line {number}: `{mark}` needs a {'name' if mark == 'file' else 'reason'}")
            follows = False
        elif line.strip():
            if mark:
                raise SnippetError(f"line {number}: `{mark}` stands before no block")
            follows = False


def agrees(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; ``...`` stands for anything, spaces at the ends of lines do not count."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    pattern = ".*?".join(re.escape(part) for part in tidy(shown).split("..."))
    return re.fullmatch(pattern, tidy(printed), re.DOTALL) is not None


class Page:
    """Runs one page in its own folder."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.namespace: dict[str, object] = {"__name__": "__main__"}
        self.ran = 0
        self._variables = folder / ".variables"
        self._home = folder / "page"
        self._home.mkdir(parents=True)
        os.environ.update(_environment(folder, self._home))
        for name in [name for name in os.environ if name.startswith("RESILIENCE_")]:
            del os.environ[name]
        os.chdir(self._home)

    def run(self) -> None:
        """Run all blocks; `SnippetError` names the first that does not do what the page shows."""
        found = list(blocks(self.path.read_text("utf-8")))
        for block, following in zip_longest(found, found[1:]):
            if block.mark == "file":
                (self._home / block.value).write_text(block.code, "utf-8")
            elif block.mark:
                continue
            elif block.language == "python":
                shown = following.code if following and following.language == "text" and following.follows else ""
                self._python(block, shown)
            elif block.language == "console":
                self._console(block)
            elif block.language in _SHELLS:
                raise self._error(block.line, f"`{block.language}` is not run: make it `console`, or say `not-run`")

    def _error(self, line: int, message: str) -> SnippetError:
        return SnippetError(f"{self.path.name}:{line}: {message}")

    def _python(self, block: Block, shown: str) -> None:
        self.ran += 1
        name = f"{self.path.name}, line {block.line}"
        linecache.cache[name] = (len(block.code), None, block.code.splitlines(keepends=True), name)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            kept = os.dup(1)
            sys.stdout.flush()
            os.dup2(output.fileno(), 1)
            trace = ""
            try:
                exec(compile(block.code, name, "exec", dont_inherit=True), self.namespace)
            except Exception as error:  # noqa: BLE001 - a snippet raises what it likes
                trace = traceback.format_exc()
                print("".join(traceback.format_exception_only(error)), end="")
            finally:
                sys.stdout.flush()
                os.dup2(kept, 1)
                os.close(kept)
            output.seek(0)
            printed = output.read()
        if not agrees(shown, printed):
            raise self._error(block.line, _differs(shown, printed) + trace)

    def _console(self, block: Block) -> None:
        commands = list(_commands(block))
        if not commands:
            raise self._error(block.line, "a console block without a command: begin it with `$ `")
        self.ran += 1
        mark = "---8<---"
        script = [f"[ ! -e {self._variables} ] || . {self._variables}"]
        for _, command, _ in commands:
            script += [command.rstrip("\n"), f"_status=$?; echo; echo '{mark}' $_status; (exit $_status)"]
        script.append(f"{{ export -p; echo cd \"'$PWD'\"; }} > {self._variables}")
        done = subprocess.run(
            ["sh", "-c", "\n".join(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
            encoding="utf-8",
        )
        results = re.findall(rf"(.*?)\n{mark} (\d+)\n", done.stdout, re.DOTALL)
        if len(results) != len(commands):
            raise self._error(block.line, f"the shell ended early:\n{done.stdout}")
        following = [command for _, command, _ in commands[1:]] + [""]
        for (line, command, shown), (printed, status), after in zip(commands, results, following, strict=True):
            if not agrees(shown, printed):
                raise self._error(line, f"{command.strip()}\n{_differs(shown, printed)}")
            if status != "0" and "$?" not in after:
                raise self._error(line, f"{command.strip()}\nended with status {status}, which the page does not show")


def _commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """Take a console block apart: line, command, and what it prints."""
    line, command, shown = 0, "", ""
    for number, text in enumerate(block.code.splitlines(), block.line):
        if text.startswith("$ "):
            if command:
                yield line, command, shown
            line, command, shown = number, text[2:] + "\n", ""
        elif text.startswith("> ") and command and not shown:
            command += text[2:] + "\n"
        else:
            shown += text + "\n"
    if command:
        yield line, command, shown


def _differs(shown: str, printed: str) -> str:
    return f"the page shows\n{shown or '(nothing)'}\nbut this was printed\n{printed or '(nothing)'}\n"


def _environment(folder: Path, home: Path) -> dict[str, str]:
    return {
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        # The saved files of the page can be imported and run, by the interpreter that has the framework.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH", "")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PWD": str(home),
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }


def main() -> int:
    """Run the page named on the command line; status 1 and a message on the first snippet that is wrong."""
    page, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(folder / "page"))
    try:
        runner = Page(page, folder)
        runner.run()
    except SnippetError as error:
        print(error)
        return 1
    print(f"{runner.ran} run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
