"""Preparing one operation of a bind: all of it that can fail."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from gpuvm._core import forbid_allocation
from gpuvm.errors import AlreadyMapped, Busy, InvalidArgument, NoSpace, NotFound, PermissionDenied
from gpuvm.mmu.pages import split_into_pages
from gpuvm.nouveau.bind import Bind, BindOp, OpCode
from gpuvm.nouveau.page_change import PageChange, page_change
from gpuvm.nouveau.uvma import KINDS, Uvma, flags_of
from gpuvm.va import Map, Plan, Region, Remap, Unmap, VmBo

if TYPE_CHECKING:
    from gpuvm.nouveau.vm import Uvmm


OP_CODES: Final = tuple(OpCode)


def check_op(vm: Uvmm, op: BindOp) -> None:
    """Refuse an operation that is wrong in itself; see ``Uvmm.prepare``."""
    page = 1 << vm.backend.page_shifts[-1]
    try:
        known = op.op in OP_CODES
    except AttributeError:
        raise InvalidArgument(f"BindOp: {op!r} is none; pass BindOp(OpCode.MAP, ...)", op) from None
    if not known:
        raise InvalidArgument(f"BindOp: op {op.op!r}; pass an OpCode", op.op, OP_CODES)
    if (op.addr | op.range) % page:
        raise InvalidArgument(
            f"BindOp: [{op.addr:#x}, {op.end:#x}) is no multiple of {page:#x}", (op.addr, op.range), page
        )
    if op.range <= 0 or not vm.range_valid(op.addr, op.range):
        raise InvalidArgument(
            f"BindOp: [{op.addr:#x}, {op.end:#x}) is empty, leaves [{vm.start:#x}, {vm.end:#x}), or touches "
            f"the kernel's node {vm.kernel_node!r}",
            value=(op.addr, op.range),
            bound=(vm.start, vm.range),
        )
    if op.op == OpCode.MAP and not op.sparse:
        _check_object(vm, op, page)


def _check_object(vm: Uvmm, op: BindOp, page: int) -> None:
    obj = op.obj
    if obj is None or obj.device is not vm.device:
        raise InvalidArgument(f"BindOp: a map of {obj!r}; pass an object of {vm.device!r}", obj, vm.device)
    if obj.no_share and vm.is_extobj(obj):
        raise PermissionDenied(f"BindOp: {obj!r} is private to another address space", obj)
    if op.offset % page or not 0 <= op.offset < op.offset + op.range <= obj.size:
        raise InvalidArgument(
            f"BindOp: [{op.offset:#x}, {op.offset + op.range:#x}) of {obj!r} is no multiple of {page:#x} or "
            f"leaves its {obj.size:#x} bytes",
            value=(op.offset, op.range),
            bound=obj.size,
        )
    if not 0 <= op.kind < KINDS:
        raise InvalidArgument(f"BindOp: kind {op.kind:#x}; pass 0 to {KINDS - 1:#x}", op.kind, KINDS - 1)


def prepare_op(bind: Bind, op: BindOp) -> None:
    """Change the address space, take references, note what the job has to do and how all is undone.

    After an error the caller undoes what was noted. Locking: as ``Uvmm.prepare``.
    """
    if op.sparse:
        (_make_region if op.op == OpCode.MAP else _drop_region)(bind, op)
    elif op.op == OpCode.MAP:
        _map(bind, op)
    else:
        _unmap(bind, op)


def _map(bind: Bind, op: BindOp) -> None:
    vm, obj = bind.vm, op.obj
    assert obj is not None
    _require_lasting(bind, op)
    if not obj.extents:
        raise InvalidArgument(
            f"prepare: {obj!r} has no memory within the GPU's reach; validate it first", value=obj
        )
    allowed = vm.backend.pages
    pages = split_into_pages(allowed, op.addr, op.range, obj.extents, op.offset)
    vm.bo_extobj_add(bind.hold(vm.bo_obtain(obj)))
    plan = vm.sm_map(op.addr, op.range, obj, op.offset, flags_of(op.kind))
    _apply(bind, plan, page_change(plan, allowed, pages, kind=op.kind, honour_keep=vm.honour_keep))


def _unmap(bind: Bind, op: BindOp) -> None:
    vm = bind.vm
    plan = vm.sm_unmap(op.addr, op.range)
    _apply(bind, plan, page_change(plan, vm.backend.pages, honour_keep=vm.honour_keep))


def _make_region(bind: Bind, op: BindOp) -> None:
    """A region in the address space, whose unmapped parts are sparse from now on."""
    vm = bind.vm
    try:
        region = vm.region_insert(op.addr, op.range, sparse=True)
    except AlreadyMapped as error:
        raise NoSpace(
            f"prepare: no room for a sparse region at [{op.addr:#x}, {op.end:#x}): {error.strerror}; "
            "unmap or drop what is there first",
            value=(op.addr, op.range),
            bound=error.bound,
        ) from error
    bind.to_undo(partial(vm.region_remove, region))
    vm.backend.sparse(op.addr, op.range, True)
    bind.to_undo(partial(vm.backend.sparse, op.addr, op.range, False))
    vm.sparse_regions[op.addr, op.range] = None
    bind.to_undo(partial(vm.sparse_regions.pop, (op.addr, op.range)))


def _drop_region(bind: Bind, op: BindOp) -> None:
    """Unmap what is in it now; the region itself stays, being dropped, until the bind is cleaned up."""
    regions, key = bind.vm.sparse_regions, (op.addr, op.range)
    if key not in regions or regions[key] is not None:
        state = "is being dropped already" if key in regions else "is no sparse region"
        raise NotFound(
            f"prepare: [{op.addr:#x}, {op.end:#x}) {state}; pass addr and range of one as it was mapped",
            value=key,
        )
    regions[key] = bind
    bind.to_undo(partial(regions.__setitem__, key, None))
    _unmap(bind, op)
    bind.drops(Region(op.addr, op.range, sparse=True))


def _require_lasting(bind: Bind, op: BindOp) -> None:
    """Refuse to map into a region that is being dropped."""
    for region, dropper in bind.vm.dropping(op.addr, op.range):
        place = f"[{region.addr:#x}, {region.end:#x})"
        where = f"prepare: [{op.addr:#x}, {op.end:#x}) touches the sparse region {place}"
        if dropper is bind:
            raise InvalidArgument(
                f"{where}, which an earlier operation drops; map there in a later bind", region
            )
        raise Busy(f"{where}, which {dropper!r} drops; wait for its cleanup", region, dropper)


def _apply(bind: Bind, plan: Plan, change: PageChange) -> None:
    """Take the references that are missing, then change the address space."""
    vm = bind.vm
    for write in change.writes:
        if write.target is not None:
            vm.require_kind(write.shift, write.target, write.kind)
    for slots in change.get:
        vm.backend.get(*slots)
        bind.to_undo(partial(vm.backend.put, *slots))
    gone = bind.keep(change.gone)
    plan.step(_Steps(vm, iter(change.came)))
    bind.to_undo(partial(_restore, vm, change.came, gone))
    bind.in_job(change)


def _restore(vm: Uvmm, came: list[Uvma], gone: list[tuple[Uvma, VmBo]]) -> None:
    """Put the address space back as it was, with the room that was promised for it."""
    forbid_allocation(True)
    try:
        for va in came:
            va.unlink()
            vm.remove(va)
        for va, vm_bo in gone:
            vm.insert(va)
            va.link(vm_bo)
    finally:
        forbid_allocation(False)


class _Steps:
    """Applies a plan's operations with mappings made before, in order."""

    def __init__(self, vm: Uvmm, mappings: Iterator[Uvma]) -> None:
        self._vm = vm
        self._mappings = mappings

    def sm_step_map(self, op: Map) -> None:
        self._vm.map(op, next(self._mappings))

    def sm_step_remap(self, op: Remap) -> None:
        prev = None if op.prev is None else next(self._mappings)
        self._vm.remap(op, prev, None if op.next is None else next(self._mappings))

    def sm_step_unmap(self, op: Unmap) -> None:
        self._vm.unmap(op)
