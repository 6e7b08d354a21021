"""Programs in the Debian 13 below build/: its own and ours, under `gpuvm run` or on a software driver."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2] / "build" / "debian13"
BACKPORTS = ROOT.with_name("debian13-backports")  # with a newer NVK
GPUVM = Path(sys.executable).with_name("gpuvm")
BUILT = Path(f"/tmp/gpuvm-tests-{os.getpid()}")  # in the root

ENVIRONMENT = {
    "PATH": "/usr/bin:/usr/sbin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "XDG_RUNTIME_DIR": "/tmp",
    "MESA_SHADER_CACHE_DISABLE": "true",
}
NVK = {"VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/nouveau_icd.json"}
LAVAPIPE = {"VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/lvp_icd.json"}
REPORT = re.compile(r"^gpuvm: .*\n(?:  .*\n)+\Z", re.MULTILINE)
CHROOT = ["chroot"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "chroot"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program left: `report` is the last that `gpuvm run` said, `errors` all else on stderr."""

    command: str
    status: int  # as subprocess has it: -N after signal N
    output: bytes
    errors: str
    report: str

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")

    def row(self, label: str) -> str:
        """A row of the report, with the lines that it goes on in."""
        found = re.search(rf"^  {re.escape(label)} +(.*(?:\n {{10,}}.*)*)", self.report, re.MULTILINE)
        assert found is not None, self
        return " ".join(found[1].split())

    def __str__(self) -> str:
        lines = self.text.splitlines()[-40:]
        if b"\0" in self.output:  # frames
            lines = [f"{len(self.output)} bytes"]
        return "\n".join(
            [
                f"$ {self.command}",
                *(f"  {line}" for line in lines),
                *(f"  stderr: {line}" for line in self.errors.splitlines()[-40:]),
                *(f"  report: {line}" for line in self.report.splitlines()),
                f"  exit status {self.status}",
            ]
        )


def lacks(program: str, root: Path = ROOT) -> str | None:
    """Why a test of this program cannot run, in words; None if it can."""
    if not root.is_dir():
        return f"no build/{root.name}: make test-nvk fetches it where apt reaches a mirror of Debian"
    if not (root / "usr" / "bin" / program).exists():
        return f"no {program} in build/{root.name}: make test-nvk adds it"
    return None


def run(
    *program: str,
    root: Path = ROOT,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = 120,
) -> Ended:
    """Run it on NVK under `gpuvm run --root`, on a TU102 with 8 GiB unless `options` say otherwise."""
    if root != ROOT and _on_host(BUILT).is_dir():
        shutil.copytree(_on_host(BUILT), _on_host(BUILT, root), dirs_exist_ok=True)
    command = [str(GPUVM), "run", "--root", str(root), *options, "--", *program]
    ended = _run(command, {**NVK, **(environment or {})}, stdin, timeout)
    found = REPORT.search(ended.errors)
    if found is not None:
        ended = replace(ended, errors=ended.errors[: found.start()], report=found[0])
    print(ended)  # pytest shows it if the test fails
    return ended


def run_on_lavapipe(*program: str, stdin: bytes = b"", timeout: float = 120) -> Ended:
    """Run it on Mesa's software Vulkan, without us: what a program has to give on any driver."""
    return _run([*CHROOT, str(ROOT), *program], LAVAPIPE, stdin, timeout)


@functools.cache
def build(*sources: Path, libraries: tuple[str, ...] = ("vulkan",), flags: tuple[str, ...] = ()) -> str:
    """Compile C sources (the first names the program) with the root's own cc; the program's path in the root.

    Headers beside the first source are found.
    """
    folder = BUILT / sources[0].parent.name
    shutil.copytree(sources[0].parent, _on_host(folder), dirs_exist_ok=True)
    program = folder / sources[0].stem
    compiled = _run(
        [*CHROOT, str(ROOT), "cc", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *flags]
        + [str(folder / source.name) for source in sources]
        + ["-o", str(program), *(f"-l{library}" for library in libraries)],
        {},
        b"",
        120,
    )
    assert compiled.status == 0, compiled
    return str(program)


def remove_built() -> None:
    for root in (ROOT, BACKPORTS):
        shutil.rmtree(_on_host(BUILT, root), ignore_errors=True)


def _on_host(path: Path, root: Path = ROOT) -> Path:
    return root / path.relative_to("/")


def _run(command: list[str], environment: Mapping[str, str], stdin: bytes, timeout: float) -> Ended:
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, **environment},
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, errors = child.communicate()
        errors += f"killed: it still ran after {timeout} s\n".encode()
    return Ended(shlex.join(command), child.returncode, output, errors.decode(errors="replace"), "")
