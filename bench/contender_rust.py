"""The two rivals in Rust: the same records through the same kind of call, other containers behind it."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bench.contender import Contender, GapJob, Job, slices
from bench.layouts import BIND_OP, MAPPING, Records
from bench.workload import OBJECTS, PAGE, SPACE_RANGE, Finds


class RustSpace(Protocol):
    """An address space of ``gpuvm_rivals`` (see rivals/src/lib.rs)."""

    def bind(self, requests: NDArray[np.uint8]) -> int: ...
    def emitted(self) -> bytes: ...
    def find_many(self, addrs: NDArray[np.uint8], ranges: NDArray[np.uint8]) -> int: ...
    def found(self) -> bytes: ...
    def map(self, addr: int, range: int, handle: int, offset: int) -> list[tuple[int, ...]]: ...
    def find(self, addr: int, range: int) -> tuple[int, int, int, int, int] | None: ...
    def find_gap(self, range: int, align: int, fit: int) -> int | None: ...
    def mappings(self) -> bytes: ...


def cache_miss_ns(mebibytes: int) -> float:
    """What a dependent read at random in so much memory costs on this machine."""
    return float(import_module("gpuvm_rivals").cache_miss_ns(mebibytes))


def _bytes(array: Records | NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The same memory as plain bytes, which is what the rivals take."""
    return np.ascontiguousarray(array).view(np.uint8)


class RustContender(Contender):
    """Common to both: jobs that call the compiled space."""

    limit = 1 << 62
    type_name: str

    def __init__(self) -> None:
        make = getattr(import_module("gpuvm_rivals"), self.type_name)
        self._space = cast(RustSpace, make(0, SPACE_RANGE, OBJECTS))

    def bind_job(self, requests: Records, chunk: int) -> Job:
        bind = self._space.bind
        chunks = [_bytes(requests[part]) for part in slices(len(requests), chunk)]

        def job() -> int:
            total = 0
            for part in chunks:
                total += bind(part)
            return total

        return job

    def find_job(self, finds: Finds, chunk: int) -> Job:
        find_many = self._space.find_many
        chunks = [
            (_bytes(finds.addrs[part]), _bytes(finds.ranges[part])) for part in slices(len(finds), chunk)
        ]

        def job() -> int:
            for addrs, ranges in chunks:
                find_many(addrs, ranges)
            return len(finds)

        return job

    def mixed_job(self, requests: Records, finds: Finds, chunk: int) -> Job:
        bind, find_many = self._space.bind, self._space.find_many
        quarter = chunk // 4
        chunks = [
            (_bytes(requests[bound]), _bytes(finds.addrs[found]), _bytes(finds.ranges[found]))
            for bound, found in zip(
                slices(len(requests), chunk - quarter), slices(len(finds), quarter), strict=True
            )
        ]

        def job() -> int:
            total = 0
            for part, addrs, ranges in chunks:
                total += bind(part)
                find_many(addrs, ranges)
            return total

        return job

    def map_calls_job(self, requests: Records) -> Job:
        space_map = self._space.map
        calls = list(
            zip(
                requests["addr"].tolist(),
                requests["range"].tolist(),
                requests["handle"].tolist(),
                requests["bo_offset"].tolist(),
                strict=True,
            )
        )

        def job() -> int:
            for addr, size, handle, offset in calls:
                space_map(addr, size, handle, offset)
            return len(calls)

        return job

    def find_calls_job(self, finds: Finds) -> Job:
        find = self._space.find
        calls = list(zip(finds.addrs.tolist(), finds.ranges.tolist(), strict=True))

        def job() -> int:
            found = 0
            for addr, size in calls:
                if find(addr, size) is not None:
                    found += 1
            return found

        return job

    def gap_job(self, sizes: list[int], fit: int) -> GapJob:
        find_gap = self._space.find_gap

        def job() -> list[int | None]:
            return [find_gap(size, PAGE, fit) for size in sizes]

        return job

    def updates_and_gaps_job(self, requests: Records, chunk: int, sizes: list[int], fit: int) -> Job:
        bind, find_gap = self._space.bind, self._space.find_gap
        chunks = [_bytes(requests[part]) for part in slices(len(requests), chunk)]

        def job() -> int:
            total = 0
            for part, size in zip(chunks, sizes, strict=True):
                total += bind(part)
                find_gap(size, PAGE, fit)
            return total

        return job

    def bind(self, requests: Records) -> Records:
        self._space.bind(_bytes(requests))
        return np.frombuffer(self._space.emitted(), BIND_OP)

    def find(self, finds: Finds) -> Records:
        self._space.find_many(_bytes(finds.addrs), _bytes(finds.ranges))
        return np.frombuffer(self._space.found(), MAPPING)

    def mappings(self) -> Records:
        return np.frombuffer(self._space.mappings(), MAPPING)


class BTreeContender(RustContender):
    """On the standard library's BTreeMap; no object lists, no identity."""

    name = "BTreeMap"
    type_name = "BTreeSpace"


class RedBlackContender(RustContender):
    """On a red-black tree with object lists, as the kernel's."""

    name = "red-black tree"
    type_name = "RbSpace"
