"""Devices with address spaces over every backend, objects whose bytes say what they are, snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from gpuvm import Exec, ExecFlags
from gpuvm.errors import GpuvmError
from gpuvm.mem import Aperture, Domain
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats import FORMATS
from gpuvm.mmu.host import HostBackend
from gpuvm.mmu.page_table import PageTable
from gpuvm.nouveau.bind import Bind, BindOp, OpCode
from gpuvm.nouveau.uvma import Uvma
from gpuvm.nouveau.vm import Uvmm
from suite import scaled

PAGE = 0x1000
BIG = 0x10000
HUGE = 0x200000
MIB = 1 << 20
RANGE = 1 << 40

ANYWHERE = Domain.VRAM | Domain.GART
BACKENDS = ("gp100", "host", "gh100", "x86_64")
SPARSE = BACKENDS[:3]
"""Those that have sparse entries."""
MOST = BACKENDS[: scaled(2, 4)]
"""What tests of everything are run with."""
MOST_SPARSE = SPARSE[: scaled(2, 3)]


class Recorder:
    """A backend that notes the calls which change something."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.calls: list[tuple[Any, ...]] = []
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[], None] = lambda: None
        """Called before and after each of them."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.backend, name)
        if name not in ("get", "put", "map", "unmap", "sparse"):
            return found

        def call(*args: Any) -> None:
            self.before(name)
            found(*args)
            self.calls.append((name, *args))
            self.after()

        return call

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        """Where these were called: name, address, range, shift."""
        return [call[:4] for call in self.calls if call[0] in names]


class World:
    """One device; objects are known by name, and the first bytes of each of their pages say which it is."""

    def __init__(self, *, vram: int = 32 * MIB, gart: int = 32 * MIB) -> None:
        self.device = Device(vram=vram, gart=gart)
        self.vms: list[Uvmm] = []
        self.tags: dict[GemObject, int] = {}

    def space(self, backend: str = "gp100", *, recorded: bool = False, **options: Any) -> Uvmm:
        name = f"{backend} {len(self.vms)}"
        made: Any = self.backend(backend, name)
        vm = Uvmm(
            name, device=self.device, backend=Recorder(made) if recorded else made, range=RANGE, **options
        )
        self.vms.append(vm)
        return vm

    def backend(self, backend: str, name: str) -> Backend:
        if backend != "host":
            return PageTable(FORMATS[backend], self.device.instance_memory, name)
        memories = {
            aperture: self.device.memory(aperture) for aperture in (Aperture.VRAM, Aperture.SYSTEM_COHERENT)
        }
        return HostBackend(0, RANGE, memories, name=name)

    def bo(
        self, name: str, size: int, domains: Domain = ANYWHERE, of: Uvmm | None = None, **options: Any
    ) -> GemObject:
        """A new object; ``of``: private to that space."""
        resv = None if of is None else of.resv
        bo = self.device.create(size, domains, name=name, resv=resv, no_share=of is not None, **options)
        tags = bo.view.view(np.uint64).reshape(-1, PAGE // 8)[:, 0]
        self.tags[bo] = len(self.tags) + 1 << 32
        tags[:] = np.arange(len(tags)) + self.tags[bo]
        return bo

    def tag(self, bo: GemObject, offset: int = 0) -> int:
        """What the page of ``bo`` at ``offset`` begins with."""
        return self.tags[bo] + offset // PAGE

    def read(self, vm: Uvmm, addr: int) -> int | None:
        """What the page at ``addr`` begins with; 0 if it is sparse, None if reading faults."""
        return self.read_pages(vm, [addr])[addr]

    def read_pages(self, vm: Uvmm, pages: Iterable[int]) -> dict[int, int | None]:
        """The same of many."""
        found: dict[int, int | None] = {}
        wanted = sorted(pages)
        index = 0
        for run in vm.backend.runs(wanted[0], wanted[-1] + PAGE - wanted[0]) if wanted else ():
            view = self.device.memory(run.aperture).view
            while index < len(wanted) and wanted[index] < run.va + run.range:
                addr = run.address + wanted[index] - run.va
                tag = int.from_bytes(view[addr : addr + 8].tobytes(), "little")
                found[wanted[index]] = (tag, 0, None)[run.state]
                index += 1
        return found

    def shows(self, vm: Uvmm, addr: int, bo: GemObject, offset: int, range_: int) -> bool:
        """Whether every page shows the object's."""
        pages = self.read_pages(vm, range(addr, addr + range_, PAGE))
        return pages == {addr + at: self.tag(bo, offset + at) for at in range(0, range_, PAGE)}

    def evict(self, bo: GemObject) -> None:
        with bo.resv:
            self.device.evict(bo)

    def check(self) -> None:
        self.device.check()
        for vm in self.vms:
            vm.check()
            vm.backend.check()

    def close(self) -> None:
        """Take everything down; nothing may be left."""
        for vm in self.vms:
            vm.close()
            vm.backend.check()
            left = vm.backend.statistics()
            assert (left.references, left.sparse_bytes, sum(left.mapped.values())) == (0, 0, 0)
            vm.backend.close()
        self.device.check()
        left_over = self.device.statistics()
        assert left_over.instance_memory == 0


