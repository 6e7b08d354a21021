"""What NVK does is right: the checker finds no fault with our Vulkan programs but those that have one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuvm import cli
from nvk import debian
from nvk.test_vulkan_programs import ARGUMENTS, OPTIONS, PROGRAMS, SHORT_FORM, built

FAULTY = {"device_lost": {"use-after-unmap", "exec-faulted"}, "forked": {"leak-at-exit"}}


@pytest.mark.parametrize(
    "program",
    [pytest.param(name, marks=[pytest.mark.short_form] if name in SHORT_FORM else []) for name in PROGRAMS],
)
def test_nothing_is_found(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.gpuvm"
    options = ("-o", str(trace), *OPTIONS.get(program, ()))
    ended = debian.run(built(program), *ARGUMENTS.get(program, []), options=options, timeout=180)
    assert ended.status == 0, ended
    capsys.readouterr()
    faulty = FAULTY.get(program, set())
    assert cli.main(["check", "--json", str(trace)]) == (99 if faulty else 0)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {one["rule"] for one in findings if one["severity"] != "note"} == faulty
