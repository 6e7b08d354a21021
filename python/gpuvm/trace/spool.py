"""Spool: memory through which a recorder hands frames to the process that writes the trace.

It is a ring of bytes in a file without a name. One side appends frames, the other takes them out, and nothing
but numbers in the memory itself says how far each has come. So what was appended is there for the reader
whatever becomes of who appended it, and appending makes no system call.
"""

from __future__ import annotations

import marshal
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from gpuvm._core import RawSpool
from gpuvm.errors import CheckFailed, OutOfMemory
from gpuvm.sync import task

CAPACITY: Final = 1 << 25
"""Bytes that are shared. What waits beyond that waits in the appending process."""
BEYOND: Final = 1 << 24
"""So much may wait there before calls are held up."""

_HEADER: Final = 4096
_APPENDED, _TAKEN, _ENDED, _BROKEN = range(4)
"""Words of the header: bytes that were ever appended and taken; one side has ended in order, the other cannot
go on."""
_LENGTH: Final = struct.Struct("<I")
_AT_ONCE: Final = 1 << 20
"""Bytes that are taken, and then gone through."""
_PAUSE: Final = 1_000_000
"""ns for which somebody sleeps who is held up."""


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """A snapshot of a spool."""

    appended: int
    """Bytes that were ever shared."""
    waiting: int
    """Bytes that nobody took."""
    waits: int
    """How often a call was held up."""


class Spool(RawSpool):
    """The side that appends.

    - ``place()``: the next of all that is told
    - ``tell(*fields)``, ``tell_at(place, *fields)``: append a frame: the place, and numbers, strings, None,
      tuples of these, and a ``Copied``. False: somebody should call ``make_room`` soon

    Locking: any thread, whatever it holds, in finalizers and fence-signalling sections too; ``make_room`` may
    sleep. Cost: some 0.3 us a frame.

    Args:
        is_read: whether there is still a reader.
        capacity: bytes, a power of two of at least a page.

    Attributes:
        fd: for the reader.
        broken: nobody reads any more; what is appended is dropped.

    Raises:
        OutOfMemory: the process has no descriptors or no addresses left, or may not make so large a file.
    """

    def __new__(cls, is_read: Callable[[], bool], capacity: int = CAPACITY) -> Self:
        """As the class says."""
        try:
            fd = os.memfd_create("gpuvm spool", os.MFD_CLOEXEC)
            os.ftruncate(fd, _HEADER + capacity)
            shared = mmap.mmap(fd, _HEADER + capacity)
        except OSError as error:
            raise OutOfMemory(
                f"recording: no memory of {capacity:#x} bytes to be shared: {error.strerror}; look at "
                "`ulimit -n` (open files), `ulimit -v` (memory) and `ulimit -f` (size of files)"
            ) from error
        made = super().__new__(cls, shared)
        made.fd = fd
        made._header = memoryview(shared)[:_HEADER].cast("Q")
        return made

    fd: int
    _header: memoryview

    def __init__(self, is_read: Callable[[], bool], capacity: int = CAPACITY) -> None:
        self._is_read: Final = is_read
        self._capacity: Final = capacity
        self._waits = 0
        self.broken = False

    def make_room(self) -> None:
        """See whether there is a reader, and sleep while too much waits for it."""
        while not self.broken:
            if self._header[_BROKEN] or not self._is_read():
                self.abandon()
            if self.flush() <= BEYOND:
                return
            self._waits += 1
            task.Waiter().wait(task.now() + _PAUSE)

    def end(self) -> None:
        """Nothing more comes, and that is in order. Locking: nobody appends."""
        while self.flush() and not self.broken:
            task.Waiter().wait(task.now() + _PAUSE)
            self.make_room()
        self._header[_ENDED] = 1

    def abandon(self) -> None:
        """Drop what waits, and all that comes: it is for nobody."""
        self.broken = True
        super().close()

    def close(self) -> None:
        """Let go of the memory. Locking: nobody appends."""
        super().close()
        self._header.release()
        os.close(self.fd)

    def check(self) -> None:
        """Verify the counts.

        Raises:
            CheckFailed: with the state.
        """
        appended, taken = self._header[_APPENDED], self._header[_TAKEN]
        if not 0 <= appended - taken <= self._capacity:
            raise CheckFailed(f"spool of {self._capacity:#x}: {appended} appended, {taken} taken")

    def statistics(self) -> SpoolStatistics:
        """Counts, of now."""
        return SpoolStatistics(*self.counts(), self._waits)


class SpoolReader:
    """The other side. Locking: one thread.

    Args:
        fd: of the spool; it is closed.
    """

    def __init__(self, fd: int) -> None:
        self._map: Final = mmap.mmap(fd, 0)
        os.close(fd)
        self._header: Final = memoryview(self._map)[:_HEADER].cast("Q")
        self._capacity: Final = len(self._map) - _HEADER
        self._taken = 0
        self._part = bytearray()
        """Of a frame that is not whole."""

    @property
    def ended(self) -> bool:
        """Whether the other side has ended in order."""
        return bool(self._header[_ENDED])

    def give_up(self) -> None:
        """Tell the other side that nothing will be read any more."""
        self._header[_BROKEN] = 1

    def frames(self) -> Iterator[tuple[Any, ...]]:
        """What was appended since the last time."""
        end = self._header[_APPENDED]
        while self._taken < end:
            at = self._taken & (self._capacity - 1)
            size = min(end - self._taken, self._capacity - at, _AT_ONCE)
            self._part += self._map[_HEADER + at : _HEADER + at + size]
            self._taken += size
            self._header[_TAKEN] = self._taken
            yield from self._whole()

    def _whole(self) -> Iterator[tuple[Any, ...]]:
        part, at = self._part, 0
        while len(part) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(part, at)
            if len(part) - at - _LENGTH.size < length:
                break
            at += _LENGTH.size
            yield marshal.loads(memoryview(part)[at : at + length])
            at += length
        del part[:at]
