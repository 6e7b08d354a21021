"""The address spaces of a trace: what their managers emit, as rows of ops, mappings and regions."""

from __future__ import annotations

from typing import Final, NamedTuple

from gpuvm.errors import GpuvmError
from gpuvm.trace import recorded
from gpuvm.trace.batches import Batch, Rows
from gpuvm.trace.books import Handles, ObjectBook, Thing
from gpuvm.trace.replay import SPACE_RANGE, describe_op, requests_of
from gpuvm.trace.totals import Totals
from gpuvm.va import GpuvaFlags, GpuvaManager, Regions

_MAP: Final = 0
_REMAP: Final = 1
# How `ops` numbers what gpuvm.BIND_OP has as 0 map, 1 remap, 2 unmap.
_CODES: Final = (0, 2, 1)


class _Mapping(NamedTuple):
    id: int
    range: int
    thing: Thing | None
    pte_kind: int


class SpaceBook:
    """The rows that binds of all clients make. Its mappings and regions are numbered from 1 on."""

    def __init__(self, objects: ObjectBook, totals: Totals) -> None:
        mapping = ("client", "addr", "range", "object", "bo_offset", "pte_kind", "born", "died")
        self.mappings: Final = Batch("mappings", "id", *mapping)
        self.regions: Final = Batch("regions", "id", "client", "addr", "range", "born", "died")
        op = ("asked", "code", "keep", "mapping", "prev", "next")
        self.ops: Final = Rows("ops", "call", "i", *op)
        self.objects: Final = objects
        self.next_mapping = 1
        self.next_region = 1
        self.live = 0
        self.live_bytes = 0
        self.bind_ops = 0
        self.emitted: Final = [0, 0, 0]
        self._most = 0
        self._most_bytes = 0
        self._totals: Final = totals

    def bound(self, call: int, ops: int) -> None:
        """So many were asked for by the call, and made."""
        self.bind_ops += ops
        if self.live > self._most:
            self._most = self.live
            self._totals.most("mappings", self.live, call)
        if self.live_bytes > self._most_bytes:
            self._most_bytes = self.live_bytes
            self._totals.most("mapped_bytes", self.live_bytes, call)

    def tell_totals(self) -> None:
        """What was counted."""
        self._totals.put("bind_ops", self.bind_ops)
        for name, count in zip(("map", "remap", "unmap"), self.emitted, strict=True):
            self._totals.put(name, count)


class Space:
    """One client's address space.

    Args:
        book: where rows go.
        client: its id.
        record: the vm_init that made it.

    Raises:
        GpuvmError: the kernel's part is refused.
    """

    def __init__(self, book: SpaceBook, client: int, record: recorded.VmInit) -> None:
        self._book: Final = book
        self._client: Final = client
        self._manager: Final = GpuvaManager(
            f"client {client}",
            range=SPACE_RANGE,
            kernel_node=(record.kernel_addr, record.kernel_size) if record.kernel_size else None,
            regions=Regions.SPARSE,
        )
        self._mappings: Final[dict[int, _Mapping]] = {}
        self._regions: Final[dict[int, int]] = {}

    def bind(self, call: int, handles: Handles, record: recorded.VmBind) -> str | None:
        """Make an accepted bind, and rows of what it did. Or nothing, and say why the manager refuses it."""
        ops = record.ops
        try:
            emitted = self._manager.bind(requests_of(ops), handles.objects)
        except GpuvmError as error:
            index = error.request or 0
            return f"op {index}, {describe_op(ops[index])}, is refused: {error}"
        for i, op in enumerate(emitted.tolist()):
            self._op(call, i, handles, ops, *op)
        self._book.bound(call, len(ops))
        for asked in ops:
            if asked.sparse:
                self._region(call, asked)
        return None

    def _op(
        self,
        call: int,
        i: int,
        handles: Handles,
        ops: tuple[recorded.BindOp, ...],
        code: int,
        keep: int,
        _pad: int,
        request: int,
        _handle: int,
        flags: int,
        addr: int,
        bo_offset: int,
        range: int,
        prev_range: int,
        next_range: int,
    ) -> None:
        book = self._book
        prev = behind = None
        if code == _MAP:
            thing = handles.objects.get(ops[request].handle)
            mapping = self._born(call, addr, range, thing, bo_offset, flags // GpuvaFlags.USERBITS & 0xFF)
        else:
            mapping, _, thing, kind = self._mappings.pop(addr)
            book.mappings.change(mapping, "died", call)
            book.live -= 1
            book.live_bytes -= range
            if code == _REMAP:
                if prev_range:
                    prev = self._born(call, addr, prev_range, thing, bo_offset, kind)
                if next_range:
                    hole = range - next_range
                    behind = self._born(call, addr + hole, next_range, thing, bo_offset + hole, kind)
            if thing is not None:
                book.objects.unused(call, thing)
        book.emitted[code] += 1
        book.ops.add((call, i, request, _CODES[code], keep, mapping, prev, behind))

    def _born(
        self, call: int, addr: int, range: int, thing: Thing | None, bo_offset: int, pte_kind: int
    ) -> int:
        book = self._book
        id = book.next_mapping
        book.next_mapping += 1
        self._mappings[addr] = _Mapping(id, range, thing, pte_kind)
        book.live += 1
        book.live_bytes += range
        object = None
        if thing is not None:
            thing.users += 1
            object = thing.id
        book.mappings.add(id, [id, self._client, addr, range, object, bo_offset, pte_kind, call, None])
        return id

    def _region(self, call: int, asked: recorded.BindOp) -> None:
        book = self._book
        if asked.op == recorded.OP_MAP:
            id = book.next_region
            book.next_region += 1
            self._regions[asked.addr] = id
            book.regions.add(id, [id, self._client, asked.addr, asked.range, call, None])
        else:
            book.regions.change(self._regions.pop(asked.addr), "died", call)

    def close(self, call: int) -> None:
        """All that is mapped goes with the client."""
        book = self._book
        for mapping, range, thing, _ in self._mappings.values():
            book.mappings.change(mapping, "died", call)
            book.live -= 1
            book.live_bytes -= range
            if thing is not None:
                book.objects.unused(call, thing)
        for region in self._regions.values():
            book.regions.change(region, "died", call)
        self._mappings.clear()
        self._regions.clear()
