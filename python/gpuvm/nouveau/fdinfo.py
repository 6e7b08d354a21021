"""What ``/proc/PID/fdinfo/FD`` tells of a client: time on engines, and memory.

Source: Documentation/gpu/drm-usage-stats.rst, ``drm_show_fdinfo``, ``drm_show_memory_stats``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuvm.mem.aperture import Domain
from gpuvm.sync.resv import Usage

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject
    from gpuvm.nouveau.client import Client

PCI_SLOT: Final = "0000:01:00.0"
"""Where the GPU is said to be."""

ENGINES: Final = ("3d", "compute", "inline", "2d", "copy")
"""Of a channel, by the names that faults call them."""

_REGIONS: Final = {Domain.VRAM: "vram", Domain.GART: "gart"}


@dataclass(slots=True)
class _Memory:
    """Bytes of objects in one region."""

    total: int = 0
    shared: int = 0
    active: int = 0
    resident: int = 0


def fdinfo(client: Client) -> str:
    """Lines of a key, a colon, a tab and a value.

    - ``drm-engine-*``: ns for which an engine executed methods of the client's channels, those that were
      freed included; what the host does, which fetches pushes and waits for semaphores, is no engine's
    - ``drm-total-*``: objects by where they are, or, if they are in neither region (not placed yet, moved to
      the CPU's side), where they would rather be; each object once, however many handles it has
    - ``drm-shared-*``: those of them that have several handles, or were exported or imported
    - ``drm-active-*``: those that some exec has yet to finish with
    - ``drm-resident-*``: those that are there; it replaces ``drm-memory-*``, so that is not told
    - ``drm-purgeable-*``: 0, as no call of nouveau's says that an object's bytes may be lost

    Sizes are in the largest unit that leaves no remainder: bytes, KiB or MiB.

    Locking: none; others may change what is counted meanwhile. Cost: O(handles).
    """
    return "".join(f"drm-{key}:\t{value}\n" for key, value in _pairs(client))


def _pairs(client: Client) -> Iterator[tuple[str, object]]:
    yield "driver", "nouveau"
    yield "client-id", client.id
    yield "pdev", PCI_SLOT
    yield "client-name", client.name
    busy = Counter(client.freed_busy)
    for channel in list(client.channels.values()):
        busy.update(dict(channel.processor.counts.busy))  # a copy: engines count meanwhile
    for engine in ENGINES:
        yield f"engine-{engine}", f"{busy[engine]} ns"
    for domain, memory in _memory(client).items():
        region = _REGIONS[domain]
        yield f"total-{region}", _size(memory.total)
        yield f"shared-{region}", _size(memory.shared)
        yield f"active-{region}", _size(memory.active)
        yield f"resident-{region}", _size(memory.resident)
        yield f"purgeable-{region}", _size(0)


def _memory(client: Client) -> dict[Domain, _Memory]:
    regions = {domain: _Memory() for domain in _REGIONS}
    for obj in dict.fromkeys(obj for _, obj in client.handles.items()):
        domain = obj.domain
        memory = regions[_home(obj, domain)]
        memory.total += obj.size
        if obj.is_shared:
            memory.shared += obj.size
        if not obj.resv.test_signalled(Usage.READ):
            memory.active += obj.size
        if domain in regions:
            memory.resident += obj.size
    return regions


def _home(obj: GemObject, domain: Domain) -> Domain:
    """The region that an object counts in: the one where it is, or the first where it may be."""
    domains = (domain, *(place.domain for place in obj.allowed), Domain.GART)
    return next(one for one in domains if one in _REGIONS)


def _size(size: int) -> str:
    """With a unit of the document's: ``drm_fdinfo_print_size``."""
    units = ["", " KiB", " MiB"]
    while size and size % 1024 == 0 and len(units) > 1:
        size //= 1024
        units.pop(0)
    return f"{size}{units[0]}"
