"""`gpuvm why`: the command line, and what it says of traces that are not as one would like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuvm.cli import main
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, Call, bind, gem_new, op, vm_init, write, write_trace

ADDR = 0x40000
CALLS = (
    vm_init(1),
    vm_init(2),
    gem_new(3, client=1),
    gem_new(4, client=2),
    bind(op("map", ADDR, 2 * PAGE, 3), client=1),
    bind(op("map", ADDR, PAGE, 4), client=2),
    bind(op("map", 9 * PAGE, PAGE, 4), client=2),
    bind(op("unmap", ADDR, PAGE), client=1),
)
UNRECORDED = "when jobs ran, and what engines used, was not recorded; `gpuvm record` does"


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, list[str]]:
    code = main(["why", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_every_client_that_had_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS)
    code, out, err = ask(capsys, path, hex(ADDR))
    assert code == 0
    assert [line for line in out.splitlines() if " of client " in line] == [
        "0x40000 of client 1",
        "0x40000 of client 2",
    ]
    assert "  unmapped by call 8 (vm_bind)\n" in out
    assert "  mapped by call 6 (vm_bind): it is byte 0x0 of object 4 (handle 4)\n" in out
    assert out.splitlines()[-3:] == [
        "the calls",
        "  [call 6] client 2  VM_BIND({ops=[{MAP, handle=4<object 4>, addr=0x40000, range=0x1000, "
        "bo_offset=0}]}) = 0",
        "  [call 8] client 1  VM_BIND({ops=[{UNMAP, addr=0x40000, range=0x1000}]}) = 0",
    ]
    assert err == [f"{path}: {UNRECORDED}", f"next: gpuvm dump {path} --ops --calls 6-8"]
    assert main(err[-1].removeprefix("next: gpuvm ").split()) == 0


def test_one_client_and_a_moment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS)
    _, out, err = ask(capsys, path, str(ADDR), "--client", "1", "--at", "7")
    assert "client 2" not in out
    assert "  mapped by call 5 (vm_bind): it is byte 0x0 of object 3 (handle 3)\n" in out
    assert "around it after call 7\n> 0x40000             8 KiB  has it at +0x0 " in out
    assert err[-1] == f"next: gpuvm dump {path} --ops --calls 5"


def test_nobody_ever_had_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS)
    code, out, err = ask(capsys, path, "0x7f0000000000")
    assert (code, out) == (
        0,
        "0x7f0000000000 of client 2\n\n  never mapped\n\naround it after call 8\n"
        "  0x9000              4 KiB  ends 0x7effffff6000 before object 4 (handle 4) from +0x0, call 7\n"
        "  0x40000             4 KiB  ends 0x7efffffbf000 before object 4 (handle 4) from +0x0, call 6\n"
        "> 0x7f0000000000              nothing is mapped\n\n",
    )
    assert (
        err[0]
        == "no client ever had 0x7f0000000000; the one with the most binds is told, --client shows others"
    )
    assert err[-1] == f"next: gpuvm dump {path} --client 2 --call vm_bind"
    assert main(err[-1].removeprefix("next: gpuvm ").split()) == 0


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *CALLS)
    code, out, _ = ask(capsys, path, hex(ADDR), "--json", "--client", "1")
    assert code == 0
    (told,) = json.loads(out)["clients"]
    assert (told["verdict"], told["calls"], told["addr"]) == ("unmapped by call 8 (vm_bind)", [8], ADDR)
    assert [(event["kind"], event["call"]) for event in told["events"]] == [
        ("made", 3),
        ("mapped", 5),
        ("unmapped", 8),
    ]
    assert told["around"][0]["addr"] == ADDR + PAGE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0x1000", "--client", "7"), "there is no client 7; clients: 1, 2"),
        (("0x1000", "--at", "99"), "there is no call 99; the last one is 8"),
    ],
)
def test_what_is_not_there(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path, *CALLS)
    assert ask(capsys, path, *words) == (2, "", [f"gpuvm: {path}: {message}"])


@pytest.mark.parametrize("addr", ["0x", "x", "-1", "0x10000000000000000", "1e9"])
def test_what_is_no_address(addr: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["why", str(SPARSE_BUFFER), "--", addr])
    assert ended.value.code == 2
    assert "argument ADDR" in capsys.readouterr().err


def test_call_0_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["why", str(SPARSE_BUFFER), "1", "--at", "0"])
    assert "the first call is 1" in capsys.readouterr().err


def test_a_trace_without_a_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, gem_new(1))
    assert ask(capsys, path, "1") == (
        2,
        "",
        [f"gpuvm: {path}: no client bound anything, so there is no address to tell of"],
    )
    nothing = write(tmp_path, "", "empty.jsonl")
    assert ask(capsys, nothing, "1")[0] == 2


def test_a_recording_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "killed.gpuvm", records_of_lines(*CALLS), whole=False)
    code, out, err = ask(capsys, path, hex(ADDR))
    assert code == 0
    assert "  unmapped by call 8 (vm_bind)\n" in out
    assert f"{path}: what came after call 8 is not in the trace" in err


def test_calls_that_nobody_could_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown: Call = bind(op("map", ADDR, PAGE, 77), client=1)
    path = write_trace(tmp_path, *CALLS, unknown)
    err = ask(capsys, path, hex(ADDR))[2]
    assert any(line.startswith(f"{path}: 1 call of which the effect is not known; call 9: ") for line in err)
