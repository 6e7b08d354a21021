"""The structures of DRM's and nouveau's calls, as data.

Fields have the names that the headers give them. What a call does with them is in ``calls``.

Source: ``drm.h``, ``nouveau_drm.h``; for NVIF the kernel's ``nvif/ioctl.h`` and ``nvif/cl0080.h``.
"""

from __future__ import annotations

from typing import Final

from gpuvm.nouveau.uapi.layout import Layout

# -- DRM

VERSION: Final = Layout(
    "drm_version",
    "s32 version_major, version_minor, version_patchlevel; unused gap[4];"
    "u64 name_len, name, date_len, date, desc_len, desc",
)
GEM_CLOSE: Final = Layout("drm_gem_close", "u32 handle, pad")
GET_CAP: Final = Layout("drm_get_cap", "u64 capability, value")
AUTH: Final = Layout("drm_auth", "u32 magic")
PRIME_HANDLE: Final = Layout("drm_prime_handle", "u32 handle, flags; s32 fd")

SYNCOBJ_CREATE: Final = Layout("drm_syncobj_create", "u32 handle, flags")
SYNCOBJ_DESTROY: Final = Layout("drm_syncobj_destroy", "u32 handle, pad")
SYNCOBJ_HANDLE: Final = Layout("drm_syncobj_handle", "u32 handle, flags; s32 fd; u32 pad; u64 point")
SYNCOBJ_WAIT: Final = Layout(
    "drm_syncobj_wait",
    "u64 handles; s64 timeout_nsec; u32 count_handles, flags, first_signaled, pad; u64 deadline_nsec",
)
SYNCOBJ_TIMELINE_WAIT: Final = Layout(
    "drm_syncobj_timeline_wait",
    "u64 handles, points; s64 timeout_nsec; u32 count_handles, flags, first_signaled, pad; u64 deadline_nsec",
)
SYNCOBJ_ARRAY: Final = Layout("drm_syncobj_array", "u64 handles; u32 count_handles, pad")
SYNCOBJ_TIMELINE_ARRAY: Final = Layout(
    "drm_syncobj_timeline_array", "u64 handles, points; u32 count_handles, flags"
)
SYNCOBJ_TRANSFER: Final = Layout(
    "drm_syncobj_transfer", "u32 src_handle, dst_handle; u64 src_point, dst_point; u32 flags, pad"
)
SYNCOBJ_EVENTFD: Final = Layout("drm_syncobj_eventfd", "u32 handle, flags; u64 point; s32 fd; u32 pad")

# -- nouveau

GETPARAM: Final = Layout("drm_nouveau_getparam", "u64 param, value")
CHANNEL_ALLOC: Final = Layout(
    "drm_nouveau_channel_alloc",
    "u32 fb_ctxdma_handle, tt_ctxdma_handle; s32 channel; u32 pushbuf_domains, notifier_handle;"
    "unused subchan[64]; u32 nr_subchan",
)
CHANNEL_FREE: Final = Layout("drm_nouveau_channel_free", "s32 channel")
GEM_INFO: Final = Layout(
    "drm_nouveau_gem_info", "u32 handle, domain; u64 size, offset, map_handle; u32 tile_mode, tile_flags"
)
GEM_NEW: Final = Layout(
    "drm_nouveau_gem_new",
    "u32 handle, domain; u64 size, offset, map_handle; u32 tile_mode, tile_flags; u32 channel_hint, align",
)
"""Begins with ``GEM_INFO``, its field ``info``."""
GEM_PUSHBUF: Final = Layout(
    "drm_nouveau_gem_pushbuf",
    "u32 channel, nr_buffers; u64 buffers; u32 nr_relocs, nr_push; u64 relocs, push; u32 suffix0, suffix1;"
    "u64 vram_available, gart_available",
)
GEM_CPU_PREP: Final = Layout("drm_nouveau_gem_cpu_prep", "u32 handle, flags")
GEM_CPU_FINI: Final = Layout("drm_nouveau_gem_cpu_fini", "u32 handle")

SYNC: Final = Layout("drm_nouveau_sync", "u32 flags, handle; u64 timeline_value")
VM_INIT: Final = Layout("drm_nouveau_vm_init", "u64 kernel_managed_addr, kernel_managed_size")
VM_BIND_OP: Final = Layout(
    "drm_nouveau_vm_bind_op", "u32 op, flags, handle; unused pad[4]; u64 addr, bo_offset, range"
)
VM_BIND: Final = Layout(
    "drm_nouveau_vm_bind", "u32 op_count, flags, wait_count, sig_count; u64 wait_ptr, sig_ptr, op_ptr"
)
EXEC_PUSH: Final = Layout("drm_nouveau_exec_push", "u64 va; u32 va_len, flags")
EXEC_PUSH_SERIES: Final = Layout("drm_nouveau_exec_push", "u64 va, va_len")
"""As the original series had it."""
EXEC: Final = Layout(
    "drm_nouveau_exec", "u32 channel, push_count, wait_count, sig_count; u64 wait_ptr, sig_ptr, push_ptr"
)

# -- NVIF: a header, what goes with its type, and with NEW and MTHD more yet

NVIF: Final = Layout("nvif_ioctl_v0", "u8 version, type; unused pad02[4]; u8 owner, route; u64 token, object")
NVIF_NEW: Final = Layout(
    "nvif_ioctl_new_v0",
    "u8 version; unused pad01[6]; u8 route; u64 token, object; u32 handle; s32 oclass",
)
NVIF_MTHD: Final = Layout("nvif_ioctl_mthd_v0", "u8 version, method; unused pad02[6]")
NVIF_SCLASS: Final = Layout("nvif_ioctl_sclass_v0", "u8 version, count; unused pad02[6]")
NVIF_SCLASS_OCLASS: Final = Layout("nvif_ioctl_sclass_oclass_v0", "s32 oclass; s16 minver, maxver")
NV_DEVICE_INFO: Final = Layout(
    "nv_device_info_v0",
    "u8 version, platform; u16 chipset; u8 revision, family; unused pad06[2]; u64 ram_size, ram_user;"
    "char chip[16], name[64]",
)
