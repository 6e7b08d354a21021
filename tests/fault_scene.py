"""A client with an address space and a history, no driver around them, and faults of real accesses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from gpuvm.errors import PageFault
from gpuvm.mem import Aperture
from gpuvm.mem.gem import GemObject
from gpuvm.mem.handles import GemHandles
from gpuvm.mmu.access import AddressSpace
from gpuvm.mmu.translation import Fault
from gpuvm.nouveau.bind import BindOp
from gpuvm.nouveau.chipset import chip_of
from gpuvm.nouveau.engine.fault import EngineFault
from gpuvm.nouveau.fault import FaultReport, make_report
from gpuvm.nouveau.history import BindHistory
from gpuvm.nouveau.uapi.dialects import CURRENT, Dialect
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.nouveau.vm import Uvmm
from gpuvm.sync import lockdep, task
from uvmm_world import MIB, World, world

KERNEL = (1 << 38, 1 << 38)
SPARSE = 0x100


class Client:
    """What ``make_report`` looks at."""

    def __init__(self, w: World, *, dialect: Dialect = CURRENT, **options: Any) -> None:
        self.w = w
        self.name = "unit"
        self.device = SimpleNamespace(chip=chip_of(0x162))
        self.dialect = dialect
        self.handles = GemHandles(w.device, self.name)
        self.history = BindHistory(dialect=dialect, **options)
        self.vm: Uvmm | None = w.space(kernel_node=KERNEL)
        memories = {aperture: w.device.memory(aperture) for aperture in (Aperture.VRAM, Aperture(2))}
        self.space = AddressSpace(self.vm.backend, memories)

    def new(self, name: str, size: int = MIB) -> int:
        return self.handles.create(self.w.bo(name, size))

    def obj(self, handle: int) -> GemObject:
        return self.handles.lookup(handle)

    def bind(self, *ops: VmBindOp, run_async: bool = False, run: bool = True) -> int:
        """A bind call; its job runs, or seems not to have."""
        assert self.vm is not None
        self.vm.bind(self.bind_ops(ops))
        number = self.history.note(task.now(), ops, run_async)
        if run:
            self.history.ran(number)
        return number

    def bind_ops(self, ops: Sequence[VmBindOp]) -> list[BindOp]:
        return [BindOp._make(op) for op in self.dialect.bind_ops(ops, self.handles)]

    def fault(self, call: str, *args: Any) -> FaultReport:
        """The report of an access that is refused, made where a channel's thread makes it."""
        with pytest.raises(PageFault) as caught:
            getattr(self.space, call)(*args)
        assert isinstance(caught.value.value, Fault)
        return self.report(EngineFault("copy", 0xC5B5, 0x300, caught.value.value))

    def report(self, error: EngineFault) -> FaultReport:
        held = lockdep.held()
        with lockdep.fence_signalling():
            report = make_report(self, 1, error)  # type: ignore[arg-type] # it has what is looked at
        assert lockdep.held() == held
        return report


def map_at(addr: int, range_: int, handle: int, offset: int = 0, kind: int = 0) -> VmBindOp:
    return VmBindOp(0, kind, handle, addr, offset, range_)


def unmap_at(addr: int, range_: int) -> VmBindOp:
    return VmBindOp(1, 0, 0, addr, 0, range_)


def sparse_at(addr: int, range_: int) -> VmBindOp:
    return VmBindOp(0, SPARSE, 0, addr, 0, range_)


def unsparse_at(addr: int, range_: int) -> VmBindOp:
    return VmBindOp(1, SPARSE, 0, addr, 0, range_)


@contextmanager
def scene(**options: Any) -> Iterator[Client]:
    with world() as w:
        client = Client(w, **options)
        yield client
        client.history.check()
        client.handles.close_all()
