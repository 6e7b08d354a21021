"""Which states an object's VmBo goes through when the object is evicted and brought back.

First a table of all states and events, then random events beside a model that does not know the table.
"""

from __future__ import annotations

from enum import Enum

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpuvm import Exec, GpuVm, GpuVmFlags, VmBo
from gpuvm.errors import OutOfMemory
from protocol import IMMEDIATE_MODE, OWN_LOCKS, PAGE, RESV_PROTECTED, SIZE, Bo, bind, evict, space


class State(Enum):
    """(evicted, on the list of evicted objects), or ended."""

    RESIDENT = (False, False)
    FLAGGED = (True, False)
    LISTED = (True, True)
    STALE = (False, True)
    ENDED = ()


RESIDENT, FLAGGED, LISTED, STALE, ENDED = State


class Hook:
    """What the driver does with each object: brings it back unless told otherwise."""

    def __init__(self) -> None:
        self.does: dict[Bo, str] = {}
        self.seen: list[Bo] = []

    def __call__(self, vm_bo: VmBo, exec: Exec) -> None:
        assert exec.holds(vm_bo.obj)
        self.seen.append(vm_bo.obj)
        match self.does.get(vm_bo.obj, "restore"):
            case "restore":
                vm_bo.vm.bo_evict(vm_bo, False)
            case "fail":
                raise OutOfMemory("hook: no memory")


def prepare(vm: GpuVm) -> None:
    with vm.exec_lock():
        pass


def validate(vm: GpuVm) -> None:
    try:
        with vm.exec_lock() as exec:
            vm.validate(exec)
    except OutOfMemory:
        pass


def unmap(vm: GpuVm, bo: Bo) -> None:
    """As a bind does, or in immediate mode a job."""
    locks = bo.gpuva_lock if vm.immediate_mode else vm.exec_lock()
    with locks:
        vm.sm_unmap(bo_addr(bo), PAGE).apply()


def bo_addr(bo: Bo) -> int:
    return PAGE * int(bo.name)


# -- the table

EVENTS = ("evict", "return", "prepare", "restore", "leave", "fail", "unmap")
"""`evict` and `return` are bo_evict; `restore`, `leave` and `fail` are validate with a hook that does so."""

LISTED_AT_ONCE = {
    #          evict     return    prepare   restore   leave     fail      unmap
    RESIDENT: (LISTED, RESIDENT, RESIDENT, RESIDENT, RESIDENT, RESIDENT, ENDED),
    LISTED: (LISTED, RESIDENT, LISTED, RESIDENT, LISTED, LISTED, ENDED),
}
"""Who evicts may touch the list: private objects, and external ones if the list has a lock of its own."""

LISTED_LATER = {
    #          evict     return    prepare   restore   leave     fail      unmap
    RESIDENT: (FLAGGED, RESIDENT, RESIDENT, RESIDENT, RESIDENT, RESIDENT, ENDED),
    FLAGGED: (FLAGGED, RESIDENT, LISTED, RESIDENT, LISTED, LISTED, ENDED),
    LISTED: (LISTED, STALE, LISTED, RESIDENT, LISTED, LISTED, ENDED),
    STALE: (LISTED, STALE, STALE, RESIDENT, RESIDENT, STALE, ENDED),
}
"""External objects whose evictor does not hold the reservation that guards the list."""

WAYS = {
    RESIDENT: (),
    FLAGGED: ("evict",),
    LISTED: ("evict", "prepare"),
    STALE: ("evict", "prepare", "return"),
}

MODES = {
    "own": OWN_LOCKS,
    "resv": RESV_PROTECTED,
    "own-immediate": IMMEDIATE_MODE,
    "resv-immediate": RESV_PROTECTED | IMMEDIATE_MODE,
}

ROWS = [
    pytest.param(flags, external, before, event, after, id=f"{mode}-{kind}-{before.name}-{event}")
    for mode, flags in MODES.items()
    for kind, external in (("local", False), ("external", True))
    for before, row in (LISTED_LATER if external and RESV_PROTECTED in flags else LISTED_AT_ONCE).items()
    for event, after in zip(EVENTS, row, strict=True)
]


def happen(event: str, vm_bo: VmBo, hook: Hook) -> None:
    match event:
        case "evict":
            evict(vm_bo, True)
        case "return":
            evict(vm_bo, False)
        case "prepare":
            prepare(vm_bo.vm)
        case "unmap":
            unmap(vm_bo.vm, vm_bo.obj)
        case _:
            hook.does[vm_bo.obj] = event
            validate(vm_bo.vm)


def state(vm_bo: VmBo) -> State:
    assert vm_bo.on_evicted == (vm_bo in vm_bo.vm.evicted)
    return State((vm_bo.evicted, vm_bo.on_evicted)) if vm_bo.alive else ENDED


