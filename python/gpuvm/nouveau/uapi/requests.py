"""What the driver's calls take and give: the uAPI's structures without pointers, counts and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpuvm.nouveau.uapi.structs import VM_BIND_OP


class VmBindOp(NamedTuple):
    """One operation of a VM_BIND (``struct drm_nouveau_vm_bind_op``)."""

    op: int
    """A number of the client's dialect."""
    flags: int
    """Bits 0 to 7: storage kind of a MAP; bit 8: sparse."""
    handle: int
    """The object that a MAP shows."""
    addr: int
    bo_offset: int
    range: int
    """Bytes, as the two before."""


VmBindOps = Sequence[VmBindOp] | bytearray
"""Operations of a VM_BIND; a bytearray has their structures, one behind the other."""


def typed(ops: VmBindOps) -> Sequence[VmBindOp]:
    """``ops``, made of structures if need be."""
    if isinstance(ops, bytearray):
        return [VmBindOp._make(op) for op in VM_BIND_OP.iter_unpack(ops)]
    return ops


class Push(NamedTuple):
    """One push buffer of an EXEC (``struct drm_nouveau_exec_push``)."""

    va: int
    va_len: int
    """Bytes."""
    flags: int = 0
    """``EXEC_PUSH_NO_PREFETCH``."""


class GemInfo(NamedTuple):
    """An object as one client sees it (``struct drm_nouveau_gem_info``)."""

    handle: int
    domain: int
    size: int
    """Bytes."""
    offset: int
    """0 in an address space that the client manages."""
    map_handle: int
    """Offset for ``mmap``."""
    tile_mode: int
    tile_flags: int


class Version(NamedTuple):
    """What VERSION says of the driver."""

    major: int
    minor: int
    patchlevel: int
    name: str
    date: str
    desc: str
