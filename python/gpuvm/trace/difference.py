"""Where a replay through the driver did not go as recorded."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from gpuvm.errors import ERRNO_NAMES

_MEANINGS: Final = {
    errno.EPERM: "belonged to somebody else",
    errno.ENOENT: "named something that was not there",
    errno.EBADF: "named a file that was not open",
    errno.EBUSY: "met something in use",
    errno.EEXIST: "met something that was there already",
    errno.ENODEV: "was for a channel that was dead",
    errno.EINVAL: "had an argument that was wrong",
    errno.ENOSPC: "did not fit a sparse region",
    errno.ENOSYS: "came without an address space, or too late to make one",
    errno.ETIME: "came too early",
    errno.EOPNOTSUPP: "asked for what the driver does not do",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One recorded call whose result was another here.

    Attributes:
        line, client, call: of the recording.
        recorded, got: ``0``, the name of an errno, or what was returned.
        meaning: in words.
    """

    line: int
    client: int
    call: str
    recorded: str
    got: str
    meaning: str

    def __str__(self) -> str:
        return (
            f"{self.call} of client {self.client}: recorded {self.recorded}, got {self.got}: {self.meaning}"
        )


def result_name(ret: int) -> str:
    """``0``, or the name of a negative errno."""
    return ERRNO_NAMES.get(-ret, str(ret)) if ret else "0"


def why_accepted(ret: int) -> str:
    """What it means that a call is accepted that was refused with ``ret``."""
    meaning = _MEANINGS.get(-ret)
    return f"then the call {meaning}, here it was accepted" if meaning else "here it was accepted"


class OtherResult(Exception):
    """A call was accepted, as recorded, and returned something else.

    Args:
        what: that is, as ``handle``.
        recorded, got: its values.
        meaning: in words.
    """

    def __init__(self, what: str, recorded: object, got: object, meaning: str) -> None:
        super().__init__(f"{what} {recorded} was recorded, got {got}: {meaning}")
        self.recorded = f"{what} {recorded}"
        self.got = f"{what} {got}"
        self.meaning = meaning


class NotMade(Exception):
    """A recorded call cannot be made; the message says why."""
