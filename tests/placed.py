"""Devices of a few pages, objects with known bytes, and looking at these by all ways that lead to them."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuvm.mem.aperture import Domain, Extent
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import PAGE, Placement
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage

Bytes = npt.NDArray[np.uint8]


def make_device(vram: int = 16, gart: int = 64, **options: Any) -> Device:
    """Sizes in pages."""
    return Device(vram=vram * PAGE, gart=gart * PAGE, **options)


def make_object(device: Device, pages: int = 4, domains: Domain = Domain.VRAM, **options: Any) -> GemObject:
    """With bytes that tell it from others."""
    obj = device.create(pages * PAGE, domains, **options)
    obj.view[:] = content_of(obj)
    return obj


def content_of(obj: GemObject) -> Bytes:
    """What ``make_object`` wrote: each page begins with a number of its own."""
    content = np.full(obj.size, obj.offset // PAGE % 251, np.uint8)
    content[::PAGE] = np.arange(obj.size // PAGE) + 1
    return content


def validate(obj: GemObject, placement: Placement | None = None, **options: Any) -> bool:
    with obj.resv:
        return obj.device.validate(obj, placement, **options)


def evict(obj: GemObject) -> None:
    with obj.resv:
        obj.device.evict(obj)


def pin(obj: GemObject, domain: Domain) -> None:
    with obj.resv:
        obj.device.pin(obj, domain)


def unpin(obj: GemObject) -> None:
    with obj.resv:
        obj.device.unpin(obj)


def physical(device: Device, extents: Iterable[Extent]) -> Bytes:
    """The bytes at physical addresses, in this order."""
    parts = [device.memory(aperture).view[addr : addr + range] for aperture, addr, range in extents]
    return np.concatenate(parts)


def require_content(obj: GemObject, content: Bytes | None = None) -> None:
    """It has its bytes, by its own view, and by its physical addresses if it has some."""
    content = content_of(obj) if content is None else content
    assert np.array_equal(obj.view, content), obj
    if obj.extents:
        assert np.array_equal(physical(obj.device, obj.extents), content), obj


def use(obj: GemObject, usage: Usage = Usage.BOOKKEEP) -> Fence:
    """A job that uses it; signal the fence when it is to be done."""
    fence = Fence(fence_context_alloc(), 1, driver="job")
    with obj.resv:
        obj.resv.reserve_fences(1)
        obj.resv.add_fence(fence, usage)
    return fence


def domains_of(objects: Iterable[GemObject]) -> list[Domain]:
    return [obj.domain for obj in objects]


def random_bytes(dice: Random, size: int) -> Bytes:
    return np.frombuffer(dice.randbytes(size), np.uint8)
