"""The uAPI in numbers, taken down from the kernel's headers; layouts and requests are compared with them."""

from __future__ import annotations

REQUESTS = {
    "DRM_IOCTL_VERSION": 0xC0406400,
    "DRM_IOCTL_GEM_CLOSE": 0x40086409,
    "DRM_IOCTL_GET_CAP": 0xC010640C,
    "DRM_IOCTL_AUTH_MAGIC": 0x40046411,
    "DRM_IOCTL_PRIME_HANDLE_TO_FD": 0xC00C642D,
    "DRM_IOCTL_PRIME_FD_TO_HANDLE": 0xC00C642E,
    "DRM_IOCTL_SYNCOBJ_CREATE": 0xC00864BF,
    "DRM_IOCTL_SYNCOBJ_DESTROY": 0xC00864C0,
    "DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD": 0xC01864C1,
    "DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE": 0xC01864C2,
    "DRM_IOCTL_SYNCOBJ_WAIT": 0xC02864C3,
    "DRM_IOCTL_SYNCOBJ_RESET": 0xC01064C4,
    "DRM_IOCTL_SYNCOBJ_SIGNAL": 0xC01064C5,
    "DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT": 0xC03064CA,
    "DRM_IOCTL_SYNCOBJ_QUERY": 0xC01864CB,
    "DRM_IOCTL_SYNCOBJ_TRANSFER": 0xC02064CC,
    "DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL": 0xC01864CD,
    "DRM_IOCTL_SYNCOBJ_EVENTFD": 0xC01864CF,
    "DRM_IOCTL_NOUVEAU_GETPARAM": 0xC0106440,
    "DRM_IOCTL_NOUVEAU_CHANNEL_ALLOC": 0xC0586442,
    "DRM_IOCTL_NOUVEAU_CHANNEL_FREE": 0x40046443,
    "DRM_IOCTL_NOUVEAU_NVIF": 0xC0006447,
    "DRM_IOCTL_NOUVEAU_VM_INIT": 0xC0106450,
    "DRM_IOCTL_NOUVEAU_VM_BIND": 0xC0286451,
    "DRM_IOCTL_NOUVEAU_EXEC": 0xC0286452,
    "DRM_IOCTL_NOUVEAU_GEM_NEW": 0xC0306480,
    "DRM_IOCTL_NOUVEAU_GEM_PUSHBUF": 0xC0406481,
    "DRM_IOCTL_NOUVEAU_GEM_CPU_PREP": 0x40086482,
    "DRM_IOCTL_NOUVEAU_GEM_CPU_FINI": 0x40046483,
    "DRM_IOCTL_NOUVEAU_GEM_INFO": 0xC0286484,
}

OFFSETS = {
    "drm_version": "version_major@0 version_minor@4 version_patchlevel@8 name_len@16 name@24 date_len@32 "
    "date@40 desc_len@48 desc@56 64",
    "drm_gem_close": "handle@0 pad@4 8",
    "drm_get_cap": "capability@0 value@8 16",
    "drm_auth": "magic@0 4",
    "drm_prime_handle": "handle@0 flags@4 fd@8 12",
    "drm_syncobj_create": "handle@0 flags@4 8",
    "drm_syncobj_destroy": "handle@0 pad@4 8",
    "drm_syncobj_handle": "handle@0 flags@4 fd@8 pad@12 point@16 24",
    "drm_syncobj_wait": "handles@0 timeout_nsec@8 count_handles@16 flags@20 first_signaled@24 pad@28 "
    "deadline_nsec@32 40",
    "drm_syncobj_timeline_wait": "handles@0 points@8 timeout_nsec@16 count_handles@24 flags@28 "
    "first_signaled@32 pad@36 deadline_nsec@40 48",
    "drm_syncobj_array": "handles@0 count_handles@8 pad@12 16",
    "drm_syncobj_timeline_array": "handles@0 points@8 count_handles@16 flags@20 24",
    "drm_syncobj_transfer": "src_handle@0 dst_handle@4 src_point@8 dst_point@16 flags@24 pad@28 32",
    "drm_syncobj_eventfd": "handle@0 flags@4 point@8 fd@16 pad@20 24",
    "drm_nouveau_getparam": "param@0 value@8 16",
    "drm_nouveau_channel_alloc": "fb_ctxdma_handle@0 tt_ctxdma_handle@4 channel@8 pushbuf_domains@12 "
    "notifier_handle@16 subchan@20 nr_subchan@84 88",
    "drm_nouveau_channel_free": "channel@0 4",
    "drm_nouveau_gem_info": "handle@0 domain@4 size@8 offset@16 map_handle@24 tile_mode@32 tile_flags@36 40",
    "drm_nouveau_gem_new": "handle@0 domain@4 size@8 offset@16 map_handle@24 tile_mode@32 tile_flags@36 "
    "channel_hint@40 align@44 48",
    "drm_nouveau_gem_pushbuf": "channel@0 nr_buffers@4 buffers@8 nr_relocs@16 nr_push@20 relocs@24 push@32 "
    "suffix0@40 suffix1@44 vram_available@48 gart_available@56 64",
    "drm_nouveau_gem_cpu_prep": "handle@0 flags@4 8",
    "drm_nouveau_gem_cpu_fini": "handle@0 4",
    "drm_nouveau_sync": "flags@0 handle@4 timeline_value@8 16",
    "drm_nouveau_vm_init": "kernel_managed_addr@0 kernel_managed_size@8 16",
    "drm_nouveau_vm_bind_op": "op@0 flags@4 handle@8 pad@12 addr@16 bo_offset@24 range@32 40",
    "drm_nouveau_vm_bind": "op_count@0 flags@4 wait_count@8 sig_count@12 wait_ptr@16 sig_ptr@24 op_ptr@32 40",
    "drm_nouveau_exec_push": "va@0 va_len@8 flags@12 16",
    "drm_nouveau_exec": "channel@0 push_count@4 wait_count@8 sig_count@12 wait_ptr@16 sig_ptr@24 "
    "push_ptr@32 40",
    "nvif_ioctl_v0": "version@0 type@1 pad02@2 owner@6 route@7 token@8 object@16 24",
    "nvif_ioctl_new_v0": "version@0 pad01@1 route@7 token@8 object@16 handle@24 oclass@28 32",
    "nvif_ioctl_mthd_v0": "version@0 method@1 pad02@2 8",
    "nvif_ioctl_sclass_v0": "version@0 count@1 pad02@2 8",
    "nvif_ioctl_sclass_oclass_v0": "oclass@0 minver@4 maxver@6 8",
    "nv_device_info_v0": "version@0 platform@1 chipset@2 revision@4 family@5 pad06@6 ram_size@8 ram_user@16 "
    "chip@24 name@40 104",
}
"""Fields and where they are, and at the end the size, of each structure."""

