"""A sparse region in which nothing was ever mapped.

Reads there give zeros, and writes vanish. That can be meant: a buffer that stays empty. But mostly
somebody made room for tiles that never came, or mapped them at another address.

- note: it cannot be known whether it is meant. One finding for a client, with the first region.

What to do: see where its tiles are mapped instead; or make the region when there is something to map.

Source: DRM_NOUVEAU_VM_BIND_SPARSE in nouveau_drm.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity, range_text
from gpuvm.report.rules.example import (
    ADDR,
    KIB,
    VM_INIT,
    Example,
    gem_close,
    gem_new,
    mapped,
    text_of,
    unmapped,
    vm_bind,
)

ID = "sparse-never-populated"

_SPARSE = {"flags": 0x100}
_MAKE = vm_bind({**mapped(0, ADDR, 1024 * KIB), **_SPARSE})
_DROP = vm_bind({**unmapped(ADDR, 1024 * KIB), **_SPARSE})
BAD = Example(text_of(VM_INIT, _MAKE, _DROP))
GOOD = Example(text_of(VM_INIT, _MAKE, gem_new(1), vm_bind(mapped(1, ADDR + 64 * KIB)), _DROP, gem_close(1)))


def find(evidence: Evidence) -> Iterator[Finding]:
    """Regions without a mapping in all their life."""
    rows = evidence.db.execute(
        "SELECT r.client, r.born, r.died, r.addr, r.addr + r.range FROM regions r WHERE NOT EXISTS ("
        "SELECT 1 FROM mappings m WHERE m.addr >= r.addr AND m.addr < r.addr + r.range "
        "AND m.client = r.client AND m.born >= r.born AND m.born < ifnull(r.died, 1 << 62))"
    ).fetchall()
    for client, group in groupby(sorted(rows), key=itemgetter(0)):
        regions = [*group]
        _, born, died, addr, end = regions[0]
        until = "is still there at the end" if died is None else f"{evidence.name(died)} drops it"
        more = f"; so it is with {len(regions):,} regions" if len(regions) > 1 else ""
        message = (
            f"{evidence.name(born)} makes a sparse region of {range_text(addr, end)}, in which nothing is "
            f"ever mapped; {until}{more}"
        )
        roles = (Role(born, "makes it"), *(() if died is None else (Role(died, "drops it"),)))
        yield Finding(ID, Severity.NOTE, message, roles, evidence.number(client), addr, end)
