"""The benchmark must not rot: it runs here on a few mappings, and no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench import report, run, selfcheck  # noqa: E402
from bench.cases import CASES  # noqa: E402
from bench.contender import Contender  # noqa: E402
from bench.contenders import REGISTRY, available, contender_class  # noqa: E402
from bench.layouts import Records  # noqa: E402
from bench.memory import measure_memory  # noqa: E402

# The rivals in Rust are built by `make bench` only; without them the ones in Python remain.
PRESENT = [name for name in REGISTRY if available(name)]

if len(PRESENT) < 2:
    pytest.skip("no rival is installed", allow_module_level=True)


def classes() -> dict[str, type[Contender]]:
    return {name: contender_class(name) for name in PRESENT}


def test_all_contenders_do_the_same() -> None:
    assert selfcheck.self_check(classes(), rounds=6) > 1000


def test_a_contender_that_lies_is_found_out() -> None:
    class Liar(contender_class(PRESENT[-1])):  # type: ignore[misc]  # a base class known at run time only
        def bind(self, requests: Records) -> Records:
            ops: Records = super().bind(requests).copy()
            ops["keep"][-1] ^= 1
            return ops

    with pytest.raises(selfcheck.Disagreement, match="operations of round 0"):
        selfcheck.self_check({PRESENT[0]: contender_class(PRESENT[0]), "liar": Liar})


def test_no_numbers_are_printed_when_they_disagree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disagree(_classes: object) -> int:
        raise selfcheck.Disagreement("operations of round 0: 1 and 2")

    monkeypatch.setattr(run, "self_check", disagree)
    assert run.main(["--quick"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no numbers" in err


def test_the_whole_command_on_a_small_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = tmp_path / "samples.json"
    arguments = ["--quick", "--sizes", "200", "--repeats", "1", "--no-memory", "--json", str(samples)]
    assert run.main(arguments) == 0
    table = capsys.readouterr().out
    for case in CASES:
        assert f"| {case.title} |" in table
    cells = json.loads(samples.read_text())["results"]
    assert {(cell["case"], cell["contender"]) for cell in cells} == {
        (case.name, name) for case in CASES for name in PRESENT
    }


@pytest.mark.parametrize("order", ["random", "sorted", "random, searched"])
def test_memory_is_measured_in_a_process_of_its_own(order: str) -> None:
    assert 8 < measure_memory(PRESENT[-1], 5000, order).bytes_each < 5000


def test_publishing_needs_the_whole_run() -> None:
    with pytest.raises(SystemExit):
        run.main(["--quick", "--write", "page.md"])


def test_only_the_measured_block_of_the_page_is_renewed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_between_markers(page, "new\n")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        report.write_between_markers(page, "new\n")
