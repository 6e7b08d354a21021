"""Programs under `gpuvm run` that do what no ordinary one does: it and the others live on."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm.device.mappings import descendants
from running import COMMAND, both_modes, gpuvm_run, needs_ordinary_user, run_as_nobody

pytestmark = needs_cc
DEEP = """
import os, sys
for _ in range(int(sys.argv[1])):
    if os.fork():
        os.wait()
        os._exit(0)
print("deep", flush=True)
sys.stdin.read(1)
"""


@both_modes
@pytest.mark.parametrize("what", ["mode", "hidden", "keep", "page"])
def test_it_hurts_nobody(mode: tuple[str, ...], what: str) -> None:
    ran = gpuvm_run(compiled("unkind"), what, options=mode)
    assert ran.status == 0, ran
    assert ran.out == "" or (mode and "no userfaultfd" in ran.out), ran
    assert "not in order" not in ran.err, ran


@needs_ordinary_user
def test_a_program_that_an_ordinary_user_may_not_look_at(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    program = shutil.copy(compiled("unkind"), tmp_path)
    ran = run_as_nobody(str(program), "hidden")
    assert ran.status == 0, ran


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be in groups")
def test_a_thread_in_many_groups_is_interrupted_too() -> None:
    """It is the last of what /proc/PID/status tells that the watcher looks for."""
    ran = gpuvm_run(compiled("unkind"), "groups")
    assert ran.status == 0, ran


@both_modes
def test_a_name_may_be_any_bytes(mode: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [*COMMAND, "run", *mode, "--", compiled("unkind"), "name"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        _, err = process.communicate(timeout=60)
    assert "still running: \N{REPLACEMENT CHARACTER}) ?[31mR (" in told, told + err
    assert process.returncode == 0, err
    assert "2 opens" in err or "1 open" in err, err


def test_processes_may_be_nested_deeper_than_calls_can() -> None:
    limit, depth = sys.getrecursionlimit(), 80
    with subprocess.Popen(
        [sys.executable, "-S", "-c", DEEP, str(depth)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"deep\n"
        sys.setrecursionlimit(len(inspect.stack(0)) + depth // 2)
        try:
            found = [*descendants(child.pid)]
        finally:
            sys.setrecursionlimit(limit)
        child.communicate(b"x")
    assert len(found) == depth
