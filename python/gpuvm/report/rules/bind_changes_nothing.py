"""A VM_BIND asks for what is so already.

It unmaps where nothing is mapped, or maps the same part of the same object that is there. Each such call
takes the locks of the address space, and waits for the binds before it, for nothing. Often it is a sign
of two places in a program that both believe they have to clean up.

- note: one finding for a client, with the first calls.

Calls without operations are not meant, nor such that signal a sync object: these are used to order
others.

What to do: remember what is bound, and leave the call out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity, range_text
from gpuvm.report.rules.example import (
    VM_INIT,
    Example,
    gem_close,
    gem_new,
    mapped,
    text_of,
    unmapped,
    vm_bind,
)
from gpuvm.trace.call_numbers import NUMBERS

ID = "bind-changes-nothing"

_START = (VM_INIT, gem_new(1), vm_bind(mapped(1)))
_END = (vm_bind(unmapped()), gem_close(1))
BAD = Example(text_of(*_START, vm_bind(mapped(1)), *_END))
GOOD = Example(text_of(*_START, *_END))

_NAMED = 3
"""So many calls are named."""


def find(evidence: Evidence) -> Iterator[Finding]:
    """Accepted VM_BINDs after which everything is as before, as far as is known what they did."""
    changing = evidence.conflicts.changing
    idle: defaultdict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
    rows = evidence.db.execute(
        "SELECT c.client, c.id, o.code, o.addr, o.addr + o.range FROM calls c "
        "JOIN bind_ops o ON o.call = c.id AND o.i = 0 WHERE c.nr = ? AND c.ret = 0 "
        "AND NOT EXISTS (SELECT 1 FROM syncs s WHERE s.call = c.id AND s.role = 1) "
        "AND c.id NOT IN (SELECT call FROM doubts) ORDER BY c.id",
        (NUMBERS["vm_bind"],),
    )
    for client, call, code, addr, end in rows:
        if call not in changing:
            idle[client].append((call, code, addr, end))
    for client, calls in sorted(idle.items()):
        call, code, addr, end = calls[0]
        did = "unmaps {}, where nothing is mapped" if code else "maps {} again as it is"
        more = f"; {len(calls) - 1:,} more change nothing" if len(calls) > 1 else ""
        if more:
            named = [str(other) for other, *_ in calls[1 : _NAMED + 1]]
            more += f": call {', '.join(named)}{', ...' if len(calls) > _NAMED + 1 else ''}"
        message = f"{evidence.name(call)} {did.format(range_text(addr, end))}{more}"
        roles = tuple(Role(other, "changes nothing") for other, *_ in calls[:_NAMED])
        yield Finding(ID, Severity.NOTE, message, roles, evidence.number(client), addr, end)
