"""`gpuvm run` on machines and in places that lack something: one line says what, and no program runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from running import COMMAND

_RUN = " ".join((*COMMAND, "run", "--"))
_NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_FEW_THREADS = """
import sys, threading
real, left = threading.Thread.start, [int(sys.argv[1])]
def start(thread):
    if not left[0]:
        raise RuntimeError("can't start new thread")
    left[0] -= 1
    real(thread)
threading.Thread.start = start
from gpuvm.cli import main
sys.exit(main(["run", "--", *sys.argv[2:]]))
"""
_NO_EVENTFD = """
import errno, os, sys
def eventfd(*arguments):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
os.eventfd = eventfd
from gpuvm.cli import main
sys.exit(main(["run", "--", *sys.argv[1:]]))
"""
_OTHER_INTERPRETER = """
import sys
sys.executable = sys.argv[1]
from gpuvm.cli import main
sys.exit(main(["run", "--", "true"]))
"""


def _ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _refused(*command: str) -> str:
    ran = _ran(*command)
    assert (ran.returncode, ran.stdout) == (125, ""), ran
    assert ran.stderr.startswith("gpuvm: "), ran
    assert ran.stderr.count("\n") == 1, ran
    return ran.stderr


@_NEEDS_ROOT
def test_root_without_the_right_to_trace_is_told_of_it() -> None:
    """Before there is a program: natively the same right would be missed at its first open."""
    without = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all")
    told = _refused(*without, *COMMAND, "run", "--", "true")
    assert "process_vm_readv failed with EPERM" in told
    assert "CAP_SYS_PTRACE" in told
    assert "pass --userns" in told
    assert _ran(*without, *COMMAND, "run", "--userns", "--", "true").returncode == 0


@_NEEDS_ROOT
def test_processes_of_another_namespace_are_named() -> None:
    told = _refused("unshare", "--mount", "--pid", "--fork", *COMMAND, "run", "--", "true")
    assert "/proc is that of another pid namespace" in told


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("sh", "-c", f"ulimit -n 8; exec {_RUN} true"), id="no room for the program's"),
        pytest.param((sys.executable, "-c", _NO_EVENTFD, "echo", "no device"), id="no room for ours"),
    ],
)
def test_too_few_open_files_are_named(command: tuple[str, ...]) -> None:
    told = _refused(*command)
    assert "Too many open files" in told
    assert "ulimit" in told


def test_without_a_thread_there_is_no_program() -> None:
    assert "can't start new thread" in _refused(sys.executable, "-c", _FEW_THREADS, "0", "true")


@pytest.mark.parametrize("threads", [2, 3])
def test_with_too_few_threads_nothing_hangs(threads: int) -> None:
    """The program runs by now, and has to do without its calls."""
    ran = _ran(sys.executable, "-c", _FEW_THREADS, str(threads), "true")
    assert ran.returncode == 127
    assert ran.stderr.startswith("gpuvm: no thread can be started to serve the program; see `ulimit -u`")


def test_calls_that_no_thread_could_serve_are_told() -> None:
    ran = _ran(sys.executable, "-c", _FEW_THREADS, "4", "true")
    assert ran.returncode == 127
    assert ran.stderr.splitlines()[-1].endswith(" calls for which no thread could be started")


@needs_cc
def test_a_umask_that_allows_nothing_is_the_programs_business() -> None:
    ran = _ran("sh", "-c", f"umask 777; exec {_RUN} {compiled('ask')}")
    assert (ran.returncode, ran.stdout[-7:]) == (0, "byte 7\n"), ran


@pytest.mark.parametrize(("name", "number"), [("INT", 2), ("TERM", 15)])
def test_a_signal_before_there_is_a_program_is_one_line(name: str, number: int, tmp_path: Path) -> None:
    """It comes while the process that is to be the program begins; Ctrl-C comes to it, too."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nkill -{name} $$\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    ran = _ran(sys.executable, "-c", _OTHER_INTERPRETER, str(interpreter))
    assert ran.returncode == 128 + number, ran
    assert ran.stderr.startswith("gpuvm: the program was not started: "), ran
    assert ran.stderr.count("\n") == 1, ran
