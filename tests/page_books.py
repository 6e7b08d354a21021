"""An address space whose entries are written into books. No memory, no device."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, cast

from gpuvm import Exec, GpuVm
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats import PteFlags
from gpuvm.mmu.layers import Layers, Mapped
from gpuvm.nouveau.bind import BindOp, OpCode
from gpuvm.nouveau.moving import bring_back
from gpuvm.nouveau.uvma import Uvma
from gpuvm.nouveau.vm import Uvmm
from gpuvm.sync.resv import Resv

PAGE = 0x1000
BIG = 0x10000
HUGE = 0x200000
ALLOWED = {
    21: frozenset({Aperture.VRAM}),
    16: frozenset({Aperture.VRAM}),
    12: frozenset({Aperture.VRAM, Aperture.SYSTEM_COHERENT}),
}
END = 4 * HUGE
DEVICE: Any = SimpleNamespace(validate=lambda *_, **__: None)
"""Objects are where they are said to be."""


@dataclass(eq=False)
class Bo:
    """An object that lies still, or elsewhere."""

    extents: tuple[Extent, ...]
    device: ClassVar[Any] = DEVICE
    resv: Resv = field(default_factory=lambda: Resv("bo"))
    no_share: bool = False
    vms: set[Uvmm] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(extent.range for extent in self.extents)

    def at(self, offset: int) -> tuple[Aperture, int]:
        for aperture, addr, range_ in self.extents:
            if offset < range_:
                return aperture, addr + offset
            offset -= range_
        raise AssertionError("behind the end")


class Slots(NamedTuple):
    """Page slots as the backend's calls take them."""

    addr: int
    range: int
    shift: int


@dataclass
class Change:
    """What the backend was told of one bind."""

    get: list[Slots] = field(default_factory=list)
    writes: list[tuple[Slots, Extent | None]] = field(default_factory=list)
    put: list[Slots] = field(default_factory=list)
    kept: int = 0


class BookBackend:
    """A backend whose entries are written into books."""

    name, start, range = "books", 0, END
    page_shifts = tuple(ALLOWED)
    pages = ALLOWED

    def __init__(self) -> None:
        self.layers = Layers(0, END, ALLOWED)
        self.change = Change()
        self.touched: Container[int] = ()
        """What may look different after a write."""

    def get(self, addr: int, range_: int, shift: int) -> None:
        self.require_each(addr, range_, shift, referenced=False)
        self.layers.get(addr, addr + range_, shift)
        self.change.get.append(Slots(addr, range_, shift))

    def put(self, addr: int, range_: int, shift: int) -> None:
        self.layers.put(addr, addr + range_, shift)
        self.require_each(addr, range_, shift, referenced=False)
        self.change.put.append(Slots(addr, range_, shift))

    def require_each(self, addr: int, range_: int, shift: int, *, referenced: bool) -> None:
        assert all(
            bool(piece.value) is referenced
            for piece in self.layers.references[shift].pieces(addr, addr + range_)
        )

    def map(self, addr: int, range_: int, shift: int, target: Extent, kind: int, flags: PteFlags) -> None:
        assert flags == (PteFlags(0) if target.aperture == Aperture.VRAM else PteFlags.VOLATILE)
        with self.written(Slots(addr, range_, shift), target):
            mapped = Mapped(shift, target.aperture, target.addr - addr, kind, PteFlags(0))
            self.layers.map(addr, addr + range_, mapped)

    def unmap(self, addr: int, range_: int, shift: int) -> None:
        with self.written(Slots(addr, range_, shift), None):
            self.layers.unmap(addr, addr + range_, shift)

    @contextmanager
    def written(self, slots: Slots, target: Extent | None) -> Iterator[None]:
        """A write, which nobody sees who looks elsewhere."""
        before = self.shown()
        yield
        now = self.shown()
        blinked = [page for page in before.keys() | now.keys() if before.get(page) != now.get(page)]
        assert all(page in self.touched for page in blinked), (slots, target, blinked)
        self.change.writes.append((slots, target))

    def shown(self) -> dict[int, tuple[Aperture, int, int]]:
        return {
            page: (mapped.aperture, page + mapped.delta, mapped.kind)
            for start, end, mapped in self.layers.shown(0, END)
            if isinstance(mapped, Mapped)
            for page in range(start, end, PAGE)
        }


