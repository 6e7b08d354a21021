"""What the process that becomes the program is told by the one that started it, and tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuvm.device.tree import Directory, NodeName
from gpuvm.errors import GpuvmError


@dataclass(frozen=True, slots=True)
class Plan:
    """How a program is started.

    Args:
        trees: what is laid over the machine's root directory.
        root: the program's root directory; None: the machine's.
        users: in a user namespace of its own.
        real_nodes: device nodes have their numbers.
        rules: which of its system calls are caught: a program for seccomp.
    """

    trees: Directory
    root: bytes | None
    users: bool
    real_nodes: bool
    rules: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """All is in place but the filter. With it come descriptors.

    They are of the private directory, of each node, and of ``/dev/ptmx`` if programs cannot open that.

    Attributes:
        nodes: in the order of the descriptors.
        devices: of file systems that stand for sysfs, as ``st_dev``.
        mark: address of ``MARK``, by which it is tried whether this process's memory can be read.
    """

    nodes: tuple[NodeName, ...]
    devices: frozenset[int]
    mark: int


@dataclass(frozen=True, slots=True)
class Filtered:
    """Its calls are caught from now on. The listener comes with it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no program.

    Attributes:
        error: why, to be raised.
    """

    error: GpuvmError


GO: Final = b"go"
MARK: Final = b"the program's memory can be read"
