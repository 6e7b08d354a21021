"""A record's arguments as the tables have them, and the record that they make again.

What a call is about stands in tables where one is for it: ops of binds, push buffers, sync objects, objects
that were made. The rest is ``calls.args``: one JSON object with the names of JSON Lines, without defaults;
NULL if nothing is left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from gpuvm.trace import recorded
from gpuvm.trace.call_fields import FIELDS
from gpuvm.trace.call_numbers import NAMES
from gpuvm.trace.database import signed, unsigned
from gpuvm.trace.recorded import BindOp, Push, Record, Sync

Args: TypeAlias = dict[str, Any]

WAITS: Final = 0
SIGNALS: Final = 1
ABOUT: Final = 2
SOURCE: Final = 3

_UNTOLD: Final = "untold"
_dump: Final = json.JSONEncoder(separators=(",", ":")).encode


class SyncRow(NamedTuple):
    """A sync object that a call is about, as `syncs` has it; a timeline is 1, or what a bad call said."""

    role: int
    handle: int
    timeline: int
    point: int


class Told(NamedTuple):
    """The rows of one call, as they stand in their tables."""

    syncs: Sequence[SyncRow] = ()
    ops: tuple[BindOp, ...] = ()
    pushes: tuple[Push, ...] = ()
    object: tuple[int, int, int, int, int, int] | None = None
    """Handle, size, domain, align, tile_mode and tile_flags of what the call made."""
    channel: int | None = None
    """Of the job that it queued."""


# -- to the tables


def args_of(record: Record) -> str | None:
    """``calls.args``."""
    args = _args(record)
    if not args:
        return None
    if len(args) == 1:  # most calls have one number
        ((name, value),) = args.items()
        if type(value) is int:
            return f'{{"{name}":{value}}}'
    return _dump(args)


def _args(record: Record) -> Args:
    match record:
        case recorded.VmBind():
            return {"flags": record.flags} if record.flags else {}
        case recorded.Submission():
            # That of an accepted one stands in `jobs`.
            return {"channel": record.channel} if record.ret and record.channel is not None else {}
        case recorded.GemNew():
            if record.ret == 0:
                return {}
            return {name: getattr(record, name) for name in _OBJECT}
        case recorded.GemImport():
            fd = {} if record.fd is None else {"fd": record.fd}
            return {**fd, "handle": record.handle} if record.ret == 0 else fd
        case recorded.GemClose():
            return {"handle": record.handle}
        case recorded.VmInit():
            return {"kernel_addr": record.kernel_addr, "kernel_size": record.kernel_size}
        case recorded.Untold():
            return {_UNTOLD: record.field}
        case recorded.Other():
            return _by_table(record)


_OBJECT: Final = ("size", "domain", "align", "tile_mode", "tile_flags")


def _by_table(record: recorded.Other) -> Args:
    """What is not as it would be read anyway, without what `syncs` has."""
    in_syncs = _ABOUT.get(type(record), ())
    args = {}
    for field in FIELDS[record.call][1]:
        value = getattr(record, field.name)
        if value != field.default and field.name not in in_syncs:
            args[field.name] = value
    if isinstance(record, recorded.SyncobjTimelineSignal | recorded.SyncobjTimelineWait):
        if len(record.points) != len(record.handles):
            args["points"] = record.points
    elif isinstance(record, recorded.SyncobjImport) and record.handle is None and record.point:
        args["point"] = record.point
    return args


_ABOUT: Final[dict[type[Record], tuple[str, ...]]] = {
    recorded.SyncobjCreate: ("handle",),
    recorded.SyncobjDestroy: ("handle",),
    recorded.SyncobjReset: ("handles",),
    recorded.SyncobjSignal: ("handles",),
    recorded.SyncobjTimelineSignal: ("handles", "points"),
    recorded.SyncobjQuery: ("handles",),
    recorded.SyncobjTransfer: ("src_handle", "dst_handle", "src_point", "dst_point"),
    recorded.SyncobjWait: ("handles",),
    recorded.SyncobjTimelineWait: ("handles", "points"),
    recorded.SyncobjExport: ("handle", "point"),
    recorded.SyncobjImport: ("handle", "point"),
    recorded.SyncobjEventfd: ("handle", "point"),
}
"""Which fields stand in `syncs`."""


def syncs_of(record: Record) -> list[SyncRow]:
    """The sync objects that a call is about, in their order."""
    match record:
        case recorded.VmBind() | recorded.Submission():
            return [
                SyncRow(role, one.handle, one.flags, one.value)
                for role, syncs in ((WAITS, record.waits), (SIGNALS, record.signals))
                for one in syncs
            ]
        case recorded.SyncobjTransfer():
            source = SyncRow(SOURCE, record.src_handle, int(record.src_point > 0), record.src_point)
            return [source, SyncRow(ABOUT, record.dst_handle, int(record.dst_point > 0), record.dst_point)]
        case recorded.SyncobjTimelineSignal() | recorded.SyncobjTimelineWait():
            equal = len(record.points) == len(record.handles)
            points: Iterable[int] = record.points if equal else [0] * len(record.handles)
            return [SyncRow(ABOUT, *both) for both in zip(record.handles, _ones(), points, strict=False)]
        case recorded.SyncobjQuery():
            return [SyncRow(ABOUT, handle, 1, 0) for handle in record.handles]
        case recorded.SyncobjReset() | recorded.SyncobjSignal() | recorded.SyncobjWait():
            return [SyncRow(ABOUT, handle, 0, 0) for handle in record.handles]
        case recorded.SyncobjExport() | recorded.SyncobjImport() | recorded.SyncobjEventfd():
            if record.handle is None:
                return []
            return [SyncRow(ABOUT, record.handle, int(record.point > 0), record.point)]
        case recorded.SyncobjCreate() | recorded.SyncobjDestroy():
            return [] if record.handle is None else [SyncRow(ABOUT, record.handle, 0, 0)]
        case _:
            return []


def _ones() -> Iterator[int]:
    while True:
        yield 1


# -- and back


def record_of(number: int, t: int, client: int, nr: int, ret: int, args: str | None, told: Told) -> Record:
    """The record of a call from its rows; ``client`` is the number that was recorded."""
    call = NAMES[nr]
    head = (number, unsigned(t), client, ret)
    got: Args = {} if args is None else json.loads(args)
    match call:
        case "vm_bind":
            return recorded.VmBind(*head, told.ops, got.get("flags", 0), *_waits_and_signals(told.syncs))
        case "exec":
            channel = got.get("channel") if told.channel is None else told.channel
            return recorded.Submission(*head, told.pushes, channel, *_waits_and_signals(told.syncs))
        case "gem_new":
            return recorded.GemNew(*head, *(told.object or (0, *(got[name] for name in _OBJECT))))
        case "gem_open" | "prime_fd_to_handle":
            return recorded.GemImport(*head, call, got.get("handle", 0), got.get("fd"))
        case "gem_close":
            return recorded.GemClose(*head, got["handle"])
        case "vm_init":
            return recorded.VmInit(*head, got["kernel_addr"], got["kernel_size"])
    if _UNTOLD in got:
        return recorded.Untold(*head, call, got[_UNTOLD])
    kind, fields = FIELDS[call]
    got = {**_about(kind, told.syncs), **got}
    return kind(*head, call, *[_value(got.get(field.name, field.default)) for field in fields])


def _value(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def _waits_and_signals(syncs: Sequence[SyncRow]) -> tuple[tuple[Sync, ...], tuple[Sync, ...]]:
    waits, signals = (
        tuple([Sync(one.timeline, one.handle, one.point) for one in syncs if one.role == role])
        for role in (WAITS, SIGNALS)
    )
    return waits, signals


def _about(kind: type[Record], syncs: Sequence[SyncRow]) -> Args:
    """The fields that stand in `syncs`."""
    names = _ABOUT.get(kind, ())
    if kind is recorded.SyncobjTransfer:
        source, target = syncs
        return dict(zip(names, (source.handle, target.handle, source.point, target.point), strict=True))
    values: dict[str, Any] = {
        "handles": [one.handle for one in syncs],
        "points": [one.point for one in syncs],
    }
    if syncs:
        values |= {"handle": syncs[0].handle, "point": syncs[0].point}
    return {name: values[name] for name in names if name in values}


def op_row(op: BindOp) -> tuple[int, int, int, int, int, int]:
    """code, flags, handle, addr, range, bo_offset."""
    return op.op, op.flags, op.handle, signed(op.addr), signed(op.range), signed(op.bo_offset)
