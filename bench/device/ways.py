"""Who answers the program's calls: each a command that runs client.c, compiled with the machine's cc."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "tests" / "device_programs"
"""With nouveau.h, the structures of the calls."""
ROOT = HERE.parents[1] / "build" / "debian13"
_LIBRARIES = ROOT / "usr" / "lib" / "x86_64-linux-gnu"
SHIM = _LIBRARIES / "libnouveau_noop_drm_shim.so"

CC = "cc"
NATIVE, DRM_SHIM, BARE, BARE_SYNC, GPUVM = "native", "drm-shim", "bare", "bare-sync", "gpuvm"
FLOORS = (BARE, BARE_SYNC)


@dataclass(frozen=True)
class Way:
    """A column."""

    name: str
    title: str
    before: tuple[str, ...]
    """The words of the command before the program's own."""
    has_node: bool
    """Whether every call must be answered; natively there may be no GPU, and drm-shim may lack some."""
    lacks: str | None = None
    """Why it cannot take part."""


@contextmanager
def built() -> Iterator[tuple[str, tuple[Way, ...]]]:
    """The program and the ways to run it, while the directory with what was compiled is there.

    Raises FileNotFoundError without a C compiler, CalledProcessError if that fails.
    """
    with TemporaryDirectory(prefix="gpuvm-bench-") as directory:
        client, bare = (_compiled(name, directory) for name in ("client", "bare"))
        yield client, _ways(bare)


def _compiled(name: str, directory: str) -> str:
    options = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", str(HEADERS))
    program = f"{directory}/{name}"
    subprocess.run([CC, *options, "-o", program, str(HERE / f"{name}.c")], check=True)
    return program


def _ways(bare: str) -> tuple[Way, ...]:
    return (
        Way(NATIVE, "natively", (), has_node=False),
        _drm_shim(),
        Way(BARE, "bare notification", (bare,), has_node=True),
        Way(BARE_SYNC, "bare, SYNC_WAKE_UP", (bare, "--sync-wake-up"), has_node=True),
        Way(GPUVM, "gpuvm run", (sys.executable, "-m", "gpuvm", "run", "--"), has_node=True),
    )


def _drm_shim() -> Way:
    """Under the libc that it was built for, which needs no chroot."""
    loader = _LIBRARIES / "ld-linux-x86-64.so.2"
    before = (str(loader), "--library-path", str(_LIBRARIES), "--preload", str(SHIM))
    lacks = None if SHIM.exists() else f"no mesa-drm-shim in build/{ROOT.name}; make bench-device fetches it"
    return Way(DRM_SHIM, "drm-shim", before, has_node=False, lacks=lacks)


def has_cc() -> bool:
    return shutil.which(CC) is not None
