"""GemHandles: the objects that one client knows, by handle (``struct drm_file``)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from gpuvm.errors import CheckFailed, InvalidArgument, NotFound, PermissionDenied
from gpuvm.mem.dma_buf import DmaBuf
from gpuvm.mem.gem import GemObject
from gpuvm.mem.idr import Idr

if TYPE_CHECKING:
    from gpuvm.mem.device import Device


@dataclass(frozen=True, slots=True)
class GemHandlesStatistics:
    """A snapshot of one client's handles."""

    name: str
    handles: int
    objects: int
    """Distinct ones; one may have several handles."""
    size: int
    """Bytes of the objects."""
    dma_bufs: int
    """Exported or imported ones that are remembered."""


class GemHandles:
    """The objects of one client of a device, each known by one or several handles, small numbers from 1 on.

    Handles hold references. ``with`` closes all of them in the end; who neither uses it nor calls
    ``close_all`` leaves names and counts behind.

    An object made with ``no_share`` belongs to the client that made its first handle, for as long as the
    object lives: it is neither exported nor named, and nobody else gets a handle.

    Locking: any thread may call anything; calls but ``lookup`` take the device's ``names.lock``. No
    reservation may be held where an object of another device is imported.

    Args:
        device: whose objects.
        name: the client's, for reports.

    Source: ``drivers/gpu/drm/drm_gem.c``, ``drm_prime.c``.
    """

    def __init__(self, device: Device, name: str = "client") -> None:
        self.device: Final = device
        self.name: Final = name
        self._objects: Final = Idr[GemObject]("handle")
        self._dma_bufs: Final[dict[int, DmaBuf]] = {}
        """By handle: what it was exported as or imported from."""
        self._handles: Final[dict[DmaBuf, list[int]]] = {}
        """The other way round."""

    # -- handles

    def create(self, obj: GemObject) -> int:
        """A further handle of ``obj``, the lowest that is free. Cost: O(log handles).

        Raises:
            InvalidArgument: it is another device's; ``import_`` it.
            PermissionDenied: it belongs to another client, which does not share it.
            OutOfMemory: a test wants so; nothing was changed.

        Source: ``drm_gem_handle_create``, ``nouveau_gem_object_open``.
        """
        if obj.device is not self.device:
            raise InvalidArgument(
                f"create: {obj!r} is of {obj.device!r}, not of {self.device!r}; export and import it",
                obj.device,
                self.device,
            )
        with self.device.names.lock:
            return self._create(obj)

    def _create(self, obj: GemObject) -> int:
        if obj.no_share and obj.client is not None and obj.client() is not self:
            raise PermissionDenied(
                f'create: {obj!r} belongs to another client than "{self.name}", which does not share it; '
                "make objects that are shared without no_share",
                obj,
            )
        handle = self._objects.insert(obj)
        obj.handle_count += 1
        if obj.no_share:
            obj.client = weakref.ref(self)
        return handle

    def lookup(self, handle: int) -> GemObject:
        """The object of a handle. Locking: none. Cost: that of a dictionary.

        Raises:
            NotFound: no such handle.

        Source: ``drm_gem_object_lookup``.
        """
        obj = self._objects.get(handle)
        if obj is None:
            raise self.unknown("lookup", handle)
        return obj

    @property
    def by_handle(self) -> dict[int, GemObject]:
        """The objects as they are at any moment, for who looks many up; not to be changed. Locking: none."""
        return self._objects.entries

    def unknown(self, call: str, handle: int) -> NotFound:
        """What ``call`` raises for a handle that is not there."""
        return NotFound(f'{call}: client "{self.name}" has no handle {handle}; pass one that is open', handle)

    def close(self, handle: int) -> None:
        """Forget a handle. With an object's last one, in whatever client, its name goes.

        Raises:
            NotFound: no such handle, perhaps closed already.

        Source: ``drm_gem_handle_delete``.
        """
        with self.device.names.lock:
            self._close(handle)

    def _close(self, handle: int) -> None:
        obj = self._objects.remove(handle)
        if obj is None:
            raise self.unknown("close", handle)
        self._forget_dma_buf(handle)
        obj.handle_count -= 1
        if not obj.handle_count:
            self.device.names.drop(obj)

    def close_all(self) -> None:
        """Forget every handle, as when the client closes the device (``drm_gem_release``)."""
        with self.device.names.lock:
            for handle in self._objects:
                self._close(handle)

    def __iter__(self) -> Iterator[int]:
        """Handles, the oldest first, as they are now."""
        return iter(self._objects)

    def items(self) -> list[tuple[int, GemObject]]:
        """Handles and their objects, the oldest first, as they are now. Locking: none."""
        return self._objects.items()

    def __len__(self) -> int:
        return len(self._objects)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_all()

    # -- sharing by name, within a device

    def flink(self, handle: int) -> int:
        """The object's name on the device; a new one if it has none.

        Raises:
            NotFound: no such handle.
            PermissionDenied: the object is not to be shared.
            OutOfMemory: a test wants so; nothing was changed.

        Source: ``drm_gem_flink_ioctl``.
        """
        with self.device.names.lock:
            return self.device.names.give(self._shareable("flink", handle))

    def open(self, name: int) -> int:
        """A new handle of the object that has this name.

        Raises:
            NotFound: no object has.
            OutOfMemory: a test wants so; nothing was changed.

        Source: ``drm_gem_open_ioctl``.
        """
        with self.device.names.lock:
            return self._create(self.device.names.find(name))

    def _shareable(self, call: str, handle: int) -> GemObject:
        obj = self._objects.get(handle)
        if obj is None:
            raise self.unknown(call, handle)
        if obj.no_share:
            raise PermissionDenied(f"{call}: {obj!r} is private; make it without no_share to share it", obj)
        return obj

    # -- sharing by file, between devices too (PRIME)

    def export(self, handle: int) -> DmaBuf:
        """The object as a DMA buffer: always the same one while anybody has it.

        An object that was imported from another device is exported as what it was imported from.

        Raises:
            NotFound: no such handle.
            PermissionDenied: the object is not to be shared.

        Source: ``drm_gem_prime_handle_to_dmabuf``.
        """
        with self.device.names.lock:
            dma_buf = DmaBuf.of(self._shareable("export", handle))
            self._remember_dma_buf(handle, dma_buf)
            return dma_buf

    def import_(self, dma_buf: DmaBuf) -> int:
        """The handle of what ``dma_buf`` has: the one that it was exported by or imported as, or a new one.

        Locking: if it is another device's, no reservation may be held: see ``DmaBuf.attach``.

        Raises:
            OutOfMemory: nothing was changed.
            GpuvmError: as ``DmaBuf.attach``.

        Source: ``drm_gem_prime_fd_to_handle``.
        """
        with self.device.names.lock:
            known = self._handles.get(dma_buf)
            if known:
                return known[0]
            handle = self._create(dma_buf.attach(self.device))
            self._remember_dma_buf(handle, dma_buf)
            return handle

    def _remember_dma_buf(self, handle: int, dma_buf: DmaBuf) -> None:
        if handle not in self._dma_bufs:
            self._dma_bufs[handle] = dma_buf
            self._handles.setdefault(dma_buf, []).append(handle)

    def _forget_dma_buf(self, handle: int) -> None:
        dma_buf = self._dma_bufs.pop(handle, None)
        if dma_buf is not None:
            handles = self._handles[dma_buf]
            handles.remove(handle)
            if not handles:
                del self._handles[dma_buf]

    def export_fd(self, handle: int) -> int:
        """A new file descriptor for ``export(handle)``; the caller closes it.

        Raises:
            TooManyFiles: out of descriptors.
            GpuvmError: as ``export``.

        Source: ``DRM_IOCTL_PRIME_HANDLE_TO_FD``.
        """
        return self.export(handle).export_fd()

    def import_fd(self, fd: int) -> int:
        """``import_`` of what the file descriptor ``fd`` names.

        Raises:
            InvalidArgument: it names no DMA buffer.
            GpuvmError: as ``import_``.

        Source: ``DRM_IOCTL_PRIME_FD_TO_HANDLE``.
        """
        return self.import_(DmaBuf.import_fd(fd))

    # -- itself

    def check(self) -> None:
        """Verify handles, counts and what is remembered. Call it while no thread is inside a call.

        Raises:
            CheckFailed: with the state.
        """
        self._objects.check()
        for handle, obj in self._objects.items():
            mine = sum(other is obj for _, other in self._objects.items())
            foreign = obj.no_share and (obj.client is None or obj.client() is not self)
            if obj.device is not self.device or obj.handle_count < mine or foreign:
                raise CheckFailed(
                    f"{self!r}: handle {handle} of {obj!r}, which has {obj.handle_count} handles"
                )
        for handle, dma_buf in self._dma_bufs.items():
            obj = self.lookup(handle)
            if DmaBuf.of(obj) is not dma_buf:
                raise CheckFailed(f"{self!r}: handle {handle} of {obj!r} is remembered as {dma_buf!r}")
        remembered = [(handle, dma_buf) for dma_buf, handles in self._handles.items() for handle in handles]
        if len(remembered) != len(self._dma_bufs) or dict(remembered) != self._dma_bufs:
            raise CheckFailed(f"{self!r}: {self._dma_bufs} by handle, {self._handles} by DMA buffer")

    def statistics(self) -> GemHandlesStatistics:
        """How many there are. O(handles)."""
        items = self._objects.items()
        objects = {id(obj): obj.size for _, obj in items}
        return GemHandlesStatistics(
            self.name, len(items), len(objects), sum(objects.values()), len(self._dma_bufs)
        )

    def __repr__(self) -> str:
        return f'<GemHandles "{self.name}" of {self.device!r}: {len(self)}>'
