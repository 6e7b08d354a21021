"""Signals, stops, ends: `gpuvm run` passes for the program itself, and stays with what it leaves running."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiled import compiled, needs_cc
from running import COMMAND, gpuvm_run


@contextmanager
def started(script: str) -> Iterator[subprocess.Popen[str]]:
    """A shell under us, in a process group of its own as a job is. It prints a line when it is ready."""
    with subprocess.Popen(
        [*COMMAND, "run", "--", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_what_ends_programs_is_passed_on() -> None:
    with started("trap 'echo term; exit 3' TERM; echo ready; while :; do read line; done") as process:
        process.send_signal(signal.SIGTERM)
        status, out, err = ended(process)
    assert (status, out) == (3, "term\n")
    assert "ended with 3;" in err


def test_a_signal_kills_both() -> None:
    with started("echo ready; exec sleep 1000") as process:
        process.send_signal(signal.SIGHUP)
        status, _, err = ended(process)
    assert status == -signal.SIGHUP
    assert "was killed by SIGHUP;" in err


def test_ctrl_c_is_the_programs() -> None:
    """The terminal sends it to both. What the program makes of it is what counts."""
    with started("trap 'echo interrupted; exit 4' INT; echo ready; while :; do read line; done") as process:
        os.killpg(process.pid, signal.SIGINT)
        status, out, err = ended(process)
    assert (status, out) == (4, "interrupted\n")
    assert "ended with 4;" in err


def test_a_program_that_ignores_ctrl_c_goes_on() -> None:
    with started("trap '' INT QUIT; echo ready; read line; echo $line") as process:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGINT):
            os.killpg(process.pid, number)
        assert process.stdin is not None
        process.stdin.write("still there\n")
        process.stdin.flush()
        status, out, _ = ended(process)
    assert (status, out) == (0, "still there\n")


def test_what_was_ignored_stays_ignored() -> None:
    """As under nohup."""
    script = f"trap '' HUP; exec {' '.join(COMMAND)} run -- sh -c 'kill -HUP $$; echo alive'"
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "alive\n")


def test_a_stopped_program_is_a_stopped_job() -> None:
    with started("echo ready; kill -TSTP $$; read line; echo $line") as process:
        pid, status = os.waitpid(process.pid, os.WUNTRACED)
        assert pid == process.pid
        assert os.WIFSTOPPED(status)
        os.killpg(process.pid, signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("back\n")
        process.stdin.flush()
        code, out, _ = ended(process)
    assert (code, out) == (0, "back\n")


def test_a_program_that_others_stop_is_no_stopped_job() -> None:
    """A child stops it and lets it go on, and we are there for it all the time."""
    script = "sh -c 'kill -STOP $PPID; kill -CONT $PPID'; echo went on"
    ran = gpuvm_run("sh", "-c", script)
    assert (ran.status, ran.out) == (0, "went on\n"), ran


# -- what the program leaves


@needs_cc
def test_what_a_program_leaves_is_served_to_its_end(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"(while kill -0 $$ 2>/dev/null; do :; done; {compiled('ask')} >{told}) & exit 5"
    ran = gpuvm_run("sh", "-c", script)
    assert ran.status == 5
    assert told.read_text().endswith("byte 7\n")
    assert ran.report["calls"].startswith("5 in 1 open: ")


def test_who_is_left_is_told_and_ctrl_c_takes_the_device_away() -> None:
    hold = "exec 3<>/dev/dri/renderD128; exec sleep 1000"
    with started(f"({hold}) >/dev/null 2>&1 & echo $! >&2; echo ready; exit 6") as process:
        assert process.stderr is not None
        pid = int(process.stderr.readline())
        line = process.stderr.readline()
        try:
            process.send_signal(signal.SIGINT)
            status, _, err = ended(process)
            os.kill(pid, 0)  # it goes on, without a device
        finally:
            os.kill(pid, signal.SIGKILL)
    assert line == (
        f"gpuvm: the program has ended; still running: sleep ({pid}); Ctrl-C takes the device away\n"
    )
    assert status == 6
    assert "ended with 6 on TU102" in err
    assert "  still open    1 open of processes that go on; below, what these did is missing\n" in err


def test_orphans_are_collected() -> None:
    """Whose parent is gone becomes our child; when it ends, it ends."""
    script = (
        "for i in 1 2 3 4 5 6 7 8; do (true & echo $!); done >pids; "
        "while kill -0 $(cat pids) 2>/dev/null; do :; done; echo all gone"
    )
    ran = gpuvm_run("sh", "-c", f"cd $(mktemp -d); {script}; rm pids")
    assert (ran.status, ran.out) == (0, "all gone\n"), ran
