"""Bytes moved by runs, in the core, against arrays of bytes in Python."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm._core import PhysicalMemory
from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.translation import RUN, RunState
from suite import scaled

VRAM, SYSTEM = int(Aperture.VRAM), int(Aperture.SYSTEM_COHERENT)
SIZES = {VRAM: 300, SYSTEM: 200}
BIG = 24 << 20
"""Beyond the sizes at which other threads run, and caches are passed by."""

Piece = tuple[int | None, int, int]
"""Aperture (None: sparse), address, range."""


class World:
    """Two small memories, and the same bytes in Python."""

    def __init__(self, sizes: dict[int, int] = SIZES) -> None:
        dice = np.random.default_rng(7)
        self.views = {aperture: dice.integers(0, 256, size, np.uint8) for aperture, size in sizes.items()}
        self.model = {aperture: bytearray(view.tobytes()) for aperture, view in self.views.items()}
        self.memory = PhysicalMemory([self.views.get(aperture) for aperture in range(4)])

    def read(self, pieces: list[Piece]) -> bytes:
        parts = [
            bytes(length) if where is None else self.model[where][address : address + length]
            for where, address, length in pieces
        ]
        return b"".join(parts)

    def write(self, pieces: list[Piece], data: bytes) -> None:
        done = 0
        for where, address, length in pieces:
            if where is not None:
                self.model[where][address : address + length] = data[done : done + length]
            done += length

    def compare(self) -> None:
        for aperture, view in self.views.items():
            assert view.tobytes() == bytes(self.model[aperture])


def runs(pieces: list[Piece], flags: int = 0) -> bytes:
    va, rows = 0, []
    for where, address, length in pieces:
        state = RunState.SPARSE if where is None else RunState.VALID
        rows.append((va, length, address, where or 0, state, 0, flags, 0))
        va += length
    return np.array(rows, RUN).tobytes()


def length_of(pieces: list[Piece]) -> int:
    return sum(length for _, _, length in pieces)


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    """Some that lie in the memories, whether they overlap or not; empty ones too."""
    found: list[Piece] = []
    for _ in range(draw(st.integers(1, 8))):
        where = draw(st.sampled_from([VRAM, SYSTEM, None]))
        length = draw(st.integers(0, 60))
        found.append((where, 0 if where is None else draw(st.integers(0, SIZES[where] - length)), length))
    return found


def cut(found: list[Piece], length: int) -> list[Piece]:
    """Their first ``length`` bytes."""
    shorter: list[Piece] = []
    for where, address, piece in found:
        shorter.append((where, address, min(piece, length)))
        length -= min(piece, length)
    return shorter


def side_by_side(targets: list[Piece], sources: list[Piece]) -> list[tuple[Piece, Piece]]:
    """Pieces that are contiguous on both sides, byte by byte and then joined: slow, and another way."""
    place = [
        (number, where, address + offset)
        for number, (where, address, length) in enumerate(targets)
        for offset in range(length)
    ]
    other = [
        (number, where, address + offset)
        for number, (where, address, length) in enumerate(sources)
        for offset in range(length)
    ]
    joined: list[tuple[Piece, Piece]] = []
    last = None
    for (to, where, at), (by, source, first) in zip(place, other, strict=True):
        if (to, by) == last:
            (_, a, length), (_, b, _) = joined[-1]
            joined[-1] = ((where, a, length + 1), (source, b, length + 1))
        else:
            joined.append(((where, at, 1), (source, first, 1)))
        last = (to, by)
    return joined


@given(pieces(), pieces(), st.booleans())
def test_copies_are_moves_of_one_piece_after_the_other(
    targets: list[Piece], sources: list[Piece], downwards: bool
) -> None:
    world = World()
    length = min(length_of(targets), length_of(sources))
    targets, sources = cut(targets, length), cut(sources, length)
    world.memory.copy(runs(targets), runs(sources), downwards)
    steps = side_by_side(targets, sources)
    for target, source in reversed(steps) if downwards else steps:
        world.write([target], world.read([source]))
    world.compare()


@given(pieces(), st.binary(min_size=1, max_size=40))
def test_reads_writes_and_fills(found: list[Piece], pattern: bytes) -> None:
    world = World()
    length = length_of(found)
    assert world.memory.read(runs(found)) == world.read(found)
    out = np.full(length, 7, np.uint8)
    world.memory.read_into(runs(found), out)
    assert out.tobytes() == world.read(found)
    data = (pattern * (length // len(pattern) + 1))[:length]
    other = World()
    world.memory.write(runs(found), data)
    world.write(found, data)
    world.compare()
    other.memory.fill(runs(found), pattern)
    other.write(found, data)
    other.compare()


@pytest.mark.parametrize("block", [4096, 4096 * 3 + 5, 1 << 20])
@pytest.mark.parametrize("shift", [0, 3, 64])
def test_large_copies(block: int, shift: int) -> None:
    """Past the caches, with ends that fill no line, in shuffled blocks."""
    count = scaled(1, 3) * BIG // (2 * block)
    world = World({VRAM: 2 * block * count + shift})
    order = np.random.default_rng(block).permutation(2 * count) * block
    targets: list[Piece] = [(VRAM, int(place) + shift, block) for place in order[:count]]
    sources: list[Piece] = [(VRAM, int(place) + shift, block) for place in order[count:]]
    world.memory.copy(runs(targets), runs(sources), False)
    world.write(targets, world.read(sources))
    world.compare()
    world.memory.fill(runs(targets), b"abc" * 5000)
    world.write(targets, (b"abc" * (block * count // 3 + 1))[: block * count])
    world.compare()
    assert world.memory.read(runs(sources)) == world.read(sources)


@pytest.mark.parametrize("distance", [1, 31, 64, 4096, -1, -64])
def test_large_overlapping_copies(distance: int) -> None:
    world = World({VRAM: BIG + 8192})
    target: list[Piece] = [(VRAM, 4096 + distance, BIG)]
    source: list[Piece] = [(VRAM, 4096, BIG)]
    world.memory.copy(runs(target), runs(source), False)
    world.write(target, world.read(source))
    world.compare()


def test_other_threads_run_during_a_large_copy() -> None:
    """Both write all of one memory, again and again: each byte is one thread's or the other's."""
    world = World({VRAM: BIG})
    whole = runs([(VRAM, 0, BIG)])
    start = threading.Barrier(2)

    def write(value: int) -> None:
        data = bytes([value]) * BIG
        start.wait()
        for _ in range(3):
            world.memory.write(whole, data)

    threads = [threading.Thread(target=write, args=[value]) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(np.unique(world.views[VRAM]).tolist()) <= {1, 2}


WHOLE: Piece = (VRAM, 0, 300)
BEYOND: list[Piece] = [
    (VRAM, 1, 300),
    (VRAM, 300, 1),
    (SYSTEM, 0, 201),
    (int(Aperture.PEER), 0, 1),
    (7, 0, 1),
    (VRAM, (1 << 64) - 8, 8),
    (VRAM, (1 << 64) - 8, 16),
]


class TestRefused:
    @pytest.mark.parametrize("beyond", BEYOND)
    def test_runs_that_lead_to_no_memory(self, beyond: Piece) -> None:
        world = World()
        bad = runs([(VRAM, 0, 8), (None, 0, 3), beyond])
        good = runs([(None, 0, 11 + beyond[2])])
        assert world.memory.refused(bad, 0) == 2
        for attempt in (
            lambda: world.memory.read(bad),
            lambda: world.memory.read_into(bad, bytearray(11 + beyond[2])),
            lambda: world.memory.write(bad, bytes(11 + beyond[2])),
            lambda: world.memory.fill(bad, b"a"),
            lambda: world.memory.copy(bad, good, False),
            lambda: world.memory.copy(good, bad, True),
        ):
            with pytest.raises(InvalidArgument, match="run 2 leads to no memory"):
                attempt()
        world.compare()

    def test_lengths_that_have_no_sum(self) -> None:
        world = World()
        endless = runs([(None, 0, (1 << 64) - 1)] * 2)
        with pytest.raises(InvalidArgument, match="run 1"):
            world.memory.fill(endless, b"a")

    def test_holes_and_flags(self) -> None:
        world = World()
        hole = np.frombuffer(runs([(VRAM, 0, 8)]), RUN).copy()
        hole["state"] = RunState.INVALID
        assert world.memory.refused(hole.tobytes(), 0) == 0
        flagged = runs([WHOLE], int(PteFlags.READ_ONLY))
        assert world.memory.refused(flagged, int(PteFlags.PRIVILEGED)) is None
        assert world.memory.refused(flagged, int(PteFlags.READ_ONLY | PteFlags.PRIVILEGED)) == 0

    def test_arguments(self) -> None:
        world = World()
        whole = runs([WHOLE])
        with pytest.raises(InvalidArgument, match="0x12b bytes for runs of 0x12c"):
            world.memory.write(whole, bytes(299))
        with pytest.raises(InvalidArgument, match="0x12d bytes"):
            world.memory.read_into(whole, bytearray(301))
        with pytest.raises(InvalidArgument, match="copy: "):
            world.memory.copy(whole, runs([(VRAM, 0, 8)]), False)
        with pytest.raises(InvalidArgument, match="block is empty"):
            world.memory.fill(whole, b"")
        with pytest.raises(InvalidArgument, match="writable"):
            world.memory.read_into(whole, bytes(300))
        with pytest.raises(InvalidArgument, match="contiguous"):
            world.memory.write(whole, np.zeros(600, np.uint8)[::2])
        with pytest.raises(InvalidArgument, match="33 bytes are no runs"):
            world.memory.refused(whole + b"a", 0)
        with pytest.raises(InvalidArgument, match="writable"):
            PhysicalMemory([np.frombuffer(b"abc", np.uint8), None, None, None])
        world.compare()


def test_memory_stays_while_it_is_used() -> None:
    view = bytearray(100)
    memory = PhysicalMemory([np.frombuffer(view, np.uint8), None, None, None])
    with pytest.raises(BufferError):
        view.extend(b"a")
    memory.fill(runs([(VRAM, 0, 100)]), b"z")
    del memory
    view.extend(b"a")
    assert bytes(view) == b"z" * 100 + b"a"
