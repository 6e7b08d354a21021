"""`gpuvm pagetable`: which space, which line, which address, and what it complains of."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from gpuvm.cli import main
from tracefile import PAGE, SPARSE_BUFFER, VULKANINFO, bind, gem_new, op, vm_init, write, write_trace

TWO_CLIENTS = (
    vm_init(1),
    vm_init(2),
    gem_new(3, client=2),
    bind(op("map", PAGE, 2 * PAGE, 3, 0x5000), client=2),
    bind(op("unmap", 2 * PAGE, PAGE), client=2),
    gem_new(4, client=1),
    bind(op("map", 0, PAGE, 4), client=1),
)


def test_the_client_with_most_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS)
    assert main(["pagetable", path]) == 0
    captured = capsys.readouterr()
    assert captured.err == "client 2 is shown; --client shows 1\n"
    lines = captured.out.splitlines()
    assert lines[0] == f"{path}:7, client 2, tu102"
    assert sum("handle 3 + 0x5000" in line for line in lines) == 1
    assert "pages: 0 of 2 MiB, 0 of 64 KiB, 1 of 4 KiB" in lines
    assert "\x1b" not in captured.out
    assert main(["pagetable", path, "--client", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "handle 4 + 0x0" in captured.out


def test_one_address_at_an_earlier_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS, name="trace.gz")
    for until, end in (("4", "mapping  [0x1000, 0x3000) handle 3, offset 0x5000"), ("5", "")):
        arguments = ["pagetable", path, "--until", until, "--client", "2", "--addr"]
        assert main([*arguments, "0x2010"]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[0] == f"{path}:{until}, client 2, tu102: address 0x2010"
        assert (end and end in out) or "fault    PTE at SPT" in out
        assert main([*arguments, str(0x2010)]) == 0
        assert capsys.readouterr().out == out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS)
    assert main(["pagetable", path, "--json", "--client", "2", "--addr", "0x1001", "--format", "gh100"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["level"] for step in document["steps"]] == ["PD4", "PD3", "PD2", "PD1", "PD0", "SPT"]
    assert (document["result"], document["format"]) == ("page", "gh100")
    assert document["mapping"] == {"addr": PAGE, "range": PAGE, "object": 3, "offset": 0x5000}
    assert main(["pagetable", path, "--json", "--client", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["line"] == 7
    assert document["tables"][-1]["runs"][0]["offset"] == 0x5000


@pytest.mark.parametrize("trace", [SPARSE_BUFFER, VULKANINFO], ids=lambda path: path.name)
@pytest.mark.parametrize("format", ["gp100", "tu102", "gh100"])
def test_examples(trace: Path, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pagetable", str(trace), "--format", format]) == 0
    assert f", {format}\n" in capsys.readouterr().out


def test_a_request_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = "init 0x1000 0x100000 0 0\nmap 0x10000 0x20000 2 0x20000\nregion 0x40000 0x10000 sparse\n"
    path = write(tmp_path, requests, "requests.txt")
    assert main(["pagetable", path, "--addr", "0x1f123"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"{path}:3, tu102: address 0x1f123" in captured.out
    assert "object   bo 2 + 0x2f123" in captured.out
    assert main(["pagetable", path]) == 0
    out = capsys.readouterr().out
    assert "2 x 64 KiB at vram:" in out
    assert "64 KiB sparse" in out


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ("init 0 64 0 0\nmap 2 8 1 0\n", "tu102 page tables cannot hold this space: "),
        ("init 0 0x10000 0 0\nmap 0x1000 0x1000 0 0\n", "[0x1000, 0x2000) is mapped to no object"),
        ("init 0 0xffff000000000000 0 0\n", "tu102 page tables cannot hold this space: "),
        ("init 0 0x10000 0 0\nmap 0 0x1000 1 0xffffffff00000000\n", "cannot hold this space: "),
        ("# nothing\n", "a look at the space has no space to work on: the file is empty"),
    ],
)
def test_a_request_file_that_page_tables_cannot_hold(
    requests: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, requests, "requests.txt")
    assert main(["pagetable", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gpuvm: {path}:")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--until", "9"], "line 9 was asked for, but the file has 7 lines"),
        (["--client", "3"], "client 3 did no successful vm_init up to here"),
        (["--until", "1", "--client", "2"], "client 2 did no successful vm_init up to here"),
    ],
)
def test_what_the_trace_does_not_have(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS)
    assert main(["pagetable", path, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"gpuvm: {path}: {message}\n"


@pytest.mark.parametrize(
    ("text", "message"), [("", "the file is empty"), ("\n", "the file is empty"), ("dump\n", "no init came")]
)
def test_files_without_a_space(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pagetable", write(tmp_path, text, "requests.txt")]) == 2
    assert message in capsys.readouterr().err


def test_no_space_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pagetable", write_trace(tmp_path, gem_new(1))]) == 2
    assert "no client did a successful vm_init up to here" in capsys.readouterr().err
    path = write(tmp_path, "init 0 0x10000 0 0\n", "requests.txt")
    assert main(["pagetable", path, "--client", "1"]) == 2
    assert "a request file has no clients" in capsys.readouterr().err


def test_sparse_regions_in_a_format_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, vm_init(), bind(op("map", 0, PAGE, flags=0x100)))
    assert main(["pagetable", path, "--format", "x86_64"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gpuvm: {path}:2: op 0 of this vm_bind was accepted when recorded")


@pytest.mark.parametrize("addr", ["", "0x", "-1", "1e3", "0x1_000", "12 34", str(1 << 64), "9" * 5000])
def test_addresses_that_are_none(addr: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pagetable", "f", f"--addr={addr}"])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert "argument --addr: the address is " in captured.err
    assert len(captured.err.splitlines()[-1]) < 200


def test_wrong_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pagetable", "f", "--format", "gp200"])
    assert "argument --format: invalid choice: 'gp200'" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "said"), [("-1", "'-1'"), ("1e3", "'1e3'"), ("9" * 5000, f"'{'9' * 40}'")])
def test_lines_that_are_none(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pagetable", "f", f"--until={line}"])
    assert caught.value.code == 2
    message = f"argument --until: expected a whole number of up to 20 digits, not {said}"
    assert capsys.readouterr().err.endswith(f"{message}\n")


@pytest.mark.parametrize("requests", [True, False])
def test_a_process_that_may_have_no_more_files(
    requests: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (
        write(tmp_path, "init 0 0x10000 0 0\n", "space.txt") if requests else write_trace(tmp_path, vm_init())
    )

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert main(["pagetable", path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpuvm: no file of 0x1000000000 bytes for ")
    assert "Too many open files; look at `ulimit -n`" in captured.err
