"""The examples of rules: small traces, and the calls that they are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from gpuvm.trace.database import create_temporary, register_functions
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer

Call: TypeAlias = dict[str, Any]

KIB = 1 << 10
ADDR = 1 << 32


@dataclass(frozen=True, slots=True)
class Example:
    """A small trace: calls as JSON Lines, and in SQL what a recorder saw besides."""

    calls: str
    seen: str = ""

    def trace(self) -> Trace:
        """Opened; close it. Its calls are the lines, from 1 on."""
        db = create_temporary()
        writer = Writer(db)
        for record in read_records("example", enumerate(self.calls.splitlines(), 1)):
            writer.call(record)
        writer.finish()
        db.executescript(self.seen)
        register_functions(db)
        return Trace("example", Form.JSON_LINES, db)


def text_of(*calls: Call) -> str:
    """Calls of client 1 as JSON Lines, a microsecond after each other; all went well unless they say so."""
    lines = [{"t": 1000 * at, "client": 1, "ret": 0, **call} for at, call in enumerate(calls, 1)]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


# -- calls

VM_INIT: Call = {"call": "vm_init", "kernel_addr": 1 << 46, "kernel_size": 1 << 46}
CHANNEL: Call = {"call": "channel_alloc", "channel": 1}
FREE: Call = {"call": "channel_free", "channel": 1}
SYNCOBJ: Call = {"call": "syncobj_create", "flags": 0, "handle": 1}
DESTROY: Call = {"call": "syncobj_destroy", "handle": 1}
WAIT: Call = {"call": "syncobj_wait", "handles": [1], "flags": 0}
SYNC: Call = {"type": "syncobj", "handle": 1}


def gem_new(handle: int, size: int = 64 * KIB) -> Call:
    """An object in GART."""
    return {"call": "gem_new", "handle": handle, "size": size, "domain": 4}


def gem_close(handle: int, ret: int = 0) -> Call:
    """A handle is given back."""
    return {"call": "gem_close", "handle": handle, "ret": ret}


def mapped(handle: int, addr: int = ADDR, size: int = 64 * KIB, offset: int = 0) -> Call:
    """An operation of `vm_bind`."""
    return {"op": "map", "flags": 0, "handle": handle, "addr": addr, "bo_offset": offset, "range": size}


def unmapped(addr: int = ADDR, size: int = 64 * KIB) -> Call:
    """An operation of `vm_bind`."""
    return {"op": "unmap", "flags": 0, "handle": 0, "addr": addr, "bo_offset": 0, "range": size}


def vm_bind(*ops: Call, flags: int = 0, waits: tuple[Call, ...] = (), signals: tuple[Call, ...] = ()) -> Call:
    """Without ``flags`` synchronous."""
    return {"call": "vm_bind", "flags": flags, "waits": waits, "signals": signals, "ops": ops}


def exec_(*vas: int, waits: tuple[Call, ...] = (), signals: tuple[Call, ...] = ()) -> Call:
    """64 bytes at each address are fetched."""
    pushes = [{"va": va, "va_len": 64} for va in vas]
    return {"call": "exec", "channel": 1, "waits": waits, "signals": signals, "pushes": pushes}
