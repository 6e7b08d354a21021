"""Findings as SARIF 2.1.0, which code hosts and editors read.

A trace is no source file. A call of JSON Lines is a line of it, and that is where a finding is. Of an SQLite
trace the file is named alone; calls are logical locations in both.

Source: OASIS SARIF 2.1.0 (sarifLog, run, reportingDescriptor, result, location).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from gpuvm.report.check import Checked
from gpuvm.report.findings import Finding
from gpuvm.report.rules.rule import Rule

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

Json = dict[str, Any]


def sarif_document(checked: Checked, rules: Sequence[Rule], version: str, *, path: str, lines: bool) -> Json:
    """A log with one run.

    Args:
        rules: all that were asked.
        version: of gpuvm.
        path: the trace.
        lines: its calls are lines of it.
    """
    at = {rule.id: index for index, rule in enumerate(rules)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "gpuvm", "version": version, "rules": [_rule(rule) for rule in rules]}
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, at[one.rule], path, lines) for one in checked.findings],
            }
        ],
    }


def _rule(rule: Rule) -> Json:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.text},
        "help": {"text": rule.text},
    }


def _result(finding: Finding, rule: int, path: str, lines: bool) -> Json:
    result = {
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": finding.severity.value,
        "message": {"text": f"{finding.message[0].upper()}{finding.message[1:]}."},
        "locations": [_location(finding, 0, path, lines)],
        "partialFingerprints": {"finding/v1": _fingerprint(finding)},
    }
    if len(finding.calls) > 1:
        result["relatedLocations"] = [
            {"id": at, **_location(finding, at, path, lines), "message": {"text": finding.calls[at].does}}
            for at in range(1, len(finding.calls))
        ]
    return result


def _location(finding: Finding, at: int, path: str, lines: bool) -> Json:
    place: Json = {"artifactLocation": {"uri": quote(path)}}
    location: Json = {"physicalLocation": place}
    if finding.calls:
        call = finding.calls[at].call
        if lines:
            place["region"] = {"startLine": call}
        location["logicalLocations"] = [{"name": f"call {call}", "kind": "call"}]
    return location


def _fingerprint(finding: Finding) -> str:
    """The same for the same finding in another recording, in which calls have other numbers."""
    parts = (finding.rule, finding.client, finding.addr, *(role.does for role in finding.calls))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
