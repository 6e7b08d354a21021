"""Which calls a trace tells, and where each stands among those of other threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gpuvm.errors import GpuvmError
from gpuvm.nouveau.uapi import numbers, structs
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.calls import CALLS
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE, WAIT_FOR_SUBMIT


class Told(NamedTuple):
    """How one call is told.

    It stands where it ended, as does one that waits or makes something, unless it is ``early``. VM_BIND and
    EXEC stand where the driver says that they took effect.
    """

    early: bool = False
    """It stands where it began: it lets others go on, or takes something away."""
    file: bool = False
    """It passes a file, which is told by a number."""


_EARLY: Final = (
    numbers.CHANNEL_FREE,
    numbers.GEM_CLOSE,
    numbers.SYNCOBJ_DESTROY,
    numbers.SYNCOBJ_RESET,
    numbers.SYNCOBJ_SIGNAL,
    numbers.SYNCOBJ_TRANSFER,
    numbers.SYNCOBJ_TIMELINE_SIGNAL,
    numbers.SYNCOBJ_EVENTFD,
)


def _all() -> dict[Ioctl, Told]:
    return {
        **dict.fromkeys(CALLS, Told()),
        **dict.fromkeys(_EARLY, Told(early=True)),
        numbers.PRIME_HANDLE_TO_FD: Told(file=True),
        numbers.PRIME_FD_TO_HANDLE: Told(file=True),
        numbers.SYNCOBJ_HANDLE_TO_FD: Told(file=True),
        numbers.SYNCOBJ_FD_TO_HANDLE: Told(early=True, file=True),
    }


_LOOKED_AT: Final[Mapping[int, tuple[Layout, int, int, bool]]] = {
    numbers.SYNCOBJ_TRANSFER.number: (structs.SYNCOBJ_TRANSFER, 4, WAIT_FOR_SUBMIT, False),
    numbers.SYNCOBJ_FD_TO_HANDLE.number: (structs.SYNCOBJ_HANDLE, 1, FD_TO_HANDLE_IMPORT_SYNC_FILE, True),
}
"""By number: where its flags are, a flag, and whether the call is early with that one."""

TOLD: Final[Mapping[int, Told]] = {ioctl.number: told for ioctl, told in _all().items()}
"""By number: all calls."""


def is_early(caller: Caller, number: int, arg: int) -> bool:
    """Whether an early call is: these are not if they wait, or make something."""
    if number not in _LOOKED_AT:
        return True
    layout, field, flag, early = _LOOKED_AT[number]
    try:
        flags = layout.unpack(caller.memory.read(arg, layout.size))[field]
    except GpuvmError:
        return False
    return bool(flags & flag) is early
