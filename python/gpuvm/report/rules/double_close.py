"""A handle or a channel was given back twice.

The second call fails, today. But numbers are used again: as soon as another thread, or another line of
the program, gets the same one in between, the second call takes its object away.

- error: GEM_CLOSE, SYNCOBJ_DESTROY or CHANNEL_FREE of something that had been given back.

What to do: forget the number where it is given back, and find out who of the two is the owner.

Source: drm_gem_handle_delete, drm_syncobj_destroy, nouveau_abi16_ioctl_channel_free.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity
from gpuvm.report.rules.example import VM_INIT, Example, gem_close, gem_new, text_of
from gpuvm.trace.call_numbers import NAMES, NUMBERS

ID = "double-close"

_EINVAL = -22
_START = (VM_INIT, gem_new(1), gem_close(1))
BAD = Example(text_of(*_START, gem_close(1, ret=_EINVAL)))
GOOD = Example(text_of(*_START, gem_new(1), gem_close(1)))

_CLOSES: Final = {"gem_close": "handle", "syncobj_destroy": "sync object", "channel_free": "channel"}


def find(evidence: Evidence) -> Iterator[Finding]:
    """Refused closes of what an earlier one had closed."""
    closed: dict[tuple[int, str, int], int] = {}
    rows = evidence.db.execute(
        "SELECT c.id, c.client, c.nr, c.ret, c.args, s.handle FROM calls c "
        "LEFT JOIN syncs s ON s.call = c.id AND s.i = 0 WHERE c.nr IN (?, ?, ?) ORDER BY c.id",
        [NUMBERS[name] for name in _CLOSES],
    )
    for call, client, nr, ret, text, handle in rows:
        name = NAMES[nr]
        args = json.loads(text) if text else {}
        number = handle if handle is not None else args.get("handle", args.get("channel", 0))
        key = client, name, number
        if ret == 0:
            closed[key] = call
        elif key in closed:
            first = evidence.name(closed[key])
            message = f"{evidence.name(call)} gives {_CLOSES[name]} {number} back, as {first} had"
            roles = (Role(call, "gives back again"), Role(closed[key], "gives back"))
            yield Finding(ID, Severity.ERROR, message, roles, evidence.number(client))
