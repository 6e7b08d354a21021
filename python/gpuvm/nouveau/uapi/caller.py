"""Caller: the program that makes a call, as far as the call gets at it: its memory, and its descriptors."""

from __future__ import annotations

import os
from typing import Final, NamedTuple, Protocol, Self

from gpuvm.nouveau.uapi.user_memory import UserMemory

NOT_OPEN: Final = -1
"""No descriptor has this number."""

_close: Final = os.close  # still there when modules are torn down


class UserFd(int):
    """A descriptor of ours for a file that a program has open. It is told by the number that the program has.

    Who drops it closes it.

    Args:
        number: ours; NOT_OPEN if the program has none such open.
        theirs: what the program calls it.
    """

    theirs: int

    def __new__(cls, number: int, theirs: int) -> Self:
        """As the class says."""
        made = super().__new__(cls, number)
        made.theirs = theirs
        return made

    def __repr__(self) -> str:
        return str(self.theirs)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(self.theirs, spec)

    def __del__(self) -> None:
        if self >= 0:
            _close(self)


class UserFiles(Protocol):
    """The descriptors of a program."""

    def fget(self, number: int) -> int:
        """Our number for the file that the program calls ``number``; for as long as the result is kept.

        If the program has none such open, a number that is not open here either.

        Raises:
            TooManyFiles: we are out of descriptors.

        Source: ``fget``.
        """

    def install(self, number: int, *, cloexec: bool) -> int:
        """Give our descriptor ``number`` to the program, and close it, also if that fails: what it is there.

        Raises:
            TooManyFiles: the program is out of descriptors.

        Source: ``fd_install``, ``receive_fd``.
        """


class _OwnFiles:
    """Those of this process: nothing to be done."""

    def fget(self, number: int) -> int:
        return number

    def install(self, number: int, *, cloexec: bool) -> int:
        return number


class Caller(NamedTuple):
    """Who makes a call."""

    memory: UserMemory
    files: UserFiles

    @staticmethod
    def own() -> Caller:
        """This process."""
        return _own[0]


_own: Final = [Caller(UserMemory.own(), _OwnFiles())]


def _after_fork() -> None:
    _own[0] = Caller(UserMemory.own(), _OwnFiles())


os.register_at_fork(after_in_child=_after_fork)
