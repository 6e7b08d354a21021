"""How the calls of the uAPI are told in a trace: fields of their structures, and what these point to."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from gpuvm.nouveau.uapi import numbers, structs
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE, WAIT_FOR_SUBMIT
from gpuvm.trace.copied import Copied
from gpuvm.trace.recorded import OP_NAMES, SYNC_NAMES

Fields = dict[str, Any]

_OPS: Final = {number: name for name, number in OP_NAMES.items()}
_SYNCS: Final = {number: name for name, number in SYNC_NAMES.items()}


class Made(NamedTuple):
    """One call that was carried out."""

    before: bytes
    """Its structure, as the driver read it, zeros up to today's size."""
    after: bytes
    """As it was given back."""
    copied: Copied
    ok: bool


def _vm_bind(made: Made) -> Fields | None:
    count, flags, waits, signals, wait_ptr, sig_ptr, op_ptr = structs.VM_BIND.unpack(made.before)
    ops = _structs(made, structs.VM_BIND_OP, op_ptr, count)
    if any(op[0] not in _OPS for op in ops):
        return None
    told = [
        {"op": _OPS[op], "flags": op_flags, "handle": handle, "addr": addr, "bo_offset": at, "range": size}
        for op, op_flags, handle, addr, at, size in ops
    ]
    return {"flags": flags, **_waits(made, waits, wait_ptr, signals, sig_ptr), "ops": told}


def _exec(made: Made) -> Fields:
    channel, count, waits, signals, wait_ptr, sig_ptr, push_ptr = structs.EXEC.unpack(made.before)
    pushes = [
        {"va": va, "va_len": va_len, "flags": push_flags}
        for va, va_len, push_flags in _structs(made, structs.EXEC_PUSH, push_ptr, count)
    ]
    return {"channel": channel, **_waits(made, waits, wait_ptr, signals, sig_ptr), "pushes": pushes}


def _waits(made: Made, waits: int, wait_ptr: int, signals: int, sig_ptr: int) -> Fields:
    return {"waits": _sync_list(made, wait_ptr, waits), "signals": _sync_list(made, sig_ptr, signals)}


def _sync_list(made: Made, addr: int, count: int) -> list[Fields]:
    return [
        {"type": _SYNCS.get(flags, flags), "handle": handle, "value": value}
        for flags, handle, value in _structs(made, structs.SYNC, addr, count)
    ]


def _structs(made: Made, layout: Layout, addr: int, count: int) -> list[tuple[Any, ...]]:
    """An array as the driver copied it; none if it had not got so far."""
    data = made.copied.told(addr, count * layout.size)
    return [] if data is None else [*layout.iter_unpack(data)]


def _numbers(name: str, made: Made, addr: int, count: int, format: str) -> Fields:
    """The same for an array of numbers, which is left out then."""
    size = struct.calcsize(format)
    data = made.copied.told(addr, count * size) if addr or not count else None
    return {} if data is None else {name: [*struct.unpack(f"<{count}{format}", data)]}


def _vm_init(made: Made) -> Fields:
    addr, size = structs.VM_INIT.unpack(made.before)
    return {"kernel_addr": addr, "kernel_size": size}


def _gem_new(made: Made) -> Fields:
    _, domain, size, _, _, tile_mode, tile_flags, _, align = structs.GEM_NEW.unpack(made.before)
    asked = {"domain": domain, "size": size, "align": align, "tile_mode": tile_mode, "tile_flags": tile_flags}
    return {**asked, "handle": structs.GEM_INFO.unpack(made.after)[0] if made.ok else 0}


def _gem_info(made: Made) -> Fields:
    handle = structs.GEM_INFO.unpack(made.before)[0]
    return {"handle": handle, **({"size": structs.GEM_INFO.unpack(made.after)[2]} if made.ok else {})}


def _gem_close(made: Made) -> Fields:
    return {"handle": structs.GEM_CLOSE.unpack(made.before)[0]}


def _prime_export(made: Made) -> Fields:
    handle, flags, _ = structs.PRIME_HANDLE.unpack(made.before)
    return {"handle": handle, "flags": flags}


