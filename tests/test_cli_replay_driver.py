"""`gpuvm replay` through the driver: when it is chosen, what it tells, and the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from driver_traces import binary, channel_alloc, execute, syncobj
from gpuvm.cli import main
from gpuvm.report.call_text import dump_line
from tracefile import (
    EXAMPLES,
    PAGE,
    SPARSE_BUFFER,
    VULKANINFO,
    Call,
    bind,
    call,
    gem_new,
    op,
    records_in,
    vm_init,
    write_trace,
)

BINDS = (vm_init(), gem_new(1), bind(op("map", 0, 2 * PAGE, 1)), bind(op("unmap", 0, PAGE)))
CALLS = (*BINDS, syncobj(7), channel_alloc(1), execute(1, PAGE, signals=[binary(7)]))


def rows_of(out: str) -> dict[str, list[str]]:
    rows = (re.split(r"\s{2,}", line.strip()) for line in out.splitlines())
    return {label: values for label, *values in rows}


@pytest.mark.parametrize(
    "decisive",
    [
        execute(1),
        channel_alloc(1),
        syncobj(1),
        {**bind(), "flags": 1, "signals": [binary(9)], "ret": -2},
        {**bind(), "flags": 1, "waits": [binary(9)], "ret": -2},
    ],
    ids=lambda one: one["call"],
)
def test_calls_that_need_the_driver_choose_it(
    decisive: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path, *BINDS, decisive)
    main(["replay", path])
    assert "all calls" in rows_of(capsys.readouterr().out)
    assert main(["replay", path, "--no-driver"]) == 0
    assert "all calls" not in rows_of(capsys.readouterr().out)


def test_binds_alone_do_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *BINDS)
    assert main(["replay", path]) == 0
    manager = capsys.readouterr().out
    assert "all calls" not in manager
    assert main(["replay", path, "--driver"]) == 0
    driver = capsys.readouterr().out
    same = [line for line in manager.splitlines() if not line.startswith(("skipped", "time per"))]
    assert [line for line in driver.splitlines() if line in same and line] == [line for line in same if line]


@pytest.mark.parametrize("example", [SPARSE_BUFFER, VULKANINFO], ids=lambda path: path.name)
def test_examples(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(example)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = rows_of(captured.out)
    lines = example.read_bytes().count(b"\n")
    assert rows["all calls"] == [str(lines), "0", "0", "0"]
    assert rows["faults"] == rows["methods not executed"] == ["0"]
    assert main(["replay", str(example), "--json"]) == 0
    driver = json.loads(capsys.readouterr().out)
    assert main(["replay", str(example), "--no-driver", "--json"]) == 0
    assert driver["clients"] == json.loads(capsys.readouterr().out)["clients"]


def test_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS, bind(op("map", 0, PAGE, 5), ret=-2), call("nvif"))
    assert main(["replay", path]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["had failed"] == ["1"]
    assert rows["made"] == ["differing", "sooner", "not made"]
    assert rows["vm_bind"] == ["3", "0", "0", "0"]
    assert rows["nvif"] == ["0", "0", "0", "1"]
    assert rows["all calls"] == ["8", "0", "0", "1"]
    assert rows["binds, sync"] == ["2"]
    assert rows["execs"] == rows["push buffers"] == rows["through syncobjs"] == ["1"]
    assert rows["words in them"] == ["4"]
    assert rows["fences signalled"] == ["3"]
    assert rows["page tables, at most"] == ["5"]


def test_a_difference_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS, bind(op("map", 0, PAGE, 5)))
    assert main(["replay", path]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    (at,) = (at for at, line in enumerate(lines) if line.startswith("first divergence: "))
    assert lines[at - 2].startswith("bind ops per second")  # the end of the tables
    assert lines[at].startswith("first divergence: call 8: vm_bind of client 1: recorded 0, got ENOENT: ")
    records = records_in(path)
    around = [f"  {dump_line(record)}" for record in records[4:7]]
    assert lines[at + 1 : at + 6] == [*around, f"> {dump_line(records[7])}", ""]
    assert "results were not as recorded" not in captured.out
    assert main(["replay", path, "--json"]) == 1
    driver = json.loads(capsys.readouterr().out)["driver"]
    (one,) = driver["differences"]
    assert (one["line"], one["client"], one["call"]) == (8, 1, "vm_bind")
    assert (one["recorded"], one["got"]) == ("0", "ENOENT")
    assert driver["calls"]["vm_bind"] == {"made": 3, "differing": 1, "sooner": 0, "not_made": 0}


def test_a_flood_of_differences_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS, *[call("gem_close", handle=9)] * 50)
    assert main(["replay", path]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("50 results were not as recorded")
    assert lines[at + 1].startswith(f"{path}:8: gem_close of client 1: ")
    assert lines[at + 21] == "and 30 more; --json has them all"
    assert main(["replay", path, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["driver"]["differences"]) == 50


def test_a_fault_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS, execute(1, 64 * PAGE), call("channel_free", channel=1))
    assert main(["replay", path]) == 0
    out = capsys.readouterr().out
    assert rows_of(out)["faults"] == ["1"]
    assert "0x40000" in out.splitlines()[-1]
    assert main(["replay", path, "--json"]) == 0
    assert "0x40000" in json.loads(capsys.readouterr().out)["driver"]["faults"][0]


def test_json_has_what_the_driver_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS)
    assert main(["replay", path, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["clients"] == {
        "1": {
            "requests": 2,
            "ops": {"map": 1, "remap": 1, "unmap": 0},
            "mappings": [[PAGE, PAGE, 1, PAGE]],
        }
    }
    driver = document["driver"]
    assert driver.pop("wall_ns") > 0
    del driver["calls"]
    assert driver == {
        "differences": [],
        "reopened": 0,
        "renumbered": 1,
        "sync_binds": 2,
        "async_binds": 0,
        "bind_ops": 2,
        "execs": 1,
        "pushes": 1,
        "words": 4,
        "signals": 1,
        "not_executed": [],
        "faults": [],
    }


def test_until_and_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS, vm_init(2), channel_alloc(1, client=2), vm_init(2))
    assert main(["replay", path, "--until", "3", "--driver"]) == 0
    assert rows_of(capsys.readouterr().out)["all calls"] == ["3", "0", "0", "0"]
    assert main(["replay", path, "--client", "2"]) == 0
    out = capsys.readouterr().out
    assert rows_of(out)["all calls"] == ["3", "0", "0", "0"]
    assert "1 more was opened under a number that was opened again" in out
    assert main(["replay", path, "--client", "3"]) == 2
    assert "client 3 did no successful vm_init" in capsys.readouterr().err


def test_no_client_with_a_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, channel_alloc(1))
    assert main(["replay", path]) == 0
    out = capsys.readouterr().out
    assert "no client made an address space" in out
    assert "1 more without an address space" in out


def test_less_vram_goes_without_the_driver(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(SPARSE_BUFFER), "--vram", "16M"]) == 0
    assert "lru" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["replay", str(SPARSE_BUFFER), "--vram", "16M", "--driver"])
    assert caught.value.code == 2
    assert "--driver has room for everything" in capsys.readouterr().err


def test_the_kernels_numbers_come_out_of_the_driver(capsys: pytest.CaptureFixture[str]) -> None:
    # The whole of it is in test_driver_replay.py; this is how far the command line gets in a moment.
    trace, until = str(EXAMPLES / "nvk-tile-streaming.jsonl.gz"), "300"
    assert main(["replay", trace, "--until", until, "--json"]) == 0
    driver = json.loads(capsys.readouterr().out)
    assert driver["driver"]["differences"] == []
    assert main(["replay", trace, "--until", until, "--no-driver", "--json"]) == 0
    assert driver["clients"] == json.loads(capsys.readouterr().out)["clients"]
