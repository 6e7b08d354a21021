"""The address spaces of clients, as nouveau's debugfs file ``gpuvas`` tells them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gpuvm.va.gpuvas import gpuvas_lines

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.vm import Uvmm

_REGIONS = " VA regions  | start              | range              | end                "
_RULE = "-" * 76


def gpuvas_text(clients: Iterable[Client]) -> str:
    """The space of each client that has one: its mappings, then its regions.

    An object is told by the client's lowest handle for it; 0: it has closed all.

    Locking: takes the VM's lock of one space after the other, so that each is told as it was at one moment;
    none may be held. A client that is closed meanwhile is left out, or told as empty.

    Source: ``nouveau_debugfs_gpuva``, ``nouveau_debugfs_gpuva_regions``.
    """
    return "".join(f"{line}\n" for client in clients for line in _client_lines(client))


def _client_lines(client: Client) -> list[str]:
    vm = client.vm
    if vm is None:
        return []
    with vm.lock:
        if vm.refcount == 0:  # it was closed before we got the lock
            return []
        handles: dict[object, int] = {}
        for handle, obj in client.handles.items():
            handles[obj] = min(handle, handles.get(obj, handle))
        return [*gpuvas_lines(vm, lambda obj: handles.get(obj, 0)), "", *_region_lines(vm)]


def _region_lines(vm: Uvmm) -> Iterator[str]:
    yield _REGIONS
    yield _RULE
    for region in vm.region_list():
        numbers = (region.addr, region.range, region.end)
        yield "             | " + " | ".join(f"0x{number:016x}" for number in numbers)
