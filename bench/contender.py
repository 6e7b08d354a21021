"""What every contender can do.

A *job* is built outside the clock (arrays sliced, tuples made, names bound) and is then run inside it. It
returns a number or a list that must be the same for all contenders given the same requests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from bench.layouts import Records
from bench.workload import Finds

Job: TypeAlias = Callable[[], int]
GapJob: TypeAlias = Callable[[], list[int | None]]

# How gaps are searched: the values of gpuvm.Fit.
LOWEST = 0
HIGHEST = 1
BEST = 2


def slices(total: int, chunk: int) -> list[slice]:
    """The chunks of an array."""
    return [slice(at, min(at + chunk, total)) for at in range(0, total, chunk)]


class Contender(ABC):
    """An address space with one container behind it; a new object is an empty space."""

    name: str
    """The column's title."""

    limit: int
    """The largest number of mappings at which a run finishes within reason."""

    share: int = 1
    """It runs one in so many of the requests, so that slow contenders do not take all of the time."""

    walks: bool = True
    """Whether a gap search walks the mappings."""

    sorts: bool = False
    """Whether it even has to sort them first, so that every search takes the same long time."""

    @abstractmethod
    def bind_job(self, requests: Records, chunk: int) -> Job:
        """Bulk binds, `chunk` requests a call; the number of operations emitted."""

    @abstractmethod
    def find_job(self, finds: Finds, chunk: int) -> Job:
        """Bulk exact lookups; the number of lookups made."""

    @abstractmethod
    def mixed_job(self, requests: Records, finds: Finds, chunk: int) -> Job:
        """Binds and lookups in turn, `chunk` of both together; the number of operations emitted."""

    @abstractmethod
    def map_calls_job(self, requests: Records) -> Job:
        """One call (or plan and apply) for each map request; the number of requests."""

    @abstractmethod
    def find_calls_job(self, finds: Finds) -> Job:
        """One call for each exact lookup; the number of mappings found."""

    @abstractmethod
    def gap_job(self, sizes: list[int], fit: int) -> GapJob:
        """Gap searches, page-aligned, in the whole space; the addresses (None: no room)."""

    @abstractmethod
    def updates_and_gaps_job(self, requests: Records, chunk: int, sizes: list[int], fit: int) -> Job:
        """After each chunk of requests one gap search; as many sizes as chunks."""

    @abstractmethod
    def bind(self, requests: Records) -> Records:
        """Apply the requests and return the operations (``BIND_OP``)."""

    @abstractmethod
    def find(self, finds: Finds) -> Records:
        """The mappings found (``MAPPING``), zeros where there is none."""

    @abstractmethod
    def mappings(self) -> Records:
        """Every mapping in address order (``MAPPING``)."""
