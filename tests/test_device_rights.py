"""What `gpuvm run` may do, and what it leaves of a program's surroundings: all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from running import COMMAND, MODES, both_modes, gpuvm_run, needs_ordinary_user, run_as_nobody

_SUPERVISOR = "for one in /proc/$PPID/task/*; do grep -hE 'CapEff|CapPrm|CapBnd|NoNewPrivs' $one/status; done"
_SURROUNDINGS = """
grep -E '^(Uid|Gid|Groups|Umask|SigBlk|SigCgt)' /proc/self/status; ulimit -a; ulimit -Hn; pwd; env | sort
ls /proc/self/fd; cat /proc/self/oom_score_adj /proc/self/personality; nice; tty
"""

KEPT = {1 << 19 | 1 << 2 | 1 << 5}
"""CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_KILL."""


def _rights(text: str) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for line in text.splitlines():
        name, value = line.split(":")
        found.setdefault(name, set()).add(int(value, 16))
    return found


@both_modes
def test_rights_are_given_up_in_every_thread(mode: tuple[str, ...]) -> None:
    """As root we may look into other users' processes, and signal one; nothing else."""
    ran = gpuvm_run("sh", "-c", _SUPERVISOR, options=mode)
    kept = KEPT if os.geteuid() == 0 else {0}
    rights = _rights(ran.out)
    assert rights == {"CapPrm": kept, "CapEff": kept, "CapBnd": kept, "NoNewPrivs": {1}}, ran


@needs_ordinary_user
def test_an_ordinary_user_has_none_to_give_up() -> None:
    rights = _rights(run_as_nobody("sh", "-c", _SUPERVISOR).out)
    assert rights["CapPrm"] == rights["CapEff"] == {0}
    assert rights["NoNewPrivs"] == {1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_numpy_starts_no_thread_that_keeps_rights() -> None:
    """As the command is started, not from our own process that has imported everything."""
    command = [*COMMAND, "run", "--chipset", "ampere", "--", "sh", "-c", _SUPERVISOR]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert _rights(ran.stdout)["CapEff"] == KEPT


@needs_cc
@needs_ordinary_user
def test_what_is_kept_is_needed() -> None:
    """A program of root's becomes another user, and has the device; and what ends us ends it."""
    Path(compiled("ask")).parent.chmod(0o755)
    become = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    wait = "while [ $(stat -c %u /proc/$$) = 0 ]; do :; done"
    script = f"{become} {compiled('ask')}; ({wait}; kill -TERM $PPID) & exec {become} sleep 1000"
    ran = gpuvm_run("sh", "-c", script)
    assert ran.out.endswith("byte 7\n"), ran
    assert ran.status == -signal.SIGTERM


@both_modes
def test_a_programs_surroundings_are_those_it_would_have(mode: tuple[str, ...], tmp_path: Path) -> None:
    environment = {"GPUVM_TEST": "here", "LC_ALL": "", "TMPDIR": str(tmp_path)}
    native = subprocess.run(
        ["sh", "-c", _SURROUNDINGS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=tmp_path,
        timeout=60,
    )
    ran = gpuvm_run("sh", "-c", _SURROUNDINGS, options=mode, environment=environment, cwd=tmp_path)
    assert _comparable(ran.out) == _comparable(native.stdout)


def _comparable(text: str) -> list[str]:
    return [line for line in text.splitlines() if not re.match(r"(_|PWD|OLDPWD|PYTEST_\w+)=", line)]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_written(mode: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever is needed lies on file systems that no path leads to, and goes with us."""
    mounts = Path("/proc/self/mountinfo").read_text()
    environment = dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"), str(tmp_path))
    ran = gpuvm_run("ls", "-d", "/dev/dri/card0", options=mode, environment=environment, cwd=tmp_path)
    assert ran.out == "/dev/dri/card0\n", ran
    assert list(tmp_path.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
