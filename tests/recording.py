"""Reads the recorded answers of the kernel's own split and merge code (see vectors/README.md)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from shapes import MapShape, OpShape, PrefetchShape, RemapShape, UnmapShape, Va

RECORDING = Path(__file__).parent / "vectors" / "kernel-6.12.jsonl.gz"

Answer: TypeAlias = dict[str, Any]


def sequences() -> Iterator[list[Answer]]:
    """One list of answers for each recorded address space; the first is its `init`."""
    with gzip.open(RECORDING, "rt") as lines:
        answers = (json.loads(line) for line in lines)
        for _, group in groupby(answers, key=lambda answer: answer["seq"]):
            yield list(group)


def va_of(recorded: Answer) -> Va:
    return Va(recorded["addr"], recorded["range"], recorded["bo"], recorded["offset"])


def op_of(recorded: Answer) -> OpShape:
    match recorded["op"]:
        case "map":
            return MapShape(va_of(recorded))
        case "unmap":
            return UnmapShape(va_of(recorded), recorded["keep"])
        case "remap":
            unmap, prev, behind = recorded["unmap"], recorded["prev"], recorded["next"]
            return RemapShape(va_of(unmap), prev and va_of(prev), behind and va_of(behind), unmap["keep"])
        case "prefetch":
            return PrefetchShape(va_of(recorded))
        case other:
            raise AssertionError(f"op {other} is unknown")
