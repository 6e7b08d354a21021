"""The calls of a trace by their ioctl numbers, those too that gpuvm's driver does not have."""

from __future__ import annotations

from typing import Final

CLOSE: Final = -1
"""No ioctl: the last descriptor of the open is gone."""

NUMBERS: Final[dict[str, int]] = {
    "close": CLOSE,
    # every DRM driver
    "version": 0x00,
    "get_unique": 0x01,
    "get_magic": 0x02,
    "get_client": 0x05,
    "get_stats": 0x06,
    "set_version": 0x07,
    "gem_close": 0x09,
    "gem_flink": 0x0A,
    "gem_open": 0x0B,
    "get_cap": 0x0C,
    "set_client_cap": 0x0D,
    "auth_magic": 0x11,
    "set_master": 0x1E,
    "drop_master": 0x1F,
    "prime_handle_to_fd": 0x2D,
    "prime_fd_to_handle": 0x2E,
    "syncobj_create": 0xBF,
    "syncobj_destroy": 0xC0,
    "syncobj_handle_to_fd": 0xC1,
    "syncobj_fd_to_handle": 0xC2,
    "syncobj_wait": 0xC3,
    "syncobj_reset": 0xC4,
    "syncobj_signal": 0xC5,
    "syncobj_timeline_wait": 0xCA,
    "syncobj_query": 0xCB,
    "syncobj_transfer": 0xCC,
    "syncobj_timeline_signal": 0xCD,
    "syncobj_eventfd": 0xCF,
    "set_client_name": 0xD1,
    # nouveau
    "getparam": 0x40,
    "setparam": 0x41,
    "channel_alloc": 0x42,
    "channel_free": 0x43,
    "grobj_alloc": 0x44,
    "notifierobj_alloc": 0x45,
    "gpuobj_free": 0x46,
    "nvif": 0x47,
    "svm_init": 0x48,
    "svm_bind": 0x49,
    "vm_init": 0x50,
    "vm_bind": 0x51,
    "exec": 0x52,
    "get_zcull_info": 0x53,
    "gem_new": 0x80,
    "gem_pushbuf": 0x81,
    "gem_cpu_prep": 0x82,
    "gem_cpu_fini": 0x83,
    "gem_info": 0x84,
}
"""By name; every call that `call_fields` or `jsonl` knows has one."""

NAMES: Final = {number: name for name, number in NUMBERS.items()}
