"""Replaying through the driver what clients hand to each other, and what they wait for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from driver_traces import (
    PATIENCE,
    READY,
    binary,
    differences,
    execute,
    only,
    point,
    replayed,
    syncobj,
)
from gpuvm.sync.descriptor import carriers
from gpuvm.trace.numbering import NOBODY, Numbering
from tracefile import PAGE, Call, bind, call, gem_close, gem_new, op, vm_init

EBADF, EBUSY, ETIME = -9, -16, -62


def exported(handle: int, fd: int, client: int = 1) -> Call:
    return call("prime_handle_to_fd", client=client, handle=handle, flags=2, fd=fd)


def imported(handle: int, client: int = 1, **fields: int) -> Call:
    return call("prime_fd_to_handle", client=client, handle=handle, **fields)


@pytest.fixture(autouse=True)
def no_file_is_left() -> Iterator[None]:
    before = carriers.statistics()
    yield
    assert carriers.statistics() == before


# -- objects


def test_an_object_is_shared() -> None:
    calls = [
        vm_init(1),
        vm_init(2),
        gem_new(1, client=1),
        gem_new(1, client=2),
        exported(1, 20),
        imported(2, client=2, fd=20),
        imported(2, client=2, fd=20),
        imported(1, client=1, fd=20),
        bind(op("map", 0, PAGE, 1), client=1),
        bind(op("map", 0, PAGE, 2), client=2),
    ]
    with replayed(*calls) as replay:
        assert replay.differences == []
        assert replay.clients[2].mappings() == [[0, PAGE, 2, 0]]
        first, second = (one.vm for one in replay.clients.values())
        assert first is not None
        assert second is not None
        assert [va.obj for va in first.mappings()] == [va.obj for va in second.mappings()]


def test_a_descriptor_is_what_was_exported_last_under_it() -> None:
    calls = [
        gem_new(1, size=PAGE),
        gem_new(2, size=2 * PAGE),
        exported(1, 20),
        exported(2, 20),
        imported(1, client=2, fd=20),
        call("gem_info", client=2, handle=1, size=2 * PAGE),
    ]
    assert differences(*calls) == []


def test_what_nobody_exported_comes_from_elsewhere() -> None:
    calls = [
        vm_init(),
        imported(1, fd=20),
        imported(1, fd=20),
        imported(2),
        call("gem_open", handle=3),
        bind(op("map", 0, 4 * PAGE, 1), op("map", 8 * PAGE, PAGE, 2, 7 * PAGE), op("map", PAGE, PAGE, 3)),
        gem_close(1),
        bind(op("map", 0, PAGE, 1), ret=-2),
    ]
    with replayed(*calls) as replay:
        assert replay.differences == []
        assert [row[2] for row in only(replay).mappings()] == [1, 3, 1, 2]


def test_the_same_object_has_the_same_handle() -> None:
    calls = [gem_new(1), exported(1, 20), imported(2, fd=20)]
    assert differences(*calls) == [(3, "handle 2", "handle 1")]
    calls = [gem_new(1), gem_new(1, client=2), exported(1, 20), imported(1, client=2, fd=20)]
    assert differences(*calls) == [(4, "handle 1", "handle 2")]


def test_an_import_that_should_have_failed_closes_no_handle_that_was_open() -> None:
    calls = [gem_new(1), exported(1, 20), call("prime_fd_to_handle", fd=20, ret=-22)]
    assert differences(*calls, call("gem_info", handle=1)) == [(3, "EINVAL", "0")]
    calls = [gem_new(1), exported(1, 20), call("prime_fd_to_handle", client=2, fd=20, ret=-22)]
    assert differences(*calls, call("gem_info", client=2, handle=1, ret=-2)) == [(3, "EINVAL", "0")]


def test_what_is_private_stays_so() -> None:
    private = [vm_init(), gem_new(1, domain=0x22)]
    assert differences(*private, exported(1, 20)) == [(3, "0", "EPERM")]
    assert differences(*private, call("prime_handle_to_fd", handle=1, flags=2, ret=-1)) == []


# -- sync objects


def test_sync_objects_are_shared() -> None:
    calls = [
        *READY,
        vm_init(2),
        syncobj(1),
        call("syncobj_handle_to_fd", handle=1, flags=0, fd=20),
        call("syncobj_fd_to_handle", client=2, fd=20, flags=0, handle=1),
        execute(1, 0, signals=[point(1, 4)]),
        call("syncobj_timeline_wait", client=2, handles=[1], points=[4], flags=1),
        call("syncobj_query", client=2, handles=[1], points=[4]),
    ]
    assert differences(*calls) == []


def test_sync_files_are_shared() -> None:
    calls = [
        *READY,
        syncobj(1),
        syncobj(2),
        execute(1, 0, signals=[binary(1)]),
        call("syncobj_handle_to_fd", handle=1, flags=1, fd=20),
        call("syncobj_fd_to_handle", fd=20, flags=1, handle=2),
        call("syncobj_wait", handles=[2]),
    ]
    assert differences(*calls) == []


@pytest.mark.parametrize("flags", [0, 1])
def test_syncs_may_come_from_elsewhere(flags: int) -> None:
    calls = [syncobj(1), call("syncobj_fd_to_handle", fd=20, flags=flags, handle=1 if flags else 2)]
    wait = call("syncobj_wait", handles=[1 if flags else 2])
    assert differences(*calls, wait) == []


def test_every_point_of_what_comes_from_elsewhere_is_signalled() -> None:
    """Or each wait for what another program signals would take all of the patience."""
    calls = [
        *READY,
        call("syncobj_fd_to_handle", fd=20, flags=0, handle=1),
        call("syncobj_timeline_wait", handles=[1], points=[1 << 40], flags=2),
        call("syncobj_query", handles=[1], points=[7]),
        execute(1, 0, waits=[point(1, 8)], signals=[point(1, 9)]),
        call("syncobj_timeline_wait", handles=[1], points=[9]),
    ]
    assert differences(*calls) == []


def test_what_is_refused_for_its_descriptor() -> None:
    calls = [gem_new(1), exported(1, 20), call("syncobj_fd_to_handle", fd=20, flags=0, ret=-22)]
    assert differences(*calls) == []
    eventfds = [call("syncobj_eventfd", handle=1, flags=0, point=1, ret=ret) for ret in (EBADF, -22)]
    with replayed(syncobj(1), *eventfds) as replay:
        assert replay.differences == []
        assert replay.calls["syncobj_eventfd"].not_made == 2


def test_a_descriptor_that_is_open_again_for_something_else() -> None:
    """Programs close them without any ioctl."""
    calls = [
        gem_new(1),
        syncobj(1, flags=1),
        exported(1, 20),
        call("syncobj_fd_to_handle", fd=20, flags=0, handle=2),
        call("syncobj_fd_to_handle", fd=20, flags=1, handle=2),
        call("syncobj_handle_to_fd", handle=1, flags=1, fd=20),
        imported(2, fd=20),
        call("syncobj_fd_to_handle", fd=20, flags=1, handle=2),
        call("syncobj_wait", handles=[2]),
    ]
    assert differences(*calls) == []


def test_calls_about_sync_objects() -> None:
    calls = [
        syncobj(1),
        syncobj(2, flags=1),
        call("syncobj_wait", handles=[2, 2], flags=1),
        call("syncobj_wait", handles=[1, 2], flags=0, ret=-22),
        call("syncobj_wait", handles=[1, 2], flags=3, ret=ETIME),
        call("syncobj_transfer", src_handle=2, dst_handle=1, src_point=0, dst_point=3),
        call("syncobj_query", handles=[1, 2], points=[3, 0]),
        call("syncobj_query", handles=[1], points=[3], flags=1),
        call("syncobj_eventfd", handle=1, flags=0, point=3),
        call("syncobj_reset", handles=[1, 2]),
        call("syncobj_signal", handles=[2]),
        call("syncobj_timeline_signal", handles=[1], points=[9]),
        call("syncobj_timeline_wait", handles=[1], points=[9]),
        call("syncobj_timeline_wait", handles=[1], points=[10], ret=-22),
        call("syncobj_destroy", handle=1),
        call("syncobj_wait", handles=[1], ret=-2),
    ]
    assert differences(*calls) == []


# -- time


def test_what_came_when_recorded_must_come() -> None:
    waits = [
        call("syncobj_wait", handles=[1], flags=2),
        call("syncobj_timeline_wait", handles=[1], points=[4], flags=2),
        call("syncobj_query", handles=[1], points=[4]),
    ]
    assert differences(syncobj(1), *waits) == [
        (2, "0", "ETIME"),
        (3, "0", "ETIME"),
        (4, "points [4]", "points [0]"),
    ]


def test_what_is_there_sooner_than_recorded_is_no_difference() -> None:
    calls = [
        gem_new(1),
        syncobj(1, flags=1),
        call("syncobj_wait", handles=[1], ret=ETIME),
        call("gem_cpu_prep", handle=1, flags=1, ret=EBUSY),
    ]
    with replayed(*calls) as replay:
        assert replay.differences == []
        assert [replay.calls[name].sooner for name in ("syncobj_wait", "gem_cpu_prep")] == [1, 1]


def test_a_point_may_be_further_than_recorded() -> None:
    signal = call("syncobj_timeline_signal", handles=[1], points=[9])
    assert differences(syncobj(1), signal, call("syncobj_query", handles=[1], points=[4])) == []


def test_the_cpu_waits_for_the_gpu() -> None:
    calls = [
        *READY,
        execute(1, *range(0, 16 * PAGE, PAGE), size=PAGE),
        call("gem_cpu_prep", handle=1, flags=5),
        call("gem_cpu_fini", handle=1),
    ]
    assert differences(*calls) == []
    assert PATIENCE < 1


# -- numbers


def test_numbering() -> None:
    numbers = Numbering()
    assert numbers.ours(5) == 5
    assert 5 not in numbers
    assert numbers.pair(7, 1)
    assert (numbers.ours(7), numbers.ours(1)) == (1, NOBODY)
    assert numbers.same(7, 1)
    assert not numbers.same(7, 2)
    assert not numbers.same(8, 1)
    assert numbers.same(8, 2)
    assert not numbers.pair(3, 3)
    assert not numbers.pair(None, 4)
    numbers.forget(7)
    assert (numbers.ours(7), numbers.ours(1)) == (7, 1)
    assert not numbers.pair(2, None)
    assert numbers.ours(2) == NOBODY
    assert 2 not in numbers
    numbers.pair(2, 6)
    assert 2 in numbers
    assert numbers.pair(2, 8)
    assert (numbers.ours(2), numbers.ours(6)) == (8, 6)
