"""Ioctls: whose a descriptor is, and the door that an ioctl on it goes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gpuvm.device.node import OpenNode, Opens
from gpuvm.device.notify import CONTINUE
from gpuvm.device.process import caller_of
from gpuvm.errors import UnknownCall
from gpuvm.nouveau import Client
from gpuvm.nouveau.uapi import Caller
from gpuvm.nouveau.uapi.file_calls import file_ioctl

if TYPE_CHECKING:
    from gpuvm.device.notify import Listener, Notification

Door = Callable[[Client, int, int, int, Caller], int]
"""Makes a call of a client: by which descriptor, request, argument, caller; its result or minus an errno."""

Unknown = Callable[[int, int, int, Caller], None]
"""Descriptor, request, argument, who."""


def _nothing(_fd: int, _request: int, _arg: int, _caller: Caller) -> None:
    pass


class Ioctls:
    """Handles the system call ``ioctl``.

    Locking: any thread, nothing held; it blocks as long as the call does.

    Args:
        opens: whose nodes.
        listener: of the calls.
        door: for calls on a node.
        unknown: is told of calls on other files of ours that those do not have.
    """

    def __init__(self, opens: Opens, listener: Listener, door: Door, unknown: Unknown = _nothing) -> None:
        self._opens: Final = opens
        self._listener: Final = listener
        self._door: Final = door
        self._unknown: Final = unknown

    def __call__(self, call: Notification) -> int:
        """The answer, or CONTINUE if the descriptor is not of ours."""
        fd = call.args[0] & 0xFFFFFFFF
        found = self._opens.find(call.pid, fd)
        if found is None:
            return CONTINUE
        request = call.args[1] & 0xFFFFFFFF
        caller = caller_of(self._listener, call)
        if isinstance(found, OpenNode):
            return self._door(found.client, fd, request, call.args[2], caller)
        try:
            return file_ioctl(found, request, call.args[2], caller)
        except UnknownCall:
            self._unknown(fd, request, call.args[2], caller)
            raise
