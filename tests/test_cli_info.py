"""`gpuvm info`: what is told of a trace, and what is not where nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver_traces import binary, channel_alloc, execute, syncobj
from gpuvm.cli import main
from gpuvm.trace import database
from gpuvm.trace.writer import Writer
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, bind, call, gem_close, gem_new, op, vm_init, write_trace

CALLS = (
    vm_init(),
    gem_new(1),
    bind(op("map", 0, 16 * PAGE, 1)),
    bind(op("unmap", PAGE, PAGE)),
    channel_alloc(1),
    syncobj(1),
    execute(1, 0, signals=[binary(1)]),
    {**gem_close(9), "ret": -22},
    {**gem_close(8), "ret": -22},
)


def rows_of(path: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The rows by their labels; "": the first line."""
    assert main(["info", path]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    rows, label = {"": first}, ""
    for line in lines:
        assert len(line) <= 110
        label = line[:16].strip() or label
        rows[label] = f"{rows.get(label, '')} {line[16:]}".strip()
    return rows


def test_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS)
    rows = rows_of(path, capsys)
    not_recorded = rows.pop("not recorded")
    assert rows == {
        "": f"{path}: JSON Lines, 9 calls",
        "client 1": "9 calls",
        "calls": "gem_close 2, vm_bind 2, channel_alloc 1, exec 1, gem_new 1, syncobj_create 1, vm_init 1",
        "refused": "2 with EINVAL, the first: [call 8] client 1  GEM_CLOSE({handle=9}) = -1 EINVAL"
        " (Invalid argument)",
        "binds": "2 ops accepted; emitted: map 1, remap 1, unmap 0",
        "mappings": "at most 2 (after call 4), and 64 KiB (after call 3); in the end 2 of 60 KiB",
        "objects": "1 of 1 MiB in all, in the end 1",
        "sync objects": "1, in the end 1",
        "jobs": "1 exec, 0 asynchronous binds",
    }
    assert "gpuvm record" in not_recorded


def write_recording(path: Path) -> None:
    """As of a program that was killed by a fault."""
    db = database.create(str(path))
    writer = Writer(db)
    writer.about("program", json.dumps(["./a b", "-x"]))
    writer.about("begun", "2026-01-02T03:04:05+00:00")
    writer.about("gpuvm", "9.9")
    writer.about("status", -11)
    writer.device("TU102", 0x162, 8 << 30, 8 << 30)
    writer.opened(1, 1_500_000_000, "a (77)", 77, "a")
    for record in records_of_lines(*CALLS, {**call("close"), "t": 3_000_000_000}):
        writer.call(record, 2000)
    writer.queued(7, 5, 1, "channel 1", 100)
    writer.started(5, 1, 150)
    writer.done(5, 1, 5_000_000, 5)
    writer.page_work(3, 1600, 0, 4, 0)
    writer.page_work(4, 0, 100, 0, 1)
    writer.faulted(200, 1, 1, 7, 0x8000, "READ", "PTE", "use after unmap", "copy", 4, 3, "{}")
    writer.finish()
    db.close()


def test_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.gpuvm"
    write_recording(path)
    rows = rows_of(str(path), capsys)
    assert rows[""] == f"{path}: SQLite, 10 calls"
    assert rows["program"] == "'./a b' -x was killed by SIGSEGV"
    assert rows["recorded"] == "2026-01-02T03:04:05+00:00 by gpuvm 9.9"
    assert rows["device"] == "TU102 (0x162), 8 GiB of VRAM, 8 GiB of GART"
    assert rows["client 1"] == "a, pid 77: open from 1.500 s to 3.000 s, 10 calls"
    assert rows["time in calls"].startswith("20 us, 2 us a call: gem_close 4 us, vm_bind 4 us, ")
    assert rows["mappings"].endswith("in the end 2 of 60 KiB")  # of the close, not before it
    assert rows["jobs"] == (
        "1 exec, 0 asynchronous binds, 1 failed, waited 50 ns at most (call 7), ran 5 ms at most (call 7)"
    )
    assert rows["faults"] == "1; the first at 0x8000 of call 7: use after unmap"
    assert rows["page tables"] == "1,600 entries written, 100 cleared; 4 tables made, 1 freed"
    assert rows["size"] == f"{path.stat().st_size >> 10} KiB, {path.stat().st_size / 10:,.0f} bytes a call"
    assert "cut short" not in rows


def test_one_that_was_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "app.gpuvm", records_of_lines(*CALLS), whole=False)
    rows = rows_of(path, capsys)
    assert rows["cut short"].startswith("the recording goes on, or was killed")
    assert rows["jobs"] == "1 exec, 0 asynchronous binds, 1 not done in the end"
    assert rows["faults"] == "none"


def test_nothing_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "app.gpuvm", [])
    rows = rows_of(path, capsys)
    assert rows.pop("size").endswith("KiB")
    assert rows == {"": f"{path}: SQLite, 0 calls", "faults": "none"}


def test_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(str(SPARSE_BUFFER), capsys)
    assert rows["client 2"] == "111 calls"
    assert rows["binds"] == "44 ops accepted; emitted: map 22, remap 3, unmap 22"
    assert rows["regions"] == "1 sparse region, in the end none"


def test_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(write_sqlite(tmp_path / "app.gpuvm", records_of_lines(*CALLS)))
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    assert main(["info", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"gpuvm: {path}: damaged (")
