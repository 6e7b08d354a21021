"""GemCalls: a client's calls about objects: making them, sharing them, waiting for who uses them."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np
import numpy.typing as npt

from gpuvm.errors import (
    BadFile,
    Busy,
    InvalidArgument,
    NoSpace,
    NotFound,
    NotSupported,
    OutOfMemory,
    Unavailable,
)
from gpuvm.exec import Exec
from gpuvm.mem import Domain, GemHandles, GemObject
from gpuvm.mem.placement import CPU_PLACE, PAGE
from gpuvm.nouveau.open_file import OpenFile
from gpuvm.nouveau.uapi.requests import GemInfo
from gpuvm.sync.resv import Usage

if TYPE_CHECKING:
    from gpuvm.nouveau.device import Device
    from gpuvm.nouveau.vm import Uvmm

GEM_DOMAIN_NO_SHARE: Final = 1 << 5
"""Private to the client's address space, whose reservation it shares (``NOUVEAU_GEM_DOMAIN_NO_SHARE``)."""
GEM_TILE_NONCONTIG: Final = 1 << 3
"""It need not be contiguous. Here none has to be: engines find all of it by page tables."""
CPU_PREP_NOWAIT: Final = 1 << 0
CPU_PREP_WRITE: Final = 1 << 2
PRIME_FLAGS: Final = os.O_CLOEXEC | os.O_RDWR
"""``DRM_CLOEXEC``: programs that are started do not get it; ``DRM_RDWR``: it may be written to."""

_KIND_SHIFT: Final = 8
"""Of the storage kind, a byte, in the tile flags."""
_CPU_PREP_TIMEOUT: Final = 30.0
"""Seconds."""
_PLACES: Final = Domain.VRAM | Domain.GART
_NO_MAP_HANDLE: Final = 1 << 62
"""No file is so long: what is another device's cannot be mapped through this one."""


