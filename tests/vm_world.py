"""A small machine to run threads against: address spaces, shared objects, and a GPU that uses them late.

It keeps books of its own, a page at a time: what should be mapped where, what the page tables hold, which
objects have memory. Whatever a thread does it does under the locks that the kernel's documents ask for, and
looks at the books afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from gpuvm import Exec, ExecFlags, GpuvaFlags, GpuvaManager, GpuVm, GpuVmFlags, VmBo
from gpuvm.errors import OutOfMemory
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv, Usage
from late_gpu import LateGpu

PAGES = 64
"""Of an address space; addresses are page numbers."""
BO_PAGES = 16
NO_MEMORY = 0.1
"""How often an object cannot be brought back."""
COUNTED = ("bind", "unbind", "execute", "fail", "evict", "show", "validated", "contended")


class Bo:
    """A buffer object: its reservation guards the rest."""

    def __init__(self, name: str, resv: Resv) -> None:
        self.name = name
        self.resv = resv
        self.vm_bos: list[VmBo] = []
        self.resident = True
        self.moves = 0
        self.writes_submitted = 0
        self.writes_done = 0

    def __repr__(self) -> str:
        return self.name


@dataclass
class Job:
    """What the GPU does later: use these objects, then signal."""

    fence: Fence
    uses: list[tuple[Bo, int]] = field(default_factory=list)


class Gpu(LateGpu[Job]):
    def perform(self, job: Job) -> None:
        for bo, moves in job.uses:
            assert bo.resident, f"{bo} was evicted under the job of {job.fence}"
            assert bo.moves == moves, f"{bo} moved under the job of {job.fence}"
            bo.writes_done += 1


class Space:
    """An address space, its lock, its page table, and what should be in it."""

    def __init__(self, name: str, flags: GpuVmFlags, dice: Random) -> None:
        self.lock = Mutex(f"{name} lock", lockdep.lock_class("vm_lock"))
        self.dice = dice
        self.vm = GpuVm(name, range=PAGES, flags=flags, vm_bo_validate=self.bring_back)
        self.wanted: dict[int, tuple[Bo, int]] = {}
        self.entries: dict[int, tuple[Bo, int]] = {}

    def bring_back(self, vm_bo: VmBo, exec: Exec) -> None:
        bo: Bo = vm_bo.obj
        assert exec.holds(bo)
        if self.dice.random() < NO_MEMORY:
            raise OutOfMemory(f"bring_back: there is no memory for {bo} now")
        bo.resv.wait(Usage.KERNEL)
        bo.resident = True
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


class World:
    """Spaces, objects, a GPU, and what threads do with them."""

    def __init__(self, seed: int, *, spaces: int = 2, bos: int = 32, threads: int = 8) -> None:
        dice = Random(seed)
        modes = (GpuVmFlags(0), GpuVmFlags.RESV_PROTECTED)
        self.spaces = [
            Space(f"vm{number}", dice.choice(modes), Random(f"{seed} vm{number}")) for number in range(spaces)
        ]
        self.external = [Bo(f"ext{number}", Resv(f"ext{number}")) for number in range(bos // 2)]
        self.private = {
            space.vm.name: [
                Bo(f"{space.vm.name}.{number}", space.vm.resv) for number in range(bos // 2 // spaces)
            ]
            for space in self.spaces
        }
        self.gpu = Gpu()
        self.dice = [Random(f"{seed}.{number}") for number in range(threads)]
        self.contexts = [fence_context_alloc() for _ in range(threads)]
        self.seqnos = [0] * threads
        self.counts = dict.fromkeys(COUNTED, 0)
        self.populate(dice)

    def populate(self, dice: Random) -> None:
        """Map some of the shared objects in every space, each time in another order."""
        for space in self.spaces:
            for number, bo in enumerate(dice.sample(self.external, 8)):
                self.bind(0, space, number * PAGES // 8, 4, bo)

    # -- what threads do

    def thread(self, me: int, steps: int) -> None:
        for _ in range(steps):
            self.step(me)

    def step(self, me: int) -> None:
        dice = self.dice[me]
        space = dice.choice(self.spaces)
        match dice.choices(("bind", "unbind", "execute", "evict", "show"), (4, 1, 4, 2, 1))[0]:
            case "bind":
                bo = dice.choice(self.external + self.private[space.vm.name])
                range_ = dice.randrange(1, BO_PAGES + 1)
                self.bind(me, space, dice.randrange(PAGES - range_ + 1), range_, bo)
            case "unbind":
                range_ = dice.randrange(1, PAGES // 2)
                self.unbind(me, space, dice.randrange(PAGES - range_ + 1), range_)
            case "execute":
                self.execute(me, space)
            case "evict":
                bos = [bo for bo in self.all_bos() if bo.vm_bos]
                if bos:
                    self.evict(me, dice.choice(bos))
            case "show":
                self.show(dice.choice(self.external))

    def bind(self, me: int, space: Space, addr: int, range_: int, bo: Bo) -> None:
        """Map the first pages of ``bo``."""
        vm = space.vm
        with space.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    self.lock_for_bind(exec, vm, addr, range_, bo)
            vm_bo = vm.bo_obtain(bo)
            if vm_bo not in bo.vm_bos:
                bo.vm_bos.append(vm_bo)
            vm.bo_extobj_add(vm_bo)
            vm.bo_evict(vm_bo, not bo.resident or vm_bo.evicted)
            away = vm_bo.evicted
            flags = GpuvaFlags.INVALIDATED if away else 0
            vm.sm_map(addr, range_, bo, flags=flags).apply()
            vm_bo.put()
            space.clear(addr, range_)
            if not away:
                space.write(addr, range_, bo, 0)
            space.wanted.update({addr + page: (bo, page) for page in range(range_)})
            self.after_change(exec, space)
            fence = self.fence(me)
            vm.resv.add_fence(fence, Usage.BOOKKEEP)
            if vm.is_extobj(bo):
                bo.resv.add_fence(fence, Usage.BOOKKEEP)
            self.gpu.push(Job(fence))
        self.counts["bind"] += 1

    def lock_for_bind(self, exec: Exec, vm: GpuVm, addr: int, range_: int, bo: Bo) -> None:
        vm.prepare_vm(exec, 1)
        vm.sm_map_exec_lock(exec, 1, addr, range_, bo)

    def unbind(self, me: int, space: Space, addr: int, range_: int) -> None:
        vm = space.vm
        with space.lock, Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.prepare_vm(exec, 1)
                    vm.sm_unmap_exec_lock(exec, addr, range_)
            vm.sm_unmap(addr, range_).apply()
            space.clear(addr, range_)
            for page in range(addr, addr + range_):
                space.wanted.pop(page, None)
            self.after_change(exec, space)
            fence = self.fence(me)
            vm.resv.add_fence(fence, Usage.BOOKKEEP)
            self.gpu.push(Job(fence))
        self.counts["unbind"] += 1

    def execute(self, me: int, space: Space) -> None:
        """Submit a job that may use and write everything mapped."""
        vm = space.vm
        with space.lock, vm.exec_lock(1) as exec:
            for vm_bo in vm.vm_bos():
                assert exec.holds(vm_bo.obj)
                assert vm_bo.evicted == vm_bo.on_evicted, vm_bo
            evicted = vm.evicted
            try:
                vm.validate(exec)
            except OutOfMemory:
                self.counts["fail"] += 1
                return
            self.counts["validated"] += len(evicted)
            self.check_commit(space)
            fence = self.fence(me)
            vm.resv_add_fence(exec, fence, Usage.BOOKKEEP, Usage.WRITE)
            uses: list[Bo] = [vm_bo.obj for vm_bo in vm.vm_bos()]
            for bo in uses:
                bo.writes_submitted += 1
            self.gpu.push(Job(fence, [(bo, bo.moves) for bo in uses]))
        self.counts["execute"] += 1

    def evict(self, me: int, bo: Bo) -> None:
        """Move the object's memory away, once nobody uses it."""
        with bo.resv:
            self.wait_for_users(bo)
            for vm_bo in bo.vm_bos:
                space = self.space_of(vm_bo)
                space.vm.bo_evict(vm_bo, True)
                for va in vm_bo:
                    va.invalidated = True
                    space.clear(va.addr, va.range)
            bo.resident = False
            bo.moves += 1
            bo.resv.reserve_fences(1)
            fence = self.fence(me)
            bo.resv.add_fence(fence, Usage.KERNEL)
            self.gpu.push(Job(fence))
        self.counts["evict"] += 1

    def wait_for_users(self, bo: Bo) -> None:
        assert bo.resv.wait(Usage.BOOKKEEP, timeout=60), "a job was lost"

    def show(self, bo: Bo) -> None:
        """Have another device read the object, which knows nothing but implicit synchronisation."""
        with bo.resv:
            assert bo.resv.wait(Usage.rw(write=False), timeout=60), "a job was lost"
            assert bo.writes_done == bo.writes_submitted, f"{bo} is shown while jobs write to it"
        self.counts["show"] += 1

    def fence(self, me: int) -> Fence:
        """The next of the thread's own timeline: its jobs are done in this order."""
        self.seqnos[me] += 1
        return Fence(self.contexts[me], self.seqnos[me])

    def space_of(self, vm_bo: VmBo) -> Space:
        return next(space for space in self.spaces if space.vm is vm_bo.vm)

    def all_bos(self) -> Iterator[Bo]:
        yield from self.external
        for bos in self.private.values():
            yield from bos

    # -- what must hold

    def after_change(self, exec: Exec, space: Space) -> None:
        """Forget VmBos that went with their last mapping, then compare the space with the books."""
        for obj in exec:
            bos = self.private[space.vm.name] if obj.resv is space.vm.resv else [obj]
            for bo in bos:
                assert isinstance(bo, Bo)
                bo.vm_bos[:] = [vm_bo for vm_bo in bo.vm_bos if vm_bo.alive]
        exec.check()
        self.counts["contended"] += exec.statistics().contended
        self.check_space(space)

    def check_space(self, space: Space) -> None:
        """The tree shows what was asked for, and VmBos are where they belong. VM and resv are locked."""
        vm = space.vm
        GpuvaManager.check(vm)
        shown = {va.addr + page: (va.obj, va.offset + page) for va in vm for page in range(va.range)}
        assert shown == space.wanted
        for vm_bo in vm.vm_bos():
            assert vm_bo in vm_bo.obj.vm_bos
            assert len(vm_bo) > 0
            assert vm_bo.refcount == len(vm_bo)
            assert vm_bo.on_extobjs == vm.is_extobj(vm_bo.obj)

    def check_commit(self, space: Space) -> None:
        """Everything mapped can be used now, and the page table says so."""
        self.check_space(space)
        space.vm.check()
        assert not space.vm.evicted
        for va in space.vm:
            assert va.obj.resident
            assert not va.invalidated
        assert space.entries == space.wanted

    def finish(self) -> None:
        """When all threads are done: wait for the GPU, take everything down, and see that nothing is left."""
        for bo in self.all_bos():
            with bo.resv:
                bo.resv.wait(Usage.BOOKKEEP)
        assert not self.gpu.queue
        assert self.gpu.done == sum(self.seqnos)
        for space in self.spaces:
            with space.lock:
                self.check_space(space)
            self.unbind_all(space)
            assert space.vm.put()
        for bo in self.all_bos():
            bo.resv.check()
            assert bo.resv.test_signalled(Usage.BOOKKEEP)
            assert not bo.resv.locked
            assert not any(vm_bo.alive for vm_bo in bo.vm_bos)

    def unbind_all(self, space: Space) -> None:
        with space.lock, space.vm.exec_lock() as exec:
            space.vm.sm_unmap(0, PAGES).apply()
            space.wanted.clear()
            self.after_change(exec, space)
