"""File descriptors that outlive whoever opened them: owned, and files that name an object of this process.

A *carrier* is a pair of sockets. One is handed out as the kernel hands out the descriptor of a sync file or
of a syncobj. It is recognised by its inode, so copies made by ``dup``, ``fork`` or ``SCM_RIGHTS`` name the
same object. We keep the other, which costs a second descriptor. It tells by ``POLLHUP`` that the last copy of
the first was closed, in whatever process. As in the kernel the file keeps the object alive. But the kernel
lets go at the last close; we do at the next call that exports or imports anything, or when somebody who waits
for ``Carriers.fileno`` calls ``collect``.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gpuvm.errors import BadFile, CheckFailed, TooManyFiles

_close = os.close  # still there when modules are torn down
_NONE_LEFT = (errno.EMFILE, errno.ENFILE)


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
        TooManyFiles: out of descriptors.
    """
    try:
        with _running_out():
            return Descriptor(os.dup(number))
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno != errno.EBADF:
            raise
        raise BadFile(f"{number} is no open file descriptor", number) from None


@contextlib.contextmanager
def _running_out() -> Iterator[None]:
    """Raises TooManyFiles where there is no descriptor left for what is opened."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NONE_LEFT:
            raise
        raise TooManyFiles(
            f"{error.strerror}; raise `ulimit -n` (a file that names an object takes two descriptors), "
            "or close what is not used"
        ) from error


class Carrier:
    """The file that stands for ``content``; our end of it.

    Attributes:
        content: what it names.
        abandoned: called once nobody has the file open any more.
    """

    __slots__ = ("_end", "abandoned", "content", "identity")

    def __init__(
        self,
        end: Descriptor,
        identity: tuple[int, int],
        content: object,
        abandoned: Callable[[], None] | None,
    ) -> None:
        self._end = end
        self.identity = identity
        self.content = content
        self.abandoned = abandoned

    @property
    def number(self) -> int:
        """Of our end."""
        return self._end.number

    def make_readable(self) -> None:
        """Let ``poll`` report ``POLLIN`` to whoever has the file open, from now on."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=self._end.number)
        try:
            with contextlib.suppress(BrokenPipeError):  # nobody has it open any more; and no SIGPIPE for that
                end.send(b"\0", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        finally:
            end.detach()

    def closed(self) -> bool:
        """True once nobody has the file open any more."""
        poll = select.poll()
        poll.register(self._end.number, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))


@dataclass(frozen=True, slots=True)
class CarriersStatistics:
    """A snapshot of the files that name our objects."""

    files: int
    """How many are open, in whatever process; each costs us a descriptor."""
    named: Mapping[str, int]
    """How many of them name an object of each class."""


class Carriers:
    """Which carriers there are. Any thread may call anything."""

    def __init__(self) -> None:
        self._epoll: dict[None, select.epoll] = {}
        self._by_identity: dict[tuple[int, int], Carrier] = {}
        self._by_end: dict[int, Carrier] = {}
        self._sockets = 0
        """The device that all sockets are on."""

    def export(self, content: object, abandoned: Callable[[], None] | None = None) -> tuple[int, Carrier]:
        """Open a file that names ``content``: its descriptor, which the caller closes, and our end of it.

        Raises:
            TooManyFiles: out of descriptors; nothing was changed.
        """
        self.collect()
        with _running_out():
            return self._export(content, abandoned)

    def _export(self, content: object, abandoned: Callable[[], None] | None) -> tuple[int, Carrier]:
        epoll = self._polled()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.shutdown(socket.SHUT_RD)  # a descriptor sent to us would be kept, the file's own, too, for ever
        number, end = theirs.detach(), Descriptor(ours.detach())
        try:
            carrier = Carrier(end, _identity(number), content, abandoned)
            epoll.register(end.number, 0)
        except OSError:
            os.close(number)
            raise
        self._sockets = carrier.identity[0]
        self._by_end[end.number] = carrier
        self._by_identity[carrier.identity] = carrier
        return number, carrier

    def _polled(self) -> select.epoll:
        return self._epoll.get(None) or self._epoll.setdefault(None, select.epoll())

    def fileno(self) -> int:
        """A descriptor that polls as readable from when a file was closed by all until ``collect``.

        Raises:
            TooManyFiles: out of descriptors.
        """
        with _running_out():
            return self._polled().fileno()

    def content(self, inode: int) -> object | None:
        """What the socket with this number names, while some process has it open; None: none of ours."""
        carrier = self._by_identity.get((self._sockets, inode))
        return None if carrier is None or carrier.closed() else carrier.content

    def find(self, number: int) -> object | None:
        """What the file ``number`` names; None if it is no open file, or none of ours."""
        self.collect()
        try:
            carrier = self._by_identity.get(_identity(number))
        except (OSError, OverflowError):
            return None
        # If it was closed meanwhile, another file may have got its inode.
        return None if carrier is None or carrier.closed() else carrier.content

    def contents(self) -> tuple[object, ...]:
        """What the files that are open name, the oldest file first: who fails to close his is found by it."""
        self.collect()
        return tuple(carrier.content for carrier in list(self._by_identity.values()))

    def collect(self) -> None:
        """Let go of what nobody has open any more. Cost: O(files closed since the last time)."""
        epoll = self._epoll.get(None)
        for end, _events in epoll.poll(0) if epoll is not None else ():
            carrier = self._by_end.get(end)
            # Another thread may have collected it and a new carrier may have got its number: look again.
            if carrier is not None and carrier.closed():
                self._drop(end, carrier)

    def _drop(self, end: int, carrier: Carrier) -> None:
        if self._by_end.pop(end, None) is None:
            return  # another thread was faster
        if self._by_identity.get(carrier.identity) is carrier:
            del self._by_identity[carrier.identity]
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

    def check(self) -> None:
        """Verify that each carrier is found both ways. Call it while no thread is inside one of its calls.

        Raises:
            CheckFailed: with the state.
        """
        by_end = {carrier.identity: end for end, carrier in self._by_end.items()}
        by_identity = {identity: carrier.number for identity, carrier in self._by_identity.items()}
        if by_end != by_identity or len(by_end) != len(self._by_end):
            raise CheckFailed(f"carriers by our end: {by_end}; by identity: {by_identity}")

    def statistics(self) -> CarriersStatistics:
        """How many files are open, and what they name."""
        named = Counter(type(content).__name__ for content in self.contents())
        return CarriersStatistics(named.total(), dict(named))


carriers = Carriers()
atexit.register(carriers.close)
os.register_at_fork(after_in_child=carriers.after_fork)


def _identity(number: int) -> tuple[int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino
