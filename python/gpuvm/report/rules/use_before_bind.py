"""An EXEC uses memory that is being mapped, and does not wait for the VM_BIND.

A VM_BIND with RUN_ASYNC returns at once; the page table is written later, in the client's queue of binds.
EXECs are in other queues: they wait for it only if they are told to. One that comes too early faults, or
meets what was mapped there before.

- error: the EXEC ran first; or the memory is mapped by a later call only.
- warning: nothing orders the two. It may have gone well this time.
- note: nothing orders the two, but the trace tells no waits at all, so the program may have waited.

What to do: let the VM_BIND signal a sync object, and the EXEC wait for it; or bind without RUN_ASYNC.

Source: nouveau_uapi.h on DRM_NOUVEAU_VM_BIND_RUN_ASYNC, nouveau_uvmm_bind_job_run.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding
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
from gpuvm.report.rules.pairs import explained
from gpuvm.trace.conflicts import Kind

ID = "use-before-bind"

_ASYNC = 1
_START = (VM_INIT, CHANNEL, SYNCOBJ, gem_new(1))
_SECOND = {"type": "syncobj", "handle": 2}
_END = (WAIT, vm_bind(unmapped()), gem_close(1), DESTROY, FREE)
BAD = Example(text_of(*_START, vm_bind(mapped(1), flags=_ASYNC), exec_(ADDR, signals=(SYNC,)), *_END))
GOOD = Example(
    text_of(
        *_START,
        {**SYNCOBJ, "handle": 2},
        vm_bind(mapped(1), flags=_ASYNC, signals=(_SECOND,)),
        exec_(ADDR, waits=(_SECOND,), signals=(SYNC,)),
        *_END,
        {**DESTROY, "handle": 2},
    )
)


def find(evidence: Evidence) -> Iterator[Finding]:
    """EXECs that do not wait for the asynchronous bind of what they use, or come before any."""
    pairs = [one for one in evidence.conflicts.found if one.kind in (Kind.NOT_BOUND_YET, Kind.BOUND_LATER)]
    yield from explained(evidence, ID, pairs, "maps it", "maps")