def _prime_import(made: Made) -> Fields:
    return {"handle": structs.PRIME_HANDLE.unpack(made.after)[0] if made.ok else 0}


def _channel_alloc(made: Made) -> Fields:
    return {"channel": structs.CHANNEL_ALLOC.unpack(made.after)[2]} if made.ok else {}


def _channel_free(made: Made) -> Fields:
    return {"channel": structs.CHANNEL_FREE.unpack(made.before)[0]}


def _cpu_prep(made: Made) -> Fields:
    handle, flags = structs.GEM_CPU_PREP.unpack(made.before)
    return {"handle": handle, "flags": flags}


def _cpu_fini(made: Made) -> Fields:
    return {"handle": structs.GEM_CPU_FINI.unpack(made.before)[0]}


def _getparam(made: Made) -> Fields:
    return {"param": structs.GETPARAM.unpack(made.before)[0]}


def _get_cap(made: Made) -> Fields:
    return {"capability": structs.GET_CAP.unpack(made.before)[0]}


def _syncobj_create(made: Made) -> Fields:
    _, flags = structs.SYNCOBJ_CREATE.unpack(made.before)
    handle = structs.SYNCOBJ_CREATE.unpack(made.after)[0] if made.ok else 0
    return {"flags": flags, "handle": handle}


def _syncobj_destroy(made: Made) -> Fields:
    return {"handle": structs.SYNCOBJ_DESTROY.unpack(made.before)[0]}


def _syncobj_export(made: Made) -> Fields:
    handle, flags, _, _, point = structs.SYNCOBJ_HANDLE.unpack(made.before)
    return {"handle": handle, "flags": flags, "point": point}


def _syncobj_import(made: Made) -> Fields:
    handle, flags, _, _, point = structs.SYNCOBJ_HANDLE.unpack(made.before)
    if made.ok and not flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
        handle = structs.SYNCOBJ_HANDLE.unpack(made.after)[0]
    return {"flags": flags, "point": point, "handle": handle}


def _syncobj_wait(made: Made) -> Fields:
    handles, _, count, flags, *_ = structs.SYNCOBJ_WAIT.unpack(made.before)
    return {"flags": flags, **_numbers("handles", made, handles, count, "I")}


def _syncobj_timeline_wait(made: Made) -> Fields:
    handles, points, _, count, flags, *_ = structs.SYNCOBJ_TIMELINE_WAIT.unpack(made.before)
    told = _numbers("points", made, points, count, "Q") if points else {"points": []}
    return {"flags": flags, **_numbers("handles", made, handles, count, "I"), **told}


def _syncobj_array(made: Made) -> Fields:
    handles, count, _ = structs.SYNCOBJ_ARRAY.unpack(made.before)
    return _numbers("handles", made, handles, count, "I")


def _syncobj_timeline_signal(made: Made) -> Fields:
    handles, points, count, _ = structs.SYNCOBJ_TIMELINE_ARRAY.unpack(made.before)
    told = _numbers("points", made, points, count, "Q") if points else {"points": []}
    return {**_numbers("handles", made, handles, count, "I"), **told}


def _syncobj_query(made: Made) -> Fields:
    handles, points, count, flags = structs.SYNCOBJ_TIMELINE_ARRAY.unpack(made.before)
    fields = {"flags": flags, **_numbers("handles", made, handles, count, "I")}
    answer = made.copied.answered(points)
    if made.ok and answer is not None:
        fields["points"] = [*struct.unpack(f"<{len(answer) // 8}Q", answer)]
    return fields


def _syncobj_transfer(made: Made) -> Fields:
    source, target, source_point, target_point, flags, _ = structs.SYNCOBJ_TRANSFER.unpack(made.before)
    return {
        "src_handle": source,
        "dst_handle": target,
        "src_point": source_point,
        "dst_point": target_point,
        "flags": flags,
    }


def _syncobj_eventfd(made: Made) -> Fields:
    handle, flags, point, *_ = structs.SYNCOBJ_EVENTFD.unpack(made.before)
    return {"handle": handle, "flags": flags, "point": point}


def _nothing(made: Made) -> Fields:
    return {}


