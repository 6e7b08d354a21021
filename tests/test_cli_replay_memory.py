"""`gpuvm replay --vram`: policies side by side; and the page tables in the plain summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuvm.cli import main
from gpuvm.mem import faults
from tracefile import PAGE, SPARSE_BUFFER, bind, call, gem_new, op, vm_init, write, write_trace

MIB = 1 << 20


def two_objects_in_turn(turns: int, **fields: int) -> list[dict[str, object]]:
    binds = [bind(op("map", (turn % 2) * MIB, MIB, 1 + turn % 2)) for turn in range(turns)]
    return [vm_init(), gem_new(1, size=MIB, **fields), gem_new(2, size=MIB, **fields), *binds]


def rows_of(out: str, width: int) -> dict[str, list[str]]:
    return {line[:width].strip(): line[width:].split() for line in out.splitlines()[3:]}


def test_policies_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *two_objects_in_turn(4))
    assert main(["replay", path, "--vram", "2M", "--gart", "1G", "--policy", "lru,farthest,clock"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[:4] == [
        f"{path}, lines 1-7",
        "2 MiB of VRAM, 1 GiB of GART",
        "",
        "                            lru      farthest         clock",
    ]
    rows = rows_of(captured.out, 20)
    assert rows["uses"] == ["4"] * 3
    assert rows["first uses"] == ["2"] * 3
    assert rows["hits"] == ["0"] * 3
    assert rows["hit rate"] == ["0.0%"] * 3
    assert rows["evictions"] == rows["stalls"] == ["3"] * 3
    assert rows["moved in"] == ["2", "MiB"] * 3
    assert rows["moved out"] == ["3", "MiB"] * 3
    assert rows["ended at line"] == ["-"] * 3


def test_lru_is_what_one_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *two_objects_in_turn(4))
    assert main(["replay", path, "--vram", str(8 * MIB), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["vram"], document["gart"]) == (8 * MIB, 64 << 30)
    assert document["policies"] == {
        "lru": {
            "uses": 4,
            "first_uses": 2,
            "hits": 2,
            "without_room": 0,
            "evictions": 0,
            "moved_in": 0,
            "moved_out": 0,
            "stalls": 0,
            "refused": None,
        }
    }


def test_a_working_set_that_does_not_fit_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = bind(op("map", 0, MIB, 1), op("map", MIB, MIB, 2))
    path = write_trace(tmp_path, *two_objects_in_turn(1, domain=2), both)
    arguments = ["replay", path, "--vram", "2M", "--policy", "clock"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert rows_of(captured.out, 20)["ended at line"] == ["5"]
    last = captured.out.splitlines()[-1]
    assert last.startswith(
        f"clock ended there: {path}:5: the objects that this call uses do not fit together: "
    )
    assert last.endswith("[ENOMEM]; raise --vram or --gart")
    assert main([*arguments, "--json"]) == 1
    assert "ENOMEM" in json.loads(capsys.readouterr().out)["policies"]["clock"]["refused"]


@pytest.mark.parametrize("memory", [["--vram", "4K"], ["--vram", "64K", "--gart", "4K"]])
def test_memory_that_is_too_small(
    memory: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path, *two_objects_in_turn(2))
    assert main(["replay", path, *memory]) == 1
    assert capsys.readouterr().out.endswith("]; raise --vram or --gart\n")


@pytest.mark.parametrize(
    "requests", ["init 0 0x10000 0 0\n", "# nothing\ninit 0 0x10000 0 0\n", '{"in": "init 0 0x10000 0 0"}\n']
)
@pytest.mark.parametrize("memory", [[], ["--vram", "1M"]])
def test_requests_are_no_trace(
    memory: list[str], requests: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, requests, "requests.txt")
    assert main(["replay", path, *memory]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gpuvm: {path}:1: this is a request file, and replay wants a trace")
    assert "`gpuvm ops`" in captured.err


def test_one_client_and_an_earlier_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *two_objects_in_turn(4), vm_init(2))
    assert main(["replay", path, "--vram", "2M", "--until", "5", "--client", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}, lines 1-5\n")
    assert rows_of(out, 18)["uses"] == ["2"]
    assert main(["replay", path, "--vram", "2M", "--client", "3"]) == 2
    assert "client 3 did no successful vm_init" in capsys.readouterr().err


@pytest.mark.parametrize("vram", ["64K", "1M", "2M", "16M"])
def test_an_example(vram: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(SPARSE_BUFFER), "--vram", vram, "--policy", "lru,clock,farthest"]) == 0
    rows = rows_of(capsys.readouterr().out, 18)
    assert rows["uses"] == ["25"] * 3
    assert len(set(rows["first uses"])) == 1


@pytest.mark.parametrize(
    "size",
    ["", "0", "64m", "64MB", "1.5G", "-1M", "0x1000", "4097", "4K4", "2T", "9" * 30, "18446744073709551615T"],
)
@pytest.mark.parametrize("option", ["--vram", "--gart"])
def test_sizes_that_are_none(option: str, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["replay", "f", f"{option}={size}"])
    assert caught.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"gpuvm replay: error: argument {option}: ")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mru", "unknown policy 'mru': expected lru, clock, farthest"),
        ("lru,", "unknown policy ''"),
        ("LRU", "unknown policy 'LRU'"),
        ("lru,clock,lru", "a policy twice in 'lru,clock,lru'"),
    ],
)
def test_policies_that_are_none(names: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["replay", "f", "--vram", "64M", "--policy", names])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--gart", "1G"], ["--policy", "lru"]])
def test_options_that_need_vram(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["replay", "f", *option])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {option[0]} needs --vram SIZE\n")


# -- page tables in the summary


def test_the_summary_has_page_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(
        tmp_path,
        vm_init(1),
        vm_init(2),
        gem_new(1, client=2),
        bind(op("map", 0, 8 * PAGE, 1), client=2),
        bind(op("map", 0, 4 * PAGE, 1), client=2),
    )
    assert main(["replay", path]) == 0
    rows = rows_of(capsys.readouterr().out, 25)
    assert rows["page tables, at most"] == ["1", "5"]
    assert rows["page tables, at the end"] == ["1", "5"]
    assert rows["their bytes, at most"] == ["4", "KiB", "20", "KiB"]
    assert rows["entries written"] == ["0", "12"]
    assert rows["entries cleared"] == ["0", "0"]
    assert rows["if keep is ignored"] == ["0", "4"]
    assert rows["saved by keep"] == ["0.00%", "100.00%"]


def test_binds_that_page_tables_refuse_are_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, vm_init(), gem_new(1, size=PAGE), bind(op("map", 0, 2 * PAGE, 1)))
    assert main(["replay", path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        f"gpuvm: {path}:3: op 0 of this vm_bind was accepted when recorded, but map"
    )
    assert captured.err.count("\n") == 1


def test_the_summary_does_without_page_tables_for_lack_of_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path, vm_init(), gem_new(1), call("exec"), bind(op("map", 0, PAGE, 1)))
    with faults.count_allocations() as allocations:
        assert main(["replay", path, "--no-driver"]) == 0
    assert "page tables" in capsys.readouterr().out
    for number in range(len(allocations)):
        with faults.refuse_allocation(number):
            assert main(["replay", path, "--no-driver"]) == 0
        captured = capsys.readouterr()
        assert rows_of(captured.out, 20)["requests"] == ["1"]
        assert "page tables" not in captured.out
        assert captured.err.startswith("no page tables are told: ")
        assert f"allocation {number} was made to fail" in captured.err
