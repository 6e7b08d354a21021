"""How much is tested: `GPUVM_SUITE=full` runs the long versions of the same tests, `nvk` all real clients."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

FULL = os.environ.get("GPUVM_SUITE", "quick") == "full"
NVK = os.environ.get("GPUVM_SUITE") == "nvk"


def scaled(quick: int, full: int) -> int:
    return full if FULL else quick


def full(*parameters: T) -> tuple[T, ...]:
    """Parameters of the long suite only."""
    return parameters if FULL else ()
