"""What a check says: that the contract is broken, or that it could not look."""

from __future__ import annotations


class Violation(AssertionError):
    """A storage broke the contract of a hook.

    :param what: what was seen.
    :param why: what goes wrong for users of the storage.
    :param fix: what its author does about it.
    """

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        """All three, a line each."""
        return f"{self.what}\n  why it matters: {self.why}\n  what to do:     {self.fix}"


def out_of_place(name: str, text: str, fix: str = "", when: str = "where nothing was wrong") -> Violation:
    """Say of one of our errors that it was raised where nothing was wrong.

    :param name: of its class.
    :param text: its message.
    :param fix: what its author does about it, where more is known than that.
    :param when: what went on meanwhile.
    """
    return Violation(
        f"a hook raised {name} {when}: {text}",
        "the engine takes it as it is said: a conflict is tried again, an outage is told",
        fix or "raise it only for what its name says; a lock that nobody holds is had at once",
    )


class Skipped(Exception):
    """A check has nothing to look at; the message says why."""
