"""`gpuvm run` as its user sees it: what the program gets, how it ends, what is told of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm import cli
from running import COMMAND, both_modes, gpuvm_run, needs_ordinary_user, run_as_nobody
from suite import full, scaled

pytestmark = needs_cc

ASKED = "character device 226:128\nnouveau 1.4.0\nchipset 0x162\nvram 0x200000000\nbyte 7\n"


@both_modes
def test_a_program_finds_the_node(mode: tuple[str, ...]) -> None:
    ran = gpuvm_run(compiled("ask"), options=mode)
    assert (ran.status, ran.out) == (0, ASKED), ran
    rows = ran.report
    assert rows.pop("").endswith("ask ended with 0 on TU102, 8 GiB")
    assert rows == {
        "calls": "5 in 1 open: 2 GETPARAM, 1 GEM_CLOSE, 1 GEM_NEW, 1 VERSION",
        "binds": "none",
        "bytes moved": "none",
        "not executed": "none",
        "faults": "none",
        "left at exit": "nothing",
        "next": " ".join(("gpuvm record", *mode, "--", compiled("ask"))),
    }


@needs_ordinary_user
def test_an_ordinary_user_finds_it() -> None:
    Path(compiled("ask")).parent.chmod(0o755)
    ran = run_as_nobody(compiled("ask"))
    assert (ran.status, ran.out) == (0, ASKED), ran


@pytest.mark.parametrize("chipset", ["ampere", *full("0x172", "370")])
def test_the_device_is_the_one_asked_for(chipset: str) -> None:
    ran = gpuvm_run(compiled("ask"), options=("--chipset", chipset, "--vram", "512M"))
    assert "chipset 0x172\nvram 0x20000000\n" in ran.out, ran
    assert ran.report[""].endswith("on GA102, 512 MiB")


def test_a_fault_is_told_and_what_it_led_to() -> None:
    ran = gpuvm_run(compiled("leaves"), "fault")
    assert ran.status == 1
    assert "No such device" in ran.err
    rows = ran.report
    assert rows[""].endswith("leaves fault ended with 1 on TU102, 8 GiB")
    assert re.fullmatch(
        r'WRITE of 0x310000000 by channel 1 of "leaves \(\d+\)", copy: PDE, never mapped', rows["faults"]
    )
    assert rows["refused"].startswith("1 EXEC ENODEV (")


def test_the_next_command_is_for_the_same_device_and_can_be_copied() -> None:
    """Its arguments, a line break and all, and in one line but for that."""
    script = f"{compiled('ask')} >/dev/null\n: {'x ' * 60}"
    ran = gpuvm_run("sh", "-c", script, options=("--userns", "--chipset", "ampere", "--vram", "516M"))
    assert "\n" not in ran.report[""]
    command = shlex.join(["--chipset", "0x172", "--vram", "516M", "--userns", "--", "sh", "-c", script])
    assert ran.err.endswith(f"\n  next          gpuvm record {command}\n"), ran


def test_a_program_that_never_looks_is_one_line() -> None:
    ran = gpuvm_run("true")
    assert ran.status == 0
    assert ran.err == "gpuvm: true ended with 0; nothing opened the GPU (TU102, 8 GiB)\n"


# -- streams


def test_the_programs_streams_are_its_own() -> None:
    """Every byte, and nothing of ours between them but the report."""
    text = "".join(chr(33 + number % 90) for number in range(100_000))
    ran = gpuvm_run("sh", "-c", "cat; echo problem >&2", stdin=text)
    assert ran.out == text
    assert ran.err.startswith("problem\ngpuvm: sh -c ")
    assert ran.err.count("\n") == 2


def test_a_pipeline_ends_as_one_does() -> None:
    """A program that writes to a pipe that nobody reads dies of SIGPIPE, also under us."""
    script = f"{' '.join(COMMAND)} run -- sh -c 'yes | head -n 2; yes' 2>/dev/null | head -n 3"
    assert subprocess.run(["sh", "-c", script], capture_output=True, timeout=60).stdout == b"y\n" * 3


@pytest.mark.parametrize("closed", [">&-", *full("<&-", "2>&-")])
def test_a_closed_stream_is_the_programs_business(closed: str) -> None:
    count = "sh -c 'ls -l /proc/self/fd/ | grep -c \" [012] -\" >&8'"
    here, there = (
        subprocess.run(["sh", "-c", f"{one} 8>&1 {closed}"], capture_output=True, text=True, timeout=60)
        for one in (f"{' '.join(COMMAND)} run -- {count}", count)
    )
    assert (here.stdout, here.returncode) == (there.stdout, there.returncode)


# -- ends


@pytest.mark.parametrize("code", [255, *full(1, 7, 125, 126, 127)])
def test_the_exit_code_is_the_programs(code: int) -> None:
    ran = gpuvm_run("sh", "-c", f"exit {code}")
    assert ran.status == code
    assert f"ended with {code};" in ran.report[""]


@pytest.mark.parametrize("name", ["KILL", "RTMIN+3", *full("TERM", "INT", "PIPE", "HUP", "USR1", "SEGV")])
def test_a_signal_that_kills_the_program_kills_us(name: str) -> None:
    number = signal.SIGRTMIN + 3 if name == "RTMIN+3" else signal.Signals[f"SIG{name}"]
    ran = gpuvm_run("sh", "-c", f"kill -{number:d} $$")
    assert ran.status == -number
    assert f"was killed by SIG{name};" in ran.report[""]


def test_a_core_is_the_programs_alone(tmp_path: Path) -> None:
    """We die of the same signal, and leave no second core."""
    script = f"ulimit -c unlimited; exec {' '.join(COMMAND)} run -- sh -c 'kill -ABRT $$'"
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ended.returncode == -signal.SIGABRT
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("/", "|")):
        return
    assert len(list(tmp_path.iterdir())) == 1
    assert "was killed by SIGABRT (core dumped)" in ended.stderr


# -- errors


@pytest.mark.parametrize("program", ["no-such-program", "", *full("/no/such")])
def test_no_program_is_one_line_and_leaves_no_trace(program: str, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    ran = gpuvm_run(program, options=("-o", str(trace)))
    message = f"there is no program {program!r}; pass a path, or the name of one in PATH"
    assert (ran.status, ran.out, ran.err) == (127, "", f"gpuvm: {message}\n")
    assert not trace.exists()


@pytest.mark.parametrize("program", ["/etc/passwd", *full("/")])
def test_what_may_not_be_executed_is_126(program: str) -> None:
    ran = gpuvm_run(program, options=("--userns",))
    assert (ran.status, ran.err) == (126, f"gpuvm: {program!r} cannot be executed: Permission denied\n")


def test_what_the_kernel_cannot_execute_is_126(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF, it says")
    program.chmod(0o755)
    ran = gpuvm_run(str(program))
    assert (ran.status, ran.err) == (126, f"gpuvm: '{program}' cannot be executed: Exec format error\n")


def test_below_itself_it_says_who_is_in_the_way() -> None:
    ran = gpuvm_run(*COMMAND, "run", "--", "true")
    first, second = ran.err.splitlines()
    assert ran.status == 125
    assert first.startswith("gpuvm: a supervisor listens to this process's system calls already")
    assert first.endswith("[EBUSY]")
    assert "ended with 125; nothing opened the GPU" in second


def test_a_root_that_is_none_is_named(tmp_path: Path) -> None:
    ran = gpuvm_run("true", options=("--root", str(tmp_path / "none")))
    assert ran.status == 125
    assert ran.err.startswith("gpuvm: ")
    assert str(tmp_path / "none") in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no program; pass one after --"),
        (["--"], "no program; pass one after --"),
        (
            ["--chipset", "pascal", "--", "true"],
            "no chip 'pascal': pass turing, ampere, or one of 0x162 TU102",
        ),
        (["--vram", "huge", "--", "true"], "expected a size like 64M"),
        (["--vram", "5", "--", "true"], "not a multiple of 4K"),
        (["--nonsense", "true"], "unrecognized arguments: --nonsense"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "sniff"])
def test_wrong_usage_is_2(
    verb: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_options_end_where_the_program_begins() -> None:
    script = f"{' '.join(COMMAND)} run echo --vram -x --"
    assert subprocess.run(["sh", "-c", script], capture_output=True, timeout=60).stdout == b"--vram -x --\n"
    assert gpuvm_run("echo", "--", "-o", "--").out == "-- -o --\n"


# -- traces


@both_modes
def test_a_recorded_run_is_replayed_without_a_difference(
    mode: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "run.jsonl"
    ran = gpuvm_run(compiled("leaves"), options=(*mode, "-o", str(trace)))
    assert (ran.status, ran.out) == (0, "filled with 7\n"), ran
    rows = ran.report
    assert rows["calls"].startswith("9 in 1 open: 2 GEM_NEW, 2 VM_BIND, ")
    assert rows["binds"] == "2 with 2 operations"
    assert rows["bytes moved"] == "1 KiB filled"
    assert rows["not executed"] == "2 clears (TURING_A CLEAR_SURFACE)"
    left = "2 objects of 68 KiB, 2 mappings, 1 sync object, 1 channel"
    assert re.fullmatch(rf"leaves \(\d+\): {left}", rows["left at exit"])
    assert rows["trace"] == f"{trace}: 10 calls, 1 of them the close of an open"
    assert rows["next"] == f"gpuvm check {trace}"

    calls = [json.loads(line)["call"] for line in trace.read_text().splitlines()]
    assert calls == [
        *("vm_init", "gem_new", "gem_new", "vm_bind", "vm_bind", "channel_alloc"),
        *("syncobj_create", "exec", "syncobj_wait", "close"),
    ]
    assert cli.main(["replay", "--json", str(trace)]) == 0
    assert json.loads(capsys.readouterr().out)["driver"]["differences"] == []


def test_what_threads_did_together_can_be_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They wait for each other, and handles that one gives back another one gets."""
    trace = tmp_path / "run.jsonl"
    rounds = scaled(64, 2000)
    ran = gpuvm_run(compiled("together"), str(rounds), options=("-o", str(trace)))
    assert ran.out == f"{rounds} rounds\n", ran
    assert cli.main(["replay", "--json", str(trace)]) == 0
    replayed = json.loads(capsys.readouterr().out)["driver"]
    assert replayed["differences"] == []
    assert replayed["sync_binds"] == 4 * rounds


