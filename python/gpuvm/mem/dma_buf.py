"""DmaBuf: an object that is shared with other clients, and with other devices (PRIME)."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from gpuvm.errors import CheckFailed, InvalidArgument, PermissionDenied
from gpuvm.mem.aperture import Domain
from gpuvm.mem.gem import Backing, GemObject
from gpuvm.mem.placement import Placement, placement_of
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.resv import Resv

if TYPE_CHECKING:
    from gpuvm.mem.device import Device


@dataclass(frozen=True, slots=True)
class DmaBufStatistics:
    """A snapshot of one DMA buffer."""

    size: int
    attached: int
    """Devices that have its object imported, or had until lately."""


class DmaBuf:
    """One object of one device, for others to import. ``DmaBuf.of(obj)``, or ``GemHandles.export``.

    It holds a reference. On its own device importing it gives the very object. On another one ``attach``
    makes an object that shows the same bytes, by the exporter's pages, under the same reservation: what one
    device does others wait for, as always. As long as that lives, the exporter's object is pinned in GART,
    where both can reach it.

    Locking: ``resv``, which ``attach`` takes.

    Attributes:
        obj: the exporter's object.

    Source: ``drivers/dma-buf/dma-buf.c``, ``drm_prime.c``, ``nouveau_prime.c``.
    """

    __slots__ = ("__weakref__", "_allowed", "_attached", "_imports", "obj")

    def __init__(self, obj: GemObject) -> None:
        if obj.no_share:
            raise PermissionDenied(f"DmaBuf: {obj!r} is private; make it without no_share to share it", obj)
        self.obj: Final = obj
        self._imports: Final[weakref.WeakKeyDictionary[Device, weakref.ref[GemObject]]] = (
            weakref.WeakKeyDictionary()
        )
        self._attached = 0
        self._allowed: Placement = ()
        """Where the exporter's object may be by default, once nobody is attached any more."""

    @classmethod
    def of(cls, obj: GemObject) -> DmaBuf:
        """What ``obj`` was imported from, or exported as, or is exported as now.

        Locking: the device's ``names.lock``.

        Raises:
            PermissionDenied: ``obj`` is not to be shared.
        """
        if obj.dma_buf is not None:
            return obj.dma_buf
        exported = None if obj.export is None else obj.export()
        if exported is None:
            exported = DmaBuf(obj)
            obj.export = weakref.ref(exported)
        return exported

    @property
    def size(self) -> int:
        """Bytes."""
        return self.obj.size

    @property
    def resv(self) -> Resv:
        """The reservation of the object, and of those imported."""
        return self.obj.resv

    @property
    def view(self) -> npt.NDArray[np.uint8]:
        """The object's bytes, as ``GemObject.view``."""
        return self.obj.view

    def attach(self, device: Device) -> GemObject:
        """The object on ``device``: the exporter's own, or one that shows its bytes, the same while it lives.

        Locking: on another device no reservation may be held; it waits for whoever uses the object.

        Raises:
            Busy: the exporter's object is pinned where the other device cannot reach it.
            GpuvmError: as ``Device.pin``; nothing was changed.

        Source: ``drm_gem_prime_import``, ``nouveau_gem_prime_pin``.
        """
        if device is self.obj.device:
            return self.obj
        with self.resv:
            known = self._imports.get(device)
            obj = None if known is None else known()
            return self._import(device) if obj is None else obj

    def _import(self, device: Device) -> GemObject:
        exporter = self.obj
        in_gart = placement_of(Domain.GART)
        exporter.device.pin(exporter, Domain.GART)
        obj = GemObject(
            device,
            Backing(_Attachment(self), self.size, self.resv),
            device.dying.add,
            name=exporter.name,
            allowed=in_gart,
            priority=exporter.priority,
            dma_buf=self,
        )
        device.adopt(obj)
        if not self._attached:
            self._allowed, exporter.allowed = exporter.allowed, in_gart
        self._attached += 1
        self._imports[device] = weakref.ref(obj)
        return obj

    def detach(self) -> bool:
        """One imported object is gone; False if the reservation is held just now, and nothing was done."""
        exporter = self.obj
        if not self.resv.trylock():
            return False
        try:
            exporter.device.unpin(exporter)
            self._attached -= 1
            if not self._attached:
                exporter.allowed = self._allowed
        finally:
            self.resv.unlock()
        return True

    # -- files

    def export_fd(self) -> int:
        """A new file descriptor that names it; the caller closes it. It can be sent to other processes.

        It keeps the buffer until its last copy is closed, see ``sync.descriptor``. It cannot be mapped: map
        the exporter's object at its ``map_handle``.

        Raises:
            TooManyFiles: out of descriptors; nothing was changed.

        Source: ``dma_buf_fd``.
        """
        return carriers.export(self)[0]

    @classmethod
    def import_fd(cls, fd: int) -> DmaBuf:
        """What ``fd`` names.

        Raises:
            InvalidArgument: no such descriptor, or not one of a DMA buffer.

        Source: ``dma_buf_get``.
        """
        dma_buf = carriers.find(fd)
        if not isinstance(dma_buf, cls):
            raise InvalidArgument(
                f"import_fd: file descriptor {fd} is no DMA buffer's; pass one of export_fd, or a copy", fd
            )
        return dma_buf

    # -- itself

    def check(self) -> None:
        """Verify that whoever is attached shows these bytes, and the pins. No call may be under way.

        Raises:
            CheckFailed: with the state.
        """
        imported = [obj for known in self._imports.values() if (obj := known()) is not None]
        foreign = [
            obj
            for obj in imported
            if obj.dma_buf is not self
            or obj.resv is not self.resv
            or (obj.fd, obj.offset, obj.size) != (self.obj.fd, self.obj.offset, self.size)
        ]
        pinned = not self._attached or (self.obj.pin_count and self.obj.domain == Domain.GART)
        if foreign or len(imported) > self._attached or self.obj.pin_count < self._attached or not pinned:
            raise CheckFailed(f"{self!r}: {self._attached} attached, imported {imported}, foreign {foreign}")

    def statistics(self) -> DmaBufStatistics:
        """Who has it."""
        return DmaBufStatistics(self.size, self._attached)

    def __repr__(self) -> str:
        return f"<DmaBuf of {self.obj!r} of {self.obj.device!r}, {self._attached} attached>"


class _Attachment:
    """The exporter's pages, as an imported object has them."""

    __slots__ = ("_dma_buf",)

    def __init__(self, dma_buf: DmaBuf) -> None:
        self._dma_buf: Final = dma_buf

    @property
    def fd(self) -> int:
        return self._dma_buf.obj.fd

    @property
    def offset(self) -> int:
        return self._dma_buf.obj.offset

    @property
    def address(self) -> int:
        return self._dma_buf.obj.backing.pages.address

    def free(self) -> bool:
        return self._dma_buf.detach()
