"""Uvma: a mapping that knows its kind and the pages that it references."""

from __future__ import annotations

from typing import Final

from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.pages import Pages
from gpuvm.va import Gpuva, GpuvaFlags

KINDS: Final = 256
"""A PTE kind is a number below; it is in the driver's own bits of a mapping's flags."""


class Uvma(Gpuva):
    """One mapping of a ``Uvmm``.

    Locking: the object's reservation guards ``pages``.

    Source: ``struct nouveau_uvma``.
    """

    __slots__ = ()

    @property
    def pages(self) -> list[Pages]:
        """Page slots that it holds a reference on each, in address order.

        While it is not invalidated they are mapped and show all of its range. When its object is moved away
        the references stay, so that coming back to pages of the same sizes needs no memory; cut then, it
        keeps those that lie wholly in what is left.
        """
        return [
            Pages(addr, range, shift, Extent(Aperture(aperture), physical, range))
            for addr, range, shift, aperture, physical in self._pages()
        ]

    @property
    def kind(self) -> int:
        """Storage kind of its entries."""
        return kind_of(self.flags)


def kind_of(flags: int) -> int:
    """The kind in a mapping's flags."""
    return flags // GpuvaFlags.USERBITS % KINDS
