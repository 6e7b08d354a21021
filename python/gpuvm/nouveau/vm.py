"""Uvmm: a client's address space: mappings, their page-table entries, their objects' memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from gpuvm.errors import Busy, GpuvmError, InvalidArgument
from gpuvm.exec import Exec, ExecFlags, GpuVm, Lockable
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.backend import Backend, BackendStatistics
from gpuvm.mmu.formats.format import NEVER, PteFlags
from gpuvm.mmu.page_table import PageTable
from gpuvm.nouveau.bind import Bind, BindOp, OpCode
from gpuvm.nouveau.contents import check_contents
from gpuvm.nouveau.moving import bring_back, bring_in, invalidate
from gpuvm.nouveau.prepare import check_op, prepare_op
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv
from gpuvm.va import Region, Regions, Statistics, VmBo

if TYPE_CHECKING:
    from gpuvm.mem.device import Device
    from gpuvm.mem.gem import GemObject

VA_BITS: Final = 47
"""Of an address that clients may use (``NOUVEAU_VA_SPACE_BITS``)."""


@dataclass(frozen=True, slots=True)
class UvmmStatistics(Statistics):
    """A snapshot of one ``Uvmm``: its address space, and what became of it in the page table."""

    binds: int
    """Bind calls that were committed."""
    bind_ops: int
    """Operations in them."""
    kept: int
    """Page slots whose entries binds wrote over without clearing them first, as ``keep`` allows."""
    pending: int
    """Binds that were prepared and not cleaned up."""
    backend: BackendStatistics


class Uvmm(GpuVm):
    """An address space whose mappings are put into effect by a backend, in the three stages of a bind job.

    - a driver's way: ``prepare``, then the stages of ``Bind``, in jobs
    - a program's way: ``bind``, all in one call, and ``validate_all``
    - memory management's: ``bo_evict``, and ``validate`` as of any ``GpuVm``

    A mapping is invalidated from the moment its object is moved until ``validate`` has brought the object
    back, and has no entries then; what validate cannot bring back stays so.

    ``sm_map``, ``insert`` and their like are for looking only: what they change has no pages.

    Locking: ``lock`` is the VM's lock of ``GpuVm``; then reservations; then the backend's locks. Whoever
    binds holds the VM's lock and the reservations of all objects that it maps, unmaps or cuts. Whoever moves
    an object holds its reservation, which is enough.

    Args:
        name: what messages and tables call it.
        device: whose objects are mapped.
        backend: page tables, or what stands in for them. It stays the caller's, to be closed after ``close``.
        range: length in bytes. The space begins where the backend's does. Default: as much as the backend
            has, 2**47 at most.
        kernel_node: (addr, range) that clients cannot map; see ``GpuvaManager``.
        honour_keep: do not clear entries that a bind writes again as they are; see ``page_change``.

    Raises:
        InvalidArgument: no device, no backend, one that does not reach so far, or as from ``GpuVm``.

    Source: ``struct nouveau_uvmm``.
    """

    def __init__(
        self,
        name: str,
        *,
        device: Device,
        backend: Backend,
        range: int | None = None,
        kernel_node: tuple[int, int] | None = None,
        honour_keep: bool = True,
    ) -> None:
        if not callable(getattr(device, "validate", None)):
            raise InvalidArgument(f'Uvmm "{name}": device {device!r}; pass a Device', device)
        if not callable(getattr(backend, "unmap", None)):
            raise InvalidArgument(f'Uvmm "{name}": backend {backend!r}; pass a PageTable or alike', backend)
        if range is None:
            range = min(backend.range, (1 << VA_BITS) - backend.start)
        if range > backend.range:
            raise InvalidArgument(
                f'Uvmm "{name}": range {range:#x} is more than {backend.name} has, {backend.range:#x}',
                value=range,
                bound=backend.range,
            )
        super().__init__(
            name,
            start=backend.start,
            range=range,
            kernel_node=kernel_node,
            regions=Regions.SPARSE,
            vm_bo_validate=self._validate_vm_bo,
        )
        self.lock: Final = Mutex(f"{name} lock", lockdep.lock_class("vm_lock"))
        self.device: Final = device
        self.backend: Final = backend
        self.honour_keep: Final = honour_keep
        self.pending: Final[dict[Bind, None]] = {}
        """Binds that were prepared and not cleaned up, in order. Locking: the VM's lock."""
        self.sparse_regions: Final[dict[tuple[int, int], Bind | None]] = {}
        """By address and range; with the bind that drops it, if one does. Locking: the VM's lock."""
        format = backend.format if isinstance(backend, PageTable) else None
        self._kinds: Final = None if format is None else format.kinds
        volatile = format is None or format.page.volatile != NEVER
        self._system_flags: Final = PteFlags.VOLATILE if volatile else PteFlags(0)
        self._binds = 0
        self._bind_ops = 0
        self._kept = 0

    # -- binding

    def prepare(self, ops: Iterable[BindOp]) -> Bind:
        """Carry out ``ops`` in the address space, in order, and get ready for the page table; all or none.

        References are taken on page slots that nothing mapped there has; the objects must have memory within
        the GPU's reach. The entries stay as they are until ``Bind.run``.

        Locking: the VM's lock and the reservations of all objects that are mapped, unmapped or cut, as
        ``lock_for`` takes them; until ``Bind.commit`` or ``Bind.abort``.

        Returns:
            The bind; ``abort`` or ``commit`` it.

        Raises:
            InvalidArgument: an address, range or offset is unaligned or out of bounds, an object is missing,
                not this device's, or without memory; the page table has no such kind there; or it would be
                mapped in a region that an operation before it drops.
            PermissionDenied: an object is private to another address space.
            NoSpace: a map cuts the border of a sparse region, or a sparse region would touch a mapping or
                another region.
            NotFound: no such sparse region, or it is being dropped.
            Busy: it would be mapped in a region that another bind drops.
            OutOfMemory: for page tables or mappings.

            ``request`` is the index of the operation that was refused.

        Source: ``nouveau_uvmm_bind_job_submit``.
        """
        return self._prepare(self._checked(ops))

    def _prepare(self, ops: tuple[BindOp, ...]) -> Bind:
        lockdep.assert_held(self.lock)
        bind = Bind(self, ops)
        self.pending[bind] = None
        try:
            _each(ops, lambda op: prepare_op(bind, op))
        except BaseException:
            bind.abort()
            raise
        return bind

    def committed(self, bind: Bind) -> None:
        """There is no way back from ``bind``, which counts from now on."""
        self._binds += 1
        self._bind_ops += len(bind.ops)
        self._kept += bind.kept

    def lock_for(self, exec: Exec, ops: Iterable[BindOp], num_fences: int = 0) -> None:
        """Lock what ``prepare`` of ``ops`` touches: the VM's reservation, and each object's.

        ``num_fences`` slots are reserved in each; 0: only lock. Locking: the VM's lock, held until after
        prepare.

        Raises:
            InvalidArgument: an operation is wrong in itself, as from ``prepare``.
            GpuvmError: as from ``Exec.prepare_obj``.
        """
        self._lock_for(exec, self._checked(ops), num_fences)

    def _lock_for(self, exec: Exec, ops: Iterable[BindOp], num_fences: int = 0) -> None:
        self.prepare_vm(exec, num_fences)
        objects: dict[Resv, Lockable] = {}
        for op in ops:
            if op.shows is not None:
                objects[op.shows.resv] = op.shows
            objects |= ((obj.resv, obj) for obj in self._objects_in(op.addr, op.range))
        objects.pop(self.resv, None)
        for obj in objects.values():
            if num_fences:
                exec.prepare_obj(obj, num_fences)
            else:
                exec.lock_obj(obj)

    def bind(self, ops: Iterable[BindOp]) -> None:  # type: ignore[override] # the manager's knows no pages
        """Carry out ``ops``, page table included, before it returns; for programs without jobs.

        Objects are validated first, each where it may lie, and what else shows one of them is brought back.
        So other objects may be moved out of the way, whose mappings are invalidated until ``validate_all``.

        Locking: none held; takes the VM's lock and the reservations.

        Raises:
            GpuvmError: as from ``prepare``, which was whole or not at all.
            Busy: a bind that was prepared is not cleaned up; its entries would come after these.
            OutOfMemory, NoSpace: from ``Device.validate``; nothing was bound, though objects may have moved.
        """
        ops = self._checked(ops)
        with self.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            self._require_none_pending("bind")
            for attempt in exec.until_all_locked():
                with attempt:
                    self._lock_for(exec, ops)
                    bring_in(self, exec, (op.shows for op in ops if op.shows is not None))
            self._carry_out(ops)

    def validate_objects(self, objs: Iterable[GemObject]) -> None:
        """Bring back these objects alone, for a use of the space that touches no others.

        Others may be moved out of the way for them, but private ones that are mapped here, whose reservation
        is the VM's. Locking: none held; takes the VM's lock and the reservations.

        Raises:
            OutOfMemory, NoSpace: not all of it fits; what was brought back stays.
        """
        objs = tuple(objs)
        with self.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    self.prepare_vm(exec, 0)
                    for obj in objs:
                        exec.lock_obj(obj)
                    bring_in(self, exec, objs)

    def validate_all(self) -> None:
        """Bring every evicted object back and map it again, as a job does before it uses the space.

        Locking: none held; takes the VM's lock and the reservations.

        Raises:
            OutOfMemory, NoSpace: not all of it fits; what was brought back stays, as far as it was not moved
                again.
        """
        with self.lock, self.exec_lock(extra=self.validate):
            pass

    def close(self) -> None:
        """Unmap everything, drop all regions, and put the creator's reference.

        Afterwards nothing in the backend is referenced. Locking: none held; takes the VM's lock and the
        reservations.

        Raises:
            Busy: a bind is not cleaned up; or somebody holds a VmBo, and then all is unmapped, and it can be
                tried again.
            OutOfMemory: unmapping needs memory; nothing was changed.
            InvalidArgument: it is closed.

        Source: ``nouveau_uvmm_fini``.
        """
        with self.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            self._require_none_pending("close")
            ops = tuple(self._everything())
            for attempt in exec.until_all_locked():
                with attempt:
                    self._lock_for(exec, ops)
            self._carry_out(ops)
        self.put()

    def write_pages(self, addr: int, range: int, shift: int, target: Extent, kind: int) -> None:
        """``Backend.map`` with the flags of such pages, which cannot fail after ``require_kind``.

        Locking: takes the backend's mapping lock.
        """
        self.backend.map(addr, range, shift, target, kind, self.pte_flags(target.aperture))

    def pte_flags(self, aperture: Aperture) -> PteFlags:
        """Flags of pages there: the GPU does not cache system memory, which the CPU writes.

        Source: ``nouveau_uvmm_vmm_map``.
        """
        return PteFlags(0) if aperture == Aperture.VRAM else self._system_flags

    def require_kind(self, shift: int, target: Extent, kind: int) -> None:
        """Make sure that the page table can say what ``write_pages`` will tell it.

        Raises:
            InvalidArgument: there is no such kind, or not on pages of this size or there.
        """
        if self._kinds is not None:
            self._kinds.validate(kind, target.aperture, shift)

    def dropping(self, addr: int, range: int) -> Iterator[tuple[Region, Bind]]:
        """Sparse regions that touch ``[addr, addr + range)`` and are being dropped, and the binds that do.

        Locking: the VM's lock. O(pending binds + regions being dropped).
        """
        for bind in self.pending:
            for region in bind.dropping:
                if region.addr < addr + range and addr < region.end:
                    yield region, bind

    def _checked(self, ops: Iterable[BindOp]) -> tuple[BindOp, ...]:
        """Operations that are not wrong in themselves."""
        checked = tuple(ops)
        _each(checked, lambda op: check_op(self, op))
        return checked

    def _require_none_pending(self, call: str) -> None:
        """Refuse to write entries at once that those of binds on their way would come after."""
        if self.pending:
            first = next(iter(self.pending))
            raise Busy(f"{call}: {first!r} of {self!r}; run and clean up what was prepared", first)

    def _carry_out(self, ops: tuple[BindOp, ...]) -> None:
        """All stages at once. Locking: as ``prepare``."""
        bind = self._prepare(ops)
        bind.commit()
        with lockdep.fence_signalling():
            bind.run()
        bind.cleanup()

    def _everything(self) -> Iterator[BindOp]:
        """What unmaps all there is."""
        kernel = self.kernel_node
        first, last = (self.end, self.end) if kernel is None else (kernel.addr, kernel.end)
        for start, end in ((self.start, first), (last, self.end)):
            if start < end:
                yield BindOp(OpCode.UNMAP, start, end - start)
        for addr, range in self.sparse_regions:
            yield BindOp(OpCode.UNMAP, addr, range, sparse=True)

    # -- moving objects

    def bo_evict(self, vm_bo: VmBo, evict: bool) -> None:
        """As ``GpuVm.bo_evict``, and with ``evict``: invalidate the mappings, and clear their entries.

        Their references stay. Cannot fail. Locking: the object's reservation; takes the backend's mapping
        lock.

        Source: ``nouveau_uvmm_bo_unmap_all``.
        """
        super().bo_evict(vm_bo, evict)
        if evict:
            invalidate(self, vm_bo)

    def bo_put(self, vm_bo: VmBo) -> bool:
        """Put a reference; True if it was the last one (``drm_gpuvm_bo_put``).

        Locking: the object's reservation.
        """
        obj, last = vm_bo.obj, vm_bo.put()
        if last:
            obj.vms.discard(self)
        return last

    def _validate_vm_bo(self, vm_bo: VmBo, exec: Exec) -> None:
        bring_back(self, vm_bo, exec)

    # -- itself

    def check(self) -> None:
        """As ``GpuVm.check``, and: the backend shows what is mapped, and nothing is referenced beside.

        Every page of a mapping that is not invalidated leads to its object's memory, with its kind; where
        nothing is mapped, or an invalidated mapping is, sparse regions are sparse and the rest is invalid.
        While a bind is pending the entries are not looked at. O(entries).

        Locking: the VM's lock and the objects' reservations, or no call under way.
        """
        super().check()
        check_contents(self)

    def statistics(self) -> UvmmStatistics:
        """Counts, of now. O(n)."""
        space = super().statistics()
        return UvmmStatistics(
            **{field.name: getattr(space, field.name) for field in fields(space)},
            binds=self._binds,
            bind_ops=self._bind_ops,
            kept=self._kept,
            pending=len(self.pending),
            backend=self.backend.statistics(),
        )


def _each(ops: Iterable[BindOp], do: Callable[[BindOp], None]) -> None:
    """``do`` it with each; an error says which it is about."""
    index = 0
    try:
        for op in ops:
            do(op)
            index += 1
    except GpuvmError as error:
        error.request = index
        raise
