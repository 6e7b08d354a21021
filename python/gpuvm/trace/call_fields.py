"""Which fields the calls have that are read by a table: those that leave address spaces alone."""

from __future__ import annotations

from typing import Final, NamedTuple

from gpuvm.trace import recorded
from gpuvm.trace.recorded import Other

U64_MAX: Final = 2**64 - 1
U32_MAX: Final = 2**32 - 1
S32_MIN: Final = -(2**31)
S32_MAX: Final = 2**31 - 1


class Field(NamedTuple):
    """A whole number of ``[least, most]``, or with ``many`` a list of them.

    One that is ``needed`` makes the call an `Untold` where it is absent; another is ``default`` then. A
    ``result`` is read of a call that succeeded.
    """

    name: str
    most: int = U32_MAX
    least: int = 0
    many: bool = False
    needed: bool = False
    default: int | tuple[int, ...] | None = None
    result: bool = False


def _needed(name: str, most: int = U32_MAX, *, least: int = 0, many: bool = False) -> Field:
    return Field(name, most, least, many, needed=True)


def _result(name: str, most: int = U32_MAX, *, least: int = 0, many: bool = False) -> Field:
    return Field(name, most, least, many, result=True)


_FLAGS: Final = Field("flags", default=0)
_POINT: Final = Field("point", U64_MAX, default=0)
_POINTS: Final = Field("points", U64_MAX, many=True, default=())
_HANDLE: Final = _needed("handle")
_HANDLES: Final = _needed("handles", many=True)
_CHANNEL: Final = _needed("channel", S32_MAX, least=S32_MIN)

FIELDS: Final[dict[str, tuple[type[Other], tuple[Field, ...]]]] = {
    # nouveau
    "channel_alloc": (recorded.ChannelAlloc, (_result("channel", S32_MAX),)),
    "channel_free": (recorded.ChannelFree, (_CHANNEL,)),
    "gem_info": (recorded.GemInfo, (_HANDLE, _result("size", U64_MAX))),
    "gem_cpu_prep": (recorded.CpuPrep, (_HANDLE, _FLAGS)),
    "gem_cpu_fini": (recorded.CpuFini, (_HANDLE,)),
    "getparam": (recorded.GetParam, (_needed("param", U64_MAX), _result("value", U64_MAX))),
    # every DRM driver
    "get_cap": (recorded.GetCap, (_needed("capability", U64_MAX), _result("value", U64_MAX))),
    "prime_handle_to_fd": (recorded.GemExport, (_HANDLE, _FLAGS, _result("fd", S32_MAX))),
    "syncobj_create": (recorded.SyncobjCreate, (_FLAGS, _result("handle"))),
    "syncobj_destroy": (recorded.SyncobjDestroy, (_HANDLE,)),
    "syncobj_reset": (recorded.SyncobjReset, (_HANDLES,)),
    "syncobj_signal": (recorded.SyncobjSignal, (_HANDLES,)),
    "syncobj_timeline_signal": (recorded.SyncobjTimelineSignal, (_HANDLES, _POINTS)),
    "syncobj_query": (recorded.SyncobjQuery, (_HANDLES, _FLAGS, _result("points", U64_MAX, many=True))),
    "syncobj_transfer": (
        recorded.SyncobjTransfer,
        (
            _needed("src_handle"),
            _needed("dst_handle"),
            Field("src_point", U64_MAX, default=0),
            Field("dst_point", U64_MAX, default=0),
            _FLAGS,
        ),
    ),
    "syncobj_wait": (recorded.SyncobjWait, (_HANDLES, _FLAGS)),
    "syncobj_timeline_wait": (recorded.SyncobjTimelineWait, (_HANDLES, _POINTS, _FLAGS)),
    "syncobj_handle_to_fd": (recorded.SyncobjExport, (_HANDLE, _FLAGS, _POINT, _result("fd", S32_MAX))),
    "syncobj_fd_to_handle": (
        recorded.SyncobjImport,
        (_needed("fd", S32_MAX, least=S32_MIN), _FLAGS, _POINT, Field("handle")),
    ),
    "syncobj_eventfd": (recorded.SyncobjEventfd, (_HANDLE, _FLAGS, _POINT)),
    # calls of which no field is read
    "version": (Other, ()),
    "gem_pushbuf": (Other, ()),
    "close": (Other, ()),  # no ioctl: the last descriptor of the open is gone
    **dict.fromkeys(
        (
            *("setparam", "grobj_alloc", "notifierobj_alloc", "gpuobj_free", "nvif", "svm_init", "svm_bind"),
            *("get_zcull_info", "get_unique", "get_magic", "auth_magic", "get_client", "get_stats"),
            *("set_version", "set_client_cap", "set_client_name", "set_master", "drop_master", "gem_flink"),
        ),
        (Other, ()),
    ),
}
"""By call: what record it makes, and the record's own fields in their order."""
