"""Replaying traces through the driver: every call is made again and its result compared."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import get_args

import pytest

from driver_traces import (
    READY,
    binary,
    channel_alloc,
    differences,
    execute,
    only,
    point,
    replay_of,
    replayed,
    syncobj,
)
from gpuvm.sync import lockdep
from gpuvm.trace import recorded
from gpuvm.trace.call_fields import FIELDS
from gpuvm.trace.driver_client import CALLS
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.driver_syncobjs import CALLS as SYNCOBJ_CALLS
from tracefile import (
    EXAMPLES,
    PAGE,
    SPARSE_BUFFER,
    STREAMING,
    VULKANINFO,
    Call,
    bind,
    call,
    gem_close,
    gem_new,
    op,
    records_in,
    vm_init,
)

ENOENT, EBUSY, EINVAL, ENOSYS, ETIME = -2, -16, -22, -38, -62


# -- the recordings


@pytest.mark.parametrize("example", [SPARSE_BUFFER, VULKANINFO], ids=lambda path: path.name)
def test_every_recorded_result_comes_again(example: Path) -> None:
    trace = records_in(example)
    with replay_of(trace) as replay:
        assert replay.differences == []
        assert sum(counts.made for counts in replay.calls.values()) == len(trace)
        assert not replay.device.faults
        assert not replay.not_executed
        assert [client.mappings() for client in replay.clients.values()] == [[], []]


def test_the_kernels_numbers_for_the_streaming_trace() -> None:
    expected = json.loads((EXAMPLES / "nvk-tile-streaming.expected.json").read_text())
    lockdep.disable()  # for time: this is the one long trace, and the others are validated
    trace = records_in(STREAMING)
    with DriverReplay("streaming", trace) as replay:
        for record in trace:
            replay.feed(record)
            if record.line == expected["at_line"]:
                at_line = replay.clients[expected["client"]].mappings()
        replay.settle()
        replay.check()
        client = replay.clients[expected["client"]]
        assert replay.differences == []
        assert client.requests == expected["requests"]
        assert client.ops == expected["ops"]
        assert len(at_line) == expected["mappings_at_line"]
        compact = json.dumps(at_line, separators=(",", ":"))
        assert hashlib.sha256(compact.encode()).hexdigest() == expected["sha256_at_line"]
        assert len(client.mappings()) == expected["mappings_at_end"]


# -- results


def test_there_is_somebody_for_every_kind_of_record() -> None:
    kinds = {kind for kind, _ in FIELDS.values()} | {*get_args(recorded.Record), recorded.Untold}
    assert CALLS.keys() | SYNCOBJ_CALLS.keys() == kinds


@pytest.mark.parametrize(
    ("calls", "line", "recorded", "got"),
    [
        ([vm_init(), bind(op("map", 0, PAGE, 1))], 2, "0", "ENOENT"),
        ([*READY, bind(op("map", 0, PAGE, 1), ret=EINVAL)], 5, "EINVAL", "0"),
        ([*READY, bind(op("map", 1, PAGE, 1), ret=ENOENT)], 5, "ENOENT", "EINVAL"),
        ([vm_init(), execute(1)], 2, "0", "ENOENT"),
        ([gem_new(1), vm_init(ret=EINVAL)], 2, "EINVAL", "ENOSYS"),
        ([*READY, vm_init(ret=EINVAL)], 5, "EINVAL", "EBUSY"),
        ([call("gem_close", handle=4)], 1, "0", "EINVAL"),
        ([call("syncobj_destroy", handle=4)], 1, "0", "EINVAL"),
        ([call("syncobj_reset", handles=[4])], 1, "0", "ENOENT"),
        ([call("channel_free", channel=4)], 1, "0", "ENOENT"),
        ([gem_new(1), call("gem_info", handle=1, size=PAGE)], 2, f"size {PAGE}", f"size {1 << 20}"),
        ([call("gem_pushbuf")], 1, "0", "ENOSYS"),
        ([call("getparam", param=99)], 1, "0", "EINVAL"),
        ([call("channel_alloc", ret=-19)], 1, "ENODEV", "0"),
        ([vm_init(), bind(op("map", 0, PAGE, 1), ret=-95)], 2, "EOPNOTSUPP", "ENOENT"),
    ],
)
def test_another_result_is_told_with_its_line(calls: list[Call], line: int, recorded: str, got: str) -> None:
    assert differences(*calls) == [(line, recorded, got)]


def test_a_difference_says_what_it_means() -> None:
    calls = [vm_init(), bind(op("unmap", 0, PAGE), op("map", 0, PAGE, 7)), bind(ret=-28)]
    with replayed(*calls) as replay:
        first, second = map(str, replay.differences)
    assert first.startswith("vm_bind of client 1: recorded 0, got ENOENT: ")
    assert "no handle 7" in first
    assert second == (
        "vm_bind of client 1: recorded ENOSPC, got 0: "
        "then the call did not fit a sparse region, here it was accepted"
    )


def test_calls_that_had_failed_fail_again() -> None:
    failing = [
        vm_init(ret=EBUSY),
        bind(op("map", 0, PAGE, 9), ret=ENOENT),
        bind(op("map", 0, PAGE + 1, 1), ret=EINVAL),
        bind(op("map", 0, PAGE, flags=0x100), ret=-28),
        bind(op("unmap", 0, PAGE, flags=0x100), ret=ENOENT),
        {**bind(), "signals": [binary(1)], "ret": EINVAL},
        execute(7, ret=ENOENT),
        execute(1, ret=EINVAL, waits=[{"type": 0, "handle": 1}]),
        execute(1, ret=-95, waits=[{"type": 5, "handle": 1}]),
        call("gem_new", size=0, ret=EINVAL),
        call("gem_close", handle=3, ret=EINVAL),
        call("gem_pushbuf", ret=ENOSYS),
        call("syncobj_wait", handles=[1], ret=EINVAL),
        call("syncobj_create", flags=8, ret=EINVAL),
        call("channel_free", channel=3, ret=ENOENT),
        call("prime_handle_to_fd", handle=3, ret=ENOENT),
    ]
    with replayed(*READY, syncobj(1), *failing) as replay:
        assert replay.differences == []
        assert sum(counts.made for counts in replay.calls.values()) == len(READY) + 1 + len(failing)
        assert only(replay).failed_calls == 6
        assert only(replay).requests == 1


def test_what_no_replay_can_make_is_counted() -> None:
    calls = [
        vm_init(),
        bind(ret=-14),
        execute(1, ret=-4),
        call("gem_new", size=PAGE, ret=-12),
        call("nvif", data="00"),
        call("exec"),
        call("syncobj_reset"),
        call("prime_fd_to_handle", fd=3, ret=-9),
        call("syncobj_fd_to_handle", fd=3, ret=EINVAL),
    ]
    with replayed(*calls) as replay:
        assert replay.differences == []
        assert {name: counts.not_made for name, counts in replay.calls.items() if counts.not_made} == {
            "vm_bind": 1,
            "exec": 2,
            "gem_new": 1,
            "nvif": 1,
            "syncobj_reset": 1,
            "prime_fd_to_handle": 1,
            "syncobj_fd_to_handle": 1,
        }


# -- clients and their numbers


def test_a_number_that_is_opened_again_is_another_client() -> None:
    calls = [*READY, syncobj(1), vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1)), syncobj(1)]
    with replayed(*calls) as replay:
        assert replay.differences == []
        assert replay.reopened == 1
        assert only(replay).mappings() == [[0, PAGE, 1, 0]]
        assert len(replay.device.clients) == 1


def test_one_client_alone() -> None:
    with replayed(vm_init(1), vm_init(2), channel_alloc(1, client=2), client=2) as replay:
        assert list(replay.clients) == [2]


def test_handles_may_have_other_numbers() -> None:
    calls = [
        vm_init(),
        gem_new(7),
        gem_new(3),
        bind(op("map", 0, PAGE, 7), op("map", PAGE, PAGE, 3)),
        gem_close(7),
        bind(op("map", 0, PAGE, 7), ret=ENOENT),
        bind(op("map", 0, PAGE, 1), ret=ENOENT),
        gem_new(7),
        syncobj(9),
        channel_alloc(5),
        execute(5, signals=[binary(9)]),
        call("syncobj_wait", handles=[9]),
        call("channel_free", channel=5),
    ]
    with replayed(*calls) as replay:
        assert replay.differences == []
        assert replay.submitted.renumbered == 5
        assert only(replay).mappings() == [[0, PAGE, 7, 0], [PAGE, PAGE, 3, 0]]


def test_what_could_not_be_made_is_not_confused_with_something_else() -> None:
    # No such kind of pages; so 1 is the second object here, and not the first.
    calls = [vm_init(), gem_new(1, tile_flags=0xFF00), gem_new(2), bind(op("map", 0, PAGE, 1))]
    assert differences(*calls) == [(2, "0", "EINVAL"), (4, "0", "ENOENT")]


def test_what_should_have_failed_leaves_nothing() -> None:
    calls = [
        call("gem_new", size=PAGE, ret=EINVAL),
        call("syncobj_create", flags=0, ret=EINVAL),
        call("channel_alloc", ret=EINVAL),
    ]
    with replayed(*calls, gem_new(1), syncobj(1), channel_alloc(1)) as replay:
        assert [one.got for one in replay.differences] == ["0"] * 3
        assert replay.submitted.renumbered == 0


# -- submissions


def test_what_is_submitted_is_counted() -> None:
    calls = [
        *READY,
        syncobj(1),
        syncobj(2),
        execute(1, 0, PAGE, signals=[binary(1), point(2, 4)], size=20),
        {**bind(op("unmap", 0, PAGE)), "flags": 1, "waits": [binary(1)], "signals": [point(2, 5)]},
        execute(1, waits=[point(2, 5)]),
    ]
    with replayed(*calls) as replay:
        assert replay.differences == []
        got = replay.submitted
        assert (got.sync_binds, got.async_binds, got.bind_ops) == (1, 1, 2)
        assert (got.execs, got.pushes, got.words, got.signals) == (2, 2, 10, 3)
        assert not replay.not_executed


@pytest.mark.parametrize("run_async", [0, 1])
def test_nothing_is_taken_from_under_an_exec(run_async: int) -> None:
    mapped = bind(op("map", 0, 16 * PAGE, 1))
    unmapped = {**bind(op("unmap", 0, 16 * PAGE)), "flags": run_async}
    turns = [execute(1, *range(0, 16 * PAGE, PAGE), size=PAGE), unmapped, mapped] * 10
    with replayed(*READY, *turns) as replay:
        assert replay.differences == []
        assert not replay.device.faults


def test_a_fault_is_seen_and_what_it_leads_to() -> None:
    calls = [*READY, syncobj(1), execute(1, 64 * PAGE, signals=[binary(1)])]
    after = [call("syncobj_wait", handles=[1]), execute(1)]
    with replayed(*calls, *after) as replay:
        assert [(one.line, one.got) for one in replay.differences] == [(8, "ENODEV")]
        assert len(replay.device.faults) == 1


def test_what_killed_a_channel_is_not_recorded() -> None:
    """Nor is what was short; there is enough of it here."""
    dead = [execute(1, 0, ret=-19), execute(2, 0, ret=-19), execute(1, 0)]
    short = [call("prime_handle_to_fd", handle=1, flags=0, ret=-ret) for ret in (errno.EMFILE, errno.ENFILE)]
    with replayed(*READY, *dead, *short) as replay:
        assert [(one.line, one.recorded, one.got) for one in replay.differences] == [(6, "ENODEV", "ENOENT")]
        assert (replay.calls["exec"].not_made, replay.calls["prime_handle_to_fd"].not_made) == (1, 2)


def test_page_tables_are_counted() -> None:
    calls = [vm_init(), gem_new(1), bind(op("map", 0, 8 * PAGE, 1)), bind(op("map", 0, 4 * PAGE, 1))]
    with replayed(*calls) as replay:
        tables = only(replay).tables()
    assert tables is not None
    assert (tables.tables, tables.most_tables, tables.bytes) == (5, 5, 20 << 10)
    assert (tables.written, tables.cleared, tables.cleared_without_keep) == (12, 0, 4)
