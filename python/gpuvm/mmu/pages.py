"""Choosing page sizes: the largest that fit, and smaller ones where a large page is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpuvm._core import cut_pages as core_cut_pages
from gpuvm._core import split_into_pages as core_split_into_pages
from gpuvm.mem import Aperture, Extent

Allowed = Mapping[int, frozenset[Aperture]]
"""By shift, the largest first: the apertures that a page of this size may lie in (``Backend.pages``)."""


class Pages(NamedTuple):
    """Neighbouring pages of one size, ``1 << shift``, contiguous in physical memory too."""

    addr: int
    range: int
    shift: int
    target: Extent
    """Where they are: as long as ``range``."""

    @property
    def end(self) -> int:
        """First address behind them."""
        return self.addr + self.range

    def part(self, addr: int, end: int) -> Pages:
        """Those of ``[addr, end)``, which begins and ends between two pages, or where these do."""
        aperture, first, _ = self.target
        length = end - addr
        return Pages(addr, length, self.shift, Extent(aperture, first + addr - self.addr, length))


@dataclass(slots=True)
class Cut:
    """What becomes of a mapping's pages when a hole is cut into it. Lists are in address order.

    To get there without a blink: ``get`` those ``added``, ``map`` them below, ``unmap`` those ``gone``, and
    later ``put`` those.
    """

    before: list[Pages]
    """All pages in front of the hole."""
    after: list[Pages]
    """All pages behind it."""
    added: list[Pages]
    """Those of ``before`` and ``after`` that are new: what is left of cut pages, in smaller ones."""
    gone: list[Pages]
    """Those that were there and are not any more: inside the hole, or cut by it."""


def split_into_pages(
    allowed: Allowed, addr: int, range: int, extents: Sequence[Extent], offset: int
) -> list[Pages]:
    """The pages that show ``[offset, offset + range)`` of an object at ``[addr, addr + range)``.

    Each byte gets the largest page that its aperture allows and that lies within the range, at a multiple of
    its size in both address spaces, and in contiguous memory.

    Args:
        allowed: ``Backend.pages``.
        extents: the object's, in object order.

    Returns:
        Pages in address order; neighbours of one size that are contiguous are one item. O(extents + pages
        returned).

    Raises:
        InvalidArgument: the range is empty, no multiple of the smallest page, longer than the object, or an
            aperture allows no page that fits.

    Source: ``op_map_prepare`` and ``nouveau_bo_fixup_align`` of nouveau; Vulkan's and NVIDIA's large pages.
    """
    return _pages(core_split_into_pages(page_sizes(allowed), addr, range, extents, offset))


def cut_pages(allowed: Allowed, pages: Iterable[Pages], addr: int, range: int) -> Cut:
    """What to do with the ``pages`` of a mapping when ``[addr, addr + range)`` is taken out of it.

    Pages outside the hole stay as they are. Large pages that it cuts are replaced by smaller ones, the
    largest that fit, to the same bytes.

    Raises:
        InvalidArgument: a border of the hole is no multiple of the smallest page, or it is empty.

    Source: ``op_remap_prepare`` of nouveau.
    """
    rows = [(run.addr, run.range, run.shift, run.target.aperture, run.target.addr) for run in pages]
    return Cut(*map(_pages, core_cut_pages(page_sizes(allowed), rows, addr, range)))


def page_sizes(allowed: Allowed) -> list[tuple[int, int]]:
    """The same for the core: shift, and apertures by bit."""
    return [(shift, sum(1 << each for each in apertures)) for shift, apertures in allowed.items()]


def _pages(rows: Iterable[tuple[int, int, int, int, int]]) -> list[Pages]:
    """From the core's: address, range, shift, aperture, physical address."""
    return [
        Pages(addr, range, shift, Extent(Aperture(aperture), physical, range))
        for addr, range, shift, aperture, physical in rows
    ]
