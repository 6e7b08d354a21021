"""Sync files: a fence as a file descriptor (the kernel's ``sync_file``)."""

from __future__ import annotations

from typing import Final

from gpuvm.sync.container import unwrap
from gpuvm.sync.descriptor import Carrier, carriers
from gpuvm.sync.fence import Fence


class SyncFile:
    """What a sync file's descriptor names.

    ``poll`` reports the file as readable once the fence is signalled.

    Attributes:
        fence: what it is about.
    """

    __slots__ = ("_carrier", "_user_name", "fence")

    def __init__(self, fence: Fence, name: str = "") -> None:
        self.fence: Final = fence
        self._user_name: Final = name
        self._carrier: Carrier | None = None

    @property
    def name(self) -> str:
        """What who merged it called it, or who will signal it, and where (``sync_file_get_name``)."""
        if self._user_name:
            return self._user_name
        fence = self.fence
        return f"{fence.driver}-{fence.timeline}{fence.context}-{fence.seqno}"

    @property
    def fences(self) -> list[Fence]:
        """Those that its fence is made of."""
        return [*unwrap(self.fence)]

    def export(self) -> int:
        """Open it, once: its descriptor, which the caller closes.

        Raises:
            TooManyFiles: out of descriptors.

        Source: ``sync_file_create``.
        """
        number, carrier = carriers.export(self, self._abandoned)
        self._carrier = carrier
        if self.fence.signalled or not self.fence.add_callback(self._signalled):
            carrier.make_readable()
        return number

    def _signalled(self, _fence: Fence) -> None:
        carrier = self._carrier
        if carrier is not None:
            carrier.make_readable()

    def _abandoned(self) -> None:
        self.fence.remove_callback(self._signalled)
        self._carrier = None

    def __repr__(self) -> str:
        return f'<SyncFile "{self.name}" of {self.fence!r}>'


def export_sync_file(fence: Fence, name: str = "") -> int:
    """A new file descriptor for ``fence``; the caller closes it.

    The file keeps the fence until the last copy of the descriptor is closed, see ``descriptor``.

    Args:
        name: of the file; by default it is called after the fence.

    Raises:
        TooManyFiles: out of descriptors.
    """
    return SyncFile(fence, name).export()


def find_sync_file(number: int) -> SyncFile | None:
    """The sync file with descriptor ``number``; None if that is none."""
    found = carriers.find(number)
    return found if isinstance(found, SyncFile) else None


def import_sync_file(number: int) -> Fence | None:
    """The fence in the sync file with descriptor ``number``; None if it is no sync file.

    Source: ``sync_file_get_fence``.
    """
    file = find_sync_file(number)
    return None if file is None else file.fence
