"""A watcher is told what programs asked for: accesses, jobs in their order, moves, faults, table work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gpuvm.mem import Domain
from gpuvm.mmu.table_work import TableWork
from gpuvm.nouveau import SYNC_SYNCOBJ, VM_BIND_OP_MAP, VM_BIND_OP_UNMAP, Client, Device, Sync, VmBindOp
from gpuvm.nouveau.engine.push_buffer import COPY, INLINE, PushBuffer, halves
from gpuvm.nouveau.fault import Cause, FaultReport
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.nouveau.watcher import ATOMIC, FETCH, READ, WRITE, Watcher
from gpuvm.sync.fence import Fence

KERNEL = 1 << 46
PUSHES = 1 << 32
DATA = 1 << 33
TILE = 0x10000

Access = tuple[str, int, int, int]
"""Engine, what, address, range."""


class Notes(Watcher):
    """Notes all."""

    def __init__(self) -> None:
        self.opens: list[tuple[str, int]] = []
        self.binds: list[int] = []
        self.work: dict[int, TableWork] = {}
        self.jobs: dict[Fence, list[str]] = {}
        self.channels: list[int] = []
        self.accesses: list[Access] = []
        self.times: list[tuple[int, int]] = []
        self.moves: list[tuple[int, int, str | None, str | None, bool]] = []
        self.faults: list[FaultReport] = []
        self.look: Callable[[], object] | None = None
        self.seen: list[tuple[str, object]] = []
        """What was to be seen when something was told."""

    def _look(self, name: str) -> None:
        if self.look is not None:
            self.seen.append((name, self.look()))

    def opened(self, client: Client) -> None:
        self.opens.append(("opened", client.id))

    def closed(self, client: Client) -> None:
        self.opens.append(("closed", client.id))

    def bound(self, client: Client, number: int) -> None:
        assert client.vm is not None
        assert number == client.history.newest
        self.binds.append(number)
        self._look("bound")

    def tables_changed(self, client: Client, number: int, work: TableWork) -> None:
        assert number not in self.work
        self.work[number] = work

    def queued(self, client: Client, channel: int, fence: Fence) -> None:
        self.channels.append(channel)
        self.jobs[fence] = ["queued"]
        self._look("queued")

    def started(self, fence: Fence) -> None:
        self.jobs[fence].append("started")

    def done(self, fence: Fence) -> None:
        assert fence.signalled
        self.jobs[fence].append("done")

    def accessed(
        self,
        client: Client,
        channel: int,
        engine: str,
        access: int,
        addr: int,
        range: int,
        began: int,
        ended: int,
    ) -> None:
        self.accesses.append((engine, access, addr, range))
        self.times.append((began, ended))

    def moved(
        self,
        offset: int,
        size: int,
        source: str | None,
        target: str | None,
        evicted: bool,
        times: tuple[int, int],
    ) -> None:
        assert times[0] <= times[1]
        self.moves.append((offset, size, source, target, evicted))

    def faulted(self, client: Client, report: FaultReport) -> None:
        self.faults.append(report)


class World:
    def __init__(self, vram: int = 16 << 20) -> None:
        self.notes = Notes()
        self.device = Device(vram=vram, gart=16 << 20, watcher=self.notes)
        self.client = self.device.open()
        self.client.vm_init(KERNEL, KERNEL)
        self.pushes = self.map(PUSHES, TILE, Domain.GART)
        self.channel = self.client.channel_alloc().id

    def map(self, addr: int, size: int, domain: Domain = Domain.VRAM) -> int:
        handle = self.client.gem_new(size, domain).handle
        self.bind(VmBindOp(VM_BIND_OP_MAP, 0, handle, addr, 0, size))
        return handle

    def bind(self, *ops: VmBindOp) -> None:
        self.client.vm_bind(ops)

    def execute(self, push: PushBuffer) -> list[Access]:
        """Have it executed, and wait; what was accessed, but for the push itself."""
        data = bytes(push)
        self.client.handles.lookup(self.pushes).view[: len(data)] = memoryview(data)
        before = len(self.notes.accesses)
        self.client.exec(self.channel, [Push(PUSHES, len(data))])
        self.client.settle()
        fetched, *others = self.notes.accesses[before:]
        assert fetched == ("host", FETCH, PUSHES, len(data))
        assert all(began <= ended for began, ended in self.notes.times)
        return others


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.device.close()
    assert all(
        one in (["queued", "done"], ["queued", "started", "done"]) for one in world.notes.jobs.values()
    )


def test_copies_and_fills(world: World) -> None:
    world.map(DATA, 8 * TILE)
    copy = PushBuffer().copy(DATA + 4 * TILE, DATA, 3 * TILE)
    assert world.execute(copy) == [
        ("copy", READ, DATA, 3 * TILE),
        ("copy", WRITE, DATA + 4 * TILE, 3 * TILE),
    ]
    assert world.execute(PushBuffer().fill(DATA + 64, 4096, 7)) == [("copy", WRITE, DATA + 64, 4096)]


def test_copies_between_surfaces(world: World) -> None:
    """Lines by pitch: from the first byte to the last; block-linear: the blocks that it touches."""
    world.map(DATA, 8 * TILE)
    lines = (
        PushBuffer()
        .inc(COPY, 0x400, *halves(DATA), *halves(DATA + 4 * TILE), 512, 256, 100, 10)
        .immediate(COPY, 0x300, 2 | 4 | 1 << 7 | 1 << 8 | 1 << 9)
    )
    assert world.execute(lines) == [
        ("copy", READ, DATA, 9 * 512 + 100),
        ("copy", WRITE, DATA + 4 * TILE, 9 * 256 + 100),
    ]
    blocks = (
        PushBuffer()
        .inc(COPY, 0x400, *halves(DATA), *halves(DATA + 4 * TILE), 512, 0, 64, 8)
        .inc(COPY, 0x70C, 1 << 12, 256, 64, 1, 0)
        .inc(COPY, 0x74C, 64, 8)
        .immediate(COPY, 0x300, 2 | 4 | 1 << 7 | 1 << 9)
    )
    second_row, second_column = 4 * 512, 512
    assert world.execute(blocks) == [
        ("copy", READ, DATA, 7 * 512 + 64),
        ("copy", WRITE, DATA + 4 * TILE + second_row + second_column, 512),
    ]


def test_inline_data_and_semaphores(world: World) -> None:
    world.map(DATA, TILE)
    inline = (
        PushBuffer()
        .inc(INLINE, 0x180, 8, 1, *halves(DATA + 256), 8)
        .inc(INLINE, 0x1B0, 1)
        .non_inc(INLINE, 0x1B4, 1, 2)
    )
    assert world.execute(inline) == [("inline", WRITE, DATA + 256, 8)]
    semaphores = PushBuffer().release(DATA, 5).acquire(DATA, 5).timestamp(DATA + 16)
    assert world.execute(semaphores) == [
        ("host", WRITE, DATA, 4),
        ("host", READ, DATA, 4),
        ("3d", WRITE, DATA + 24, 8),
        ("3d", WRITE, DATA + 16, 8),
    ]
    reduce = PushBuffer().inc(0, 0x10, *halves(DATA), 3, 0x10 | 1 << 24 | 5 << 27)
    assert world.execute(reduce) == [("host", ATOMIC, DATA, 4)]


def test_a_wait_for_a_semaphore_is_one_access(world: World) -> None:
    handle = world.map(DATA, TILE)
    data = bytes(PushBuffer().acquire(DATA, 9))
    world.client.handles.lookup(world.pushes).view[: len(data)] = memoryview(data)
    world.client.exec(world.channel, [Push(PUSHES, len(data))])
    world.client.handles.lookup(handle).view[0] = 9
    world.client.settle()
    assert world.notes.accesses == [("host", FETCH, PUSHES, len(data)), ("host", READ, DATA, 4)]


def test_a_fault_is_told_and_not_as_an_access(world: World) -> None:
    world.map(DATA, TILE)
    assert world.execute(PushBuffer().copy(DATA, DATA + TILE, 64)) == []
    (report,) = world.notes.faults
    assert (report.addr, report.cause) == (DATA + TILE, Cause.OUT_OF_BOUNDS)


def test_jobs(world: World) -> None:
    """Of channels and of the queue of binds, those without pushes too; a bind that is waited for is none."""
    client = world.client
    done = client.syncobjs.create(0)
    signals = [Sync(SYNC_SYNCOBJ, done)]
    handle = world.map(DATA, TILE)
    client.vm_bind([VmBindOp(VM_BIND_OP_UNMAP, 0, 0, DATA, 0, TILE)], (), signals, run_async=True)
    world.bind(VmBindOp(VM_BIND_OP_MAP, 0, handle, DATA + TILE, 0, TILE))
    client.exec(world.channel, [])
    client.exec(world.channel, [Push(PUSHES, 4)], signals, ())
    client.settle()
    assert world.notes.channels == [0, world.channel, world.channel]
    assert [*world.notes.jobs.values()] == [["queued", "started", "done"]] * 3
    assert world.notes.binds == [1, 2, 3, 4]


def test_a_job_is_told_before_others_can_wait_for_it(world: World) -> None:
    """So what another thread does with its fence is told behind it."""
    client = world.client
    done = client.syncobjs.create(0)
    syncobj = client.syncobjs.find(done)
    assert syncobj is not None
    world.notes.look = lambda: syncobj.head
    signals = [Sync(SYNC_SYNCOBJ, done)]
    client.vm_bind([VmBindOp(VM_BIND_OP_UNMAP, 0, 0, DATA, 0, TILE)], (), signals, run_async=True)
    client.syncobjs.reset([done])
    client.exec(world.channel, [], (), signals)
    client.settle()
    assert world.notes.seen == [("bound", None), ("queued", None), ("queued", None)]


def test_jobs_that_never_ran(world: World) -> None:
    client, never = world.client, world.client.syncobjs.create(0)
    world.execute(PushBuffer().copy(DATA, DATA, 64))  # kills it
    other = client.channel_alloc().id
    client.syncobjs.signal([never])
    client.exec(other, [Push(DATA, 64)])
    client.settle()
    killed = [fence.error for fence in world.notes.jobs]
    assert killed == [19, 19]


def test_work_on_page_tables_is_all_that_was_done(world: World) -> None:
    client = world.client
    before = client.page_table.work()
    noted = len(world.notes.work)
    handle = world.map(DATA, 4 * TILE)
    client.vm_bind([VmBindOp(VM_BIND_OP_UNMAP, 0, 0, DATA, 0, TILE)], run_async=True)
    world.bind(
        VmBindOp(VM_BIND_OP_MAP, 0, handle, DATA, TILE, TILE), VmBindOp(0, 0, handle, 1 << 40, 0, TILE)
    )
    world.bind(VmBindOp(VM_BIND_OP_UNMAP, 0, 0, 1 << 40, 0, TILE))
    client.settle()
    told = [*world.notes.work.values()][noted:]
    assert len(told) == 4
    total = TableWork()
    for one in told:
        total = total.plus(one)
    assert total == client.page_table.work().since(before)
    assert total.made > 0 < total.freed
    assert total.cleared > 0 < total.written


def test_moves() -> None:
    """VRAM for two of three objects, which are used in turn."""
    world = World(vram=16 << 20)
    size = 6 << 20
    handles = [world.map(DATA + number * (1 << 30), size) for number in range(3)]
    offsets = {world.client.gem_info(handle).map_handle: number for number, handle in enumerate(handles)}
    names = [(offsets[one[0]], *one[1:]) for one in world.notes.moves if one[0] in offsets]
    placed = [(number, size, None, "vram", False) for number in range(3)]
    assert [one for one in names if one[2] is None] == placed
    evicted = [one for one in names if one[4]]
    assert evicted
    assert all(source == "vram" and target in ("gart", "cpu") for _, _, source, target, _ in evicted)
    world.device.close()
    gone = [one for one in world.notes.moves if one[3] is None]
    assert {one[0] for one in gone} >= offsets.keys()


def test_opens() -> None:
    world = World()
    other = world.device.open()
    other.close()
    world.device.close()
    assert world.notes.opens == [("opened", 1), ("opened", 2), ("closed", 2), ("closed", 1)]
