"""An object is evicted again and again, and comes back each time.

There is too little memory for what the program uses at a time, so every submission moves objects out and
in. Moves are copies, and everybody waits for them: a frame takes many times as long, and nothing says
why.

- warning: an object was evicted three times or more, and came back each time but the last. One finding
  for a trace, with the object that was moved most.

Only a recording has moves; JSON Lines have none.

What to do: use less at a time, map objects that have to stay in GART, or split what is large; `gpuvm
replay --vram` tells how much memory would have been enough.

Source: ttm_bo_evict, nouveau_uvmm_bind_job_submit, which validates all that is mapped.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity, times_text
from gpuvm.report.rules.example import VM_INIT, Example, gem_close, gem_new, text_of
from gpuvm.report.sizes import size_text

ID = "eviction-thrash"

_CALLS = text_of(VM_INIT, gem_new(1), gem_close(1))
_OUT = "INSERT INTO moves (t, object, size, source, target, evicted) VALUES (0, 2, 65536, 'vram', 'gart', 1);"
_IN = "INSERT INTO moves (t, object, size, source, target, evicted) VALUES (0, 2, 65536, 'gart', 'vram', 0);"
BAD = Example(_CALLS, (_OUT + _IN) * 3)
GOOD = Example(_CALLS, _OUT + _IN)

_OFTEN = 3


def find(evidence: Evidence) -> Iterator[Finding]:
    """Objects that were evicted often."""
    evicted = (
        "SELECT object, sum(evicted) AS outs, sum(target = 'vram') AS ins, sum(size), max(size) "
        "FROM moves WHERE object NOTNULL AND source NOTNULL GROUP BY object "
        "HAVING outs >= ? AND ins >= outs - 1 "
        "ORDER BY outs DESC, object"
    )
    objects = evidence.db.execute(evicted, (_OFTEN,)).fetchall()
    if not objects:
        return
    object_, outs, ins, moved, size = objects[0]
    others = ""
    if len(objects) > 1:
        all_moved = size_text(sum(one[3] for one in objects))
        others = f"; {len(objects):,} objects were moved like that, {all_moved} in all"
    message = (
        f"the object of {evidence.name(object_)}, {size_text(size)}, was evicted {times_text(outs)} and "
        f"brought back {times_text(ins)}: {size_text(moved)} moved{others}"
    )
    row = evidence.db.execute("SELECT client FROM calls WHERE id = ?", (object_,)).fetchone()
    yield Finding(ID, Severity.WARNING, message, (Role(object_, "made it"),), evidence.number(row[0]))
