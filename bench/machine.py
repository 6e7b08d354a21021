"""On what it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.contenders import available


@dataclass(frozen=True)
class Machine:
    """What one has to know to compare two reports."""

    cpu: str
    cores: int
    system: str
    python: str
    numpy: str
    rustc: str
    cache_miss_ns: float | None
    """A dependent read at random in 1 GiB; None where the Rust rivals are not built."""

    def line(self) -> str:
        miss = "" if self.cache_miss_ns is None else f"; a dependent cache miss {self.cache_miss_ns:.0f} ns"
        return (
            f"{self.cpu}, {self.cores} cores, {self.system}; Python {self.python}, NumPy {self.numpy}, "
            f"{self.rustc}{miss}"
        )


def _cpu() -> str:
    """The model, with family and model numbers where the name alone says little."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def _rustc() -> str:
    try:
        done = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "rustc unknown"
    return " ".join(done.stdout.split()[:2])


def machine(*, quick: bool) -> Machine:
    """Look at this one."""
    miss = None
    if available("btreemap"):
        from bench.contender_rust import cache_miss_ns

        miss = cache_miss_ns(64 if quick else 1024)
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        rustc=_rustc(),
        cache_miss_ns=miss,
    )
