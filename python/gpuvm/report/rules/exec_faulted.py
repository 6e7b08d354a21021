"""The GPU met an address or a method that it refused, and the channel is dead.

What was queued on the channel ended with ENODEV, and so do later EXECs. Faults where a VM_BIND that is
known had unmapped the memory are told by use-after-unmap.

- error: one finding for a fault.

Only a recording has faults; JSON Lines have none.

What to do: `gpuvm why` with the address tells what was ever there, and what lies around it.

Source: nouveau_channel_killed; faults.md for the causes.
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
from gpuvm.report.rules.pairs import touch_text

ID = "exec-faulted"

_CALLS = text_of(
    *(VM_INIT, CHANNEL, SYNCOBJ, gem_new(1), vm_bind(mapped(1)), exec_(ADDR, signals=(SYNC,)), WAIT),
    *(vm_bind(unmapped()), gem_close(1), DESTROY, FREE),
)
BAD = Example(
    _CALLS,
    "INSERT INTO faults (t, client, channel, call, addr, access, reason, cause, engine, report) "
    "VALUES (7, 1, 1, 6, 8589934592, 'READ', 'PTE', 'NEVER_MAPPED', 'copy', '{}');",
)
GOOD = Example(_CALLS)


def find(evidence: Evidence) -> Iterator[Finding]:
    """Faults that no VM_BIND is to blame for."""
    rows = evidence.db.execute(
        "SELECT client, channel, call, addr, lower(access), cause, engine FROM faults "
        "WHERE ifnull(call, 0) = 0 OR unmapped IS NULL OR addr IS NULL ORDER BY id"
    )
    for client, channel, call, addr, access, cause, engine in rows:
        who = f"channel {channel} of client {evidence.number(client)}" if not call else evidence.name(call)
        did = "was refused a method" if addr is None else f"{touch_text(access)} {addr:#x}"
        message = f"{who} faulted: its {engine} engine {did}: {cause.lower().replace('_', ' ')}"
        roles = () if not call else (Role(call, "faulted"),)
        end = None if addr is None else addr + 1
        yield Finding(ID, Severity.ERROR, message, roles, evidence.number(client), addr, end)
