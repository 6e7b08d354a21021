"""Binds: the operations of one call, and their way through the three stages of a bind job."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from gpuvm._core import RawBind
from gpuvm.errors import InvalidArgument
from gpuvm.sync import lockdep

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


STAGES: Final = tuple(Stage)
"""As the core numbers them."""


class Bind(RawBind):
    """A bind that was prepared: the address space shows it, the page table does not yet.

    ``Uvmm.prepare`` makes it, and then either ``abort`` undoes that, or the bind goes on, each step once:

    - ``commit``, in the thread that prepared it: there is no way back from here
    - ``run``, in its job: writes the entries
    - ``cleanup``, when the job is done: frees what nobody references any more

    The core has these; ``ops`` are its operations, ``dropping`` the regions that it drops.

    Between them others may prepare, but binds of one space run in the order in which they were prepared. None
    of the objects that it maps, unmaps or cuts may be moved before the end of run: until commit its caller
    holds their reservations, and then the bind relies on its fence being in them (BOOKKEEP will do).

    Source: ``struct nouveau_uvmm_bind_job``.
    """

    __slots__ = ()

    vm: Uvmm

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        return STAGES[self._stage]

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
        self._require_lock()
        vm, stage = self.vm, self.stage
        last = next(reversed(vm.pending), self)
        if stage is Stage.PREPARED and last is not self:
            raise InvalidArgument(
                f"abort: {last!r} was prepared on top of this bind; abort that first, or commit both",
                value=self,
                bound=last,
            )
        if stage is not Stage.PREPARED:
            raise self._out_of_order("abort", 0)
        self._stage = STAGES.index(Stage.ABORTED)
        vm.entries.give_back(self._work)
        vm.undone(self, self._work)

    def _require_lock(self) -> None:
        if lockdep.enabled:
            lockdep.assert_held(self.vm.lock)

    @property
    def kept(self) -> int:
        """Page slots whose entries ``run`` writes over without clearing them first."""
        return self._work.kept

    @property
    def references(self) -> int:
        """Page slots whose references ``cleanup`` drops."""
        return self._work.references

    def _out_of_order(self, call: str, when: int) -> InvalidArgument:
        stage, expected = self.stage, STAGES[when]
        return InvalidArgument(
            f"{call}: this bind is {stage.value}; {call} comes once, when it is {expected.value}",
            value=stage,
            bound=expected,
        )

    def __repr__(self) -> str:
        return f"<Bind {len(self.ops)} operations, {self.stage.value}>"
