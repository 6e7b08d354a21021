"""Surfaces as the methods of engines describe them, block-linear or by pitch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gpuvm._core import Surface
from gpuvm.nouveau.engine.fault import Rejected

LARGEST: Final = 5
"""log2 of the GOBs of a block in each direction, at most."""


def pitch_surface(addr: int, pitch: int) -> Surface:
    """Lines ``pitch`` bytes after each other, as a method says: 32 bits, signed."""
    return Surface.pitch(addr, pitch - (pitch >> 31 << 32))


def block_linear_surface(
    addr: int,
    layout: Sequence[int],
    origin: tuple[int, int],
    rectangle: tuple[int, int],
    element: int,
) -> Surface:
    """What begins at ``origin`` of a block-linear surface.

    Args:
        addr: of the whole surface.
        layout: SET_BLOCK_SIZE, without the height of GOBs, which is 8, and the four methods after it: width,
            height, depth, layer.
        origin: element and line.
        rectangle: elements and lines that are accessed.
        element: bytes of one, which the width is in.

    Raises:
        Rejected: there is no such layout, or the rectangle leaves the surface.

    Source: ``SET_DST_BLOCK_SIZE`` in clc7b5; ``NV_CE_LCE_LAUNCHERR`` in NVIDIA's dev_ce.
    """
    block, width, height, depth, layer = layout
    if addr % 512:
        raise Rejected(f"INVALID_ALIGNMENT: block-linear at {addr:#x}, which is inside a GOB")
    gobs_wide, gobs_high, gobs_deep = (block >> shift & 0xF for shift in (0, 4, 8))
    if gobs_wide or max(gobs_high, gobs_deep) > LARGEST:
        raise Rejected(f"INVALID_VALUE: block size {block:#x}")
    if layer >= depth:
        raise Rejected(f"2D_LAYER_EXCEEDS_DEPTH: layer {layer} of {depth}")
    (x, y), (elements, lines) = origin, rectangle
    if x + elements > width or y + lines > height:
        raise Rejected(
            f"MEM2MEM_RECT_OUT_OF_BOUNDS: {elements} by {lines} at ({x}, {y}) of {width} by {height}"
        )
    return Surface.block_linear(addr, width * element, height, gobs_high, gobs_deep, x * element, y, layer)
