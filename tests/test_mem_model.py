"""Anything that may be done to objects, against a model that knows nothing but their bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpuvm.errors import Busy, NoSpace, OutOfMemory
from gpuvm.mem.aperture import Domain
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import PAGE, Place, Placement
from gpuvm.mem.policy import Clock
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Resv
from placed import Bytes, evict, make_device, pin, require_content, unpin, use, validate
from suite import scaled

VRAM_PAGES, GART_PAGES, SYSTEM_PAGES = 16, 12, 24
numbers = st.integers(0, 1 << 20)
domains = st.sampled_from(list(Domain))
windows = st.sampled_from([(0, None), (0, 8 * PAGE), (4 * PAGE, 8 * PAGE), (8 * PAGE, None)])
places = st.builds(
    lambda domain, window, contiguous, fallback: Place(domain, window[0], window[1], contiguous, fallback),
    domains,
    windows,
    st.booleans(),
    st.booleans(),
)


@dataclass
class Known:
    obj: GemObject
    bytes: Bytes
    pins: int = 0


class Anything(RuleBasedStateMachine):
    """Objects come, are written by all ways that lead to them, moved, pinned and dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.device = make_device(VRAM_PAGES, GART_PAGES, system=SYSTEM_PAGES * PAGE, policy=Clock())
        self.private = Resv("vm")
        self.known: list[Known] = []
        self.instances: dict[int, tuple[int, int]] = {}
        self.pending: list[Fence] = []

    def choose(self, number: int) -> Known:
        return self.known[number % len(self.known)]

    @rule(pages=st.integers(1, 6), domain=domains, private=st.booleans(), priority=st.integers(0, 3))
    def create(self, pages: int, domain: Domain, private: bool, priority: int) -> None:
        resv = self.private if private else None
        obj = self.device.create(pages * PAGE, domain, resv=resv, priority=priority)
        assert not obj.view.any()
        self.known.append(Known(obj, np.zeros(obj.size, np.uint8)))

    @precondition(lambda self: self.known)
    @rule(number=numbers, where=numbers, value=st.integers(0, 255), count=st.integers(1, 2 * PAGE))
    def write(self, number: int, where: int, value: int, count: int) -> None:
        known = self.choose(number)
        first = where % len(known.bytes)
        known.bytes[first : first + count] = value
        known.obj.view[first : first + count] = value

    @precondition(lambda self: self.known)
    @rule(number=numbers, where=numbers, value=st.integers(0, 255))
    def write_physically(self, number: int, where: int, value: int) -> None:
        known = self.choose(number)
        where %= len(known.bytes)
        offset = 0
        for aperture, addr, range_ in known.obj.extents:
            if offset <= where < offset + range_:
                self.device.memory(aperture).view[addr + where - offset] = value
                known.bytes[where] = value
            offset += range_

    @precondition(lambda self: self.known)
    @rule(number=numbers, placement=st.lists(places, min_size=1, max_size=3).map(tuple))
    def validate(self, number: int, placement: Placement) -> None:
        self.finish_jobs()  # there is no thread that would
        known = self.choose(number)
        before = known.obj.extents
        try:
            validate(known.obj, placement)
        except (NoSpace, OutOfMemory):
            assert known.obj.extents == before
        except Busy:
            assert known.pins
        else:
            resource = self.device._residency.where(known.obj)
            assert resource is not None
            assert any(resource.compatible(place) for place in placement)

    @precondition(lambda self: self.known)
    @rule(number=numbers)
    def evict(self, number: int) -> None:
        known = self.choose(number)
        try:
            evict(known.obj)
        except Busy:
            assert known.pins
        except OutOfMemory:
            assert known.obj.domain == Domain.VRAM, "for lack of system pages"
        else:
            assert known.obj.domain != Domain.VRAM

    @precondition(lambda self: self.known)
    @rule(number=numbers, domain=domains)
    def pin(self, number: int, domain: Domain) -> None:
        self.finish_jobs()
        known = self.choose(number)
        try:
            pin(known.obj, domain)
        except (Busy, NoSpace, OutOfMemory):
            return
        known.pins += 1
        assert known.obj.domain == domain

    @precondition(lambda self: any(known.pins for known in self.known))
    @rule(number=numbers)
    def unpin(self, number: int) -> None:
        pinned = [known for known in self.known if known.pins]
        known = pinned[number % len(pinned)]
        unpin(known.obj)
        known.pins -= 1

    @precondition(lambda self: self.known)
    @rule(number=numbers, used=st.booleans())
    def drop(self, number: int, used: bool) -> None:
        known = self.known.pop(number % len(self.known))
        if used and known.obj.resv is not self.private:
            self.pending.append(use(known.obj))

    @rule()
    def finish_jobs(self) -> None:
        while self.pending:
            self.pending.pop().signal()

    @rule(shift=st.integers(0, 2), value=st.integers(1, 255))
    def allocate_instance_memory(self, shift: int, value: int) -> None:
        self.finish_jobs()
        size = PAGE << shift
        try:
            addr = self.device.instance_memory.allocate(size)
        except OutOfMemory:
            return
        memory = self.device.vram.view[addr : addr + size]
        assert not memory.any()
        memory[:] = value
        self.instances[addr] = size, value

    @precondition(lambda self: self.instances)
    @rule(number=numbers)
    def free_instance_memory(self, number: int) -> None:
        addr = sorted(self.instances)[number % len(self.instances)]
        size, _ = self.instances.pop(addr)
        self.device.instance_memory.free(addr, size)

    @invariant()
    def every_byte_is_where_it_belongs(self) -> None:
        for known in self.known:
            require_content(known.obj, known.bytes)
            assert known.obj.pin_count == known.pins
        for addr, (size, value) in self.instances.items():
            assert (self.device.vram.view[addr : addr + size] == value).all()

    @invariant()
    def the_device_is_sound(self) -> None:
        self.device.check()
        assert self.device.statistics().system_used <= SYSTEM_PAGES * PAGE

    def teardown(self) -> None:
        self.finish_jobs()
        self.known.clear()
        while self.instances:
            self.free_instance_memory(0)
        self.device.close()
        assert all(manager.used == 0 for manager in self.device.statistics().managers)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=scaled(25, 600))
