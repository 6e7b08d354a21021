"""The data of a page: one JSON object, as `viewer/src/data.ts` reads it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from gpuvm.report.page.bundles import Mappings
from gpuvm.report.page.curves import curve
from gpuvm.report.page.tables import LONGEST_WORD, Tables
from gpuvm.report.sizes import size_text
from gpuvm.trace.call_numbers import NAMES
from gpuvm.trace.replay import SPACE_RANGE
from gpuvm.trace.trace import Form, Trace, TraceClient

VERSION: Final = 1
MOST_FAULTS: Final = 5000
_EXACT: Final = 1 << 53


def page_document(trace: Trace, client: int | None) -> dict[str, Any]:
    """What a page holds of a trace; ``client``: of this one alone, by its recorded number.

    Raises:
        TraceError: there is no such client, or there are more calls than a page can hold.
    """
    clients = _chosen(trace, client)
    tables = Tables(trace, [client.id for client in clients])
    mappings = tables.read()
    faults = _faults(trace, tables)
    notes = tables.notes
    if not trace.whole and trace.form is Form.SQLITE:
        notes.append("The recording did not end in order: what came after its last call is not known.")
    about = trace.about
    return {
        "version": VERSION,
        "name": os.path.basename(trace.name),
        "program": _program(about.get("program")),
        "begun": str(about.get("begun") or "")[:LONGEST_WORD],
        "device": _device(trace),
        "timed": trace.form is Form.SQLITE,
        "end": _end(trace),
        "notes": notes,
        "clients": [_client(client) for client in clients],
        "calls": {str(nr): name.upper() for nr, name in NAMES.items()},
        "places": tables.places,
        "faults": faults,
        "curves": _curves(clients, mappings),
        "columns": tables.columns,
    }


def _faults(trace: Trace, tables: Tables) -> list[dict[str, Any]]:
    names = "t, client, channel, call, addr, access, reason, cause, engine, unmapped, mapped"
    found = trace.db.execute(f"SELECT {names} FROM faults WHERE {tables.ours} ORDER BY t, id").fetchall()
    if len(found) > MOST_FAULTS:
        tables.notes.append(f"{len(found):,} faults; the page shows the first {MOST_FAULTS:,}.")
    faults = []
    for row in found[:MOST_FAULTS]:
        fault = dict(zip(names.split(", "), row, strict=True))
        fault["client"] = int(tables.client_of(np.array(fault["client"])))
        call = fault["call"]
        fault["call"] = -1 if call is None else int(tables.place(np.array(call), missing=-1))
        fault["addr"] = -1 if fault["addr"] is None else fault["addr"] & (_EXACT - 1)
        for name in ("access", "reason", "cause", "engine"):
            fault[name] = str(fault[name] or "")[:LONGEST_WORD]
        for name in ("unmapped", "mapped"):
            fault[name] = fault[name] or 0
        faults.append(fault)
    return faults


def _curves(clients: list[TraceClient], mappings: Mappings) -> list[dict[str, Any]]:
    curves = []
    for index, client in enumerate(clients):
        mine = mappings.client == index
        if not mine.any():
            continue
        addr = mappings.addr[mine]
        made = curve(
            addr,
            addr + mappings.range[mine],
            mappings.born[mine],
            mappings.died[mine],
            _kernel(client),
            SPACE_RANGE,
        )
        curves.append({"client": index, **asdict(made)})
    return curves


def _device(trace: Trace) -> str:
    row = trace.db.execute("SELECT chip, vram FROM device").fetchone()
    if row is None or row[0] is None:
        return ""
    return f"{str(row[0])[:LONGEST_WORD]}, {size_text(row[1])} VRAM" if row[1] else str(row[0])[:LONGEST_WORD]


def _end(trace: Trace) -> int:
    """The time of the last thing."""
    found = trace.db.execute(
        "SELECT max(coalesce((SELECT max(t + coalesce(took, 0)) FROM calls), 0),"
        " coalesce((SELECT max(done) FROM jobs), 0), coalesce((SELECT max(t) FROM faults), 0))"
    ).fetchone()
    return int(found[0])


def _chosen(trace: Trace, number: int | None) -> list[TraceClient]:
    return trace.clients() if number is None else trace.clients_of(number)


def _kernel(client: TraceClient) -> tuple[int, int] | None:
    if client.kernel_addr is None or not client.kernel_size:
        return None
    return (client.kernel_addr, client.kernel_size) if client.kernel_addr < SPACE_RANGE else None


def _client(client: TraceClient) -> dict[str, Any]:
    return {
        "id": client.number,
        "name": (client.name or "")[:LONGEST_WORD],
        "pid": client.pid,
        "program": (client.program or "")[:LONGEST_WORD],
        "kernel": _kernel(client),
        "start": 0,
        "end": SPACE_RANGE,
    }


def _program(told: object) -> str:
    """A program's argv as one would type it."""
    try:
        words = json.loads(str(told)) if told else []
    except ValueError:
        words = [str(told)]
    return " ".join(str(word) for word in words)[:LONGEST_WORD] if isinstance(words, list) else ""
