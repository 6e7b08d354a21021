"""One address space and its page tables as they are after a line of a trace or of a request file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gpuvm.errors import GpuvmError
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mmu.formats import Format
from gpuvm.mmu.page_table import PageTable
from gpuvm.nouveau.bind import BindOp, OpCode
from gpuvm.nouveau.vm import Uvmm
from gpuvm.trace.errors import TraceError
from gpuvm.trace.memory_replay import ROOMY, MemoryReplay
from gpuvm.trace.recorded import Record
from gpuvm.trace.requests import read_requests
from gpuvm.trace.session import Session
from gpuvm.trace.snapshot import object_number
from gpuvm.trace.stream import Stream
from gpuvm.va import GpuvaManager


@dataclass(frozen=True)
class MemorySnapshot:
    """A space, its page tables, and where they come from.

    Attributes:
        vm, page_table: nobody else changes them.
        device: whose VRAM the tables lie in.
        name: the file.
        line: the last line that was replayed.
        client: whose space it is, None for a request file.
        clients: every client of the trace that has a space.
        number_of: what the file calls an object: its handle or BO number.
        kinds_left_out: kinds of the binds that the format does not have; their pages are plain.
    """

    vm: Uvmm
    page_table: PageTable
    device: Device
    name: str
    line: int
    client: int | None
    clients: tuple[int, ...]
    number_of: Callable[[GemObject], int]
    kinds_left_out: tuple[int, ...]

    @property
    def title(self) -> str:
        """``FILE:LINE, client N``."""
        client = "" if self.client is None else f", client {self.client}"
        return f"{self.name}:{self.line}{client}"


@contextmanager
def memory_snapshot(
    stream: Stream,
    format: Format,
    *,
    client: int | None = None,
    watch: Callable[[Sequence[Record]], Iterable[Record]] = iter,
) -> Iterator[MemorySnapshot]:
    """Replay all of a stream into real memory, and keep one space for the time of the block.

    Of a trace the binds are made again one by one. The space that a request file describes, whose units are
    bytes here, is bound in one go; its objects get as much memory as is mapped of them.

    Args:
        format: of the page tables.
        client: of a trace; by default the one with the most requests.
        watch: gives a trace's records back one by one; how a progress bar looks in.

    Raises:
        TraceError: a broken file, no such client, no space at all, one that page tables cannot hold.
        ReplayError: what a trace says was accepted is refused.
    """
    name = stream.name
    told, lines = stream.split()
    if told is None:
        if client is not None:
            raise TraceError(name, "a request file has no clients")
        session = Session(name)
        for request in read_requests(name, lines):
            session.answer(request)
        with _of_session(name, session, format) as snapshot:
            yield snapshot
        return
    records = list(told)
    replay = MemoryReplay(name, records, format, client=client, any_kind=True)
    yield _of_trace(name, replay.run(watch(records)), client)
    replay.clear()


def _of_trace(name: str, replay: MemoryReplay, client: int | None) -> MemorySnapshot:
    found = {number: one for number, one in sorted(replay.clients.items()) if one.vm is not None}
    if client is not None and client not in found:
        raise TraceError(name, f"client {client} did no successful vm_init up to here")
    if not found:
        raise TraceError(name, "no client did a successful vm_init up to here")
    number = max(found, key=lambda one: (found[one].requests, -one)) if client is None else client
    vm, page_table = found[number].vm, found[number].page_table
    assert vm is not None
    assert page_table is not None
    return MemorySnapshot(
        vm,
        page_table,
        replay.device,
        name,
        replay.line,
        number,
        tuple(found),
        replay.handle_of,
        tuple(sorted(replay.kinds_left_out)),
    )


@contextmanager
def _of_session(name: str, session: Session, format: Format) -> Iterator[MemorySnapshot]:
    space = session.space("a look at the space")
    device = Device(vram=ROOMY, gart=ROOMY, name=name)
    page_table = PageTable(format, device.instance_memory, space.name)
    numbers: dict[GemObject, int] = {}
    try:
        vm = _bound(name, session.line, space, device, page_table, numbers)
    except GpuvmError as error:
        message = f"{format.name} page tables cannot hold this space: {error}"
        raise TraceError(name, message, line=session.line) from error
    yield MemorySnapshot(vm, page_table, device, name, session.line, None, (), numbers.__getitem__, ())
    vm.close()
    page_table.close()
    numbers.clear()


def _bound(
    name: str,
    line: int,
    space: GpuvaManager,
    device: Device,
    page_table: PageTable,
    numbers: dict[GemObject, int],
) -> Uvmm:
    """The space's mappings and sparse regions, in page tables; ``numbers`` gets the objects' numbers."""
    node = space.kernel_node
    inside = node is not None and node.end <= space.end
    kernel_node = (node.addr, node.range) if node is not None and inside else None
    vm = Uvmm(space.name, device=device, backend=page_table, range=space.end, kernel_node=kernel_node)
    sizes: dict[int, int] = {}
    mappings = [va for va in space.mappings() if not va.kernel]
    for va in mappings:
        number = object_number(va.obj)
        if number == 0:
            message = f"[{va.addr:#x}, {va.end:#x}) is mapped to no object; page tables need one"
            raise TraceError(name, message, line=line)
        sizes[number] = max(sizes.get(number, 0), va.offset + va.range)
    objects = {number: device.create(size, name=f"bo {number}") for number, size in sizes.items()}
    numbers.update((obj, number) for number, obj in objects.items())
    ops = [
        BindOp(OpCode.MAP, region.addr, region.range, sparse=True)
        for region in space.region_list()
        if region.sparse
    ]
    ops += [
        BindOp(OpCode.MAP, va.addr, va.range, objects[object_number(va.obj)], va.offset) for va in mappings
    ]
    vm.bind(ops)
    return vm
