"""Starts of programs in processes of their own, on machines that lack something."""

from __future__ import annotations

import ctypes
import os
import struct
import traceback
from collections.abc import Callable

from gpuvm.device import caught, filesystem, linux, seccomp
from gpuvm.device.plan import Plan
from gpuvm.device.starting import Started, start
from gpuvm.errors import GpuvmError
from gpuvm.nouveau.chipset import chip_of

RET_ERRNO, ALLOW = 0x50000, 0x7FFF0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


def plan_for(*, users: bool, root: bytes | None = None) -> Plan:
    rules = seccomp.program(caught.rules(paths_are_stated=users))
    return Plan(filesystem.files(chip_of(0x162)), root, users=users, real_nodes=not users, rules=rules)


def started(*words: str, users: bool, root: bytes | None = None) -> Started:
    one = start([word.encode() for word in words], plan_for(users=users, root=root))
    try:
        one.try_rights()
    except GpuvmError:
        one.abandon()
        raise
    return one


def refuse(number: int, code: int) -> None:
    """From now on the kernel refuses this process and its children a system call."""
    linux.no_new_privileges()
    code_bytes = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (LOAD, 0, 0, 0),
            (JUMP_IF_EQUAL, 0, 1, number),
            (RETURN, 0, 0, RET_ERRNO | code),
            (RETURN, 0, 0, ALLOW),
        )
    )
    buffer = ctypes.create_string_buffer(code_bytes, len(code_bytes))
    seccomp.seccomp(1, 0, struct.pack("=H6xQ", len(code_bytes) // 8, ctypes.addressof(buffer)))


def told_by_child(work: Callable[[], object]) -> str:
    """What ``work`` returns, or the error that it raises, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            told = str(work())
        except GpuvmError as error:
            told = f"{type(error).__name__}: {error}"
        except BaseException:
            told = traceback.format_exc()
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    return text
