"""Host: the methods that a channel's front end executes itself, above all semaphores."""

from __future__ import annotations

from functools import partial
from typing import Final

from gpuvm._core import Pbdma
from gpuvm.nouveau.engine.classes import Classes
from gpuvm.nouveau.engine.counts import MethodCounts
from gpuvm.nouveau.engine.engine import Engine
from gpuvm.nouveau.engine.fault import Rejected
from gpuvm.nouveau.engine.semaphore import Semaphore

UNIT: Final = 8
METHODS_END: Final = 0x100

SET_OBJECT: Final = 0x00
ILLEGAL: Final = 0x04
NOP: Final = 0x08
SEMAPHORE_A: Final = 0x10
SEMAPHORE_D: Final = 0x1C
SET_REFERENCE: Final = 0x50
SEM_ADDR_LO: Final = 0x5C
SEM_EXECUTE: Final = 0x6C
WFI: Final = 0x78

_DONE: Final = (NOP, SET_REFERENCE, WFI)
"""What they ask for is so already: each method is executed before the next one is looked at."""
_SKIPPED: Final = (0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x7C, 0x80, 0x84)
"""Interrupts, flushes, MEM_OP, CRC_CHECK, YIELD, CLEAR_FAULTED: nothing here needs them."""


class Host(Engine):
    """The host's methods, which come on any subchannel.

    Source: "Host Methods" in NVIDIA's dev_pbdma; ``SEMAPHOREA`` to ``D`` in clc46f, and on what these compare
    envytools' "Puller".
    """

    def __init__(self, classes: Classes, pbdma: Pbdma, counts: MethodCounts, semaphore: Semaphore) -> None:
        super().__init__("host", classes.host, UNIT, pbdma, counts)
        self._classes: Final = classes
        self._semaphore: Final = semaphore
        self.on_word(SET_OBJECT, self._set_object)
        self.on_word(SEMAPHORE_D, self._semaphore_d)
        self.on_word(SEM_EXECUTE, self._sem_execute)
        self.uses((*_DONE, *range(SEMAPHORE_A, SEMAPHORE_D, 4), *range(SEM_ADDR_LO, SEM_EXECUTE, 4)))
        for method in range(0, METHODS_END, 4):
            if method not in self._executed and method not in _SKIPPED:
                self.on_word(method, partial(self._unknown, method))
        self.ready()

    def _unknown(self, method: int, data: int) -> None:
        raise Rejected(f"METHOD: {method:#x} with {data:#x} is none of the host's")

    def _set_object(self, data: int) -> None:
        """Which engine a subchannel leads to is fixed; the class must be one of its."""
        subchannel = self.pbdma.subchannel
        if subchannel >= len(self._classes) - 1:
            return  # for software, which there is none of
        class_, bound = data & 0xFFFF, self._classes[1 + subchannel]
        if class_ & 0xFF != bound & 0xFF or class_ > bound:
            raise Rejected(f"ILLEGAL_CLASS: {class_:04x} on subchannel {subchannel}, which is {bound:04x}")

    def _semaphore_d(self, data: int) -> None:
        upper, lower, payload = self.state(SEMAPHORE_A, 3)
        addr = (upper & 0xFF) << 32 | lower & ~3
        match data & 0x1F:
            case 1:
                self._acquire(addr, payload, 32, 0)
            case 2:
                self._semaphore.release(addr, payload, 4, timestamp=not data >> 24 & 1)
            case 4:
                self._acquire(addr, payload, 32, 3)
            case 8:
                self._acquire(addr, payload, 32, 4)
            case 0x10:
                self._reduce(addr, payload, 4, data, timestamp=not data >> 24 & 1)
            case operation:
                raise Rejected(f"SEMAPHORE: operation {operation:#x}")

    def _sem_execute(self, data: int) -> None:
        lower, upper, payload, payload_upper = self.state(SEM_ADDR_LO, 4)
        addr = (upper & 0xFF) << 32 | lower & ~3
        size = 4
        if data >> 24 & 1:
            size, payload = 8, payload_upper << 32 | payload
        match data & 7:
            case 1:
                self._semaphore.release(addr, payload, size, timestamp=bool(data >> 25 & 1))
            case 6:
                self._reduce(addr, payload, size, data, timestamp=bool(data >> 25 & 1))
            case 7:
                raise Rejected("SEMAPHORE: operation 7")
            case comparison:
                self._acquire(addr, payload, 8 * size, comparison)

    def _acquire(self, addr: int, payload: int, bits: int, comparison: int) -> None:
        self._semaphore.acquire(
            addr, bits // 8, payload, lambda value: _satisfied(value, payload, bits, comparison)
        )

    def _reduce(self, addr: int, payload: int, size: int, data: int, *, timestamp: bool) -> None:
        operation, signed = data >> 27 & 0xF, not data >> 31
        wrong = operation > 7 or (operation in (6, 7) and (signed or size == 8))
        if wrong or (operation == 5 and signed and size == 8):
            raise Rejected(f"SEMAPHORE: reduction {operation}, {'' if signed else 'un'}signed, {size} bytes")
        self._semaphore.reduce(addr, payload, size, operation, signed=signed, timestamp=timestamp)


def _satisfied(value: int, payload: int, bits: int, comparison: int) -> bool:
    """Whether an acquire is done, by the number of its operation in SEM_EXECUTE."""
    match comparison:
        case 0:  # ACQUIRE
            return value == payload
        case 2:  # ACQ_STRICT_GEQ
            return value >= payload
        case 3:  # ACQ_CIRC_GEQ
            return not (value - payload) >> (bits - 1) & 1
        case 4:  # ACQ_AND
            return value & payload != 0
    return ~(value | payload) & ((1 << bits) - 1) != 0  # ACQ_NOR
