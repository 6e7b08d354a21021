"""The copy engine between lines by pitch and a block-linear image; a unit is a kibibyte.

The image is 8192 elements of 4 bytes wide, in blocks of 16 GOBs below each other, as NVK has large images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.driver.copies import SOURCE, TARGET, EngineCopies, PlainCopies
from gpuvm.nouveau import PushBuffer
from gpuvm.nouveau.engine.copy_state import (
    DST_PITCH,
    LAUNCH_DMA,
    MULTI_LINE_ENABLE,
    OFFSET_IN_UPPER,
    SET_DST_BLOCK_SIZE,
    SET_SRC_BLOCK_SIZE,
    SRC_PITCH,
)
from gpuvm.nouveau.engine.push_buffer import COPY, FLUSH_ENABLE, NON_PIPELINED, halves

PITCH = 8192 * 4
GOBS_HIGH = 4
"""log2 of the GOBs of a block."""
BLOCK_LINES = 8 << GOBS_HIGH
LEAST = PITCH * BLOCK_LINES
"""Bytes of a row of blocks."""


def lines(data: NDArray[np.uint8]) -> NDArray[np.complex128]:
    """Lines by pitch, in pieces of 16 bytes, which stay together.

    Axes: blocks down; GOBs, pairs of lines in the order of two bits, lines of a pair; GOBs across; pieces
    across a GOB, in the order of two bits.
    """
    return data.view(np.complex128).reshape(-1, 1 << GOBS_HIGH, 2, 2, 2, PITCH // 64, 2, 2)


def blocks(data: NDArray[np.uint8]) -> NDArray[np.complex128]:
    """A block-linear image with the same axes."""
    stored = data.view(np.complex128).reshape(-1, PITCH // 64, 1 << GOBS_HIGH, 2, 2, 2, 2, 2)
    down, across, gob, x1, y1, x0, y0, line = range(8)
    return stored.transpose(down, gob, y1, y0, line, across, x1, x0)


def from_blocks(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Its lines."""
    found = np.empty_like(image)
    lines(found)[:] = blocks(image)
    return found


def _image(first: int, height: int) -> PushBuffer:
    """What the image is: SET_BLOCK_SIZE, and behind it width, height, depth and layer."""
    block = 1 << 12 | GOBS_HIGH << 4
    return PushBuffer().inc(COPY, first, block, PITCH, height, 1, 0)


class _ToOrFromBlocks(EngineCopies):
    def _launch(self, words: PushBuffer, launch: int) -> PushBuffer:
        words.inc(
            COPY, OFFSET_IN_UPPER, *halves(SOURCE), *halves(TARGET), PITCH, PITCH, PITCH, self._size // PITCH
        )
        return words.immediate(COPY, LAUNCH_DMA, NON_PIPELINED | FLUSH_ENABLE | MULTI_LINE_ENABLE | launch)


class ToBlocks(_ToOrFromBlocks):
    def _words(self) -> PushBuffer:
        return self._launch(_image(SET_DST_BLOCK_SIZE, self._size // PITCH), SRC_PITCH)

    def _arrived(self) -> bool:
        return np.array_equal(self.source, from_blocks(self.target))


class FromBlocks(_ToOrFromBlocks):
    def _words(self) -> PushBuffer:
        return self._launch(_image(SET_SRC_BLOCK_SIZE, self._size // PITCH), DST_PITCH)

    def _arrived(self) -> bool:
        return np.array_equal(from_blocks(self.source), self.target)


class ArraysToBlocks(PlainCopies):
    """One assignment of a NumPy array with eight axes."""

    def _copy(self) -> None:
        blocks(self.target)[:] = lines(self.source)

    def _arrived(self) -> bool:
        return np.array_equal(self.source, from_blocks(self.target))


class ArraysFromBlocks(PlainCopies):
    def _copy(self) -> None:
        lines(self.target)[:] = blocks(self.source)

    def _arrived(self) -> bool:
        return np.array_equal(from_blocks(self.source), self.target)
