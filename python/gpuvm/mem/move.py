"""Moving an object's bytes to another place (``ttm_bo_util.c``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from gpuvm.errors import OutOfMemory
from gpuvm.mem.aperture import Aperture, Domain, Extent
from gpuvm.mem.memory import Memory
from gpuvm.mem.residency import Residency
from gpuvm.mem.resource import Resource
from gpuvm.sync import lockdep, task
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


Moved = Callable[[int, int, "str | None", "str | None", bool, tuple[int, int]], None]
"""Is told of a move: the object's offset in its file, its size, from where and to where ("vram", "gart" or
"cpu"; None: it had no memory before, or is gone), whether to make room, when that began and ended."""


class Mover:
    """Moves objects between the memories of a device.

    Args:
        name: the device's, for its fences.
        memories: by aperture.
        residency: who lies where.
        moved: is told of moves, with the object's reservation held.
    """

    def __init__(
        self, name: str, memories: dict[Aperture, Memory], residency: Residency, moved: Moved | None = None
    ) -> None:
        self._name: Final = name
        self._memories: Final = memories
        self._residency: Final = residency
        self._moved: Final = moved

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
        began = task.now()
        obj.resv.reserve_fences(1)
        before = self._residency.where(obj)
        known = before is not None or obj.swapped
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
        source = _CPU if before is None and obj.swapped else _place(before)
        self._residency.settle(obj, new, evict=evict, stalled=stalled)
        if self._moved is not None:
            target = _place(new) or _CPU
            self._moved(obj.offset, obj.size, source, target, evict, (began, task.now()))

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
        resource = backing.resource
        self._unwire(() if resource is None else resource.extents)
        self._residency.release(backing)
        if resource is not None and self._moved is not None:
            now = task.now()
            self._moved(backing.pages.offset, resource.size, _place(resource), None, False, (now, now))
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


_CPU: Final = "cpu"
_NAMES: Final = {Domain.VRAM: "vram", Domain.GART: "gart", Domain.CPU: _CPU}


def _place(resource: Resource | None) -> str | None:
    """What the memory is called that this is of."""
    return None if resource is None else _NAMES[resource.domain]


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
