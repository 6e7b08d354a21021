"""`gpuvm top` on a real terminal, with a real program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm.cli import main
from gpuvm.trace.trace import Trace
from pseudo_terminal import Terminal
from running import COMMAND
from top_scenes import rendering

pytestmark = needs_cc


def top(*words: str, cwd: Path) -> Terminal:
    return Terminal([*COMMAND, "top", *words], cwd=cwd)


def frames(*options: str) -> list[str]:
    """The program; its process id is in the file pid."""
    return ["sh", "-c", 'echo $$ >pid; exec "$@"', "sh", compiled("frames"), *options]


def is_running(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_is_watched_and_ended(tmp_path: Path) -> None:
    with top("-o", "a.gpuvm", "--", *frames("--frames", "1000000", "--fault", "3"), cwd=tmp_path) as terminal:
        terminal.wait_for("never mapped")
        terminal.press("f")
        terminal.wait_for("GPU page fault: copy engine, read of 0x7_0000_0000")
        terminal.press("f")
        terminal.wait_for("frame ")
        terminal.press("q")
        terminal.wait_for("still running")
        terminal.press("n")
        terminal.wait_for("frame ")
        assert is_running(tmp_path)
        terminal.press("qy")
        assert terminal.end() == 0
    assert not is_running(tmp_path)
    assert "was killed by SIGTERM on TU102, 8 GiB" in terminal.text
    assert "a.gpuvm: " in terminal.text
    with Trace.open(str(tmp_path / "a.gpuvm")) as trace:
        assert trace.whole
        assert trace.db.execute("SELECT addr FROM faults").fetchall() == [(0x700000000,)]


def test_a_program_that_ends_is_shown_until_q(tmp_path: Path) -> None:
    with top("--", *frames("--frames", "3"), cwd=tmp_path) as terminal:
        terminal.wait_for("ended with 0 after")
        terminal.press("q")
        assert terminal.end() == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["pid"]


def test_a_signal_ends_the_view_and_the_program(tmp_path: Path) -> None:
    with top("--", *frames("--frames", "1000000"), cwd=tmp_path) as terminal:
        terminal.wait_for("frame ")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.end() == 0
        assert "\x1b[?1049l" in terminal._shown.decode()  # the terminal is as it was
    assert not is_running(tmp_path)


def test_a_program_that_there_is_not(tmp_path: Path) -> None:
    with top("--", "no-such-program", cwd=tmp_path) as terminal:
        assert terminal.end() == 127
    assert "gpuvm: there is no program 'no-such-program'" in terminal.text


def test_a_trace(tmp_path: Path) -> None:
    rendering(tmp_path / "a.gpuvm", 30).finish()
    with top("a.gpuvm", cwd=tmp_path) as terminal:
        terminal.wait_for("recorded, ")
        terminal.press("q")
        assert terminal.end() == 0


def test_a_trace_that_somebody_else_records(tmp_path: Path) -> None:
    command = [*COMMAND, "record", "-o", "a.gpuvm", "--", *frames("--frames", "1000000")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        recorder.stdout.readline()
        with top("a.gpuvm", cwd=tmp_path) as terminal:
            terminal.wait_for("being recorded, ")
            recorder.terminate()
            recorder.communicate()
            terminal.wait_for("recorded, ")
            terminal.press("q")
            assert terminal.end() == 0


# -- what ends before there is a view


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["top", "--", "true"],
            1,
            "gpuvm: top needs a terminal; gpuvm record and gpuvm info do without one\n",
        ),
        (
            ["top"],
            2,
            "gpuvm top: error: pass a program after --, such as: gpuvm top -- ./app; or one TRACE\n",
        ),
        (["top", "--"], 2, "or one TRACE\n"),
        (["top", "a", "b"], 2, "or one TRACE\n"),
        (["top", "-"], 2, "standard input and output are the terminal here; pass a file\n"),
        (["top", "-o", "-", "--", "true"], 2, "are the terminal here; pass a file\n"),
        (["top", "-o", "a.jsonl", "--", "true"], 2, "top needs an SQLite trace, such as app.gpuvm\n"),
        (["top", "-f", "a"], 2, "-o and -f are for a program's recording; TRACE is one already\n"),
    ],
)
def test_no_view(words: list[str], code: int, message: str) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.endswith(message)


def test_without_textual_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    assert main(["top", "--", "true"]) == 1
    assert capsys.readouterr().err == (
        "gpuvm: top needs Textual, which is not installed: pip install 'gpuvm[top]'\n"
    )


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.gpuvm").write_text("kept")
    with top("-o", "a.gpuvm", "--", *frames(), cwd=tmp_path) as terminal:
        assert terminal.end() == 1
    assert "a.gpuvm: exists already; --force overwrites it, -o names another" in terminal.text
    assert (tmp_path / "a.gpuvm").read_text() == "kept"
