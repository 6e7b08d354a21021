"""Calls on files that name objects of ours: sync files, ``sw_sync`` timelines, DMA buffers.

Their structures are copied as those of the other calls. Here a request counts as a whole, size and direction
too; one that is not known is ENOTTY.

Source: ``linux/sync_file.h``, ``linux/dma-buf.h``; for ``sw_sync`` ``drivers/dma-buf/sw_sync.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gpuvm.errors import InvalidArgument, NotFound, UnknownCall
from gpuvm.mem.dma_buf import DmaBuf
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.sync.container import merge, unwrap
from gpuvm.sync.fence import Fence, stub_fence
from gpuvm.sync.resv import Usage
from gpuvm.sync.sw_sync import SwSync
from gpuvm.sync.sync_file import SyncFile, export_sync_file, find_sync_file

NAME_SIZE: Final = 32
"""Bytes of the longest name, its zero included."""

SYNC_MERGE: Final = Layout("sync_merge_data", "char name[32]; s32 fd2, fence; u32 flags, pad")
SYNC_FILE_INFO: Final = Layout(
    "sync_file_info", "char name[32]; s32 status; u32 flags, num_fences, pad; u64 sync_fence_info"
)
SYNC_FENCE_INFO: Final = Layout(
    "sync_fence_info", "char obj_name[32], driver_name[32]; s32 status; u32 flags; u64 timestamp_ns"
)
SYNC_SET_DEADLINE: Final = Layout("sync_set_deadline", "u64 deadline_ns, pad")
SW_SYNC_CREATE_FENCE: Final = Layout("sw_sync_create_fence_data", "u32 value; char name[32]; s32 fence")
SW_SYNC_INC: Final = Layout("u32", "u32 value")
SW_SYNC_GET_DEADLINE: Final = Layout("sw_sync_get_deadline", "u64 deadline_ns; u32 pad; s32 fence_fd")
DMA_BUF_SYNC: Final = Layout("dma_buf_sync", "u64 flags")
DMA_BUF_SYNC_FILE: Final = Layout("dma_buf_export_sync_file", "u32 flags; s32 fd")

DMA_BUF_READ: Final = 1
DMA_BUF_WRITE: Final = 2
DMA_BUF_END: Final = 4
"""The CPU's access ends; else it begins."""
_ACCESS: Final = DMA_BUF_READ | DMA_BUF_WRITE

Body = Callable[[Any, bytearray, int, Caller], None]
"""What a call does: its object, its structure, which it changes, where that is, who calls."""


class FileCall(NamedTuple):
    """One call."""

    name: str
    request: int
    layout: Layout | None
    """None: the argument is no structure."""
    body: Body

    @property
    def answers(self) -> bool:
        """Whether the structure is written back."""
        return bool(self.request >> 31)


def file_ioctl(content: object, request: int, arg: int, caller: Caller) -> int:
    """Carry out an ioctl on a file that names ``content``: 0.

    Locking: as ``DmaBuf.resv``, for those; nothing held.

    Args:
        content: as ``Carriers.find`` gives it.
        request, arg: as a program passes them to ``ioctl(2)``.

    Raises:
        UnknownCall: such a file has no such call.
        BadAddress: the structure cannot be read or written.
        GpuvmError: as the call says.
    """
    call = CALLS.get(type(content), {}).get(request)
    if call is None:
        raise UnknownCall(f"ioctl {request:#x}: {content!r} has no such call")
    size = 0 if call.layout is None else call.layout.size
    data = caller.memory.read(arg, size)
    call.body(content, data, arg, caller)
    if call.answers:
        caller.memory.write(arg, data)
    return 0


def _install(fd: Callable[[], int], data: bytearray, arg: int, caller: Caller) -> int:
    """Give the caller a descriptor, if he can be told its number: he would have it for ever."""
    caller.memory.write(arg, data)
    return caller.files.install(fd(), cloexec=True)


# -- sync files


def _merge(file: SyncFile, data: bytearray, arg: int, caller: Caller) -> None:
    """``sync_file_ioctl_merge``."""
    name, fd, _, flags, pad = SYNC_MERGE.unpack(data)
    if flags or pad:
        raise InvalidArgument(f"SYNC_IOC_MERGE: flags {flags:#x}, pad {pad:#x}; both must be 0", flags, 0)
    other = find_sync_file(caller.files.fget(fd))
    if other is None:
        raise NotFound(f"SYNC_IOC_MERGE: file descriptor {fd} is no sync file", fd)
    fence = merge(file.fence, other.fence)
    called = _text(name)
    SYNC_MERGE.put(data, fence=_install(lambda: export_sync_file(fence, called), data, arg, caller))


