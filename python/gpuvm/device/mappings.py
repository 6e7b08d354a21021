"""Mappings: what processes below this one have mapped of a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

_ENDED: Final = (FileNotFoundError, ProcessLookupError)
"""A process or thread. What it had mapped is not any more, and its children are another's."""


class Mappings:
    """Calling it tells which ranges of a file are mapped, by any process below this one.

    A process that was started, or has mapped something, after that was asked for is not seen, but what it
    inherited is.

    Locking: none. Cost: some 5 us a thread, and 1 us a mapping, of all these processes.

    Args:
        fd: of the file.

    Source: ``/proc/PID/maps`` of ``proc_pid_maps(5)``.
    """

    __slots__ = ("_line",)

    def __init__(self, fd: int) -> None:
        file = os.fstat(fd)
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
        self._line: Final = re.compile(
            rf"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) {device} {file.st_ino} ".encode(), re.MULTILINE
        )

    def __call__(self) -> list[tuple[int, int]]:
        """As (offset, end), in order and apart from each other; everything, where it cannot be found out."""
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        try:
            # Who is started meanwhile inherits what another unmaps before that is looked at.
            while new := [pid for pid in descendants(os.getpid()) if pid not in seen]:
                seen.update(new)
                for pid in new:
                    found += self._of(pid)
        except OSError:  # a process is hidden from us, or there is no descriptor
            return [(0, 1 << 63)]
        return _united(found)

    def _of(self, pid: int) -> Iterator[tuple[int, int]]:
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                maps = file.read()
        except _ENDED:
            return
        for start, end, offset in self._line.findall(maps):
            at = int(offset, 16)
            yield at, at + int(end, 16) - int(start, 16)


def _united(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes, no range touching another."""
    united: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if united and start <= united[-1][1]:
            united[-1] = united[-1][0], max(end, united[-1][1])
        else:
            united.append((start, end))
    return united


def descendants(pid: int) -> Iterator[int]:
    """Processes below ``pid``, parents first; those too that have ended and were not waited for.

    Source: ``/proc/PID/task/TID/children`` of ``proc_tid_children(5)``.
    """
    left = _children(pid)
    while left:
        child = left.pop()
        yield child
        left += _children(child)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(*_ENDED):
        for tid in os.listdir(f"/proc/{pid}/task"):
            with suppress(*_ENDED), open(f"/proc/{pid}/task/{tid}/children", "rb") as file:
                children += map(int, file.read().split())
    return children
