"""Small disks in files, mounted by tests that run as root: they fail, and lose what power had not reached."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from processes.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MEGABYTE = 1 << 20


def run(*command: str | Path) -> None:
    """Run something that only root may, or skip."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except OSError as error:
        pytest.skip(f"needs {command[0]}: {error}")
    if done.returncode:
        pytest.skip(f"needs root and {command[0]}: {done.stderr.strip()}")


class Disk:
    """An ext4 in a file, mounted at `place`.

    :param size: megabytes; from 4 on it has a journal.
    """

    def __init__(self, folder: Path, size: int = 4) -> None:
        self.image, self.place = folder / "image", folder / "disk"
        with self.image.open("wb") as file:
            file.truncate(size * MEGABYTE)
        self.place.mkdir()
        run("mkfs.ext4", "-q", "-F", self.image)
        self.insert()

    def insert(self) -> None:
        run("mount", "-o", "loop", self.image, self.place)

    def fail(self) -> None:
        """As after an error of the hardware: what was written stays to be read, and nothing more is."""
        run("sync", "-f", self.place)
        run("mount", "-o", "remount,abort", self.place)

    def eject(self) -> None:
        run("umount", "-l", self.place)


@contextmanager
def without_power(image: Path, aside: Path) -> Generator[Path]:
    """A disk as it is found if the power fails now: what was not brought to it is lost.

    :param image: the file that the disk is in.
    :param aside: an empty folder, for the copy.
    """
    copy, place = aside / "image", aside / "disk"
    run("cp", "--sparse=always", image, copy)
    place.mkdir()
    run("mount", "-o", "loop", copy, place)
    try:
        yield place
    finally:
        run("umount", "-l", place)
