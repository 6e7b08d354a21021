"""The command as a whole: help, exit codes, and what happens to its output streams."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvm import cli
from gpuvm.cli.completions.grammar import verbs_of
from gpuvm.trace import source
from tracefile import SPARSE_BUFFER, STREAMING, write

COMMAND = [sys.executable, "-m", "gpuvm"]
VERBS = tuple(verb.name for verb in verbs_of(cli.parser_of_all()))


def test_alone_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "usage: gpuvm" in out
    assert "exit codes:" in out
    for verb in VERBS:
        assert re.search(rf"^ +{verb} ", out, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "exit codes:" in out
    assert max(len(line) for line in out.splitlines()) <= 110


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("gpuvm ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["replay"],
        ["replay", "f", "--until", "0"],
        ["replay", "f", "--until", "-1"],
        ["replay", "f", "--until", "two"],
        ["replay", "f", "--client", "-1"],
        ["replay", "f", "--client", "1_0"],
        ["replay", "f", "--policy", "lru"],
        ["pagetable", "f", "--addr", "page"],
        ["ops", "--merge", "sometimes"],
        ["explain", "map 0 1"],
        ["show", "f", "--nonsense"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: ")


@pytest.mark.parametrize("verb", ["ops", "replay", "show", "pagetable", "explain"])
@pytest.mark.parametrize("kind", ["missing", "folder", "garbage", "truncated"])
def test_unusable_files_are_one_line_and_2(
    verb: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = {
        "missing": str(tmp_path / "none"),
        "folder": str(tmp_path),
        "garbage": write(tmp_path, bytes(range(256)), "garbage"),
        "truncated": write(tmp_path, STREAMING.read_bytes()[:2000], "truncated.gz"),
    }[kind]
    arguments = ["explain", "unmap 0 1", "--on", path] if verb == "explain" else [verb, path]
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    if verb != "ops":
        assert captured.out == ""
    assert captured.err.startswith(f"gpuvm: {path}:")
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.glob("*.svg"))


def test_permission_denied(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(path: str, _: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    # In place of a file mode, which means nothing to root.
    monkeypatch.setattr(source, "open", refuse, raising=False)
    assert cli.main(["replay", "secret"]) == 2
    assert capsys.readouterr().err == "gpuvm: secret: cannot open: Permission denied\n"


def test_a_closed_pipe_is_quiet() -> None:
    with subprocess.Popen(
        [*COMMAND, "replay", str(STREAMING), "--until", "10548", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("verb", ["ops", "replay", "show", "help"])
def test_a_full_disk_under_standard_output(verb: str, tmp_path: Path) -> None:
    arguments = {
        "ops": ["ops", write(tmp_path, "init 0 10 0 0\n")],
        "replay": ["replay", str(SPARSE_BUFFER)],
        "show": ["show", str(SPARSE_BUFFER), "-o", str(tmp_path / "out.svg")],
        "help": [],
    }[verb]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    complaints = [line for line in done.stderr.splitlines() if line.startswith("gpuvm: ")]
    assert complaints == ["gpuvm: cannot write standard output: No space left on device"]
    assert "Traceback" not in done.stderr


def test_closed_streams(tmp_path: Path) -> None:
    path = write(tmp_path, "init 0 10 0 0\n")
    for redirection, code, err in ((">&-", 1, "gpuvm: standard output is closed\n"), ("2>&-", 0, "")):
        shell = f'exec "$@" {redirection}'
        command = ["sh", "-c", shell, "sh", *COMMAND, "ops", path]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (code, err)


def test_interrupted() -> None:
    with subprocess.Popen(
        [*COMMAND, "ops"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"init 0 10 0 0\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b'"err":0}\n')
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"gpuvm: interrupted\n"


def test_an_interrupt_from_within(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert cli.main([]) == 130
    assert capsys.readouterr().err == "gpuvm: interrupted\n"


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/na\xffme\n"
    Path(os.fsdecode(path)).write_bytes(b"{")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, "replay", os.fsdecode(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "not valid JSON" in done.stderr


def test_importing_the_library_does_not_import_numpy_or_the_command() -> None:
    code = "import sys, gpuvm; print({'numpy', 'gpuvm.cli', 'argparse'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
