"""Replay into real memory: objects have bytes and a place, address spaces have page tables.

All clients share one device, as they do on a machine. What was refused when it was recorded is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Self
from weakref import WeakKeyDictionary

from gpuvm.errors import GpuvmError
from gpuvm.mem.aperture import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.policy import EvictionPolicy
from gpuvm.mmu.formats import Format
from gpuvm.mmu.page_table import PageTable
from gpuvm.nouveau.bind import BindOp, OpCode
from gpuvm.nouveau.vm import Uvmm
from gpuvm.trace import recorded
from gpuvm.trace.errors import ReplayError
from gpuvm.trace.replay import SPACE_RANGE, describe_op

ROOMY = 1 << 36
"""Bytes of a memory in which everything is to find room; it takes only what is written."""

_PAGE = 0x1000


@dataclass(slots=True)
class MemoryClient:
    """One open of the device, its space and its objects.

    Attributes:
        number: as recorded.
        vm, page_table: None until the client's vm_init.
        objects: by handle, those that are open.
        requests: plain maps and all unmaps that were made.
        most_tables, most_bytes: page tables, after any of its calls.
    """

    number: int
    vm: Uvmm | None = None
    page_table: PageTable | None = None
    objects: dict[int, GemObject] = field(default_factory=dict)
    requests: int = 0
    most_tables: int = 0
    most_bytes: int = 0


class MemoryReplay:
    """Clients, their objects and page tables as they are after the last record fed. Close it.

    An object is named after the handle and the line that made it, so that no two are called the same.

    Args:
        name: of the trace, for messages.
        records: all that may be fed. They tell how long imported objects are, of which a trace says nothing
            else: as long as what is mapped of them.
        format: of the page tables.
        vram, gart: bytes.
        policy: who makes room for others.
        honour_keep: do not clear entries that a bind writes again as they are.
        any_kind: make pages plain whose kind the format does not have, where it would be an error.
        client: replay this one alone.

    Attributes:
        device: whose memory it is.
        kinds_left_out: with ``any_kind``.
        clients: by number, in the order of their first record.
        line: the last line fed.
    """

    def __init__(
        self,
        name: str,
        records: Iterable[recorded.Record],
        format: Format,
        *,
        vram: int = ROOMY,
        gart: int = ROOMY,
        policy: EvictionPolicy | None = None,
        honour_keep: bool = True,
        any_kind: bool = False,
        client: int | None = None,
    ) -> None:
        self._name = name
        self._format = format
        self._honour_keep = honour_keep
        self._any_kind = any_kind
        self._only = client
        self._handles: WeakKeyDictionary[GemObject, int] = WeakKeyDictionary()
        self._imported = import_sizes(records)
        self.device = Device(vram=vram, gart=gart, policy=policy, name=name)
        self.clients: dict[int, MemoryClient] = {}
        self.kinds_left_out: set[int] = set()
        self.line = 0

    def run(self, records: Iterable[recorded.Record]) -> Self:
        """Feed every record. Raises ReplayError as `feed` does."""
        for record in records:
            self.feed(record)
        return self

    def feed(self, record: recorded.Record) -> None:
        """Make one recorded call.

        Raises:
            ReplayError: it was accepted when recorded, and is refused here; ``__cause__`` says by whom.
        """
        self.line = record.line
        if record.ret != 0 or self._only not in (None, record.client):
            return
        client = self.clients.setdefault(record.client, MemoryClient(record.client))
        match record:
            case recorded.VmInit():
                self._init(client, record)
            case recorded.GemNew():
                self._create(client, record, record.size, record.domain)
            case recorded.GemImport() if record.handle not in client.objects:
                self._create(client, record, self._imported[record.line])
            case recorded.GemClose():
                client.objects.pop(record.handle, None)
            case recorded.VmBind():
                self._bind(client, record)
            case recorded.Submission():
                self._submit(client, record)
            case recorded.GemImport() | recorded.Other():
                pass

    # -- calls

    def _init(self, client: MemoryClient, record: recorded.VmInit) -> None:
        if client.vm is not None:
            self._refuse(record.line, f"client {client.number} already has a space; a second vm_init")
        node = (record.kernel_addr, record.kernel_size) if record.kernel_size else None
        name = f"client {client.number}"
        try:
            client.page_table = PageTable(self._format, self.device.instance_memory, name)
            client.vm = Uvmm(
                name,
                device=self.device,
                backend=client.page_table,
                range=SPACE_RANGE,
                kernel_node=node,
                honour_keep=self._honour_keep,
            )
        except GpuvmError as error:
            self._refuse(record.line, f"vm_init of client {client.number}: {error}", error)
        self._note_tables(client)

    def _create(
        self,
        client: MemoryClient,
        record: recorded.GemNew | recorded.GemImport,
        size: int,
        domain: int = recorded.DOMAIN_ANY,
    ) -> None:
        private = client.vm is not None and bool(domain & recorded.DOMAIN_NO_SHARE)
        try:
            obj = self.device.create(
                size,
                Domain(domain & recorded.DOMAIN_ANY or recorded.DOMAIN_ANY),
                resv=client.vm.resv if client.vm is not None and private else None,
                no_share=private,
                name=object_name(record.handle, record.line),
            )
        except GpuvmError as error:
            self._refuse(record.line, f"handle {record.handle} of {size:#x} bytes: {error}", error)
        client.objects[record.handle] = obj
        self._handles[obj] = record.handle

    def handle_of(self, obj: GemObject) -> int:
        """The handle that user space knew the object by, or knew."""
        return self._handles[obj]

    def _bind(self, client: MemoryClient, record: recorded.VmBind) -> None:
        if client.vm is None:
            self._refuse(record.line, f"client {client.number} binds before its vm_init")
        ops = record.ops
        try:
            client.vm.bind([self._bind_op(op, client) for op in ops])
        except GpuvmError as error:
            what = "this vm_bind was accepted when recorded"
            if error.request is not None:
                what = f"op {error.request} of {what}, but {describe_op(ops[error.request])}"
            else:
                what = f"{what}, but"
            self._refuse(record.line, f"{what} is refused: {error}", error, error.request)
        client.requests += sum(not (op.sparse and op.op == recorded.OP_MAP) for op in ops)
        self._note_tables(client)

    def _bind_op(self, op: recorded.BindOp, client: MemoryClient) -> BindOp:
        if op.op == recorded.OP_UNMAP:
            return BindOp(OpCode.UNMAP, op.addr, op.range, sparse=op.sparse)
        if op.sparse:
            return BindOp(OpCode.MAP, op.addr, op.range, sparse=True)
        obj = client.objects.get(op.handle)
        return BindOp(OpCode.MAP, op.addr, op.range, obj, op.bo_offset, self._kind(op.flags & 0xFF))

    def _kind(self, kind: int) -> int:
        if not self._any_kind or self._format.kinds.has(kind):
            return kind
        self.kinds_left_out.add(kind)
        return 0

    def _submit(self, client: MemoryClient, record: recorded.Submission) -> None:
        """What the GPU does is not recorded."""

    def _note_tables(self, client: MemoryClient) -> None:
        tables = client.page_table
        assert tables is not None
        client.most_tables = max(client.most_tables, tables.table_count)
        client.most_bytes = max(client.most_bytes, tables.table_bytes)

    def _refuse(
        self, line: int, message: str, cause: GpuvmError | None = None, op: int | None = None
    ) -> NoReturn:
        raise ReplayError(self._name, message, line=line, op=op) from cause

    # -- the whole

    def check(self) -> None:
        """Verify the device, every space and its page tables. Raises CheckFailed."""
        self.device.check()
        for client in self.clients.values():
            if client.vm is not None and client.page_table is not None:
                client.vm.check()
                client.page_table.check()

    def clear(self) -> None:
        """Unmap everything and drop all handles. Objects that somebody else looks at live on."""
        for client in self.clients.values():
            if client.vm is not None:
                client.vm.close()
            if client.page_table is not None:
                client.page_table.close()
            client.vm = client.page_table = None
            client.objects.clear()

    def close(self) -> None:
        """As `clear`; then nothing may be left. Raises Busy if there is."""
        self.clear()
        self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # its traceback may hold objects, which a device that closes must not have
            self.close()


def object_name(handle: int, line: int) -> str:
    """What the object is called that ``handle`` named from ``line`` on."""
    return f"handle {handle}, line {line}"


def import_sizes(records: Iterable[recorded.Record]) -> dict[int, int]:
    """How long imported objects must be, in bytes, for what is mapped of them; by the importing line."""
    sizes: dict[int, int] = {}
    open_: dict[tuple[int, int], int] = {}
    for record in records:
        if record.ret != 0:
            continue
        match record:
            case recorded.GemImport() if (record.client, record.handle) not in open_:
                open_[record.client, record.handle] = record.line
                sizes[record.line] = _PAGE
            case recorded.GemClose():
                open_.pop((record.client, record.handle), None)
            case recorded.VmBind():
                for op in record.ops:
                    line = open_.get((record.client, op.handle))
                    if line is not None and op.op == recorded.OP_MAP and not op.sparse:
                        sizes[line] = max(sizes[line], op.bo_offset + op.range)
            case _:
                pass
    return sizes