def test_a_trace_is_not_overwritten_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "run.jsonl"
    trace.write_text("precious")
    assert cli.main(["run", "-o", str(trace), "--", "true"]) == 125
    assert capsys.readouterr().err == (
        f"gpuvm: {trace}: exists already; --force overwrites it, -o names another\n"
    )
    assert trace.read_text() == "precious"
    ran = gpuvm_run(compiled("ask"), options=("-f", "-o", str(trace)))
    assert (ran.status, ran.out) == (0, ASKED)
    assert "precious" not in trace.read_text()


@pytest.mark.parametrize("name", ["none/run.jsonl", ""])
def test_a_trace_that_cannot_be_begun_stops_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-o", name, "--", "true"]) == 125
    assert capsys.readouterr().err == f"gpuvm: cannot write {name}: No such file or directory\n"


def test_a_trace_of_nothing_is_no_file(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    ran = gpuvm_run("true", options=("-o", str(trace)))
    assert ran.err.endswith(f"nothing opened the GPU (TU102, 8 GiB), so there is no {trace}\n")
    assert not trace.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_trace_that_cannot_be_written_is_told() -> None:
    ran = gpuvm_run(compiled("leaves"), options=("-o", "/dev/full"))
    assert (ran.status, ran.out) == (0, "filled with 7\n"), ran
    assert "gpuvm: cannot write /dev/full: No space left on device; it is not complete\n" in ran.err


# -- what the device lacks


def test_an_unknown_call_is_told_once_with_its_bytes() -> None:
    ran = gpuvm_run(compiled("wants_more"))
    assert ran.status == 0, ran
    unknown = [line for line in ran.err.splitlines() if line.startswith("gpuvm: unknown ioctl")]
    assert len(unknown) == 4
    assert re.fullmatch(
        r"gpuvm: unknown ioctl 0xc014649e on descriptor 3: type 'd', number 0x9e, 20 bytes at 0x[0-9a-f]+: "
        r"11111111 02000000 03000000 04000000 55555555",
        unknown[0],
    )
    assert "20 bytes at 0x8: not all 0x14 bytes of process" in unknown[1]
    assert ran.report["unknown calls"] == "2 0xc014649e, 1 0x3e77, 1 0x6255, 1 0xc014649d"
    assert ran.report["next"] == f"gpuvm sniff -- {compiled('wants_more')}"


@both_modes
def test_sniff_lists_all_that_is_lacking(mode: tuple[str, ...]) -> None:
    ran = gpuvm_run(compiled("wants_more"), options=mode, verb="sniff")
    assert ran.status == 0, ran
    listed = [" ".join(line.split()) for line in ran.err.splitlines() if line.startswith("  ")]
    assert listed == [
        "ioctl 0xc014649e type 'd' number 0x9e, 20 bytes 2",
        "ioctl 0x00003e77 type '>' number 0x77, 0 bytes 1",
        "ioctl 0x00006255 type 'b' number 0x55, 0 bytes 1",
        "ioctl 0xc014649d type 'd' number 0x9d, 20 bytes 1",
        "ioctl 0xc01464a0 MODE_GETRESOURCES, 20 bytes 1",
        "param GETPARAM 99 1",
        "capability GET_CAP 0x77 1",
        "NVIF class 1234 1",
        "path /dev/dri/renderD129 1",
        "path /dev/nvidiactl 1",
    ]


def test_sniff_lists_methods_by_name() -> None:
    ran = gpuvm_run(compiled("leaves"), verb="sniff")
    assert ran.err.splitlines()[1].split() == ["clear", "TURING_A", "CLEAR_SURFACE", "2"]


def test_sniff_finds_nothing_where_nothing_is_missing() -> None:
    ran = gpuvm_run(compiled("ask"), verb="sniff")
    assert ran.err == f"gpuvm: {compiled('ask')} ended with 0; nothing it asked for is missing (TU102)\n"
