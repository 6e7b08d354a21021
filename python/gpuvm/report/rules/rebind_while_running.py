"""A VM_BIND maps something else where an EXEC still uses what was there, and nothing makes it wait.

The job sees the old memory, then the new one, from one access to the next: a picture with tiles of
another frame, a command buffer that changes while it is fetched. Nothing faults, so nobody tells.

- error: the job was still running when the memory changed.
- warning: nothing orders the two. It may have gone well this time.
- note: nothing orders the two, but the trace tells no waits at all, so the program may have waited.

What to do: have the EXEC signal a sync object, and let the VM_BIND wait for it, with RUN_ASYNC; or wait
for it before the call; or map the new memory at an address that no job in flight uses.

Source: nouveau_uvmm_bind_job_run, VkBindSparseInfo on the synchronisation of sparse binds.
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

ID = "rebind-while-running"

_START = (VM_INIT, CHANNEL, SYNCOBJ, gem_new(1), gem_new(2), vm_bind(mapped(1)), exec_(ADDR, signals=(SYNC,)))
_END = (vm_bind(unmapped()), gem_close(1), gem_close(2), DESTROY, FREE)
_USE = (exec_(ADDR, signals=(SYNC,)), WAIT)
BAD = Example(text_of(*_START, vm_bind(mapped(2)), WAIT, *_USE, *_END))
GOOD = Example(text_of(*_START, WAIT, vm_bind(mapped(2)), *_USE, *_END))


def find(evidence: Evidence) -> Iterator[Finding]:
    """Maps to something else under an EXEC."""
    pairs = [one for one in evidence.conflicts.found if one.kind is Kind.REPLACED_UNDER]
    yield from explained(evidence, ID, pairs, "maps something else there", "rebinds")
