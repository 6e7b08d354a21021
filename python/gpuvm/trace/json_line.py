"""The line of JSON that tells a record; what `jsonl` reads back as the same record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from gpuvm.trace import recorded
from gpuvm.trace.call_fields import FIELDS
from gpuvm.trace.recorded import OP_NAMES, SYNC_NAMES, BindOp, Record, Sync

_OPS: Final = {number: name for name, number in OP_NAMES.items()}
_SYNCS: Final = {number: name for name, number in SYNC_NAMES.items()}


def line_of(record: Record) -> str | None:
    """The line, without its end; None: it has an op that lines of JSON have no word for."""
    if isinstance(record, recorded.VmBind) and any(op.op not in _OPS for op in record.ops):
        return None
    fields = {"t": record.t, "client": record.client, "call": record.call, **_own(record), "ret": record.ret}
    return json.dumps(fields, separators=(",", ":"))


def _own(record: Record) -> dict[str, Any]:
    """The fields that not all have."""
    match record:
        case recorded.VmBind():
            return {"flags": record.flags, **_waits(record), "ops": [*map(_op, record.ops)]}
        case recorded.Submission():
            pushes = [{"va": push.va, "va_len": push.va_len, "flags": push.flags} for push in record.pushes]
            channel = {} if record.channel is None else {"channel": record.channel}
            return {**channel, **_waits(record), "pushes": pushes}
        case recorded.VmInit():
            return {"kernel_addr": record.kernel_addr, "kernel_size": record.kernel_size}
        case recorded.GemNew():
            names = ("domain", "size", "align", "tile_mode", "tile_flags", "handle")
            return {name: getattr(record, name) for name in names}
        case recorded.GemImport():
            return {"handle": record.handle, **({} if record.fd is None else {"fd": record.fd})}
        case recorded.GemClose():
            return {"handle": record.handle}
        case recorded.Untold():
            return {}
    values = {field.name: getattr(record, field.name) for field in FIELDS[record.call][1]}
    return {name: value for name, value in values.items() if value is not None}


def _waits(record: recorded.VmBind | recorded.Submission) -> dict[str, Any]:
    return {"waits": _syncs(record.waits), "signals": _syncs(record.signals)}


def _syncs(syncs: Iterable[Sync]) -> list[dict[str, Any]]:
    return [
        {"type": _SYNCS.get(flags, flags), "handle": handle, "value": value} for flags, handle, value in syncs
    ]


def _op(op: BindOp) -> dict[str, Any]:
    return {
        "op": _OPS[op.op],
        "flags": op.flags,
        "handle": op.handle,
        "addr": op.addr,
        "bo_offset": op.bo_offset,
        "range": op.range,
    }