SERIES_OFFSETS = {"drm_nouveau_exec_push": "va@0 va_len@8 16"}
"""Where the original series' differ."""

_ARRAYS = "EFAULT ENOMEM"
ERRNOS = {
    "VERSION": "EFAULT",
    "GEM_CLOSE": "EINVAL",
    "GET_CAP": "EOPNOTSUPP",
    "AUTH_MAGIC": "EINVAL",
    "PRIME_HANDLE_TO_FD": "EINVAL ENOENT EPERM",
    "PRIME_FD_TO_HANDLE": "EBADF EINVAL",
    "SYNCOBJ_CREATE": "EINVAL",
    "SYNCOBJ_DESTROY": "EINVAL",
    "SYNCOBJ_HANDLE_TO_FD": "EINVAL ENOENT",
    "SYNCOBJ_FD_TO_HANDLE": "EINVAL ENOENT",
    "SYNCOBJ_WAIT": f"EINVAL ENOENT ETIME {_ARRAYS}",
    "SYNCOBJ_RESET": f"EINVAL ENOENT {_ARRAYS}",
    "SYNCOBJ_SIGNAL": f"EINVAL ENOENT {_ARRAYS}",
    "SYNCOBJ_TIMELINE_WAIT": f"EINVAL ENOENT ETIME {_ARRAYS}",
    "SYNCOBJ_QUERY": f"EINVAL ENOENT {_ARRAYS}",
    "SYNCOBJ_TRANSFER": "EINVAL ENOENT",
    "SYNCOBJ_TIMELINE_SIGNAL": f"EINVAL ENOENT {_ARRAYS}",
    "SYNCOBJ_EVENTFD": "EBADF EINVAL ENOENT",
    "NOUVEAU_GETPARAM": "EINVAL",
    "NOUVEAU_CHANNEL_ALLOC": "EINVAL ENOSYS",
    "NOUVEAU_CHANNEL_FREE": "ENOENT",
    "NOUVEAU_NVIF": "EEXIST EINVAL",
    "NOUVEAU_VM_INIT": "EBUSY EINVAL ENOSYS",
    "NOUVEAU_VM_BIND": f"EEXIST EINVAL ENOENT ENOSPC ENOSYS EOPNOTSUPP {_ARRAYS}",
    "NOUVEAU_EXEC": f"EINVAL ENODEV ENOENT ENOSYS EOPNOTSUPP {_ARRAYS}",
    "NOUVEAU_GEM_NEW": "EINVAL ENOMEM",
    "NOUVEAU_GEM_PUSHBUF": "ENOSYS",
    "NOUVEAU_GEM_CPU_PREP": "EBUSY ENOENT",
    "NOUVEAU_GEM_CPU_FINI": "ENOENT",
    "NOUVEAU_GEM_INFO": "ENOENT",
}
"""What each ioctl may fail with, but for interruptions and for descriptors that run out."""
