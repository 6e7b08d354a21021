"""How the calls of the uAPI are told in a trace: records, made of what was copied for each call."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gpuvm.nouveau.uapi import numbers, structs
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE
from gpuvm.trace import recorded
from gpuvm.trace.jsonl import Head
from gpuvm.trace.recorded import BindOp, Other, Push, Record, Sync, Untold

Copies = list["int | bytes"]
"""Addresses, each followed by the bytes that were copied from there, or to there."""


class Made(NamedTuple):
    """One call that was carried out."""

    size: int
    """Of its structure, as the caller has it."""
    arg: int
    """Where that was."""
    reads: Copies
    writes: Copies
    file: int | None
    """A number for the file that was passed; None: there was none, or it was not open."""


class _Call:
    """The same, looked at."""

    def __init__(self, head: Head, name: str, size: int, made: Made) -> None:
        self.head: Final = head
        self.name: Final = name
        self.file: Final = _NO_FILE if made.file is None else made.file
        self.ok: Final = head[-1] == 0
        self._reads: Final = _longest(made.reads)
        self._writes: Final = dict(zip(made.writes[::2], made.writes[1::2], strict=True))
        before = self._read(made.arg, min(made.size, size)) or b""
        after = self.answered(made.arg) or b""
        self.before: Final = before.ljust(size, b"\0")
        """Its structure, as the driver read it, zeros up to today's size."""
        self.after: Final = after.ljust(size, b"\0")
        """As it was given back; zeros if the request says that nobody wants that."""

    def _read(self, addr: int, size: int) -> bytes | None:
        """The first ``size`` bytes that were read at ``addr``; None if they were not."""
        data = self._reads.get(addr, b"")
        return data[:size] if len(data) >= size else None

    def answered(self, addr: int) -> bytes | None:
        """What was written to ``addr`` last; None: nothing."""
        data = self._writes.get(addr)
        return data if isinstance(data, bytes) else None

    def array(self, layout: Layout, addr: int, count: int) -> list[tuple[Any, ...]]:
        """An array of structures; none if the driver had not got so far."""
        data = self._read(addr, count * layout.size)
        return [] if data is None else [*layout.iter_unpack(data)]

    def numbers(self, addr: int, count: int, format: str) -> tuple[int, ...] | None:
        """The same for an array of numbers, which is None then."""
        data = self._read(addr, count * struct.calcsize(format)) if addr or not count else None
        return None if data is None else struct.unpack(f"<{count}{format}", data)

    def untold(self, field: str) -> Untold:
        """Without the field that says what it was about."""
        return Untold(*self.head, self.name, field)


_NO_FILE: Final = -1


def _longest(copies: Copies) -> dict[int, bytes]:
    """What was copied by address; of what was copied several times, the first that is longest."""
    found: dict[int, bytes] = {}
    for addr, data in zip(copies[::2], copies[1::2], strict=True):
        assert isinstance(addr, int)
        assert isinstance(data, bytes)
        if len(found.get(addr, b"")) < len(data):
            found[addr] = data
    return found


_Tell = Callable[[_Call], Record]


def _vm_bind(call: _Call) -> Record:
    count, flags, waits, signals, wait_ptr, sig_ptr, op_ptr = structs.VM_BIND.unpack(call.before)
    ops = [
        BindOp(op, op_flags, handle, 0, addr, at, size)
        for op, op_flags, handle, addr, at, size in call.array(structs.VM_BIND_OP, op_ptr, count)
    ]
    syncs = _syncs(call, wait_ptr, waits), _syncs(call, sig_ptr, signals)
    return recorded.VmBind(*call.head, tuple(ops), flags, *syncs)


def _exec(call: _Call) -> Record:
    channel, count, waits, signals, wait_ptr, sig_ptr, push_ptr = structs.EXEC.unpack(call.before)
    pushes = tuple(Push(*push) for push in call.array(structs.EXEC_PUSH, push_ptr, count))
    syncs = _syncs(call, wait_ptr, waits), _syncs(call, sig_ptr, signals)
    return recorded.Submission(*call.head, pushes, channel, *syncs)


def _syncs(call: _Call, addr: int, count: int) -> tuple[Sync, ...]:
    return tuple(Sync(*sync) for sync in call.array(structs.SYNC, addr, count))


def _vm_init(call: _Call) -> Record:
    return recorded.VmInit(*call.head, *structs.VM_INIT.unpack(call.before))


def _gem_new(call: _Call) -> Record:
    _, domain, size, _, _, tile_mode, tile_flags, _, align = structs.GEM_NEW.unpack(call.before)
    handle = structs.GEM_INFO.unpack(call.after)[0] if call.ok else 0
    return recorded.GemNew(*call.head, handle, size, domain, align, tile_mode, tile_flags)


