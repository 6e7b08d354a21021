"""Faces: as which file of ours something shows itself, be it a node's file or a descriptor of an open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from gpuvm._core import PathFilter
from gpuvm.device import linux
from gpuvm.device.node import OpenNode, Opens
from gpuvm.device.tree import MAJOR, NodeName

_WORDS: Final = (b"dri", b"nvidia")
"""Of paths whose absence is told."""
_RDEV: Final = slice(40, 48)
_RDEV_OF_STATX: Final = slice(0x80, 0x88)


class Faces:
    """The files that programs know the device by.

    Locking: any thread.

    Args:
        opens: of the device.
        nodes: descriptors (``O_PATH``) of the nodes' files; they stay open.
        objects: a descriptor of the file that descriptors of an open are of.
        multiplexer: a descriptor (``O_PATH``) of ``/dev/ptmx``, if programs cannot open that themselves.

    Attributes:
        proc: of procfs, as ``st_dev``.
    """

    def __init__(
        self, opens: Opens, nodes: Mapping[NodeName, int], objects: int, multiplexer: int | None
    ) -> None:
        self.opens: Final = opens
        self._nodes: Final = dict(nodes)
        self._by_file: Final = {_file(fd): name for name, fd in nodes.items()}
        self._objects: Final = _file(objects)
        self.multiplexer: Final = multiplexer
        self._terminals: Final = None if multiplexer is None else _file(multiplexer)
        self.proc: Final = os.stat("/proc").st_dev
        files = [*self._by_file, self._objects, *([self._terminals] if self._terminals else [])]
        self.candidate: Final = PathFilter(files, self.proc, _WORDS).candidate
        """The path at an address, if it may lead here; its arguments are those of ``resolve``."""

    def of(self, fd: int, status: os.stat_result) -> NodeName | None:
        """Which node a file is, or is an open of; None if it is none.

        Args:
            fd: a descriptor of our own, of this ``status``.
        """
        file = status.st_dev, status.st_ino
        if file == self._objects:
            return self.of_open(os.getpid(), fd)
        return self._by_file.get(file)

    def is_multiplexer(self, status: os.stat_result) -> bool:
        """Whether a file of this ``status`` is ``/dev/ptmx``, which programs cannot open themselves."""
        return (status.st_dev, status.st_ino) == self._terminals

    def of_open(self, tid: int, fd: int) -> NodeName | None:
        """Of which node a thread's descriptor is an open; None if it is none."""
        found = self.opens.find(tid, fd)
        return NodeName(found.node) if isinstance(found, OpenNode) else None

    def stat(self, name: NodeName, flags: int) -> bytearray:
        """``struct stat`` of a node, now.

        Raises:
            OSError: what the kernel says to the flags.
        """
        data = linux.stat_bytes(self._nodes[name], flags)
        if name.minor is not None:
            data[_RDEV] = os.makedev(MAJOR, name.minor).to_bytes(8, "little")
        return data

    def statx(self, name: NodeName, flags: int, mask: int) -> bytearray:
        """``struct statx`` of a node, now.

        Raises:
            OSError: what the kernel says to the flags and the mask.
        """
        data = linux.statx_bytes(self._nodes[name], flags, mask)
        if name.minor is not None:
            data[_RDEV_OF_STATX] = MAJOR.to_bytes(4, "little") + name.minor.to_bytes(4, "little")
        return data


def _file(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
