"""Whatever numbers a trace has, every verb that reads one answers, or says in a line why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuvm.cli import main
from tracefile import PAGE, bind, call, gem_new, op, text_of, vm_init

CLIENT = (1 << 64) - 1
EDGES = ((1 << 63) - 1, 1 << 63, (1 << 64) - 1)
OUT = "out"


def largest() -> str:
    """The last client and moment that there are; push buffers, and refused binds, around the sign bit."""
    lines = [vm_init(CLIENT), gem_new(1, client=CLIENT), bind(op("map", PAGE, PAGE, 1), client=CLIENT)]
    for edge in EDGES:
        lines += [
            call("exec", client=CLIENT, channel=1, pushes=[{"va": edge, "va_len": PAGE, "flags": 0}]),
            {**bind(op("map", edge, edge, 1), client=CLIENT), "ret": -22},
        ]
    lines.append({**vm_init(CLIENT), "t": CLIENT})
    return "".join(map(text_of, lines))


@pytest.mark.parametrize(
    "words",
    [
        "info TRACE",
        "dump TRACE --ops",
        f"dump TRACE --client {CLIENT}",
        "check TRACE",
        "check TRACE --json",
        *(f"why TRACE {edge:#x} --all" for edge in (PAGE, *EDGES)),
        "view TRACE -o OUT",
        "export TRACE --format json -o OUT",
        "export TRACE --format csv -o OUT",
        "export TRACE --format perfetto -o OUT",
        "diff TRACE TRACE",
        "trim TRACE -o OUT --calls 3-4",
        "replay TRACE",
        "show TRACE",
    ],
)
def test_an_answer(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "TRACE").write_text(largest())
    argv = [str(tmp_path / word) if word in ("TRACE", "OUT") else word for word in words.split()]
    assert main(argv) in (0, 1, 2, 99)
    assert "-0x" not in capsys.readouterr().out
