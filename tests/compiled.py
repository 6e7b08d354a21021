"""C programs of the tests, compiled with the machine's cc, once in a run of the tests."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCES = Path(__file__).with_name("device_programs")
CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler: cc is not there")


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gpuvm-programs-")


@functools.cache
def compiled(name: str, *more: str, folder: Path = SOURCES) -> str:
    """Where the program is that is made of ``name``.c, and of more files, in ``folder``."""
    assert CC is not None
    program = Path(_directory().name) / name
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    sources = [folder / f"{source}.c" for source in (name, *more)]
    subprocess.run([CC, *options, "-o", program, *sources], check=True)
    return str(program)
