"""Operations, plans and mappings, which the core makes, and what a driver brings for stepping a plan."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from gpuvm._core import Gpuva, Map, Plan, Prefetch, Remap, Unmap, VmBo

__all__ = ["Driver", "Gpuva", "Map", "Op", "Plan", "Prefetch", "Remap", "Unmap", "VmBo"]

Sequence.register(Plan)

Op: TypeAlias = Map | Unmap | Remap | Prefetch


class Driver(Protocol):
    """The steps that ``Plan.step`` calls (``struct drm_gpuvm_ops``).

    Each applies its operation with mappings of the driver's own, by ``GpuvaManager.map``,
    ``GpuvaManager.remap`` or ``GpuvaManager.unmap``. Raising undoes the whole plan.
    """

    def sm_step_map(self, op: Map, /) -> None:
        """Call ``vm.map(op, va)``."""

    def sm_step_remap(self, op: Remap, /) -> None:
        """Call ``vm.remap(op, prev, next)``, None for a side that ``op`` does not have."""

    def sm_step_unmap(self, op: Unmap, /) -> None:
        """Call ``vm.unmap(op)``."""
