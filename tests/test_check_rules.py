"""Every rule's examples are its tests: the bad one gives its finding, the good none; no other complains."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuvm.report.evidence import Evidence
from gpuvm.report.rules import RULES
from gpuvm.report.rules.example import Example
from gpuvm.report.rules.rule import Rule

PAGE = Path(__file__).parents[1] / "docs" / "checker.md"

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


def found_by(example: Example) -> list[str]:
    with example.trace() as trace:
        evidence = Evidence(trace)
        return [finding.rule for rule in RULES for finding in rule.find(evidence)]


@each_rule
def test_the_bad_example_gives_its_finding_and_no_other(rule: Rule) -> None:
    assert found_by(rule.bad) == [rule.id]


@each_rule
def test_the_good_example_gives_none(rule: Rule) -> None:
    assert found_by(rule.good) == []


def test_the_page_has_all_rules_in_their_order() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line[4:] for line in lines if line.startswith("### ")] == [rule.id for rule in RULES]


@each_rule
def test_its_text_says_what_to_do(rule: Rule) -> None:
    assert rule.summary.endswith(".")
    assert "\nWhat to do: " in rule.text
    assert max(len(line) for line in rule.text.splitlines()) <= 110
