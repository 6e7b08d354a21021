"""`gpuvm check`: what it prints, what counts, suppressions, SARIF; on traces and on programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compiled import compiled, needs_cc
from gpuvm.cli import main
from gpuvm.report.rules import RULES
from gpuvm.report.sarif import SCHEMA
from running import gpuvm_run
from sarif_shape import check_log
from trace_scenes import records_of_lines, write_sqlite
from tracefile import SPARSE_BUFFER, STREAMING, VULKANINFO, write

BY_ID = {rule.id: rule for rule in RULES}
BAD = BY_ID["use-after-unmap"].bad.calls
NOTED = BY_ID["bind-changes-nothing"].bad.calls
EXAMPLES = Path(__file__).parents[1] / "examples"

Capture = pytest.CaptureFixture[str]


def check(*words: str, code: int) -> None:
    assert main(["check", *words]) == code


def test_text_names_the_calls_in_order(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, BAD)
    check(path, code=99)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == (
        "warning: call 6 (exec on channel 1) fetches 64 B at 0x100000000; call 7 (vm_bind) unmaps it, and "
        "nothing makes 7 wait for 6 [use-after-unmap]\n"
        f"  next: gpuvm why {path} 0x100000000 --client 1\n\n"
        f"{path}: 1 warning in 11 calls\n"
    )


def test_notes_count_only_if_asked(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, NOTED)
    check(path, code=0)
    assert capsys.readouterr().out.endswith(f"{path}: 1 note in 6 calls\n")
    check(path, "--strict", code=99)


def test_clean(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, BY_ID["use-after-unmap"].good.calls)
    check(path, "--strict", code=0)
    assert capsys.readouterr().out == f"{path}: nothing found in 11 calls\n"


def test_both_forms_give_the_same(tmp_path: Path, capsys: Capture) -> None:
    stored = write_sqlite(tmp_path / "x.gpuvm", records_of_lines(BAD))
    check(stored, "--json", code=99)
    first = json.loads(capsys.readouterr().out)
    check(write(tmp_path, BAD), "--json", code=99)
    second = json.loads(capsys.readouterr().out)
    assert first["findings"] == second["findings"] != []
    assert (first["whole"], first["trace"]) == (True, stored)


def test_json(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, BAD)
    check(path, "--json", code=99)
    document = json.loads(capsys.readouterr().out)
    (finding,) = document["findings"]
    message = finding.pop("message")
    assert "nothing makes 7 wait for 6" in message
    assert finding == {
        "rule": "use-after-unmap",
        "severity": "warning",
        "client": 1,
        "calls": [{"call": 6, "does": "fetches"}, {"call": 7, "does": "unmaps"}],
        "addr": 1 << 32,
        "range": 64,
    }
    assert document["suppressed"] == 0


@pytest.mark.parametrize("path", [SPARSE_BUFFER, VULKANINFO, STREAMING], ids=lambda path: path.name)
def test_what_nvk_did_is_right(path: Path, capsys: Capture) -> None:
    check(str(path), "--json", code=0)
    document = json.loads(capsys.readouterr().out)
    assert {one["severity"] for one in document["findings"]} == {"note"}


def test_ignored_rules_are_not_asked(tmp_path: Path, capsys: Capture) -> None:
    check(write(tmp_path, BAD), "--ignore", "use-after-unmap", code=0)
    assert "nothing found" in capsys.readouterr().out


def test_suppressions(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, BAD)
    known = write(tmp_path, "use-after-unmap calls=7-7  # known\nleak-at-exit  # none\n", "known")
    check(path, "--suppressions", known, code=0)
    captured = capsys.readouterr()
    assert captured.out == f"{path}: nothing found in 11 calls; 1 suppressed\n"
    assert captured.err == f"{known}:2: nothing was suppressed by: leak-at-exit\n"
    wrong = write(tmp_path, "leak-at-exit\n", "wrong")
    check(path, "--suppressions", wrong, code=2)
    assert capsys.readouterr().err.startswith(f"gpuvm: {wrong}:1:13: say behind a # why")


def sarif_of(path: str, tmp_path: Path) -> Any:
    main(["check", path, "--sarif", str(tmp_path / "log.sarif"), "-f"])
    log = json.loads((tmp_path / "log.sarif").read_text())
    check_log(log, SCHEMA)
    return log["runs"][0]["results"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_sarif_of_every_rule(rule: Any, tmp_path: Path, capsys: Capture) -> None:
    found = sarif_of(write(tmp_path, rule.bad.calls, "a b.jsonl"), tmp_path)
    if not rule.bad.seen:
        (result,) = found
        assert result["ruleId"] == rule.id
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"].endswith("/a%20b.jsonl")
        assert place["region"]["startLine"] >= 1


def test_sarif_of_sqlite_has_no_lines(tmp_path: Path, capsys: Capture) -> None:
    (result,) = sarif_of(write_sqlite(tmp_path / "x.gpuvm", records_of_lines(BAD)), tmp_path)
    assert "region" not in result["locations"][0]["physicalLocation"]
    assert result["locations"][0]["logicalLocations"] == [{"name": "call 6", "kind": "call"}]
    fingerprint = result["partialFingerprints"]
    first, rest = BAD.split("\n", 1)
    version = '{"t":1,"client":1,"call":"version","ret":0}'
    (moved,) = sarif_of(write(tmp_path, f"{first}\n{version}\n{rest}"), tmp_path)
    assert moved["locations"][0]["logicalLocations"][0]["name"] == "call 7"
    assert moved["partialFingerprints"] == fingerprint


def test_sarif_is_not_written_over_another_file(tmp_path: Path, capsys: Capture) -> None:
    there = write(tmp_path, "mine", "log.sarif")
    check(write(tmp_path, BAD), "--sarif", there, code=1)
    assert Path(there).read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


def test_rules_are_listed_and_explained(capsys: Capture) -> None:
    check("--rules", code=0)
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [rule.id for rule in RULES]
    for rule in RULES:
        check("--explain", rule.id, code=0)
        out = capsys.readouterr().out
        assert out.startswith(f"{rule.id}: {rule.summary}\n")
        assert "What to do: " in out
        assert "A bad example:" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "pass a TRACE, or a program after --"),
        (["--"], "pass a TRACE, or a program after --"),
        (["x.jsonl", "y.jsonl"], "one TRACE is checked, without: y.jsonl"),
        (["x.jsonl", "--vram", "8M"], "one TRACE is checked, without: --vram 8M"),
        (["x.jsonl", "--", "true"], "pass a TRACE, or a program after --, not both"),
        (["x.jsonl", "--ignore", "nonsense"], "no rule 'nonsense': gpuvm check --rules lists them"),
        (["--explain", "nonsense"], "no rule 'nonsense'"),
        (["--json", "--", "true"], "--json goes to standard output, which is the program's"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_trace_that_cannot_be_used(capsys: Capture) -> None:
    check("nowhere.gpuvm", code=2)
    assert capsys.readouterr().err == "gpuvm: nowhere.gpuvm: cannot open: No such file or directory\n"


# -- programs


@needs_cc
def test_a_broken_program_is_explained(tmp_path: Path) -> None:
    kept = tmp_path / "kept.gpuvm"
    ran = gpuvm_run(compiled("broken_streaming", folder=EXAMPLES), options=["-o", str(kept)], verb="check")
    assert ran.status == 99, ran
    assert ran.out.startswith("abcd bcde "), ran
    assert "gpuvm: " not in ran.out
    error = next(line for line in ran.err.splitlines() if line.startswith("error: "))
    assert error.endswith("and nothing makes 45 wait for 44 [use-after-unmap]"), ran
    assert "call 44 (exec on channel 1) reads 0x100070000 and faults: call 45 (vm_bind) unmaps it" in error
    assert kept.exists()
    assert ran.err.count("error: ") == 1, ran


@needs_cc
@pytest.mark.parametrize(
    ("scene", "rule", "message"),
    [
        (
            "rebind",
            "rebind-while-running",
            "call 15 (exec on channel 1) reads 64 KiB at 0x200000000; call 16 (vm_bind) maps something else "
            "there, and nothing makes 16 wait for 15: 15 was still running then",
        ),
        (
            "early",
            "use-before-bind",
            "call 17 (exec on channel 2) reads 64 KiB at 0x400000000; call 16 (vm_bind) maps it, and nothing "
            "makes 17 wait for 16: 16 had not run by then",
        ),
        ("unmap", None, ""),
        ("waits", None, ""),
    ],
)
def test_what_runs_at_the_same_time(scene: str, rule: str | None, message: str, tmp_path: Path) -> None:
    log = tmp_path / "log.sarif"
    options = ["--ignore", "leak-at-exit", "--sarif", str(log)]
    ran = gpuvm_run(compiled("racing_binds"), scene, options=options, verb="check")
    assert ran.status == (99 if rule else 0), ran
    results = json.loads(log.read_text())["runs"][0]["results"]
    told = [
        (one["level"], one["ruleId"], one["message"]["text"]) for one in results if one["level"] != "note"
    ]
    assert told == ([("error", rule, f"C{message[1:]}.")] if rule else []), ran


@needs_cc
def test_a_fixed_program_is_clean() -> None:
    ran = gpuvm_run(
        compiled("broken_streaming", folder=EXAMPLES), "--fixed", options=["--strict"], verb="check"
    )
    assert ran.status == 0, ran
    assert ran.err.rstrip().endswith(": nothing found in 64 calls"), ran
    assert "trace " not in ran.err


def test_a_program_without_findings_keeps_its_exit_code() -> None:
    for words, status in ((("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), -9), (("nonono",), 127)):
        ran = gpuvm_run(*words, verb="check")
        assert ran.status == status, ran