class Place(Enum):
    """Where a call stands among those of other threads, so that each comes after what it needs."""

    BEGINNING = auto()
    """Where it began: what lets others go on, or takes something away."""
    END = auto()
    """Where it ended: what waits, or makes something."""


class Told(NamedTuple):
    """How one call is told."""

    name: str
    layout: Layout
    fields: Callable[[Made], Fields | None]
    """None: a trace has no words for it."""
    place: Place
    late: Callable[[bytes], bool] | None = None
    """For which structures it stands where it ended nevertheless."""
    file: bool = False
    """It passes a file, which is told by a number."""


def _waits_for_submit(before: bytes) -> bool:
    return bool(structs.SYNCOBJ_TRANSFER.unpack(before)[4] & WAIT_FOR_SUBMIT)


def _makes_syncobj(before: bytes) -> bool:
    return not structs.SYNCOBJ_HANDLE.unpack(before)[1] & FD_TO_HANDLE_IMPORT_SYNC_FILE


def _told(
    ioctl: Ioctl,
    fields: Callable[[Made], Fields | None],
    place: Place,
    late: Callable[[bytes], bool] | None = None,
    *,
    file: bool = False,
) -> tuple[int, Told]:
    assert ioctl.layout is not None
    name = ioctl.name.removeprefix("NOUVEAU_").lower()
    return ioctl.number, Told(name, ioctl.layout, fields, place, late, file)


_BEGINNING: Final = Place.BEGINNING
_END: Final = Place.END

TOLD: Final[Mapping[int, Told]] = dict(
    [
        _told(numbers.VERSION, _nothing, _END),
        _told(numbers.GET_CAP, _get_cap, _END),
        _told(numbers.AUTH_MAGIC, _nothing, _END),
        _told(numbers.GETPARAM, _getparam, _END),
        _told(numbers.CHANNEL_ALLOC, _channel_alloc, _END),
        _told(numbers.CHANNEL_FREE, _channel_free, _BEGINNING),
        _told(numbers.VM_INIT, _vm_init, _END),
        _told(numbers.VM_BIND, _vm_bind, _BEGINNING),
        _told(numbers.EXEC, _exec, _BEGINNING),
        _told(numbers.GEM_NEW, _gem_new, _END),
        _told(numbers.GEM_INFO, _gem_info, _END),
        _told(numbers.GEM_CLOSE, _gem_close, _BEGINNING),
        _told(numbers.GEM_CPU_PREP, _cpu_prep, _END),
        _told(numbers.GEM_CPU_FINI, _cpu_fini, _END),
        _told(numbers.GEM_PUSHBUF, _nothing, _END),
        _told(numbers.PRIME_HANDLE_TO_FD, _prime_export, _END, file=True),
        _told(numbers.PRIME_FD_TO_HANDLE, _prime_import, _END, file=True),
        _told(numbers.SYNCOBJ_CREATE, _syncobj_create, _END),
        _told(numbers.SYNCOBJ_DESTROY, _syncobj_destroy, _BEGINNING),
        _told(numbers.SYNCOBJ_HANDLE_TO_FD, _syncobj_export, _END, file=True),
        _told(numbers.SYNCOBJ_FD_TO_HANDLE, _syncobj_import, _BEGINNING, _makes_syncobj, file=True),
        _told(numbers.SYNCOBJ_WAIT, _syncobj_wait, _END),
        _told(numbers.SYNCOBJ_RESET, _syncobj_array, _BEGINNING),
        _told(numbers.SYNCOBJ_SIGNAL, _syncobj_array, _BEGINNING),
        _told(numbers.SYNCOBJ_TIMELINE_WAIT, _syncobj_timeline_wait, _END),
        _told(numbers.SYNCOBJ_QUERY, _syncobj_query, _END),
        _told(numbers.SYNCOBJ_TRANSFER, _syncobj_transfer, _BEGINNING, _waits_for_submit),
        _told(numbers.SYNCOBJ_TIMELINE_SIGNAL, _syncobj_timeline_signal, _BEGINNING),
        _told(numbers.SYNCOBJ_EVENTFD, _syncobj_eventfd, _BEGINNING),
    ]
)
"""By number. NVIF is missing: what it asks is no structure of its own, and a replay does without."""
