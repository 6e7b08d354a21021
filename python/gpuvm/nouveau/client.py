"""Client: one open of the device: the driver's calls, typed (``struct nouveau_cli``, ``struct drm_file``)."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from gpuvm.errors import BadFile, Busy, GpuvmError, InvalidArgument, NoDevice, NotFound, Unavailable
from gpuvm.mmu import AddressSpace, PageTable
from gpuvm.nouveau import getparam
from gpuvm.nouveau.bind_queue import BindQueue
from gpuvm.nouveau.channel import EXEC_PUSH_MAX, Channel
from gpuvm.nouveau.channels import Channels
from gpuvm.nouveau.client_statistics import ClientStatistics
from gpuvm.nouveau.exec_job import submit_exec
from gpuvm.nouveau.fdinfo import fdinfo
from gpuvm.nouveau.gem import GemCalls
from gpuvm.nouveau.gpuvas import gpuvas_text
from gpuvm.nouveau.history import BindHistory
from gpuvm.nouveau.open_file import OpenFile
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.dialects import Dialect
from gpuvm.nouveau.uapi.dispatch import drm_ioctl, ioctl
from gpuvm.nouveau.uapi.nvif import NvifObjects
from gpuvm.nouveau.uapi.requests import Push, Version, VmBindOps
from gpuvm.nouveau.vm_init import kernel_node, make_space
from gpuvm.nouveau.work import Work
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Usage
from gpuvm.sync.syncobj_table import SyncObjTable

if TYPE_CHECKING:
    from gpuvm.nouveau.device import Device


class Client(GemCalls):
    """What a program has that opened the device. ``Device.open`` makes it; ``with`` closes it.

    - as bytes: ``ioctl``
    - typed, with the kernel's names: all others; those about objects are in ``GemCalls``, those about sync
      objects are methods of ``syncobjs``
    - for who looks on: ``view``, ``gpuvas``, ``fdinfo``, ``settle``, ``check``, ``statistics``

    A call that is refused changes nothing.

    Locking: any thread may call anything, with nothing held. Calls take the VM's lock, then reservations.

    Attributes:
        id: a number of its own on the device, from 1 on.
        syncobjs: its sync objects.
        objects: its NVIF objects.
        page_table: what its channels see, from the beginning; ``space``: bytes by its addresses.
        history: its bind calls.
        last_error: what the last ``ioctl`` that was refused would have raised, as text; "": none yet.

    Raises (every call):
        BadFile: the client is closed.
    """

    def __init__(
        self, device: Device, id: int, name: str, dialect: Dialect, gone: Callable[[Client], None]
    ) -> None:
        super().__init__(device, name, OpenFile(name, self._release))
        self.id: Final = id
        self.dialect: Final = dialect
        self.syncobjs: Final = SyncObjTable()
        self.objects: Final = NvifObjects()
        self.history: Final = BindHistory(dialect=dialect)
        self.last_error = ""
        self.page_table: Final = PageTable(device.chip.format, device.mem.instance_memory, name)
        memories = {memory.aperture: memory for memory in (device.mem.vram, device.mem.gart)}
        self.space: Final = AddressSpace(self.page_table, memories)
        self._binds: BindQueue | None = None
        self._channels: Final = Channels(self)
        self._mutex: Final = Mutex(f"{name} mutex", lockdep.lock_class("client_mutex"))
        """Over making the address space."""
        self._gone: Final = gone

    # -- as bytes

    def ioctl(
        self, request: int, buffer: bytearray | memoryview | array[int], caller: Caller | None = None
    ) -> int:
        """One ioctl as a program makes it: 0, or minus an errno; see ``uapi.dispatch.ioctl``.

        ``last_error`` then says what was wrong.

        Args:
            request: of ``ioctl(2)``, or its number alone.
            buffer: the structure, and where answers go.
            caller: whose pointers and descriptors are in it. Default: this process.
        """
        try:
            with self._file:
                return ioctl(self, request, buffer, caller)
        except BadFile as error:
            self.last_error = str(error)
            return -error.code

    def drm_ioctl(self, request: int, arg: int, caller: Caller) -> int:
        """The same with the structure in the caller's memory, at ``arg``; see ``uapi.dispatch.drm_ioctl``."""
        try:
            with self._file:
                return drm_ioctl(self, request, arg, caller)
        except BadFile as error:
            self.last_error = str(error)
            return -error.code

    # -- what the device is

    def version(self) -> Version:
        """``DRM_IOCTL_VERSION``: of the driver's interface."""
        return getparam.VERSION

    def get_cap(self, capability: int) -> int:
        """``DRM_IOCTL_GET_CAP``: what the driver can do, by ``DRM_CAP_*``.

        Raises:
            NotSupported: any other than those of ``getparam.CAPABILITIES``.
        """
        return getparam.get_cap(capability)

    def getparam(self, param: int) -> int:
        """GETPARAM: a number about the device, see ``getparam.Param``.

        Raises:
            InvalidArgument: unknown.
        """
        return getparam.getparam(self.device, param)

    # -- channels

    @property
    def channels(self) -> dict[int, Channel]:
        """By number."""
        return self._channels.by_id

    def channel_alloc(self) -> Channel:
        """CHANNEL_ALLOC: a new channel, with the lowest number from 1 on that is free.

        Without an address space there will be none any more, and the channel executes nothing.
        """
        with self._file:
            channel = self._channels.alloc()
            self._legacy |= self.vm is None
            return channel

    def channel_free(self, id: int) -> None:
        """CHANNEL_FREE: what is queued is done with ``ESRCH``; what its ring has may end for a second.

        Raises:
            NotFound: no such channel.
        """
        with self._file:
            self._channels.free(id)

    @property
    def freed_busy(self) -> Counter[str]:
        """For how many ns engines worked for channels that were freed, by the engine's name."""
        return self._channels.freed_busy

    @property
    def freed_work(self) -> Work:
        """What channels executed that were freed; once the client is released, all."""
        return self._channels.freed_work

    # -- the address space

    def vm_init(self, kernel_addr: int, kernel_size: int) -> None:
        """VM_INIT: have an address space of 2^47 bytes, but ``[kernel_addr, kernel_addr + kernel_size)``.

        Raises:
            InvalidArgument: the kernel's area is not of whole pages, or leaves the space; in the original
                series' dialect also if it is empty.
            Unavailable: the client made an object or a channel before.
            Busy: it has one.
            OutOfMemory: there are no threads for it.

        Source: ``nouveau_uvmm_ioctl_vm_init``.
        """
        with self._file, self._mutex:
            node = kernel_node(kernel_addr, kernel_size, self.dialect)
            if self._legacy:
                raise Unavailable(
                    "VM_INIT: this client has made objects or channels; call it first of all", self.name
                )
            if self.vm is not None:
                raise Busy("VM_INIT: this client has an address space; open another one", self.vm)
            self._binds = make_space(self, node)
            self.vm = self._binds.vm

    def vm_bind(
        self,
        ops: VmBindOps,
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
        *,
        run_async: bool = False,
    ) -> None:
        """VM_BIND: change what is mapped, all of ``ops`` or none, in their order.

        Args:
            ops: with the numbers of the client's dialect; or a bytearray of their structures.
            waits, signals: with ``run_async``: what the page table's change waits for, and what is signalled
                after it. Without it the page table is changed when this returns.

        Raises:
            Unavailable: no address space.
            InvalidArgument: ``waits`` or ``signals`` without ``run_async``; no such operation.
            NotFound: no such handle.
            GpuvmError: as ``BindQueue.submit``.

        Source: ``nouveau_uvmm_ioctl_vm_bind``.
        """
        with self._file:
            binds = self.ready_to_bind()
            if not run_async and (waits or signals):
                raise InvalidArgument(
                    "VM_BIND: what is to be waited for or signalled needs RUN_ASYNC", (waits, signals)
                )
            try:  # nothing gets a name: no object may be kept here when the client goes with this call
                binds.submit(
                    self.dialect.bind_ops(ops, self.handles), ops, waits, signals, run_async=run_async
                )
            except GpuvmError as error:
                self.dialect.tell(error, ops)
                raise

    def ready_to_bind(self) -> BindQueue:
        """What binds.

        Raises:
            Unavailable: no address space.
        """
        if self._binds is None:
            raise Unavailable(
                "VM_BIND: this client has no address space; call VM_INIT first of all", self.name
            )
        return self._binds

    def exec(
        self,
        channel: int,
        pushes: Sequence[Push],
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
    ) -> None:
        """EXEC: have a channel execute pushes when ``waits`` are signalled, then signal ``signals``.

        Raises:
            GpuvmError: as ``ready_to_exec``, then as ``submit_exec``.

        Source: ``nouveau_exec_ioctl_exec``.
        """
        pushes = tuple(pushes)  # the caller's list may change before they are executed
        with self._file:
            found, vm = self.ready_to_exec(channel, len(pushes)), self.vm
            assert vm is not None
            submit_exec(vm, self.syncobjs, found, pushes, waits, signals)

    def ready_to_exec(self, channel: int, pushes: int) -> Channel:
        """The channel, if it would take so many pushes.

        Raises:
            Unavailable: no address space.
            NotFound: no such channel.
            NoDevice: it was killed.
            InvalidArgument: too many pushes.
        """
        if self.vm is None:
            raise Unavailable("EXEC: this client has no address space; call VM_INIT first of all", self.name)
        found = self.channels.get(channel)
        if found is None:
            raise NotFound(f"EXEC: there is no channel {channel}, but {[*self.channels]}", channel)
        if found.killed:
            raise NoDevice(f"EXEC: {found!r}: {found.killed_by}; free it and make a new one", channel)
        if pushes > EXEC_PUSH_MAX:
            raise InvalidArgument(f"EXEC: {pushes} pushes; {EXEC_PUSH_MAX} at most", pushes, EXEC_PUSH_MAX)
        return found

    def settle(self) -> None:
        """Wait until what was submitted so far is done, and binds are cleaned up. Locking: nothing held."""
        with self._file:
            if self._binds is not None and self.vm is not None:
                self._binds.drain()
                self.vm.resv.wait(Usage.BOOKKEEP)

    # -- its end

    @property
    def is_open(self) -> bool:
        """Until ``close`` is called."""
        return self._file.is_open

    @property
    def released(self) -> Fence:
        """Signalled when all that the client had is gone."""
        return self._file.released

    def close(self) -> None:
        """Let go of everything; again: nothing.

        Calls that are under way in other threads end as they would; the last of them lets go of everything.
        Without any, all is gone when this returns. What channels have on their rings may end for a second;
        what is queued there is done with ``ESRCH``. Binds run when what they wait for is signalled.

        Raises:
            OutOfMemory: something is left; close it again.
            Busy: so it is, since somebody holds a VmBo of its address space; put it, and close it again.

        Locking: nothing held. Source: ``nouveau_drm_postclose``.
        """
        self._file.close()

    def closing(self) -> AbstractContextManager[None]:
        """``close`` at the beginning of a ``with`` block, but what it has goes after the block."""
        return self._file.closing()

    def calm_down(self, deadline: int) -> None:
        """Kill channels that have something to do at ``deadline``, in ns of ``task.now``."""
        self._channels.calm_down(deadline)

    def _release(self) -> None:
        """Let go of everything. If something is in the way, a second time goes on where it stopped."""
        self._channels.end_all()
        if self.vm is not None and self._binds is not None:
            self._binds.close()
            self.vm.close()
        self.page_table.close()
        self.handles.close_all()
        self.syncobjs.release()
        self._gone(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- itself

    def gpuvas(self) -> str:
        """What debugfs shows of its address space; see ``gpuvas_text``."""
        with self._file:
            return gpuvas_text([self])

    def fdinfo(self) -> str:
        """What ``/proc/PID/fdinfo/FD`` shows of it; see ``fdinfo.fdinfo``."""
        with self._file:
            return fdinfo(self)

    def check(self) -> None:
        """Verify all of it. Call it while no call of the client is under way and nothing is executed.

        Raises:
            CheckFailed: with the state.
        """
        with self._file:
            for part in (self.handles, self.syncobjs, self.objects, self.history, self.page_table):
                part.check()
            if self.vm is not None and self._binds is not None:
                self._binds.check()
                self.vm.check()
            self._channels.check()

    def statistics(self) -> ClientStatistics:
        """Counts, of now."""
        with self._file:
            channels = tuple(channel.statistics() for channel in self.channels.copy().values())
            return ClientStatistics(
                self.name,
                self.dialect.name,
                self.handles.statistics(),
                self.syncobjs.statistics(),
                None if self.vm is None else self.vm.statistics(),
                None if self._binds is None else self._binds.statistics(),
                channels,
                self._channels.freed_busy_ns + sum(channel.busy_ns for channel in channels),
            )

    def __repr__(self) -> str:
        return f'<Client "{self.name}" of "{self.device.name}"{"" if self.is_open else ", closed"}>'
