"""A small machine of immediate mode: a bind's job changes the space when the GPU comes to it.

- submitters prepare binds and put them in the queue, with the reservations but without the VM's lock
- the runner applies them in the order of the queue, with the VM's lock but without any reservation
- evictors move objects away, and the next job that uses everything brings them back
- cleaners let go of what jobs kept, and of the VmBos that ended with a job

It keeps books of its own, a page at a time.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

import gpuvm
from drivers import Driver
from gpuvm import Exec, ExecFlags, GpuvaFlags, GpuvaManager, GpuVm, VmBo
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv, Usage
from protocol import IMMEDIATE_MODE, RESV_PROTECTED
from protocol import Bo as Lockable

PAGES = 32
"""Of an address space; addresses are page numbers."""
BO_PAGES = 8


class Bo(Lockable):
    """Its reservation guards ``resident``, its GPUVA lock its VmBos."""

    def __init__(self, name: str, resv: Resv | None = None) -> None:
        super().__init__(name, resv)
        self.resident = True
        self.vm_bos: list[VmBo] = []


class Step(Driver):
    """Carries a plan out with what was made beforehand, each object's mappings under its GPUVA lock."""

    def sm_step_map(self, op: gpuvm.Map) -> None:
        with op.obj.gpuva_lock:
            super().sm_step_map(op)

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        with op.unmap.va.obj.gpuva_lock:
            super().sm_step_remap(op)

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        with op.va.obj.gpuva_lock:
            super().sm_step_unmap(op)


class Space:
    """An address space, its lock, its page table, and what should be in it."""

    def __init__(self, name: str, resv_protected: bool) -> None:
        self.lock = Mutex(f"{name} lock", lockdep.lock_class("vm_lock"))
        flags = IMMEDIATE_MODE | RESV_PROTECTED if resv_protected else IMMEDIATE_MODE
        self.vm = GpuVm(name, range=PAGES, flags=flags, vm_bo_validate=self.bring_back)
        self.wanted: dict[int, tuple[Bo, int]] = {}
        self.entries: dict[int, tuple[Bo, int]] = {}

    def bring_back(self, vm_bo: VmBo, exec: Exec) -> None:
        bo: Bo = vm_bo.obj
        assert exec.holds(bo)
        bo.resv.wait(Usage.KERNEL)
        bo.resident = True
        with self.lock:
            with bo.gpuva_lock:
                for va in vm_bo:
                    va.invalidated = False
                    self.write(va.addr, va.range, bo, va.offset)
            self.vm.bo_evict(vm_bo, False)

    def write(self, addr: int, range_: int, bo: Bo, offset: int) -> None:
        for page in range(range_):
            self.entries[addr + page] = (bo, offset + page)

    def clear(self, addr: int, range_: int) -> None:
        for page in range(addr, addr + range_):
            self.entries.pop(page, None)


@dataclass(eq=False)
class Job:
    """What the GPU does when it comes to it; then it signals."""

    fence: Fence
    space: Space | None = None

    def run(self) -> None:
        """Allocates nothing, takes no reservation, cannot fail."""

    def clean_up(self) -> None:
        """Lets go of what it kept."""


@dataclass(eq=False)
class Change(Job):
    """A bind, or an unbind if ``vm_bo`` is None."""

    addr: int = 0
    range: int = 0
    vm_bo: VmBo | None = None
    step: Step = field(init=False)

    def __post_init__(self) -> None:
        assert self.space is not None
        self.step = Step(self.space.vm)
        self.space.vm.preallocate(1)

    def run(self) -> None:
        assert self.space is not None
        space, addr, end = self.space, self.addr, self.addr + self.range
        with space.lock:
            space.clear(addr, self.range)
            if self.vm_bo is None:
                space.vm.sm_unmap(addr, self.range).step(self.step)
                for page in range(addr, end):
                    space.wanted.pop(page, None)
                return
            bo, flags = self.vm_bo.obj, GpuvaFlags(0)
            if self.vm_bo.evicted:
                flags = GpuvaFlags.INVALIDATED
            else:
                space.write(addr, self.range, bo, 0)
            space.vm.sm_map(addr, self.range, bo, flags=flags).step(self.step)
            space.wanted.update({page: (bo, page - addr) for page in range(addr, end)})

    def clean_up(self) -> None:
        assert self.space is not None
        if self.vm_bo is not None:
            with self.space.lock, self.vm_bo.obj.gpuva_lock:
                vm_bo, self.vm_bo = self.vm_bo, None
                vm_bo.put_deferred()
        self.space.vm.release_preallocated(1)


