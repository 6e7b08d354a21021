"""Files: old ones, killed ones, such as are being written, and all that is no trace."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.trace import synthetic

from gpuvm.cli import main
from gpuvm.trace import database
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.errors import TraceError
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from suite import scaled
from trace_scenes import records_of_lines, write_sqlite
from tracefile import SPARSE_BUFFER, bind, gem_new, op, records_in, vm_init

KEPT = sorted((Path(__file__).parent / "traces").glob("*.gpuvm"))
USER_VERSION, APPLICATION_ID = 60, 68


@pytest.fixture
def records() -> list[Record]:
    return records_in(SPARSE_BUFFER)


@pytest.fixture
def path(tmp_path: Path, records: list[Record]) -> Path:
    return Path(write_sqlite(tmp_path / "app.gpuvm", records))


def refusal(path: Path | str) -> str:
    """Why it cannot be opened; the message begins with the file."""
    with pytest.raises(TraceError) as raised:
        Trace.open(str(path)).close()
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value).removeprefix(f"{path}: ")


def patched(path: Path, at: int, value: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + 4] = value.to_bytes(4, "big")
    path.write_bytes(data)
    return path


# -- old traces


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_an_old_trace_stays_readable(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Trace.open(str(kept)) as trace:
        assert trace.whole
        trace.check()
        records = list(trace.records())
        assert [record.line for record in records] == [
            row[0] for row in trace.db.execute("SELECT id FROM calls")
        ]
    with DriverReplay(kept.name, records) as replay:
        assert not replay.run(records).differences
    for words in (["replay"], ["info"], ["dump"], ["check"], ["show", "--json", "-f", "-o", os.devnull]):
        assert main([words[0], str(kept), *words[1:]]) in (0, 99), capsys.readouterr().err
        capsys.readouterr()


def test_one_of_every_version_is_kept() -> None:
    versions = {int.from_bytes(path.read_bytes()[USER_VERSION:][:4], "big") for path in KEPT}
    assert versions == set(range(1, database.VERSION + 1))


def test_the_kept_one_has_something_of_everything() -> None:
    with Trace.open(str(KEPT[-1])) as trace:
        names = [name for (name,) in trace.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        empty = {name for name in names if not trace.db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]}
    assert empty <= {"doubts", "other_fences"}


def test_the_tables_of_this_version_are_those_of_the_kept_one(tmp_path: Path) -> None:
    """Who changes the tables makes another version of them, and keeps this one."""
    query = "SELECT name, sql FROM sqlite_schema ORDER BY name"
    with Trace.open(str(KEPT[-1])) as kept, Trace.open(write_sqlite(tmp_path / "new.gpuvm", [])) as new:
        assert kept.db.execute(query).fetchall() == new.db.execute(query).fetchall()


# -- what is no trace


def test_a_trace_of_a_later_version(path: Path) -> None:
    later = database.VERSION + 1
    message = f"a trace of version {later}, and this gpuvm reads up to {database.VERSION}; take a newer gpuvm"
    assert refusal(patched(path, USER_VERSION, later)) == message


def test_a_version_that_never_was(path: Path) -> None:
    assert refusal(patched(path, USER_VERSION, 0)).startswith("a trace of version 0, which there never was")


def test_another_database(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE photos (name)")
    db.close()
    assert refusal(path).startswith("an SQLite database, but not a trace: its application_id is 0x0")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.gpuvm").touch()
    assert "no record in it" in refusal(tmp_path / "empty.gpuvm")


@pytest.mark.parametrize("size", [20, 99, 100, 4095, 4096, 40_000])
def test_a_truncated_trace(path: Path, size: int) -> None:
    whole = path.stat().st_size
    os.truncate(path, size)
    message = refusal(path)
    assert message.startswith(f"truncated: {size} bytes")
    assert size < 100 or f"of {whole}" in message


def test_damage_is_told_where_it_is_met(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    assert main(["replay", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"gpuvm: {path}: damaged (database disk image is malformed)")
    assert ".recover" in told


def test_what_is_missing_or_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.gpuvm") == "cannot open: No such file or directory"
    assert refusal(tmp_path) == "cannot open: Is a directory"


def test_a_gzipped_trace_is_to_be_unpacked(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "app.gpuvm.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert "gunzip" in refusal(packed)


def test_a_trace_is_not_written_over_something(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TraceError, match="there is something in it; a trace is written to a new file"):
        database.create(str(path))
    assert path.read_bytes() == before
    with pytest.raises(TraceError, match="cannot write a trace there: unable to open database file"):
        database.create(str(path / "below"))


# -- while it is written, and when that is killed


@pytest.fixture
def half(tmp_path: Path, records: list[Record]) -> Iterator[tuple[Path, Writer]]:
    """A trace that has half of its calls."""
    path = tmp_path / "half.gpuvm"
    db = database.create(str(path))
    writer = Writer(db)
    for record in records[:60]:
        writer.call(record)
    writer.commit()
    yield path, writer
    db.close()


def test_what_is_committed_is_seen_while_it_is_written(
    half: tuple[Path, Writer], records: list[Record]
) -> None:
    path, writer = half
    with Trace.open(str(path)) as before:
        assert not before.whole
        for record in records[60:]:
            writer.call(record)
        with Trace.open(str(path)) as still:
            assert still.last_call() == 60
        writer.commit()
        assert list(before.records()) == records[:60]  # of the moment when it was opened
        before.check()
        with Trace.open(str(path)) as after:
            assert list(after.records()) == records
        writer.finish()
    with Trace.open(str(path)) as trace:
        assert trace.whole
        trace.check()


def test_a_finished_trace_is_one_file(half: tuple[Path, Writer]) -> None:
    path, writer = half
    assert path.with_name("half.gpuvm-wal").exists()
    writer.finish()
    assert [one.name for one in path.parent.iterdir()] == ["half.gpuvm"]


def killed(half: tuple[Path, Writer], folder: Path) -> Path:
    """What is left of it when the writer is killed: its files, as they are."""
    folder.mkdir()
    for one in half[0].parent.glob("half.gpuvm*"):
        shutil.copy(one, folder)
    return folder / "half.gpuvm"


def test_a_killed_recording_has_what_was_committed(
    half: tuple[Path, Writer], tmp_path: Path, records: list[Record]
) -> None:
    half[1].call(records[60])
    path = killed(half, tmp_path / "killed")
    with Trace.open(str(path)) as trace:
        assert not trace.whole
        assert list(trace.records()) == records[:60]
        trace.check()
    assert main(["replay", str(path)]) == 0


def test_a_killed_recording_is_read_where_nobody_may_write(
    half: tuple[Path, Writer], tmp_path: Path, records: list[Record]
) -> None:
    path = killed(half, tmp_path / "killed")
    path.with_name("half.gpuvm-shm").unlink(missing_ok=True)
    # For root permissions are no obstacle, so the file for shared memory gets one: a folder of its name.
    path.with_name("half.gpuvm-shm").mkdir()
    with Trace.open(str(path)) as trace:
        assert list(trace.records()) == records[:60]


def test_a_change_that_was_not_finished_is_taken_back(
    path: Path, tmp_path: Path, records: list[Record]
) -> None:
    """As of a machine that goes down while the last of a recording's journals is put away."""
    (tmp_path / "killed").mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("UPDATE calls SET args = hex(zeroblob(500))")
    db.execute("UPDATE bind_ops SET handle = 5")
    for one in path.parent.glob("app.gpuvm*"):
        shutil.copy(one, tmp_path / "killed")
    db.execute("ROLLBACK")
    db.close()
    assert (tmp_path / "killed" / "app.gpuvm-journal").exists()
    with Trace.open(str(tmp_path / "killed" / "app.gpuvm")) as trace:
        assert list(trace.records()) == records


