"""IGT's cases for syncobjs and software timelines as C programs of our own, under `gpuvm run`.

The programs (tests/syncobj) tell each case in a line. Their lists are compared with the ones here, which have
IGT's names; the wait matrix is the one by which the table of syncobjs is tested in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from running import gpuvm_run
from wait_matrix import cases, expected

pytestmark = needs_cc

SOURCES = Path(__file__).with_name("syncobj")
SHARED = ("syncobj", "tap")
WAITS = ("waiter", "waits")


def matrix(timeline: bool) -> Iterator[str]:
    for kind in ("single", "multi"):
        for name, flags, stages in cases(kind, timeline):
            outcome = expected(flags, stages)
            yield name if outcome == "etime-" and not timeline else outcome + name


BOTH_WAITS = [
    *("reset-unsignaled", "reset-signaled", "reset-multiple-signaled"),
    *("reset-during-wait-for-submit", "signal"),
    *("wait-delayed-signal", "wait-all-delayed-signal"),
    *("wait-for-submit-delayed-submit", "wait-all-for-submit-delayed-submit"),
    *("wait-any-snapshot", "wait-all-snapshot", "wait-for-submit-snapshot", "wait-all-for-submit-snapshot"),
    *("wait-any-complex", "wait-all-complex", "wait-for-submit-complex", "wait-all-for-submit-complex"),
    *("wait-any-interrupted", "wait-all-interrupted"),
    *("wait-zero-handles", "invalid-wait-bad-flags", "invalid-wait-illegal-handle"),
    *("invalid-signal-zero-handles", "invalid-signal-illegal-handle"),
    *("invalid-signal-one-illegal-handle", "invalid-signal-bad-pad"),
]

CASES: Mapping[str, list[str]] = {
    "basic": [
        *("bad-destroy", "bad-destroy-pad", "bad-create-flags", "bad-handle-to-fd", "bad-fd-to-handle"),
        *("bad-flags-handle-to-fd", "bad-flags-fd-to-handle", "bad-pad-handle-to-fd", "bad-pad-fd-to-handle"),
        *("illegal-fd-to-handle", "create-signaled", "test-valid-cycle"),
        # not in IGT
        *("export-of-no-fence", "fds-of-the-wrong-kind", "import-into-no-handle", "sync-file-is-a-copy"),
        "handles-are-the-clients-own",
    ],
    "wait": [
        *matrix(timeline=False),
        *BOTH_WAITS,
        *("invalid-reset-zero-handles", "invalid-reset-illegal-handle"),
        *("invalid-reset-one-illegal-handle", "invalid-reset-bad-pad"),
    ],
    "timeline": [
        *matrix(timeline=True),
        *BOTH_WAITS,
        *("invalid-query-zero-handles", "invalid-query-illegal-handle"),
        *("invalid-query-one-illegal-handle", "invalid-query-bad-pad"),
        *("invalid-transfer-illegal-handle", "invalid-transfer-bad-pad"),
        "invalid-transfer-non-existent-point",
        *("invalid-signal-illegal-point", "signal-array", "signal-point-0", "transfer-timeline-point"),
        *("host-signal-points", "host-signal-ordered", "device-signal-unordered", "device-submit-unordered"),
        "32bits-limit",
    ],
    "eventfd": [
        *("invalid-bad-flags", "invalid-illegal-handle", "invalid-illegal-eventfd", "invalid-bad-pad"),
        *(
            f"{kind}-{case}"
            for kind in ("binary", "timeline")
            for case in ("wait", "wait-before-signal", "wait-signaled")
        ),
    ],
    "sync_file": [
        *("alloc_timeline", "alloc_fence", "alloc_fence_invalid_timeline", "alloc_merge_fence"),
        *("timeline_closed", "timeline_closed_signaled"),
        *("sync_busy", "sync_busy_fork", "sync_busy_fork_unixsocket"),
        *("sync_merge", "sync_merge_invalid", "sync_merge_same", "sync_expired_merge", "sync_random_merge"),
        *("sync_multi_timeline_wait", "sync_multi_consumer", "sync_multi_consumer_producer"),
        "sync_multi_producer_single_consumer",
    ],
}

AT_ONCE = 'for program; do "$program" >"$program.tap" & done; wait'
"""Each program prints into a file beside it."""


@pytest.fixture(scope="module")
def told() -> Mapping[str, list[str]]:
    """What each program said, in lines; they ran at once, on one device."""
    programs = {
        name: compiled(name, *SHARED, *(WAITS if name in ("wait", "timeline") else ()), folder=SOURCES)
        for name in CASES
    }
    ran = gpuvm_run("sh", "-c", AT_ONCE, "sh", *programs.values(), timeout=200)
    assert ran.status == 0, ran
    assert ran.report["faults"] == "none", ran
    return {name: Path(f"{program}.tap").read_text().splitlines() for name, program in programs.items()}


@pytest.mark.parametrize(
    ("program", "case"), [(program, case) for program, names in CASES.items() for case in names]
)
def test_case(program: str, case: str, told: Mapping[str, list[str]]) -> None:
    (line,) = [line for line in told[program] if re.match(rf"(not )?ok {case}(:|$)", line)]
    assert line == f"ok {case}"


@pytest.mark.parametrize("program", CASES)
def test_the_lists_are_the_same(program: str, told: Mapping[str, list[str]]) -> None:
    *lines, plan = told[program]
    names = [line.removeprefix("not ").removeprefix("ok ").partition(":")[0] for line in lines]
    assert sorted(names) == sorted(CASES[program])
    assert plan == f"1..{len(names)}"


def test_the_lists_are_as_long_as_igts() -> None:
    # IGT's matrices lack their last combination, of all flags and all stages.
    assert {program: len(names) for program, names in CASES.items()} == {
        "basic": 12 + 5,
        "wait": 69 + 1,
        "timeline": 121 + 1,
        "eventfd": 10,
        "sync_file": 18,
    }
