"""The nouveau driver, so far: an address space whose binds are written into page tables.

- ``vm``: ``Uvmm``, the address space
- ``bind``: what a bind call asks for, and its three stages
- ``prepare``, ``page_change``, ``slots``: from an operation to references and entries
- ``uvma``: a mapping and its pages
- ``moving``: what becomes of mappings when their objects are moved
- ``contents``: whether the page table shows what is mapped
"""

from gpuvm.nouveau.bind import Bind, BindOp, OpCode, Stage
from gpuvm.nouveau.uvma import Uvma
from gpuvm.nouveau.vm import Uvmm, UvmmStatistics

__all__ = ["Bind", "BindOp", "OpCode", "Stage", "Uvma", "Uvmm", "UvmmStatistics"]
