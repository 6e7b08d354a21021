"""Validation: having an object where it may be used (``ttm_bo_validate``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuvm.errors import Busy, InvalidArgument, NoSpace, OutOfMemory
from gpuvm.mem.aperture import Domain
from gpuvm.mem.eviction import Claims, Evictor, WorkingSet
from gpuvm.mem.placement import Place, Placement
from gpuvm.mem.residency import Residency
from gpuvm.mem.resource import Resource

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject


def validate(
    obj: GemObject,
    placement: Placement,
    residency: Residency,
    evictor: Evictor,
    *,
    exec: WorkingSet | None,
    interruptible: bool,
) -> bool:
    """Have ``obj`` in one of the places; True if it moved. See ``Device.validate``."""
    if not placement:
        raise InvalidArgument(f"validate: no place for {obj!r}; pass some, such as placement_of(Domain.VRAM)")
    if obj.dma_buf is not None and any(place.domain == Domain.VRAM for place in placement):
        raise InvalidArgument(
            f"validate: {obj!r} was imported, its pages are not to leave system memory; pass GART or CPU",
            placement,
        )
    now = residency.where(obj)
    if now is not None and _lies_well(now, placement, fallback=False):
        residency.use(now, hit=now.compatible(placement[0]))
        return False
    if obj.pin_count:
        raise Busy(f"validate: {obj!r} is pinned in {obj.domain.name}; unpin it first", now, placement)
    new = _find(obj, placement, Claims(obj, exec), now, residency, evictor, interruptible)
    if new is now:
        residency.use(now, hit=False)
        return False
    evictor.move(obj, new, interruptible=interruptible)
    residency.use(new, hit=False)
    return True


def use_in_place(objs: Iterable[GemObject], residency: Residency) -> bool:
    """Note uses, as ``validate`` does, if each object lies where it may; see ``Device.use_in_place``."""
    uses: list[tuple[Resource, bool]] = []
    for obj in objs:
        now = obj.backing.resource
        if now is not None and now.best_of is obj.allowed:
            uses.append((now, True))
            continue
        use = _use_of(obj, residency)
        if use is None:
            return False
        uses.append(use)
    residency.use_all(uses)
    return True


def _use_of(obj: GemObject, residency: Residency) -> tuple[Resource, bool] | None:
    """Where it lies, and whether it is wanted there most; None if it may have to move."""
    now = residency.where(obj)
    if now is None or obj.dma_buf is not None or not obj.allowed:
        return None  # not without `validate`
    best = obj.allowed[0]
    hit = now.compatible(best)
    if hit and not best.fallback:
        now.best_of = obj.allowed
    elif not _lies_well(now, obj.allowed, fallback=False):
        return None
    return now, hit


def _lies_well(resource: Resource, placement: Placement, *, fallback: bool) -> bool:
    return any(place.fallback is fallback and resource.compatible(place) for place in placement)


def _find(
    obj: GemObject,
    placement: Placement,
    claims: Claims,
    now: Resource | None,
    residency: Residency,
    evictor: Evictor,
    interruptible: bool,
) -> Resource:
    """Memory in the first place where some is free; else where it lies; else after evicting others.

    Raises:
        NoSpace, OutOfMemory: as ``Device.validate``.

    Source: ``ttm_bo_alloc_resource``.
    """
    places = [place for place in placement if residency.could_fit(obj.size, place, obj.align)]
    for place in places:
        if not place.fallback:
            new = evictor.obtain(obj, place, claims, interruptible=interruptible)
            if new is not None:
                return new
    if now is not None and _lies_well(now, placement, fallback=True):
        return now
    for place in places:
        new = evictor.obtain(obj, place, claims, evicting=True, interruptible=interruptible)
        if new is not None:
            return new
    if places:
        quota = "" if residency.system is None else ", or raise the quota `system`"
        raise OutOfMemory(
            f"validate: {obj.size:#x} bytes of {obj!r} do not fit in {_names(places)} beside what is pinned "
            f"or used with it; use less at once{quota}",
            obj.size,
            placement,
        )
    raise NoSpace(
        f"validate: {obj.size:#x} bytes of {obj!r} never fit in {_names(placement)} at multiples of "
        f"{obj.align:#x}; {_advice(placement)}",
        obj.size,
        placement,
    )


def _names(places: Iterable[Place]) -> str:
    return ", ".join(f"{place.domain.name}{_window(place)}" for place in places)


def _window(place: Place) -> str:
    if not place.first and place.last is None:
        return ""
    return f" from {place.first:#x} to {'its end' if place.last is None else f'{place.last:#x}'}"


def _advice(placement: Placement) -> str:
    if any(map(_window, placement)):
        return "pass a larger window (first, last), or make a smaller object"
    return "make a smaller object, or a larger device"
