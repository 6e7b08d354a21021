"""An EXEC uses memory that a VM_BIND unmaps, and nothing makes the unmap wait.

The page-table entries go when the VM_BIND runs, whatever the GPU is doing. A job that still needs them
faults, and its channel dies; or, in a sparse region, it reads zeros. A VM_BIND without RUN_ASYNC waits
for binds, not for EXECs.

- error: the job was still running when the memory went, or came after it, or the GPU faulted there.
- warning: nothing orders the two. It may have gone well this time.
- note: nothing orders the two, but the trace tells no waits at all, so the program may have waited.

What to do: have the EXEC signal a sync object, and wait for it before the unmap; or give the unmap
RUN_ASYNC and that sync object to wait for. If the EXEC came after the unmap, look for what still keeps
the address.

Source: nouveau_uvmm_bind_job_run, nouveau_uapi.h on DRM_NOUVEAU_VM_BIND_RUN_ASYNC.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity
from gpuvm.report.rules.example import (
    ADDR,
    CHANNEL,
    DESTROY,
    FREE,
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
from gpuvm.report.rules.pairs import explained, touch_text
from gpuvm.trace.conflicts import Kind

ID = "use-after-unmap"

_START = (VM_INIT, CHANNEL, SYNCOBJ, gem_new(1), vm_bind(mapped(1)), exec_(ADDR, signals=(SYNC,)))
_END = (gem_close(1), DESTROY, FREE)
BAD = Example(text_of(*_START, vm_bind(unmapped()), WAIT, *_END))
GOOD = Example(text_of(*_START, WAIT, vm_bind(unmapped()), *_END))


def find(evidence: Evidence) -> Iterator[Finding]:
    """Unmaps under an EXEC, EXECs after an unmap, and faults that name the VM_BIND that unmapped."""
    faulted = _faults(evidence)
    yield from faulted.values()
    pairs = [
        one
        for one in evidence.conflicts.found
        if one.kind in (Kind.UNMAPPED_UNDER, Kind.UNMAPPED_BEFORE) and (one.exec, one.bind) not in faulted
    ]
    yield from explained(evidence, ID, pairs, "unmaps it", "unmaps")


def _faults(evidence: Evidence) -> dict[tuple[int, int], Finding]:
    found: dict[tuple[int, int], Finding] = {}
    rows = evidence.db.execute(
        "SELECT client, call, unmapped, addr, lower(access) FROM faults "
        "WHERE call > 0 AND unmapped IS NOT NULL AND addr IS NOT NULL ORDER BY id"
    )
    for client, job, bind, addr, access in rows:
        verb = touch_text(access)
        message = f"{evidence.name(job)} {verb} {addr:#x} and faults: {evidence.name(bind)} "
        if bind < job or evidence.order.before(job, bind):
            message += "had unmapped it"
        else:
            message += f"unmaps it, and nothing makes {bind} wait for {job}"
        roles = (Role(job, verb), Role(bind, "unmaps"))
        found[job, bind] = Finding(
            ID, Severity.ERROR, message, roles, evidence.number(client), addr, addr + 1
        )
    return found
