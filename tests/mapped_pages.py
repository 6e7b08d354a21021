"""What clients have mapped, page by page: dictionaries, against which the tables of a trace are compared.

And calls that are made by a driver, with its own answers, as they are recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from hypothesis import strategies as st

from gpuvm.errors import GpuvmError
from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.trace import recorded
from gpuvm.trace.recorded import BindOp, Record
from gpuvm.trace.trace import Trace
from tracefile import KERNEL_ADDR, PAGE

Page = tuple[int, int]
"""The call that made the object, and the offset in it."""
Pages = dict[tuple[int, int], Page]
"""By client and address."""


class PageModel:
    """Makes calls that were accepted. Objects are told apart by the call that made them."""

    def __init__(self) -> None:
        self.pages: Pages = {}
        self.handles: dict[tuple[int, int], int] = {}
        self.files: dict[int, int] = {}

    def make(self, record: Record) -> None:
        if record.ret:
            return
        client = record.client
        match record:
            case recorded.GemNew():
                self.handles[client, record.handle] = record.line
            case recorded.GemClose():
                self.handles.pop((client, record.handle), None)
            case recorded.GemExport() if record.fd is not None:
                self.files[record.fd] = self.handles[client, record.handle]
            case recorded.GemImport():
                shared = record.line if record.fd is None else self.files.get(record.fd, record.line)
                self.handles.setdefault((client, record.handle), shared)
            case recorded.VmBind():
                for op in record.ops:
                    self._op(client, op)
            case recorded.Other(call="close"):
                self.pages = {key: page for key, page in self.pages.items() if key[0] != client}
                self.handles = {key: made for key, made in self.handles.items() if key[0] != client}
            case _:
                pass

    def _op(self, client: int, op: BindOp) -> None:
        for at in range(0, op.range, PAGE):
            if op.op == recorded.OP_UNMAP:
                self.pages.pop((client, op.addr + at), None)
            elif not op.sparse:
                made = self.handles[client, op.handle]
                self.pages[client, op.addr + at] = made, op.bo_offset + at


def pages_after(trace: Trace, call: int) -> Pages:
    """The same, of the mappings that were there after a call."""
    rows = trace.db.execute(
        "SELECT client, addr, range, object, bo_offset FROM mappings "
        "WHERE born <= ?1 AND (died IS NULL OR died > ?1)",
        (call,),
    )
    return {
        (client, addr + at): (object, offset + at)
        for client, addr, size, object, offset in rows
        for at in range(0, size, PAGE)
    }


def assert_pages(trace: Trace, records: Iterable[Record]) -> None:
    """Compare after every call that binds or closes."""
    model = PageModel()
    for record in records:
        model.make(record)
        if isinstance(record, recorded.VmBind) or record.call == "close":
            assert pages_after(trace, record.line) == model.pages, record


# -- calls that a driver answers

CLIENTS = 2
OBJECT = 6 * PAGE
SPARSE = 0x100


@dataclass(frozen=True)
class Action:
    """What a client does: ``which`` of its handles, or of the files, and the ops of a bind."""

    client: int
    verb: str
    which: int
    ops: tuple[tuple[str, int, int, int], ...] = ()
    """Name, page, pages, page of the object."""


_OPS = st.tuples(
    st.sampled_from(["map", "map", "unmap", "sparse", "drop"]),
    st.integers(0, 15),
    st.integers(1, 6),
    st.integers(0, 3),
)
_WHICH = st.integers(0, 5)
_CLIENT = st.integers(0, CLIENTS - 1)
ACTIONS: st.SearchStrategy[Action] = st.builds(
    Action, _CLIENT, st.just("bind"), _WHICH, st.lists(_OPS, min_size=1, max_size=3).map(tuple)
) | st.builds(Action, _CLIENT, st.sampled_from(["new", "new", "close", "export", "import", "leave"]), _WHICH)


@dataclass
class Played:
    """Clients of a device, and what was recorded of their calls. Close it."""

    device: Device = field(default_factory=lambda: Device(vram=16 << 20, gart=16 << 20))
    clients: list[Client] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    handles: list[list[int]] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    made: dict[int, int] = field(default_factory=dict)
    """By the number of an object in the device's file: the call that made it."""

    def __post_init__(self) -> None:
        for number in range(1, CLIENTS + 1):
            self.numbers.append(number)
            self.handles.append([])
            self.clients.append(self._opened(number))

    def _opened(self, number: int) -> Client:
        client = self.device.open()
        client.vm_init(KERNEL_ADDR, KERNEL_ADDR)
        self.records.append(recorded.VmInit(*self._head(number), KERNEL_ADDR, KERNEL_ADDR))
        return client

    def _head(self, number: int, ret: int = 0) -> tuple[int, int, int, int]:
        return len(self.records) + 1, 0, number, ret

    def do(self, action: Action) -> None:
        at, client, number = action.client, self.clients[action.client], self.numbers[action.client]
        handles, head = self.handles[at], self._head(self.numbers[at])
        handle = handles[action.which % len(handles)] if handles else 1
        match action.verb:
            case "new":
                handle = client.gem_new(OBJECT, recorded.DOMAIN_GART).handle
                handles.append(handle)
                self.records.append(recorded.GemNew(*head, handle, OBJECT, recorded.DOMAIN_GART, 0, 0, 0))
                self.made[id(client.handles.lookup(handle))] = head[0]
            case "close" if handles:
                client.gem_close(handle)
                handles.remove(handle)
                self.records.append(recorded.GemClose(*head, handle))
            case "export" if handles:
                self.files.append(client.prime_handle_to_fd(handle))
                told = recorded.GemExport(*head, "prime_handle_to_fd", handle, 0, len(self.files))
                self.records.append(told)
            case "import" if self.files:
                file = action.which % len(self.files)
                handle = client.prime_fd_to_handle(self.files[file])
                if handle not in handles:
                    handles.append(handle)
                self.records.append(recorded.GemImport(*head, "prime_fd_to_handle", handle, file + 1))
            case "leave":
                client.close()
                self.records.append(recorded.Other(*head, "close"))
                self.numbers[at] = max(self.numbers) + 1
                self.handles[at] = []
                self.clients[at] = self._opened(self.numbers[at])
            case "bind":
                self._bind(client, number, handle, action)
            case _:
                pass

    def _bind(self, client: Client, number: int, handle: int, action: Action) -> None:
        ops = []
        for name, page, pages, offset in action.ops:
            code = recorded.OP_MAP if name in ("map", "sparse") else recorded.OP_UNMAP
            flags = SPARSE if name in ("sparse", "drop") else 0
            whose = handle if name == "map" else 0
            ops.append(BindOp(code, flags, whose, 0, page * PAGE, offset * PAGE, pages * PAGE))
        ret = 0
        try:
            client.vm_bind([VmBindOp(op.op, op.flags, op.handle, *op[4:]) for op in ops])
        except GpuvmError as error:
            ret = -(error.errno or 0)
        self.records.append(recorded.VmBind(*self._head(number, ret), tuple(ops), 0, (), ()))

    def pages(self) -> Pages:
        """What the driver has mapped."""
        found: Pages = {}
        for number, client in zip(self.numbers, self.clients, strict=True):
            vm = client.vm
            assert vm is not None
            with vm.lock:
                for va in vm.mappings():
                    if not va.kernel:
                        for at in range(0, va.range, PAGE):
                            found[number, va.addr + at] = self.made[id(va.obj)], va.offset + at
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.files:
            os.close(fd)
        for client in self.clients:
            client.close()
        self.device.close()
