"""The records of a trace, as far as they touch an address space.

A line is one ioctl: ``t`` (nanoseconds), ``client`` (an open of the device), ``call``, the call's own
fields, ``ret`` (0 or a negative errno). Addresses and sizes are bytes, u64; ends are exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

OP_MAP = 0
OP_UNMAP = 1
OP_SPARSE = 0x100
OP_NAMES = {"map": OP_MAP, "unmap": OP_UNMAP}

DOMAIN_VRAM = 0x2
DOMAIN_GART = 0x4
DOMAIN_ANY = DOMAIN_VRAM | DOMAIN_GART
DOMAIN_NO_SHARE = 0x20

# Calls that touch neither an address space nor the meaning of a handle: read and skipped.
OTHER_CALLS = frozenset(
    (
        # nouveau
        *("getparam", "setparam", "channel_alloc", "channel_free", "grobj_alloc", "notifierobj_alloc"),
        *("gpuobj_free", "nvif", "svm_init", "svm_bind", "get_zcull_info", "gem_pushbuf"),
        *("gem_cpu_prep", "gem_cpu_fini", "gem_info"),
        # every DRM driver
        *("version", "get_unique", "get_magic", "auth_magic", "get_client", "get_stats", "set_version"),
        *("get_cap", "set_client_cap", "set_client_name", "set_master", "drop_master", "gem_flink"),
        *("prime_handle_to_fd", "syncobj_create", "syncobj_destroy", "syncobj_handle_to_fd"),
        *("syncobj_fd_to_handle", "syncobj_wait", "syncobj_reset", "syncobj_signal", "syncobj_query"),
        *("syncobj_timeline_wait", "syncobj_timeline_signal", "syncobj_transfer", "syncobj_eventfd"),
    )
)


@dataclass(frozen=True, slots=True)
class Call:
    """What every record has. ``line`` is where it stands in the file, from 1."""

    line: int
    t: int
    client: int
    ret: int


@dataclass(frozen=True, slots=True)
class VmInit(Call):
    """The client's space is made; ``[kernel_addr, +kernel_size)`` is the kernel's, size 0: none."""

    kernel_addr: int
    kernel_size: int


@dataclass(frozen=True, slots=True)
class GemNew(Call):
    """A new object of ``size`` bytes, called ``handle`` from now on.

    ``domain`` says where it may be, DOMAIN_VRAM and DOMAIN_GART; both where the trace does not tell.
    """

    handle: int
    size: int
    domain: int


@dataclass(frozen=True, slots=True)
class GemImport(Call):
    """An object made elsewhere (prime, flink) is called ``handle``; importing it again gives it again."""

    handle: int


@dataclass(frozen=True, slots=True)
class GemClose(Call):
    """``handle`` means nothing any more; the object's mappings stay."""

    handle: int


class BindOp(NamedTuple):
    """One op of a vm_bind, field for field the uAPI's ``drm_nouveau_vm_bind_op``.

    ``op`` is OP_MAP or OP_UNMAP; ``flags`` are 0x100 for sparse and the PTE kind in the low byte.
    """

    op: int
    flags: int
    handle: int
    pad: int
    addr: int
    bo_offset: int
    range: int

    @property
    def sparse(self) -> bool:
        """The op makes or drops a sparse region."""
        return bool(self.flags & OP_SPARSE)


@dataclass(frozen=True, slots=True)
class VmBind(Call):
    """The ops of one VM_BIND, in order."""

    ops: tuple[BindOp, ...]


class Push(NamedTuple):
    """One push buffer of an exec: ``[va, va + va_len)`` of the client's space."""

    va: int
    va_len: int


@dataclass(frozen=True, slots=True)
class Submission(Call):
    """The push buffers of one EXEC, in order; none where the trace does not tell."""

    pushes: tuple[Push, ...]


@dataclass(frozen=True, slots=True)
class Other(Call):
    """A known call that leaves address spaces alone."""

    call: str


Record: TypeAlias = VmInit | GemNew | GemImport | GemClose | VmBind | Submission | Other
