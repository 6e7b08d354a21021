"""`gpuvm dump`: which calls, in which form, and that it streams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpuvm.cli import main
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, bind, gem_close, gem_new, op, vm_init, write_trace

CALLS = (
    vm_init(),
    gem_new(1),
    bind(op("map", 0, 16 * PAGE, 1)),
    bind(op("unmap", PAGE, PAGE)),
    vm_init(2),
    {**gem_close(9), "ret": -22},
    bind(op("map", 0, 16 * PAGE, 1)),
)
MAP = "VM_BIND({ops=[{MAP, handle=1<object 2>, addr=0, range=0x10000, bo_offset=0}]}) = 0"
KERNEL = "kernel_managed_addr=0x8000000000, kernel_managed_size=0x8000000000"


@pytest.fixture(params=["jsonl", "gpuvm"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "jsonl":
        return write_trace(tmp_path, *CALLS)
    return write_sqlite(tmp_path / "trace.gpuvm", records_of_lines(*CALLS))


def dumped(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["dump", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split("]")[0].removeprefix("[call ")) for line in lines]


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7]),
        (["--calls", "0-3"], [1, 2, 3]),
        (["--calls", "3"], [3]),
        (["--calls", "6-"], [6, 7]),
        (["--calls=-2"], [1, 2]),
        (["--client", "2"], [5]),
        (["--call", "VM_BIND"], [3, 4, 7]),
        (["--call", "vm_init", "--call", "gem_close", "--client", "1"], [1, 6]),
        (["--failed"], [6]),
        (["--call", "vm_bind", "--calls", "4-6"], [4]),
    ],
    ids=str,
)
def test_which_calls(
    path: str, options: list[str], calls: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert numbers(dumped(capsys, path, *options)) == calls


def test_what_was_emitted_stands_below(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dumped(capsys, path, "--ops", "--calls", "3-7") == [
        f"[call 3] client 1  {MAP}",
        "    map    [0x0, 0x10000) object 2 at 0x0",
        "[call 4] client 1  VM_BIND({ops=[{UNMAP, addr=0x1000, range=0x1000}]}) = 0",
        "    remap  [0x0, 0x10000) object 2 at 0x0, leaves [0x0, 0x1000) and [0x2000, 0x10000)",
        f"[call 5] client 2  VM_INIT({{{KERNEL}}}) = 0",
        "[call 6] client 1  GEM_CLOSE({handle=9}) = -1 EINVAL (Invalid argument)",
        f"[call 7] client 1  {MAP}",
        "    unmap  [0x0, 0x1000) object 2 at 0x0, entries may stay",
        "    unmap  [0x2000, 0x10000) object 2 at 0x2000, entries may stay",
        "    map    [0x0, 0x10000) object 2 at 0x0",
    ]


def test_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpuvm.trace import database
    from gpuvm.trace.writer import Writer

    target = tmp_path / "timed.gpuvm"
    db = database.create(str(target))
    writer = Writer(db)
    for record, took in zip(records_of_lines(*CALLS), [41_000, *[None] * 6], strict=True):
        writer.call(record, took)
    writer.finish()
    db.close()
    first, second, *_ = dumped(capsys, str(target), "--times")
    assert first.startswith("0.000000 [call 1] client 1  VM_INIT(")
    assert first.endswith(" = 0 <0.000041>")
    assert second.endswith(" = 0")


def test_long_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, vm_init(), bind(*[op("unmap", at * PAGE, PAGE) for at in range(9)]))
    assert "... 5 more]" in dumped(capsys, path)[1]
    assert dumped(capsys, path, "--full")[1].count("UNMAP") == 9


def test_no_such_call(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", path, "--calls", "99-"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("the last one is 7\n")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--call", "vm_fry"], "unknown call 'vm_fry': expected one of auth_magic, "),
        (["--calls", "5-3"], "5-3 ends before it begins"),
        (["--calls", "all"], "expected calls like 57, 0-100 or 57-, not 'all'"),
        (["--calls", "-"], "expected calls like"),
    ],
    ids=lambda one: " ".join(one),
)
def test_wrong_usage(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dump", str(SPARSE_BUFFER), *options])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_reader_may_go_away() -> None:
    command = [sys.executable, "-m", "gpuvm", "dump", str(SPARSE_BUFFER), "--full", "--ops"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        assert dump.stdout.readline().startswith("[call 1] ")
        dump.stdout.close()
        assert dump.stderr.read() == ""
        assert dump.wait() in (0, 141)  # all may have been written before


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "nowhere.gpuvm"]) == 2
    assert capsys.readouterr().err == "gpuvm: nowhere.gpuvm: cannot open: No such file or directory\n"


def test_it_is_not_all_read_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuvm.report.dump import Selection, dump_lines
    from gpuvm.trace import trace
    from gpuvm.trace.trace import Trace

    calls = [vm_init(), *[gem_new(1), gem_close(1)] * 50]
    path = write_sqlite(tmp_path / "many.gpuvm", records_of_lines(*calls))
    monkeypatch.setattr(trace, "_CHUNK", 10)
    with Trace.open(path) as opened:
        asked: list[str] = []
        opened.db.set_trace_callback(asked.append)
        lines = dump_lines(opened, Selection())
        assert next(lines).startswith("[call 1] ")
        first = len(asked)
        assert len([*lines]) == 100
        assert len(asked) > 5 * first
