"""Numbers in memory that engines change in one step."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_world import PUSH, A, shared_world
from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mem import Extent
from gpuvm.mmu.access import AddressSpace
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import Fault, FaultType
from gpuvm.nouveau.engine import Processor
from gpuvm.sync import task
from host_world import K64, M2, VRAM, stamped_memories
from pushbuf import COPY, REDUCTION, TIMESTAMP, UNSIGNED, WIDE, Push, execute, halves, legacy
from suite import scaled
from table_memory import ArrayMemory

world, end = shared_world()


def reduced(operation: int, value: int, payload: int, bits: int, signed: bool) -> int:
    """By NVIDIA's table."""

    def number(raw: int) -> int:
        return raw - (1 << bits) if signed and raw >> (bits - 1) else raw

    match operation:
        case 0:
            return value if number(value) < number(payload) else payload
        case 1:
            return value if number(value) > number(payload) else payload
        case 2:
            return value ^ payload
        case 3:
            return value & payload
        case 4:
            return value | payload
        case 5:
            return (value + payload) % (1 << bits)
        case 6:
            return 0 if value >= payload else value + 1
    return payload if value == 0 or value > payload else value - 1


edges = st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1])
numbers = st.one_of(edges, st.integers(0, (1 << 64) - 1))


@given(st.integers(0, 7), numbers, numbers, st.booleans(), st.booleans(), st.booleans())
def test_reductions(operation: int, value: int, payload: int, wide: bool, signed: bool, time: bool) -> None:
    w = world()
    bits, at = (64, A + 32) if wide else (32, A + 32)
    value, payload = value % (1 << bits), payload % (1 << bits)
    w.scramble(2)
    w.space.write(at, value.to_bytes(bits // 8, "little"))
    w.write(at, value.to_bytes(bits // 8, "little"))
    data = REDUCTION | operation << 27 | wide * WIDE | (not signed) * UNSIGNED | time * TIMESTAMP
    push = execute(at, payload, data)
    if (operation in (6, 7) and (signed or wide)) or (operation == 5 and signed and wide):
        assert w.fault(push).error.startswith("SEMAPHORE")
        return
    w.run(push)
    w.write(at, reduced(operation, value, payload, bits, signed).to_bytes(bits // 8, "little"))
    if time:
        w.write(at + 8, w.time.to_bytes(8, "little"))
    w.compare()
    if not wide and not time:
        w.space.write(at, value.to_bytes(4, "little"))
        w.run(legacy(at, payload, 0x10 | data & 0xF8000000 | 1 << 24))
        w.compare()


@pytest.mark.parametrize(
    ("operation", "value", "operand", "result"),
    [(10, 1.5, 2.25, 3.75), (11, 1.5, -2.0, -2.0), (12, 1.5, -2.0, 1.5), (12, float("nan"), 2.0, 2.0)],
)
def test_reductions_of_floats(operation: int, value: float, operand: float, result: float) -> None:
    """Copy engines can."""
    w = world()
    w.space.write(A, struct.pack("<f", value))
    word = int.from_bytes(struct.pack("<f", operand), "little")
    push = Push().inc(COPY, 0x240, *halves(A), word).inc(COPY, 0x300, 1 << 3 | 1 << 19 | operation << 14)
    w.run(push)
    assert struct.unpack("<f", w.space.read(A, 4)) == (result,)


def test_reductions_by_many_threads_at_once() -> None:
    """Real threads: no step is lost."""
    w = world()
    w.space.write(A, bytes(4))
    times, channels = scaled(300, 5000), [w.processor(name=str(n)) for n in range(4)]
    push = execute(A, 1, REDUCTION | 5 << 27 | UNSIGNED)
    w.space.write(PUSH, bytes(push))

    def work(channel: Processor) -> None:
        for _ in range(times):
            channel.execute(PUSH, len(push))

    threads = [task.start(channel.name, lambda channel=channel: work(channel)) for channel in channels]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert w.number(A) == 4 * times


def test_atomics_that_a_page_forbids() -> None:
    """A reduction with the time writes nothing of it, either."""
    memories = stamped_memories(M2)
    backend = PageTable(GP100, ArrayMemory())
    for page, flags in enumerate((PteFlags.NO_ATOMICS, PteFlags.READ_ONLY, PteFlags(0))):
        backend.get(page * K64, K64, 16)
        backend.map(page * K64, K64, 16, Extent(VRAM, page * K64, K64), 0, flags)
    space = AddressSpace(backend, memories)
    for page, reason in enumerate((FaultType.ATOMIC_VIOLATION, FaultType.RO_VIOLATION)):
        with pytest.raises(PageFault) as error:
            space.reduce(page * K64, 4, 5, 1)
        fault = error.value.value
        assert isinstance(fault, Fault)
        assert (fault.va, fault.reason) == (page * K64, reason)
    space.reduce(2 * K64, 8, 5, 1)
    for addr, size, operation in ((2, 4, 5), (4, 8, 5), (0, 2, 5), (2 * K64, 4, 8), (1 << 60, 4, 5)):
        with pytest.raises(InvalidArgument):
            space.reduce(addr, size, operation, 1)
