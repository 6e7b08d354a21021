"""Policies and flag bits of address spaces and mappings."""

from enum import IntEnum, IntFlag


class Merge(IntEnum):
    """What ``GpuvaManager.sm_map`` does with neighbours that continue the requested mapping.

    Two mappings can become one if they show the same object at contiguous offsets with equal flags, and the
    driver's ``can_merge`` does not object.
    """

    NEVER = 0
    """Nothing merges; ``keep`` tells contiguity. What kernels do since 6.6."""
    ALWAYS = 1
    """Neighbours become one mapping, as in the original series."""
    WITHIN_REGION = 2
    """As ALWAYS, where the joined mapping lies inside one region."""


class Regions(IntEnum):
    """What the regions of an address space ask of mappings."""

    OFF = 0
    """There are none."""
    REQUIRED = 1
    """A mapping lies inside exactly one region, else EINVAL. The original series."""
    SPARSE = 2
    """A mapping that touches a region lies wholly inside it, else ENOSPC. Nouveau's sparse regions."""


class Fit(IntEnum):
    """Which hole ``GpuvaManager.find_gap`` takes (``enum drm_mm_insert_mode``)."""

    LOWEST = 0
    HIGHEST = 1
    BEST = 2
    """The smallest that does, the lowest of equals."""


class GpuvaFlags(IntFlag):
    """Flags of a mapping (``enum drm_gpuva_flags``). A driver's own are USERBITS << n, 26 of them."""

    INVALIDATED = 1 << 0
    """The page-table entries are gone because the object was evicted."""
    SPARSE = 1 << 1
    USERBITS = 1 << 2


class GpuVmFlags(IntFlag):
    """Flags of an address space (``enum drm_gpuvm_flags``)."""

    RESV_PROTECTED = 1 << 0
    """The VM's reservation guards the lists of external and evicted objects, not locks of their own."""
    IMMEDIATE_MODE = 1 << 1
    """Mappings change when a bind's job runs, not when it is submitted."""
    USERBITS = 1 << 2
