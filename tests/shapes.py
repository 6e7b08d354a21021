"""What an op or a mapping says, as plain values that compare by content.

An object is named by a small number (its place in the list of objects that the test made), 0 is "no object".
The library's ops name live mappings; these shapes do not, so that they can be written down as expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import gpuvm

Label: TypeAlias = Callable[[object], int]
Op: TypeAlias = gpuvm.Map | gpuvm.Unmap | gpuvm.Remap | gpuvm.Prefetch


@dataclass(frozen=True, slots=True)
class Va:
    addr: int
    range: int
    bo: int
    offset: int
    flags: int = 0

    @property
    def end(self) -> int:
        return self.addr + self.range


@dataclass(frozen=True, slots=True)
class MapShape:
    va: Va


@dataclass(frozen=True, slots=True)
class UnmapShape:
    va: Va
    keep: bool = False


@dataclass(frozen=True, slots=True)
class RemapShape:
    va: Va
    prev: Va | None = None
    next: Va | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class PrefetchShape:
    va: Va


OpShape: TypeAlias = MapShape | UnmapShape | RemapShape | PrefetchShape


class Objects:
    """A fixed set of distinct objects with their numbers; number 0 is None."""

    def __init__(self, count: int) -> None:
        self._all: list[object] = [None, *(f"bo{index}" for index in range(1, count + 1))]
        self._numbers = {id(obj): number for number, obj in enumerate(self._all)}

    def __getitem__(self, number: int) -> object:
        return self._all[number]

    def __len__(self) -> int:
        return len(self._all) - 1

    def label(self, obj: object) -> int:
        return self._numbers[id(obj)]

    def handles(self) -> dict[int, object]:
        return {number: obj for number, obj in enumerate(self._all) if number}


def va_shape(va: gpuvm.Gpuva | gpuvm.Map, label: Label) -> Va:
    return Va(va.addr, va.range, label(va.obj), va.offset, int(va.flags))


def op_shape(op: Op, label: Label) -> OpShape:
    match op:
        case gpuvm.Map():
            return MapShape(va_shape(op, label))
        case gpuvm.Unmap(va, keep):
            return UnmapShape(va_shape(va, label), keep)
        case gpuvm.Remap(prev, following, unmap):
            return RemapShape(
                va_shape(unmap.va, label),
                None if prev is None else va_shape(prev, label),
                None if following is None else va_shape(following, label),
                unmap.keep,
            )
        case gpuvm.Prefetch(va):
            return PrefetchShape(va_shape(va, label))


def op_shapes(ops: Iterable[Op], label: Label) -> list[OpShape]:
    return [op_shape(op, label) for op in ops]


def space_shape(vm: gpuvm.GpuvaManager, label: Label) -> list[Va]:
    """Every mapping in address order, without the kernel's node."""
    return [va_shape(va, label) for va in vm if not va.kernel]
