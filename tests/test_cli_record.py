"""`gpuvm record`: where the trace goes, what is told of it, and what keeps it from beginning."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm import cli
from gpuvm.nouveau.uapi import numbers
from gpuvm.testing import Node
from gpuvm.trace.errors import TraceError
from gpuvm.trace.recording import Recording
from gpuvm.trace.trace import Form, Trace
from running import both_modes, gpuvm_run, needs_ordinary_user, run_as_nobody


@needs_cc
@both_modes
def test_a_program_is_recorded(
    mode: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default into a file of its name; the driver does the same once more."""
    program = compiled("leaves")
    ran = gpuvm_run(program, verb="record", options=mode, cwd=tmp_path)
    assert (ran.status, ran.out) == (0, "filled with 7\n"), ran
    assert ran.report["trace"] == "leaves.gpuvm: 10 calls, 1 of them the close of an open"
    assert ran.report["next"] == "gpuvm check leaves.gpuvm"
    path = tmp_path / "leaves.gpuvm"
    with Trace.open(str(path)) as trace:
        trace.check()
        assert trace.whole
        about = dict(trace.about)
        assert (about["status"], about["source"]) == (0, "gpuvm record")
        assert about["program"] == f'["{program}"]'
        name, pid, named = trace.db.execute("SELECT name, pid, program FROM clients").fetchone()
        assert (name, named) == (f"leaves ({pid})", "leaves")
        device = trace.db.execute("SELECT chip, chipset, vram FROM device").fetchall()
        assert device == [("TU102", 0x162, 8 << 30)]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert cli.main(["replay", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["driver"]["differences"] == []


@needs_cc
@needs_ordinary_user
def test_an_ordinary_user_records() -> None:
    Path(compiled("leaves")).parent.chmod(0o755)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        ran = run_as_nobody(compiled("leaves"), options=("-o", f"{folder}/a.gpuvm"))
        assert ran.report["trace"] == f"{folder}/a.gpuvm: 10 calls, 1 of them the close of an open", ran
        with Trace.open(f"{folder}/a.gpuvm") as trace:
            assert trace.whole


@needs_cc
@pytest.mark.parametrize("name", ["with spaces \u00e4.gpuvm", "-a", "a?b#c%20.gpuvm", "a.jsonl"])
def test_any_name_will_do(name: str, tmp_path: Path) -> None:
    ran = gpuvm_run(compiled("ask"), verb="record", options=(f"-o{name}",), cwd=tmp_path)
    assert ran.status == 0, ran
    with Trace.open(str(tmp_path / name)) as trace:
        assert trace.form is (Form.JSON_LINES if name.endswith(".jsonl") else Form.SQLITE)
        assert trace.last_call() == 6
    assert len([*tmp_path.iterdir()]) == 1


@needs_cc
def test_through_a_link_and_over_a_trace(tmp_path: Path) -> None:
    """Journals that a killed recording left are none of the new trace's."""
    there, link = tmp_path / "there.gpuvm", tmp_path / "link.gpuvm"
    there.write_text("precious")
    link.symlink_to(there)
    left = there.with_name("there.gpuvm-wal")
    left.write_bytes(b"of another trace")
    ran = gpuvm_run(compiled("ask"), verb="record", options=("-o", str(link)))
    assert ran.status == 125
    assert ran.err == f"gpuvm: {link}: exists already; --force overwrites it, -o names another\n"
    assert (there.read_text(), left.exists()) == ("precious", True)
    ran = gpuvm_run(compiled("ask"), verb="record", options=("-f", "-o", str(link)))
    assert ran.status == 0, ran
    assert link.is_symlink()
    with Trace.open(str(there)) as trace:
        assert trace.last_call() == 6
    assert not left.exists()


def test_what_cannot_be_written_stops_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, problem in (
        (str(tmp_path), f"{tmp_path}: is a directory"),
        ("-", "cannot write -: standard output is the program's; pass the name of a file"),
        (f"{tmp_path}/none/a.gpuvm", f"cannot write {tmp_path}/none/a.gpuvm: No such file or directory"),
        (f"{tmp_path}/{'x' * 300}", f"cannot write {tmp_path}/{'x' * 300}: File name too long"),
    ):
        assert cli.main(["record", "-o", path, "--", "true"]) == 125
        assert capsys.readouterr().err == f"gpuvm: {problem}\n"


def test_without_a_program_there_is_no_file(tmp_path: Path) -> None:
    ran = gpuvm_run("true", verb="record", cwd=tmp_path)
    assert ran.err.endswith("nothing opened the GPU (TU102, 8 GiB), so there is no true.gpuvm\n")
    assert gpuvm_run("./none", verb="record", cwd=tmp_path).status == 127
    assert [*tmp_path.iterdir()] == []


# -- without a program


def test_a_node_is_recorded(tmp_path: Path) -> None:
    path = str(tmp_path / "a.gpuvm")
    with Recording(path) as recording, Node(recording) as node:
        fd = node.open()
        node.ioctl(fd, numbers.GETPARAM.request, bytearray((11).to_bytes(8, "little") + bytes(8)))
        with pytest.raises(OSError, match="GETPARAM"):
            node.ioctl(fd, numbers.GETPARAM.request, bytearray((99).to_bytes(8, "little") + bytes(8)))
        recording.check()
        node.close(fd)
        assert recording.statistics().appended > 0
    assert (recording.failed, recording.calls, recording.closes) == (None, 2, 1)
    with Trace.open(path) as trace:
        calls = trace.db.execute("SELECT call, ret, json_extract(args, '$.value') FROM calls").fetchall()
        assert calls == [("getparam", 0, 0x162), ("getparam", -22, None), ("close", 0, None)]
        assert trace.db.execute("SELECT pid FROM clients").fetchall() == [(os.getpid(),)]


def test_a_recording_is_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gpuvm"
    with Recording(str(path)) as recording:
        pass
    recording.close()
    assert recording.calls == 0
    with pytest.raises(TraceError, match="exists already"):
        Recording(str(path))
    with sqlite3.connect(path) as db:  # who reads the old one goes on
        with Recording(str(path), force=True):
            pass
        assert db.execute("SELECT count(*) FROM calls").fetchall() == [(0,)]
    db.close()
