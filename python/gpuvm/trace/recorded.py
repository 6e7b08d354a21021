"""The records of a trace: one for each recorded ioctl.

A line is one ioctl: ``t`` (nanoseconds), ``client`` (an open of the device), ``call``, the call's own
fields, ``ret`` (0 or a negative errno). Addresses and sizes are bytes, u64; ends are exclusive. What a call
returned is None where it failed, or where the trace does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

OP_MAP = 0
OP_UNMAP = 1
OP_SPARSE = 0x100
OP_NAMES = {"map": OP_MAP, "unmap": OP_UNMAP}

BIND_RUN_ASYNC = 1

SYNC_SYNCOBJ = 0
SYNC_TIMELINE = 1
SYNC_NAMES = {"syncobj": SYNC_SYNCOBJ, "timeline": SYNC_TIMELINE}

DOMAIN_VRAM = 0x2
DOMAIN_GART = 0x4
DOMAIN_ANY = DOMAIN_VRAM | DOMAIN_GART
DOMAIN_NO_SHARE = 0x20


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

    call: ClassVar[str] = "vm_init"
    kernel_addr: int
    kernel_size: int


@dataclass(frozen=True, slots=True)
class GemNew(Call):
    """A new object of ``size`` bytes, called ``handle`` from now on; 0 where it failed.

    ``domain`` says where it may be, DOMAIN_VRAM and DOMAIN_GART; both where the trace does not tell.
    """

    call: ClassVar[str] = "gem_new"
    handle: int
    size: int
    domain: int
    align: int
    tile_mode: int
    tile_flags: int


@dataclass(frozen=True, slots=True)
class GemImport(Call):
    """An object made elsewhere is called ``handle``; importing it again gives it again.

    ``call`` is ``gem_open`` (by name) or ``prime_fd_to_handle``, which has an ``fd``.
    """

    call: str
    handle: int
    fd: int | None


@dataclass(frozen=True, slots=True)
class GemClose(Call):
    """``handle`` means nothing any more; the object's mappings stay."""

    call: ClassVar[str] = "gem_close"
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


class Sync(NamedTuple):
    """What a submission waits for or signals: SYNC_SYNCOBJ, or a point ``value`` of SYNC_TIMELINE."""

    flags: int
    handle: int
    value: int


@dataclass(frozen=True, slots=True)
class VmBind(Call):
    """The ops of one VM_BIND, in order; ``flags`` is BIND_RUN_ASYNC or 0."""

    call: ClassVar[str] = "vm_bind"
    ops: tuple[BindOp, ...]
    flags: int
    waits: tuple[Sync, ...]
    signals: tuple[Sync, ...]


class Push(NamedTuple):
    """One push buffer of an exec: ``[va, va + va_len)`` of the client's space."""

    va: int
    va_len: int
    flags: int


@dataclass(frozen=True, slots=True)
class Submission(Call):
    """The push buffers of one EXEC, in order; none where the trace does not tell."""

    call: ClassVar[str] = "exec"
    pushes: tuple[Push, ...]
    channel: int | None
    waits: tuple[Sync, ...]
    signals: tuple[Sync, ...]


@dataclass(frozen=True, slots=True)
class Other(Call):
    """A known call that leaves address spaces alone; itself one of which nothing more is read."""

    call: str


@dataclass(frozen=True, slots=True)
class Untold(Other):
    """A call without the ``field`` that says what it was about."""

    field: str


# -- what other calls have


@dataclass(frozen=True, slots=True)
class ChannelAlloc(Other):
    """A channel, known by its number."""

    channel: int | None


@dataclass(frozen=True, slots=True)
class ChannelFree(Other):
    """No more of it."""

    channel: int


@dataclass(frozen=True, slots=True)
class GemInfo(Other):
    """A look at an object; ``size`` in bytes."""

    handle: int
    size: int | None


@dataclass(frozen=True, slots=True)
class GemExport(Other):
    """``fd`` names the object of ``handle`` (PRIME)."""

    handle: int
    flags: int
    fd: int | None


@dataclass(frozen=True, slots=True)
class CpuPrep(Other):
    """Wait until the GPU is done with an object; ``flags`` 1: do not wait, 4: the CPU will write."""

    handle: int
    flags: int


@dataclass(frozen=True, slots=True)
class CpuFini(Other):
    """The CPU is done with an object."""

    handle: int


@dataclass(frozen=True, slots=True)
class GetParam(Other):
    """One of the device's numbers, by the number of the parameter."""

    param: int
    value: int | None


@dataclass(frozen=True, slots=True)
class GetCap(Other):
    """One of the driver's capabilities."""

    capability: int
    value: int | None


@dataclass(frozen=True, slots=True)
class SyncobjCreate(Other):
    """``flags`` 1: signalled."""

    flags: int
    handle: int | None


@dataclass(frozen=True, slots=True)
class SyncobjDestroy(Other):
    """The handle means nothing any more."""

    handle: int


@dataclass(frozen=True, slots=True)
class SyncobjReset(Other):
    """Empty them."""

    handles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SyncobjSignal(Other):
    """Signalled from the CPU."""

    handles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SyncobjTimelineSignal(Other):
    """A signalled point for each."""

    handles: tuple[int, ...]
    points: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SyncobjQuery(Other):
    """``points`` is what each had reached; with ``flags`` 1, the last that was submitted."""

    handles: tuple[int, ...]
    flags: int
    points: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SyncobjTransfer(Other):
    """The fence of one goes into another; point 0 is the one slot of a binary syncobj."""

    src_handle: int
    dst_handle: int
    src_point: int
    dst_point: int
    flags: int


@dataclass(frozen=True, slots=True)
class SyncobjWait(Other):
    """For all of ``handles``, with ``flags`` 1, or any. How long it would have waited is of no use here."""

    handles: tuple[int, ...]
    flags: int


@dataclass(frozen=True, slots=True)
class SyncobjTimelineWait(Other):
    """As SyncobjWait, for points."""

    handles: tuple[int, ...]
    points: tuple[int, ...]
    flags: int


@dataclass(frozen=True, slots=True)
class SyncobjExport(Other):
    """``fd`` names the syncobj, or with ``flags`` 1 is a sync file of its fence."""

    handle: int
    flags: int
    point: int
    fd: int | None


@dataclass(frozen=True, slots=True)
class SyncobjImport(Other):
    """``handle`` is what ``fd`` names; with ``flags`` 1, it was there and gets the fence of a sync file."""

    fd: int
    flags: int
    point: int
    handle: int | None


@dataclass(frozen=True, slots=True)
class SyncobjEventfd(Other):
    """Some eventfd of the program's is told of a point."""

    handle: int
    flags: int
    point: int


Record: TypeAlias = VmInit | GemNew | GemImport | GemClose | VmBind | Submission | Other
