"""Lock many objects, publish a fence in each, unlock them.

Every thread takes all the objects, which lie before it in an order of its own. At the end the last fence that
was published must be found in all of them, and all locks free.
"""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm import GpuVm
from gpuvm.exec import Exec
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage

PAGE = 4096


class Buffer:
    """An object that can be mapped, with a reservation of its own."""

    __slots__ = ("__weakref__", "resv")

    def __init__(self) -> None:
        self.resv = Resv()


class Plain:
    """An object with what the floor needs."""

    __slots__ = ("fence", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fence: object = None


Obj = TypeVar("Obj")


class Committer(Contender, Generic[Obj]):
    """Objects, and threads that lock all of them."""

    def __init__(self, objects: int, threads: int) -> None:
        self._objects = [self._make() for _ in range(objects)]
        self._last: list[object] = [None] * threads
        """The fence that each thread published last."""
        dice = random.Random(objects)
        self._orders = [dice.sample(self._objects, objects) for _ in range(threads)]

    def jobs(self, units: int) -> list[Job]:
        threads = len(self._orders)
        return [self._job(thread, order, units // threads) for thread, order in enumerate(self._orders)]

    def check(self) -> int:
        locked = sum(self._locked(obj) for obj in self._objects)
        if locked:
            raise Disagreement(f"{type(self).__name__}: {locked} objects are left locked")
        common = set.intersection(*[self._published(obj) for obj in self._objects])
        if not common & set(self._last):
            raise Disagreement(f"{type(self).__name__}: the last fence is not in all objects")
        return len(self._objects)

    @staticmethod
    @abstractmethod
    def _make() -> Obj:
        """One object."""

    @abstractmethod
    def _job(self, thread: int, objs: Sequence[Obj], rounds: int) -> Job:
        """So many rounds of one thread."""

    @staticmethod
    @abstractmethod
    def _published(obj: Obj) -> set[object]:
        """The fences found in it."""

    @staticmethod
    @abstractmethod
    def _locked(obj: Obj) -> bool:
        """Whether somebody holds it."""


class SortedLocks(Committer[Plain]):
    """The floor: a `threading.Lock` each, taken in the order of `id`; nobody can wait for the fence."""

    @staticmethod
    def _make() -> Plain:
        return Plain()

    def _job(self, thread: int, objs: Sequence[Plain], rounds: int) -> Job:
        def job() -> None:
            for _ in range(rounds):
                fence = object()
                ordered = sorted(objs, key=id)
                for obj in ordered:
                    obj.lock.acquire()
                for obj in ordered:
                    obj.fence = fence
                for obj in reversed(ordered):
                    obj.lock.release()
            self._last[thread] = fence

        return job

    @staticmethod
    def _published(obj: Plain) -> set[object]:
        return {obj.fence}

    @staticmethod
    def _locked(obj: Plain) -> bool:
        return obj.lock.locked()


class _Reservations(Committer[Buffer]):
    """What those of gpuvm have in common."""

    @staticmethod
    def _make() -> Buffer:
        return Buffer()

    @staticmethod
    def _published(obj: Buffer) -> set[object]:
        with obj.resv:
            return {fence for fence, _ in obj.resv.entries()}

    @staticmethod
    def _locked(obj: Buffer) -> bool:
        obj.resv.check()
        return obj.resv.locked


class ExecCommit(_Reservations):
    """An `Exec` of the objects as they lie there."""

    def _job(self, thread: int, objs: Sequence[Buffer], rounds: int) -> Job:
        context = fence_context_alloc()
        write = Usage.WRITE

        def job() -> None:
            for seqno in range(1, rounds + 1):
                fence = Fence(context, seqno)
                with Exec() as exec:
                    for attempt in exec.until_all_locked():
                        with attempt:
                            exec.prepare_array(objs, 1)
                    for obj in objs:
                        obj.resv.add_fence(fence, write)
                fence.signal()
            self._last[thread] = fence

        return job


class ValidatedCommit(ExecCommit):
    """The same under the lock validator."""

    validated = True


class VmCommit(_Reservations):
    """`GpuVm.exec_lock`: an address space a thread, in each of which all objects are mapped as external."""

    def __init__(self, objects: int, threads: int) -> None:
        super().__init__(objects, threads)
        self._vms = [_space(order) for order in self._orders]

    def _job(self, thread: int, objs: Sequence[Buffer], rounds: int) -> Job:
        context = fence_context_alloc()
        vm = self._vms[thread]
        private, external = Usage.BOOKKEEP, Usage.WRITE

        def job() -> None:
            for seqno in range(1, rounds + 1):
                fence = Fence(context, seqno)
                with vm.exec_lock(1) as exec:
                    vm.resv_add_fence(exec, fence, private, external)
                fence.signal()
            self._last[thread] = fence

        return job


def _space(objs: Sequence[Buffer]) -> GpuVm:
    """An address space with a page of each object, external in this order."""
    vm = GpuVm("bench", range=len(objs) * PAGE)
    for index, obj in enumerate(objs):
        with obj.resv:
            vm.sm_map(index * PAGE, PAGE, obj).apply()
            vm_bo = vm.bo_obtain(obj)
            vm.bo_extobj_add(vm_bo)
            vm_bo.put()
    return vm