class Books:
    """An address space over books, and what each page should show."""

    def __init__(self, honour_keep: bool = True) -> None:
        self.backend = BookBackend()
        backend = cast(Backend, self.backend)
        self.vm = Uvmm("books", device=DEVICE, backend=backend, honour_keep=honour_keep)
        self.wanted: dict[int, tuple[Aperture, int, int]] = {}

    def map(self, addr: int, range_: int, bo: Bo, offset: int = 0, kind: int = 0) -> Change:
        obj: Any = bo
        change = self.bind(BindOp(OpCode.MAP, addr, range_, obj, offset, kind))
        for page in range(addr, addr + range_, PAGE):
            self.wanted[page] = (*bo.at(offset + page - addr), kind)
        self.check()
        return change

    def unmap(self, addr: int, range_: int) -> Change:
        change = self.bind(BindOp(OpCode.UNMAP, addr, range_))
        for page in range(addr, addr + range_, PAGE):
            self.wanted.pop(page, None)
        self.check()
        return change

    def bind(self, op: BindOp) -> Change:
        vm, self.backend.touched = self.vm, range(op.addr, op.end)
        self.backend.change = change = Change()
        with vm.lock, Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.lock_for(exec, [op])
            bind = vm.prepare([op])
            bind.commit()
            bind.run()
            bind.cleanup()
        change.kept = bind.kept
        return change

    def invalidate(self, bo: Bo) -> None:
        """It goes away."""
        touched = self.backend.touched = self.pages_of(bo)
        with bo.resv:
            for vm_bo in self.vm.vm_bos():
                if vm_bo.obj is bo:
                    self.vm.bo_evict(vm_bo, True)
        self.wanted = {page: shown for page, shown in self.wanted.items() if page not in touched}
        self.check()

    def bring_back(self, bo: Bo, extents: tuple[Extent, ...]) -> None:
        """It comes back, perhaps elsewhere."""
        bo.extents = extents
        self.backend.touched = self.pages_of(bo)
        with Exec() as exec, bo.resv:
            for vm_bo in self.vm.vm_bos():
                if vm_bo.obj is bo:
                    bring_back(self.vm, vm_bo, exec)
        for va in self.vm:
            if va.obj is bo:
                for page in range(va.addr, va.end, PAGE):
                    self.wanted[page] = (*bo.at(va.offset + page - va.addr), uvma(va).kind)
        self.check()

    def pages_of(self, bo: Bo) -> set[int]:
        """Where it is mapped."""
        return {page for va in self.vm if va.obj is bo for page in range(va.addr, va.end, PAGE)}

    def check(self) -> None:
        GpuVm.check(self.vm)
        self.backend.layers.check()
        assert self.backend.shown() == self.wanted
        for shift, references in self.backend.layers.references.items():
            assert all(piece.value in (0, 1) for piece in references.pieces(0, END))
            held = {
                slot
                for va in self.vm
                for run in uvma(va).pages
                if run.shift == shift
                for slot in range(run.addr, run.end, 1 << shift)
            }
            assert held == {
                slot
                for start, end, count in references.pieces(0, END)
                if count
                for slot in range(start, end, 1 << shift)
            }


def uvma(va: Any) -> Uvma:
    assert isinstance(va, Uvma)
    return va


def vram(size: int, addr: int = 0) -> Bo:
    return Bo((Extent(Aperture.VRAM, addr, size),))


def system(size: int, addr: int = 0) -> Bo:
    return Bo((Extent(Aperture.SYSTEM_COHERENT, addr, size),))


def maps(change: Change) -> list[Slots]:
    return [slots for slots, target in change.writes if target is not None]


def unmaps(change: Change) -> list[Slots]:
    return [slots for slots, target in change.writes if target is None]
