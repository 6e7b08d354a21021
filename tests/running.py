"""`gpuvm run` as a user starts it, and the programs of tests/device_programs under it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pytest

import gpuvm
from forked_command import forker

COMMAND = (sys.executable, "-m", "gpuvm")
NOBODY = 65534

_AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MODES = (pytest.param((), id="root", marks=_AS_ROOT), pytest.param(("--userns",), id="userns"))
both_modes = pytest.mark.parametrize("mode", MODES)


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of it."""

    status: int  # as subprocess has it: -N after signal N
    out: str
    err: str

    @property
    def report(self) -> dict[str, str]:
        """The rows of the report by their names; "": its first line."""
        lines = self.err.splitlines()
        first = max((at for at, line in enumerate(lines) if line.startswith("gpuvm: ")), default=len(lines))
        rows, label = {"": lines[first] if first < len(lines) else ""}, ""
        for line in lines[first + 1 :]:
            label = line[:16].strip() or label
            rows[label] = f"{rows.get(label, '')} {line[16:]}".strip()
        return rows

    def __str__(self) -> str:
        return f"status {self.status}\n-- stdout\n{self.out}\n-- stderr\n{self.err}"


def gpuvm_run(
    *words: str,
    options: Sequence[str] = (),
    verb: str = "run",
    stdin: str = "",
    timeout: float = 60,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ran:
    """Run a program with `gpuvm run`, or another verb."""
    with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        given.write(stdin)
        given.seek(0)
        status = forker().run(
            [verb, *options, "--", *words],
            [given.fileno(), out.fileno(), err.fileno()],
            {**os.environ, **(environment or {})},
            cwd or Path.cwd(),
            timeout,
        )
        out.seek(0)
        err.seek(0)
        return Ran(status, out.read(), err.read())


def python_of_others() -> str | None:
    """An interpreter of this version that every user may execute."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [Path("/usr/bin") / name, Path("/usr/local/bin") / name]
    return next((str(place) for place in places if place.exists()), None)


needs_ordinary_user = pytest.mark.skipif(
    os.geteuid() != 0 or python_of_others() is None,
    reason="needs root, to become an ordinary user, and an interpreter that one may execute",
)


def run_as_nobody(*words: str, options: Sequence[str] = (), timeout: float = 60) -> Ran:
    """As an ordinary user, who has no rights at all."""
    python = python_of_others()
    assert python is not None
    paths = (str(Path(gpuvm.__file__).parent.parent), sysconfig.get_paths()["purelib"])
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(paths)}
    command = [python, "-m", "gpuvm", "run", *options, "--", *words]
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        cwd="/",
        check=False,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)
