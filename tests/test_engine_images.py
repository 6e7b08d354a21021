"""Copies of images as NVK has them done: levels, layers, slices and blocks of all its formats."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import pytest

from engine_world import MAPPED, A, Layout, by_pitch, in_blocks, shared_world
from gpuvm.nouveau.engine import AMPERE
from pushbuf import (
    COPY,
    DST_PITCH,
    FLUSH,
    MULTI_LINE,
    NO_WRITE,
    NON_PIPELINED,
    REMAP,
    SRC_PITCH,
    Push,
    halves,
)

world, end = shared_world(AMPERE)


def up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class Level(NamedTuple):
    """Of one level: where it is in a layer, its size in elements, its blocks, bytes of a line."""

    offset: int
    width: int
    height: int
    depth: int
    gobs_high: int
    gobs_deep: int
    row: int


class Image:
    """What Mesa's NIL makes of an image, at A: each level's blocks are no larger than twice that level.

    Source: ``Image::new`` in NIL's ``image.rs``, ``clamp`` in ``tiling.rs``.
    """

    def __init__(self, element: int, size: tuple[int, int, int], levels: int, layers: int) -> None:
        self.element, self.layers = element, layers
        self.levels: list[Level] = []
        offset = 0
        for level in range(levels):
            width, height, depth = (max(side >> level, 1) for side in size)
            gobs_high = min(5, (-(-height // 8) - 1).bit_length())
            gobs_deep = min(5, (depth - 1).bit_length())
            row = up(width * element, 64)
            self.levels.append(Level(offset, width, height, depth, gobs_high, gobs_deep, row))
            offset += row * up(height, 8 << gobs_high) * up(depth, 1 << gobs_deep)
        first = self.levels[0]
        self.layer_size = up(offset, 512 << first.gobs_high << first.gobs_deep)
        self.size = self.layer_size * layers

    def layout(self, level: int, layer: int) -> Layout:
        """As the copy engine is told: a line has as many elements as fit into its bytes."""
        it = self.levels[level]
        addr = A + layer * self.layer_size + it.offset
        width = it.row // self.element
        return Layout(addr, width, it.height, it.depth, it.gobs_high, it.gobs_deep, self.element)


IDENTITY = (0, 1, 2, 3)


def component_of(element: int) -> int:
    """As NVK chooses it for formats without depth."""
    return element // 3 if element % 3 == 0 else min(element, 4)


def remap(component: int, source: int, target: int, picks: tuple[int, ...] = IDENTITY) -> int:
    """SET_REMAP_COMPONENTS for elements of so many bytes."""
    counts = (source // component - 1) << 20 | (target // component - 1) << 24
    return sum(pick << 4 * place for place, pick in enumerate(picks)) | component - 1 << 16 | counts


class Buffer(NamedTuple):
    """Lines behind the image, as VkBufferImageCopy has them."""

    addr: int
    row: int


Box = tuple[int, int, int, int]
"""x, y, elements, lines."""


def copy(image: Image, level: int, layer: int, z: int, buffer: Buffer, box: Box, *, read: bool) -> Push:
    """One turn of NVK's ``nouveau_copy_rect``."""
    x, y, elements, lines = box
    at, row = image.layout(level, layer), image.levels[level].row
    pitches, ends = [row, buffer.row], [at.addr, buffer.addr]
    if not read:
        pitches.reverse()
        ends.reverse()
    push = Push().inc(COPY, 0x708, remap(component_of(image.element), image.element, image.element))
    push.inc(COPY, 0x400, *halves(ends[0]), *halves(ends[1]), *pitches, elements, lines)
    at.methods(push, 0x728 if read else 0x70C, z)
    push.inc(COPY, 0x744 if read else 0x74C, x, y)
    layout = DST_PITCH if read else SRC_PITCH
    return push.immediate(COPY, 0x300, NON_PIPELINED | FLUSH | MULTI_LINE | REMAP | layout)


