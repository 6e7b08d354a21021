"""`gpuvm show`: the picture's file and the kernel's table."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from gpuvm.cli import destination, main
from gpuvm.cli.options import OutputError
from tracefile import PAGE, SPARSE_BUFFER, STREAMING, bind, gem_new, op, vm_init, write, write_trace

ONE = (vm_init(1), vm_init(2), gem_new(3, client=2), bind(op("map", PAGE, 2 * PAGE, 3, 0x5000), client=2))

TABLE = """\
DRM GPU VA space (client 2) [0x0000000000000000;0x0000800000000000]
Kernel reserved node [0x0000008000000000;0x0000010000000000]

 VAs | start              | range              | end                | object             | object offset
-------------------------------------------------------------------------------------------------------------
     | 0x0000000000001000 | 0x0000000000002000 | 0x0000000000003000 | 0x0000000000000003 | 0x0000000000005000
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_and_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(folder, *ONE)
    assert main(["show", path]) == 0
    captured = capsys.readouterr()
    assert captured.out == TABLE
    assert captured.err.splitlines() == [
        "client 2 is shown; --client shows 1",
        "picture: gpuvm-show-trace.svg",
        f'next: gpuvm explain "unmap 0x1800 0x800" --on {path} --until 4',
    ]
    root = ElementTree.parse(folder / "gpuvm-show-trace.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "trace.jsonl:4, client 2" in "".join(root.itertext())


def test_the_next_command_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (write_trace(folder, *ONE), write(folder, "init 0 64 0 0\n", "empty.txt")):
        assert main(["show", path, "-o", "out.svg", "-f"]) == 0
        line = capsys.readouterr().err.splitlines()[-1]
        request, rest = line.removeprefix('next: gpuvm explain "').split('" ')
        assert main(["explain", request, *rest.split()]) == 0
        capsys.readouterr()


def test_another_client_and_an_earlier_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(folder, *ONE)
    assert main(["show", path, "--client", "1", "-o", "a.svg"]) == 0
    captured = capsys.readouterr()
    assert "client 1" in captured.out
    assert "--client shows" not in captured.err
    assert main(["show", path, "--until", "2", "--client", "2", "-o", "b.svg"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert "nothing is mapped" in (folder / "b.svg").read_text()


def test_a_request_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, "init 16 64 70 4\nmap 20 4 2 7\n", "requests.txt")
    assert main(["show", path]) == 0
    out = capsys.readouterr().out
    assert "[0x0000000000000010;0x0000000000000050]" in out
    assert out.splitlines()[-1].endswith("| 0x0000000000000002 | 0x0000000000000007")
    assert "bo 2" in (folder / "gpuvm-show-requests.svg").read_text()
    assert main(["show", path, "--client", "1", "-f"]) == 2
    assert "a request file has no clients" in capsys.readouterr().err


def test_a_terminal_gets_the_notes_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def table(*_: object) -> list[str]:
        order.append("table")
        return []

    monkeypatch.setattr("gpuvm.cli.show.note", lambda message: order.append(message.split(":")[0]))
    monkeypatch.setattr("gpuvm.cli.show.gpuvas_lines", table)
    path = write_trace(folder, vm_init())
    assert main(["show", path, "-o", "piped.svg"]) == 0
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["show", path, "-o", "terminal.svg"]) == 0
    assert order == ["picture", "next", "table", "table", "picture", "next"]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse = bind(op("map", 16 * PAGE, PAGE, flags=0x100), client=2)
    path = write_trace(folder, *ONE, sparse)
    assert main(["show", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": path,
        "line": 5,
        "client": 2,
        "space": [0, 1 << 47],
        "kernel_node": [1 << 39, 1 << 39],
        "regions": [[16 * PAGE, PAGE, True]],
        "mappings": [[PAGE, 2 * PAGE, 3, 0x5000]],
    }


def test_an_existing_picture_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(folder, *ONE)
    (folder / "out.svg").write_text("mine")
    assert main(["show", path, "-o", "out.svg"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "gpuvm: out.svg: exists already; --force overwrites it, -o names another\n"
    assert (folder / "out.svg").read_text() == "mine"
    assert main(["show", path, "-o", "out.svg", "--force"]) == 0
    assert (folder / "out.svg").read_text().startswith("<svg")
    assert sorted(one.name for one in folder.iterdir()) == ["out.svg", "trace.jsonl"]


@pytest.mark.parametrize(
    ("output", "reason"), [("none/out.svg", "No such file or directory"), (".", "is a directory")]
)
def test_a_picture_that_cannot_be_written(
    output: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", write_trace(folder, *ONE), "-o", output]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert reason in captured.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", write_trace(folder, *ONE), "-o", "/dev/full"]) == 1
    assert capsys.readouterr().err == "gpuvm: cannot write /dev/full: No space left on device\n"


def test_a_disk_that_fills_up_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (folder / "out.svg").write_text("mine")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"cannot write out\.svg: No space left on device"):
        destination.write_text("out.svg", "<svg/>", force=True)
    assert [one.name for one in folder.iterdir()] == ["out.svg"]
    assert (folder / "out.svg").read_text() == "mine"


def test_a_link_is_written_through(folder: Path) -> None:
    (folder / "target.svg").write_text("old")
    (folder / "link.svg").symlink_to("target.svg")
    destination.write_text("link.svg", "new", force=True)
    assert (folder / "target.svg").read_text() == "new"
    assert (folder / "link.svg").is_symlink()


def test_no_space_at_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, "# nothing\n")
    assert main(["show", path]) == 2
    assert "the file is empty, or all comments" in capsys.readouterr().err
    path = write_trace(folder, gem_new(1))
    assert main(["show", path]) == 2
    assert "no client did a successful vm_init up to here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trace", "until"), [(STREAMING, 10548), (SPARSE_BUFFER, 60)], ids=["streaming", "sparse"]
)
def test_examples(trace: Path, until: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(trace), "--until", str(until), "-o", "out.svg"]) == 0
    rows = capsys.readouterr().out.splitlines()[5:]
    assert len(rows) == {10548: 10_369, 60: 18}[until]
    starts = [int(row.split("|")[1], 16) for row in rows]
    assert starts == sorted(starts)
    picture = (folder / "out.svg").read_text()
    ElementTree.fromstring(picture)
    assert len(picture) < 1_000_000
