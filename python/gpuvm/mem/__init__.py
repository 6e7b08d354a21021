"""Memory that is real: objects, where they are placed, and what is moved out of the way for them.

- ``aperture``: the words for where memory is
- ``device``: the memories of a GPU and the objects in them; where to begin
- ``gem``, ``handles``, ``idr``, ``names``, ``dma_buf``: objects, and how clients and devices get at them
- ``placement``, ``resource``, ``residency``, ``validate``: where objects may be and are
- ``eviction``, ``policy``, ``move``, ``move_statistics``, ``swap``: how room is made for others
- ``buddy``, ``pages``, ``instance_memory``: who gives VRAM, pages of system memory, and VRAM for tables
- ``memory``, ``object_file``, ``sparse_file``, ``remapping``, ``map_count``, ``map_limit``: bytes, and how
  one page is seen at several places
- ``delayed_delete``, ``ownership``, ``faults``: the end of objects, the books compared, failures on demand
"""

from gpuvm.mem.aperture import Aperture, Domain, Extent
from gpuvm.mem.buddy import Buddy
from gpuvm.mem.device import Device
from gpuvm.mem.dma_buf import DmaBuf
from gpuvm.mem.gem import GemObject
from gpuvm.mem.handles import GemHandles
from gpuvm.mem.map_limit import raise_map_limit
from gpuvm.mem.memory import Memory
from gpuvm.mem.pages import PageAllocator
from gpuvm.mem.placement import Place, Placement, placement_of
from gpuvm.mem.policy import Clock, EvictionPolicy, FarthestNextUse, Lru

__all__ = [
    "Aperture",
    "Buddy",
    "Clock",
    "Device",
    "DmaBuf",
    "Domain",
    "EvictionPolicy",
    "Extent",
    "FarthestNextUse",
    "GemHandles",
    "GemObject",
    "Lru",
    "Memory",
    "PageAllocator",
    "Place",
    "Placement",
    "placement_of",
    "raise_map_limit",
]