@pytest.mark.parametrize(("flags", "external", "before", "event", "after"), ROWS)
def test_a_row_of_the_table(
    flags: GpuVmFlags, external: bool, before: State, event: str, after: State
) -> None:
    hook = Hook()
    vm = space(flags, hook)
    bo = Bo("0") if external else Bo("0", vm.resv)
    vm_bo = bind(vm, 0, bo)
    for step in WAYS[before]:
        happen(step, vm_bo, hook)
    assert state(vm_bo) is before

    happen(event, vm_bo, hook)

    assert state(vm_bo) is after
    validated = event in ("restore", "leave", "fail")
    assert hook.seen == [bo] * (validated and before is not RESIDENT)
    zombies = [vm_bo] if after is ENDED and vm.immediate_mode else []
    assert vm.deferred == zombies
    assert vm.extobjs == [vm_bo] * (external and after is not ENDED)
    vm.check()
    prepare(vm)
    assert state(vm_bo) is (LISTED if after is FLAGGED else after)


# -- the model


class Model:
    """What the kernel's documents say, with lists of names."""

    def __init__(self, resv_protected: bool, immediate: bool, external: set[str]) -> None:
        self.resv_protected, self.immediate, self.external = resv_protected, immediate, external
        self.mapped: list[str] = []
        self.extobjs: list[str] = []
        self.flags: set[str] = set()
        self.evict_list: list[str] = []
        self.zombies: list[str] = []
        self.hooked: list[str] = []

    def bind(self, name: str) -> None:
        self.mapped.append(name)
        if name in self.external:
            self.extobjs.append(name)

    def unbind(self, name: str) -> None:
        for names in (self.mapped, self.extobjs, self.evict_list):
            if name in names:
                names.remove(name)
        self.flags.discard(name)
        if self.immediate:
            self.zombies.append(name)

    def evict(self, name: str, evicted: bool) -> None:
        (self.flags.add if evicted else self.flags.discard)(name)
        if self.resv_protected and name in self.external:
            return
        if evicted and name not in self.evict_list:
            self.evict_list.append(name)
        elif not evicted and name in self.evict_list:
            self.evict_list.remove(name)

    def prepare(self) -> None:
        if self.resv_protected:
            self.evict_list += [
                name for name in self.extobjs if name in self.flags and name not in self.evict_list
            ]

    def validate(self, does: dict[str, str]) -> None:
        self.prepare()
        self.hooked = []
        for name in list(self.evict_list):
            self.hooked.append(name)
            what = does.get(name, "restore")
            if what == "fail":
                return
            if what == "restore":
                self.evict(name, False)
            if name not in self.flags and name in self.evict_list:
                self.evict_list.remove(name)


NAMES = [str(number) for number in range(4)]
names = st.sampled_from(NAMES)


class Evictions(RuleBasedStateMachine):
    """Random events happen to a space and to the model."""

    @initialize(flags=st.sampled_from(list(MODES.values())), external=st.sets(names))
    def begin(self, flags: GpuVmFlags, external: set[str]) -> None:
        self.hook = Hook()
        self.vm = space(flags, self.hook)
        self.bos = {name: Bo(name, None if name in external else self.vm.resv) for name in NAMES}
        self.vm_bos: dict[str, VmBo] = {}
        self.model = Model(self.vm.flags & RESV_PROTECTED != 0, self.vm.immediate_mode, external)

    @rule(name=names)
    def bind_or_unbind(self, name: str) -> None:
        bo = self.bos[name]
        if not (name in self.vm_bos and self.vm.immediate_mode):
            self.model.prepare()  # all is locked for it
        if name in self.vm_bos:
            unmap(self.vm, bo)
            del self.vm_bos[name]
            self.model.unbind(name)
        else:
            self.vm_bos[name] = bind(self.vm, bo_addr(bo), bo)
            self.model.bind(name)

    @precondition(lambda self: self.vm_bos)
    @rule(data=st.data(), evicted=st.booleans())
    def evict_or_return(self, data: st.DataObject, evicted: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.vm_bos)))
        evict(self.vm_bos[name], evicted)
        self.model.evict(name, evicted)

    @rule()
    def prepare(self) -> None:
        prepare(self.vm)
        self.model.prepare()

    @rule(does=st.dictionaries(names, st.sampled_from(["restore", "leave", "fail"])))
    def validate(self, does: dict[str, str]) -> None:
        self.hook.seen = []
        self.hook.does = {self.bos[name]: what for name, what in does.items()}
        validate(self.vm)
        self.model.validate(does)
        assert [bo.name for bo in self.hook.seen] == self.model.hooked

    @rule()
    def clean_up(self) -> None:
        assert self.vm.bo_deferred_cleanup() == len(self.model.zombies)
        self.model.zombies = []

    @invariant()
    def the_same(self) -> None:
        def shown(vm_bos: list[VmBo]) -> list[str]:
            return [vm_bo.obj.name for vm_bo in vm_bos]

        vm, model = self.vm, self.model
        assert shown(vm.extobjs) == model.extobjs
        assert shown(vm.evicted) == model.evict_list
        assert shown(vm.deferred) == model.zombies
        assert sorted(shown(vm.vm_bos())) == sorted(model.mapped)
        assert {name for name, vm_bo in self.vm_bos.items() if vm_bo.evicted} == model.flags
        vm.check()

    def teardown(self) -> None:
        if not hasattr(self, "vm"):
            return
        self.vm.sm_unmap(0, SIZE).apply()
        self.vm.bo_deferred_cleanup()
        assert self.vm.put()


TestEvictions = Evictions.TestCase
