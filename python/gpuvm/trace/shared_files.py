"""The file descriptors in a recording: what clients hand to each other, and what comes from elsewhere."""

from __future__ import annotations

import os
from enum import Enum, auto
from typing import TYPE_CHECKING

from gpuvm.sync.syncobj_table import HANDLE_TO_FD_EXPORT_SYNC_FILE

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.device import Device


_LAST_POINT = (1 << 64) - 1


class Kind(Enum):
    """What a descriptor names."""

    OBJECT = auto()
    SYNCOBJ = auto()
    SYNC_FILE = auto()

    @classmethod
    def of_sync(cls, flags: int) -> Kind:
        """By the flags of the call that exports or imports it, whose lowest bit says the same in both."""
        return cls.SYNC_FILE if flags & HANDLE_TO_FD_EXPORT_SYNC_FILE else cls.SYNCOBJ


class SharedFiles:
    """Our descriptors by those recorded, of which the trace tells only who made them.

    A number stands for what was exported last under it. What nobody exported, or what is of another kind, was
    made elsewhere: by a client that the trace does not know, and who is opened here for that. Close it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._ours: dict[int, tuple[Kind, int]] = {}
        self._stranger: Client | None = None

    def exported(self, recorded: int | None, kind: Kind, ours: int) -> None:
        """``ours``, which is closed here in the end, is what ``recorded`` names from now on."""
        if recorded is None:
            os.close(ours)
            return
        before = self._ours.pop(recorded, None)
        if before is not None:
            os.close(before[1])
        self._ours[recorded] = kind, ours

    def find(self, recorded: int | None, kind: Kind) -> int | None:
        """Our descriptor, if the trace has told who made one of this kind."""
        known, ours = (None, None) if recorded is None else self._ours.get(recorded, (None, None))
        return ours if known is kind else None

    # -- from elsewhere; whoever asks closes the descriptor

    def object(self, size: int, domain: int) -> int:
        """A descriptor for a new object of ``size`` bytes."""
        stranger = self._somebody()
        handle = stranger.gem_new(size, domain).handle
        try:
            return stranger.prime_handle_to_fd(handle)
        finally:
            stranger.gem_close(handle)

    def sync(self, kind: Kind) -> int:
        """A descriptor for a syncobj, or a sync file of it, of which every point is signalled.

        When they are is not recorded, and whoever waits must not wait for long.
        """
        syncobjs = self._somebody().syncobjs
        handle = syncobjs.create(0)
        try:
            syncobjs.timeline_signal([handle], [_LAST_POINT])
            return syncobjs.handle_to_fd(handle, HANDLE_TO_FD_EXPORT_SYNC_FILE * (kind is Kind.SYNC_FILE))
        finally:
            syncobjs.destroy(handle)

    def _somebody(self) -> Client:
        if self._stranger is None:
            self._stranger = self._device.open(name="elsewhere")
        return self._stranger

    def close(self) -> None:
        """Close all descriptors, and the client that made what came from elsewhere."""
        for _, fd in self._ours.values():
            os.close(fd)
        self._ours.clear()
        if self._stranger is not None:
            self._stranger.close()
            self._stranger = None
