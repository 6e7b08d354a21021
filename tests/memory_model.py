"""The oracle of the memory floors: objects are arrays of bytes, spaces are dictionaries of pages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import numpy.typing as npt

from gpuvm.errors import PageFault
from gpuvm.mem import Aperture
from gpuvm.mem.gem import GemObject
from gpuvm.mem.resource import Resource
from gpuvm.mmu import AddressSpace, HostBackend
from gpuvm.nouveau.bind import BindOp, OpCode
from gpuvm.nouveau.vm import Uvmm
from uvmm_world import PAGE, World

Bytes = npt.NDArray[np.uint8]


class Space:
    """One address space, and what a byte in it should be.

    A mapping is within reach if its space has bound or validated the object since that was last moved: since
    it got the resource that it has.
    """

    def __init__(self, w: World, vm: Uvmm, bytes_of: dict[GemObject, Bytes]) -> None:
        self.w, self.vm = w, vm
        self.bytes_of = bytes_of
        self.pages: dict[int, tuple[GemObject, int]] = {}
        self.regions: dict[int, int] = {}
        self.met: dict[GemObject, Resource | None] = {}
        memories = {at: w.device.memory(at) for at in (Aperture.VRAM, Aperture.SYSTEM_COHERENT)}
        self.access = AddressSpace(vm.backend, memories)

    # -- what is done

    def bind(self, op: BindOp) -> None:
        shows = op.shows
        for page in range(op.addr, op.end, PAGE) if shows or op.op is OpCode.UNMAP else ():
            self.pages.pop(page, None)
            if shows is not None:
                self.pages[page] = shows, op.offset + page - op.addr
        if op.sparse and op.op is OpCode.MAP:
            self.regions[op.addr] = op.range
        elif op.sparse:
            del self.regions[op.addr]

    def meet(self, *objects: GemObject) -> None:
        """These are within reach, as far as they are mapped."""
        for obj in objects:
            self.met[obj] = obj.resource

    def meet_what_came_back(self) -> None:
        """After a failure somewhere on the way: who came back is what the space says."""
        for vm_bo in self.vm.vm_bos():
            if not vm_bo.evicted:
                self.meet(vm_bo.obj)

    def write(self, addr: int, data: bytes) -> None:
        shown = self.within_reach()
        for at, page, part in _by_pages(addr, data):
            if page in shown:
                self.page(shown[page])[at - page : at - page + len(part)] = np.frombuffer(part, np.uint8)

    # -- what should be

    @property
    def objects(self) -> set[GemObject]:
        return {obj for obj, _ in self.pages.values()}

    def within_reach(self) -> dict[int, tuple[GemObject, int]]:
        """The pages that show their objects now."""
        near = {obj for obj in self.objects if obj.extents and self.met.get(obj) is obj.resource}
        return {page: place for page, place in self.pages.items() if place[0] in near}

    def reachable(self, start: int, end: int) -> list[tuple[int, int, Bytes | None]]:
        """Runs of pages that can be read, and of those that cannot, with what should be read."""
        shown, zeros = self.within_reach(), np.zeros(PAGE, np.uint8)
        sparse = {
            page for first, length in self.regions.items() for page in range(first, first + length, PAGE)
        }
        runs: list[tuple[int, int, Bytes | None]] = []
        for readable, group in groupby(range(start, end, PAGE), lambda page: page in shown or page in sparse):
            pages = list(group)
            content = [self.page(shown[page]) if page in shown else zeros for page in pages if readable]
            runs.append((pages[0], pages[-1] + PAGE, np.concatenate(content) if readable else None))
        return runs

    def page(self, place: tuple[GemObject, int]) -> Bytes:
        obj, offset = place
        return self.bytes_of[obj][offset : offset + PAGE]

    def check(self, start: int, end: int) -> None:
        """Every byte is what it should be, read by an engine; of the host backend also by the CPU."""
        for first, last, content in self.reachable(start, end):
            where = f"{self.vm.name} [{first:#x}, {last:#x})"
            if content is None:
                assert self.faults_everywhere(first, last), where
                continue
            assert self.access.read(first, last - first) == content.tobytes(), where
            if isinstance(self.vm.backend, HostBackend):
                assert (self.vm.backend.array[first:last] == content).all(), where
        self.vm.check()

    def faults_everywhere(self, start: int, end: int) -> bool:
        def faults(page: int) -> bool:
            try:
                self.access.read(page, PAGE)
            except PageFault:
                return True
            return False

        runs = list(self.vm.backend.runs(start, end - start))
        return all(faults(run.va) for run in runs) and len({run.state for run in runs}) == 1


def _by_pages(addr: int, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Address, page and bytes of each part."""
    done = 0
    while done < len(data):
        at = addr + done
        page = at // PAGE * PAGE
        part = data[done : done + page + PAGE - at]
        yield at, page, part
        done += len(part)
