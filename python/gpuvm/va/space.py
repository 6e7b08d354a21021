"""GpuvaManager: what is mapped where in one GPU address space (the kernel's ``struct drm_gpuva_manager``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from itertools import chain, islice
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from gpuvm._core import Space
from gpuvm.errors import Busy, CheckFailed, InvalidArgument
from gpuvm.va.flags import Fit, GpuVmFlags, Merge, Regions
from gpuvm.va.ops import Gpuva, Map
from gpuvm.va.region import Region
from gpuvm.va.statistics import Statistics

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHOWN = 8
"""How many mappings an error lists before it says how many more there are."""


class GpuvaManager(Space):
    """The mappings of ``[start, start + range)``: split and merge, objects, regions.

    Addresses, lengths and offsets are bytes, 0 <= n < 2**64; ends are exclusive.

    - making changes: ``sm_map``, ``sm_unmap``, ``madvise``, ``bo_unmap`` and ``prefetch`` make a ``Plan``;
      ``bind`` applies arrays of requests; ``insert`` and ``remove`` move single mappings
    - looking: ``find``, ``find_first``, ``find_prev``, ``find_next``, ``mappings``, ``interval_empty``,
      ``range_valid``, ``find_gap``, ``find_many``, ``to_array``
    - objects: ``bo_create``, ``bo_find``, ``bo_obtain``, ``bo_obtain_prealloc``, ``vm_bos``, ``extobjs``,
      ``evicted``
    - regions: ``region_insert``, ``region_remove``, ``region_find``, ``region_list``
    - life: ``get``, ``put``, ``with``; ``check`` and ``statistics``

    Locking: calls are atomic, each under the interpreter's lock. Between making a plan and applying it the
    caller holds the VM's lock; if not, a plan overtaken by another change is refused as stale.

    Args:
        name: what messages and tables call it.
        start: first address.
        range: length; EINVAL if empty, or if the end overflows.
        kernel_node: (addr, range) that the kernel keeps for itself; nobody can map over or remove it.
            EINVAL if it is outside the space. Length 0 means none.
        kernel_node_anywhere: accept a kernel's node that leaves the space, as the kernel itself does.
        merge: whether maps take neighbours in.
        regions: what regions ask of mappings.
        flags: ``GpuVmFlags``.
        can_merge: asked ``can_merge(va, map)`` before ``va`` is merged into a request; false keeps it apart.
            It may look at the space but not change it.

    Source: ``drm_gpuvm_init``.
    """

    _references = 0

    def __init__(
        self,
        name: str,
        *,
        start: int = 0,
        range: int,
        kernel_node: tuple[int, int] | None = None,
        kernel_node_anywhere: bool = False,
        merge: Merge = Merge.NEVER,
        regions: Regions = Regions.OFF,
        flags: GpuVmFlags = GpuVmFlags(0),  # noqa: B008 (immutable)
        can_merge: Callable[[Gpuva, Map], bool] | None = None,
    ) -> None:
        if can_merge is not None and not callable(can_merge):
            raise TypeError(f"can_merge is a {type(can_merge).__name__}; pass a function of (va, map)")
        flags = GpuVmFlags(flags)
        super().__init__(
            name,
            start,
            range,
            kernel_node,
            kernel_node_anywhere,
            Merge(merge),
            Regions(regions),
            GpuVmFlags.IMMEDIATE_MODE in flags,
            can_merge,
        )
        self._merge, self._regions_mode, self._flags = Merge(merge), Regions(regions), flags
        self._references = 1

    @property
    def merge(self) -> Merge:
        """Whether maps take neighbours in."""
        return self._merge

    @property
    def regions_mode(self) -> Regions:
        """What regions ask of mappings."""
        return self._regions_mode

    @property
    def flags(self) -> GpuVmFlags:
        """Flags of the space."""
        return self._flags

    # -- life

    @property
    def refcount(self) -> int:
        """Number of references, which callers, mappings and VmBos hold."""
        return self._references + len(self) + self._vm_bo_count

    def get(self) -> Self:
        """Take a reference (``drm_gpuvm_get``)."""
        self._require_open()
        self._references += 1
        return self

    def put(self) -> bool:
        """Drop a reference (``drm_gpuvm_put``); True if it was the last, which closes the space.

        Raises:
            Busy: it is the callers' last and mappings or VmBos remain, which the message lists.
                Nothing changes.
            InvalidArgument: the space is closed.
        """
        self._require_open()
        if self._references > 1:
            self._references -= 1
            return False
        if not self._close():
            raise self._still_holding()
        self._references = 0
        self.vm_free()
        return True

    def _still_holding(self) -> Busy:
        """What stands in the way of closing."""
        vm_bos, deferred = self.vm_bos(), self.deferred
        mappings = (va for va in self if not va.kernel)
        shown = [repr(left) for left in islice(chain(mappings, vm_bos, deferred), SHOWN)]
        count = len(self) + len(vm_bos) + len(deferred)
        more = f" and {count - SHOWN} more" if count > SHOWN else ""
        advice = [f"unmap {'it' if count == 1 else 'them'}"] if count > len(deferred) else []
        advice += ["call bo_deferred_cleanup"] if deferred else []
        return Busy(
            f'put: address space "{self.name}" still holds {", ".join(shown)}{more}; '
            f"{' and '.join(advice)} before the last put",
            value=count,
            bound=0,
        )

    def vm_free(self) -> None:
        """For a driver to override: called after the last put (``drm_gpuvm_ops.vm_free``)."""

    def _require_open(self) -> None:
        if self._references == 0:
            raise InvalidArgument(f'address space "{self.name}" was closed by its last put', value=0, bound=1)

    def __enter__(self) -> Self:
        """The creator's reference, put at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put; mappings left over after an error are the error's, not another one."""
        try:
            self.put()
        except Busy as busy:
            if error is None:
                raise
            error.add_note(str(busy))

    # -- looking

    def find_gap(
        self,
        range: int,
        *,
        align: int = 1,
        fit: Fit = Fit.LOWEST,
        start: int | None = None,
        end: int | None = None,
    ) -> int:
        """Address of ``range`` free bytes at a multiple of ``align`` inside ``[start, end)``.

        Cost: O(log n) a search, and a look at what changed since the last one. The first with Fit.BEST sorts
        all holes by size.

        Raises:
            NoSpace: no hole does; ``bound`` is the largest hole of the space.
            InvalidArgument: ``range`` or ``align`` is 0.

        Source: ``mas_empty_area``, ``drm_mm_insert_node_in_range``.
        """
        return self._find_gap(range, align, Fit(fit), (start, end))

    def find_many(self, addrs: npt.ArrayLike, ranges: npt.ArrayLike) -> npt.NDArray[np.void]:
        """``find`` for arrays of addresses and lengths.

        Returns:
            An array of ``MAPPING``; ``range`` is 0 where there is no such mapping.

        Raises:
            ValueError: the two shapes differ.
            TypeError: not integers.
            InvalidArgument: a negative number.
        """
        found: npt.NDArray[np.void] = _arrays().find_many(self, addrs, ranges)
        return found

    def to_array(self) -> npt.NDArray[np.void]:
        """Every mapping in address order as an array of ``MAPPING``, the kernel's node left out. O(n)."""
        mappings: npt.NDArray[np.void] = _arrays().to_array(self)
        return mappings

    # -- changing

    def bind(self, requests: npt.NDArray[Any], objects: Mapping[int, object]) -> npt.NDArray[np.void]:
        """Apply an array of ``VM_BIND_OP`` requests in order, all or none.

        ``op`` is 0 (MAP) or 1 (UNMAP). The low eight bits of ``flags`` are a map's PTE kind, kept in the
        mapping's flags from USERBITS on; 0x100 (SPARSE) makes a sparse region, or unmaps and drops one,
        whatever the handle. Handle 0 maps no object. Locking: the VM's lock for writing.

        Args:
            requests: one row, C-contiguous.
            objects: from handle to object.

        Returns:
            The operations emitted, an array of ``BIND_OP``, read-only.

        Raises:
            GpuvmError: a request was refused; ``request`` is its index. InvalidArgument: range, op or flags.
                NotFound: unknown handle, or no such sparse region. NoSpace: cuts a region, or no room for
                one. OutOfMemory.
            TypeError: ``requests`` is no such array.

        Source: ``nouveau_uvmm_bind_job_submit``.
        """
        emitted: npt.NDArray[np.void] = _arrays().bind(self, requests, objects)
        return emitted

    def region_insert(self, addr: int, range: int, *, sparse: bool = False) -> Region:
        """Reserve ``[addr, addr + range)``.

        Raises:
            InvalidArgument: regions are off, or the range cannot be mapped.
            AlreadyMapped: a region or a mapping is there.
        """
        self._region_insert(addr, range, sparse)
        return Region(addr, range, sparse)

    def region_remove(self, region: Region) -> None:
        """Give a region up.

        Raises:
            NotFound: there is no such region.
            Busy: it holds a mapping.
        """
        self._region_remove(region.addr, region.range)

    def region_find(self, addr: int, range: int) -> Region | None:
        """The region at exactly ``[addr, addr + range)``."""
        regions = self.region_list()
        return next((region for region in regions if (region.addr, region.range) == (addr, range)), None)

    def region_list(self) -> list[Region]:
        """All regions in address order."""
        return [Region(*region) for region in self._regions()]

    # -- itself

    def check(self) -> None:
        """Verify every invariant of the tree, the lists, the counts and the summaries. O(n).

        Raises:
            CheckFailed: with the invariant and the state.
        """
        broken = self._check()
        if broken is None:
            return
        state = "\n".join(
            f"  [{va['addr']:#018x}, +{va['range']:#x}) handle {va['handle']} offset {va['bo_offset']:#x}"
            f" flags {va['flags']:#x}"
            for va in self.to_array()
        )
        raise CheckFailed(f"{broken}\n{self.statistics()}\n{state}")

    def statistics(self) -> Statistics:
        """Counts and sizes, of now. O(n)."""
        numbers, fill = self._statistics()
        return Statistics(name=self.name, tree_fill=fill, **numbers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} [{self.start:#x}, {self.end:#x}) {len(self)} mappings>"


@cache
def _arrays() -> ModuleType:
    """The part that needs NumPy, whose import takes longer than all the rest of gpuvm."""
    return import_module("gpuvm.va.bulk")