def _file_info(file: SyncFile, data: bytearray, arg: int, caller: Caller) -> None:
    """``sync_file_ioctl_fence_info``."""
    _, _, flags, room, pad, pointer = SYNC_FILE_INFO.unpack(data)
    if flags or pad:
        raise InvalidArgument(f"SYNC_IOC_FILE_INFO: flags {flags:#x}, pad {pad:#x}; both must be 0", flags, 0)
    fences = file.fences
    status = file.fence.status
    if room:
        if room < len(fences):
            raise InvalidArgument(
                f"SYNC_IOC_FILE_INFO: room for {room} fences, and there are {len(fences)}", room, len(fences)
            )
        infos = bytearray()
        status = 1
        for fence in fences:
            its, info = _fence_info(fence)
            infos += info
            status = its if status > 0 else status
        caller.memory.write(pointer, infos)
    SYNC_FILE_INFO.put(data, name=_name(file.name), status=status, num_fences=len(fences))


def _fence_info(fence: Fence) -> tuple[int, bytearray]:
    status = fence.status
    info = bytearray(SYNC_FENCE_INFO.size)
    SYNC_FENCE_INFO.pack_into(
        info, 0, _name(fence.timeline), _name(fence.driver), status, 0, fence.timestamp or 0
    )
    return status, info


def _set_deadline(file: SyncFile, data: bytearray, arg: int, caller: Caller) -> None:
    deadline, pad = SYNC_SET_DEADLINE.unpack(data)
    if pad:
        raise InvalidArgument(f"SYNC_IOC_SET_DEADLINE: pad {pad:#x}; it must be 0", pad, 0)
    file.fence.set_deadline(deadline)


# -- sw_sync


def _create_fence(timeline: SwSync, data: bytearray, arg: int, caller: Caller) -> None:
    """The name in the structure is nobody's (``sw_sync_ioctl_create_fence``)."""
    value, _, _ = SW_SYNC_CREATE_FENCE.unpack(data)
    fence = timeline.create_fence(value)
    SW_SYNC_CREATE_FENCE.put(data, fence=_install(lambda: export_sync_file(fence), data, arg, caller))


def _inc(timeline: SwSync, data: bytearray, arg: int, caller: Caller) -> None:
    timeline.increase(*SW_SYNC_INC.unpack(data))


def _get_deadline(timeline: SwSync, data: bytearray, arg: int, caller: Caller) -> None:
    """``sw_sync_ioctl_get_deadline``."""
    deadline, pad, fd = SW_SYNC_GET_DEADLINE.unpack(data)
    if deadline or pad:
        raise InvalidArgument(f"SW_SYNC_GET_DEADLINE: {deadline}, pad {pad:#x}; both must be 0", deadline, 0)
    file = find_sync_file(caller.files.fget(fd))
    if file is None or file.fence.driver != "sw_sync":
        raise InvalidArgument(f"SW_SYNC_GET_DEADLINE: file descriptor {fd} is no fence of sw_sync", fd)
    asked = file.fence.deadline
    if asked is None:
        raise NotFound(f"SW_SYNC_GET_DEADLINE: nobody set a deadline for {file.fence!r}", fd)
    SW_SYNC_GET_DEADLINE.put(data, deadline_ns=asked)


# -- DMA buffers


def _sync(dma_buf: DmaBuf, data: bytearray, arg: int, caller: Caller) -> None:
    """Before the CPU's access, wait for those of engines; after it there is nothing to flush."""
    (flags,) = DMA_BUF_SYNC.unpack(data)
    if flags & ~(_ACCESS | DMA_BUF_END) or not flags & _ACCESS:
        raise InvalidArgument(
            f"DMA_BUF_IOCTL_SYNC: flags {flags:#x}; pass 1, 2 or 3, and 4 at the end", flags, 7
        )
    if not flags & DMA_BUF_END:
        dma_buf.resv.wait(Usage.rw(bool(flags & DMA_BUF_WRITE)), interruptible=True)


def _set_name(dma_buf: DmaBuf, data: bytearray, arg: int, caller: Caller) -> None:
    """``dma_buf_set_name``."""
    text = bytearray()
    while b"\0" not in text:
        if len(text) >= NAME_SIZE:
            raise InvalidArgument(f"DMA_BUF_SET_NAME: longer than {NAME_SIZE - 1} bytes", bytes(text))
        text += caller.memory.read(arg + len(text), 1)


