"""Allocations that fail on demand, wherever the driver or its spaces make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from gpuvm import _core
from gpuvm.mem import faults
from gpuvm.sync import resv


@contextmanager
def core_refuses(number: int) -> Iterator[None]:
    """The allocation of this number that the core makes in the block fails."""
    _core.fail_allocation(number)
    try:
        yield
    finally:
        _core.fail_allocation(None)


SOURCES: dict[str, Callable[[int], AbstractContextManager[None]]] = {
    "memory": faults.refuse_allocation,
    "core": core_refuses,
    "reservations": resv.refuse_reservation,
}
