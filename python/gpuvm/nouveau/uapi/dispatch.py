"""Dispatch: from an ioctl's number and bytes to the call, and back to bytes and an errno (``drm_ioctl``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gpuvm.errors import GpuvmError, InvalidArgument, UnknownCall
from gpuvm.nouveau.uapi.calls import CALLS, Call
from gpuvm.nouveau.uapi.numbers import TYPE, Direction
from gpuvm.nouveau.uapi.user_memory import UserMemory

if TYPE_CHECKING:
    from array import array

    from gpuvm.nouveau.client import Client

# Plain numbers: flags of an enum take a microsecond each time that they are tested.
_IN: Final = int(Direction.IN)
_OUT: Final = int(Direction.OUT)
_CALLS: Final[dict[int, tuple[Call, int, int]]] = {
    ioctl.number: (call, int(ioctl.direction), ioctl.size) for ioctl, call in CALLS.items()
}
"""By number: the call, who reads its structure, how many bytes that has today."""


def ioctl(
    client: Client,
    request: int,
    buffer: bytearray | memoryview | array[int],
    memory: UserMemory | None = None,
) -> int:
    """Carry out one ioctl: 0, or minus an errno.

    The structure in ``buffer`` may be shorter than today's, as older programs have it: the rest is taken for
    zeros. It may be longer: the rest is left alone. Answers are written into it, as far as it goes.

    Locking: as the call that it is. Cost: a few microseconds more.

    Args:
        request: as passed to ``ioctl(2)``, of which only the number, the size and the direction count; or the
            number alone, for a structure of all of ``buffer``.
        memory: what pointers in the structure lead to. Default: this process's memory.

    Raises:
        TypeError: nothing can be written into ``buffer``, and the call answers; or it is not contiguous.

    Source: ``drm_ioctl``, ``nouveau_drm_ioctl``.
    """
    view = memoryview(buffer).cast("B")
    size = view.nbytes
    direction = _IN | _OUT
    if request & ~0xFF:
        if request >> 8 & 0xFF != TYPE:
            of = request >> 8 & 0xFF
            return _refused(client, UnknownCall(f"ioctl {request:#x} is of type {of:#x}; DRM's is {TYPE:#x}"))
        size = min(size, request >> 16 & 0x3FFF)
        direction = request >> 30 & 3
    known = _CALLS.get(request & 0xFF)
    if known is None:
        return _refused(client, InvalidArgument(f"ioctl {request:#x}: number {request & 0xFF:#x} is no call"))
    call, reads, kernel_size = known
    direction = direction & reads if kernel_size else reads  # NVIF copies both ways, whatever it is told
    if view.readonly and direction & _OUT:
        raise TypeError(
            f"ioctl {request:#x} answers into its buffer, and this one is read-only; pass a bytearray"
        )
    data = bytearray(max(size, kernel_size))
    if direction & _IN:
        data[:size] = view[:size]
    result = 0
    try:
        call(client, data, UserMemory.own() if memory is None else memory)
    except GpuvmError as error:
        result = _refused(client, error)
    if direction & _OUT:
        view[:size] = data[:size]
    return result


def _refused(client: Client, error: GpuvmError) -> int:
    """The answer. Of ``error`` only its text is kept: its traceback has objects that may have to go."""
    client.last_error = "\n".join((str(error), *getattr(error, "__notes__", ())))
    return -error.code