@dataclass(eq=False)
class Use(Job):
    """Uses everything that is mapped."""

    def run(self) -> None:
        assert self.space is not None
        with self.space.lock:
            for va in self.space.vm:
                assert va.obj.resident, f"{va.obj} was evicted under the job of {self.fence}"
                assert not va.invalidated, va
            assert self.space.entries == self.space.wanted


class World:
    """Two spaces, objects, a GPU, and what threads do with them."""

    def __init__(self, seed: int, threads: int) -> None:
        dice = Random(seed)
        self.spaces = [Space(f"vm{number}", dice.random() < 0.5) for number in range(2)]
        self.external = [Bo(f"ext{number}") for number in range(4)]
        self.private = {
            space.vm.name: [Bo(f"{space.vm.name}.{number}", space.vm.resv) for number in range(2)]
            for space in self.spaces
        }
        self.dice = [Random(f"{seed}.{number}") for number in range(threads)]
        self.contexts = [fence_context_alloc() for _ in range(threads)]
        self.seqnos = [0] * threads
        self.counts: Counter[str] = Counter()
        self.queue: deque[Job] = deque()
        self.done: deque[Job] = deque()
        self.changes: list[Change] = []
        """All that hold a reference to a VmBo, or did."""
        self.sleeper: task.Waiter | None = None
        task.start("runner", self.work)

    # -- the GPU

    def push(self, job: Job) -> None:
        self.queue.append(job)
        if self.sleeper is not None:
            self.sleeper.wake()

    def work(self) -> None:
        while True:
            self.sleeper = task.Waiter()
            if not self.queue:
                self.sleeper.wait()
            while self.queue:
                job = self.queue.popleft()
                with lockdep.fence_signalling(job.fence.context):
                    job.run()
                    self.done.append(job)
                    job.fence.signal()

    # -- what threads do

    def submit(self, me: int, steps: int) -> None:
        dice = self.dice[me]
        for _ in range(steps):
            space = dice.choice(self.spaces)
            match dice.choices(("bind", "unbind", "use"), (4, 2, 3))[0]:
                case "bind":
                    range_ = dice.randrange(1, BO_PAGES + 1)
                    bo = dice.choice(self.external + self.private[space.vm.name])
                    self.bind(me, space, dice.randrange(PAGES - range_ + 1), range_, bo)
                case "unbind":
                    addr = dice.randrange(PAGES)
                    self.unbind(me, space, addr, dice.randrange(1, PAGES - addr + 1))
                case "use":
                    self.use(me, space)
            self.check()

    def bind(self, me: int, space: Space, addr: int, range_: int, bo: Bo) -> None:
        vm = space.vm
        fresh = vm.bo_create(bo)
        with Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.prepare_vm(exec, 1)
                    exec.prepare_obj(bo, 1)
            job = Change(self.fence(me), space, addr, range_)
            with bo.gpuva_lock:
                vm_bo = vm.bo_obtain_prealloc(fresh)
                job.vm_bo = vm_bo
                self.changes.append(job)
                if vm_bo is fresh:
                    bo.vm_bos.append(vm_bo)
            vm.bo_extobj_add(vm_bo)
            if vm_bo is fresh:
                vm.bo_evict(vm_bo, not bo.resident)
            vm.resv_add_fence(exec, job.fence, Usage.BOOKKEEP, Usage.BOOKKEEP)
            self.push(job)
            self.counts["contended"] += exec.statistics().contended
        self.counts["bind"] += 1

    def unbind(self, me: int, space: Space, addr: int, range_: int) -> None:
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    space.vm.prepare_vm(exec, 1)
            job = Change(self.fence(me), space, addr, range_)
            space.vm.resv_add_fence(exec, job.fence, Usage.BOOKKEEP, Usage.BOOKKEEP)
            self.push(job)
        self.counts["unbind"] += 1

    def use(self, me: int, space: Space) -> None:
        vm = space.vm
        with vm.exec_lock(1) as exec:
            for vm_bo in vm.extobjs:
                assert exec.holds(vm_bo.obj)
            self.counts["validated"] += len(vm.evicted)
            vm.validate(exec)
            assert vm.evicted == []
            job = Use(self.fence(me), space)
            vm.resv_add_fence(exec, job.fence, Usage.BOOKKEEP, Usage.WRITE)
            self.push(job)
        self.counts["use"] += 1

    def evict(self, me: int, steps: int) -> None:
        for _ in range(steps):
            bo = self.dice[me].choice(self.all_bos())
            with bo.resv:
                assert bo.resv.wait(Usage.BOOKKEEP, timeout=60), "a job was lost"
                with bo.gpuva_lock:
                    vm_bos = list(bo.vm_bos)
                for vm_bo in vm_bos:
                    self.take_away(bo, vm_bo)
                bo.resident = False
                bo.resv.reserve_fences(1)
                job = Job(self.fence(me))
                bo.resv.add_fence(job.fence, Usage.KERNEL)
                self.push(job)
            self.counts["evict"] += 1
            self.check()

    def take_away(self, bo: Bo, vm_bo: VmBo) -> None:
        space = next(space for space in self.spaces if space.vm is vm_bo.vm)
        with space.lock:
            self.counts["evicted while a zombie"] += vm_bo.zombie
            space.vm.bo_evict(vm_bo, True)
            with bo.gpuva_lock:
                for va in vm_bo:
                    va.invalidated = True
                    space.clear(va.addr, va.range)

    def clean(self, steps: int) -> None:
        for _ in range(steps):
            self.clean_once()
            self.check()
            if task.preempt is not None:
                task.preempt()

    def clean_once(self) -> None:
        while self.done:
            self.done.popleft().clean_up()
        for space in self.spaces:
            self.counts["zombies"] += space.vm.bo_deferred_cleanup()
        for bo in self.all_bos():
            with bo.gpuva_lock:
                bo.vm_bos[:] = [vm_bo for vm_bo in bo.vm_bos if vm_bo.alive]

    def fence(self, me: int) -> Fence:
        self.seqnos[me] += 1
        return Fence(self.contexts[me], self.seqnos[me])

    def all_bos(self) -> list[Bo]:
        return [*self.external, *(bo for bos in self.private.values() for bo in bos)]

    # -- what must hold

    def check(self) -> None:
        for space in self.spaces:
            with space.lock:
                self.check_space(space)
                for bo in [*self.external, *self.private[space.vm.name]]:
                    with bo.gpuva_lock:
                        self.check_vm_bo(space, bo)

    def check_space(self, space: Space) -> None:
        """The tree shows what was asked for, the page table as much of it as is there."""
        vm = space.vm
        GpuvaManager.check(vm)
        shown = {va.addr + page: (va.obj, va.offset + page) for va in vm for page in range(va.range)}
        assert shown == space.wanted
        there = [va for va in vm if not va.invalidated]
        assert space.entries == {
            va.addr + page: (va.obj, va.offset + page) for va in there for page in range(va.range)
        }
        zombies = vm.deferred
        assert all(vm_bo.zombie and not vm_bo.alive and len(vm_bo) == 0 for vm_bo in zombies)
        assert not set(zombies) & {*vm.extobjs, *vm.evicted, *vm.vm_bos()}

    def check_vm_bo(self, space: Space, bo: Bo) -> None:
        """There is one at most, with one reference for each mapping and each job that is not cleaned up."""
        alive = [vm_bo for vm_bo in bo.vm_bos if vm_bo.alive and vm_bo.vm is space.vm]
        assert len(alive) <= 1
        assert [vm_bo for vm_bo in space.vm.vm_bos() if vm_bo.obj is bo] == alive
        for vm_bo in alive:
            kept = sum(job.vm_bo is vm_bo for job in self.changes)
            assert (vm_bo.refcount, kept) == (len(vm_bo) + kept, kept)

    def finish(self) -> None:
        """When all threads are done: wait for the GPU, take everything down, and see that nothing is left."""
        for space in self.spaces:
            self.unbind(0, space, 0, PAGES)
        for bo in self.all_bos():
            assert bo.resv.wait(Usage.BOOKKEEP, timeout=60), "a job was lost"
        for space in self.spaces:
            assert space.vm.resv.wait(Usage.BOOKKEEP, timeout=60), "a job was lost"
        assert not self.queue
        self.check()
        self.clean_once()
        for space in self.spaces:
            assert (space.vm.deferred, space.vm.vm_bos(), space.entries) == ([], [], {})
            assert space.vm.statistics().preallocated == 0
            space.vm.check()
            assert space.vm.put()
        assert not any(bo.vm_bos or bo.resv.locked for bo in self.all_bos())
