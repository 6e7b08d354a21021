"""seccomp: which system calls are caught, said to the kernel as a filter, and the listener that it gives."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from gpuvm.errors import Busy, GpuvmError, NotSupported, OutOfMemory, PermissionDenied

_libc: Final = ctypes.CDLL(None, use_errno=True)
_NR_SECCOMP: Final = 317
_SET_MODE_FILTER: Final = 1
_GET_ACTION_AVAIL: Final = 2

_SPEC_ALLOW: Final = 1 << 2
_NEW_LISTENER: Final = 1 << 3
_WAIT_KILLABLE_RECV: Final = 1 << 5
FLAGS: Final = _SPEC_ALLOW | _NEW_LISTENER | _WAIT_KILLABLE_RECV
"""``SPEC_ALLOW``: this filter confines nobody, so calls that are not caught need not pay for a barrier.

``WAIT_KILLABLE_RECV``: a signal does not abort a call that was received, so none is begun twice.
"""

_USER_NOTIF: Final = 0x7FC00000
_ALLOW: Final = 0x7FFF0000
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_OFFSET_NR: Final = 0
_OFFSET_ARCH: Final = 4
_OFFSET_ARGS: Final = 16

# BPF: class, size or operation, operand.
_LOAD: Final = 0x20
_AND: Final = 0x54
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06


class Rule(NamedTuple):
    """A system call that is caught, always or where one argument says so.

    Only the low 32 bits of the argument count: it is one that the kernel takes for an ``int``.
    """

    nr: int
    argument: int = 0
    mask: int = 0
    values: tuple[int, ...] = ()
    """Caught where the argument, masked, is one of these; none: always."""


def program(rules: Sequence[Rule]) -> bytes:
    """The filter: catches what ``rules`` say, lets all else go on at native speed.

    A system call that no rule names, or that comes from another architecture's table, x32's too, is decided
    on its number alone, which the kernel does once and remembers.

    Source: ``seccomp(2)``, ``struct sock_filter``; ``seccomp_is_const_allow``.
    """
    code = [
        _bpf(_LOAD, _OFFSET_ARCH),
        _bpf(_JUMP_IF_EQUAL, _AUDIT_ARCH_X86_64, 1, 0),
        _bpf(_RETURN, _ALLOW),
        _bpf(_LOAD, _OFFSET_NR),
    ]
    for rule in rules:
        block = _block(rule)
        code += [_bpf(_JUMP_IF_EQUAL, rule.nr, 0, len(block)), *block]
    code.append(_bpf(_RETURN, _ALLOW))
    return b"".join(code)


def _block(rule: Rule) -> list[bytes]:
    """What is done with a call of the rule's number."""
    if not rule.values:
        return [_bpf(_RETURN, _USER_NOTIF)]
    count = len(rule.values)
    return [
        _bpf(_LOAD, _OFFSET_ARGS + 8 * rule.argument),
        _bpf(_AND, rule.mask),
        *(_bpf(_JUMP_IF_EQUAL, value, count - index, 0) for index, value in enumerate(rule.values)),
        _bpf(_RETURN, _ALLOW),
        _bpf(_RETURN, _USER_NOTIF),
    ]


def _bpf(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def install(program: bytes) -> int:
    """Have the filter decide on this thread's calls, and on those of all that it becomes and begets.

    ``prctl(PR_SET_NO_NEW_PRIVS)`` must have been called, or the thread have ``CAP_SYS_ADMIN``.

    Returns:
        The listener: a descriptor, closed by ``execve``.

    Raises:
        NotSupported: the kernel lacks what it takes.
        Busy: a program that this thread descends from listens already.
        PermissionDenied: neither of the two above.
        OutOfMemory: of the kernel's.

    Source: ``seccomp(2)``.
    """
    machine = os.uname().machine
    if machine != "x86_64":
        raise NotSupported(
            f"system calls are caught on x86-64 only, and this is {machine}", machine, "x86_64"
        )
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(buffer))
    try:
        return seccomp(_SET_MODE_FILTER, FLAGS, fprog)
    except OSError as error:
        raise _why(error.errno or errno.EIO) from error


def _why(code: int) -> GpuvmError:
    """What it means that the filter was refused."""
    if code == errno.EBUSY:
        return Busy(
            "a supervisor listens to this process's system calls already, and Linux allows one in a line of "
            "descent; run it outside of that (a container's manager, or another `gpuvm run`)"
        )
    if code == errno.EACCES:
        return PermissionDenied(
            "a filter takes PR_SET_NO_NEW_PRIVS, or CAP_SYS_ADMIN, before it is installed", code
        )
    if code == errno.ENOMEM:
        return OutOfMemory("the kernel has no memory for the filter, or filters are stacked too high", code)
    missing = _missing()
    if missing is not None:
        return missing
    return NotSupported(f"seccomp: {os.strerror(code)}; this kernel does not take our filter", code)


def _missing() -> NotSupported | None:
    """The feature that this kernel lacks, if it is one that can be asked for."""
    release = os.uname().release
    try:
        seccomp(_GET_ACTION_AVAIL, 0, struct.pack("=I", _USER_NOTIF))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return NotSupported(
                "this kernel has no seccomp(2), CONFIG_SECCOMP_FILTER, or a sandbox around us hides it",
                release,
            )
        return NotSupported(
            f"this kernel, {release}, has no SECCOMP_RET_USER_NOTIF; use Linux 5.19 or newer", release, "5.19"
        )
    try:
        seccomp(_SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE_RECV, None)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return NotSupported(
                f"this kernel, {release}, has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, without which a "
                "signal could have a call carried out twice; use Linux 5.19 or newer",
                release,
                "5.19",
            )
    return None


def seccomp(operation: int, flags: int, argument: bytes | None) -> int:
    """The system call.

    Raises:
        OSError: as the kernel says.
    """
    result: int = _libc.syscall(_NR_SECCOMP, operation, flags, argument)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
