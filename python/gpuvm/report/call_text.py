"""How a call is told in a line: as strace would, if it knew DRM.

``VM_BIND({flags=RUN_ASYNC, sig=[4<syncobj 2>:17], ops=[{MAP, handle=5<object 12>, addr=0x3fff00000,
range=0x10000, bo_offset=0}]}) = 0``: fields have the uAPI's names, flags are named, what is behind a handle
stands in ``<>``, what the call gave back behind ``=>``. Fields that are 0 by default are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from gpuvm.errors import ERRNO_NAMES
from gpuvm.sync import syncobj_table as drm
from gpuvm.trace import recorded
from gpuvm.trace.recorded import Record

LONGEST_LIST: Final = 4
"""So many of a list are told; of the rest, how many there are."""

_BIND_FLAGS: Final = {recorded.BIND_RUN_ASYNC: "RUN_ASYNC"}
_PUSH_FLAGS: Final = {1: "NO_PREFETCH"}
_PREP_FLAGS: Final = {1: "NOWAIT", 4: "WRITE"}
_DOMAINS: Final = {0x1: "CPU", 0x2: "VRAM", 0x4: "GART", 0x8: "MAPPABLE", 0x10: "COHERENT", 0x20: "NO_SHARE"}
_PRIME_FLAGS: Final = {os.O_CLOEXEC: "CLOEXEC", os.O_RDWR: "RDWR"}
_CREATE_FLAGS: Final = {drm.CREATE_SIGNALED: "SIGNALED"}
_EXPORT_FLAGS: Final = {
    drm.HANDLE_TO_FD_EXPORT_SYNC_FILE: "EXPORT_SYNC_FILE",
    drm.HANDLE_TO_FD_TIMELINE: "TIMELINE",
}
_IMPORT_FLAGS: Final = {
    drm.FD_TO_HANDLE_IMPORT_SYNC_FILE: "IMPORT_SYNC_FILE",
    drm.FD_TO_HANDLE_TIMELINE: "TIMELINE",
}
_WAIT_FLAGS: Final = {
    drm.WAIT_ALL: "WAIT_ALL",
    drm.WAIT_FOR_SUBMIT: "WAIT_FOR_SUBMIT",
    drm.WAIT_AVAILABLE: "WAIT_AVAILABLE",
    drm.WAIT_DEADLINE: "WAIT_DEADLINE",
}
_QUERY_FLAGS: Final = {drm.QUERY_LAST_SUBMITTED: "LAST_SUBMITTED"}
_CAPS: Final = {0x5: "PRIME", 0x6: "TIMESTAMP_MONOTONIC", 0x13: "SYNCOBJ", 0x14: "SYNCOBJ_TIMELINE"}
_OPS: Final = {recorded.OP_MAP: "MAP", recorded.OP_UNMAP: "UNMAP"}
_KIND: Final = 0xFF
"""The bits of a bind op's flags that are the PTE kind."""


class Names(Protocol):
    """What is behind handles. None: nobody knows, or there was nothing."""

    def object(self, record: Record, handle: int) -> int | None:
        """The id of the object that the handle named in this call."""

    def syncobj(self, record: Record, handle: int) -> int | None:
        """The id of the sync object."""


class Nameless:
    """Knows nothing that is behind a handle."""

    def object(self, record: Record, handle: int) -> int | None:
        """None."""

    def syncobj(self, record: Record, handle: int) -> int | None:
        """None."""


NAMELESS: Final = Nameless()


def call_name(record: Record) -> str:
    """``VM_BIND``; what is no ioctl is in lower case."""
    return shown_name(record.call)


def shown_name(call: str) -> str:
    """The same of a name as tables have it."""
    return call if call == "close" else call.upper()