def _gem_info(call: _Call) -> Record:
    size = structs.GEM_INFO.unpack(call.after)[2] if call.ok else None
    return recorded.GemInfo(*call.head, call.name, structs.GEM_INFO.unpack(call.before)[0], size)


def _gem_close(call: _Call) -> Record:
    return recorded.GemClose(*call.head, structs.GEM_CLOSE.unpack(call.before)[0])


def _prime_export(call: _Call) -> Record:
    handle, flags, _ = structs.PRIME_HANDLE.unpack(call.before)
    return recorded.GemExport(*call.head, call.name, handle, flags, call.file if call.ok else None)


def _prime_import(call: _Call) -> Record:
    handle = structs.PRIME_HANDLE.unpack(call.after)[0] if call.ok else 0
    return recorded.GemImport(*call.head, call.name, handle, call.file)


def _channel_alloc(call: _Call) -> Record:
    channel = structs.CHANNEL_ALLOC.unpack(call.after)[2] if call.ok else None
    return recorded.ChannelAlloc(*call.head, call.name, channel)


def _channel_free(call: _Call) -> Record:
    return recorded.ChannelFree(*call.head, call.name, structs.CHANNEL_FREE.unpack(call.before)[0])


def _cpu_prep(call: _Call) -> Record:
    return recorded.CpuPrep(*call.head, call.name, *structs.GEM_CPU_PREP.unpack(call.before))


def _cpu_fini(call: _Call) -> Record:
    return recorded.CpuFini(*call.head, call.name, structs.GEM_CPU_FINI.unpack(call.before)[0])


def _getparam(call: _Call) -> Record:
    return recorded.GetParam(*call.head, call.name, *_asked(call, structs.GETPARAM))


def _get_cap(call: _Call) -> Record:
    return recorded.GetCap(*call.head, call.name, *_asked(call, structs.GET_CAP))


def _asked(call: _Call, layout: Layout) -> tuple[int, int | None]:
    """A number, and what the device or the driver says of it."""
    return layout.unpack(call.before)[0], layout.unpack(call.after)[1] if call.ok else None


def _syncobj_create(call: _Call) -> Record:
    _, flags = structs.SYNCOBJ_CREATE.unpack(call.before)
    handle = structs.SYNCOBJ_CREATE.unpack(call.after)[0] if call.ok else None
    return recorded.SyncobjCreate(*call.head, call.name, flags, handle)


def _syncobj_destroy(call: _Call) -> Record:
    return recorded.SyncobjDestroy(*call.head, call.name, structs.SYNCOBJ_DESTROY.unpack(call.before)[0])


def _syncobj_export(call: _Call) -> Record:
    handle, flags, _, _, point = structs.SYNCOBJ_HANDLE.unpack(call.before)
    file = call.file if call.ok else None
    return recorded.SyncobjExport(*call.head, call.name, handle, flags, point, file)


def _syncobj_import(call: _Call) -> Record:
    handle, flags, _, _, point = structs.SYNCOBJ_HANDLE.unpack(call.before)
    if call.ok and not flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
        handle = structs.SYNCOBJ_HANDLE.unpack(call.after)[0]
    return recorded.SyncobjImport(*call.head, call.name, call.file, flags, point, handle)


def _syncobj_wait(call: _Call) -> Record:
    addr, _, count, flags, *_ = structs.SYNCOBJ_WAIT.unpack(call.before)
    handles = call.numbers(addr, count, "I")
    if handles is None:
        return call.untold("handles")
    return recorded.SyncobjWait(*call.head, call.name, handles, flags)


def _syncobj_timeline_wait(call: _Call) -> Record:
    addr, points, _, count, flags, *_ = structs.SYNCOBJ_TIMELINE_WAIT.unpack(call.before)
    handles = call.numbers(addr, count, "I")
    if handles is None:
        return call.untold("handles")
    reached = (call.numbers(points, count, "Q") or ()) if points else ()
    return recorded.SyncobjTimelineWait(*call.head, call.name, handles, reached, flags)


def _syncobj_reset(call: _Call) -> Record:
    addr, count, _ = structs.SYNCOBJ_ARRAY.unpack(call.before)
    handles = call.numbers(addr, count, "I")
    return (
        call.untold("handles") if handles is None else recorded.SyncobjReset(*call.head, call.name, handles)
    )


def _syncobj_signal(call: _Call) -> Record:
    addr, count, _ = structs.SYNCOBJ_ARRAY.unpack(call.before)
    handles = call.numbers(addr, count, "I")
    return (
        call.untold("handles") if handles is None else recorded.SyncobjSignal(*call.head, call.name, handles)
    )


