"""When a rule speaks louder, and when it does not speak at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.report.check import Checked, check_text, check_trace
from gpuvm.report.findings import Finding, Role, Severity
from gpuvm.report.rules import RULES
from gpuvm.report.rules.example import ADDR, KIB, Example, gem_new, mapped, text_of, unmapped, vm_bind
from gpuvm.trace.address_map import AddressMap
from trace_scenes import trace_of

BY_ID = {rule.id: rule for rule in RULES}
ABOUT = "INSERT OR REPLACE INTO about VALUES ('{}', {});"


def checked(example: Example) -> Checked:
    with example.trace() as trace:
        return check_trace(trace)


def worst(example: Example) -> list[Severity]:
    return [one.severity for one in checked(example).findings]


def tiles(count: int) -> Example:
    size = 64 * KIB
    binds = [vm_bind(mapped(1, ADDR + at * size, size, at * size)) for at in range(count)]
    end = {"call": "gem_close", "handle": 1}
    return Example(text_of(gem_new(1, count * size), *binds, vm_bind(unmapped(ADDR, count * size)), end))


def vm_init(example: Example) -> Example:
    return Example(
        text_of({"call": "vm_init", "kernel_addr": 1 << 46, "kernel_size": 1 << 46}) + example.calls
    )


@pytest.mark.parametrize(
    ("count", "severities"),
    [(15, []), (16, [Severity.NOTE]), (999, [Severity.NOTE]), (1000, [Severity.WARNING])],
)
def test_neighbours_by_their_number(count: int, severities: list[Severity]) -> None:
    assert worst(vm_init(tiles(count))) == severities


def test_binds_of_which_nobody_knows_what_they_did_are_not_idle() -> None:
    """Their client's VM_INIT is not in the trace."""
    found = checked(Example(text_of(gem_new(1), vm_bind(mapped(1)), vm_bind(unmapped()))))
    assert "bind-changes-nothing" not in {one.rule for one in found.findings}


def test_neighbours_with_an_exec_between_are_streamed() -> None:
    lines = vm_init(tiles(16)).calls.splitlines()
    lines.insert(10, text_of({"call": "exec", "channel": 1, "pushes": []}).strip())
    found = checked(Example("\n".join(lines)))
    assert "mergeable-neighbours" not in {one.rule for one in found.findings}


@pytest.mark.parametrize(
    ("seen", "count"),
    [
        ("", 1),
        (ABOUT.format("status", 0), 1),
        (ABOUT.format("status", 1), 0),
        (ABOUT.format("status", -9), 0),
        (ABOUT.format("whole", 0), 0),
    ],
)
def test_leaks_are_told_of_programs_that_ended_well(seen: str, count: int) -> None:
    assert len(worst(replace(BY_ID["leak-at-exit"].bad, seen=seen))) == count


@pytest.mark.parametrize("rule", ["use-after-unmap", "use-before-bind", "rebind-while-running"])
def test_without_any_wait_nothing_is_judged(rule: str) -> None:
    bad = BY_ID[rule].bad
    lines = [line for line in bad.calls.splitlines() if '"syncobj_wait"' not in line]
    found = [one for one in checked(Example("\n".join(lines))).findings if one.rule == rule]
    assert [one.severity for one in found] == [Severity.NOTE]
    assert "this trace tells no waits" in found[0].message


def test_a_fault_and_its_conflict_are_one_finding() -> None:
    fault = (
        "INSERT INTO faults "
        "(t, client, channel, call, addr, access, reason, cause, engine, unmapped, report) "
        "VALUES (7, 1, 1, 6, 4294967296, 'READ', 'PTE', 'USE_AFTER_UNMAP', 'copy', 7, '{}');"
    )
    (finding,) = checked(replace(BY_ID["use-after-unmap"].bad, seen=fault)).findings
    assert finding.severity is Severity.ERROR
    assert finding.message == (
        "call 6 (exec on channel 1) reads 0x100000000 and faults: call 7 (vm_bind) unmaps it, and nothing "
        "makes 7 wait for 6"
    )


def test_other_closes_twice() -> None:
    destroy = {"call": "syncobj_destroy", "handle": 1}
    create = {"call": "syncobj_create", "handle": 1, "flags": 0}
    free = {"call": "channel_free", "channel": 1}
    calls = (create, destroy, {**destroy, "ret": -22}, {"call": "channel_alloc", "channel": 1}, free)
    found = checked(Example(text_of(*calls, {**free, "ret": -22}, {**destroy, "handle": 7, "ret": -22})))
    assert [one.message for one in found.findings] == [
        "call 3 (syncobj_destroy) gives sync object 1 back, as call 2 (syncobj_destroy) had",
        "call 6 (channel_free) gives channel 1 back, as call 5 (channel_free) had",
    ]


def test_of_many_findings_ten_are_told() -> None:
    def finding(number: int, severity: Severity) -> Finding:
        return Finding("double-close", severity, f"call {number} is it", (Role(number, "is"),), 1)

    findings = (*(finding(at, Severity.WARNING) for at in range(12)), finding(99, Severity.ERROR))
    text = check_text(Checked("x", 5, findings, 0, (), cut_short=True))
    assert text.startswith("error: call 99 is it [double-close]\n\nwarning: call 0 is it")
    assert "3 more of double-close; --json tells all\n" in text
    assert text.endswith("x: 1 error, 12 warnings in 5 calls; the recording was cut short\n")
    assert "\x1b[1;31merror\x1b[0m: " in check_text(Checked("x", 5, findings, 0, (), False), colour=True)


def test_calls_of_several_clients_are_told_apart() -> None:
    bad = BY_ID["use-after-unmap"].bad.calls
    with trace_of(bad + bad.replace('"client":1', '"client":7')) as trace:
        found = check_trace(trace).findings
    assert [(one.client, one.calls[0].call) for one in found] == [(1, 6), (7, 17)]


changes = st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 10), st.integers(0, 3))


@given(st.lists(changes, max_size=30), st.integers(0, 30), st.integers(0, 10))
def test_an_address_map_is_a_dictionary(done: list[tuple[bool, int, int, int]], at: int, size: int) -> None:
    spans: AddressMap[int] = AddressMap()
    model: dict[int, int] = {}
    for put, addr, count, value in done:
        inside = range(addr, addr + count)
        if put:
            spans.put(addr, addr + count, value)
            model.update(dict.fromkeys(inside, value))
        else:
            cut = {a: s.value for s in spans.cut(addr, addr + count) for a in range(s.addr, s.end)}
            assert cut == {a: model.pop(a) for a in inside if a in model}
        spans.check()
    told = {a: s.value for s in spans.over(at, at + size) for a in range(s.addr, s.end)}
    assert told == {a: value for a, value in model.items() if at <= a < at + size}
    assert sum(s.end - s.addr for s in spans) == len(model)
