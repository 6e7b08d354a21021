"""The face that programs see: ioctls, as bytes.

- ``layout``: ``Layout``, where a structure's fields are; ``structs``: the structures, as data
- ``numbers``: the ioctls
- ``requests``: what the driver's typed calls take and give
- ``dialects``: today's VM_BIND, and the original series'
- ``user_memory``: ``UserMemory``, what a program's pointers lead to; ``user_array``: arrays there
- ``caller``: ``Caller``, who makes a call: that memory, and descriptors
- ``calls``: from each structure to the driver's call; ``nvif``: the call that has calls of its own
- ``dispatch``: ``ioctl``, and ``drm_ioctl``, whose structure is in a program's memory, too
"""

from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.dialects import CURRENT, SERIES, Dialect
from gpuvm.nouveau.uapi.dispatch import drm_ioctl, ioctl
from gpuvm.nouveau.uapi.nvif import NvifObjects, NvifStatistics
from gpuvm.nouveau.uapi.user_memory import UserMemory

__all__ = [
    "CURRENT",
    "SERIES",
    "Caller",
    "Dialect",
    "NvifObjects",
    "NvifStatistics",
    "UserMemory",
    "drm_ioctl",
    "ioctl",
]
