"""How much is tested: `GPUVM_SUITE=full` runs the long versions of the same tests."""

from __future__ import annotations

import os

FULL = os.environ.get("GPUVM_SUITE", "quick") == "full"


def scaled(quick: int, full: int) -> int:
    return full if FULL else quick
