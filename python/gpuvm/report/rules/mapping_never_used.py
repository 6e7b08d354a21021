"""Memory was mapped and unmapped, and no EXEC ran in between.

So the GPU cannot have used the mapping. It cost a bind, page tables, and often an object's place in VRAM.

- note: one finding for a client, with the first of them and how many there are.

Nothing is said of clients that never submit anything. What an EXEC touches is known in part only (shaders
are not executed), so a mapping counts as used if any EXEC of its client was submitted while it was there.

What to do: map when there is work for it; or keep what is mapped for the next time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity, range_text
from gpuvm.report.rules.example import (
    ADDR,
    CHANNEL,
    DESTROY,
    FREE,
    KIB,
    SYNC,
    SYNCOBJ,
    VM_INIT,
    WAIT,
    Example,
    exec_,
    gem_close,
    gem_new,
    mapped,
    text_of,
    unmapped,
    vm_bind,
)
from gpuvm.report.sizes import size_text

ID = "mapping-never-used"

_MORE = ADDR + 1024 * KIB
_EXEC = exec_(ADDR, signals=(SYNC,))
_START = (VM_INIT, CHANNEL, SYNCOBJ, gem_new(1), vm_bind(mapped(1)), gem_new(2))
_END = (vm_bind(unmapped(_MORE)), WAIT, vm_bind(unmapped()), gem_close(1), gem_close(2), DESTROY, FREE)
BAD = Example(text_of(*_START, _EXEC, vm_bind(mapped(2, _MORE)), *_END))
GOOD = Example(text_of(*_START, vm_bind(mapped(2, _MORE)), _EXEC, *_END))


def find(evidence: Evidence) -> Iterator[Finding]:
    """Mappings between whose birth and death their client submitted nothing."""
    execs: defaultdict[int, list[int]] = defaultdict(list)
    for client, call in evidence.db.execute("SELECT client, call FROM jobs WHERE channel != 0 ORDER BY call"):
        execs[client].append(call)
    unused: defaultdict[int, list[tuple[int, int, int, int | None]]] = defaultdict(list)
    # A mapping that was cut lives on in its pieces, and is left alone.
    cut = {mapping for (mapping,) in evidence.db.execute("SELECT mapping FROM ops WHERE code = 2")}
    rows = evidence.db.execute(
        "SELECT m.id, m.client, m.addr, m.addr + m.range, m.born, m.died FROM ops o JOIN mappings m "
        "ON m.id = o.mapping WHERE o.code = 0 ORDER BY o.call, o.i"
    )
    for mapping, client, addr, end, born, died in rows:
        calls = execs.get(client)
        if calls and mapping not in cut:
            at = bisect_left(calls, born)
            if at == len(calls) or (died is not None and calls[at] > died):
                unused[client].append((addr, end, born, died))
    for client, several in sorted(unused.items()):
        yield _finding(evidence, client, several)


def _finding(evidence: Evidence, client: int, unused: list[tuple[int, int, int, int | None]]) -> Finding:
    addr, end, born, died = unused[0]
    until = "until the end" if died is None else f"until {evidence.name(died)} takes it away"
    more = ""
    if len(unused) > 1:
        size = sum(last - first for first, last, *_ in unused)
        more = f"; so it is with {len(unused):,} mappings of {size_text(size)} in all"
    message = f"{evidence.name(born)} maps {range_text(addr, end)}, and no exec runs {until}{more}"
    roles = (Role(born, "maps"), *(() if died is None else (Role(died, "takes away"),)))
    return Finding(ID, Severity.NOTE, message, roles, evidence.number(client), addr, end)