IMAGES = [
    *((element, (29, 21, 1), 5, 2) for element in (1, 2, 3, 4, 6, 8, 12, 16)),
    (4, (318, 20, 1), 1, 1),
    (4, (1000, 7, 1), 1, 1),
    *((element, (13, 19, 5), 4, 1) for element in (1, 4, 16)),
    (8, (5, 150, 1), 8, 1),
]


@pytest.mark.parametrize(("element", "size", "levels", "layers"), IMAGES)
def test_images_and_buffers(element: int, size: tuple[int, int, int], levels: int, layers: int) -> None:
    """Each level, layer and slice is written from a buffer, a part of it, and read back."""
    w = world()
    image = Image(element, size, levels, layers)
    addr = A + up(image.size, 4096)
    w.scramble(1)
    for level, layer in product(range(levels), range(layers)):
        it = image.levels[level]
        for z in range(it.depth):
            x, y = (0, 0) if z % 2 == 0 else (it.width // 3, it.height // 4)
            box = x, y, it.width - x, it.height - y
            buffer = Buffer(addr + 20, box[2] * element + 4 * level)
            assert buffer.addr + buffer.row * box[3] <= A + MAPPED
            lines, blocks = by_pitch(*buffer), in_blocks(image.layout(level, layer), x, y, z)
            w.run(copy(image, level, layer, z, buffer, box, read=False))
            for line in range(box[3]):
                blocks.put(w, line, lines.line(w, line, box[2] * element))
            back = Buffer(addr + 7, box[2] * element)
            w.run(copy(image, level, layer, z, back, box, read=True))
            for line in range(box[3]):
                by_pitch(*back).put(w, line, blocks.line(w, line, box[2] * element))
    w.compare()


@pytest.mark.parametrize(
    ("component", "source", "target", "picks"),
    [
        (4, 4, 8, (0, NO_WRITE, NO_WRITE, NO_WRITE)),
        (4, 8, 4, (0, NO_WRITE, NO_WRITE, NO_WRITE)),
        (1, 4, 4, (0, 1, 2, NO_WRITE)),
        (1, 1, 4, (NO_WRITE, NO_WRITE, NO_WRITE, 0)),
        (1, 4, 1, (3, NO_WRITE, NO_WRITE, NO_WRITE)),
        (2, 2, 8, (NO_WRITE, NO_WRITE, 0, NO_WRITE)),
        (2, 8, 2, (2, NO_WRITE, NO_WRITE, NO_WRITE)),
        (4, 8, 8, (NO_WRITE, 1, NO_WRITE, NO_WRITE)),
    ],
)
def test_aspects_of_depth_and_stencil(
    component: int, source: int, target: int, picks: tuple[int, ...]
) -> None:
    """From one image to another with other elements: what is not of the aspect stays."""
    w = world()
    w.scramble(2)
    one, other = Image(source, (45, 37, 1), 1, 1), Image(target, (45, 37, 1), 1, 1)
    taken = one.layout(0, 0)
    given = other.layout(0, 0)._replace(addr=A + up(one.size, 4096))
    push = Push().inc(COPY, 0x708, remap(component, source, target, picks))
    push.inc(COPY, 0x400, *halves(taken.addr), *halves(given.addr), 1, 1, 40, 30)
    taken.methods(push, 0x728, 0)
    given.methods(push, 0x70C, 0)
    push.inc(COPY, 0x744, 5, 7, 3, 2)
    w.run(push.immediate(COPY, 0x300, NON_PIPELINED | FLUSH | MULTI_LINE | REMAP))
    for y, x in product(range(30), range(40)):
        for place in range(target // component):
            if picks[place] == NO_WRITE:
                continue
            for byte in range(component):
                value = w.read(taken.byte((5 + x) * source + picks[place] * component + byte, 7 + y, 0), 1)
                w.write(given.byte((3 + x) * target + place * component + byte, 2 + y, 0), value)
    w.compare()