@contextmanager
def world(**options: Any) -> Iterator[World]:
    """A world in which everything is right, and nothing is left in the end."""
    made = World(**options)
    yield made
    made.check()
    made.close()


class Model:
    """What each page of a space should show: a dictionary, and what the names of operations say."""

    def __init__(self) -> None:
        self.pages: dict[int, tuple[GemObject, int]] = {}
        self.regions: set[tuple[int, int]] = set()

    def apply(self, *ops: BindOp) -> None:
        for op in ops:
            pages, shows = range(op.addr, op.end, PAGE), op.shows
            if shows is not None:
                self.pages.update({page: (shows, op.offset + page - op.addr) for page in pages})
            elif op.op in (OpCode.MAP, OpCode.ALLOC):
                self.regions |= {(op.addr, op.range)} if op.sparse else set()
            else:
                for page in pages if len(pages) < len(self.pages) else list(self.pages):
                    if page in pages:
                        self.pages.pop(page, None)
                self.regions -= {(op.addr, op.range)} if op.sparse or op.op is OpCode.FREE else set()

    def expected(self, w: World, page: int) -> int | None:
        """What reading gives, if all objects are where they should be."""
        if page in self.pages:
            return w.tag(*self.pages[page])
        return 0 if any(addr <= page < addr + range_ for addr, range_ in self.regions) else None

    def check(self, w: World, vm: Uvmm, pages: Iterable[int]) -> None:
        found = w.read_pages(vm, pages)
        assert found == {page: self.expected(w, page) for page in found}


class Modelled:
    """A space and its model, bound together, and looked at every ``step`` bytes and at all borders."""

    def __init__(self, w: World, vm: Uvmm, window: tuple[int, int], step: int = PAGE) -> None:
        self.w, self.vm, self.window = w, vm, window
        self.model = Model()
        self.pages = set(range(*window, step))

    def bind(self, *ops: BindOp) -> None:
        self.vm.bind(ops)
        self.model.apply(*ops)
        for op in ops:
            self.pages |= {op.addr - PAGE, op.addr, op.end - PAGE, op.end} & set(range(*self.window, PAGE))
        self.check()

    def refuse(self, error: type[GpuvmError], *ops: BindOp, index: int = 0) -> None:
        """A call is refused for its operation ``index``, and changes nothing."""
        before = state(self.vm)
        with pytest.raises(error) as caught:
            self.vm.bind(ops)
        assert caught.value.request == index
        assert state(self.vm) == before
        self.check()

    def check(self) -> None:
        self.model.check(self.w, self.vm, self.pages)
        self.vm.check()


def map_op(addr: int, range_: int, bo: GemObject, offset: int = 0, kind: int = 0) -> BindOp:
    return BindOp(OpCode.MAP, addr, range_, bo, offset, kind)


def unmap_op(addr: int, range_: int) -> BindOp:
    return BindOp(OpCode.UNMAP, addr, range_)


def map_sparse(addr: int, range_: int) -> BindOp:
    return BindOp(OpCode.MAP, addr, range_, sparse=True)


def unmap_sparse(addr: int, range_: int) -> BindOp:
    return BindOp(OpCode.UNMAP, addr, range_, sparse=True)


@contextmanager
def locked(vm: Uvmm, *ops: BindOp) -> Iterator[Exec]:
    """The VM's lock, and the reservations that ``ops`` need; their objects have memory."""
    with vm.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                vm.lock_for(exec, ops)
                for op in ops:
                    if op.shows is not None:
                        vm.device.validate(op.shows, exec=exec)
        yield exec


def prepared(vm: Uvmm, *ops: BindOp) -> Bind:
    """Prepared and committed, as by a submission."""
    with locked(vm, *ops):
        bind = vm.prepare(ops)
        bind.commit()
    return bind


def finish(bind: Bind) -> None:
    bind.run()
    with bind.vm.lock:
        bind.cleanup()


def uvma(vm: Uvmm, addr: int) -> Uvma:
    found = vm.find_first(addr, 1)
    assert isinstance(found, Uvma)
    return found


def mapped(vm: Uvmm) -> list[tuple[int, int, GemObject, int]]:
    return [(va.addr, va.end, va.obj, va.offset) for va in vm if not va.kernel]


def state(vm: Uvmm) -> dict[str, Any]:
    """All that can be seen of a space and of its page table, but counters that only grow."""
    backend, statistics = vm.backend, vm.statistics()
    tables: Callable[[], Iterable[object]] = getattr(backend, "tables", tuple)
    return {
        "mappings": [
            (id(va), va.addr, va.range, id(va.obj), va.offset, va.flags, va.invalidated, tuple(pages_of(va)))
            for va in vm
        ],
        "vm_bos": sorted(
            (id(bo.obj), bo.refcount, bo.evicted, sorted(id(va) for va in bo), bo.on_extobjs, bo.on_evicted)
            for bo in vm.vm_bos()
        ),
        "regions": (vm.region_list(), list(vm.dropping(0, vm.range))),
        "pending": list(vm.pending),
        "counts": (statistics.preallocated, statistics.mappings, statistics.binds),
        "runs": list(backend.runs(backend.start, vm.range)),
        "referenced": (backend.statistics().mapped, backend.statistics().references),
        "tables": list(tables()),
    }


def pages_of(va: Any) -> list[Any]:
    return va.pages if isinstance(va, Uvma) else []
