"""The calls, by the names that client.c gives them, and what was to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from bench import targets


@dataclass(frozen=True)
class Call:
    """A row."""

    name: str
    title: str
    of_node: bool = True
    """Whether it needs a GPU's node."""
    native_ratio: float | None = None
    """gpuvm to stay below so many times what it is natively."""
    floor_ratio: float | None = None
    """And so many times the floor."""
    ns: float | None = None
    """And so many ns."""


def _not_caught(name: str, title: str) -> Call:
    return Call(name, f"{title}, not caught", of_node=False, native_ratio=targets.NOT_CAUGHT_RATIO)


CALLS = (
    _not_caught("getpid", "getpid"),
    _not_caught("read", "pread of 8 bytes"),
    _not_caught("mmap", "mmap and munmap of 64 KiB"),
    _not_caught("foreign", "ioctl FIONREAD of a pipe"),
    Call("foreign_d", "ioctl of DRM's type on a pipe: ENOTTY", of_node=False),
    Call("fstat", "fstat of another file", of_node=False),
    Call("open", "open and close of another file", of_node=False),
    Call("open_node", "open and close of the node"),
    Call("getparam", "GETPARAM"),
    Call("wait", "SYNCOBJ_WAIT, signalled"),
    Call("gem", "GEM_NEW of 64 KiB and GEM_CLOSE"),
    Call("bind_1", "VM_BIND of 1 operation", floor_ratio=targets.CAUGHT_BIND_RATIO),
    Call("bind_256", "VM_BIND of 256 operations", ns=targets.CAUGHT_BINDS_NS),
    Call("exec", "EXEC of nothing"),
)
