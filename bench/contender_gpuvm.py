"""gpuvm itself, through its public interface only."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpuvm
from bench.contender import Contender, GapJob, Job, slices
from bench.layouts import Records
from bench.workload import OBJECTS, PAGE, SPACE_RANGE, Finds


def layouts() -> tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]:
    """gpuvm's own records: request, operation, mapping."""
    return gpuvm.VM_BIND_OP, gpuvm.BIND_OP, gpuvm.MAPPING


class Buffer:
    """Any Python object can be mapped; this one is as plain as they come."""

    __slots__ = ("__weakref__",)


class GpuvmContender(Contender):
    """A ``gpuvm.GpuVm`` with its object lists, its stable mappings and its index of holes."""

    name = "gpuvm"
    limit = 1 << 62
    walks = False

    def __init__(self) -> None:
        self._vm = gpuvm.GpuVm("bench", range=SPACE_RANGE)
        self._objects: dict[int, object] = {handle: Buffer() for handle in range(1, OBJECTS + 1)}

    def bind_job(self, requests: Records, chunk: int) -> Job:
        bind, objects = self._vm.bind, self._objects
        chunks = [requests[part] for part in slices(len(requests), chunk)]

        def job() -> int:
            total = 0
            for part in chunks:
                total += len(bind(part, objects))
            return total

        return job

    def find_job(self, finds: Finds, chunk: int) -> Job:
        find_many = self._vm.find_many
        chunks = [(finds.addrs[part], finds.ranges[part]) for part in slices(len(finds), chunk)]

        def job() -> int:
            total = 0
            for addrs, ranges in chunks:
                total += len(find_many(addrs, ranges))
            return total

        return job

    def mixed_job(self, requests: Records, finds: Finds, chunk: int) -> Job:
        bind, find_many, objects = self._vm.bind, self._vm.find_many, self._objects
        quarter = chunk // 4
        chunks = [
            (requests[bound], finds.addrs[found], finds.ranges[found])
            for bound, found in zip(
                slices(len(requests), chunk - quarter), slices(len(finds), quarter), strict=True
            )
        ]

        def job() -> int:
            total = 0
            for part, addrs, ranges in chunks:
                total += len(bind(part, objects))
                find_many(addrs, ranges)
            return total

        return job

    def map_calls_job(self, requests: Records) -> Job:
        sm_map = self._vm.sm_map
        calls = [
            (addr, size, self._objects[handle], offset)
            for addr, size, handle, offset in zip(
                requests["addr"].tolist(),
                requests["range"].tolist(),
                requests["handle"].tolist(),
                requests["bo_offset"].tolist(),
                strict=True,
            )
        ]

        def job() -> int:
            for addr, size, obj, offset in calls:
                sm_map(addr, size, obj, offset).apply()
            return len(calls)

        return job

    def find_calls_job(self, finds: Finds) -> Job:
        find = self._vm.find
        calls = list(zip(finds.addrs.tolist(), finds.ranges.tolist(), strict=True))

        def job() -> int:
            found = 0
            for addr, size in calls:
                if find(addr, size) is not None:
                    found += 1
            return found

        return job

    def gap_job(self, sizes: list[int], fit: int) -> GapJob:
        find_gap, how = self._vm.find_gap, gpuvm.Fit(fit)

        def job() -> list[int | None]:
            found: list[int | None] = []
            for size in sizes:
                try:
                    found.append(find_gap(size, align=PAGE, fit=how))
                except gpuvm.NoSpace:
                    found.append(None)
            return found

        return job

    def updates_and_gaps_job(self, requests: Records, chunk: int, sizes: list[int], fit: int) -> Job:
        bind, find_gap, objects = self._vm.bind, self._vm.find_gap, self._objects
        chunks = [requests[part] for part in slices(len(requests), chunk)]
        how = gpuvm.Fit(fit)

        def job() -> int:
            total = 0
            for part, size in zip(chunks, sizes, strict=True):
                total += len(bind(part, objects))
                try:
                    find_gap(size, align=PAGE, fit=how)
                except gpuvm.NoSpace:
                    continue
            return total

        return job

    def bind(self, requests: Records) -> Records:
        return self._vm.bind(requests, self._objects)

    def find(self, finds: Finds) -> Records:
        return self._vm.find_many(finds.addrs, finds.ranges)

    def mappings(self) -> Records:
        return self._vm.to_array()
