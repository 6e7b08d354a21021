"""Moving an object's bytes to another place (``ttm_bo_util.c``)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from gpuvm.errors import OutOfMemory
from gpuvm.mem.aperture import Aperture, Extent
from gpuvm.mem.memory import Memory
from gpuvm.mem.residency import Residency
from gpuvm.mem.resource import Resource
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage

if TYPE_CHECKING:
    from gpuvm.mem.gem import Backing, GemObject
    from gpuvm.va import VmBo


class AddressSpace(Protocol):
    """What memory management needs of a ``GpuVm`` that may map an object."""

    @property
    def immediate_mode(self) -> bool:
        """Whether the object's GPUVA lock guards its VmBos."""

    def bo_find(self, obj: object) -> VmBo | None:
        """The VmBo of ``obj`` with a further reference."""

    def bo_evict(self, vm_bo: VmBo, evict: bool) -> None:
        """Its object was moved out of reach."""


class Mover:
    """Moves objects between the memories of a device.

    Args:
        name: the device's, for its fences.
        memories: by aperture.
        residency: who lies where.
    """

    def __init__(self, name: str, memories: dict[Aperture, Memory], residency: Residency) -> None:
        self._name: Final = name
        self._memories: Final = memories
        self._residency: Final = residency

    def move(
        self, obj: GemObject, new: Resource | None, *, evict: bool = False, interruptible: bool = False
    ) -> None:
        """Move ``obj`` from where it is, perhaps nowhere, to ``new``; None swaps it out.

        All that can fail comes first: slots, the wait for users, the wiring of the new place. Until the
        move's fence is signalled the object's pages are in both places, so whatever is written is in both.
        Then a copy stays at the old one: late writes there are lost, and who reads there reads old bytes.

        Locking: the object's reservation. Its address spaces are told, with its GPUVA lock where they are in
        immediate mode.

        Args:
            new: memory from ``Residency.obtain``.
            evict: it makes room for others; for the statistics.
            interruptible: ``Task.interrupt`` ends the wait.

        Raises:
            OutOfMemory: no slot, or the process has no room for further mappings.
            Interrupted: the task was interrupted while it waited.

            The object is where it was, and ``new`` is still the caller's.

        Source: ``ttm_bo_handle_move_mem``, ``nouveau_bo_move``.
        """
        obj.resv.reserve_fences(1)
        known = self._residency.where(obj) is not None or obj.swapped
        stalled = known and _wait_for_users(obj, interruptible)
        fence = Fence(fence_context_alloc(), 1, driver=self._name, timeline="move")
        self._wire(obj, new)
        old = obj.resource
        try:
            if old is not None:
                _tell_address_spaces(obj)
            obj.resv.add_fence(fence, Usage.KERNEL)
        except BaseException:  # those that were told validate it again, and find it where it was
            self._unwire(() if new is None else new.extents)
            raise
        with lockdep.fence_signalling(fence.context):
            try:
                if old is not None:
                    self._leave_copy(obj, old)
            finally:
                fence.signal()  # whatever went wrong, nobody is to wait for ever
        self._residency.settle(obj, new, evict=evict, stalled=stalled)

    def _wire(self, obj: GemObject, new: Resource | None) -> None:
        """Have the object's pages at the new place; at none of it after a failure."""
        offset = obj.offset
        done = []
        try:
            for extent in () if new is None else new.extents:
                self._memories[extent.aperture].wire(extent.addr, extent.range, obj.fd, offset)
                done.append(extent)
                offset += extent.range
        except BaseException:
            self._unwire(done)
            raise

    def _unwire(self, extents: Iterable[Extent]) -> None:
        for extent in extents:
            self._memories[extent.aperture].unwire(extent.addr, extent.range)

    def free(self, backing: Backing) -> bool:
        """Give back all that an object had, since it is gone and nobody uses it any more.

        False, to be asked again, if another thread got hold of it while it went, or its pages are not to be
        freed now.
        """
        if backing.is_looked_at:
            return False
        self._unwire(() if backing.resource is None else backing.resource.extents)
        self._residency.release(backing)
        return backing.pages.free()

    def _leave_copy(self, obj: GemObject, old: Resource) -> None:
        """Have the memory's own pages at the old place, with the object's bytes."""
        view, start = obj.view, 0
        for extent in old.extents:
            memory = self._memories[extent.aperture]
            try:
                memory.unwire(extent.addr, extent.range, leave=view[start : start + extent.range])
            except OutOfMemory:  # for the copy, which only a stale reader would miss
                memory.unwire(extent.addr, extent.range)
            start += extent.range


def _wait_for_users(obj: GemObject, interruptible: bool) -> bool:
    """Wait for whoever uses it, implicitly synchronised or not; whether there was anybody."""
    if obj.resv.test_signalled(Usage.BOOKKEEP):
        return False
    obj.resv.wait(Usage.BOOKKEEP, interruptible=interruptible)
    return True


def _tell_address_spaces(obj: GemObject) -> None:
    """Its mappings are void (``drm_gpuvm_bo_gem_evict``)."""
    with obj.gpuva_lock:  # in immediate mode others may join just now
        vms = list(obj.vms)
    for vm in vms:
        with obj.gpuva_lock if vm.immediate_mode else nullcontext():
            vm_bo = vm.bo_find(obj)
            if vm_bo is not None:
                vm.bo_evict(vm_bo, True)
                vm_bo.put()
