"""`gpuvm trim`: both forms of OUT, what was recorded of calls, and what is not overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from driver_traces import READY, binary, execute, syncobj
from gpuvm.cli import main
from gpuvm.trace import database
from gpuvm.trace.trace import Trace
from gpuvm.trace.writer import Writer
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, bind, call, gem_close, gem_new, op, records_in, vm_init

CALLS = (
    *READY,
    gem_new(2),
    bind(op("map", 32 * PAGE, PAGE, 2)),
    bind(op("unmap", 32 * PAGE, PAGE)),
    gem_close(2),
    syncobj(3),
    execute(1, 0, signals=[binary(3)]),
    call("syncobj_wait", handles=[3], flags=0),
    vm_init(2),
    gem_new(1, client=2),
    call("close"),
)
TABLES = (
    *("about", "device", "clients", "calls", "objects", "handles", "bind_ops", "mappings", "regions", "ops"),
    *("pushes", "syncobjs", "syncs", "jobs", "fences", "accesses", "moves", "page_work", "faults", "doubts"),
    *("call_totals", "totals"),
)


def write_recording(path: Path) -> str:
    """The calls, with rows of everything that is recorded besides."""
    db = database.create(str(path))
    writer = Writer(db)
    writer.about("program", '["./app"]')
    writer.about("status", 0)
    writer.device("TU102", 0x162, 8 << 30, 8 << 30)
    writer.opened(1, 5, "app", 77, "app")
    writer.opened(2, 6, "app", 77, "app")
    writer.moved(7, 1, 5, 1 << 20, None, "vram", False)
    for record in records_of_lines(*CALLS):
        writer.call(record, 1000 + record.line, map_handle=record.line)
        if record.line == 5:
            writer.moved(8, 2, 2, 1 << 20, "vram", "gart", True)
    writer.queued(3, 1, 1, "app binds", 10)
    writer.done(1, 1, 20, 0)
    writer.queued(10, 2, 1, "app channel 1", 30)
    writer.started(2, 1, 35)
    writer.accessed(36, 1, 1, 1, 10, "host", 2, 0, 16)
    writer.accessed(37, None, 1, 1, 10, "copy", 0, 4096, 4096)
    writer.done(2, 1, 40, 5)
    writer.page_work(3, 16, 0, 4, 0)
    writer.page_work(7, 0, 1, 0, 0)
    writer.faulted(39, 1, 1, 10, 0x8000, "READ", "PTE", "use after unmap", "copy", 7, 6, "{}")
    writer.finish()
    db.close()
    return str(path)


def rows(path: str) -> dict[str, list[Any]]:
    with Trace.open(path) as trace:
        trace.check()
        return {table: trace.db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def test_all_of_it_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_recording(tmp_path / "app.gpuvm"), str(tmp_path / "all.gpuvm")
    assert main(["trim", source, "-o", target]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{target}: 14 of 14 calls, 14 asked for and 0 that they need\n"
    before, after = rows(source), rows(target)
    assert after["about"].pop() == ("whole", 1)
    assert after["about"].pop() == ("trimmed", "14 of 14 calls")
    assert before["about"].pop() == ("whole", 1)
    assert after == before


def test_a_part_keeps_numbers_and_what_was_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write_recording(tmp_path / "app.gpuvm"), str(tmp_path / "part.gpuvm")
    assert main(["trim", source, "-o", target, "--calls", "10-11"]) == 0
    assert "7 of 14 calls, 2 asked for and 5 that they need" in capsys.readouterr().err
    left, before = rows(target), rows(source)
    kept = [1, 2, 3, 4, 9, 10, 11]
    assert [row[0] for row in left["calls"]] == kept
    assert left["calls"] == [row for row in before["calls"] if row[0] in kept]
    for table in ("jobs", "fences", "accesses"):
        assert left[table] == before[table]
        assert left[table]
    (fault,) = before["faults"]
    assert fault[10:12] == (7, 6)  # VM_BINDs that are left out
    assert left["faults"] == [(*fault[:10], None, None, fault[12])]
    assert left["page_work"] == before["page_work"][:1]
    assert [row[3] for row in left["moves"]] == [2]
    assert [row[1] for row in left["clients"]] == [1]


def test_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "part.jsonl"
    assert main(["trim", str(SPARSE_BUFFER), "-o", str(target), "--calls", "41-45", "--client", "2"]) == 0
    assert [one.call for one in records_in(target)][-5:] == [
        json.loads(line)["call"] for line in SPARSE_BUFFER.read_text().splitlines()[40:45]
    ]
    capsys.readouterr()
    assert main(["replay", str(target)]) == 0
    assert "first divergence" not in capsys.readouterr().out


def test_from_json_lines_to_sqlite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "part.gpuvm"
    assert main(["trim", str(SPARSE_BUFFER), "-o", str(target), "--calls", "41"]) == 0
    with Trace.open(str(target)) as trace:
        trace.check()
        assert trace.about["source"] == str(SPARSE_BUFFER)
        assert trace.last_call() == 41
    assert main(["replay", str(target)]) == 0


def test_one_that_was_cut_short_stays_so(tmp_path: Path) -> None:
    source = write_sqlite(tmp_path / "app.gpuvm", records_of_lines(*CALLS), whole=False)
    assert main(["trim", source, "-o", str(tmp_path / "part.gpuvm"), "--calls", "5-"]) == 0
    with Trace.open(str(tmp_path / "part.gpuvm")) as trace:
        assert not trace.whole


def test_an_existing_file_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "part.gpuvm"
    target.write_text("mine")
    assert main(["trim", str(SPARSE_BUFFER), "-o", str(target)]) == 1
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main(["trim", str(SPARSE_BUFFER), "-o", str(target), "-f", "--calls", "99999-"]) == 2
    assert "no call from 99999 to the end; the last one of all is 116" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main(["trim", str(SPARSE_BUFFER), "-o", str(target), "-f"]) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["part.gpuvm"]


def test_what_json_lines_have_no_word_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpuvm.trace.recorded import BindOp, VmBind

    odd = VmBind(2, 0, 1, -22, (BindOp(7, 0, 0, 0, 0, 0, 0),), 0, (), ())
    source = write_sqlite(tmp_path / "app.gpuvm", [*records_of_lines(vm_init()), odd])
    assert main(["trim", source, "-o", str(tmp_path / "part.jsonl")]) == 2
    assert (
        "call 2 has an op that JSON Lines have no word for; write SQLite instead" in capsys.readouterr().err
    )
    assert not (tmp_path / "part.jsonl").exists()
    assert main(["trim", source, "-o", str(tmp_path / "part.gpuvm")]) == 0
