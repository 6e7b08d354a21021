"""Who calls GpuVm without the locks that a call needs hears of it from the validator, and nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gpuvm import Exec, ExecFlags, GpuVm, GpuVmFlags, VmBo
from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep
from protocol import IMMEDIATE_MODE, OWN_LOCKS, RESV_PROTECTED, Bo, Userptr, bind, space
from snapshot import snapshot

VM, OBJ, GPUVA = "the VM's reservation", "the object's reservation", "the object's GPUVA lock"
LOCKS = (VM, OBJ, GPUVA)


@dataclass(frozen=True)
class Scene:
    vm: GpuVm
    obj: Any
    vm_bo: VmBo

    @contextmanager
    def locked(self, *locks: str) -> Iterator[Exec]:
        objects = [self.vm.resv_obj] * (VM in locks) + [self.obj] * (OBJ in locks)
        with Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array(objects, 1)
            if GPUVA in locks:
                with self.obj.gpuva_lock:
                    yield exec
            else:
                yield exec


def back(vm_bo: VmBo, exec: Exec) -> None:
    pass


CALLS: dict[str, Callable[[Scene, Exec], object]] = {
    "bo_find": lambda scene, exec: scene.vm.bo_find(scene.obj),
    "bo_obtain": lambda scene, exec: scene.vm.bo_obtain(scene.obj),
    "bo_obtain_prealloc": lambda scene, exec: scene.vm.bo_obtain_prealloc(scene.vm.bo_create(scene.obj)),
    "bo_extobj_add": lambda scene, exec: scene.vm.bo_extobj_add(scene.vm_bo),
    "bo_evict": lambda scene, exec: scene.vm.bo_evict(scene.vm_bo, False),
    "validate": lambda scene, exec: scene.vm.validate(exec),
}

FIND, OBTAIN, PREALLOC, ADD, EVICT, VALIDATE = CALLS
IMMEDIATE_RESV = IMMEDIATE_MODE | RESV_PROTECTED


@dataclass(frozen=True)
class Rule:
    calls: tuple[str, ...]
    flags: GpuVmFlags
    of: str
    """Which kind of object."""
    needs: tuple[str, ...]


RULES = [
    Rule((FIND, OBTAIN, PREALLOC), OWN_LOCKS, "external", (OBJ,)),
    Rule((FIND, OBTAIN, PREALLOC), RESV_PROTECTED, "external", (OBJ,)),
    Rule((FIND, OBTAIN, PREALLOC), OWN_LOCKS, "private", (VM,)),
    Rule((FIND, OBTAIN, PREALLOC), IMMEDIATE_MODE, "external", (GPUVA,)),
    Rule((FIND, OBTAIN, PREALLOC), IMMEDIATE_RESV, "private", (GPUVA,)),
    Rule((FIND, OBTAIN, PREALLOC), OWN_LOCKS, "unlockable", ()),
    Rule((FIND, OBTAIN, PREALLOC), IMMEDIATE_MODE, "unlockable", ()),
    Rule((ADD,), OWN_LOCKS, "external", ()),
    Rule((ADD,), RESV_PROTECTED, "external", (VM,)),
    Rule((ADD,), RESV_PROTECTED, "private", ()),
    Rule((ADD,), IMMEDIATE_RESV, "external", (VM,)),
    Rule((EVICT,), OWN_LOCKS, "external", (OBJ,)),
    Rule((EVICT,), RESV_PROTECTED, "external", (OBJ,)),
    Rule((EVICT,), IMMEDIATE_RESV, "external", (OBJ,)),
    Rule((EVICT,), RESV_PROTECTED, "private", (VM,)),
    Rule((EVICT,), OWN_LOCKS, "unlockable", ()),
    Rule((EVICT,), RESV_PROTECTED, "unlockable", (VM,)),
    Rule((VALIDATE,), OWN_LOCKS, "external", (OBJ,)),
    Rule((VALIDATE,), OWN_LOCKS, "private", (VM,)),
    Rule((VALIDATE,), RESV_PROTECTED, "external", (VM, OBJ)),
    Rule((VALIDATE,), RESV_PROTECTED, "private", (VM,)),
]
CASES = [(call, rule) for rule in RULES for call in rule.calls]

every_rule = pytest.mark.parametrize(
    ("call", "rule"), CASES, ids=[f"{call}-{rule.flags!r}-{rule.of}" for call, rule in CASES]
)


def scene(rule: Rule) -> Scene:
    """An evicted object, as validate wants it, with a further reference."""
    vm = space(rule.flags, back)
    kinds: dict[str, Callable[[], Any]] = {
        "external": lambda: Bo("obj"),
        "private": lambda: Bo("obj", vm.resv),
        "unlockable": Userptr,
    }
    obj = kinds[rule.of]()
    vm_bo = bind(vm, 0, obj)
    vm_bo.get()
    vm_bo._set_evicted(True, True)
    return Scene(vm, obj, vm_bo)


@every_rule
def test_the_locks_that_are_needed_are_enough(call: str, rule: Rule) -> None:
    at = scene(rule)
    with at.locked(*rule.needs) as exec:
        CALLS[call](at, exec)


@every_rule
def test_without_one_of_them_it_is_refused_and_nothing_happens(call: str, rule: Rule) -> None:
    for missing in rule.needs:
        at = scene(rule)
        others = [lock for lock in LOCKS if lock != missing]
        if rule.of == "private":
            others = [lock for lock in others if {lock, missing} != {VM, OBJ}]
        if rule.of == "unlockable":
            others = [VM] * (missing != VM)
        before = snapshot(at.vm)
        with at.locked(*others) as exec, pytest.raises(LockdepError, match="assert_held"):
            CALLS[call](at, exec)
        assert snapshot(at.vm) == before


def test_lists_guarded_by_the_reservation_are_walked_under_it() -> None:
    """There the locks are those of the call's own ``Exec``."""
    vm = space(RESV_PROTECTED)
    bind(vm, 0, Bo("obj"))
    with Exec() as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                with pytest.raises(LockdepError, match="vm resv"):
                    vm.prepare_objects(exec, 0)
                assert len(exec) == 0
                vm.prepare_vm(exec, 0)
                vm.prepare_objects(exec, 0)
                assert len(exec) == 2


def test_locks_of_its_own_need_none() -> None:
    vm = space(OWN_LOCKS)
    bind(vm, 0, Bo("obj"))
    with Exec() as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                vm.prepare_objects(exec, 0)
                assert len(exec) == 1


@every_rule
def test_without_the_validator_nobody_objects(call: str, rule: Rule) -> None:
    at = scene(rule)
    lockdep.disable()
    with Exec() as exec:
        CALLS[call](at, exec)
