"""The address-space manager: what is mapped where in a GPU's virtual address space."""

from gpuvm.va.flags import Fit, GpuvaFlags, GpuVmFlags, Merge, Regions
from gpuvm.va.ops import Driver, Gpuva, Map, Op, Plan, Prefetch, Remap, Unmap, VmBo
from gpuvm.va.region import Region
from gpuvm.va.space import GpuvaManager
from gpuvm.va.statistics import Statistics

__all__ = [
    "Driver",
    "Fit",
    "GpuVmFlags",
    "Gpuva",
    "GpuvaFlags",
    "GpuvaManager",
    "Map",
    "Merge",
    "Op",
    "Plan",
    "Prefetch",
    "Region",
    "Regions",
    "Remap",
    "Statistics",
    "Unmap",
    "VmBo",
]
