"""A client ended, and had not given back what it had.

The kernel frees everything when the last descriptor of the device is closed, so nothing is lost for long.
But a program that forgets an object at its end forgets it elsewhere, too: in a loop, or in a library that
is unloaded.

- warning: objects, mappings, sync objects or channels were left. One finding for a client, with the first
  of each.

Nothing is said of recordings that were cut short, and of programs that failed. In JSON Lines the
end of the trace counts as the end of its clients.

What to do: unmap, GEM_CLOSE, SYNCOBJ_DESTROY, CHANNEL_FREE; with Vulkan, destroy what was made, and run
under the validation layers.

Source: drm_file_free, nouveau_uvmm_fini.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity
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
from gpuvm.report.sizes import size_text
from gpuvm.trace.call_numbers import CLOSE, NUMBERS

ID = "leak-at-exit"

_START = (VM_INIT, gem_new(1), gem_new(2), vm_bind(mapped(1)), vm_bind(unmapped()), gem_close(1))
BAD = Example(text_of(*_START))
GOOD = Example(text_of(*_START, gem_close(2)))

_LEFT = "(died IS NULL OR died IN (SELECT id FROM calls WHERE nr = ?))"


def find(evidence: Evidence) -> Iterator[Finding]:
    """What every client had at its end."""
    if not evidence.ended:
        return
    first: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for what, rows in (
        ("object", _objects(evidence)),
        ("mapping", _mappings(evidence)),
        ("sync object", _syncobjs(evidence)),
        ("channel", _channels(evidence)),
    ):
        for client, count, size, call in rows:
            first[client].append((call, _counted(count, what, size)))
    for client, kinds in sorted(first.items()):
        several = ", ".join(f"{text} (the first by {evidence.name(call)})" for call, text in kinds)
        message = f"client {evidence.number(client)} ended with {several}"
        roles = tuple(Role(call, "made") for call, _ in kinds)
        yield Finding(ID, Severity.WARNING, message, roles, evidence.number(client))


def _counted(count: int, what: str, size: int) -> str:
    return f"{count:,} {what}{'s' if count > 1 else ''}" + (f" of {size_text(size)}" if size else "")


_Rows = Iterator[tuple[int, int, int, int]]
"""Client, how many, bytes, and the call of the first."""


def _objects(evidence: Evidence) -> _Rows:
    yield from evidence.db.execute(
        "SELECT client, count(*), sum(size), min(born) FROM (SELECT h.client, h.object, min(h.born) AS born, "
        f"max(ifnull(o.size, 0)) AS size FROM handles h JOIN objects o ON o.id = h.object WHERE "
        f"{_LEFT.replace('died', 'h.died')} GROUP BY h.client, h.object) GROUP BY client",
        (CLOSE,),
    )


def _mappings(evidence: Evidence) -> _Rows:
    yield from evidence.db.execute(
        f"SELECT client, count(*), sum(range), min(born) FROM mappings WHERE {_LEFT} GROUP BY client",
        (CLOSE,),
    )


def _syncobjs(evidence: Evidence) -> _Rows:
    left = _LEFT.replace("died", "s.died")
    yield from evidence.db.execute(
        f"SELECT client, count(*), 0, min(s.id) FROM syncobjs s JOIN calls ON calls.id = s.id WHERE {left} "
        "GROUP BY client",
        (CLOSE,),
    )


def _channels(evidence: Evidence) -> _Rows:
    made: defaultdict[int, dict[int, int]] = defaultdict(dict)
    alloc, free = NUMBERS["channel_alloc"], NUMBERS["channel_free"]
    rows = "SELECT id, client, nr, args FROM calls WHERE nr IN (?, ?) AND ret = 0 ORDER BY id"
    for call, client, nr, args in evidence.db.execute(rows, (alloc, free)):
        channel = json.loads(args or "{}").get("channel", 0)
        if nr == alloc:
            made[client][channel] = call
        else:
            made[client].pop(channel, None)
    for client, left in made.items():
        if left:
            yield client, len(left), 0, min(left.values())