def call_text(record: Record, names: Names = NAMELESS, *, full: bool = False) -> str:
    """The call with its arguments, its answers and its result. Cost: O(what is told).

    Args:
        names: what is behind its handles.
        full: all of long lists.
    """
    told = _Told(record, names, None if full else LONGEST_LIST)
    _TELL.get(type(record), _other)(told, record)
    answers = f" => {{{', '.join(told.answers)}}}" if told.answers and record.ret == 0 else ""
    inside = f"{{{', '.join(told.fields)}}}" if told.fields or answers else ""
    return f"{call_name(record)}({inside}{answers}) = {result_text(record.ret)}"


def result_text(ret: int) -> str:
    """``0``, or ``-1 ENOENT (No such file or directory)``, of 0 or a negative errno."""
    return f"-1 {ERRNO_NAMES.get(-ret, -ret)} ({os.strerror(-ret)})" if ret else "0"


def dump_line(record: Record, names: Names = NAMELESS, *, full: bool = False) -> str:
    """The line of a call with its number and its client, as ``gpuvm dump`` prints it."""
    return f"[call {record.line}] client {record.client}  {call_text(record, names, full=full)}"


def number(value: int) -> str:
    """An address, a size or an offset: hexadecimal, but 0."""
    return f"{value:#x}" if value else "0"


def flag_names(value: int, known: dict[int, str]) -> str:
    """``VRAM|GART``; bits without a name as a number."""
    parts = [name for bit, name in known.items() if value & bit]
    rest = value & ~sum(known)
    return "|".join([*parts, *([f"{rest:#x}"] if rest or not parts else [])])


class _Told:
    """The fields of one call, one after the other."""

    def __init__(self, record: Record, names: Names, longest: int | None) -> None:
        self.record = record
        self.names = names
        self.longest = longest
        self.fields: list[str] = []
        self.answers: list[str] = []

    def add(self, name: str, value: object) -> None:
        self.fields.append(f"{name}={value}")

    def add_flags(self, value: int, known: dict[int, str]) -> None:
        if value:
            self.add("flags", flag_names(value, known))

    def answer(self, name: str, value: object) -> None:
        if value is not None:
            self.answers.append(f"{name}={value}")

    def object(self, handle: int) -> str:
        found = self.names.object(self.record, handle)
        return str(handle) if found is None else f"{handle}<object {found}>"

    def syncobj(self, handle: int, point: int | None = None) -> str:
        found = self.names.syncobj(self.record, handle)
        name = str(handle) if found is None else f"{handle}<syncobj {found}>"
        return name if point is None else f"{name}:{point}"

    def many(self, items: Sequence[Any], text: Callable[[Any], str]) -> str:
        told = [text(item) for item in islice(items, self.longest)]
        if len(told) < len(items):
            told.append(f"... {len(items) - len(told):,} more")
        return f"[{', '.join(told)}]"

    def add_syncs(self, waits: Sequence[recorded.Sync], signals: Sequence[recorded.Sync]) -> None:
        for name, syncs in (("wait", waits), ("sig", signals)):
            if syncs:
                self.add(name, self.many(syncs, self.sync))

    def sync(self, sync: recorded.Sync) -> str:
        if sync.flags not in (recorded.SYNC_SYNCOBJ, recorded.SYNC_TIMELINE):
            return f"{{flags={sync.flags:#x}, handle={sync.handle}, timeline_value={sync.value}}}"
        return self.syncobj(sync.handle, sync.value if sync.flags == recorded.SYNC_TIMELINE else None)

    def add_handles(self, handles: Iterable[int], points: Sequence[int] = ()) -> None:
        of_each = [*points, *[None] * (len([*handles]) - len(points))]
        pairs = [*zip(handles, of_each, strict=False)]
        self.add("handles", self.many(pairs, lambda pair: self.syncobj(*pair)))


# -- by call


def _vm_init(told: _Told, record: recorded.VmInit) -> None:
    told.add("kernel_managed_addr", number(record.kernel_addr))
    told.add("kernel_managed_size", number(record.kernel_size))


