"""Lines moved between surfaces by GPU addresses, through every translation; and misuse of the core."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine_world import Layout
from gpuvm._core import PhysicalMemory, Surface
from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mmu.access import Components
from gpuvm.mmu.translation import RUN, Access, Fault, FaultType, RunState
from host_world import K64
from test_access import A, Space, pattern

SIZE = Space.MAPPED


@pytest.fixture(params=["host", "gp100"])
def space(request: pytest.FixtureRequest) -> Space:
    made = Space(request.param)
    made.engine.write(A, pattern(SIZE))
    return made


def test_lines_of_one_surface_to_another(space: Space) -> None:
    """By pitch to blocks and back to lines that are further apart, over three kinds of pages."""
    model = bytearray(space.engine.read(A, SIZE))
    layout = Layout(A + 2 * K64, 600, 60, 1, 3, 0)
    blocks = Surface.block_linear(layout.addr, 600, 60, 3, 0, 40, 6, 0)
    space.engine.move_lines(blocks, Surface.pitch(A + K64 - 4000, 500), 500, 50)
    for line in range(50):
        for x in range(500):
            at = layout.byte(40 + x, 6 + line, 0) - A
            model[at] = model[K64 - 4000 + 500 * line + x]
    assert space.engine.read(A, SIZE) == bytes(model)
    space.engine.move_lines(Surface.pitch(A + 10_000, -200), blocks, 100, 50)
    for line in range(50):
        for x in range(100):
            model[10_000 - 200 * line + x] = model[layout.byte(40 + x, 6 + line, 0) - A]
    assert space.engine.read(A, SIZE) == bytes(model)


def test_bytes_and_constants(space: Space) -> None:
    model = bytearray(space.engine.read(A, SIZE))
    space.engine.move_lines(Surface.pitch(A + 5, 70), bytes(range(200)), 50, 4)
    space.engine.move_lines(
        Surface.pitch(A + 9000, 70), None, 3, 2, Components(2, 1, (4, 6, 5), (0x102, 0x304))
    )
    for line in range(4):
        model[5 + 70 * line : 55 + 70 * line] = bytes(range(50 * line, 50 * line + 50))
    for line in range(2):
        for element in range(3):
            at = 9000 + 70 * line + 6 * element
            model[at : at + 2], model[at + 4 : at + 6] = b"\x02\x01", b"\x04\x03"
    assert space.engine.read(A, SIZE) == bytes(model)


def test_steps_of_a_copy(space: Space) -> None:
    """As if each was copied by itself; upwards only."""
    space.engine.copy(A, A + 100, 1000, step=7)
    space.engine.copy(A + 2000, A, 1000, step=10_000)
    for step in (0, -1):
        with pytest.raises(InvalidArgument, match="steps of"):
            space.engine.copy(A, A + 100, 10, step=step)
    with pytest.raises(InvalidArgument, match="it is inside"):
        space.engine.copy(A + 5, A, 10, step=5)


def test_faults_of_lines(space: Space) -> None:
    """Also where the backend has no addresses, or the memory is not there."""
    bad = A + Space.SPARSE
    for surface, wanted in ((Surface.pitch(bad - 50, 30), bad), (Surface.pitch(0, 0), 0)):
        with pytest.raises(PageFault) as error:
            space.engine.move_lines(Surface.pitch(A, 60), surface, 25, 4)
        fault = error.value.value
        assert isinstance(fault, Fault)
        assert (fault.va, fault.access) == (wanted, Access.READ)
    del space.memories[next(iter(space.memories))]
    engine = type(space.engine)(space.backend, space.memories)
    with pytest.raises(PageFault) as error:
        engine.move_lines(Surface.pitch(A, 60), bytes(100), 25, 4)
    fault = error.value.value
    assert isinstance(fault, Fault)
    assert fault.reason == FaultType.UNSUPPORTED_APERTURE


MANY = 1 << 40
memory = PhysicalMemory([None] * 4)
lines = Surface.pitch(0, 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Surface.block_linear(100, 64, 8, 0, 0, 0, 0, 0),
        lambda: Surface.block_linear(0, 64, 8, 6, 0, 0, 0, 0),
        lambda: Surface.block_linear(0, 64, 8, 0, 6, 0, 0, 0),
        lambda: Surface.block_linear(0, MANY, 8, 0, 0, 0, 0, 0),
        lambda: Surface.block_linear(0, 64, 8, 0, 0, 0, 0, MANY),
        lambda: Surface.pitch(-1, 0),
        lambda: lines.span(0, 1),
        lambda: lines.span(1, MANY),
        lambda: memory.refused_lines(lines, b"", 0, 1, 0),
        lambda: memory.refused_lines(lines, b"short", 0, 1, 1),
        lambda: memory.transfer((lines, b""), None, None, 1, 0, 1, True),
        lambda: memory.transfer((lines, b""), (None, b"a"), None, 0, 0, 1, True),
        lambda: memory.transfer((lines, b""), (None, b"a"), None, 1 << 30, 0, 1 << 30, True),
        lambda: memory.transfer((lines, b""), (None, b"a"), (5, 1, (0,), (0, 0)), 1, 0, 1, True),
        lambda: memory.transfer((lines, b""), (None, b"a"), (1, 1, (1,), (0, 0)), 1, 0, 1, True),
        lambda: memory.transfer((lines, b""), (None, b"a"), (1, 1, (7,), (0, 0)), 1, 0, 1, True),
        lambda: memory.transfer((lines, b""), (None, b"a"), (1, 1, (), (0, 0)), 1, 0, 1, True),
        lambda: memory.copy(b"", b"", False, 0),
        lambda: memory.reduce(b"", 0, 1, False),
    ],
)
def test_misuse_of_the_core(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        call()


def test_runs_that_lead_nowhere_are_not_written() -> None:
    """Whoever did not ask before gets nothing, and nothing happens."""
    memory.transfer((lines, b""), (None, b"abc"), None, 3, 0, 1, True)
    memory.transfer((Surface.block_linear(0, 64, 8, 0, 0, 0, 0, 0), b""), (None, b"abc"), None, 3, 0, 1, True)
    assert memory.refused_lines(lines, b"", 0, 3, 2) == 0


def test_a_run_that_ends_inside_a_gob() -> None:
    """No page tables make one. It bears no part of that GOB, not even what is on it."""
    bytes_ = np.zeros(4096, np.uint8)
    short = np.zeros(1, RUN)
    short["range"], short["state"] = 64, RunState.VALID
    one = PhysicalMemory([bytes_, None, None, None])
    for y in (0, 4):
        part = Surface.block_linear(0, 64, 8, 0, 0, 3, y, 0)
        assert one.refused_lines(part, short.tobytes(), 0, 8, 2) is not None
        one.transfer((part, short.tobytes()), (None, bytes(range(1, 17))), None, 8, 0, 2, True)
    assert not bytes_.any()
