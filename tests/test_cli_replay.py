"""`gpuvm replay`: the table, the JSON, and where it stops."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvm.cli import main
from tracefile import EXAMPLES, PAGE, SPARSE_BUFFER, STREAMING, bind, call, gem_new, op, vm_init, write_trace

TWO_CLIENTS = (
    vm_init(1),
    vm_init(2),
    gem_new(1, client=1),
    gem_new(9, client=2),
    bind(op("map", 0, 2 * PAGE, 1), client=1),
    bind(op("map", PAGE, PAGE, 9, 0x3000), client=2),
    bind(op("unmap", 0, PAGE), client=1),
    call("channel_alloc", client=3, channel=1),
)


def test_json_reproduces_the_kernels_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    expected = json.loads((EXAMPLES / "nvk-tile-streaming.expected.json").read_text())
    assert main(["replay", str(STREAMING), "--no-driver", "--json"]) == 0
    clients = json.loads(capsys.readouterr().out)["clients"]
    assert list(clients) == ["1", "2"]
    client = clients[str(expected["client"])]
    assert client["requests"] == expected["requests"]
    assert client["ops"] == expected["ops"]
    assert len(client["mappings"]) == expected["mappings_at_end"]
    until = str(expected["at_line"])
    assert main(["replay", str(STREAMING), "--no-driver", "--json", "--until", until]) == 0
    mappings = json.loads(capsys.readouterr().out)["clients"][str(expected["client"])]["mappings"]
    assert len(mappings) == expected["mappings_at_line"]
    compact = json.dumps(mappings, separators=(",", ":")).encode()
    assert hashlib.sha256(compact).hexdigest() == expected["sha256_at_line"]


def test_json_of_two_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", write_trace(tmp_path, *TWO_CLIENTS), "--no-driver", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "clients": {
            "1": {
                "requests": 2,
                "ops": {"map": 1, "remap": 1, "unmap": 0},
                "mappings": [[PAGE, PAGE, 1, PAGE]],
            },
            "2": {
                "requests": 1,
                "ops": {"map": 1, "remap": 0, "unmap": 0},
                "mappings": [[PAGE, PAGE, 9, 0x3000]],
            },
        }
    }


@pytest.mark.parametrize(("until", "mappings"), [(4, 0), (5, 1), (8, 1)])
def test_until_is_inclusive(
    until: int, mappings: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS, name="trace.gz")
    assert main(["replay", path, "--json", "--client", "1", "--until", str(until)]) == 0
    clients = json.loads(capsys.readouterr().out)["clients"]
    assert len(clients.pop("1")["mappings"]) == mappings
    assert clients == {}


def test_until_beyond_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS)
    assert main(["replay", path, "--until", "9"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"gpuvm: {path}: line 9 was asked for, but the file has 8 lines\n"


@pytest.mark.parametrize("client", ["3", "7"])
def test_a_client_without_space(client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS)
    assert main(["replay", path, "--client", client]) == 2
    assert f"client {client} did no successful vm_init" in capsys.readouterr().err


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, *TWO_CLIENTS, bind(op("map", 0, PAGE, 77), client=1, ret=-2))
    assert main(["replay", path, "--no-driver"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = {line[:20].strip(): line[20:].split() for line in captured.out.splitlines()[3:]}
    assert captured.out.splitlines()[0] == f"{path}, lines 1-9"
    assert rows["requests"] == ["2", "1"]
    assert rows["skipped, had failed"] == ["1", "0"]
    assert (rows["ops: map"], rows["ops: remap"], rows["ops: unmap"]) == (["1", "1"], ["1", "0"], ["0", "0"])
    assert rows["splits"] == ["0", "0"]
    assert rows["mapped bytes"] == ["4", "KiB"] * 2
    assert "1 more without an address space" in captured.out
    assert "\x1b" not in captured.out


def test_a_trace_without_any_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, call("getparam"))
    assert main(["replay", path]) == 0
    assert "no client made an address space" in capsys.readouterr().out
    assert main(["replay", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"clients": {}}


def test_a_bind_we_refuse_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trace(tmp_path, vm_init(), bind(op("unmap", 0, PAGE), op("map", 0, PAGE, 3)))
    assert main(["replay", path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gpuvm: {path}:2: op 1 of this vm_bind was accepted when recorded")
    assert captured.err.count("\n") == 1


def on_a_terminal(stream: str, arguments: list[str], **environment: str) -> str:
    """What the command writes to ``stream``, stdout or stderr, when that is a terminal."""
    leader, follower = pty.openpty()
    inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-m", "gpuvm", *arguments],
        stdout=follower if stream == "stdout" else subprocess.DEVNULL,
        stderr=follower if stream == "stderr" else subprocess.DEVNULL,
        env={**inherited, **environment},
    ):
        os.close(follower)
        written = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while chunk := os.read(leader, 65536):
                written += chunk
    os.close(leader)
    return written.decode()


def test_progress_on_a_terminal_only() -> None:
    shown = on_a_terminal("stderr", ["replay", str(STREAMING), "--no-driver", "--json"])
    assert "lines" in shown
    assert "%" in shown
    assert shown.endswith("\r\x1b[K")


def test_colour_on_a_terminal_only() -> None:
    assert "\x1b[1m" in on_a_terminal("stdout", ["replay", str(SPARSE_BUFFER)])


def test_no_color() -> None:
    shown = on_a_terminal("stdout", ["replay", str(SPARSE_BUFFER)], NO_COLOR="1")
    assert "requests" in shown
    assert "\x1b" not in shown
