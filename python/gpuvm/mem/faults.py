"""Fault injection: every allocation of memory management asks here first, and can be made to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from gpuvm.errors import OutOfMemory

_watch: Callable[[str], None] | None = None
"""Called at every allocation with what is allocated; fails as the allocation is to fail."""


def may_fail(what: str) -> None:
    """Called by whatever allocates, before it changes anything.

    Args:
        what: a noun for the message, like "table memory".

    Raises:
        OutOfMemory: a test wants this allocation to fail.
    """
    if _watch is not None:
        _watch(what)


@contextmanager
def refuse_allocation(number: int) -> Iterator[None]:
    """Within the block the ``number``-th allocation, from 0 on, fails with ``OutOfMemory``."""
    numbers = count()

    def refuse(what: str) -> None:
        if next(numbers) == number:
            raise OutOfMemory(
                f"{what}: allocation {number} was made to fail by a test; nothing was changed", value=number
            )

    with _watched(refuse):
        yield


@contextmanager
def count_allocations() -> Iterator[list[str]]:
    """Note within the block what is allocated, in order; each of them ``refuse_allocation`` can hit."""
    allocations: list[str] = []
    with _watched(allocations.append):
        yield allocations


@contextmanager
def _watched(watch: Callable[[str], None]) -> Iterator[None]:
    global _watch
    before, _watch = _watch, watch
    try:
        yield
    finally:
        _watch = before
