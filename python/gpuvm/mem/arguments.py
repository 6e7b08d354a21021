"""What a device and its objects cannot be made of, refused before anything is taken."""

from __future__ import annotations

from operator import index

from gpuvm.errors import InvalidArgument
from gpuvm.mem.object_file import SIZE
from gpuvm.mem.placement import PAGE
from gpuvm.mem.policy import EvictionPolicy, Lru
from gpuvm.mem.resource import PRIORITIES
from gpuvm.sync.resv import Resv


def check_memory(what: str, size: int) -> None:
    """Refuse what is no size of a memory."""
    _whole(f"Device: {what}", size)
    if size <= 0 or size % PAGE:
        raise InvalidArgument(
            f"Device: {what} {size:#x}; pass bytes, a positive multiple of {PAGE:#x}", size, PAGE
        )


def check_quota(system: int | None) -> None:
    """Refuse what is no quota."""
    if system is not None:
        _whole("Device: system", system)
        if system < 0:
            raise InvalidArgument(f"Device: system {system}; pass bytes, or None for any number", system, 0)


def policy_or_default(policy: EvictionPolicy | None) -> EvictionPolicy:
    """The policy that a device is to have; a name or a class is none."""
    if policy is None:
        return Lru()
    if isinstance(policy, type) or not callable(getattr(policy, "candidates", None)):
        raise InvalidArgument(
            f"Device: policy {policy!r}; pass an object, such as Lru(), Clock() or FarthestNextUse(names)",
            policy,
        )
    return policy


def check_new(size: int, align: int, priority: int, no_share: bool, resv: Resv | None) -> None:
    """Refuse what no object can be."""
    _whole("create: size", size)
    _whole("create: align", align)
    if size <= 0:
        raise InvalidArgument(f"create: {size} bytes; pass a positive number", size, 1)
    if not PAGE <= align <= SIZE or align & (align - 1):
        raise InvalidArgument(
            f"create: align {align:#x}; pass a power of two from {PAGE:#x} to {SIZE:#x}", align, (PAGE, SIZE)
        )
    if priority not in range(PRIORITIES):
        raise InvalidArgument(f"create: priority {priority}; pass 0 to {PRIORITIES - 1}", priority)
    if not (resv is None or isinstance(resv, Resv)):
        raise InvalidArgument(f"create: resv {resv!r}; pass the reservation of an address space", resv)
    if no_share and resv is None:
        raise InvalidArgument("create: no_share without an address space; pass its reservation as resv")


def _whole(what: str, value: int) -> None:
    try:
        index(value)
    except TypeError:
        raise InvalidArgument(f"{what} {value!r}; pass a whole number of bytes, an int", value) from None
