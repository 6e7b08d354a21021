"""Neighbours never blink, and holes are holes: in processes of their own, which may die of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from suite import scaled

HAMMER = Path(__file__).parent / "hammer.py"


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and output."""
    command = [sys.executable, str(HAMMER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout


def test_neighbours_of_an_unbind_never_blink() -> None:
    """Large pages are cut and joined again while threads read what is left of them (IGT's "hammer")."""
    status, output = run("hammer", scaled(30, 3000))
    assert (status, output.splitlines()[-1]) == (0, "alive")


def test_a_blink_would_be_seen() -> None:
    """The same with large pages unmapped before the small ones are there."""
    status, output = run("blink", 100_000)
    assert (status, "alive" in output) == (-signal.SIGSEGV, False)


@pytest.mark.parametrize("access", ["hole", "write-read-only", "read-privileged"])
def test_what_may_not_be_accessed(access: str) -> None:
    status, output = run(access)
    assert (status, output.startswith("mapped"), "alive" in output) == (-signal.SIGSEGV, True, False)


def test_read_only_pages_are_read() -> None:
    assert run("read")[0] == 0