def _vm_bind(told: _Told, record: recorded.VmBind) -> None:
    told.add_flags(record.flags, _BIND_FLAGS)
    told.add_syncs(record.waits, record.signals)
    told.add("ops", told.many(record.ops, lambda op: _bind_op(told, op)))


def _bind_op(told: _Told, op: recorded.BindOp) -> str:
    parts = [_OPS.get(op.op, str(op.op))]
    rest = op.flags & ~(recorded.OP_SPARSE | _KIND)
    if op.sparse or rest:
        parts.append(f"flags={flag_names(op.flags & ~_KIND, {recorded.OP_SPARSE: 'SPARSE'})}")
    if op.flags & _KIND:
        parts.append(f"kind={op.flags & _KIND:#x}")
    backed = op.op == recorded.OP_MAP and not op.sparse
    if backed or op.handle:
        parts.append(f"handle={told.object(op.handle)}")
    parts += [f"addr={number(op.addr)}", f"range={number(op.range)}"]
    if backed or op.bo_offset:
        parts.append(f"bo_offset={number(op.bo_offset)}")
    return f"{{{', '.join(parts)}}}"


def _exec(told: _Told, record: recorded.Submission) -> None:
    told.add("channel", "?" if record.channel is None else record.channel)
    told.add_syncs(record.waits, record.signals)
    told.add("push", told.many(record.pushes, _push))


def _push(push: recorded.Push) -> str:
    flags = f", flags={flag_names(push.flags, _PUSH_FLAGS)}" if push.flags else ""
    return f"{{va={number(push.va)}, va_len={number(push.va_len)}{flags}}}"


def _gem_new(told: _Told, record: recorded.GemNew) -> None:
    told.add("size", number(record.size))
    told.add("domain", flag_names(record.domain, _DOMAINS))
    for name in ("align", "tile_mode", "tile_flags"):
        if value := getattr(record, name):
            told.add(name, number(value))
    told.answer("handle", told.object(record.handle))


def _gem_import(told: _Told, record: recorded.GemImport) -> None:
    if record.fd is not None:
        told.add("fd", record.fd)
    told.answer("handle", told.object(record.handle))


def _gem_handle(told: _Told, record: recorded.GemClose | recorded.GemInfo | recorded.CpuFini) -> None:
    told.add("handle", told.object(record.handle))
    if isinstance(record, recorded.GemInfo) and record.size is not None:
        told.answer("size", number(record.size))


def _gem_export(told: _Told, record: recorded.GemExport) -> None:
    told.add("handle", told.object(record.handle))
    told.add_flags(record.flags, _PRIME_FLAGS)
    told.answer("fd", record.fd)


def _cpu_prep(told: _Told, record: recorded.CpuPrep) -> None:
    told.add("handle", told.object(record.handle))
    told.add_flags(record.flags, _PREP_FLAGS)


def _channel_alloc(told: _Told, record: recorded.ChannelAlloc) -> None:
    told.answer("channel", record.channel)


def _channel_free(told: _Told, record: recorded.ChannelFree) -> None:
    told.add("channel", record.channel)


def _getparam(told: _Told, record: recorded.GetParam) -> None:
    from gpuvm.nouveau.getparam import Param  # which needs NumPy, and that takes its time

    known = {param.value: param.name for param in Param}
    told.add("param", known.get(record.param, record.param))
    told.answer("value", None if record.value is None else number(record.value))


def _get_cap(told: _Told, record: recorded.GetCap) -> None:
    told.add("capability", _CAPS.get(record.capability, f"{record.capability:#x}"))
    told.answer("value", None if record.value is None else number(record.value))


def _syncobj_create(told: _Told, record: recorded.SyncobjCreate) -> None:
    told.add_flags(record.flags, _CREATE_FLAGS)
    if record.handle is not None:
        told.answer("handle", told.syncobj(record.handle))


