"""Sync files: a fence as a file descriptor (the kernel's ``sync_file``)."""

from __future__ import annotations

from gpuvm.sync.descriptor import Carrier, carriers
from gpuvm.sync.fence import Fence


class _Pollable:
    """Makes the file readable when the fence is signalled, unless the file is gone before."""

    __slots__ = ("carrier", "fence")

    def __init__(self, fence: Fence) -> None:
        self.fence = fence
        self.carrier: Carrier | None = None

    def signalled(self, _fence: Fence) -> None:
        carrier = self.carrier
        if carrier is not None:
            carrier.make_readable()

    def abandoned(self) -> None:
        self.fence.remove_callback(self.signalled)
        self.carrier = None


def export_sync_file(fence: Fence) -> int:
    """A new file descriptor for ``fence``; the caller closes it.

    ``poll`` reports it as readable once the fence is signalled. The file keeps the fence until the last copy
    of the descriptor is closed, see ``descriptor``.

    Raises:
        TooManyFiles: out of descriptors.

    Source: ``sync_file_create``.
    """
    pollable = _Pollable(fence)
    number, carrier = carriers.export(fence, pollable.abandoned)
    pollable.carrier = carrier
    if fence.signalled or not fence.add_callback(pollable.signalled):
        carrier.make_readable()
    return number


def import_sync_file(number: int) -> Fence | None:
    """The fence in the sync file with descriptor ``number``; None if it is no sync file.

    Source: ``sync_file_get_fence``.
    """
    fence = carriers.find(number)
    return fence if isinstance(fence, Fence) else None
