"""`gpuvm export`: JSON and CSV have what the tables have, and the command line around them."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gpuvm.cli import main
from gpuvm.trace import database
from gpuvm.trace.export import tables, write_csv, write_json
from gpuvm.trace.recorded import GemClose, VmInit
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from perfetto_reader import pb
from trace_scenes import write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, bind, gem_new, op, records_in, vm_init, write_trace

HIGH = 0xFFFF_FFFF_FFFF_F000
ONE = (vm_init(), gem_new(3), bind(op("map", PAGE, PAGE, 3)), bind(op("map", HIGH, 2 * PAGE, 3), ret=-22))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return write_trace(tmp_path, *ONE)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return Trace.open(str(SPARSE_BUFFER))


def _json(trace: Trace) -> dict[str, Any]:
    out = io.StringIO()
    write_json(trace, out)
    return json.loads(out.getvalue())  # type: ignore[no-any-return]


def _csv(trace: Trace, table: str) -> list[list[str]]:
    out = io.StringIO(newline="")
    write_csv(trace, table, out)
    assert out.getvalue().endswith("\r\n")
    return list(csv.reader(io.StringIO(out.getvalue(), newline=""), strict=True))


def _rows(trace: Trace, table: str) -> list[tuple[object, ...]]:
    return trace.db.execute(f'SELECT * FROM "{table}"').fetchall()


def test_json_has_every_row_of_every_table(trace: Trace) -> None:
    document = _json(trace)
    assert set(document) == {"schema", *tables(trace)}
    assert document["about"] == dict(trace.about)
    for table in set(tables(trace)) - {"about"}:
        assert len(document[table]) == len(_rows(trace, table)), table
    call = next(one for one in document["calls"] if one["call"] == "gem_close")
    closed = trace.call(call["id"])
    assert isinstance(closed, GemClose)
    assert call["args"] == {"handle": closed.handle}
    rows = _rows(trace, "mappings")
    assert [list(one.values()) for one in document["mappings"]] == [list(row) for row in rows]


def test_csv_has_every_row_of_every_table(trace: Trace) -> None:
    for table in tables(trace):
        (header, *rows), kept = _csv(trace, table), _rows(trace, table)
        assert len(rows) == len(kept), table
        for shown, row in zip(rows, kept, strict=True):
            for column, text, value in zip(header, shown, row, strict=True):
                if value is None:
                    assert text == ""
                elif column in ("addr", "va", "kernel_addr"):
                    assert int(text, 16) == value
                    assert text.startswith("0x")
                else:
                    assert text == str(value)


def test_numbers_of_64_bits_are_unsigned(path: str) -> None:
    with Trace.open(path) as trace:
        assert _json(trace)["bind_ops"][1]["addr"] == HIGH
        header, _, row = _csv(trace, "bind_ops")
        assert dict(zip(header, row, strict=True))["addr"] == hex(HIGH)
        assert _json(trace)["calls"][3]["ret"] == -22


def test_text_is_quoted() -> None:
    db = database.create_temporary()
    writer = Writer(db)
    name = 'a "b",\n\x07é'
    writer.opened(1, 0, name, 5, None)
    writer.about("program", json.dumps(["./app", name]))
    writer.call(VmInit(1, 1, 1, 0, 0, 0))
    writer.faulted(5, 1, 2, 1, None, None, None, "ENGINE", "host", None, None, '{"cause":"ENGINE"}')
    writer.finish()
    trace = Trace("scene", Form.SQLITE, db)
    document = _json(trace)
    assert document["clients"][0]["name"] == name
    assert document["about"]["program"] == ["./app", name]
    assert document["faults"][0]["report"] == {"cause": "ENGINE"}
    header, row = _csv(trace, "clients")
    assert dict(zip(header, row, strict=True))["name"] == name


def test_an_empty_trace_is_a_document_too() -> None:
    db = database.create_temporary()
    document = _json(Trace("empty", Form.SQLITE, db))
    assert document["calls"] == []
    assert document["about"] == {}


@pytest.mark.parametrize("form", ["perfetto", "json", "csv"])
def test_a_damaged_trace_is_told(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "a.gpuvm", records_in(SPARSE_BUFFER))
    with sqlite3.connect(path) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'calls'").fetchone()
    db.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    assert main(["export", path, "--format", form, "-o", str(tmp_path / "out")]) == 2
    assert "damaged" in capsys.readouterr().err
    assert form == "csv" or not (tmp_path / "out").exists()


# -- the command line


def test_three_forms(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", path, "--format", "perfetto", "-o", "a.pftrace"]) == 0
    packets = len(pb.Trace.FromString((tmp_path / "a.pftrace").read_bytes()).packet)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"written: a.pftrace, {packets} packets; open it at https://ui.perfetto.dev")
    assert main(["export", path, "--format", "json", "-o", "a.json"]) == 0
    assert len(json.loads((tmp_path / "a.json").read_text())["calls"]) == 4
    assert main(["export", path, "--format", "csv", "-o", "a"]) == 0
    assert (tmp_path / "a" / "objects.csv").read_bytes().startswith(b"id,size,")
    assert "written: a, " in capsys.readouterr().err


def test_to_standard_output(path: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", path, "--format", "csv", "--table", "device", "-o", "-"]) == 0
    assert capfdbinary.readouterr() == (b"chip,chipset,vram,gart\r\n", b"")
    assert main(["export", path, "--format", "json", "-o", "-"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["schema"] == database.VERSION
    assert main(["export", path, "--format", "perfetto", "-o", "-"]) == 0
    assert pb.Trace.FromString(capfdbinary.readouterr().out).packet


def test_nothing_is_overwritten(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "folder").mkdir()
    for form, there in (("perfetto", "there"), ("json", "there"), ("csv", "there"), ("csv", "folder")):
        assert main(["export", path, "--format", form, "-o", there]) == 1
        assert there in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"
    assert list((tmp_path / "folder").iterdir()) == []
    assert main(["export", path, "--format", "json", "-f", "-o", "there"]) == 0
    assert main(["export", path, "--format", "csv", "-f", "-o", "folder"]) == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "there", "trace.jsonl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "json", "--table", "calls", "-o", "x"), "json has all tables in one file"),
        (("--format", "csv", "-o", "-"), "-o FOLDER, or --table NAME"),
        (
            ("--format", "csv", "--table", "call", "-o", "x"),
            "no table 'call'; there are about, device, clients",
        ),
        (("--format", "chrome", "-o", "x"), "invalid choice"),
        (("--format", "json"), "-o"),
    ],
)
def test_wrong_usage(
    path: str, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", path, *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", path, "--format", "json", "-o", "/dev/full"]) == 1
    assert "cannot write /dev/full: No space left" in capsys.readouterr().err
    assert main(["export", path, "--format", "json", "-o", "nowhere/x.json"]) == 1
    assert "cannot write nowhere/x.json: No such file or directory" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["trace.jsonl"]


def test_an_unusable_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none"), "--format", "json", "-o", str(tmp_path / "x")]) == 2
    assert "cannot open" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