class GemCalls:
    """The part of a ``Client`` that is about objects.

    Attributes:
        device: whose client it is.
        name: for reports.
        handles: its objects by handle.
        vm: its address space, once VM_INIT made one.
    """

    def __init__(self, device: Device, name: str, file: OpenFile) -> None:
        self.device: Final = device
        self.name: Final = name
        self.handles: Final = GemHandles(device.mem, name)
        self.vm: Uvmm | None = None
        self._file: Final = file
        self._legacy = False
        """It began without an address space of its own, and so can have none any more."""
        self._serials: Final = itertools.count(1)

    def gem_new(
        self, size: int, domain: int, *, align: int = 0, tile_mode: int = 0, tile_flags: int = 0
    ) -> GemInfo:
        """GEM_NEW: a new object, all zeros. It takes memory when it is mapped, or written by the CPU.

        Without an address space there will be none any more.

        Args:
            size: bytes; rounded up to pages, or to a multiple of ``align``.
            domain: bits ``NOUVEAU_GEM_DOMAIN_*``: where it may be, and whether it is private.
            align: bytes that its addresses in memory are multiples of: 0, or a power of two.
            tile_mode, tile_flags: kept for ``gem_info``, in every client.

        Raises:
            InvalidArgument: size 0, private without an address space, no such kind, or no power of two.
            OutOfMemory: it is larger than the memory that it asks for, or numbers or addresses are short.

        Source: ``nouveau_gem_ioctl_new``.
        """
        with self._file:
            return self._new(size, domain, align, tile_mode, tile_flags)

    # What has an object in hand is a call of its own within ``with self._file``: the client may go with that.

    def _new(self, size: int, domain: int, align: int, tile_mode: int, tile_flags: int) -> GemInfo:
        places = Domain(domain & int(_PLACES)) or Domain.CPU
        private = self._private_to(domain)
        kind = self._kind_of(tile_flags)
        if align & (align - 1):
            raise InvalidArgument(f"GEM_NEW: align {align:#x}; pass a power of two, or 0", align)
        self._require_room(size, max(align, PAGE), places)
        try:
            obj = self.device.mem.create(
                size,
                places,
                resv=None if private is None else private.resv,
                no_share=private is not None,
                name=f"{self.name} bo {next(self._serials)}",
                align=max(align, PAGE),
            )
        except NoSpace as error:
            raise OutOfMemory(f"GEM_NEW: {error.strerror}", size) from error
        self._place_if_short(obj)
        if tile_mode or tile_flags:
            flags = kind << _KIND_SHIFT | tile_flags & GEM_TILE_NONCONTIG
            self.device.tilings[obj] = tile_mode, flags
        info = self._info(self.handles.create(obj), obj)
        self._legacy |= self.vm is None
        return info

    def _private_to(self, domain: int) -> Uvmm | None:
        """Whose reservation the object is to share."""
        if not domain & GEM_DOMAIN_NO_SHARE:
            return None
        if self.vm is None:
            raise InvalidArgument("GEM_NEW: NO_SHARE needs an address space; call VM_INIT before", domain)
        return self.vm

    def _kind_of(self, tile_flags: int) -> int:
        kind, kinds = tile_flags >> _KIND_SHIFT & 0xFF, self.device.chip.format.kinds
        if not kinds.has(kind):
            raise InvalidArgument(
                f"GEM_NEW: kind {kind:#x} in the tile flags; {kinds.name} has none such", kind
            )
        return kind

    def _require_room(self, size: int, align: int, places: Domain) -> None:
        """That it would fit if it were the only one: who binds it should not be told so."""
        if size <= 0:
            raise InvalidArgument(f"GEM_NEW: size {size}; pass at least 1 byte", size, 1)
        memories = ((Domain.VRAM, self.device.mem.vram), (Domain.GART, self.device.mem.gart))
        bound = max((memory.size for domain, memory in memories if domain & places), default=1 << 47)
        taken = -(-size // align) * align
        if taken > bound:
            raise OutOfMemory(f"GEM_NEW: {taken:#x} bytes, where {places!r} has {bound:#x}", taken, bound)

    def _place_if_short(self, obj: GemObject) -> None:
        """Have it where it may be now, if memory may be short: who binds it should not be told so.

        What is private to the same address space and mapped there does not make room for it: a submission
        uses all of that.

        Source: ``nouveau_bo_init``, which always does; ``ttm_bo_evict_swapout_allowable``.
        """
        mem = self.device.mem
        if mem.object_file.used <= min(mem.vram.size, mem.gart.size) or obj.allowed == (CPU_PLACE,):
            return
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(obj)
                    mem.validate(obj, exec=exec)

    def gem_info(self, handle: int) -> GemInfo:
        """GEM_INFO: what is known of an object.

        ``domain`` is the one memory that it may be in. If that is both or none it says GART of what is there,
        VRAM of all else, as the kernel does. Of what another device exported ``map_handle`` leads nowhere.

        Raises:
            NotFound: no such handle.

        Source: ``nouveau_gem_info``.
        """
        with self._file:
            return self._info(handle, self.handles.lookup(handle))

    def _info(self, handle: int, obj: GemObject) -> GemInfo:
        places = Domain(0)
        for place in obj.allowed:
            places |= place.domain
        if places not in (Domain.VRAM, Domain.GART):
            places = Domain.GART if obj.domain is Domain.GART else Domain.VRAM
        try:
            map_handle = obj.map_handle
        except NotSupported:
            map_handle = _NO_MAP_HANDLE
        tile_mode, tile_flags = self.device.tilings.get(obj, (0, 0))
        return GemInfo(handle, int(places), obj.size, 0, map_handle, tile_mode, tile_flags)

    def gem_close(self, handle: int) -> None:
        """GEM_CLOSE: forget a handle; mappings keep the object.

        Raises:
            InvalidArgument: no such handle.
        """
        with self._file:
            try:
                self.handles.close(handle)
            except NotFound as error:
                raise InvalidArgument(f"GEM_CLOSE: {error.strerror}", handle) from error

    def gem_cpu_prep(self, handle: int, flags: int = 0) -> None:
        """GEM_CPU_PREP: wait until the CPU may read it, or write with ``CPU_PREP_WRITE``.

        Raises:
            NotFound: no such handle.
            Busy: it is in use, with ``CPU_PREP_NOWAIT``; or still after 30 s.
            Interrupted: the task was.

        Source: ``nouveau_gem_ioctl_cpu_prep``.
        """
        with self._file:
            self._wait_for_users(handle, flags)

    def _wait_for_users(self, handle: int, flags: int) -> None:
        obj = self.handles.lookup(handle)
        usage = Usage.rw(bool(flags & CPU_PREP_WRITE))
        timeout = 0 if flags & CPU_PREP_NOWAIT else _CPU_PREP_TIMEOUT
        if not obj.resv.wait(usage, timeout, interruptible=True):
            raise Busy(
                f"CPU_PREP: {obj!r} is in use after {timeout} s, by {obj.resv.fences(usage)}; wait for these",
                timeout,
            )

    def gem_cpu_fini(self, handle: int) -> None:
        """GEM_CPU_FINI: the CPU is done with it; nothing is to be flushed.

        Raises:
            NotFound: no such handle.
        """
        with self._file:
            self.handles.lookup(handle)

    def gem_pushbuf(self) -> NoReturn:
        """GEM_PUSHBUF: refused, to who binds and to who does not.

        Raises:
            Unavailable: always.
        """
        with self._file:
            raise Unavailable("GEM_PUSHBUF: this driver executes by EXEC only; call VM_INIT, VM_BIND, EXEC")

    def prime_handle_to_fd(self, handle: int, flags: int = 0) -> int:
        """``DRM_IOCTL_PRIME_HANDLE_TO_FD``: a file descriptor that others import; the caller closes it.

        Args:
            flags: of ``PRIME_FLAGS``.

        Raises:
            InvalidArgument: other flags.
            NotFound: no such handle.
            PermissionDenied: it is private.
            TooManyFiles: out of descriptors.

        Source: ``drm_prime_handle_to_fd_ioctl``.
        """
        with self._file:
            if flags & ~PRIME_FLAGS:
                raise InvalidArgument(
                    f"PRIME_HANDLE_TO_FD: flags {flags:#o}; pass O_CLOEXEC and O_RDWR at most",
                    flags,
                    PRIME_FLAGS,
                )
            fd = self.handles.export_fd(handle)
            if not flags & os.O_CLOEXEC:
                os.set_inheritable(fd, True)
            return fd

    def prime_fd_to_handle(self, fd: int) -> int:
        """``DRM_IOCTL_PRIME_FD_TO_HANDLE``: the handle of what was exported, here or on another device.

        Raises:
            BadFile: not open.
            InvalidArgument: no DMA buffer.
            GpuvmError: as ``DmaBuf.attach``.

        Source: ``drm_prime_fd_to_handle_ioctl``.
        """
        with self._file:
            try:
                os.fstat(fd)
            except (OSError, OverflowError) as error:
                raise BadFile(f"PRIME_FD_TO_HANDLE: {fd} is no open file descriptor", fd) from error
            return self.handles.import_fd(fd)

    def view(self, handle: int) -> npt.NDArray[np.uint8]:
        """Its bytes, as ``mmap`` at ``GemInfo.map_handle`` shows them. Keeps the object.

        Raises:
            NotFound: no such handle.
        """
        with self._file:
            return self.handles.lookup(handle).view
