"""GemObject: a piece of memory that clients share, the GPU maps, and memory management moves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from gpuvm._core import WeakSet
from gpuvm.errors import CheckFailed, NotSupported
from gpuvm.mem.aperture import Domain, Extent
from gpuvm.mem.memory import Piece
from gpuvm.mem.object_file import ObjectFile
from gpuvm.mem.placement import PAGE, Placement
from gpuvm.mem.resource import PRIORITIES, Resource
from gpuvm.mem.sparse_file import data_parts
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv

if TYPE_CHECKING:
    from gpuvm.mem.device import Device
    from gpuvm.mem.dma_buf import DmaBuf


class Pages(Protocol):
    """Where an object's bytes are, and to whom they go back."""

    @property
    def fd(self) -> int:
        """The file that they are in."""

    @property
    def offset(self) -> int:
        """Where in it."""

    @property
    def address(self) -> int:
        """Where they are mapped in this process."""

    def free(self) -> bool:
        """The object is gone, and nobody uses its pages any more; False to be asked again later."""


class OwnPages:
    """A part of the device's object file."""

    __slots__ = ("_file", "_size", "offset")

    def __init__(self, file: ObjectFile, offset: int, size: int) -> None:
        self._file: Final = file
        self._size: Final = size
        self.offset: Final = offset

    @property
    def fd(self) -> int:
        """The object file."""
        return self._file.fd

    @property
    def address(self) -> int:
        """Within the mapping of the object file."""
        return self._file.address + self.offset

    def free(self) -> bool:
        """Back to the object file."""
        self._file.free(self.offset, self._size)
        return True


class Backing:
    """What an object holds, and leaves behind: its last reference may go in any thread at any moment.

    So the object's end is only noted; the device frees this at a later call, once the fences in ``resv`` have
    signalled (TTM's delayed delete): it unwires and frees ``resource``, then calls ``pages.free()``.

    Attributes:
        pages: where the bytes are.
        size: in bytes.
        resv: the object's reservation, which others may share.
        resource: where it lies; None if it has no physical address.
        owner: the object. While that ends another thread may get hold of it by such a weak reference.
    """

    __slots__ = ("owner", "pages", "resource", "resv", "size")

    def __init__(self, pages: Pages, size: int, resv: Resv) -> None:
        self.pages: Final = pages
        self.size: Final = size
        self.resv: Final = resv
        self.resource: Resource | None = None
        self.owner: weakref.ref[GemObject] | None = None

    @property
    def is_looked_at(self) -> bool:
        """Whether somebody has the object, though it seemed to be gone."""
        return self.owner is not None and self.owner() is not None


@dataclass(frozen=True, slots=True)
class GemStatistics:
    """A snapshot of one object."""

    name: str
    size: int
    in_use: int
    """Bytes of memory that it takes: what was written."""
    domain: Domain
    extents: int
    pin_count: int
    priority: int
    swapped: bool
    handles: int
    """In all clients."""
    vms: int
    """Address spaces that know it."""


