"""The exit statuses: those of `sysexits.h` where it has one, those of a shell where a command is run."""

from __future__ import annotations

OK = 0
VIOLATED = 1
USAGE = 2
UNAVAILABLE = 69
SOFTWARE = 70
CANNOT_WRITE = 74
REJECTED = 75
CONFIGURATION = 78
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128
"""Plus the number of the signal."""

MEANINGS = (
    ("0", "let in, or done"),
    ("1", "`plugin check`: the storage broke the contract"),
    ("2", "the command line makes no sense"),
    ("69", "the storage did not answer: it was not done, or could not be read"),
    ("70", "a fault of this program"),
    ("74", "the output could not be written"),
    ("75", "rejected: try again later"),
    ("78", "a setting or a plugin is wrong"),
    ("run", "the status of the command; 124 time-out, 126 not executable, 127 not found, 128+n killed by signal n"),
)
"""What they mean, for people."""
