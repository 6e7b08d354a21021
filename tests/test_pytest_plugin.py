"""What pytest has where gpuvm is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm.testing import Node
from suite import FULL

SESSION = """
import os, subprocess, sys

def test_the_node_is_there():
    os.close(os.open("/dev/dri/renderD128", os.O_RDWR))

def test_for_children_too():
    told = subprocess.run([{ask!r}], capture_output=True, text=True).stdout
    assert told.endswith("byte 7\\n")

def test_that_fails(gpuvm_node):
    assert gpuvm_node.statistics().clients == 1
"""


_WITHOUT = [f"-pno:{plugin}" for plugin in ("cacheprovider", "hypothesispytest", "timeout")]


def run_session(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_session.py").write_text(SESSION.format(ask=compiled("ask")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", *_WITHOUT, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@needs_cc
def test_a_session_runs_below_the_device(tmp_path: Path) -> None:
    ended = run_session(tmp_path, "--gpuvm")
    assert ended.returncode == 1, ended
    assert "1 failed, 2 passed" in ended.stdout
    report = ended.stderr.splitlines()
    assert report[0].endswith("ended with 1 on TU102, 8 GiB")
    assert report[1].startswith("  calls         5 in 2 opens: ")
    again = f"gpuvm record -- env GPUVM_PYTEST=1 {sys.executable} -m pytest "
    assert report[-1].startswith(f"  next          {again}")


@needs_cc
@pytest.mark.skipif(not FULL, reason="only the long suite")
def test_without_the_option_nothing_happens(tmp_path: Path) -> None:
    ended = run_session(tmp_path, "-k", "fails")
    assert ended.returncode == 1
    assert "1 failed, 2 deselected" in ended.stdout
    assert ended.stderr == ""


def test_a_node_for_a_test(gpuvm_node: Node) -> None:
    fd = gpuvm_node.open()
    asked = bytearray((11).to_bytes(16, "little"))
    assert gpuvm_node.ioctl(fd, 0xC0106440, asked) == 0
    assert asked[8:] == (0x162).to_bytes(8, "little")


def test_the_node_of_the_test_before_is_gone(gpuvm_node: Node) -> None:
    assert gpuvm_node.statistics().open == 0
