"""File descriptors that outlive whoever opened them: owned, and files that name an object of this process.

A *carrier* is a pipe. Its reading end is handed out as the kernel hands out the descriptor of a sync file or
of a syncobj. It is recognised by the pipe's inode, so copies made by ``dup``, ``fork`` or ``SCM_RIGHTS`` name
the same object. We keep the writing end, which costs a second descriptor. It pins the inode, so no other file
gets this identity, and it tells by ``POLLERR`` that the last copy of the reading end was closed, in whatever
process. As in the kernel the file keeps the object alive. But the kernel lets go at the last close; we do at
the next call that exports or imports anything.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
from collections.abc import Callable

from gpuvm.errors import BadFile

_close = os.close  # still there when modules are torn down


class Descriptor:
    """An open file descriptor of our own, closed when nobody refers to it any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        _close(self.number)


def duplicate(number: int) -> Descriptor:
    """A descriptor of our own for the same file.

    Raises:
        BadFile: no such descriptor.
    """
    try:
        return Descriptor(os.dup(number))
    except OSError as error:
        if error.errno == errno.EBADF:
            raise BadFile(f"{number} is no open file descriptor", number) from None
        raise


class Carrier:
    """The file that stands for ``content``; our end of it.

    Attributes:
        content: what it names.
        abandoned: called once nobody has the file open any more.
    """

    __slots__ = ("_end", "abandoned", "content", "identity")

    def __init__(self, end: Descriptor, content: object, abandoned: Callable[[], None] | None) -> None:
        self._end = end
        self.content = content
        self.abandoned = abandoned
        self.identity = _identity(end.number)

    def make_readable(self) -> None:
        """Let ``poll`` report ``POLLIN`` to whoever has the file open, from now on."""
        with contextlib.suppress(BrokenPipeError):  # nobody has it open any more
            os.write(self._end.number, b"\0")

    def closed(self) -> bool:
        """True once nobody has the file open any more."""
        poll = select.poll()
        poll.register(self._end.number, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))


class Carriers:
    """Which carriers there are. Any thread may call anything."""

    def __init__(self) -> None:
        self._epoll: dict[None, select.epoll] = {}
        self._by_identity: dict[tuple[int, int], Carrier] = {}
        self._by_end: dict[int, Carrier] = {}

    def export(self, content: object, abandoned: Callable[[], None] | None = None) -> tuple[int, Carrier]:
        """Open a file that names ``content``: its descriptor, which the caller closes, and our end of it.

        Raises:
            OSError: out of descriptors (``EMFILE``, ``ENFILE``).
        """
        self.collect()
        epoll = self._epoll.get(None) or self._epoll.setdefault(None, select.epoll())
        number, end = os.pipe()
        carrier = Carrier(Descriptor(end), content, abandoned)
        try:
            epoll.register(end, 0)
        except OSError:
            os.close(number)
            raise
        self._by_end[end] = carrier
        self._by_identity[carrier.identity] = carrier
        return number, carrier

    def find(self, number: int) -> object | None:
        """What the file ``number`` names; None if it is no open file, or none of ours."""
        self.collect()
        try:
            carrier = self._by_identity.get(_identity(number))
        except OSError:
            return None
        return None if carrier is None else carrier.content

    def collect(self) -> None:
        """Let go of what nobody has open any more. Cost: O(files closed since the last time)."""
        epoll = self._epoll.get(None)
        for end, _events in epoll.poll(0) if epoll is not None else ():
            carrier = self._by_end.get(end)
            # Another thread may have collected it and a new carrier may have got its number: look again.
            if carrier is not None and carrier.closed():
                self._drop(end, carrier)

    def _drop(self, end: int, carrier: Carrier) -> None:
        if self._by_identity.pop(carrier.identity, None) is None:
            return  # another thread was faster
        del self._by_end[end]
        self._epoll[None].unregister(end)
        if carrier.abandoned is not None:
            carrier.abandoned()

    def close(self) -> None:
        """Let go of everything, at the end of the program."""
        for end, carrier in list(self._by_end.items()):
            self._drop(end, carrier)

    def after_fork(self) -> None:
        """In the child: keep the files, and stop sharing the ``epoll`` with the parent."""
        if self._epoll.pop(None, None) is not None:
            epoll = self._epoll[None] = select.epoll()
            for end in self._by_end:
                epoll.register(end, 0)

    def __len__(self) -> int:
        self.collect()
        return len(self._by_identity)


carriers = Carriers()
atexit.register(carriers.close)
os.register_at_fork(after_in_child=carriers.after_fork)


def _identity(number: int) -> tuple[int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino
