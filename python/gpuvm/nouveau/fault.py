"""FaultReport: what there is to know of an access that the MMU refused, for which a channel dies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gpuvm.errors import GpuvmError
from gpuvm.mem.aperture import Domain
from gpuvm.mmu.translation import Access, Fault, FaultType
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.history import BindHistory, Touch
from gpuvm.nouveau.uvma import kind_of
from gpuvm.sync import task
from gpuvm.va import Gpuva, Region

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject
    from gpuvm.mem.handles import GemHandles
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.engine.fault import EngineFault
    from gpuvm.nouveau.vm import Uvmm

SHOWN: Final = 8
"""How many operations that touched the address a report keeps."""

REACH: Final = 0x10000
"""An access this near to a mapping, or no farther than the mapping is long, was probably meant for it."""


class Cause(StrEnum):
    """What was most likely done wrong."""

    USE_AFTER_UNMAP = "use after unmap"
    OUT_OF_BOUNDS = "out of bounds"
    EVICTED = "evicted and not validated"
    NOT_BOUND_YET = "not bound yet"
    READ_ONLY = "read-only"
    NO_ATOMICS = "no atomics"
    PRIVILEGED = "privileged"
    KERNEL_AREA = "in the kernel's area"
    OUTSIDE = "outside of the address space"
    NEVER_MAPPED = "never mapped"
    MAPPED_MEANWHILE = "mapped meanwhile"
    """The address is mapped now, or is about to be; it was not at the moment of the access."""
    METHOD_REFUSED = "method refused"
    """No access: what the method's data asks for cannot be done."""


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object at the time of the report."""

    name: str
    handle: int
    """The client's lowest number for it; 0: it has closed all."""
    size: int
    """Bytes."""
    domain: Domain
    swapped: bool
    shared: bool
    """It was exported or imported, or has several handles."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A mapping at the address, or the nearest one on a side of it. Bytes."""

    addr: int
    range: int
    distance: int
    """Between the address and the mapping: 0 right behind its end, 1 for the byte before its first."""
    object: ObjectState | None
    """None: the kernel's area."""
    offset: int
    """Into the object."""
    kind: int
    invalidated: bool
    """Its object was moved away and not validated since, so it has no page-table entries."""

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.addr + self.range

    @property
    def kernel(self) -> bool:
        """It is the kernel's area."""
        return self.object is None


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One fault, with what was known of the address a moment later.

    Numbers and words only, so ``dataclasses.asdict`` gives what JSON can hold. ``report.fault`` tells it to
    people. The address space may have changed between the access and the report, and while that was made.

    Source: what RADV's hang reports and its ``radv_check_va.py`` tell together.
    """

    chip: str
    client: str
    channel: int
    engine: str
    class_: int
    """The class of the engine."""
    method: int
    """Its method's address in bytes; 0 of the host: a push buffer could not be read."""
    error: str
    """What was wrong with the method, beginning with the hardware's name for it, and no address had a part in
    it; "" if an access was refused."""
    addr: int | None
    """The first byte that was refused."""
    access: Access | None
    reason: FaultType | None
    level: str | None
    """Which level's entry refused; None: none was looked at."""
    word: int
    """That raw entry."""
    time: int
    """Of the report, in ns of ``task.now``."""
    cause: Cause
    before: Neighbour | None
    here: Neighbour | None
    after: Neighbour | None
    region: Region | None
    """Sparse, or one that mappings need, around the address."""
    history: tuple[Touch, ...]
    """Operations of binds that touched the address, newest first, ``SHOWN`` at most."""
    unmapped: Touch | None
    """The operation that took away what was there, if no later one brought something."""
    mapped: Touch | None
    """If so: the one that had mapped it before, and is known."""
    oldest: int
    """The number of the first bind call that is known; 1: no call was forgotten."""
    object: ObjectState | None
    """Whose bytes the access was meant for: mapped there, or nearest, or what has the handle now that was
    mapped there."""

    @property
    def last(self) -> Touch | None:
        """The operation that touched the address last, if it is known."""
        return self.history[0] if self.history else None

    @property
    def missed(self) -> Neighbour | None:
        """The mapping that the access was probably meant for, if it is out of bounds."""
        return _missed(self.before, self.after) if self.cause is Cause.OUT_OF_BOUNDS else None

    def __str__(self) -> str:
        where = f'channel {self.channel} of "{self.client}", {self.engine}'
        if self.addr is None or self.access is None or self.reason is None:
            return f"method {self.method:04x} of class {self.class_:04x} on {where}: {self.error}"
        return f"{self.access.name} of {self.addr:#x} by {where}: {self.reason.name}, {self.cause}"


def make_report(client: Client, channel_id: int, error: EngineFault) -> FaultReport:
    """What is known of the fault that ``error`` tells.

    Cost: some milliseconds: O(operations kept + handles + regions). Locking: takes no lock and allocates
    nothing in the core, so a channel's thread may call it in a fence-signalling section while others bind.
    Each look at the space is atomic, all of them together are not. It raises nothing.
    """
    fault = error.fault
    found = _Look(client, fault)
    return FaultReport(
        chip=client.device.chip.name,
        client=client.name,
        channel=channel_id,
        engine=error.engine,
        class_=error.class_,
        method=error.method,
        error=error.error,
        addr=None if fault is None else fault.va,
        access=None if fault is None else fault.access,
        reason=None if fault is None else fault.reason,
        level=None if fault is None else fault.level,
        word=0 if fault is None else fault.word,
        time=task.now(),
        cause=found.cause,
        before=found.before,
        here=found.here,
        after=found.after,
        region=found.region,
        history=tuple(found.touches[:SHOWN]),
        unmapped=found.unmapped,
        mapped=found.mapped,
        oldest=found.oldest,
        object=found.meant,
    )


class _Look:
    """What surrounds the address of a fault; of an error that is none, nothing.

    Nothing either if the client has no address space, or has just closed it.
    """

    def __init__(self, client: Client, fault: Fault | None) -> None:
        self._handles: Final = client.handles
        self.before: Neighbour | None = None
        self.here: Neighbour | None = None
        self.after: Neighbour | None = None
        self.region: Region | None = None
        self.touches: Sequence[Touch] = ()
        self.unmapped: Touch | None = None
        self.mapped: Touch | None = None
        self.oldest: Final = client.history.oldest
        self.inside = True
        self.cause = Cause.METHOD_REFUSED
        if fault is None:
            return
        if client.vm is not None:
            with suppress(GpuvmError):  # it was closed
                self._look_around(client.vm, fault.va)
        self._look_back(client.history, fault.va)
        self.cause = self._find_cause(fault.reason)

    # -- what is there

    def _look_around(self, vm: Uvmm, addr: int) -> None:
        start, end = addr, addr + 1
        self.inside = vm.start <= addr < vm.end
        if self.inside:
            self.region = next((one for one in vm.region_list() if one.addr <= addr < one.end), None)
            here = vm.find_first(addr, 1)
            if here is not None:
                self.here = self._neighbour(here, 0)
                start, end = here.addr, here.end
        before = _nearest_before(vm, min(start, vm.end))
        if before is not None:
            self.before = self._neighbour(before, addr - before.end)
        after = vm.find_first(end, vm.end - end) if vm.start <= end < vm.end else None
        if after is not None:
            self.after = self._neighbour(after, after.addr - addr)

    def _neighbour(self, va: Gpuva, distance: int) -> Neighbour:
        obj = None if va.kernel else object_state(self._handles, va.obj)
        gap = max(distance, 0)  # others may have changed the space between two looks
        return Neighbour(va.addr, va.range, gap, obj, va.offset, kind_of(va.flags), va.invalidated)

    def _look_back(self, history: BindHistory, addr: int) -> None:
        self.touches = list(history.touches(addr))
        self.unmapped = _taken_away(self.touches, forgotten=self.oldest > 1)
        if self.unmapped is not None:
            self.mapped = next((touch for touch in self.touches if touch.maps), None)

    # -- what that means

    def _find_cause(self, reason: FaultType) -> Cause:
        """The first that fits: what the page said, what is mapped there, what binds did, what is near."""
        last = self.touches[0] if self.touches else None
        if not self.inside or reason is FaultType.VA_LIMIT_VIOLATION:
            return Cause.OUTSIDE
        if reason in _REFUSALS:
            return _REFUSALS[reason]
        if self.here is not None and self.here.kernel:
            return Cause.KERNEL_AREA
        if self.here is not None and self.here.invalidated:
            return Cause.EVICTED
        if last is not None and last.maps and not last.run:
            return Cause.NOT_BOUND_YET
        if self.unmapped is not None:
            return Cause.USE_AFTER_UNMAP
        if self.here is not None or any(touch.maps for touch in self.touches):
            return Cause.MAPPED_MEANWHILE
        return Cause.NEVER_MAPPED if _missed(self.before, self.after) is None else Cause.OUT_OF_BOUNDS

    @property
    def meant(self) -> ObjectState | None:
        """Whose bytes the access was meant for."""
        if self.here is not None:
            return self.here.object
        missed = _missed(self.before, self.after)
        if self.cause is Cause.OUT_OF_BOUNDS and missed is not None:
            return missed.object
        if self.mapped is not None and self.mapped.handle:
            with suppress(GpuvmError):  # closed since
                return object_state(self._handles, self._handles.lookup(self.mapped.handle))
        return None


_REFUSALS: Final = {
    FaultType.RO_VIOLATION: Cause.READ_ONLY,
    FaultType.ATOMIC_VIOLATION: Cause.NO_ATOMICS,
    FaultType.PRIV_VIOLATION: Cause.PRIVILEGED,
}


def _taken_away(touches: Sequence[Touch], *, forgotten: bool) -> Touch | None:
    """The one of ``touches``, newest first, since which nothing is there, if something was before.

    Args:
        forgotten: there were others before them, which may have mapped something.
    """
    mapped, sparse = forgotten, False
    taken = None
    for touch in reversed(touches):
        before = mapped or sparse
        if touch.maps:
            mapped, sparse = mapped or not touch.sparse, sparse or touch.sparse
        elif touch.unmaps:
            mapped, sparse = False, sparse and not (touch.sparse or touch.op is OpCode.FREE)
        if mapped or sparse:
            taken = None
        elif before:
            taken = touch
    return taken


def _missed(before: Neighbour | None, after: Neighbour | None) -> Neighbour | None:
    """The mapping of an object that an access between the two missed by little, if it missed one."""
    sides = (one for one in (before, after) if one is not None and not one.kernel)
    near = (one for one in sides if one.distance <= max(REACH, one.range))
    return min(near, key=lambda one: one.distance, default=None)


def _nearest_before(vm: Uvmm, addr: int) -> Gpuva | None:
    """The mapping that ends nearest to ``addr``, at it or before: by halving, O(log**2)."""
    first, empty_from = vm.start, addr
    if addr <= first or vm.interval_empty(first, addr - first):
        return None
    while empty_from - first > 1:
        middle = (first + empty_from) // 2
        if vm.interval_empty(middle, addr - middle):
            empty_from = middle
        else:
            first = middle
    return vm.find_first(first, addr - first)


def object_state(handles: GemHandles, obj: GemObject) -> ObjectState:
    """What is known of an object, by the numbers of the client that has ``handles``. Locking: none."""
    handle = handle_of(handles, obj)
    return ObjectState(obj.name, handle, obj.size, obj.domain, obj.swapped, obj.is_shared)


def handle_of(handles: GemHandles, obj: GemObject) -> int:
    """The lowest handle of an object; 0 if it has none. O(handles). Locking: none."""
    return min((handle for handle, known in handles.items() if known is obj), default=0)
