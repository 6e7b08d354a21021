"""`gpuvm ops`: the request language and its answers."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gpuvm.cli import main
from tracefile import VECTORS, write

Answer = dict[str, Any]


def answers(requests: str, folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Answer]:
    assert main(["ops", write(folder, requests), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def as_documented(recorded: Answer) -> Answer:
    """The recorded answer, but for what its README says that we do otherwise."""
    if recorded["in"].startswith("prefetch"):
        recorded["ops"] = [one for one in recorded["ops"] if "kernel" not in one]
    va = recorded.get("va")
    if va is not None:
        verb, addr = recorded["in"].split()[:2]
        touches = {"find_prev": va["addr"] + va["range"], "find_next": va["addr"]}
        if touches.get(verb, int(addr)) != int(addr):
            recorded["va"] = None
    return recorded


def test_every_recorded_answer_byte_for_byte() -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["ops", str(VECTORS)]) == 0
    ours = output.getvalue().splitlines()
    recorded = gzip.decompress(VECTORS.read_bytes()).decode().splitlines()
    assert len(ours) == len(recorded) == 27_012
    for our_line, recorded_line in zip(ours, recorded, strict=True):
        if our_line != recorded_line:
            expected = as_documented(json.loads(recorded_line))
            assert our_line == json.dumps(expected, separators=(",", ":"))


def test_bare_requests_number_their_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = "# a comment\n\ninit 0 100 0 0\nmap 1 2 3 4 # another\n init 0x0 0X10 0 0\nunmap 0 1\n"
    found = answers(requests, tmp_path, capsys)
    assert [(one["seq"], one["req"], one["in"]) for one in found] == [
        (0, 0, "init 0 100 0 0"),
        (0, 1, "map 1 2 3 4"),
        (1, 0, "init 0x0 0X10 0 0"),
        (1, 1, "unmap 0 1"),
    ]
    assert found[1]["ops"] == [{"op": "map", "addr": 1, "range": 2, "bo": 3, "offset": 4}]


def test_json_requests_keep_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = """\
{"seq":8,"req":0,"class":"adv","in":"init 0 9 0 0"}
{"in":"insert 0 1 1 0"}
empty 0 1
init 0 9 0 0
"""
    assert main(["ops", write(tmp_path, requests)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '{"seq":8,"req":0,"class":"adv","in":"init 0 9 0 0","ops":[],"err":0}',
        '{"seq":8,"req":1,"in":"insert 0 1 1 0","ops":[],"err":0}',
        '{"seq":8,"req":2,"in":"empty 0 1","ret":false,"err":0}',
        '{"seq":9,"req":0,"in":"init 0 9 0 0","ops":[],"err":0}',
    ]


def test_refusals_are_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = """\
init 10 90 50 10
map 0 5 1 0
map 45 10 1 0
map 18446744073709551615 0xffffffffffffffff 1 0
unmap 95 10
map 20 0 1 0
prefetch 20 0
find_first 20 0
valid 20 0
insert 20 5 1 0
insert 24 5 1 0
find 20 5
find 20 4
find_next 60
region 15 10
"""
    found = answers(requests, tmp_path, capsys)
    assert [one["err"] for one in found] == [0, *[-22] * 8, 0, -17, 0, 0, 0, -17]
    for one in found[1:7]:
        assert one["ops"] == []
    assert found[7]["va"] is None
    assert found[8]["ret"] is False
    assert found[11]["va"] == {"addr": 20, "range": 5, "bo": 1, "offset": 0}
    assert found[12]["va"] is None
    assert found[13]["va"] is None


def test_the_kernels_node_may_lie_outside_the_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answers("init 10 20 40 5\nmap 35 2 1 0\nmap 25 5 1 0\nvalid 30 1\ndump\n", tmp_path, capsys)
    assert [one["err"] for one in found] == [0, -22, 0, 0, 0]
    assert found[3]["ret"] is False
    assert found[4]["dump"][-1] == {"addr": 40, "range": 5, "bo": 0, "offset": 0, "kernel": True}


@pytest.mark.parametrize("request_line", ["init 0 0 0 0", "init 5 18446744073709551615 0 0"])
def test_an_init_that_is_refused(
    request_line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, f"{request_line}\ndump\n")
    assert main(["ops", path]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["err"] == -22
    expected = f"gpuvm: {path}:2:1: dump has no space to work on: the init in line 1 was refused\n"
    assert captured.err == expected


MERGE = "init 0 100 0 0\n{}map 0 10 1 0\nmap 20 10 1 20\nmap 10 10 1 10\ndump\n"


def test_merge_never(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(answers(MERGE.format(""), tmp_path, capsys, "--merge", "never")[-1]["dump"]) == 3


def test_merge_always(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answers(MERGE.format(""), tmp_path, capsys, "--merge", "always")
    assert found[-1]["dump"] == [{"addr": 0, "range": 30, "bo": 1, "offset": 0}]
    assert [(one["op"], one.get("keep")) for one in found[-2]["ops"]] == [
        ("unmap", True),
        ("unmap", True),
        ("map", None),
    ]


def test_merge_within_region(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    regions = "region 0 20 sparse\nregion 20 20\n"
    found = answers(MERGE.format(regions), tmp_path, capsys, "--merge", "within-region")
    assert [(one["addr"], one["range"]) for one in found[-1]["dump"]] == [(0, 20), (20, 10)]


def test_gzipped_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops", write(tmp_path, gzip.compress(b"init 0 9 0 0\n"))]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_requests_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(b"init 0 9 0 0\nmap 1\n"))

    monkeypatch.setattr("sys.stdin", Stdin)
    assert main(["ops"]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.err == "gpuvm: <stdin>:2:6: map takes 4 numbers, not 1: map ADDR RANGE BO OFFSET\n"


def test_no_requests_no_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answers("", tmp_path, capsys) == []


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("mapp 1 2 3 4", 1, "unknown request 'mapp'"),
        ("map 1 2 3", 10, "map takes 4 numbers, not 3: map ADDR RANGE BO OFFSET"),
        ("map 1 2 3 4 5", 13, "map takes 4 numbers, not 5"),
        ("dump 1", 6, "dump takes 0 numbers"),
        ("region 1 2 loose", 12, "region takes 2 numbers, not 3: region ADDR RANGE [sparse]"),
        ("map 1 two 3 4", 7, "RANGE is not a number: 'two'"),
        ("map 1 2 -3 4", 9, "BO is negative: -3"),
        ("map 1 2 3 18446744073709551616", 11, "OFFSET is above 2^64-1"),
        ("map 0x10000000000000000 2 3 4", 5, "ADDR is above 2^64-1"),
        ("map " + "9" * 10_000 + " 2 3 4", 5, "ADDR is above 2^64-1: 999999"),
        ("map 1_0 2 3 4", 5, "ADDR is not a number"),
        ("map 1.5 2 3 4", 5, "ADDR is not a number"),
        ("map \u0661 2 3 4", 5, "ADDR is not a number"),
        ("map 0x 2 3 4", 5, "ADDR is not a number"),
        ("find_next -", 11, "ADDR is not a number: '-'"),
        ('{"in":"map 1 2 x 4"}', 16, "BO is not a number"),
        ('{"in":3}', 7, '"in" is missing or no text'),
        ('{"seq":1}', 1, '"in" is missing or no text'),
        ('{"in":"  "}', 7, '"in" holds no request'),
        ('{"seq":-1,"in":"dump"}', 8, '"seq" is not a whole number'),
        ('{"req":"x","in":"dump"}', 8, '"req" is not a whole number'),
        ('{"in":"dump"', 13, "not valid JSON"),
    ],
)
def test_a_line_that_is_no_request(
    line: str, column: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, f"init 0 100 0 0\n{line}\n")
    assert main(["ops", path]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.err.startswith(f"gpuvm: {path}:2:{column}: {message}")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 400


def test_a_request_before_any_init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "\nmap 1 2 3 4\n")
    assert main(["ops", path]) == 2
    assert capsys.readouterr().err == f"gpuvm: {path}:2:1: map has no space to work on: no init came before\n"
