"""Binds: the operations of one call, and their way through the three stages of a bind job."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple

from gpuvm._core import BindOps, Work
from gpuvm.errors import InvalidArgument
from gpuvm.sync import lockdep
from gpuvm.va import Region

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject
    from gpuvm.nouveau.vm import Uvmm


class OpCode(IntEnum):
    """What to do (``DRM_NOUVEAU_VM_BIND_OP_*``)."""

    MAP = 0
    UNMAP = 1
    ALLOC = 2
    """Make a region, in a space whose mappings need one: ``Uvmm(regions=Regions.REQUIRED)``."""
    FREE = 3
    """Unmap all in a region, and drop it."""


class BindOp(NamedTuple):
    """One operation of a bind: show an object at an address range, or nothing any more.

    Args:
        op: MAP or UNMAP, and in a space whose mappings need regions ALLOC or FREE.
        addr, range: bytes, multiples of 4096; of a FREE those of the region.
        obj: what to map; ignored by all but a MAP, and with ``sparse``, as the next two are.
        offset: first byte of the object to be mapped, a multiple of 4096.
        kind: storage kind of the page-table entries, 0 to 255 as far as the format has it; 0 is plain.
        sparse: a MAP makes the range a sparse region, which reads as zeros where nothing is mapped. An UNMAP
            unmaps all in the region and drops it; the range must be the region's. Where mappings need
            regions it says what an ALLOC makes, and neither MAP nor UNMAP knows it.

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


PREPARED, COMMITTED, RUN, CLEANED_UP = Stage.PREPARED, Stage.COMMITTED, Stage.RUN, Stage.CLEANED_UP
"""Looked up once: each bind goes through all of them."""


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

    __slots__ = ("_gone", "_work", "dropping", "kept", "ops", "stage", "vm")

    def __init__(self, vm: Uvmm, ops: BindOps, work: Work) -> None:
        self.vm = vm
        self.ops = ops
        self.stage = PREPARED
        self._work = work
        """What is to be done in the page table, and the way back."""
        self._gone: list[GemObject] | None = None
        """Objects that the space does not map any more, kept until their entries are gone."""
        self.dropping = [Region(*region) for region in work.dropped] if work.leaves else []
        """Regions to drop in the end."""
        self.kept = work.kept
        """Page slots whose entries ``run`` writes over without clearing them first."""

    # -- stages

    def abort(self) -> None:
        """Undo it: mappings, references, regions are as before. Cannot fail.

        Of several binds that were prepared the last goes back first. Locking: as ``Uvmm.prepare``, held since
        then.

        Raises:
            InvalidArgument: it was committed or aborted before, or another was prepared on top of it. Nothing
                was changed.

        Source: ``nouveau_uvmm_bind_job_submit``, the way back.
        """
        vm = self.vm
        if lockdep.enabled:
            lockdep.assert_held(vm.lock)
        last = next(reversed(vm.pending), self)
        if self.stage is PREPARED and last is not self:
            raise InvalidArgument(
                f"abort: {last!r} was prepared on top of this bind; abort that first, or commit both",
                value=self,
                bound=last,
            )
        if self.stage is not PREPARED:
            raise self._out_of_order("abort", PREPARED)
        self.stage = Stage.ABORTED
        vm.entries.give_back(self._work)
        vm.undone(self, self._work)

    def commit(self) -> None:
        """Give up the way back. Locking: as ``Uvmm.prepare``, held since then.

        Raises:
            InvalidArgument: it was committed or aborted before.
        """
        vm = self.vm
        if lockdep.enabled:
            lockdep.assert_held(vm.lock)
        if self.stage is not PREPARED:
            raise self._out_of_order("commit", PREPARED)
        self.stage = COMMITTED
        self._gone = vm.committed(self, self._work)

    def run(self) -> None:
        """Write the page-table entries. Cannot fail.

        Allocates nothing and takes no lock but the backend's mapping lock and those of ``Uvmm.flush``, so it
        may run in a fence-signalling section. Cost: O(entries).

        Raises:
            InvalidArgument: it was not committed, or has run.

        Source: ``nouveau_uvmm_bind_job_run``.
        """
        if self.stage is not COMMITTED:
            raise self._out_of_order("run", COMMITTED)
        self.stage = RUN
        self.vm.entries.write(self._work)
        if self._gone or self._work.leaves:  # nobody may go on by what was there
            self.vm.flush()

    def cleanup(self) -> None:
        """Drop the references of what went, its regions and its objects. Cannot fail.

        Locking: the VM's lock, and no more; not in a fence-signalling section.

        Raises:
            InvalidArgument: it has not run, or was cleaned up before.

        Source: ``nouveau_uvmm_bind_job_cleanup``.
        """
        vm = self.vm
        if lockdep.enabled:
            lockdep.assert_held(vm.lock)
        if self.stage is not RUN:
            raise self._out_of_order("cleanup", RUN)
        self.stage = CLEANED_UP
        if self._work.leaves:
            vm.entries.put(self._work)
        vm.cleaned_up(self, self._work)
        self._gone = None

    @property
    def references(self) -> int:
        """Page slots whose references ``cleanup`` drops."""
        return self._work.references

    def _out_of_order(self, call: str, when: Stage) -> InvalidArgument:
        return InvalidArgument(
            f"{call}: this bind is {self.stage.value}; {call} comes once, when it is {when.value}",
            value=self.stage,
            bound=when,
        )

    def __repr__(self) -> str:
        return f"<Bind {len(self.ops)} operations, {self.stage.value}>"
