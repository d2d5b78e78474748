"""The settings of the file storage: `RESILIENCE_FILE__DURABILITY` and the others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resilience.settings import StorageSettings


class FileSettings(StorageSettings):
    """How the file storage treats its files."""

    durability: Literal["none", "fsync"] = Field(
        default="none",
        description="What a commit survives: `none`, the death of any process; `fsync`, also the loss of power "
        "(a commit then waits for the disk).",
    )
    freshness: Literal["map", "read"] = Field(
        default="map",
        description="How a commit of another process is noticed: `map`, by one look at mapped memory, no system call; "
        "`read`, by one small read a call.  Choose `read` where other programs may truncate or copy over the files: "
        "that kills a process which has them mapped.",
    )
    allow_network_filesystem: bool = Field(
        default=False,
        description="Use a folder on a network file system all the same.  Nothing is mapped then, each look reads the "
        "file, and the exclusion is as good as that file system's `flock`.",
    )
