"""What the methods of a copy engine say about its next launch."""

from __future__ import annotations

from typing import Final, NamedTuple

from gpuvm._core import Surface
from gpuvm.mmu.access import Components
from gpuvm.nouveau.engine.block_linear import block_linear_surface, pitch_surface
from gpuvm.nouveau.engine.engine import Engine
from gpuvm.nouveau.engine.fault import Rejected

SET_SEMAPHORE_A: Final = 0x240
LAUNCH_DMA: Final = 0x300
OFFSET_IN_UPPER: Final = 0x400
OFFSET_OUT_UPPER: Final = 0x408
PITCH_IN: Final = 0x410
PITCH_OUT: Final = 0x414
LINE_LENGTH_IN: Final = 0x418
SET_REMAP_CONST_A: Final = 0x700
SET_REMAP_COMPONENTS: Final = 0x708
SET_DST_BLOCK_SIZE: Final = 0x70C
SET_DST_ORIGIN: Final = 0x720
SET_SRC_BLOCK_SIZE: Final = 0x728
SET_SRC_ORIGIN: Final = 0x73C
SRC_ORIGIN_X: Final = 0x744
DST_ORIGIN_X: Final = 0x74C

STATE: Final = (
    *range(SET_SEMAPHORE_A, 0x250, 4),
    *range(OFFSET_IN_UPPER, 0x420, 4),
    *range(SET_REMAP_CONST_A, 0x720, 4),
    *range(SET_SRC_BLOCK_SIZE, 0x73C, 4),
    *range(SRC_ORIGIN_X, 0x754, 4),
)
"""Methods that a launch looks at."""

# Fields of LAUNCH_DMA.
MULTI_LINE_ENABLE: Final = 1 << 9
REMAP_ENABLE: Final = 1 << 10
SRC_PITCH: Final = 1 << 7
DST_PITCH: Final = 1 << 8
PHYSICAL: Final = 3 << 12
"""Of the source or the target."""

GOB_HEIGHT_FERMI_8: Final = 1
"""Of SET_BLOCK_SIZE."""

CONST_A: Final = 4
NO_WRITE: Final = 6
"""Of SET_REMAP_COMPONENTS: less is a component of the source."""
BYTES: Final = Components(1, 1, (0,))
"""Elements that stay as they are."""

LARGEST: Final = 1 << 34
"""Bytes that a launch may access on one side; more would be refused. What a program can map is less."""
MOST_LINES: Final = 1 << 24
"""Lines of a launch. With ``LARGEST`` it takes seconds at most; hardware goes on until somebody stops it."""


class Side(NamedTuple):
    """The methods for the source or the target."""

    offset: int
    pitch: int
    block_size: int
    origin: int
    is_pitch: int
    """The bit of LAUNCH_DMA."""


SOURCE: Final = Side(OFFSET_IN_UPPER, PITCH_IN, SET_SRC_BLOCK_SIZE, SRC_ORIGIN_X, SRC_PITCH)
TARGET: Final = Side(OFFSET_OUT_UPPER, PITCH_OUT, SET_DST_BLOCK_SIZE, DST_ORIGIN_X, DST_PITCH)


class Launch(NamedTuple):
    """A transfer of lines of elements."""

    target: Surface
    source: Surface | None
    """None: all is made of constants, or stays."""
    elements: int
    lines: int
    components: Components | None
    """None: elements are bytes."""


def launch_of(engine: Engine, launch: int) -> Launch | None:
    """What LAUNCH_DMA with this data is to transfer; None: nothing.

    Raises:
        Rejected: it makes no sense, or takes too long.

    Source: clc7b5; for what is called how, ``NV_CE_LCE_LAUNCHERR`` in NVIDIA's dev_ce.
    """
    if launch & PHYSICAL:
        raise Rejected("PRIV: physical addresses, for which a channel must be privileged")
    elements, lines = engine.state(LINE_LENGTH_IN, 2)
    lines = lines if launch & MULTI_LINE_ENABLE else 1
    components = _components(engine) if launch & REMAP_ENABLE else BYTES
    sizes = components.source_size, components.target_size
    if elements * lines * max(sizes) > LARGEST or lines > MOST_LINES:
        raise Rejected(f"NO_RESOURCES: {lines} lines of {elements:#x} elements of {max(sizes)} bytes")
    if not elements * lines:
        return None
    source = None
    if min(components.target) < CONST_A:
        source = _surface(engine, SOURCE, launch, (elements, lines), sizes[0])
    target = _surface(engine, TARGET, launch, (elements, lines), sizes[1])
    if components.target == tuple(range(components.source)):
        return Launch(target, source, elements * sizes[0], lines, None)
    return Launch(target, source, elements, lines, components)


def address_of(engine: Engine, upper: int) -> int:
    """The address that two neighbouring methods hold, the upper 17 bits first."""
    high, low = engine.state(upper, 2)
    return (high & 0x1FFFF) << 32 | low


def _components(engine: Engine) -> Components:
    first, second, remap = engine.state(SET_REMAP_CONST_A, 3)
    size, source, count = (1 + (remap >> shift & 3) for shift in (16, 20, 24))
    target = tuple(remap >> 4 * place & 7 for place in range(count))
    if max(target) > NO_WRITE:
        raise Rejected(f"INVALID_VALUE: SET_REMAP_COMPONENTS {remap:#x}")
    if any(source <= origin < CONST_A for origin in target):
        raise Rejected(f"BAD_SRC_PIXEL_COMP_REF: {target} of {source} components")
    return Components(size, source, target, (first, second))


def _surface(engine: Engine, side: Side, launch: int, rectangle: tuple[int, int], element: int) -> Surface:
    addr = address_of(engine, side.offset)
    if launch & side.is_pitch:
        return pitch_surface(addr, engine.word(side.pitch))
    x, y = engine.state(side.origin, 2)
    layout = engine.state(side.block_size, 5)
    if layout[0] >> 12 & 0xF != GOB_HEIGHT_FERMI_8:
        raise Rejected(f"INVALID_VALUE: block size {layout[0]:#x}: height of GOBs")
    return block_linear_surface(addr, layout, (x, y), rectangle, element)