def test_a_trace_is_read_only(path: Path) -> None:
    before = path.read_bytes()
    with Trace.open(str(path)) as trace, pytest.raises(sqlite3.OperationalError):
        trace.db.execute("DELETE FROM calls")
    assert path.read_bytes() == before


def test_a_call_takes_120_bytes(tmp_path: Path) -> None:
    """Ordinary ones, with all that becomes of them; an empty trace has a page for every table."""
    count = scaled(20_000, 200_000)
    empty = os.path.getsize(write_sqlite(tmp_path / "empty.gpuvm", []))
    db = database.create(str(tmp_path / "long.gpuvm"))
    writer = Writer(db)
    synthetic.tell(writer, synthetic.records(count))
    writer.finish()
    db.close()
    assert os.path.getsize(tmp_path / "long.gpuvm") <= empty + 120 * count
    with Trace.open(str(tmp_path / "long.gpuvm")) as trace:
        trace.check()


# -- both forms, from anywhere


def test_a_name_that_uris_have_other_ideas_about(tmp_path: Path) -> None:
    path = write_sqlite(tmp_path / "a?b#c%20d.gpuvm", records_of_lines(vm_init()))
    with Trace.open(path) as trace:
        assert trace.last_call() == 1


def test_standard_input_may_be_either(
    path: Path, tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    for source, form in ((path, Form.SQLITE), (SPARSE_BUFFER, Form.JSON_LINES)):
        with open(source) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            with Trace.open("-") as trace:
                assert (trace.name, trace.form) == ("<stdin>", form)
                assert list(trace.records()) == records


def test_a_call_that_is_not_there(path: Path) -> None:
    with Trace.open(str(path)) as trace, pytest.raises(TraceError) as raised:
        trace.call(117)
    assert str(raised.value) == f"{path}: there is no call 117; the last one is 116"


def test_functions_of_sql(path: Path) -> None:
    query = (
        "SELECT addr(x), size(x), errno_name(x) FROM (SELECT column1 AS x FROM (VALUES (?), (?), (?), (?)))"
    )
    with Trace.open(str(path)) as trace:
        assert trace.db.execute(query, (-2, 65536, None, 1536)).fetchall() == [
            ("0xfffffffffffffffe", "18,446,744,073,709,551,614 B", "ENOENT"),
            ("0x10000", "64 KiB", "65536"),
            (None, None, None),
            ("0x600", "1,536 B", "1536"),
        ]


def test_what_was_not_recorded_is_null() -> None:
    with Trace.open(str(SPARSE_BUFFER)) as trace:
        assert trace.form is Form.JSON_LINES
        assert trace.about["source"] == str(SPARSE_BUFFER)
        assert trace.db.execute("SELECT count(took) FROM calls").fetchone() == (0,)
        counts = trace.statistics()
        assert (counts.calls, counts.clients, counts.jobs) == (116, 2, 16)


def test_writing_counts(tmp_path: Path) -> None:
    db = database.create(str(tmp_path / "counts.gpuvm"))
    writer = Writer(db)
    for record in records_of_lines(vm_init(), gem_new(1), bind(op("map", 0, 8192, 1), op("unmap", 0, 4096))):
        writer.call(record)
    writer.check()
    counts = writer.statistics()
    assert (counts.calls, counts.bind_ops, counts.ops, counts.mappings, counts.doubts) == (3, 2, 2, 2, 0)
    assert counts.waiting > 0
    with pytest.raises(ValueError, match="call 3 comes after call 3; calls are told in their order"):
        writer.call(records_of_lines(vm_init(), vm_init(), vm_init())[2])
    writer.commit()
    assert writer.statistics().waiting == 0
    db.close()
