"""Memories for tests: files with content, what a view begins with, and few maps for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gpuvm.mem.map_count import map_count
from gpuvm.mem.sparse_file import SparseFile

PAGE = 4096


def numbered_file(pages: int, tag: int) -> SparseFile:
    """Each page begins with ``tag`` and its number."""
    file = SparseFile(f"numbered {tag}", pages * PAGE)
    for page in range(pages):
        os.pwrite(file.fd, bytes((tag, page)), page * PAGE)
    return file


def first_bytes(view: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[tuple[int, int]]:
    """The first two bytes of each page."""
    return [(int(view[addr]), int(view[addr + 1])) for addr in range(0, len(view), PAGE)]


@contextmanager
def few_maps(more: int) -> Iterator[None]:
    """Within the block the process may have only ``more`` maps more by us."""
    before = map_count.limit
    map_count.limit = map_count.used + more
    try:
        yield
    finally:
        map_count.limit = before
