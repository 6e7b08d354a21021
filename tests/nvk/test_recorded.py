"""What real clients did is recorded, and done again without a difference; two processes among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuvm import cli
from nvk import debian
from nvk.test_vulkan_programs import built

PROGRAMS = ["external_memory", "external_semaphore", "external_fence", "forked", "devices"]
PROGRAMS += ["device_lost", "sparse_queue_bind", "timeline_before_signal", "semaphore_chain"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_replay_gives_what_was_recorded(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.jsonl"
    ended = debian.run(built(program), options=("-o", str(trace)), timeout=180)
    assert ended.status == 0, ended
    capsys.readouterr()
    assert cli.main(["replay", "--json", str(trace)]) == 0
    driver = json.loads(capsys.readouterr().out)["driver"]
    assert driver["differences"] == []
    assert sum(calls["made"] for calls in driver["calls"].values()) > 100
