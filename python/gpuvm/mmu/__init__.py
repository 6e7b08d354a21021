"""Page tables in the GPU's own format, and what can stand in for them.

- ``backend``: the five calls of whatever translates a GPU's addresses
- ``page_table``, ``tables``: page tables in VRAM, and where their memory comes from
- ``formats``: how words look
- ``host``, ``cpu_mmu``, ``layers``, ``intervals``: the CPU's own MMU as a backend
- ``translation``, ``walk``, ``tlb``: what an address leads to, step by step, and what a GPU remembers of it
- ``pages``: which page sizes a mapping gets
- ``access``: bytes read, written and copied through a backend
"""

from gpuvm.mmu.access import AddressSpace
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.host import HostBackend
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.pages import Pages, split_into_pages
from gpuvm.mmu.tlb import Tlb
from gpuvm.mmu.translation import Access, Fault, FaultType, Run, RunState, Sparse, Translation, permitted
from gpuvm.mmu.walk import walk

__all__ = [
    "Access",
    "AddressSpace",
    "Backend",
    "Fault",
    "FaultType",
    "HostBackend",
    "PageTable",
    "Pages",
    "Run",
    "RunState",
    "Sparse",
    "Tlb",
    "Translation",
    "permitted",
    "split_into_pages",
    "walk",
]