def _export_sync_file(dma_buf: DmaBuf, data: bytearray, arg: int, caller: Caller) -> None:
    """Of what is to be waited for before such an access (``dma_buf_export_sync_file``)."""
    flags = _access("EXPORT", data)
    fence = dma_buf.resv.singleton(Usage.rw(bool(flags & DMA_BUF_WRITE))) or stub_fence()
    DMA_BUF_SYNC_FILE.put(data, fd=_install(lambda: export_sync_file(fence), data, arg, caller))


def _import_sync_file(dma_buf: DmaBuf, data: bytearray, arg: int, caller: Caller) -> None:
    """Such an access is under way until the fence is signalled (``dma_buf_import_sync_file``)."""
    flags = _access("IMPORT", data)
    _, fd = DMA_BUF_SYNC_FILE.unpack(data)
    file = find_sync_file(caller.files.fget(fd))
    if file is None:
        raise InvalidArgument(f"DMA_BUF_IOCTL_IMPORT_SYNC_FILE: file descriptor {fd} is no sync file", fd)
    usage = Usage.WRITE if flags & DMA_BUF_WRITE else Usage.READ
    fences = [*unwrap(file.fence)]
    with dma_buf.resv:
        dma_buf.resv.reserve_fences(len(fences))
        for fence in fences:
            dma_buf.resv.add_fence(fence, usage)


def _access(which: str, data: bytearray) -> int:
    flags, _ = DMA_BUF_SYNC_FILE.unpack(data)
    if flags & ~_ACCESS or not flags:
        raise InvalidArgument(f"DMA_BUF_IOCTL_{which}_SYNC_FILE: flags {flags:#x}; pass 1, 2 or 3", flags, 3)
    return int(flags)


# -- names


def _name(text: str) -> bytes:
    """As the kernel cuts it: with a zero at the end."""
    return text.encode()[: NAME_SIZE - 1]


def _text(name: bytes) -> str:
    return name[: NAME_SIZE - 1].split(b"\0")[0].decode(errors="replace")


# -- the table


def _call(name: str, direction: int, type_: str, number: int, layout: Layout, body: Body) -> FileCall:
    return FileCall(name, direction << 30 | layout.size << 16 | ord(type_) << 8 | number, layout, body)


_IN: Final = 1
_BOTH: Final = 3

_SYNC_FILE_CALLS: Final = (
    _call("SYNC_IOC_MERGE", _BOTH, ">", 3, SYNC_MERGE, _merge),
    _call("SYNC_IOC_FILE_INFO", _BOTH, ">", 4, SYNC_FILE_INFO, _file_info),
    _call("SYNC_IOC_SET_DEADLINE", _IN, ">", 5, SYNC_SET_DEADLINE, _set_deadline),
)
_SW_SYNC_CALLS: Final = (
    _call("SW_SYNC_IOC_CREATE_FENCE", _BOTH, "W", 0, SW_SYNC_CREATE_FENCE, _create_fence),
    _call("SW_SYNC_IOC_INC", _IN, "W", 1, SW_SYNC_INC, _inc),
    _call("SW_SYNC_GET_DEADLINE", _BOTH, "W", 2, SW_SYNC_GET_DEADLINE, _get_deadline),
)
_DMA_BUF_CALLS: Final = (
    _call("DMA_BUF_IOCTL_SYNC", _IN, "b", 0, DMA_BUF_SYNC, _sync),
    FileCall("DMA_BUF_SET_NAME_A", 0x40046201, None, _set_name),
    FileCall("DMA_BUF_SET_NAME_B", 0x40086201, None, _set_name),
    _call("DMA_BUF_IOCTL_EXPORT_SYNC_FILE", _BOTH, "b", 2, DMA_BUF_SYNC_FILE, _export_sync_file),
    _call("DMA_BUF_IOCTL_IMPORT_SYNC_FILE", _IN, "b", 3, DMA_BUF_SYNC_FILE, _import_sync_file),
)
CALLS: Final[Mapping[type, Mapping[int, FileCall]]] = {
    kind: {call.request: call for call in calls}
    for kind, calls in ((SyncFile, _SYNC_FILE_CALLS), (SwSync, _SW_SYNC_CALLS), (DmaBuf, _DMA_BUF_CALLS))
}
"""By what a file names, and the request."""
