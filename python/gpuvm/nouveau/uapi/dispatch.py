"""Dispatch: from an ioctl's number and bytes to the call, and back to bytes and an errno (``drm_ioctl``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gpuvm.errors import GpuvmError, InvalidArgument, NotSupported, UnknownCall
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.calls import CALLS, Call
from gpuvm.nouveau.uapi.numbers import OF_DISPLAYS, TYPE, Direction

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
_BOTH_WAYS: Final = (_IN | _OUT) << 30 | TYPE << 8
"""What a request has besides a number and a size."""


def ioctl(
    client: Client,
    request: int,
    buffer: bytearray | memoryview | array[int],
    caller: Caller | None = None,
) -> int:
    """Carry out one ioctl: 0, or minus an errno.

    The structure in ``buffer`` may be shorter than today's, as older programs have it: the rest is taken for
    zeros. It may be longer: the rest is left alone. Answers are written into it, as far as it goes.

    Locking: as the call that it is. Cost: a few microseconds more.

    Args:
        request: as passed to ``ioctl(2)``, of which only the number, the size and the direction count; or the
            number alone, for a structure of all of ``buffer``.
        caller: whose pointers and descriptors are in the structure. Default: this process.

    Raises:
        TypeError: nothing can be written into ``buffer``, and the call answers; or it is not contiguous.

    Source: ``drm_ioctl``, ``nouveau_drm_ioctl``.
    """
    view = memoryview(buffer).cast("B")
    size = view.nbytes
    whole = request
    if request & ~0xFF:
        size = min(size, request >> 16 & 0x3FFF)
    else:
        whole |= _BOTH_WAYS
    try:
        call, direction, kernel_size = _STANDARD.get(whole) or _find(whole)
    except GpuvmError as error:
        return _refused(client, error)
    if view.readonly and direction & _OUT:
        raise TypeError(
            f"ioctl {request:#x} answers into its buffer, and this one is read-only; pass a bytearray"
        )
    data = bytearray(max(size, kernel_size))
    if direction & _IN:
        data[:size] = view[:size]
    result = 0
    try:
        call(client, data, Caller.own() if caller is None else caller)
    except GpuvmError as error:
        result = _refused(client, error)
    if direction & _OUT:
        view[:size] = data[:size]
    return result


def drm_ioctl(client: Client, request: int, arg: int, caller: Caller) -> int:
    """As ``ioctl``, with the structure in the caller's memory, at ``arg``: copied once, answered once.

    If it cannot be read nothing is done. What was done is done even if the answer cannot be written.

    Args:
        request, arg: as a program passes them to ``ioctl(2)``.

    Source: ``drm_ioctl``.
    """
    size = request >> 16 & 0x3FFF
    data = bytearray()
    result = 0
    try:
        call, direction, kernel_size = _STANDARD.get(request) or _find(request)
        if direction & _IN:
            data = caller.memory.read(arg, size)
    except GpuvmError as error:
        return _refused(client, error)
    if len(data) < kernel_size:
        data += bytes(max(size, kernel_size) - len(data))
    try:
        call(client, data, caller)
    except GpuvmError as error:
        result = _refused(client, error)
    if direction & _OUT:
        try:
            caller.memory.write(arg, data[:size])
        except GpuvmError as error:
            result = _refused(client, error)
    return result


def _find(request: int) -> tuple[Call, int, int]:
    """The call, who reads its structure, and how many bytes that has today.

    Raises:
        UnknownCall: none of DRM's.
        NotSupported: it is about displays.
        InvalidArgument: no such number.
    """
    if request >> 8 & 0xFF != TYPE:
        of = request >> 8 & 0xFF
        raise UnknownCall(f"ioctl {request:#x} is of type {of:#x}; DRM's is {TYPE:#x}")
    known = _CALLS.get(request & 0xFF)
    if known is None:
        if request & 0xFF in OF_DISPLAYS:
            raise NotSupported(f"ioctl {request:#x} is about displays; this device drives none")
        raise InvalidArgument(f"ioctl: number {request & 0xFF:#x} is no call")
    call, reads, size = known
    return call, request >> 30 & reads if size else reads, size  # NVIF copies both ways, whatever it is told


_STANDARD: Final = {ioctl.request: _find(ioctl.request) for ioctl in CALLS}
"""What today's programs pass, found once."""


def _refused(client: Client, error: GpuvmError) -> int:
    """The answer. Of ``error`` only its text is kept: its traceback has objects that may have to go."""
    client.last_error = "\n".join((str(error), *getattr(error, "__notes__", ())))
    return -error.code
