"""Uvmm: a client's address space: mappings, their page-table entries, their objects' memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from gpuvm._core import BindOps, Work
from gpuvm.errors import Busy, InvalidArgument
from gpuvm.exec import Exec, ExecFlags, GpuVm
from gpuvm.mem import Aperture
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.pages import page_sizes
from gpuvm.nouveau.bind import Bind, BindOp
from gpuvm.nouveau.contents import check_contents
from gpuvm.nouveau.entries import Entries
from gpuvm.nouveau.moving import bring_back, bring_in, invalidate
from gpuvm.nouveau.statistics import UvmmStatistics
from gpuvm.nouveau.uvma import Uvma
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from gpuvm.va import Region, Regions, VmBo

if TYPE_CHECKING:
    from gpuvm.mem.device import Device
    from gpuvm.mem.gem import GemObject

VA_BITS: Final = 47
"""Of an address that clients may use (``NOUVEAU_VA_SPACE_BITS``)."""

Operations = Iterable[BindOp] | BindOps
"""Of a bind: as data, or read and decoded already."""


class Uvmm(GpuVm):
    """An address space whose mappings are put into effect by a backend, in the three stages of a bind job.

    - a driver's way: ``prepare``, then the stages of ``Bind``, in jobs
    - a program's way: ``bind``, all in one call, and ``validate_all``
    - memory management's: ``bo_evict``, and ``validate`` as of any ``GpuVm``

    A mapping is invalidated from the moment its object is moved until ``validate`` has brought the object
    back, and has no entries then; what validate cannot bring back stays so.

    Regions are those of today's uAPI, sparse ones for who wants them, or the original series', where mappings
    need one: then ``BindOp`` has ALLOC and FREE for them.

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
        regions: SPARSE, or REQUIRED for the original series'.
        honour_keep: do not clear entries that a bind writes again as they are.

    Raises:
        InvalidArgument: no device, no backend, one that does not reach so far, no such regions, or as from
            ``GpuVm``.

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
        regions: Regions = Regions.SPARSE,
        honour_keep: bool = True,
    ) -> None:
        if not callable(getattr(device, "validate", None)):
            raise InvalidArgument(f'Uvmm "{name}": device {device!r}; pass a Device', device)
        if not callable(getattr(backend, "unmap", None)):
            raise InvalidArgument(f'Uvmm "{name}": backend {backend!r}; pass a PageTable or alike', backend)
        if regions not in (Regions.SPARSE, Regions.REQUIRED):
            raise InvalidArgument(f'Uvmm "{name}": {regions!r}; pass Regions.SPARSE or REQUIRED', regions)
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
            regions=regions,
            vm_bo_validate=self._validate_vm_bo,
        )
        self.lock: Final = Mutex(f"{name} lock", lockdep.lock_class("vm_lock"))
        self.device: Final = device
        self.backend: Final = backend
        self.entries: Final = Entries(backend)
        self.pending: Final[dict[Bind, None]] = {}
        """Binds that were prepared and not cleaned up, in order. Locking: the VM's lock."""
        self._droppers: Final[dict[Bind, None]] = {}
        """Those of them that drop regions."""
        self.engines: Final[dict[Mutex, None]] = {}
        """What is held while one of them accesses memory."""
        self._open_pages(page_sizes(backend.pages), honour_keep, self.entries.address_shift, Uvma)

    # -- binding

    def prepare(self, ops: Operations) -> Bind:
        """Carry out ``ops`` in the address space, in order, and get ready for the page table; all or none.

        References are taken on page slots that nothing mapped there has; the objects must have memory within
        the GPU's reach. The entries stay as they are until ``Bind.run``.

        Locking: the VM's lock and the reservations of all objects that are mapped, unmapped or cut, as
        ``lock_for`` takes them; until ``commit`` or ``abort`` of the bind that this returns.

        Raises:
            InvalidArgument: an address, range or offset is unaligned or out of bounds, an object is missing,
                not this device's, or without memory; the page table has no such kind there; mappings need a
                region and it is in none; or it would be mapped in a region that an operation before it drops.
            PermissionDenied: an object is private to another address space.
            AlreadyMapped: a region would be one that is there, and nothing is mapped in it.
            NoSpace: a map cuts the border of a sparse region, or a region would touch a mapping or another
                region.
            NotFound: no such region, or it is being dropped.
            Busy: it would be mapped in a region that another bind drops.
            OutOfMemory: for page tables or mappings.

            ``request`` is the index of the operation that was refused.

        Source: ``nouveau_uvmm_bind_job_submit``.
        """
        read = self._read(ops)
        if lockdep.enabled:
            self._assert_held(read)
        work = self._prepare_work(read)
        dropping = [Region(*region) for region in work.dropped]
        bind = Bind(self, read, work, dropping)
        self.pending[bind] = None
        if dropping:
            self._droppers[bind] = None
        if work.takes:
            try:
                self.entries.take(work)
            except BaseException:
                self.undone(bind, work)
                raise
        return bind

    def check_ops(self, ops: Operations) -> None:
        """Refuse operations that are wrong in themselves, whatever is mapped. Locking: none.

        Raises:
            InvalidArgument, PermissionDenied: as from ``prepare``.
        """
        self._touched(self._read(ops))

    def rehearse(self, ops: Operations) -> None:
        """Refuse what ``prepare`` would refuse if all objects had memory. Nothing is changed.

        For who found no memory for them, and owes its caller the error that comes first. Locking: as
        ``prepare``.

        Raises:
            GpuvmError: as from ``prepare``, but for page tables.
        """
        read = self._read(ops)
        if lockdep.enabled:
            self._assert_held(read)
        self._rehearse(read)

    def _read(self, ops: Operations) -> BindOps:
        """In the core's form, for once."""
        return ops if ops.__class__ is BindOps else self._read_ops(tuple(ops))

    def _assert_held(self, ops: BindOps) -> None:
        """Make sure that what ``ops`` touch is locked."""
        objs, private = self._touched(ops)
        lockdep.assert_held(self.lock)
        for obj in objs:
            lockdep.assert_held(obj.resv)
        if private:
            lockdep.assert_held(self.resv)

    def undone(self, bind: Bind, work: Work) -> None:
        """The space goes back to what it was before ``bind``."""
        work.roll_back(self)
        self._droppers.pop(bind, None)
        del self.pending[bind]

    def lock_for(self, exec: Exec, ops: Operations, num_fences: int = 0) -> None:
        """Lock what ``prepare`` of ``ops`` touches: the VM's reservation, and each object's.

        ``num_fences`` slots are reserved in each; 0: only lock. Locking: the VM's lock, held until after
        prepare. Cost: O(operations + mappings in their ranges), and that of the locks.

        Raises:
            InvalidArgument: an operation is wrong in itself, as from ``prepare``.
            GpuvmError: as from ``Exec.prepare_obj``.
        """
        objs, _ = self._touched(self._read(ops))
        if num_fences:
            exec.prepare_array((self.resv_obj, *objs), num_fences)
        else:
            exec.lock_array((self.resv_obj, *objs))

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
        ops = tuple(ops)
        with self.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            self._require_none_pending("bind")
            read = self._read_ops(ops)
            for attempt in exec.until_all_locked():
                with attempt:
                    self.lock_for(exec, read)
                    bring_in(self, exec, read.objects)
            self.carry_out(self.prepare(read))

    def bind_now(self, exec: Exec, ops: BindOps, noted: Callable[..., int], *args: object) -> int:
        """Carry out ``ops``, page table included, if no other bind is pending: all stages without a ``Bind``.

        Objects are validated first, as by ``bind``. When there is no way back ``noted`` is called with
        ``args``, and what it returns is returned.

        Locking: the VM's lock; ``exec``, which is not in use, locks the rest.

        Raises:
            GpuvmError: as from ``bind``. What is wrong with operations comes before that there is no memory.
        """
        number: int = self._bind_now(exec, ops, noted, *args)
        return number

    _fence_signalling = staticmethod(lockdep.fence_signalling)

    def _bring_in(self, exec: Exec, objs: Iterable[GemObject]) -> None:
        """For the core: somebody has to move."""
        bring_in(self, exec, objs)

    def carry_out(self, bind: Bind) -> None:
        """All further stages at once, if no other bind is pending. Cannot fail. Locking: as ``prepare``."""
        bind.commit()
        with lockdep.fence_signalling():
            bind.run()
        bind.cleanup()

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

        Afterwards nothing in the backend is referenced. It takes no memory that could be missing. Locking:
        none held; takes the VM's lock and the reservations.

        Raises:
            Busy: a bind is not cleaned up; or somebody holds a VmBo, and then all is unmapped, and it can be
                tried again.
            InvalidArgument: it is closed.

        Source: ``nouveau_uvmm_fini``.
        """
        with self.lock:
            self._require_none_pending("close")
            with self.exec_lock():
                work, _gone = self._unmap_all()
                self.entries.write(work)
                self.entries.put(work)
                work.finish(self)
                del _gone  # only now nothing leads to them
        self.put()

    def dropping(self, addr: int, range: int) -> Iterator[tuple[Region, Bind]]:
        """Regions that touch ``[addr, addr + range)`` and are being dropped, and the binds that do.

        Locking: the VM's lock. O(regions being dropped).
        """
        for bind in self._droppers:
            for region in bind.dropping:
                if region.addr < addr + range and addr < region.end:
                    yield region, bind

    def _require_none_pending(self, call: str) -> None:
        """Refuse to write entries at once that those of binds on their way would come after."""
        if self.pending:
            first = next(iter(self.pending))
            raise Busy(f"{call}: {first!r} of {self!r}; run and clean up what was prepared", first)

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

    def flush(self) -> None:
        """Wait until no engine uses entries that were changed before (``gp100_vmm_flush``).

        Locking: any but the backend's; in fence-signalling sections too. Cost: as long as one access takes.
        """
        for accessing in list(self.engines):
            with accessing:
                pass

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

    def _encode(self, shift: int, aperture: int, kind: int) -> tuple[int, int]:
        """For the core: as ``Entries.encode``."""
        return self.entries.encode(shift, Aperture(aperture), kind)

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
        binds, bind_ops, kept = self._committed
        return UvmmStatistics(
            **{field.name: getattr(space, field.name) for field in fields(space)},
            binds=binds,
            bind_ops=bind_ops,
            kept=kept,
            pending=len(self.pending),
            backend=self.backend.statistics(),
        )
