"""The calls: what each makes of its structure, and what it writes back.

A function here takes the client, the structure's bytes, and who makes the call: whose pointers and
descriptors are in it. It reads fields, copies what they point to, calls the client, and writes answers into
the same bytes. Like the kernel's it looks at pointers only after what the kernel looks at before; all rules
are the client's.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from gpuvm.errors import InvalidArgument, Unavailable
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi import numbers, structs
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.dialects import VM_BIND_RUN_ASYNC
from gpuvm.nouveau.uapi.layout import maker
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.nouveau.uapi.nvif import nvif
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.nouveau.uapi.user_array import UserArray
from gpuvm.nouveau.uapi.user_memory import UserMemory

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client

Call = Callable[["Client", bytearray, Caller], None]

PUSHBUF_DOMAINS: Final = 2 | 4
"""Where push buffers may lie: VRAM and GART."""
ENGINE_BY_NUMBER: Final = 0xFFFFFFFF
"""In ``fb_ctxdma_handle``: the other field says for which engine the channel is."""
ENGINES: Final[Mapping[int, bool]] = {0x01: True, 0x02: False, 0x04: False, 0x08: False, 0x30: True}
"""All there ever were (graphics, three for video, copies), and whether they can have a channel here."""

_sync: Final = maker(Sync)


# -- DRM


def _version(client: Client, data: bytearray, caller: Caller) -> None:
    """Strings are cut where the buffer ends, without a zero; lengths are the true ones (``drm_version``)."""
    fields = structs.VERSION.unpack(data)
    version = client.version()
    structs.VERSION.put(
        data,
        version_major=version.major,
        version_minor=version.minor,
        version_patchlevel=version.patchlevel,
    )
    for name, text, room, pointer in (
        ("name_len", version.name, *fields[3:5]),
        ("date_len", version.date, *fields[5:7]),
        ("desc_len", version.desc, *fields[7:9]),
    ):
        string = text.encode()
        structs.VERSION.put(data, **{name: len(string)})
        if pointer:
            caller.memory.write(pointer, string[:room])


def _get_cap(client: Client, data: bytearray, caller: Caller) -> None:
    capability, _ = structs.GET_CAP.unpack(data)
    structs.GET_CAP.put(data, value=0)
    structs.GET_CAP.put(data, value=client.get_cap(capability))


def _auth_magic(client: Client, data: bytearray, caller: Caller) -> None:
    (magic,) = structs.AUTH.unpack(data)
    raise InvalidArgument(f"AUTH_MAGIC: nobody got the magic {magic}; render nodes need none", magic)


def _gem_close(client: Client, data: bytearray, caller: Caller) -> None:
    handle, _ = structs.GEM_CLOSE.unpack(data)
    client.gem_close(handle)


def _prime_handle_to_fd(client: Client, data: bytearray, caller: Caller) -> None:
    handle, flags, _ = structs.PRIME_HANDLE.unpack(data)
    fd = client.prime_handle_to_fd(handle, flags)
    structs.PRIME_HANDLE.put(data, fd=caller.files.install(fd, cloexec=flags & os.O_CLOEXEC != 0))


def _prime_fd_to_handle(client: Client, data: bytearray, caller: Caller) -> None:
    _, _, fd = structs.PRIME_HANDLE.unpack(data)
    structs.PRIME_HANDLE.put(data, handle=client.prime_fd_to_handle(caller.files.fget(fd)))


# -- sync objects


def _syncobj_create(client: Client, data: bytearray, caller: Caller) -> None:
    _, flags = structs.SYNCOBJ_CREATE.unpack(data)
    structs.SYNCOBJ_CREATE.put(data, handle=client.syncobjs.create(flags))


def _syncobj_destroy(client: Client, data: bytearray, caller: Caller) -> None:
    client.syncobjs.destroy(*structs.SYNCOBJ_DESTROY.unpack(data))


def _syncobj_handle_to_fd(client: Client, data: bytearray, caller: Caller) -> None:
    handle, flags, _, pad, point = structs.SYNCOBJ_HANDLE.unpack(data)
    fd = client.syncobjs.handle_to_fd(handle, flags, pad, point)
    structs.SYNCOBJ_HANDLE.put(data, fd=caller.files.install(fd, cloexec=True))


def _syncobj_fd_to_handle(client: Client, data: bytearray, caller: Caller) -> None:
    handle, flags, fd, pad, point = structs.SYNCOBJ_HANDLE.unpack(data)
    file = caller.files.fget(fd)
    structs.SYNCOBJ_HANDLE.put(data, handle=client.syncobjs.fd_to_handle(handle, flags, file, pad, point))


def _syncobj_wait(client: Client, data: bytearray, caller: Caller) -> None:
    handles, timeout, count, flags, _, _, deadline = structs.SYNCOBJ_WAIT.unpack(data)
    first = client.syncobjs.wait(UserArray(caller.memory, handles, count, "I"), timeout, flags, deadline)
    if count:
        structs.SYNCOBJ_WAIT.put(data, first_signaled=first)


def _syncobj_timeline_wait(client: Client, data: bytearray, caller: Caller) -> None:
    handles, points, timeout, count, flags, _, _, deadline = structs.SYNCOBJ_TIMELINE_WAIT.unpack(data)
    first = client.syncobjs.timeline_wait(
        UserArray(caller.memory, handles, count, "I"),
        UserArray(caller.memory, points, count, "Q") if points else None,
        timeout,
        flags,
        deadline,
    )
    if count:
        structs.SYNCOBJ_TIMELINE_WAIT.put(data, first_signaled=first)


def _syncobj_reset(client: Client, data: bytearray, caller: Caller) -> None:
    handles, count, pad = structs.SYNCOBJ_ARRAY.unpack(data)
    client.syncobjs.reset(UserArray(caller.memory, handles, count, "I"), pad)


def _syncobj_signal(client: Client, data: bytearray, caller: Caller) -> None:
    handles, count, pad = structs.SYNCOBJ_ARRAY.unpack(data)
    client.syncobjs.signal(UserArray(caller.memory, handles, count, "I"), pad)


def _syncobj_query(client: Client, data: bytearray, caller: Caller) -> None:
    handles, points, count, flags = structs.SYNCOBJ_TIMELINE_ARRAY.unpack(data)
    found = client.syncobjs.query(UserArray(caller.memory, handles, count, "I"), flags)
    caller.memory.write(points, struct.pack(f"<{len(found)}Q", *found))


def _syncobj_timeline_signal(client: Client, data: bytearray, caller: Caller) -> None:
    handles, points, count, flags = structs.SYNCOBJ_TIMELINE_ARRAY.unpack(data)
    client.syncobjs.timeline_signal(
        UserArray(caller.memory, handles, count, "I"),
        UserArray(caller.memory, points, count, "Q") if points else None,
        flags,
    )


def _syncobj_transfer(client: Client, data: bytearray, caller: Caller) -> None:
    source, destination, source_point, destination_point, flags, pad = structs.SYNCOBJ_TRANSFER.unpack(data)
    client.syncobjs.transfer(source, destination, source_point, destination_point, flags, pad)


def _syncobj_eventfd(client: Client, data: bytearray, caller: Caller) -> None:
    handle, flags, point, fd, pad = structs.SYNCOBJ_EVENTFD.unpack(data)
    client.syncobjs.eventfd(handle, flags, point, caller.files.fget(fd), pad)


# -- nouveau


def _getparam(client: Client, data: bytearray, caller: Caller) -> None:
    param, _ = structs.GETPARAM.unpack(data)
    structs.GETPARAM.put(data, value=client.getparam(param))


def _channel_alloc(client: Client, data: bytearray, caller: Caller) -> None:
    """What it is for is checked and makes no difference: a channel has all engines."""
    fb, tt, *_ = structs.CHANNEL_ALLOC.unpack(data)
    if fb == ENGINE_BY_NUMBER:
        if tt not in ENGINES:
            raise Unavailable(f"CHANNEL_ALLOC: engine {tt:#x}; 0x1 is graphics, 0x30 copies", tt)
        if not ENGINES[tt]:
            raise InvalidArgument(f"CHANNEL_ALLOC: no engine {tt:#x} in this chip; 0x1 is graphics", tt)
        fb = tt = 0
    elif tt == ENGINE_BY_NUMBER:
        raise InvalidArgument(f"CHANNEL_ALLOC: tt_ctxdma_handle {tt:#x}; pass 0", tt)
    channel = client.channel_alloc()
    structs.CHANNEL_ALLOC.put(
        data,
        fb_ctxdma_handle=fb,
        tt_ctxdma_handle=tt,
        channel=channel.id,
        pushbuf_domains=PUSHBUF_DOMAINS,
        notifier_handle=0,
    )


def _channel_free(client: Client, data: bytearray, caller: Caller) -> None:
    client.channel_free(*structs.CHANNEL_FREE.unpack(data))


def _nvif(client: Client, data: bytearray, caller: Caller) -> None:
    nvif(client, data)


def _vm_init(client: Client, data: bytearray, caller: Caller) -> None:
    client.vm_init(*structs.VM_INIT.unpack(data))


def _vm_bind(client: Client, data: bytearray, caller: Caller) -> None:
    op_count, flags, wait_count, sig_count, wait_ptr, sig_ptr, op_ptr = structs.VM_BIND.unpack(data)
    client.ready_to_bind()
    memory = caller.memory
    ops = memory.read_array(op_ptr, op_count, structs.VM_BIND_OP.size)
    waits = _syncs(memory, wait_ptr, wait_count)
    signals = _syncs(memory, sig_ptr, sig_count)
    run_async = flags & VM_BIND_RUN_ASYNC != 0
    client.vm_bind(ops, waits, signals, run_async=run_async)


def _exec(client: Client, data: bytearray, caller: Caller) -> None:
    channel, push_count, wait_count, sig_count, wait_ptr, sig_ptr, push_ptr = structs.EXEC.unpack(data)
    client.ready_to_exec(channel, push_count)
    memory = caller.memory
    layout = client.dialect.push
    pushes = memory.read_array(push_ptr, push_count, layout.size)
    waits = _syncs(memory, wait_ptr, wait_count)
    signals = _syncs(memory, sig_ptr, sig_count)
    client.exec(channel, [Push(*push) for push in layout.iter_unpack(pushes)], waits, signals)


def _syncs(memory: UserMemory, addr: int, count: int) -> list[Sync]:
    if not count:
        return []
    syncs = memory.read_array(addr, count, structs.SYNC.size)
    return [*map(_sync, structs.SYNC.iter_unpack(syncs))]


def _gem_new(client: Client, data: bytearray, caller: Caller) -> None:
    """``info`` comes back as GEM_INFO would tell it (``nouveau_gem_ioctl_new``)."""
    _, domain, size, _, _, tile_mode, tile_flags, _, align = structs.GEM_NEW.unpack(data)
    info = client.gem_new(size, domain, align=align, tile_mode=tile_mode, tile_flags=tile_flags)
    structs.GEM_INFO.pack_into(data, 0, *info)


def _gem_info(client: Client, data: bytearray, caller: Caller) -> None:
    handle, *_ = structs.GEM_INFO.unpack(data)
    structs.GEM_INFO.pack_into(data, 0, *client.gem_info(handle))


def _gem_pushbuf(client: Client, data: bytearray, caller: Caller) -> None:
    client.gem_pushbuf()


def _gem_cpu_prep(client: Client, data: bytearray, caller: Caller) -> None:
    client.gem_cpu_prep(*structs.GEM_CPU_PREP.unpack(data))


def _gem_cpu_fini(client: Client, data: bytearray, caller: Caller) -> None:
    client.gem_cpu_fini(*structs.GEM_CPU_FINI.unpack(data))


CALLS: Final[Mapping[Ioctl, Call]] = {
    numbers.VERSION: _version,
    numbers.GEM_CLOSE: _gem_close,
    numbers.GET_CAP: _get_cap,
    numbers.AUTH_MAGIC: _auth_magic,
    numbers.PRIME_HANDLE_TO_FD: _prime_handle_to_fd,
    numbers.PRIME_FD_TO_HANDLE: _prime_fd_to_handle,
    numbers.SYNCOBJ_CREATE: _syncobj_create,
    numbers.SYNCOBJ_DESTROY: _syncobj_destroy,
    numbers.SYNCOBJ_HANDLE_TO_FD: _syncobj_handle_to_fd,
    numbers.SYNCOBJ_FD_TO_HANDLE: _syncobj_fd_to_handle,
    numbers.SYNCOBJ_WAIT: _syncobj_wait,
    numbers.SYNCOBJ_RESET: _syncobj_reset,
    numbers.SYNCOBJ_SIGNAL: _syncobj_signal,
    numbers.SYNCOBJ_TIMELINE_WAIT: _syncobj_timeline_wait,
    numbers.SYNCOBJ_QUERY: _syncobj_query,
    numbers.SYNCOBJ_TRANSFER: _syncobj_transfer,
    numbers.SYNCOBJ_TIMELINE_SIGNAL: _syncobj_timeline_signal,
    numbers.SYNCOBJ_EVENTFD: _syncobj_eventfd,
    numbers.GETPARAM: _getparam,
    numbers.CHANNEL_ALLOC: _channel_alloc,
    numbers.CHANNEL_FREE: _channel_free,
    numbers.NVIF: _nvif,
    numbers.VM_INIT: _vm_init,
    numbers.VM_BIND: _vm_bind,
    numbers.EXEC: _exec,
    numbers.GEM_NEW: _gem_new,
    numbers.GEM_PUSHBUF: _gem_pushbuf,
    numbers.GEM_CPU_PREP: _gem_cpu_prep,
    numbers.GEM_CPU_FINI: _gem_cpu_fini,
    numbers.GEM_INFO: _gem_info,
}
"""What each ioctl does; others nobody knows."""
