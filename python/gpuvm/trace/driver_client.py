"""One open of the device while a trace is replayed through the driver: makes the calls that were recorded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from gpuvm.errors import GpuvmError
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push, VmBindOp
from gpuvm.sync.resv import Usage
from gpuvm.trace import recorded
from gpuvm.trace.difference import NotMade, OtherResult
from gpuvm.trace.driver_syncobjs import DriverSyncobjs
from gpuvm.trace.numbering import Numbering
from gpuvm.trace.shared_files import Kind
from gpuvm.trace.submission_counts import SubmissionCounts
from gpuvm.trace.table_counts import TableCounts, table_counts

if TYPE_CHECKING:
    from gpuvm.mem import GemObject
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.vm import Uvmm
    from gpuvm.trace.shared_files import SharedFiles

CPU_PREP_NOWAIT: Final = 1
WORD: Final = 4


class DriverClient:
    """One open of the device. ``make`` makes one recorded call.

    Args:
        number: the client's in the recording.
        client: who makes the calls.
        files: what clients hand to each other.
        counts: where submissions are counted.
        patience: seconds that a wait may take which came to an end when recorded.
        import_sizes: of what comes from elsewhere, in bytes, by the line that imports it.

    Attributes:
        used: it has a space, or is too late to make one.
        requests: plain maps and all unmaps that were made.
        sparse_maps: sparse maps that were made; not in ``requests``.
        failed_calls: vm_init and vm_bind that had failed when recorded.
        bind_ns: nanoseconds inside the vm_bind calls.
        most_tables, most_bytes: page tables, after any bind that was waited for.
    """

    def __init__(
        self,
        number: int,
        client: Client,
        files: SharedFiles,
        counts: SubmissionCounts,
        *,
        patience: float,
        import_sizes: dict[int, int],
    ) -> None:
        self.number = number
        self.client: Final = client
        self.used = False
        self.requests = 0
        self.sparse_maps = 0
        self.failed_calls = 0
        self.bind_ns = 0
        self.most_tables = 0
        self.most_bytes = 0
        self._files: Final = files
        self._counts: Final = counts
        self._patience: Final = patience
        self._import_sizes: Final = import_sizes
        self._handles: Final = Numbering()
        self._channels: Final = Numbering()
        self._syncobjs: Final = DriverSyncobjs(client.syncobjs, files, counts, patience)
        self._known_as: Final[WeakKeyDictionary[GemObject, int]] = WeakKeyDictionary()
        self._executing = False
        self._cleaned = True

    def make(self, record: recorded.Record) -> None:
        """Make the recorded call.

        Raises:
            GpuvmError: it is refused.
            OtherResult: it returned something else than when it was recorded.
            NotMade: the trace does not tell enough.
        """
        make = CALLS.get(type(record))
        try:
            if make is None:
                self._syncobjs.make(record)
            else:
                make(self, record)
        except GpuvmError:
            if record.ret == 0:
                self._lost(record)
            raise

    def _lost(self, record: recorded.Record) -> None:
        """What the call made when recorded is not here: who uses it must not meet something else."""
        match record:
            case recorded.GemNew() | recorded.GemImport():
                self._handles.pair(record.handle, None)
            case recorded.ChannelAlloc():
                self._channels.pair(record.channel, None)
            case _:
                self._syncobjs.lost(record)

    # -- the address space

    def _vm_init(self, record: recorded.VmInit) -> None:
        self.client.vm_init(record.kernel_addr, record.kernel_size)
        self.used = True
        self._note_tables()

    def _vm_bind(self, record: recorded.VmBind) -> None:
        ours = self._handles.ours
        ops = [
            VmBindOp(op.op, op.flags, ours(op.handle), op.addr, op.bo_offset, op.range) for op in record.ops
        ]
        waits, signals = self._syncs(record.waits), self._syncs(record.signals)
        run_async = bool(record.flags & recorded.BIND_RUN_ASYNC)
        if run_async or any(op.op == recorded.OP_UNMAP for op in record.ops):
            self.finish_execs()
        begin = perf_counter_ns()
        try:
            self.client.vm_bind(ops, waits, signals, run_async=run_async)
        finally:
            self.bind_ns += perf_counter_ns() - begin
        sparse_maps = sum(op.sparse and op.op == recorded.OP_MAP for op in record.ops)
        self.sparse_maps += sparse_maps
        self.requests += len(ops) - sparse_maps
        self._counts.bind_ops += len(ops)
        self._counts.async_binds += run_async
        self._counts.sync_binds += not run_async
        self._counts.signals += len(signals)
        if run_async:
            self._cleaned = False
        else:
            self._note_tables()

    def _syncs(self, syncs: tuple[recorded.Sync, ...]) -> list[Sync]:
        return [Sync(one.flags, self._syncobjs.handles.ours(one.handle), one.value) for one in syncs]

    def _note_tables(self) -> None:
        """Look how many there are, once all binds so far are cleaned up; it changes with the moment else."""
        if not self._cleaned:
            self.client.settle()
            self._cleaned = True
        tables = self.client.page_table
        self.most_tables = max(self.most_tables, tables.table_count)
        self.most_bytes = max(self.most_bytes, tables.table_bytes)

    # -- channels

    def _channel_alloc(self, record: recorded.ChannelAlloc) -> None:
        self.used = True
        channel = self.client.channel_alloc()
        if record.ret:
            self.client.channel_free(channel.id)
            return
        self._counts.channels.append(channel)
        self._counts.renumbered += self._channels.pair(record.channel, channel.id)

    def _channel_free(self, record: recorded.ChannelFree) -> None:
        self.finish_execs()
        self.client.channel_free(self._channels.ours(record.channel))
        self._channels.forget(record.channel)

    def _free_channels(self) -> None:
        """Its open was closed. A device has only so many channels; the space stays, to be looked at."""
        self.finish_execs()
        for id in [*self.client.channels]:
            self.client.channel_free(id)

    def _exec(self, record: recorded.Submission) -> None:
        if record.channel is None:
            raise NotMade("the channel is not told")
        channel = self.client.channels.get(self._channels.ours(record.channel))
        if record.ret == -errno.ENODEV and channel is not None and not channel.killed:
            raise NotMade("what killed the channel is not told")
        pushes = [Push(*push) for push in record.pushes]
        waits, signals = self._syncs(record.waits), self._syncs(record.signals)
        self.client.exec(self._channels.ours(record.channel), pushes, waits, signals)
        self._executing = True
        self._counts.execs += 1
        self._counts.pushes += len(pushes)
        self._counts.words += sum(push.va_len // WORD for push in pushes)
        self._counts.signals += len(signals)

    def finish_execs(self) -> None:
        """Wait for what was submitted to channels.

        A trace does not have all that a program waited for, by looking at memory for one. So nothing is taken
        away from under an exec that is not done, which the program cannot have done either.
        """
        vm = self.client.vm
        if self._executing and vm is not None:
            vm.resv.wait(Usage.WRITE, self._patience)
            self._executing = False

    # -- objects

    def _gem_new(self, record: recorded.GemNew) -> None:
        self.used = True
        made = self.client.gem_new(
            record.size,
            record.domain,
            align=record.align,
            tile_mode=record.tile_mode,
            tile_flags=record.tile_flags,
        )
        self._object(record, made.handle)

    def _gem_import(self, record: recorded.GemImport) -> None:
        fd, borrowed = self._files.find(record.fd, Kind.OBJECT), True
        if fd is None and record.ret:
            raise NotMade("what file was refused is not known")
        if fd is None:
            fd, borrowed = self._from_elsewhere(record), False
        try:
            handle = self.client.prime_fd_to_handle(fd)
        finally:
            if not borrowed:
                os.close(fd)
        new = handle not in self._handles.all_ours
        same = self._handles.same(record.handle, handle)
        if record.ret == 0 or new:
            self._object(record, handle)
        if record.ret == 0 and not same:
            meaning = "one of them is the handle that the object had already, the other is not"
            raise OtherResult("handle", record.handle, handle, meaning)

    def _from_elsewhere(self, record: recorded.GemImport) -> int:
        """A descriptor for what the trace does not tell: what has the handle already, or a new object."""
        if record.handle in self._handles:
            return self.client.prime_handle_to_fd(self._handles.ours(record.handle))
        return self._files.object(self._import_sizes[record.line], recorded.DOMAIN_ANY)

    def _object(self, record: recorded.GemNew | recorded.GemImport, handle: int) -> None:
        """It is here under ``handle``; unless it should not be."""
        if record.ret:
            self.client.gem_close(handle)
            return
        self._counts.renumbered += self._handles.pair(record.handle, handle)
        self._known_as[self.client.handles.lookup(handle)] = record.handle

    def _gem_close(self, record: recorded.GemClose) -> None:
        self.client.gem_close(self._handles.ours(record.handle))
        self._handles.forget(record.handle)

    def _gem_export(self, record: recorded.GemExport) -> None:
        fd = self.client.prime_handle_to_fd(self._handles.ours(record.handle), record.flags)
        self._files.exported(record.fd, Kind.OBJECT, fd)

    def _gem_info(self, record: recorded.GemInfo) -> None:
        info = self.client.gem_info(self._handles.ours(record.handle))
        if record.size not in (None, info.size):
            raise OtherResult("size", record.size, info.size, "the object has another size")

    def _cpu_prep(self, record: recorded.CpuPrep) -> None:
        # What was idle when recorded may still be busy here; it will not be for long.
        flags = record.flags & ~CPU_PREP_NOWAIT if record.ret == 0 else record.flags
        self.client.gem_cpu_prep(self._handles.ours(record.handle), flags)

    def _cpu_fini(self, record: recorded.CpuFini) -> None:
        self.client.gem_cpu_fini(self._handles.ours(record.handle))

    # -- questions

    def _getparam(self, record: recorded.GetParam) -> None:
        self.client.getparam(record.param)

    def _get_cap(self, record: recorded.GetCap) -> None:
        self.client.get_cap(record.capability)

    def _other(self, record: recorded.Other) -> None:
        match record.call:
            case "version":
                self.client.version()
            case "gem_pushbuf":
                self.client.gem_pushbuf()
            case "close":
                self._free_channels()
            case _:
                raise NotMade("what it says is not read")

    def _untold(self, record: recorded.Untold) -> None:
        raise NotMade(f"{record.field} is not told")

    # -- itself

    def settle(self) -> None:
        """Wait until all that was submitted is done, and cleaned up."""
        self.client.settle()
        self._note_tables()

    @property
    def vm(self) -> Uvmm | None:
        """The space."""
        return self.client.vm

    @property
    def ops(self) -> dict[str, int]:
        """What was emitted for the requests, by kind."""
        vm = self.client.vm
        if vm is None:
            return dict.fromkeys(("map", "remap", "unmap"), 0)
        counts = vm.statistics()
        return {"map": counts.maps, "remap": counts.remaps, "unmap": counts.unmaps}

    def tables(self) -> TableCounts | None:
        """What became of the page tables."""
        vm = self.client.vm
        if vm is None:
            return None
        return table_counts(vm, self.client.page_table, self.most_tables, self.most_bytes)

    def mappings(self) -> list[list[int]]:
        """``[addr, range, handle, bo_offset]`` of every mapping in address order, in bytes."""
        vm = self.client.vm
        if vm is None:
            return []
        known = self._known_as
        with vm.lock:
            return [[va.addr, va.range, known[va.obj], va.offset] for va in vm.mappings() if not va.kernel]


CALLS: Final[dict[type[recorded.Record], Callable[[DriverClient, Any], None]]] = {
    recorded.VmInit: DriverClient._vm_init,
    recorded.VmBind: DriverClient._vm_bind,
    recorded.Submission: DriverClient._exec,
    recorded.ChannelAlloc: DriverClient._channel_alloc,
    recorded.ChannelFree: DriverClient._channel_free,
    recorded.GemNew: DriverClient._gem_new,
    recorded.GemImport: DriverClient._gem_import,
    recorded.GemClose: DriverClient._gem_close,
    recorded.GemExport: DriverClient._gem_export,
    recorded.GemInfo: DriverClient._gem_info,
    recorded.CpuPrep: DriverClient._cpu_prep,
    recorded.CpuFini: DriverClient._cpu_fini,
    recorded.GetParam: DriverClient._getparam,
    recorded.GetCap: DriverClient._get_cap,
    recorded.Other: DriverClient._other,
    recorded.Untold: DriverClient._untold,
}
"""By record, who makes the call; the rest is about sync objects."""
