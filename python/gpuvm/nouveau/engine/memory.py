"""EngineMemory: the address space as engines see it: any address may be asked for, and faults at worst."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvm._core import Surface
from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mmu.access import AddressSpace, Components
from gpuvm.mmu.translation import Access, Fault, FaultType
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex


class EngineMemory:
    """Reads and writes of an address space that are refused by nothing but a fault.

    An ``AddressSpace`` calls a range that leaves the page tables' a mistake of its caller. To an engine it is
    what a program asked for: a fault, at the first address that leads nowhere.

    All calls raise ``PageFault`` before a byte is written. Cost: as ``AddressSpace``.

    Locking: each holds ``accessing`` from the translation to the last byte. Whoever has changed entries takes
    it once, and then nobody uses the old ones.

    Attributes:
        engine: which one accesses it, for who watches.
    """

    def __init__(self, space: AddressSpace, name: str) -> None:
        self.accessing: Final = Mutex(f"{name} accessing", lockdep.lock_class("engine_accessing"))
        self.engine = "host"
        self._space: Final = space
        self._start: Final = space.backend.start
        self._end: Final = space.backend.start + space.backend.range

    def read(self, addr: int, range: int) -> bytes:
        """A copy of ``range`` bytes, at least one."""
        try:
            with self.accessing:
                return self._space.read(addr, range)
        except InvalidArgument:
            raise self._outside((addr, range, Access.READ)) from None

    def fetch(self, addr: int, range: int) -> bytes:
        """As ``read``, of a push buffer."""
        return self.read(addr, range)

    def acquired(self, addr: int, size: int, began: int) -> None:
        """A number was read until it was what somebody waited for, or that ended, from a moment on."""

    def read_number(self, addr: int, size: int) -> int:
        """The unsigned number in ``size`` bytes."""
        return int.from_bytes(self.read(addr, size), "little")

    def write(self, addr: int, data: bytes) -> None:
        """Write ``data``, at least one byte."""
        try:
            with self.accessing:
                self._space.write(addr, data)
        except InvalidArgument:
            raise self._outside((addr, len(data), Access.WRITE)) from None

    def write_number(self, addr: int, number: int, size: int) -> None:
        """Write an unsigned number of ``size`` bytes, at a multiple of it, in one step."""
        self.write(addr, number.to_bytes(size, "little"))

    def fill(self, addr: int, range: int, pattern: bytes) -> None:
        """Write the pattern again and again."""
        try:
            with self.accessing:
                self._space.fill(addr, range, pattern)
        except InvalidArgument:
            raise self._outside((addr, range, Access.WRITE)) from None

    def copy(self, dst: int, src: int, range: int, step: int | None = None) -> None:
        """Copy bytes as by ``memmove``, or as by one for each ``step``."""
        try:
            with self.accessing:
                self._space.copy(dst, src, range, step=step)
        except InvalidArgument:
            raise self._outside((src, range, Access.READ), (dst, range, Access.WRITE)) from None

    def reduce(self, addr: int, size: int, operation: int, operand: int, signed: bool) -> None:
        """Change a number in one step; see ``AddressSpace.reduce``, whose operations there must be."""
        try:
            with self.accessing:
                self._space.reduce(addr, size, operation, operand, signed=signed)
        except InvalidArgument:
            raise self._outside((addr, size, Access.ATOMIC)) from None

    def move_lines(
        self,
        target: Surface,
        source: Surface | bytes | None,
        elements: int,
        lines: int,
        components: Components | None,
        go_on: Callable[[], None],
    ) -> None:
        """As ``AddressSpace.move_lines``, which has no mistakes for engines to make."""
        with self.accessing:
            self._space.move_lines(target, source, elements, lines, components, go_on=go_on)

    def _outside(self, *ranges: tuple[int, int, Access]) -> PageFault:
        """The first fault of ranges, one of which leaves the page tables'."""
        for addr, range, access in ranges:
            inside = min(self._end - addr, range) if self._start <= addr else 0
            if inside == range:
                continue
            va = addr + max(inside, 0)
            fault = Fault(va, FaultType.VA_LIMIT_VIOLATION, None, 0, access)
            beyond = PageFault(f"{access.name.lower()} of {va:#x}, which no page table has", fault)
            return self._fault_of(addr, inside, access) or beyond
        raise AssertionError(f"{ranges} are all inside")

    def _fault_of(self, addr: int, range: int, access: Access) -> PageFault | None:
        try:
            if range > 0:
                self._space.require(addr, range, access)
        except PageFault as error:
            return error
        return None

    def require_atomics(self, addr: int, size: int) -> None:
        """Fault as ``reduce`` would."""
        try:
            self._space.require(addr, size, Access.ATOMIC)
        except InvalidArgument:
            raise self._outside((addr, size, Access.ATOMIC)) from None
