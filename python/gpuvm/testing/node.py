"""Node: the virtual device's node for Python code, in this process."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from gpuvm.errors import BadFile, CheckFailed, InvalidArgument, NotFound
from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.uapi import Caller
from gpuvm.nouveau.uapi.file_calls import file_ioctl
from gpuvm.sync import lockdep
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.sw_sync import SwSync

if TYPE_CHECKING:
    from gpuvm.trace.recording import Recording

Make = Callable[[Client, int, int, Caller], int]
"""Makes a call."""

NODES: Final = ("/dev/dri/renderD128", "/dev/dri/card0")
SW_SYNC: Final = "/sys/kernel/debug/sync/sw_sync"


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """A snapshot of a node."""

    open: int
    """Descriptors of the node."""
    clients: int
    """Opens of it."""


class Node:
    """A device, and its node's file: the calls that a program makes on it, made by this process.

    It is what ``gpuvm run`` gives to programs, without a second process: ``open``, ``dup``, ``ioctl`` and
    ``close`` are methods. Descriptors are real, so ``mmap.mmap`` maps objects at their map handles, and
    ``select`` polls. Those of sync files, sync objects and DMA buffers are closed by ``os.close``.

    ``with Node() as node:`` closes all at the end.

    Locking: any thread. A call blocks who makes it.

    Args:
        recording: has the calls, and what they lead to.
        options: of ``Device``.

    Attributes:
        device: to look at.

    Raises:
        GpuvmError: as ``Device``.
    """

    def __init__(self, recording: Recording | None = None, **options: Any) -> None:
        recorder = None if recording is None else recording.recorder
        self._make: Final[Make] = Client.drm_ioctl if recorder is None else recorder.make
        self.device: Final = Device(watcher=recorder, **options)
        self._clients: Final[dict[int, Client]] = {}
        """By descriptor; one may have several."""
        self._mutex: Final = Mutex("node", lockdep.lock_class("testing.node"))
        """Over which descriptor has which client."""

    def open(self, path: str = NODES[0], flags: int = os.O_RDWR) -> int:
        """A new open of one of the paths that there are; its descriptor.

        Raises:
            NotFound: another path.
            GpuvmError: as ``Device.open``.
            OSError: out of descriptors.
        """
        if path == SW_SYNC:
            timeline = SwSync(f"process {os.getpid()}")
            return carriers.export(timeline, timeline.close)[0]
        if path not in NODES:
            raise NotFound(f"open: {path!r}; there are {', '.join((*NODES, SW_SYNC))}", path)
        client = self.device.open(name=f"process {os.getpid()}")
        try:
            objects = f"/proc/self/fd/{self.device.mem.object_file.fd}"
            fd = os.open(objects, flags & os.O_ACCMODE | os.O_CLOEXEC)
        except BaseException:
            client.close()
            raise
        self._clients[fd] = client
        return fd

    def dup(self, fd: int) -> int:
        """One more descriptor of the same open.

        Raises:
            BadFile: ``fd`` is none of the node.
            OSError: out of descriptors.
        """
        with self._mutex:
            client = self._client("dup", fd)
            copy = os.dup(fd)
            self._clients[copy] = client
        return copy

    def ioctl(self, fd: int, request: int, arg: int | bytearray | array[Any] | ctypes.Structure = 0) -> int:
        """As ``ioctl(2)``: 0, or what the call answers.

        Args:
            fd: of the node, or one that names an object of ours.
            request: with size and direction.
            arg: where the structure is, as an address, or the structure, which the answer is written into.

        Raises:
            BadFile: it is neither.
            InvalidArgument: the structure is shorter than the request says.
            OSError: the call was refused; its message says why.
        """
        if not isinstance(arg, int):
            there, size = memoryview(arg).nbytes, request >> 16 & 0x3FFF
            if there < size:
                raise InvalidArgument(
                    f"ioctl: {there} bytes for a structure that request {request:#x} gives {size}; pass all",
                    there,
                    size,
                )
            pinned = (ctypes.c_char * there).from_buffer(arg)
            return self.ioctl(fd, request, ctypes.addressof(pinned))
        client = self._clients.get(fd)
        if client is None:
            return self._file_ioctl(fd, request, arg)
        result = self._make(client, request, arg, Caller.own())
        if result < 0:
            raise OSError(-result, client.last_error)
        return result

    def _file_ioctl(self, fd: int, request: int, arg: int) -> int:
        content = carriers.find(fd)
        if content is None:
            raise BadFile(f"ioctl: descriptor {fd} is neither of the node nor of an object of ours", fd)
        return file_ioctl(content, request, arg, Caller.own())

    def close(self, fd: int) -> None:
        """Close a descriptor of the node. With the last one of an open goes all that its client has.

        Mappings keep their bytes no longer than that, unlike those of a program under ``gpuvm run``.

        Raises:
            BadFile: ``fd`` is none of the node.
            GpuvmError: as ``Client.close``.
        """
        with self._mutex:
            client = self._client("close", fd)
            del self._clients[fd]
            last = client not in self._clients.values()
        os.close(fd)
        if last:
            client.close()

    def _client(self, call: str, fd: int) -> Client:
        client = self._clients.get(fd)
        if client is None:
            raise BadFile(f"{call}: descriptor {fd} is none of this node", fd)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in [*self._clients]:
            self.close(fd)
        self.device.__exit__(kind, error, trace)

    # -- itself

    def check(self) -> None:
        """Verify the device, and that its clients are those who have it open. No call may be under way.

        Raises:
            CheckFailed: with the state.
        """
        if {*self.device.clients} != {*self._clients.values()}:
            raise CheckFailed(f"{self!r}: open are {self._clients}, clients are {self.device.clients}")
        self.device.check()

    def statistics(self) -> NodeStatistics:
        """Counts, of now."""
        clients = [*self._clients.values()]
        return NodeStatistics(len(clients), len({*clients}))

    def __repr__(self) -> str:
        return f"<Node of {self.device!r}>"
