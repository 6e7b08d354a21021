"""Binds: the operations of one call, and their way through the three stages of a bind job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from gpuvm.errors import InvalidArgument
from gpuvm.sync import lockdep
from gpuvm.va import Region, VmBo

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject
    from gpuvm.nouveau.page_change import PageChange, Write
    from gpuvm.nouveau.slots import Slots
    from gpuvm.nouveau.uvma import Uvma
    from gpuvm.nouveau.vm import Uvmm


class OpCode(IntEnum):
    """What to do (``DRM_NOUVEAU_VM_BIND_OP_*``)."""

    MAP = 0
    UNMAP = 1


@dataclass(frozen=True, slots=True)
class BindOp:
    """One operation of a bind: show an object at an address range, or nothing any more.

    Args:
        op: MAP or UNMAP.
        addr, range: bytes, multiples of 4096.
        obj: what to map; ignored by an UNMAP, and with ``sparse``, as the next two are.
        offset: first byte of the object to be mapped, a multiple of 4096.
        kind: storage kind of the page-table entries, 0 to 255 as far as the format has it; 0 is plain.
        sparse: a MAP makes the range a sparse region, which reads as zeros where nothing is mapped. An UNMAP
            unmaps all in the region and drops it; the range must be the region's.

    Source: ``struct drm_nouveau_vm_bind_op``.
    """

    op: OpCode
    addr: int
    range: int
    obj: GemObject | None = None
    offset: int = 0
    kind: int = 0
    sparse: bool = False

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.addr + self.range

    @property
    def shows(self) -> GemObject | None:
        """The object that it maps, if it maps one."""
        return self.obj if self.op == OpCode.MAP and not self.sparse else None


class Stage(Enum):
    """How far a bind has come."""

    PREPARED = "prepared"
    COMMITTED = "committed"
    RUN = "run"
    CLEANED_UP = "cleaned up"
    ABORTED = "aborted"


class Bind:
    """A bind that was prepared: the address space shows it, the page table does not yet.

    ``Uvmm.prepare`` makes it, and then either ``abort`` undoes that, or the bind goes on, each step once:

    - ``commit``, in the thread that prepared it: there is no way back from here
    - ``run``, in its job: writes the entries
    - ``cleanup``, when the job is done: frees what nobody references any more

    Between them others may prepare, but binds of one space run in the order in which they were prepared. None
    of the objects that it maps, unmaps or cuts may be moved before the end of run: until commit its caller
    holds their reservations, and then the bind relies on its fence being in them (BOOKKEEP will do).

    Source: ``struct nouveau_uvmm_bind_job``.
    """

    __slots__ = (
        "_gone",
        "_held",
        "_promised",
        "_put",
        "_undo",
        "_writes",
        "dropping",
        "kept",
        "ops",
        "stage",
        "vm",
    )

    def __init__(self, vm: Uvmm, ops: tuple[BindOp, ...]) -> None:
        self.vm = vm
        self.ops = ops
        self.stage = Stage.PREPARED
        self._undo: list[Callable[[], object]] = []
        """Takes back what was done, the last first."""
        self._writes: list[Write] = []
        self._put: list[Slots] = []
        """References to drop in the end."""
        self.dropping: list[Region] = []
        """Regions to drop in the end. Locking: the VM's lock."""
        self._gone: list[Uvma] = []
        """Mappings that went, and keep their objects until their entries are gone."""
        self._held: list[VmBo] = []
        """One reference each, so that the VmBos of mappings that went are there for undoing."""
        self._promised = 0
        self.kept = 0
        """Page slots whose entries ``run`` writes over without clearing them first."""

    # -- stages

    def abort(self) -> None:
        """Undo it: mappings, references, regions are as before. Cannot fail.

        Only the order of an object's mappings in its VmBo may be another. Of several binds that were prepared
        the last goes back first. Locking: as ``Uvmm.prepare``, held since then.

        Raises:
            InvalidArgument: it was committed or aborted before, or another was prepared on top of it. Nothing
                was changed.

        Source: ``nouveau_uvmm_bind_job_submit``, the way back.
        """
        lockdep.assert_held(self.vm.lock)
        last = next(reversed(self.vm.pending), self)
        if self.stage is Stage.PREPARED and last is not self:
            raise InvalidArgument(
                f"abort: {last!r} was prepared on top of this bind; abort that first, or commit both",
                value=self,
                bound=last,
            )
        self._advance("abort", Stage.PREPARED, Stage.ABORTED)
        while self._undo:
            self._undo.pop()()
        self._gone.clear()
        self._release()
        del self.vm.pending[self]

    def commit(self) -> None:
        """Give up the way back. Locking: as ``Uvmm.prepare``, held since then.

        Raises:
            InvalidArgument: it was committed or aborted before.
        """
        lockdep.assert_held(self.vm.lock)
        self._advance("commit", Stage.PREPARED, Stage.COMMITTED)
        self._undo.clear()
        self._release()
        self.vm.committed(self)

    def run(self) -> None:
        """Write the page-table entries. Cannot fail.

        Allocates nothing and takes no lock but the backend's mapping lock, so it may run in a
        fence-signalling section. Cost: O(entries).

        Raises:
            InvalidArgument: it was not committed, or has run.

        Source: ``nouveau_uvmm_bind_job_run``.
        """
        self._advance("run", Stage.COMMITTED, Stage.RUN)
        vm = self.vm
        for addr, range, shift, target, kind in self._writes:
            if target is None:
                vm.backend.unmap(addr, range, shift)
            else:
                vm.write_pages(addr, range, shift, target, kind)

    def cleanup(self) -> None:
        """Drop the references of what went, its regions and its objects. Cannot fail.

        Locking: the VM's lock, and no more; not in a fence-signalling section.

        Raises:
            InvalidArgument: it has not run, or was cleaned up before.

        Source: ``nouveau_uvmm_bind_job_cleanup``.
        """
        vm = self.vm
        lockdep.assert_held(vm.lock)
        self._advance("cleanup", Stage.RUN, Stage.CLEANED_UP)
        for slots in self._put:
            vm.backend.put(*slots)
        self._put.clear()
        for region in self.dropping:
            vm.backend.sparse(region.addr, region.range, False)
            vm.region_remove(region)
            del vm.sparse_regions[region.addr, region.range]
        self._gone.clear()
        del vm.pending[self]

    @property
    def references(self) -> int:
        """Page slots whose references ``cleanup`` drops."""
        return sum(slots.range >> slots.shift for slots in self._put)

    # -- what Uvmm.prepare fills in

    def to_undo(self, undo: Callable[[], object]) -> None:
        """Something was done that ``undo`` takes back."""
        self._undo.append(undo)

    def keep(self, gone: list[Uvma]) -> list[tuple[Uvma, VmBo]]:
        """Make sure that mappings which are about to go can come back; returns them with their VmBos.

        Raises:
            OutOfMemory: nothing was changed.
        """
        for va in gone:
            lockdep.assert_held(va.obj.resv)
        self.vm.preallocate(len(gone))
        self._promised += len(gone)
        pairs = [(va, self.hold(va.vm_bo.get())) for va in gone if va.vm_bo is not None]
        assert len(pairs) == len(gone), f"one of {gone!r} is not linked"
        self._gone += gone
        return pairs

    def hold(self, vm_bo: VmBo) -> VmBo:
        """Take over a reference, which is put when there is no way back any more."""
        self._held.append(vm_bo)
        return vm_bo

    def in_job(self, change: PageChange) -> None:
        """What is left to ``run`` and ``cleanup``."""
        self._writes += change.writes
        self._put += change.put
        self.kept += change.kept

    def drops(self, region: Region) -> None:
        """``cleanup`` has to drop a sparse region."""
        self.dropping.append(region)

    # --

    def _advance(self, call: str, before: Stage, after: Stage) -> None:
        if self.stage is not before:
            raise InvalidArgument(
                f"{call}: this bind is {self.stage.value}; {call} comes once, when it is {before.value}",
                value=self.stage,
                bound=before,
            )
        self.stage = after

    def _release(self) -> None:
        """What only the way back needed."""
        for vm_bo in self._held:
            self.vm.bo_put(vm_bo)
        self._held.clear()
        self.vm.release_preallocated(self._promised)
        self._promised = 0

    def __repr__(self) -> str:
        return f"<Bind {len(self.ops)} operations, {self.stage.value}>"
