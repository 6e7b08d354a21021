"""Threads that submit jobs, evict, drop and make objects on a device that is too small for all of them.

Jobs write late, by physical addresses that were right when they were submitted, and say so in the books: if
an object moved under a job, or a byte was lost, the books and the bytes differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from gpuvm import Exec
from gpuvm.errors import OutOfMemory
from gpuvm.mem.aperture import Domain, Extent
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import PAGE
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage
from late_gpu import LateGpu
from placed import Bytes, content_of, make_device, make_object, require_content

COUNTED = ("submit", "evict", "replace", "instance", "refused")


@dataclass
class Job:
    """Write ``value`` at the start of each object."""

    fence: Fence
    writes: list[tuple[tuple[Extent, ...], Bytes]]
    """Where the objects lay, and their books."""
    value: int


class Gpu(LateGpu[Job]):
    def __init__(self, device: Device) -> None:
        self.device = device
        super().__init__()

    def perform(self, job: Job) -> None:
        for extents, book in job.writes:
            aperture, addr, _ = extents[0]
            self.device.memory(aperture).view[addr] = job.value
            book[0] = job.value


class MemoryWorld:
    """A device, its objects, their books, a GPU, and what threads do with them."""

    def __init__(
        self,
        seed: int,
        *,
        threads: int,
        objects: int = 10,
        vram: int = 8,
        gart: int = 8,
        system: int | None = None,
    ) -> None:
        self.device = make_device(vram, gart, system=None if system is None else system * PAGE)
        self.may_refuse = system is not None
        """System pages are looked for only where no reservation has to be waited for."""
        self.gpu = Gpu(self.device)
        self.dice = [Random(f"{seed}.{number}") for number in range(threads)]
        self.timelines = [fence_context_alloc() for _ in range(threads)]
        self.seqnos = [0] * threads
        self.private = Resv("vm")
        self.slots = [self.make(Random(seed + number), number) for number in range(objects)]
        """The objects there are now, and their books: replaced as one."""
        self.counts = dict.fromkeys(COUNTED, 0)

    def make(self, dice: Random, number: int) -> tuple[GemObject, Bytes]:
        resv = self.private if dice.random() < 0.4 else None
        obj = make_object(self.device, dice.choice((1, 2)), name=f"bo{number}", resv=resv)
        return obj, content_of(obj)

    def thread(self, me: int, steps: int) -> None:
        for _ in range(steps):
            self.step(me)

    def step(self, me: int) -> None:
        dice = self.dice[me]
        does: Callable[[int], None]
        does = dice.choices((self.submit, self.evict, self.replace, self.instance), (5, 2, 1, 1))[0]
        try:
            does(me)
        except OutOfMemory:
            if not self.may_refuse and does != self.instance:
                raise
            self.counts["refused"] += 1
        else:
            self.counts[does.__name__] += 1

    def submit(self, me: int) -> None:
        """Two objects at most, which fit beside a page for each other thread: so there is always a way."""
        dice = self.dice[me]
        used = dice.sample(self.slots, 2)
        if used[0][0].resv is used[1][0].resv:
            del used[1]  # without an address space, nobody knows that it is needed, too
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    for obj, _ in used:
                        exec.prepare_obj(obj, 1)
                    for obj, _ in used:
                        self.device.validate(obj, exec=exec)
            assert all(obj.domain == Domain.VRAM for obj, _ in used), "evicted by itself"
            self.seqnos[me] += 1
            fence = Fence(self.timelines[me], self.seqnos[me])
            job = Job(fence, [(obj.extents, book) for obj, book in used], dice.randrange(256))
            for obj, _ in used:
                obj.resv.add_fence(fence, Usage.BOOKKEEP)
            self.gpu.push(job)

    def evict(self, me: int) -> None:
        obj, _ = self.dice[me].choice(self.slots)
        with obj.resv:
            self.device.evict(obj)

    def replace(self, me: int) -> None:
        """Drop an object, which jobs may use, and others, and make another one."""
        dice = self.dice[me]
        number = dice.randrange(len(self.slots))
        self.slots[number] = self.make(dice, number)

    def instance(self, me: int) -> None:
        addr = self.device.instance_memory.allocate(PAGE)
        page = self.device.vram.view[addr : addr + PAGE]
        assert not page.any()
        page[:] = me + 1
        if task.preempt is not None:
            task.preempt()
        assert (page == me + 1).all()
        self.device.instance_memory.free(addr, PAGE)

    def compare(self) -> None:
        for obj, book in self.slots:
            with obj.resv:
                obj.resv.wait(Usage.BOOKKEEP)
                require_content(obj, book)

    def finish(self) -> None:
        """When all threads are done: wait for the GPU, compare, take everything down."""
        self.compare()
        self.private.wait(Usage.BOOKKEEP)
        self.device.check()
        statistics = self.device.statistics()
        assert statistics.objects == len(self.slots)
        self.slots.clear()
        self.device.close()
        self.device.check()
        assert all(manager.used == 0 for manager in self.device.statistics().managers)
        assert self.device.statistics().system_used == 0
