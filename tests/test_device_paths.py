"""Paths of the node behave as those of any character device: /dev/null, asked natively, is the oracle."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from compiled import SOURCES, compiled, needs_cc
from running import NOBODY, both_modes, gpuvm_run, needs_ordinary_user, python_of_others, run_as_nobody
from suite import scaled

TRICKS = str(SOURCES / "path_tricks.py")
NODE = "/dev/dri/renderD128"


@functools.cache
def natively(directory: Path) -> list[str]:
    command = [sys.executable, TRICKS, "/dev/null", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@both_modes
def test_every_way_to_a_node_is_as_to_any_device(
    mode: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = natively(tmp_path_factory.mktemp("native"))
    ran = gpuvm_run(sys.executable, TRICKS, NODE, str(tmp_path_factory.mktemp("node")), options=mode)
    assert (ran.status, ran.out.splitlines()) == (0, known), ran
    assert sum("the device, flags" in line for line in known) > 90


@needs_ordinary_user
def test_so_it_is_for_an_ordinary_user() -> None:
    python = python_of_others()
    assert python is not None
    with tempfile.TemporaryDirectory() as scratch:
        scripts, native, node = (Path(scratch) / name for name in ("scripts", "native", "node"))
        for directory in (Path(scratch), scripts, native, node):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o777)
        shutil.copy(TRICKS, scripts)
        words = [python, str(scripts / Path(TRICKS).name)]
        known = subprocess.run(
            [*words, "/dev/null", str(native)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        ran = run_as_nobody(*words, NODE, str(node))
    assert (ran.status, ran.out.splitlines()) == (0, known.stdout.splitlines()), ran


@both_modes
def test_fdinfo_tells_of_clients(mode: tuple[str, ...]) -> None:
    ran = gpuvm_run(sys.executable, str(SOURCES / "fdinfo.py"), options=mode)
    assert (ran.status, ran.out.splitlines()) == (
        0,
        [
            "nouveau 0000:01:00.0 02100002 ['pos', 'flags', 'mnt_id', 'ino']",
            *("2 True", "2 True", "4 True"),
            "True",
            "False",
            *("No such file or directory", "Not a directory"),
            "True",
            *("128 True", "0 True"),
        ],
    ), ran


@needs_cc
@both_modes
def test_paths_that_change_meanwhile_lead_to_one_or_the_other(mode: tuple[str, ...], tmp_path: Path) -> None:
    rounds = scaled(60, 3000)
    ran = gpuvm_run(compiled("path_race"), str(tmp_path), str(rounds), options=mode, timeout=280)
    assert (ran.status, ran.out) == (0, f"{9 * rounds} in all, some of each\n"), ran
    assert ran.report["left at exit"] == "nothing"


@needs_cc
@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: no other user's supervisor gets into such a file system"
)
def test_a_file_system_that_never_answers_stops_nobody_else(tmp_path: Path) -> None:
    ran = gpuvm_run(compiled("silent_fuse"), str(tmp_path))
    assert (ran.status, ran.out) in ((0, "the device goes on\n"), (0, "no FUSE\n")), ran
