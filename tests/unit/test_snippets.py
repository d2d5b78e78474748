"""Every snippet of the README and the docs does what its page shows; and the runner of the snippets is tested too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[str], subprocess.CompletedProcess[str]]
    """Writes a page and reads it."""

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("snippets.py")
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not any(part.startswith("_") for part in page.relative_to(ROOT).parts)
)


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, RUNNER, page, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=110,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.heavy  # a page starts many processes, and is right on one interpreter or wrong
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page(page: Path, tmp_path: Path) -> None:
    done = run(page, tmp_path / "reader")
    assert done.returncode == 0, done.stdout


@pytest.fixture
def written(tmp_path: Path) -> Reader:
    def write(text: str) -> subprocess.CompletedProcess[str]:
        page = tmp_path / "page.md"
        page.write_text(text.replace("'''", "```"), "utf-8")
        return run(page, tmp_path / "reader")

    return write


RIGHT = {
    "one namespace": ("'''python\nx = 1\n'''\nthen\n'''python\nprint(x + 1)\n'''\n\n'''text\n2\n'''", 2),
    "anything between": ("'''python\nprint('a 0.123 b'); print('c')\n'''\n'''text\na ... b\n...\n'''", 1),
    "started process prints": ("'''python\nimport os; _ = os.system('echo hi')\n'''\n'''text\nhi\n'''", 1),
    "an exception": ("'''python\n1 / 0\n'''\n'''text\nZeroDivisionError: division by zero\n'''", 1),
    "a shell": ("'''console\n$ echo a; echo b\na\nb\n$ printf c\nc\n$ true\n'''", 1),
    "a shell goes on": (
        "'''console\n$ export A=1; mkdir d; cd d\n'''\n'''console\n$ echo $A; basename $PWD\n1\nd\n'''",
        2,
    ),
    "a long command": ("'''console\n$ cat <<END\n> one\n> END\none\n$ echo \\\n> two\ntwo\n'''", 1),
    "a status that is shown": ("'''console\n$ false\n$ echo $?\n1\n'''", 1),
    "a saved file": (
        "<!-- file: s.py -->\n'''python\nY = 5\n'''\n'''console\n$ python -c 'import s; print(s.Y)'\n5\n'''",
        1,
    ),
    "a saved file, imported": ("<!-- file: saved.py -->\n\n'''python\nY = 5\n'''\n\n'''python\nimport saved\n'''", 1),
    "a reason": ("<!-- not-run: needs a network -->\n'''sh\ncurl x\n'''", 0),
    "no block": ("text\n", 0),
    "no code": ("'''toml\na = 1\n'''\n'''text\nfree\n'''\n'''\nplain\n'''", 0),
    "a block in a list": ("* x\n\n  '''python\n  print(1)\n  '''\n\n  '''text\n  1\n  '''", 1),
    "a block in a block": ("~~~~markdown\n'''python\n1 / 0\n'''\n~~~~", 0),
}

WRONG = {
    "other output": ("'''python\nprint(2)\n'''\n\n'''text\n3\n'''", "page.md:2: the page shows\n3"),
    "output that is not shown": ("'''python\nprint(2)\n'''\nand\n'''text\n2\n'''", "but this was printed\n2"),
    "no output": ("'''python\n2\n'''\n'''text\n2\n'''", "(nothing)"),
    "an exception": ("text\n'''python\n\n1 / 0\n'''", 'File "page.md, line 3", line 2'),
    "bad syntax": ("'''python\nx =\n'''", "SyntaxError"),
    "other output of a shell": ("'''console\n$ true\n$ echo a\nb\n'''", "page.md:3: echo a"),
    "a status that is not shown": ("'''console\n$ false\n$ true\n'''", "status 1"),
    "a shell that ends": ("'''console\n$ exit 0\n$ true\n'''", "the shell ended early"),
    "no command": ("'''console\necho a\n'''", "without a command"),
    "a shell that is not run": ("'''sh\nls\n'''", "make it `console`"),
    "no reason": ("<!-- not-run: -->\n'''python\n1 / 0\n'''", "needs a reason"),
    "no name": ("<!-- file -->\n'''python\n1\n'''", "needs a name"),
    "a mark before no block": ("<!-- not-run: so -->\ntext\n", "stands before no block"),
    "no end": ("'''python\n1\n", "does not end"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_runner_takes(case: str, written: Reader) -> None:
    page, ran = RIGHT[case]
    done = written(page)
    assert (done.returncode, done.stdout) == (0, f"{ran} run\n")


@pytest.mark.parametrize("case", WRONG)
def test_runner_finds(case: str, written: Reader) -> None:
    page, message = WRONG[case]
    done = written(page)
    assert done.returncode == 1
    assert message in done.stdout


def test_state_and_home_are_the_readers_own(written: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    done = written(
        "'''python\nimport os\nprint(os.environ['HOME'], os.environ['XDG_STATE_HOME'], os.getcwd())\n"
        "print([name for name in os.environ if name.startswith('RESILIENCE')])\n'''\n"
        f"'''text\n{tmp_path}/reader/home {tmp_path}/reader/state {tmp_path}/reader/page\n[]\n'''"
    )
    assert (done.returncode, done.stdout) == (0, "1 run\n")
