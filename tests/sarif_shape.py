"""What SARIF 2.1.0 requires of the parts that we write, written down from the standard."""

from __future__ import annotations

import re
from typing import Any

LEVELS = {"none", "note", "warning", "error"}


def check_log(log: Any, schema: str) -> None:
    """3.13 sarifLog, 3.14 run, 3.18 tool, 3.19 toolComponent."""
    only(log, {"version", "runs"}, {"$schema"})
    assert log["version"] == "2.1.0"
    assert log["$schema"] == schema
    for run in log["runs"]:
        only(run, {"tool"}, {"results", "columnKind"})
        assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
        only(run["tool"], {"driver"})
        driver = run["tool"]["driver"]
        only(driver, {"name"}, {"version", "rules"})
        rules = [check_descriptor(rule) for rule in driver["rules"]]
        assert len(set(rules)) == len(rules)
        for result in run["results"]:
            check_result(result, rules)


def check_descriptor(rule: Any) -> str:
    """3.49 reportingDescriptor."""
    only(rule, {"id"}, {"shortDescription", "fullDescription", "help"})
    for text in (rule["shortDescription"], rule["fullDescription"], rule["help"]):
        check_message(text)
    return text_in(rule["id"])


def check_result(result: Any, rules: list[str]) -> None:
    """3.27 result."""
    optional = {"ruleId", "ruleIndex", "level", "locations", "relatedLocations", "partialFingerprints"}
    only(result, {"message"}, optional)
    check_message(result["message"])
    assert rules[result["ruleIndex"]] == result["ruleId"]
    assert result["level"] in LEVELS
    ids = set()
    for location in [*result["locations"], *result.get("relatedLocations", ())]:
        check_location(location)
        if "id" in location:
            assert location["id"] >= 0
            assert location["id"] not in ids
            ids.add(location["id"])
    assert all(type(value) is str for value in result["partialFingerprints"].values())


def check_location(location: Any) -> None:
    """3.28 location, 3.29 physicalLocation, 3.30 region, 3.33 logicalLocation."""
    only(location, set(), {"id", "message", "physicalLocation", "logicalLocations"})
    if "message" in location:
        check_message(location["message"])
    place = location["physicalLocation"]
    only(place, {"artifactLocation"}, {"region"})
    only(place["artifactLocation"], {"uri"})
    assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", place["artifactLocation"]["uri"])
    if "region" in place:
        only(place["region"], {"startLine"})
        assert place["region"]["startLine"] >= 1
    for logical in location.get("logicalLocations", ()):
        only(logical, {"name", "kind"})


def check_message(message: Any) -> None:
    """3.11 message."""
    only(message, {"text"})
    text_in(message["text"])


def text_in(value: Any) -> str:
    assert type(value) is str
    assert value
    return value


def only(value: Any, needed: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert type(value) is dict
    assert needed <= value.keys() <= needed | optional, value.keys()
