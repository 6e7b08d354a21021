"""Contexts: the numbers of the timelines on which fences lie, and what a number must be."""

from __future__ import annotations

import operator
from _thread import allocate_lock
from typing import Final

from gpuvm.errors import InvalidArgument

U64_MAX: Final = 2**64 - 1

_next = 1
_guard = allocate_lock()


def fence_context_alloc(count: int = 1) -> int:
    """The first of ``count`` fresh contexts with successive numbers. Any thread.

    Raises:
        InvalidArgument: ``count`` is less than 1.

    Source: ``dma_fence_context_alloc``.
    """
    global _next
    if operator.index(count) < 1:
        raise InvalidArgument(f"fence_context_alloc: count is {count}; ask for at least 1", count, 1)
    with _guard:
        first = _next
        _next += count
    return first


def check_u64(what: str, value: int) -> None:
    """Refuse what is no u64. ``what`` names it, after the call: ``"wait: point"``.

    Raises:
        InvalidArgument: it is negative or too large.
        TypeError: it is no integer.
    """
    if not 0 <= operator.index(value) <= U64_MAX:
        raise InvalidArgument(f"{what} {value}; it is a u64, from 0 to 2**64 - 1", value, U64_MAX)
