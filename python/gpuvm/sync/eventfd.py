"""Telling an eventfd that a fence is signalled."""

from __future__ import annotations

import os
import select

from gpuvm.errors import InvalidArgument
from gpuvm.sync.descriptor import duplicate
from gpuvm.sync.fence import Fence


class EventFd:
    """An eventfd that we may add to, however long its owner keeps it open.

    Raises:
        BadFile: ``number`` is no open file descriptor.
        InvalidArgument: it is no eventfd.

    Source: ``eventfd_ctx_fdget``, ``eventfd_signal``.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, number: int) -> None:
        self._descriptor = duplicate(number)
        kind = os.readlink(f"/proc/self/fd/{self._descriptor.number}")
        if kind != "anon_inode:[eventfd]":
            raise InvalidArgument(f"eventfd: file descriptor {number} is {kind}, not an eventfd", number)

    def signal(self, _fence: Fence | None = None) -> None:
        """Add 1 to it, or leave it if it is full.

        The kernel does this in one step. We look first, so it sleeps if somebody fills the counter between
        the two, until its owner reads it. To forbid that is not ours: the owner's reads share the file's
        ``O_NONBLOCK``.
        """
        number = self._descriptor.number
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        if poll.poll(0):
            os.eventfd_write(number, 1)
