"""Validating many objects of which nobody has to move."""

from __future__ import annotations

import pytest

from gpuvm.mem.aperture import Domain
from gpuvm.mem.placement import Place
from placed import domains_of, evict, make_device, make_object, validate

VRAM, GART = Domain.VRAM, Domain.GART


def test_counts_as_validation_does() -> None:
    counts = []
    for in_place in (False, True):
        device = make_device(vram=8)
        objects = [make_object(device, domains=VRAM | GART) for _ in range(3)]
        for obj in objects:
            validate(obj)
        if in_place:
            assert device.use_in_place(objects)
        else:
            assert [validate(obj) for obj in objects] == [False] * 3
        now = device.statistics()
        counts.append((now.uses, now.hits, domains_of(objects)))
        device.check()
    assert counts[0] == counts[1]


def test_the_order_of_use_is_noted() -> None:
    device = make_device(vram=8)
    first, second = (make_object(device, domains=VRAM) for _ in range(2))
    validate(first)
    validate(second)
    assert device.use_in_place([first])
    validate(make_object(device, domains=VRAM))
    assert domains_of([first, second]) == [VRAM, GART]


@pytest.mark.parametrize("where", ["nowhere", "evicted", "fallback", "no place"])
def test_does_nothing_if_one_has_to_move(where: str) -> None:
    device = make_device()
    good, bad = make_object(device), make_object(device)
    validate(good)
    if where != "nowhere":
        validate(bad)
    if where == "evicted":
        evict(bad)
    if where == "fallback":
        bad.allowed = (Place(VRAM, fallback=True),)
    if where == "no place":
        bad.allowed = ()
    before = device.statistics()
    assert not device.use_in_place([good, bad])
    assert device.statistics() == before