def _syncobj_timeline_signal(call: _Call) -> Record:
    addr, points, count, _ = structs.SYNCOBJ_TIMELINE_ARRAY.unpack(call.before)
    handles = call.numbers(addr, count, "I")
    if handles is None:
        return call.untold("handles")
    reached = (call.numbers(points, count, "Q") or ()) if points else ()
    return recorded.SyncobjTimelineSignal(*call.head, call.name, handles, reached)


def _syncobj_query(call: _Call) -> Record:
    addr, points, count, flags = structs.SYNCOBJ_TIMELINE_ARRAY.unpack(call.before)
    handles = call.numbers(addr, count, "I")
    if handles is None:
        return call.untold("handles")
    answer = call.answered(points) if call.ok else None
    reached = None if answer is None else struct.unpack(f"<{len(answer) // 8}Q", answer)
    return recorded.SyncobjQuery(*call.head, call.name, handles, flags, reached)


def _syncobj_transfer(call: _Call) -> Record:
    source, target, source_point, target_point, flags, _ = structs.SYNCOBJ_TRANSFER.unpack(call.before)
    return recorded.SyncobjTransfer(*call.head, call.name, source, target, source_point, target_point, flags)


def _syncobj_eventfd(call: _Call) -> Record:
    handle, flags, point, *_ = structs.SYNCOBJ_EVENTFD.unpack(call.before)
    return recorded.SyncobjEventfd(*call.head, call.name, handle, flags, point)


def _other(call: _Call) -> Record:
    return Other(*call.head, call.name)


_TELL: Final[Mapping[Ioctl, _Tell]] = {
    numbers.VERSION: _other,
    numbers.GET_CAP: _get_cap,
    numbers.AUTH_MAGIC: _other,
    numbers.GETPARAM: _getparam,
    numbers.NVIF: _other,  # what it asks is no structure of its own, and a replay does without
    numbers.CHANNEL_ALLOC: _channel_alloc,
    numbers.CHANNEL_FREE: _channel_free,
    numbers.VM_INIT: _vm_init,
    numbers.VM_BIND: _vm_bind,
    numbers.EXEC: _exec,
    numbers.GEM_NEW: _gem_new,
    numbers.GEM_INFO: _gem_info,
    numbers.GEM_CLOSE: _gem_close,
    numbers.GEM_CPU_PREP: _cpu_prep,
    numbers.GEM_CPU_FINI: _cpu_fini,
    numbers.GEM_PUSHBUF: _other,
    numbers.PRIME_HANDLE_TO_FD: _prime_export,
    numbers.PRIME_FD_TO_HANDLE: _prime_import,
    numbers.SYNCOBJ_CREATE: _syncobj_create,
    numbers.SYNCOBJ_DESTROY: _syncobj_destroy,
    numbers.SYNCOBJ_HANDLE_TO_FD: _syncobj_export,
    numbers.SYNCOBJ_FD_TO_HANDLE: _syncobj_import,
    numbers.SYNCOBJ_WAIT: _syncobj_wait,
    numbers.SYNCOBJ_RESET: _syncobj_reset,
    numbers.SYNCOBJ_SIGNAL: _syncobj_signal,
    numbers.SYNCOBJ_TIMELINE_WAIT: _syncobj_timeline_wait,
    numbers.SYNCOBJ_QUERY: _syncobj_query,
    numbers.SYNCOBJ_TRANSFER: _syncobj_transfer,
    numbers.SYNCOBJ_TIMELINE_SIGNAL: _syncobj_timeline_signal,
    numbers.SYNCOBJ_EVENTFD: _syncobj_eventfd,
}

_BY_NUMBER: Final = {
    ioctl.number: (ioctl.name.removeprefix("NOUVEAU_").lower(), ioctl.size, tell)
    for ioctl, tell in _TELL.items()
}


def record_of(number: int, head: Head, made: Made) -> Record:
    """The record of a call, by the number of its ioctl, which is one of ``TOLD``."""
    name, size, tell = _BY_NUMBER[number]
    return tell(_Call(head, name, size, made))


def map_handle_of(made: Made) -> int | None:
    """What a GEM_NEW answered; None: nothing."""
    layout, answer = structs.GEM_NEW, None
    for addr, data in zip(made.writes[::2], made.writes[1::2], strict=True):
        if addr == made.arg and isinstance(data, bytes):
            answer = data
    if answer is None:
        return None
    handle: int = layout.unpack(answer.ljust(layout.size, b"\0"))[4]
    return handle
