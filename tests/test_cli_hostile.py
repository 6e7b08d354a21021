"""Traces that somebody damaged, and names that somebody chose: every verb says in one line what is wrong."""

from __future__ import annotations

import os
import random
import re
import shlex
import sqlite3
from pathlib import Path

import pytest

from gpuvm.cli import main
from gpuvm.trace.recorded import Record
from suite import scaled
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, bind, gem_new, op, vm_init

Capture = pytest.CaptureFixture[str]

ADDR = 0x40000
KEPT = Path(__file__).with_name("traces") / "version-1.gpuvm"
VERBS = {
    "info": ["info", "TRACE"],
    "dump": ["dump", "TRACE", "--ops", "--full"],
    "check": ["check", "TRACE"],
    "why": ["why", "TRACE", hex(ADDR)],
    "view": ["view", "TRACE", "-o", "OUT.html", "-f"],
    "perfetto": ["export", "TRACE", "--format", "perfetto", "-o", "OUT.pftrace", "-f"],
    "json": ["export", "TRACE", "--format", "json", "-o", "OUT.json", "-f"],
    "replay": ["replay", "TRACE"],
    "trim": ["trim", "TRACE", "-o", "OUT.gpuvm", "-f"],
    "diff": ["diff", "TRACE", "TRACE"],
    "sql": ["sql", "TRACE", "SELECT * FROM calls"],
    "show": ["show", "TRACE", "-o", "OUT.svg", "--force"],
}


def records() -> list[Record]:
    return records_of_lines(vm_init(), gem_new(5), bind(op("map", ADDR, 4 * PAGE, handle=5)))


@pytest.fixture
def trace(tmp_path: Path) -> str:
    return write_sqlite(tmp_path / "app.gpuvm", records())


def run(verb: str, trace: str, folder: Path) -> int:
    words = [word.replace("TRACE", trace).replace("OUT", str(folder / "out")) for word in VERBS[verb]]
    return main(words)


# -- damage


@pytest.mark.parametrize("seed", range(scaled(6, 200)))
def test_a_damaged_trace_is_told_in_a_line(seed: int, tmp_path: Path, capsys: Capture) -> None:
    """Bytes of the schema and of rows become others. Nothing but errors of traces come out of any verb."""
    chance = random.Random(seed)
    data = bytearray(KEPT.read_bytes())
    used = [at for at in range(100, len(data)) if data[at]]
    for _ in range(chance.choice([1, 4, 30, 100])):
        data[chance.choice(used)] = chance.randrange(256)
    path = tmp_path / "damaged.gpuvm"
    path.write_bytes(data)
    for verb in VERBS:
        assert run(verb, str(path), tmp_path) in (0, 1, 2, 99), verb
    capsys.readouterr()


@pytest.mark.parametrize("verb", VERBS)
def test_what_sqlite_says_of_broken_text_is_no_text(
    verb: str, trace: str, tmp_path: Path, capsys: Capture
) -> None:
    data = Path(trace).read_bytes()
    assert b"CREATE TABLE about" in data
    Path(trace).write_bytes(data.replace(b"CREATE TABLE about", b"CREATE TABLE \xff\xfeout"))
    assert run(verb, trace, tmp_path) == 2
    assert "app.gpuvm: damaged (" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["dump", "replay", "trim", "diff"])
@pytest.mark.parametrize("change", ["nr = 99", "client = 7"])
def test_a_call_that_nobody_can_have_made(
    verb: str, change: str, trace: str, tmp_path: Path, capsys: Capture
) -> None:
    with sqlite3.connect(trace) as db:
        db.execute(f"UPDATE calls SET {change} WHERE id = 2")
    db.close()
    assert run(verb, trace, tmp_path) == 2
    assert "app.gpuvm: damaged: " in capsys.readouterr().err


def test_a_recording_that_was_killed_before_its_first_call(tmp_path: Path, capsys: Capture) -> None:
    empty = write_sqlite(tmp_path / "empty.gpuvm", [], whole=False)
    assert main(["replay", empty]) == 2
    assert "no call in it" in capsys.readouterr().err


# -- names


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", [b"\xff\xfe", b"a b\n'\"<i>", b"q?x=1#%41"], ids=repr)
def test_any_file_name(verb: str, name: bytes, tmp_path: Path, capsys: Capture) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    os.rename(write_sqlite(tmp_path / "app.gpuvm", records()), path)
    assert run(verb, path, tmp_path) == (99 if verb == "check" else 0)  # it ends with what it has
    capsys.readouterr()


def test_a_command_that_is_proposed_can_be_pasted(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "my app.gpuvm"
    path.write_bytes(KEPT.read_bytes())
    assert main(["check", str(path)]) == 99
    proposed = re.search("next: gpuvm (.*)", capsys.readouterr().out)
    assert proposed is not None
    assert main(shlex.split(proposed[1])) == 0
    capsys.readouterr()


def test_a_process_cannot_speak_to_the_terminal(trace: str, capsys: Capture) -> None:
    with sqlite3.connect(trace) as db:
        db.execute("UPDATE clients SET name = ?, program = ?, pid = 1", ["\x1b[31m\nme", "\x1b[31m\nme"])
        db.execute("INSERT INTO about VALUES ('program', ?)", ['["\\u001b[31mapp"]'])
    db.close()
    assert main(["info", trace]) == 0
    assert main(["why", trace, hex(ADDR)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\\x1b[31m\\x0ame") >= 2
    assert "\\x1b[31mapp" in out


# -- what is written where


@pytest.mark.parametrize("verb", ["view", "perfetto", "json", "trim", "show"])
def test_a_trace_is_not_replaced_by_what_is_made_of_it(
    verb: str, trace: str, tmp_path: Path, capsys: Capture
) -> None:
    before = Path(trace).read_bytes()
    link = tmp_path / "link.gpuvm"
    link.symlink_to(trace)
    for target in (trace, str(link)):
        words = [trace if word == "TRACE" else target if "OUT" in word else word for word in VERBS[verb]]
        assert main(words) == 1
        assert "is the file that is read; -o names another" in capsys.readouterr().err
    assert Path(trace).read_bytes() == before


@pytest.mark.parametrize("verb", ["view", "trim", "show"])
def test_files_are_not_called_minus(
    verb: str, trace: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [trace if word == "TRACE" else "-" if "OUT" in word else word for word in VERBS[verb]]
    assert main(words) == 1
    assert "-: this does not go to standard output" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["app.gpuvm"]


def test_a_client_that_is_not_there(trace: str, tmp_path: Path, capsys: Capture) -> None:
    for words in (["dump", trace], ["why", trace, "0"], ["view", trace, "-o", str(tmp_path / "x.html")]):
        assert main([*words, "--client", "9"]) == 2
        assert "there is no client 9; clients: 1" in capsys.readouterr().err