class GemObject:
    """A buffer object. ``Device.create`` makes one.

    Its bytes are ``[offset, offset + size)`` of the file ``fd`` for all of its life, wherever it is placed: a
    client maps that file at ``map_handle`` by its own ``mmap``, the library looks at ``view``, and the GPU
    sees the same bytes at the physical addresses ``extents``. See ``Memory`` for how.

    Python's references count: handles, the VmBos of address spaces, files, and views hold one each. When the
    last goes, in whatever thread, the object ends; its memory is freed at the device's next call when the
    fences in its reservation have signalled.

    Locking: ``resv`` guards where it lies, ``pin_count`` and ``swapped``; ``gpuva_lock`` guards its VmBos if
    the address space is in immediate mode.

    Args:
        device: whose it is.
        backing: its bytes and its reservation.
        released: called once with ``backing`` when it ends, by a finalizer: it may do no more than note it.
        name: for reports.
        allowed: where ``Device.validate`` may put it by default.
        align: of its physical addresses, in bytes.
        no_share: it is private to the address space whose reservation it shares, and to one client.
        priority: from 0 to 3; lower ones are evicted first.
        dma_buf: what it was imported from; its pages are another device's then.

    Source: ``struct drm_gem_object``, ``struct ttm_buffer_object``.
    """

    __slots__ = (
        "__weakref__",
        "_released",
        "align",
        "allowed",
        "backing",
        "client",
        "device",
        "dma_buf",
        "export",
        "flink_name",
        "gpuva_lock",
        "handle_count",
        "name",
        "no_share",
        "pin_count",
        "priority",
        "resv",
        "size",
        "swapped",
        "vms",
    )

    def __init__(
        self,
        device: Device,
        backing: Backing,
        released: Callable[[Backing], None],
        *,
        name: str,
        allowed: Placement,
        align: int = PAGE,
        no_share: bool = False,
        priority: int = 0,
        dma_buf: DmaBuf | None = None,
    ) -> None:
        self.backing: Final = backing
        self.resv: Final = backing.resv
        """Its reservation, which private objects share with their address space."""
        self.size: Final = backing.size
        """Bytes, a multiple of 4096."""
        self.device: Final = device
        self.name: Final = name
        self.align: Final = align
        self.no_share: Final = no_share
        self.priority: Final = priority
        self.dma_buf: Final = dma_buf
        self.gpuva_lock: Final = Mutex(f"{name} gpuva_lock", lockdep.lock_class("gpuva_lock"))
        self.vms: Final = WeakSet()
        """Address spaces that have a VmBo of it, to be told when it moves."""
        self.allowed = allowed
        self.pin_count = 0
        self.swapped = False
        self.handle_count = 0
        """Handles in all clients. This and what follows: the device's ``object_name_lock``."""
        self.flink_name = 0
        """0: none."""
        self.client: weakref.ref[object] | None = None
        """Whose it is, if it is not to be shared: that client's which made the first handle."""
        self.export: weakref.ref[DmaBuf] | None = None
        """What it was exported as."""
        backing.owner = weakref.ref(self)
        self._released: Final = released  # last: what was not finished is not released

    # -- its bytes

    @property
    def fd(self) -> int:
        """The file that its bytes are in."""
        return self.backing.pages.fd

    @property
    def offset(self) -> int:
        """Where in the file ``fd``."""
        return self.backing.pages.offset

    @property
    def map_handle(self) -> int:
        """Where a client has to map the device's object file.

        Raises:
            NotSupported: it is another device's, whose file it is in.

        Source: ``drm_vma_node_offset_addr``.
        """
        if self.dma_buf is not None:
            raise NotSupported(
                f"map_handle: {self!r} was imported; map dma_buf.obj, the exporter's, in its device's file",
                self.dma_buf,
            )
        return self.offset

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Arrays made of it keep it."""
        return {
            "version": 3,
            "shape": (self.size,),
            "typestr": "|u1",
            "data": (self.backing.pages.address, False),
        }

    @property
    def view(self) -> npt.NDArray[np.uint8]:
        """Its bytes, writable, not copied. Keeps the object, and so its memory, as a mapping does."""
        return np.asarray(self)

    @property
    def is_shared(self) -> bool:
        """Whether it has several handles, or was exported or imported. Locking: none.

        Source: ``drm_gem_object_is_shared_for_memory_stats``.
        """
        exported = self.export is not None and self.export() is not None
        return exported or self.dma_buf is not None or self.handle_count > 1

    # -- where it lies

    @property
    def resource(self) -> Resource | None:
        """Its physical memory; None if it is on the CPU's side only. Locking: ``resv``."""
        return self.backing.resource

    @resource.setter
    def resource(self, resource: Resource | None) -> None:
        self.backing.resource = resource

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Its physical addresses, in the order of its bytes; none on the CPU's side. Locking: ``resv``."""
        resource = self.backing.resource
        return () if resource is None else resource.extents

    @property
    def domain(self) -> Domain:
        """Where it is. Locking: ``resv``."""
        resource = self.resource
        return Domain.CPU if resource is None else resource.domain

    # -- itself

    def check(self) -> None:
        """Verify that its extents show its bytes, and its counts. Locking: ``resv``, or no call under way.

        Raises:
            CheckFailed: with the state.
        """
        offset = self.offset
        for aperture, addr, range in self.extents:
            pieces = self.device.memory(aperture).backing(addr, range)
            if pieces != [Piece(self.fd, offset, range)]:
                raise CheckFailed(f"{self!r}: {pieces} behind {addr:#x}, not {(self.fd, offset, range)}")
            offset += range
        broken = (
            (self.size <= 0 or self.size % PAGE != 0, "its size is not whole pages"),
            (bool(self.extents) and offset != self.offset + self.size, "its extents are of another size"),
            (not 0 <= self.priority < PRIORITIES, "no such priority"),
            (min(self.pin_count, self.handle_count, self.flink_name) < 0, "a count is negative"),
            (self.swapped and self.resource is not None, "swapped out, but placed"),
            (self.flink_name > 0 and self.handle_count == 0, "a name without a handle"),
            (self.flink_name > 0 and not self.device.names.knows(self), "its name is another's"),
            (self.dma_buf is not None and self.domain == Domain.VRAM, "imported, but in VRAM"),
        )
        words = [what for wrong, what in broken if wrong]
        if words:
            raise CheckFailed(f"{self!r}: {'; '.join(words)}\n{self.statistics()}\n{self.resource!r}")

    def statistics(self) -> GemStatistics:
        """What it takes, and who knows it. Cost: O(parts in use)."""
        return GemStatistics(
            name=self.name,
            size=self.size,
            in_use=sum(range for _, range in data_parts(self.fd, self.offset, self.size)),
            domain=self.domain,
            extents=len(self.extents),
            pin_count=self.pin_count,
            priority=self.priority,
            swapped=self.swapped,
            handles=self.handle_count,
            vms=len(self.vms),
        )

    def __repr__(self) -> str:
        return f'<GemObject "{self.name}" {self.size:#x} in {self.domain.name}>'

    def __del__(self) -> None:
        released = getattr(self, "_released", None)  # None: it was never finished
        if released is not None:
            released(self.backing)
