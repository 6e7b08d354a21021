"""Choosing page sizes: the largest that fit, and smaller ones where a large page is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gpuvm.errors import InvalidArgument
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

    before: list[Pages] = field(default_factory=list)
    """All pages in front of the hole."""
    after: list[Pages] = field(default_factory=list)
    """All pages behind it."""
    added: list[Pages] = field(default_factory=list)
    """Those of ``before`` and ``after`` that are new: what is left of cut pages, in smaller ones."""
    gone: list[Pages] = field(default_factory=list)
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
    if range <= 0:
        raise InvalidArgument(f"pages: range {range:#x} is empty", value=range)
    pages = list(_largest(allowed, _contiguous(addr, range, extents, offset)))
    covered = sum(run.range for run in pages)
    if covered != range:
        raise InvalidArgument(
            f"pages: [{offset:#x}, {offset + range:#x}) leaves the object, {offset + covered:#x} bytes",
            value=offset + range,
            bound=offset + covered,
        )
    return pages


def cut_pages(allowed: Allowed, pages: Iterable[Pages], addr: int, range: int) -> Cut:
    """What to do with the ``pages`` of a mapping when ``[addr, addr + range)`` is taken out of it.

    Pages outside the hole stay as they are. Large pages that it cuts are replaced by smaller ones, the
    largest that fit, to the same bytes.

    Raises:
        InvalidArgument: a border of the hole is no multiple of the smallest page.

    Source: ``op_remap_prepare`` of nouveau.
    """
    hole_end = addr + range
    cut = Cut()
    for run in pages:
        size = 1 << run.shift
        first, last = max(addr, run.addr), min(hole_end, run.end)
        if first >= last:
            (cut.before if run.end <= addr else cut.after).append(run)
            continue
        gone = first & -size, (last + size - 1) & -size
        cut.gone.append(run.part(*gone))
        if run.addr < gone[0]:
            cut.before.append(run.part(run.addr, gone[0]))
        for remains, side in (((gone[0], first), cut.before), ((last, gone[1]), cut.after)):
            if remains[0] < remains[1]:
                smaller = list(_largest(allowed, [(remains[0], run.part(*remains).target)]))
                cut.added += smaller
                side += smaller
        if gone[1] < run.end:
            cut.after.append(run.part(gone[1], run.end))
    return cut


def _contiguous(
    addr: int, range: int, extents: Iterable[Extent], offset: int
) -> Iterator[tuple[int, Extent]]:
    """The range in pieces that are contiguous in physical memory, with their addresses."""
    piece: Extent | None = None
    for aperture, first, length in extents:
        skipped = min(offset, length)
        offset -= skipped
        length = min(length - skipped, range)
        range -= length
        if length == 0:
            continue
        if piece is not None and (aperture, first + skipped) == (piece.aperture, piece.addr + piece.range):
            piece = Extent(aperture, piece.addr, piece.range + length)
            continue
        if piece is not None:
            yield addr, piece
            addr += piece.range
        piece = Extent(aperture, first + skipped, length)
    if piece is not None:
        yield addr, piece


def _largest(allowed: Allowed, pieces: Iterable[tuple[int, Extent]]) -> Iterator[Pages]:
    """The largest pages for contiguous pieces at addresses."""
    for addr, (aperture, first, length) in pieces:
        shifts = tuple([shift for shift, apertures in allowed.items() if aperture in apertures])
        yield from _nested(addr, addr + length, first - addr, aperture, shifts)


def _nested(addr: int, end: int, delta: int, aperture: Aperture, shifts: tuple[int, ...]) -> Iterator[Pages]:
    """As many pages of the first shift as fit, smaller ones around them. Physical is ``delta`` further."""
    if addr >= end:
        return
    if not shifts:
        raise InvalidArgument(
            f"pages: no page of {aperture.name} fits [{addr:#x}, {end:#x}) at physical {addr + delta:#x}; "
            "align address, offset and range to one",
            value=(addr, addr + delta),
        )
    size, smaller = 1 << shifts[0], shifts[1:]
    first, last = (addr + size - 1) & -size, end & -size
    if delta & (size - 1) or first >= last:
        yield from _nested(addr, end, delta, aperture, smaller)
        return
    yield from _nested(addr, first, delta, aperture, smaller)
    yield Pages(first, last - first, shifts[0], Extent(aperture, first + delta, last - first))
    yield from _nested(last, end, delta, aperture, smaller)
