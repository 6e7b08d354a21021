"""A trace survives whatever becomes of the program, of gpuvm, and of the process that writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm.trace.errors import TraceError
from gpuvm.trace.recording import Recording
from gpuvm.trace.trace import Trace
from running import COMMAND, gpuvm_run

pytestmark = needs_cc
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
FRAME = 3
BEFORE = 3


@contextmanager
def recording(trace: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`gpuvm record`, which runs a program that makes calls until it is killed."""
    command = [*COMMAND, "record", "-o", str(trace), "--", *(words or [compiled("calls_for_ever")])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def frames(process: subprocess.Popen[str], least: int) -> int:
    """Read what it prints; the frames that it has made."""
    assert process.stdout is not None
    while (made := int(process.stdout.readline())) < least:
        pass
    return made


def child_of(pid: int, name: str) -> int:
    """The process of that name below another."""
    command = ["ps", "--ppid", str(pid), "-o", "pid=,comm="]
    for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
        child, comm = line.split(maxsplit=1)
        if name.startswith(comm):
            return int(child)
    raise AssertionError(f"{pid} has no child {name}")


def writer_of(trace: Path) -> int:
    """The process that writes it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(trace) in words and any(b"gpuvm.trace.writing" in word for word in words):
                return int(folder.name)
    raise AssertionError(f"nobody writes {trace}")


def until(true: Callable[[], bool]) -> None:
    """Wait for another process."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def sound(path: Path) -> Trace:
    """It, which is no worse than any other."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    trace = Trace.open(str(path))
    trace.check()
    return trace


def calls(trace: Trace) -> int:
    (found,) = trace.db.execute("SELECT count(*) FROM calls").fetchone()
    return int(found)


def test_a_killed_program(tmp_path: Path) -> None:
    path = tmp_path / "a.gpuvm"
    with recording(path) as process:
        made = frames(process, 100)
        os.kill(child_of(process.pid, "calls_for_ever"), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    assert "was killed by SIGKILL" in err
    with sound(path) as trace:
        assert trace.whole
        assert calls(trace) >= BEFORE + FRAME * made
        assert trace.about["status"] == -signal.SIGKILL
        assert trace.db.execute("SELECT call FROM calls ORDER BY id DESC").fetchone() == ("close",)


def test_a_killed_recorder(tmp_path: Path) -> None:
    """All that the program was answered is there; soon nobody writes any more, and it is one file."""
    path = tmp_path / "a.gpuvm"
    with recording(path) as process:
        frames(process, 100)
        program = child_of(process.pid, "calls_for_ever")
        writer = writer_of(path)
        process.kill()
        assert process.stdout is not None
        until(lambda: is_gone(program))
        made = int((process.stdout.read().split() or ["100"])[-1])
    until(lambda: is_gone(writer))
    with sound(path) as trace:
        assert not trace.whole
        assert calls(trace) >= BEFORE + FRAME * made
        assert "status" not in trace.about
    assert [one.name for one in tmp_path.iterdir()] == ["a.gpuvm"]


def test_a_killed_recorder_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with recording(path) as process:
        made = frames(process, 100)
        process.kill()
    until(lambda: path.read_text().count("\n") >= BEFORE + FRAME * made)
    with Trace.open(str(path)) as trace:
        assert trace.last_call() >= BEFORE + FRAME * made


def test_a_killed_writer(tmp_path: Path) -> None:
    """The program goes on, it is told, and what was written is sound."""
    path = tmp_path / "a.gpuvm"
    with recording(path) as process:
        made = frames(process, 100)
        until(lambda: path.stat().st_size > 0 and written(path) >= BEFORE + FRAME * made)
        os.kill(writer_of(path), signal.SIGKILL)
        frames(process, made + 300)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert f"gpuvm: cannot write {path}: the process that wrote it was killed; it is not complete\n" in err
    with sound(path) as trace:
        assert not trace.whole
        assert calls(trace) >= BEFORE + FRAME * made


def written(path: Path) -> int:
    """Calls that are in it while it is being written; 0: there is nothing yet."""
    with suppress(TraceError), Trace.open(str(path)) as trace:
        return calls(trace)
    return 0


@needs_root
@pytest.mark.parametrize("name", ["a.gpuvm", "a.jsonl"])
def test_a_full_disk(name: str) -> None:
    """The program ends as it would, a line says so, and a database is sound."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no file system can be mounted")
        try:
            path = Path(folder, name)
            ran = gpuvm_run(compiled("calls_for_ever"), "2000", verb="record", options=("-o", str(path)))
            assert ran.status == 0, ran
            assert f"cannot write {path}: " in ran.err
            assert "full" in ran.err or "No space left" in ran.err
            assert "it is not complete" in ran.err
            assert f"{name}: not complete, and why is told above" in " ".join(ran.err.split())
            if name == "a.gpuvm":
                with sound(path) as trace:
                    assert not trace.whole
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def test_signals_of_the_terminal_are_the_programs(tmp_path: Path) -> None:
    """Ctrl-C goes to the group; the trace is whole."""
    path = tmp_path / "a.gpuvm"
    with recording(path) as process:
        frames(process, 100)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
    with sound(path) as trace:
        assert trace.whole


def test_programs_see_nothing_of_it(tmp_path: Path) -> None:
    script = "ls -l /proc/self/fd; cat /proc/self/maps"
    ran = gpuvm_run("sh", "-c", script, verb="record", options=("-o", str(tmp_path / "a.gpuvm")))
    assert "/proc/" in ran.out
    assert "spool" not in ran.out
    assert "socket:" not in ran.out
    assert "still running" not in ran.err


def test_a_trace_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.gpuvm"
    with recording(path) as process:
        least = BEFORE + FRAME * frames(process, 100)
        for _ in range(3):
            until(partial(has_more, path, least))
            with Trace.open(str(path)) as trace:
                assert not trace.whole
                assert calls(trace) > least
                least = calls(trace)


def has_more(path: Path, least: int) -> bool:
    return written(path) > least


def test_a_forked_process_records_nothing(tmp_path: Path) -> None:
    """Nor does it end what goes on in the other."""
    path = tmp_path / "a.gpuvm"
    with Recording(str(path)) as made:
        made.recorder.about("before", 1)
        pid = os.fork()
        if not pid:
            try:
                made.recorder.about("child", 1)
                made.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        made.recorder.about("after", 1)
    assert made.failed is None
    with sound(path) as trace:
        assert trace.whole
        assert {"before", "after"} <= trace.about.keys()
        assert "child" not in trace.about


def test_nobody_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.gpuvm"
    with Recording(str(path)) as made:
        writer = writer_of(path)
        with pytest.raises(ChildProcessError):
            os.waitpid(writer, os.WNOHANG)
    assert made.failed is None
    until(lambda: is_gone(writer))
