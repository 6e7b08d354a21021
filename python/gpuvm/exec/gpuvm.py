"""GpuVm: an address space together with the reservations of what is mapped in it (``struct drm_gpuvm``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from gpuvm.errors import CheckFailed, InvalidArgument, LockdepError, NotSupported, OutOfMemory
from gpuvm.exec.exec import Exec, ExecFlags, Lockable
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Resv, Usage
from gpuvm.va import Gpuva, GpuvaManager, GpuVmFlags, Map, Merge, Regions, VmBo


class ResvObject:
    """An object of no size, for the sake of its reservation (``drm_gpuvm_resv_object_alloc``)."""

    __slots__ = ("__weakref__", "resv")

    def __init__(self, name: str) -> None:
        self.resv = Resv(name)


class GpuVm(GpuvaManager):
    """An address space, the reservation that its private objects share, and its external and evicted objects.

    What ``GpuvaManager`` does, and:

    - objects: ``is_extobj``, ``bo_extobj_add``, ``bo_evict``
    - locking them, within an ``Exec``: ``prepare_vm``, ``prepare_objects``, ``prepare_range``,
      ``sm_map_exec_lock``, ``sm_unmap_exec_lock``
    - locking them in one go: ``exec_lock``, ``exec_lock_array``, ``exec_lock_range``
    - once locked: ``validate``, ``resv_add_fence``

    An object with a ``resv`` of its own is external: it may be mapped in several address spaces. One that
    shares the VM's is private to it. One without a ``resv`` is never locked.

    Locking: the VM's lock, which is the caller's, orders changes of the mappings. The object's reservation
    guards its VmBos: obtaining and putting them, their mappings, ``evicted``; with IMMEDIATE_MODE its
    ``gpuva_lock`` guards all of that but ``evicted``. The lists of external and of evicted objects have a
    lock of their own, held for a moment; with RESV_PROTECTED the VM's reservation guards them. Order: the
    VM's lock, then reservations. With IMMEDIATE_MODE, whose jobs take the VM's lock but no reservation:
    reservations, the VM's lock, ``gpuva_lock``.

    Args:
        r_obj: the object whose reservation is the VM's. Default: a ``ResvObject``.
        vm_bo_validate: the driver's hook of ``validate``, called ``vm_bo_validate(vm_bo, exec)``: bring the
            object back and map it again, then ``bo_evict(vm_bo, False)``.

    Source: ``drivers/gpu/drm/drm_gpuvm.c``.
    """

    def __init__(
        self,
        name: str,
        *,
        start: int = 0,
        range: int,
        r_obj: Lockable | None = None,
        kernel_node: tuple[int, int] | None = None,
        kernel_node_anywhere: bool = False,
        merge: Merge = Merge.NEVER,
        regions: Regions = Regions.OFF,
        flags: GpuVmFlags = GpuVmFlags(0),  # noqa: B008 (immutable)
        can_merge: Callable[[Gpuva, Map], bool] | None = None,
        vm_bo_validate: Callable[[VmBo, Exec], None] | None = None,
    ) -> None:
        super().__init__(
            name,
            start=start,
            range=range,
            kernel_node=kernel_node,
            kernel_node_anywhere=kernel_node_anywhere,
            merge=merge,
            regions=regions,
            flags=flags,
            can_merge=can_merge,
        )
        self.resv_obj: Final[Lockable] = ResvObject(f"{name} resv") if r_obj is None else r_obj
        self.resv: Final[Resv] = self.resv_obj.resv
        self._resv_protected = GpuVmFlags.RESV_PROTECTED in self.flags
        self._vm_bo_validate = vm_bo_validate

    # -- objects

    def is_extobj(self, obj: object) -> bool:
        """Whether ``obj`` has a reservation that is not the VM's (``drm_gpuvm_is_extobj``). Locking: none."""
        resv = _resv(obj)
        return resv is not None and resv is not self.resv

    def bo_find(self, obj: object) -> VmBo | None:
        """The VmBo of ``obj`` with a further reference, None if there is none (``drm_gpuvm_bo_find``).

        Locking: the object's GPUVA lock.
        """
        self._assert_gpuva_lock(obj)
        return super().bo_find(obj)

    def bo_obtain(self, obj: object) -> VmBo:
        """The VmBo of ``obj`` with a further reference, made if there is none (``drm_gpuvm_bo_obtain``).

        An object with a set ``vms`` has this space in it from then on, so that who moves it can tell.

        Locking: the object's GPUVA lock.

        Raises:
            OutOfMemory: nothing was changed.
            InvalidArgument: ``obj`` is None.
        """
        self._assert_gpuva_lock(obj)
        vm_bo = super().bo_obtain(obj)
        self._join_vms(obj)
        return vm_bo

    def bo_obtain_prealloc(self, vm_bo: VmBo) -> VmBo:
        """As ``bo_obtain``, with a VmBo of ``bo_create`` to use if there is none.

        Locking: the object's GPUVA lock.

        Raises:
            InvalidArgument: ``vm_bo`` is not fresh from ``bo_create``, or of another space.

        Source: ``drm_gpuvm_bo_obtain_prealloc``.
        """
        self._assert_gpuva_lock(vm_bo.obj)
        vm_bo = super().bo_obtain_prealloc(vm_bo)
        self._join_vms(vm_bo.obj)
        return vm_bo

    def bo_extobj_add(self, vm_bo: VmBo) -> None:
        """Put an external object on the list of those, and a private one nowhere.

        Locking: the VM's reservation if RESV_PROTECTED.

        Source: ``drm_gpuvm_bo_extobj_add``.
        """
        self._require_own("bo_extobj_add", vm_bo)
        if not self.is_extobj(vm_bo.obj):
            return
        self._assert_lists_held()
        vm_bo._extobj_add()

    def bo_evict(self, vm_bo: VmBo, evict: bool) -> None:
        """Say that the object was moved out of the GPU's reach, or back (``drm_gpuvm_bo_evict``).

        An evicted one goes on the list of those that ``validate`` brings back. If RESV_PROTECTED, whoever
        evicts an external object does not hold the VM's reservation, so only the flag is set, and the next
        ``prepare_objects`` puts it on the list. A zombie, which a job of immediate mode may just have made of
        it, is left alone.

        Locking: the object's reservation; the VM's if RESV_PROTECTED and the object has none.
        """
        self._require_own("bo_evict", vm_bo)
        _assert_resv_held(vm_bo.obj)
        flag_only = self._resv_protected and self.is_extobj(vm_bo.obj)
        if not flag_only:
            self._assert_lists_held()
        self._unless_ended(vm_bo, vm_bo._set_evicted, evict, not flag_only)

    # -- locking them, within the loop of an Exec

    def prepare_vm(self, exec: Exec, num_fences: int) -> None:
        """Lock the VM's reservation, with ``num_fences`` slots; 0: only lock (``drm_gpuvm_prepare_vm``).

        Raises:
            GpuvmError: as from ``Exec.prepare_obj``, here and in what follows.
        """
        _prepare(exec, self.resv_obj, num_fences)

    def prepare_objects(self, exec: Exec, num_fences: int) -> None:
        """Lock every external object, with ``num_fences`` slots; 0: only lock.

        The list may change meanwhile: objects added are locked too, and those that went are not. If
        RESV_PROTECTED, objects marked as evicted go on the eviction list.

        Locking: the VM's reservation if RESV_PROTECTED.

        Source: ``drm_gpuvm_prepare_objects``.
        """
        self._assert_lists_held()
        if num_fences:
            exec.prepare_array(self._extobjs_to_lock(), num_fences)
        else:
            exec.lock_array(self._extobjs_to_lock())

    def _extobjs_to_lock(self) -> Iterator[Lockable]:
        """Each external object; what follows the ``yield`` happens once it is locked."""
        for vm_bo in _walk(self._next_extobj):
            yield vm_bo.obj
            if self._resv_protected and vm_bo.evicted:
                self._unless_ended(vm_bo, vm_bo._list_evicted)

    def prepare_range(self, exec: Exec, addr: int, range: int, num_fences: int) -> None:
        """Lock every object mapped in ``[addr, addr + range)``, with ``num_fences`` slots; 0: only lock.

        Each reservation once, however many mappings show it. Private objects share the VM's: after
        ``prepare_vm`` this needs IGNORE_DUPLICATES.

        Locking: the VM's lock.

        Raises:
            InvalidArgument: the range is empty or overflows.

        Source: ``drm_gpuvm_prepare_range``.
        """
        for obj in self._objects_in(addr, range):
            _prepare(exec, obj, num_fences)

    def sm_map_exec_lock(
        self,
        exec: Exec,
        num_fences: int,
        addr: int,
        range: int,
        obj: Any = None,
        offset: int = 0,
        flags: int = 0,
    ) -> None:
        """Lock what ``sm_map`` of the same arguments is going to touch.

        The new object gets ``num_fences`` slots (0: none), those of mappings that go are only locked. Needs
        IGNORE_DUPLICATES.

        Locking: the VM's lock, held until ``sm_map``'s plan is applied.

        Source: ``drm_gpuvm_sm_map_exec_lock``.
        """
        self.sm_map(addr, range, obj, offset, flags)  # refuses what it would refuse
        if _resv(obj) is not None:
            _prepare(exec, obj, num_fences)
        self._lock_range(exec, addr, range)

    def sm_unmap_exec_lock(self, exec: Exec, addr: int, range: int) -> None:
        """Lock what ``sm_unmap`` of the same arguments is going to touch. Needs IGNORE_DUPLICATES.

        Locking: the VM's lock, held until ``sm_unmap``'s plan is applied.

        Source: ``drm_gpuvm_sm_unmap_exec_lock``.
        """
        self.sm_unmap(addr, range)  # refuses what it would refuse
        self._lock_range(exec, addr, range)

    def _lock_range(self, exec: Exec, addr: int, range: int) -> None:
        """Lock what a change of the range unmaps or cuts. Neighbours that merge show the same object."""
        for obj in self._objects_in(addr, range):
            exec.lock_obj(obj)

    def _objects_in(self, addr: int, range: int) -> list[Any]:
        """One mapped object for each reservation."""
        objects = {_resv(va.obj): va.obj for va in self.mappings(addr, range)}
        objects.pop(None, None)
        return list(objects.values())

    # -- locking them in one go

    def exec_lock(
        self,
        num_fences: int = 0,
        *,
        flags: ExecFlags = ExecFlags(0),  # noqa: B008 (immutable)
        extra: Callable[[Exec], None] | None = None,
    ) -> AbstractContextManager[Exec]:
        """Lock the VM's reservation and every external object for the time of a ``with`` block.

        Args:
            num_fences: slots in each; 0: only lock.
            flags: ``ExecFlags``. IGNORE_DUPLICATES is always added, here and in the other forms: external
                objects may share a reservation.
            extra: called in each pass, after the others, to lock more.

        Raises:
            Interrupted, OutOfMemory: nothing is locked then.

        Source: ``drm_gpuvm_exec_lock``.
        """

        def prepare(exec: Exec) -> None:
            self._prepare_all(exec, num_fences)
            if extra is not None:
                extra(exec)

        return _locked(flags, prepare)

    def exec_lock_array(
        self,
        objs: Iterable[Lockable],
        num_fences: int = 0,
        *,
        flags: ExecFlags = ExecFlags(0),  # noqa: B008 (immutable)
    ) -> AbstractContextManager[Exec]:
        """``exec_lock`` of ``objs`` as well, like those that the next bind is about.

        Source: ``drm_gpuvm_exec_lock_array``.
        """
        objects = tuple(objs)

        def prepare(exec: Exec) -> None:
            self._prepare_all(exec, num_fences)
            for obj in objects:
                _prepare(exec, obj, num_fences)

        return _locked(flags, prepare)

    def exec_lock_range(
        self,
        addr: int,
        range: int,
        num_fences: int = 0,
        *,
        flags: ExecFlags = ExecFlags(0),  # noqa: B008 (immutable)
    ) -> AbstractContextManager[Exec]:
        """Lock only the objects mapped in ``[addr, addr + range)`` for the time of a ``with`` block.

        The VM's reservation is locked only if a private object lies there. Locking: the VM's lock.

        Raises:
            InvalidArgument: the range is empty or overflows.

        Source: ``drm_gpuvm_exec_lock_range``.
        """
        return _locked(flags, lambda exec: self.prepare_range(exec, addr, range, num_fences))

    def _prepare_all(self, exec: Exec, num_fences: int) -> None:
        self.prepare_vm(exec, num_fences)
        self.prepare_objects(exec, num_fences)

    # -- once locked

    def validate(self, exec: Exec) -> None:
        """Have the driver's hook bring back every object on the eviction list, in the order of eviction.

        One that the hook marks as not evicted leaves the list. If the hook raises, that one and those behind
        it stay for the next time. What the hook itself evicts is brought back too. Have a job's fence follow:
        who looks at the list next relies on it.

        Locking: the VM's reservation and every object on the list, as after ``exec_lock``.

        Raises:
            NotSupported: the space was made without ``vm_bo_validate``.
            OutOfMemory: the hook evicted what it had brought back before: not all of it fits.

        Source: ``drm_gpuvm_validate``.
        """
        if self._vm_bo_validate is None:
            raise NotSupported(f'validate: "{self.name}" has no hook; pass vm_bo_validate to GpuVm')
        self._assert_lists_held()
        brought_back = set()
        for vm_bo in _walk(self._next_evicted):
            _assert_resv_held(vm_bo.obj)
            if vm_bo in brought_back:
                raise OutOfMemory(
                    f"validate: {vm_bo!r} was evicted again for the sake of others; map fewer objects",
                    value=vm_bo,
                )
            self._vm_bo_validate(vm_bo, exec)
            brought_back.add(vm_bo)
            if vm_bo.alive and not vm_bo.evicted:
                self._unless_ended(vm_bo, vm_bo._unlist_evicted)

    def resv_add_fence(self, exec: Exec, fence: Fence, private_usage: Usage, extobj_usage: Usage) -> None:
        """Publish ``fence`` in everything that ``exec`` locked, of which each has a slot reserved.

        Args:
            private_usage: for the VM's reservation, which private objects share.
            extobj_usage: for external objects.

        Raises:
            InvalidArgument: an object has no slot left, having been locked with ``num_fences`` 0 perhaps, or
                the fence is a container. It is published nowhere then.

        Source: ``drm_gpuvm_resv_add_fence``.
        """
        own = self.resv
        targets = [(obj.resv, private_usage if obj.resv is own else extobj_usage) for obj in exec.claimed()]
        for resv, usage in targets:
            resv.require_slot(fence, usage)
        for resv, usage in targets:
            resv.add_fence(fence, usage)

    # -- itself

    @property
    def immediate_mode(self) -> bool:
        """Whether mappings change when a bind's job runs (``drm_gpuvm_immediate_mode``)."""
        return GpuVmFlags.IMMEDIATE_MODE in self.flags

    def check(self) -> None:
        """As ``GpuvaManager.check``, and: the lists have what belongs there, like external objects mapped.

        Locking: the VM's reservation if RESV_PROTECTED, or no call under way.
        """
        super().check()
        for vm_bo in self.vm_bos():
            external = self.is_extobj(vm_bo.obj)
            late = external and self._resv_protected
            stray = vm_bo.on_extobjs and not external
            forgotten = external and len(vm_bo) > 0 and not vm_bo.on_extobjs
            if stray or forgotten or (not late and vm_bo.on_evicted != vm_bo.evicted):
                raise CheckFailed(
                    f"{vm_bo!r} of {self!r}: external {external}, evicted {vm_bo.evicted}, "
                    f"on the lists: external {vm_bo.on_extobjs}, evicted {vm_bo.on_evicted}"
                )

    def _assert_gpuva_lock(self, obj: Any) -> None:
        resv = _resv(obj)
        if not lockdep.enabled or resv is None:
            return
        if self.immediate_mode and not hasattr(obj, "gpuva_lock"):
            raise LockdepError(f"{obj!r} needs a gpuva_lock, a Mutex that guards its VmBos in immediate mode")
        lockdep.assert_held(obj.gpuva_lock if self.immediate_mode else resv)

    def _join_vms(self, obj: Any) -> None:
        vms = getattr(obj, "vms", None)
        if vms is not None:
            vms.add(self)

    def _require_own(self, call: str, vm_bo: VmBo) -> None:
        if vm_bo.vm is not self:
            raise InvalidArgument(f"{call}: {vm_bo!r} is of {vm_bo.vm!r}, not of {self!r}", vm_bo.vm, self)

    def _assert_lists_held(self) -> None:
        if lockdep.enabled and self._resv_protected:
            lockdep.assert_held(self.resv)

    def _unless_ended(self, vm_bo: VmBo, change: Callable[..., None], *args: bool) -> None:
        """``change(*args)`` the lists that ``vm_bo`` is on, unless it is on none any more.

        In immediate mode a job ends it without a reservation, so at any moment; else the caller is at fault.
        """
        try:
            change(*args)
        except InvalidArgument:
            if vm_bo.alive or not self.immediate_mode:
                raise


def _resv(obj: object) -> Resv | None:
    """The reservation of a mapped object, if it has one."""
    return getattr(obj, "resv", None)


def _assert_resv_held(obj: object) -> None:
    if lockdep.enabled and (resv := _resv(obj)) is not None:
        lockdep.assert_held(resv)


def _prepare(exec: Exec, obj: Lockable, num_fences: int) -> None:
    if num_fences:
        exec.prepare_obj(obj, num_fences)
    else:
        exec.lock_obj(obj)


def _walk(following: Callable[[int], tuple[int, VmBo] | None]) -> Iterator[VmBo]:
    """A list that may change while it is walked, in order."""
    place = 0
    while (found := following(place)) is not None:
        place, vm_bo = found
        yield vm_bo


@contextmanager
def _locked(flags: ExecFlags, prepare: Callable[[Exec], None]) -> Iterator[Exec]:
    with Exec(flags | ExecFlags.IGNORE_DUPLICATES) as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                prepare(exec)
        yield exec
