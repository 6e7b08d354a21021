"""What a program finds in directories that were not there: files as data, to be laid over a file system.

Here is what both sides of a start know; it imports little, since a fresh process reads it each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

MAJOR: Final = 226
"""Of DRM's devices."""


class NodeName(Enum):
    """A file that a program opens to talk to us."""

    CARD = "card0"
    RENDER = "renderD128"
    SW_SYNC = "sw_sync"
    """A timeline that a program advances by hand; a file of debugfs and no device."""

    @property
    def minor(self) -> int | None:
        """Number of the device; None if it is none."""
        return _MINORS.get(self)


_MINORS: Final = {NodeName.CARD: 0, NodeName.RENDER: 128}


@dataclass(frozen=True, slots=True)
class File:
    """A file that is read."""

    content: bytes
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Node:
    """One of ours."""

    name: NodeName


@dataclass(frozen=True, slots=True)
class Bind:
    """What is at another place, with all that is mounted there."""

    source: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory: what it has besides what is there already.

    Args:
        entries: by name; one that is not a directory replaces what has its name.
        alone: hides all that is there.
        fixed: nothing can be made, written or removed in it.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    alone: bool = False
    fixed: bool = False
    hidden: str = ""
    """Names that begin so are hidden."""


Entry = File | Link | Node | Bind | Directory
