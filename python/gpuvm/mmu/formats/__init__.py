"""Formats of page tables: data for a walker that knows none of them."""

from gpuvm.mmu.formats.format import Entry, Format, Level, PteFlags, State
from gpuvm.mmu.formats.gh100 import GH100
from gpuvm.mmu.formats.gp100 import GP100, TU102
from gpuvm.mmu.formats.kinds import Kinds
from gpuvm.mmu.formats.x86_64 import X86_64

FORMATS = {format.name: format for format in (GP100, TU102, GH100, X86_64)}
"""By name."""

__all__ = [
    "FORMATS",
    "GH100",
    "GP100",
    "TU102",
    "X86_64",
    "Entry",
    "Format",
    "Kinds",
    "Level",
    "PteFlags",
    "State",
]
