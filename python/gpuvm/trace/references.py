"""What a call refers to by number, objects, channels, sync objects and files; and what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE
from gpuvm.trace import recorded
from gpuvm.trace.recorded import Record, Sync


class What(IntEnum):
    """What a number names."""

    OBJECT = 0
    CHANNEL = 1
    SYNCOBJ = 2
    FILE = 3
    """A file descriptor; such numbers are the recording's, not a client's."""


class Number(NamedTuple):
    """A number, and what it names."""

    what: What
    number: int


class References(NamedTuple):
    """A call, taken apart."""

    shape: tuple[Any, ...]
    """Its name and its arguments, but for numbers that name something."""
    answers: tuple[Any, ...]
    """What it returned besides ``ret``, but for such numbers."""
    uses: Sequence[Number]
    """What it is about, in the order of its arguments."""
    makes: Sequence[Number]
    """What names something from now on, if the call was accepted; or did so already, if it is an import."""
    ends: Sequence[Number]
    """What names nothing any more, if the call was accepted."""


_Numbers: TypeAlias = list[Number]
_WithObject: TypeAlias = recorded.GemExport | recorded.CpuPrep | recorded.CpuFini


def references(record: Record) -> References:
    """Take a call apart. Cost: O(its size)."""
    name = record.call
    match record:
        case recorded.VmBind():
            uses = [Number(What.OBJECT, op.handle) for op in record.ops if _backed(op)]
            ops = tuple([(*op[:2], _backed(op) or op.handle, *op[3:]) for op in record.ops])
            syncs = _syncs(uses, record.waits, record.signals)
            return _parts(name, record.flags, ops, syncs, uses=uses)
        case recorded.Submission():
            uses = _maybe(What.CHANNEL, record.channel)
            syncs = _syncs(uses, record.waits, record.signals)
            return _parts(name, record.pushes, syncs, uses=uses)
        case recorded.VmInit():
            return _parts(name, record.kernel_addr, record.kernel_size)
        case recorded.GemNew():
            fields = (record.size, record.domain, record.align, record.tile_mode, record.tile_flags)
            return _parts(name, *fields, makes=_maybe(What.OBJECT, record.handle))
        case recorded.GemImport():
            makes = _maybe(What.OBJECT, record.handle)
            return _parts(name, uses=_maybe(What.FILE, record.fd), makes=makes)
        case recorded.GemClose():
            return _parts(name, uses=_object(record), ends=_object(record))
        case recorded.GemInfo():
            return _parts(name, answers=(record.size,), uses=_object(record))
        case recorded.GemExport():
            makes = _maybe(What.FILE, record.fd)
            return _parts(name, record.flags, uses=_object(record), makes=makes)
        case recorded.CpuPrep():
            return _parts(name, record.flags, uses=_object(record))
        case recorded.CpuFini():
            return _parts(name, uses=_object(record))
        case recorded.ChannelAlloc():
            return _parts(name, makes=_maybe(What.CHANNEL, record.channel))
        case recorded.ChannelFree():
            channel = _maybe(What.CHANNEL, record.channel)
            return _parts(name, uses=channel, ends=channel)
        case recorded.GetParam():
            return _parts(name, record.param)
        case recorded.GetCap():
            return _parts(name, record.capability)
        case recorded.Untold():
            return _parts(name, record.field)
        case _:
            return _of_syncobjs(record)


def _of_syncobjs(record: Record) -> References:
    name = record.call
    match record:
        case recorded.SyncobjCreate():
            return _parts(name, record.flags, makes=_maybe(What.SYNCOBJ, record.handle))
        case recorded.SyncobjDestroy():
            return _parts(name, uses=_all([record.handle]), ends=_all([record.handle]))
        case recorded.SyncobjReset() | recorded.SyncobjSignal():
            return _parts(name, uses=_all(record.handles))
        case recorded.SyncobjTimelineSignal():
            return _parts(name, record.points, uses=_all(record.handles))
        case recorded.SyncobjQuery():
            return _parts(name, record.flags, answers=record.points or (), uses=_all(record.handles))
        case recorded.SyncobjWait():
            return _parts(name, record.flags, uses=_all(record.handles))
        case recorded.SyncobjTimelineWait():
            return _parts(name, record.points, record.flags, uses=_all(record.handles))
        case recorded.SyncobjTransfer():
            uses = _all([record.src_handle, record.dst_handle])
            return _parts(name, record.src_point, record.dst_point, record.flags, uses=uses)
        case recorded.SyncobjExport():
            makes = _maybe(What.FILE, record.fd)
            return _parts(name, record.flags, record.point, uses=_all([record.handle]), makes=makes)
        case recorded.SyncobjImport():
            uses, named = _maybe(What.FILE, record.fd), _maybe(What.SYNCOBJ, record.handle)
            if record.flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
                return _parts(name, record.flags, record.point, uses=uses + named)
            return _parts(name, record.flags, record.point, uses=uses, makes=named)
        case recorded.SyncobjEventfd():
            return _parts(name, record.flags, record.point, uses=_all([record.handle]))
        case _:
            return _parts(name)


def _parts(
    *shape: Any,
    answers: tuple[Any, ...] = (),
    uses: Sequence[Number] = (),
    makes: Sequence[Number] = (),
    ends: Sequence[Number] = (),
) -> References:
    return References(shape, answers, uses, makes, ends)


def _backed(op: recorded.BindOp) -> bool:
    return op.op == recorded.OP_MAP and not op.sparse and op.handle != 0


def _syncs(uses: _Numbers, *lists: tuple[Sync, ...]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """What is left of them; whom they name is added to ``uses``."""
    uses += [Number(What.SYNCOBJ, one.handle) for syncs in lists for one in syncs]
    return tuple([tuple([(one.flags, one.value) for one in syncs]) for syncs in lists])


def _object(record: recorded.GemClose | recorded.GemInfo | _WithObject) -> _Numbers:
    return [Number(What.OBJECT, record.handle)]


def _all(handles: Sequence[int]) -> _Numbers:
    return [Number(What.SYNCOBJ, handle) for handle in handles]


def _maybe(what: What, number: int | None) -> _Numbers:
    """None where the trace does not tell; and no file has a negative number."""
    return [] if number is None or number < 0 else [Number(what, number)]