def _syncobj_destroy(told: _Told, record: recorded.SyncobjDestroy) -> None:
    told.add("handle", told.syncobj(record.handle))


def _syncobjs(told: _Told, record: recorded.SyncobjReset | recorded.SyncobjSignal) -> None:
    told.add_handles(record.handles)


def _syncobj_points(told: _Told, record: recorded.SyncobjTimelineSignal) -> None:
    told.add_handles(record.handles, record.points)


def _syncobj_query(told: _Told, record: recorded.SyncobjQuery) -> None:
    told.add_handles(record.handles)
    told.add_flags(record.flags, _QUERY_FLAGS)
    if record.points is not None:
        told.answer("points", told.many(record.points, str))


def _syncobj_wait(told: _Told, record: recorded.SyncobjWait | recorded.SyncobjTimelineWait) -> None:
    told.add_handles(record.handles, getattr(record, "points", ()))
    told.add_flags(record.flags, _WAIT_FLAGS)


def _syncobj_transfer(told: _Told, record: recorded.SyncobjTransfer) -> None:
    told.add("src", told.syncobj(record.src_handle, record.src_point or None))
    told.add("dst", told.syncobj(record.dst_handle, record.dst_point or None))
    told.add_flags(record.flags, _WAIT_FLAGS)


def _syncobj_export(told: _Told, record: recorded.SyncobjExport) -> None:
    told.add("handle", told.syncobj(record.handle, record.point or None))
    told.add_flags(record.flags, _EXPORT_FLAGS)
    told.answer("fd", record.fd)


def _syncobj_import(told: _Told, record: recorded.SyncobjImport) -> None:
    told.add("fd", record.fd)
    told.add_flags(record.flags, _IMPORT_FLAGS)
    if record.flags & drm.FD_TO_HANDLE_IMPORT_SYNC_FILE:
        told.add("handle", told.syncobj(record.handle or 0, record.point or None))
    elif record.handle is not None:
        told.answer("handle", told.syncobj(record.handle))


def _syncobj_eventfd(told: _Told, record: recorded.SyncobjEventfd) -> None:
    told.add("handle", told.syncobj(record.handle, record.point or None))
    told.add_flags(record.flags, _WAIT_FLAGS)


def _untold(told: _Told, record: recorded.Untold) -> None:
    told.add(record.field, "?")


def _other(told: _Told, record: Record) -> None:
    """Of these no field is read."""


_TELL: Final[dict[type[Record], Callable[[_Told, Any], None]]] = {
    recorded.VmInit: _vm_init,
    recorded.VmBind: _vm_bind,
    recorded.Submission: _exec,
    recorded.GemNew: _gem_new,
    recorded.GemImport: _gem_import,
    recorded.GemClose: _gem_handle,
    recorded.GemInfo: _gem_handle,
    recorded.GemExport: _gem_export,
    recorded.CpuPrep: _cpu_prep,
    recorded.CpuFini: _gem_handle,
    recorded.ChannelAlloc: _channel_alloc,
    recorded.ChannelFree: _channel_free,
    recorded.GetParam: _getparam,
    recorded.GetCap: _get_cap,
    recorded.SyncobjCreate: _syncobj_create,
    recorded.SyncobjDestroy: _syncobj_destroy,
    recorded.SyncobjReset: _syncobjs,
    recorded.SyncobjSignal: _syncobjs,
    recorded.SyncobjTimelineSignal: _syncobj_points,
    recorded.SyncobjQuery: _syncobj_query,
    recorded.SyncobjTransfer: _syncobj_transfer,
    recorded.SyncobjWait: _syncobj_wait,
    recorded.SyncobjTimelineWait: _syncobj_wait,
    recorded.SyncobjExport: _syncobj_export,
    recorded.SyncobjImport: _syncobj_import,
    recorded.SyncobjEventfd: _syncobj_eventfd,
    recorded.Untold: _untold,
}
"""By record, who tells its fields."""
