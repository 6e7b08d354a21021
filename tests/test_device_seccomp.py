"""The filter catches what its rules say and nothing else, and a kernel that lacks what it takes is named."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caught_program import IOCTLS, CaughtProgram
from compiled import compiled, needs_cc
from gpuvm.device import caught, linux, seccomp
from gpuvm.device.seccomp import Rule
from gpuvm.errors import Busy, NotSupported, OutOfMemory, PermissionDenied
from toys import Toys

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000


def verdict(code: bytes, nr: int, args: tuple[int, ...], arch: int = X86_64) -> int:
    """What the kernel's interpreter makes of the filter (Documentation/networking/filter.rst)."""
    data = struct.pack("=iIQ6Q", nr, arch, 0, *args)
    instructions = list(struct.iter_unpack("=HBBI", code))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, operand = instructions[at]
        at += 1
        match operation:
            case 0x20:
                assert operand % 4 == 0
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"instruction {operation:#x}")


def caught_by(rules: list[Rule], nr: int, args: tuple[int, ...]) -> bool:
    for rule in rules:
        if rule.nr == nr:
            return not rule.values or (args[rule.argument] & 0xFFFFFFFF & rule.mask) in rule.values
    return False


U32 = st.integers(0, 0xFFFFFFFF)
SMALL = st.integers(0, 7)
RULES = st.lists(
    st.builds(
        Rule,
        st.integers(0, 9),
        st.integers(0, 5),
        st.one_of(SMALL, U32),
        st.lists(SMALL, max_size=4).map(tuple),
    ),
    unique_by=lambda rule: rule.nr,
)
ARGS = st.tuples(*[st.one_of(SMALL, st.integers(0, (1 << 64) - 1))] * 6)


@given(RULES, st.integers(0, 9), ARGS)
def test_what_rules_say(rules: list[Rule], nr: int, args: tuple[int, ...]) -> None:
    code = seccomp.program(rules)
    assert verdict(code, nr, args) == (NOTIFY if caught_by(rules, nr, args) else ALLOW)
    assert verdict(code, nr, args, I386) == ALLOW
    assert verdict(code, nr | 0x40000000, args) == ALLOW


@pytest.mark.parametrize("by_path", [False, True])
def test_what_is_caught(by_path: bool) -> None:
    code = seccomp.program(caught.rules(paths_are_stated=by_path))

    def catches(nr: int, *args: int) -> bool:
        return verdict(code, nr, (*args, *[0] * (6 - len(args)))) == NOTIFY

    for request in (0xC0406400, 0x6440, 0x40045701, 0xC0303E03, 0x40086200):
        assert catches(caught.IOCTL, 5, request)
        assert catches(caught.IOCTL, 5, request | 1 << 63)  # the kernel takes 32 bits
    assert not catches(caught.IOCTL, 5, 0x5401)
    assert catches(caught.OPENAT, 0, 0, os.O_RDWR | os.O_CLOEXEC)
    assert not catches(caught.OPENAT, 0, 0, os.O_RDONLY | os.O_DIRECTORY)
    assert not catches(caught.OPENAT, 0, 0, os.O_PATH)
    assert not catches(caught.OPENAT, 0, 0, os.O_TMPFILE | os.O_RDWR)
    assert catches(caught.OPEN, 0, os.O_RDONLY)
    assert catches(caught.FSTAT, 3)
    assert catches(caught.NEWFSTATAT, 3, 0, 0, 0x1000)
    assert catches(caught.STATX, 3, 0, 0x1100)
    assert catches(caught.NEWFSTATAT, 3, 0, 0, 0x100)
    assert catches(caught.NEWFSTATAT, linux.AT_FDCWD & 0xFFFFFFFF, 0, 0, 0x100) == by_path
    assert catches(caught.STATX, 3, 0, 0x100) == by_path
    assert catches(caught.STAT) == catches(caught.LSTAT) == by_path
    assert not any(catches(nr, *[(1 << 64) - 1] * 6) for nr in (0, 1, 3, 9, 11, 39, 56, 57, 58, 59, 202))


@needs_cc
def test_calls_of_other_architectures_are_not_caught() -> None:
    toys = Toys()
    with CaughtProgram([compiled("foreign_calls")], toys) as program:
        assert program.finish() == (0, "")
        assert program.server.statistics().calls == 1


def refuse(monkeypatch: pytest.MonkeyPatch, answers: dict[tuple[int, int], int]) -> None:
    """Have the kernel answer so: by operation and flags; what is not there succeeds."""

    def syscall(operation: int, flags: int, _argument: bytes | None) -> int:
        code = answers.get((operation, flags), 0)
        if code:
            raise OSError(code, os.strerror(code))
        return 0

    monkeypatch.setattr(seccomp, "seccomp", syscall)


INSTALL, ACTION, PROBE = (1, seccomp.FLAGS), (2, 0), (1, 1 << 3 | 1 << 5)


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ({INSTALL: errno.EBUSY}, Busy, "another `gpuvm run`"),
        ({INSTALL: errno.EACCES}, PermissionDenied, "PR_SET_NO_NEW_PRIVS"),
        ({INSTALL: errno.ENOMEM}, OutOfMemory, "no memory for the filter"),
        ({INSTALL: errno.ENOSYS, ACTION: errno.ENOSYS}, NotSupported, "CONFIG_SECCOMP_FILTER"),
        ({INSTALL: errno.EINVAL, ACTION: errno.EOPNOTSUPP}, NotSupported, "USER_NOTIF; use Linux 5.19"),
        (
            {INSTALL: errno.EINVAL, PROBE: errno.EINVAL},
            NotSupported,
            "WAIT_KILLABLE_RECV, without which a signal could .* use Linux 5.19",
        ),
        ({INSTALL: errno.EINVAL, PROBE: errno.EFAULT}, NotSupported, "Invalid argument; this kernel"),
    ],
)
def test_why_the_kernel_takes_no_filter(
    monkeypatch: pytest.MonkeyPatch, answers: dict[tuple[int, int], int], error: type[OSError], message: str
) -> None:
    refuse(monkeypatch, answers)
    with pytest.raises(error, match=message):
        seccomp.install(seccomp.program(IOCTLS))


def test_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    names = os.uname()
    fields: Any = (*names[:4], "aarch64")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(fields))
    with pytest.raises(NotSupported, match="x86-64 only, and this is aarch64"):
        seccomp.install(seccomp.program(IOCTLS))


CHILD = """
import ctypes, os
from gpuvm.device import seccomp
from gpuvm.errors import GpuvmError
code = seccomp.program([seccomp.Rule(9999)])
libc = ctypes.CDLL(None)
def attempt():
    try:
        print(os.get_inheritable(seccomp.install(code)))
    except GpuvmError as error:
        print(type(error).__name__)
"""


def real(script: str) -> list[str]:
    """What a process of its own says after it, since a filter stays for ever."""
    done = subprocess.run([sys.executable, "-c", CHILD + script], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().split()


def test_this_kernel_takes_one_filter_that_listens() -> None:
    assert real("libc.prctl(38, 1, 0, 0, 0); attempt(); attempt()") == ["False", "Busy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_this_kernel_wants_no_new_privileges_first() -> None:
    become = "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    assert real(become + "attempt(); libc.prctl(38, 1, 0, 0, 0); attempt()") == ["PermissionDenied", "False"]


def test_this_kernel_says_which_features_it_has() -> None:
    assert seccomp._missing() is None
