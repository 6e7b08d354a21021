"""`gpuvm sql`: rows as text, JSON and CSV; read-only; errors that say what there is."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvm.cli import main
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, bind, gem_close, gem_new, op, vm_init

CALLS = (
    vm_init(),
    gem_new(1),
    bind(op("map", 0x3F_FF00_0000, 16 * PAGE, 1)),
    {**bind(op("unmap", (1 << 64) - PAGE, PAGE)), "ret": -22},
    gem_close(1),
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return write_sqlite(tmp_path / "app.gpuvm", records_of_lines(*CALLS))


def asked(capsys: pytest.CaptureFixture[str], path: str, query: str, *options: str) -> str:
    assert main(["sql", path, query, *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_a_table(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = asked(capsys, path, "SELECT call, op, addr, range, handle, bo_offset FROM bind_ops ORDER BY call")
    assert out.splitlines() == [
        "call  op                   addr    range  handle  bo_offset",
        "----  -----  ------------------  -------  ------  ---------",
        "   3  map          0x3fff000000  0x10000       1        0x0",
        "   4  unmap  0xfffffffffffff000   0x1000       0        0x0",
    ]


def test_other_values(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = asked(
        capsys, path, "SELECT NULL AS n, 1.5 AS f, x'00ff' AS b, 'a' || char(10) || 'b' AS t, -3 AS i"
    )
    assert out.splitlines()[2].split() == ["-", "1.5", "00ff", r"a\x0ab", "-3"]


def test_functions(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT addr(addr) AS a, size(range) AS s, errno_name(ret) AS e FROM bind_ops b, calls"
    assert asked(capsys, path, f"{query} c ON c.id = b.call", "--csv").splitlines() == [
        "a,s,e",
        "0x3fff000000,64 KiB,0",
        "0xfffffffffffff000,4 KiB,EINVAL",
    ]


def test_json_and_csv_have_numbers(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT call, addr, x'01' AS b, NULL AS n FROM bind_ops"
    rows = [json.loads(line) for line in asked(capsys, path, query, "--json").splitlines()]
    assert rows == [
        {"call": 3, "addr": 0x3F_FF00_0000, "b": "01", "n": None},
        {"call": 4, "addr": -PAGE, "b": "01", "n": None},
    ]
    assert asked(capsys, path, "SELECT call, NULL AS n FROM bind_ops", "--csv") == "call,n\n3,\n4,\n"


def test_no_rows(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, path, "SELECT addr, id FROM mappings WHERE 0").splitlines() == [
        "addr  id",
        "----  --",
    ]
    assert asked(capsys, path, "SELECT addr FROM mappings WHERE 0", "--json") == ""
    assert asked(capsys, path, "SELECT 1e999 AS x, -1e999 AS y", "--json") == '{"x":null,"y":null}\n'


def test_long_results_are_not_measured_to_their_end(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 4000) SELECT x * x FROM n"
    lines = asked(capsys, path, query).splitlines()
    assert len(lines) == 4002
    assert len(lines[999]) < len(lines[-1])  # the column was measured before


def test_the_tables(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", path]) == 0
    out = capsys.readouterr().out
    db = sqlite3.connect(":memory:")
    db.executescript(out.replace("/*calls*/", "WHEN 0 THEN ''"))
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    db.close()
    assert {"calls", "mappings", "ops"} <= tables
    for name in tables:
        asked(capsys, path, f"SELECT * FROM {name}")


def test_json_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, str(SPARSE_BUFFER), "SELECT count(*) AS n FROM calls", "--csv") == "n\n116\n"


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM calls",
        "DROP TABLE calls",
        "CREATE TABLE mine (x)",
        "CREATE TEMP TABLE mine (x)",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'copy.db'",
        "BEGIN",
        "COMMIT",
        "WITH x AS (SELECT 1) INSERT INTO about SELECT 'a', 1",
    ],
)
@pytest.mark.parametrize("form", ["gpuvm", "jsonl"])
def test_nothing_is_changed(
    form: str,
    query: str,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Path(path).read_bytes()
    assert main(["sql", path if form == "gpuvm" else str(SPARSE_BUFFER), query]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a trace is only read, with SELECT" in captured.err
    assert Path(path).read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["app.gpuvm"]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT * FROM mapings", "no such table: mapings; is mappings meant? tables are about, accesses, "),
        ("SELECT ranges FROM mappings", "no such column: ranges; is range meant?"),
        (
            "SELECT bo_offset FROM calls",
            "no such column: bo_offset; there is bind_ops.bo_offset, mappings.bo_offset",
        ),
        ("SELECT qqqqqq FROM calls", "no such column: qqqqqq; without a query, the tables"),
        (
            "SELECT adr(1)",
            "no such function: adr; besides SQLite's there are addr(x), size(x), errno_name(x)",
        ),
        ("SELECT 1; SELECT 2", "one SELECT at a time"),
        ("SELEC 1", 'query: near "SELEC": syntax error'),
        ("", "the query is empty"),
        ("-- nothing", "the query is empty"),
    ],
    ids=str,
)
def test_errors_teach(query: str, complaint: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", path, query]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpuvm: ")
    assert complaint in captured.err
    assert captured.err.count("\n") == 1


def test_an_error_in_the_middle(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["sql", path, "SELECT abs(-9223372036854775807 - value) FROM (SELECT 0 AS value UNION SELECT 1)"]
        )
        == 2
    )
    assert "integer overflow" in capsys.readouterr().err


def test_json_or_csv(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sql", path, "SELECT 1", "--json", "--csv"])
    assert caught.value.code == 2


def test_ctrl_c_ends_a_long_query(path: str) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"
    # Python asks for the next row before it gives one.
    shown = (
        f"SELECT 'begun' UNION ALL SELECT 'goes on' UNION ALL SELECT * FROM ({endless.format('count(*)')})"
    )
    command = [sys.executable, "-u", "-m", "gpuvm", "sql", path, shown, "--csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["'begun'\n", "begun\n"]
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
        assert complaint == "gpuvm: interrupted\n"
        assert process.returncode == 130
