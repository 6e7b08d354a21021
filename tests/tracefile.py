"""Writes small traces and request files, and runs the command line on them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, TypeAlias

from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import Record
from gpuvm.trace.source import Source

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "examples"
STREAMING = EXAMPLES / "nvk-tile-streaming.jsonl.gz"
SPARSE_BUFFER = EXAMPLES / "nvk-sparse-buffer.jsonl"
VULKANINFO = EXAMPLES / "nvk-vulkaninfo.jsonl"
VECTORS = Path(__file__).parent / "vectors" / "kernel-6.12.jsonl.gz"

Call: TypeAlias = dict[str, Any]
KERNEL_ADDR = 0x80_0000_0000
PAGE = 0x1000


def call(name: str, *, client: int = 1, ret: int = 0, **fields: Any) -> Call:
    return {"t": 7, "client": client, "call": name, **fields, "ret": ret}


def vm_init(client: int = 1, **fields: Any) -> Call:
    return call(
        "vm_init", client=client, **{"kernel_addr": KERNEL_ADDR, "kernel_size": KERNEL_ADDR, **fields}
    )


def gem_new(handle: int, client: int = 1, size: int = 1 << 20, **fields: Any) -> Call:
    return call("gem_new", client=client, size=size, handle=handle, **fields)


def gem_close(handle: int, client: int = 1) -> Call:
    return call("gem_close", client=client, handle=handle)


def op(name: str, addr: int, size: int, handle: int = 0, offset: int = 0, flags: int = 0) -> Call:
    return {"op": name, "flags": flags, "handle": handle, "addr": addr, "bo_offset": offset, "range": size}


def bind(*ops: Call, client: int = 1, **fields: Any) -> Call:
    return call("vm_bind", client=client, flags=0, waits=[], signals=[], ops=list(ops), **fields)


def text_of(*calls: Call) -> str:
    return "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in calls)


def records_in(path: str | Path) -> list[Record]:
    with Source(str(path)) as source:
        return list(read_records(source.name, source))


def write_trace(folder: Path, *calls: Call, name: str = "trace.jsonl") -> str:
    path = folder / name
    data = text_of(*calls).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def write(folder: Path, content: str | bytes, name: str = "input") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)
