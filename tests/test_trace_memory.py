"""Replaying into real memory: objects and their bytes, page tables, uses."""

from __future__ import annotations

from itertools import islice

import pytest

from gpuvm.mem.aperture import Aperture, Domain
from gpuvm.mmu.formats import FORMATS, TU102, X86_64
from gpuvm.trace.errors import ReplayError
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.memory_replay import MemoryReplay, import_sizes
from gpuvm.trace.source import Source
from gpuvm.trace.table_counts import count_tables
from gpuvm.trace.uses import all_uses
from memory_traces import GART, NO_SHARE, VRAM, execution, records_of, shown
from suite import scaled
from tracefile import (
    PAGE,
    SPARSE_BUFFER,
    STREAMING,
    Call,
    bind,
    call,
    gem_close,
    gem_new,
    op,
    records_in,
    vm_init,
)

BIG = 0x10000


def replayed(*calls: Call, **options: bool | int) -> MemoryReplay:
    records = records_of(*calls)
    return MemoryReplay("trace", records, TU102, **options).run(records)  # type: ignore[arg-type]


def test_an_address_leads_to_the_bytes_of_its_object() -> None:
    with replayed(
        vm_init(),
        gem_new(1, size=4 * BIG),
        gem_new(2, size=2 * PAGE, domain=GART),
        bind(op("map", 0, 4 * BIG, 1), op("map", BIG, PAGE, 2, PAGE)),
    ) as replay:
        client = replay.clients[1]
        first, second = client.objects[1], client.objects[2]
        first.view[3 * BIG + 5] = 17
        second.view[PAGE + 7] = 23
        assert (first.domain, second.domain) == (Domain.VRAM, Domain.GART)
        assert [replay.handle_of(obj) for obj in (first, second)] == [1, 2]
        found, byte = shown(replay, client, 3 * BIG + 5)
        assert (found.aperture, found.shift, byte) == (Aperture.VRAM, 16, 17)
        found, byte = shown(replay, client, BIG + 7)
        assert (found.aperture, found.shift, byte) == (Aperture.SYSTEM_COHERENT, 12, 23)
        assert shown(replay, client, BIG + PAGE)[0].shift == 12
        replay.check()
        del first, second


def test_clients_share_a_device_and_no_addresses() -> None:
    with replayed(
        vm_init(1),
        vm_init(2),
        gem_new(1, client=1),
        gem_new(1, client=2),
        bind(op("map", 0, PAGE, 1), client=1),
        bind(op("map", 0, PAGE, 1), client=2),
    ) as replay:
        one, other = replay.clients.values()
        one.objects[1].view[0] = 1
        other.objects[1].view[0] = 2
        assert [shown(replay, client, 0)[1] for client in (one, other)] == [1, 2]


def test_one_client_alone() -> None:
    with replayed(vm_init(1), vm_init(2), gem_new(1, client=2), client=2) as replay:
        assert list(replay.clients) == [2]


def test_a_closed_handle_leaves_the_memory_while_it_is_mapped() -> None:
    calls = [vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1)), gem_close(1)]
    with replayed(*calls) as replay:
        assert shown(replay, replay.clients[1], 0)[0].shift == 12
        assert replay.device.statistics().objects == 1
    with replayed(*calls, bind(op("unmap", 0, PAGE))) as replay:
        replay.device.reap()
        assert replay.device.statistics().objects == 0


def test_a_private_object_shares_the_reservation_of_its_space() -> None:
    with replayed(vm_init(), gem_new(1, domain=VRAM | NO_SHARE), gem_new(2)) as replay:
        client = replay.clients[1]
        assert client.vm is not None
        assert client.objects[1].resv is client.vm.resv
        assert client.objects[1].no_share
        assert client.objects[2].resv is not client.vm.resv


def test_an_imported_object_is_as_long_as_what_is_mapped_of_it() -> None:
    imported = call("prime_fd_to_handle", handle=4)
    calls = [
        vm_init(),
        imported,
        bind(op("map", 0, PAGE, 4, 5 * PAGE)),
        imported,
        bind(op("map", BIG, 2 * PAGE, 4), op("map", 0, PAGE, 4, 9 * PAGE, flags=0x100)),
        gem_close(4),
        imported,
    ]
    assert import_sizes(records_of(*calls)) == {2: 6 * PAGE, 7: PAGE}
    with replayed(*calls[:4]) as replay:
        assert replay.clients[1].objects[4].size == 6 * PAGE


def test_calls_that_had_failed_are_skipped() -> None:
    with replayed(
        vm_init(ret=-38),
        vm_init(),
        call("gem_new", size=0, ret=-22),
        bind(op("map", 0, PAGE, 9), ret=-2),
        execution(0, client=1),
    ) as replay:
        assert not replay.clients[1].objects


@pytest.mark.parametrize(
    ("calls", "line", "index", "message"),
    [
        ([bind(op("unmap", 0, PAGE))], 1, None, "client 1 binds before its vm_init"),
        ([vm_init(), vm_init()], 2, None, "client 1 already has a space"),
        ([vm_init(kernel_addr=1 << 47, kernel_size=PAGE)], 1, None, "vm_init of client 1"),
        ([gem_new(1, size=0)], 1, None, "handle 1 of 0x0 bytes"),
        ([gem_new(1, size=1 << 62)], 1, None, "ENOSPC"),
        (
            [vm_init(), bind(op("unmap", 0, PAGE), op("map", 0, PAGE, 5))],
            2,
            1,
            "to handle 5 at 0x0 is refused",
        ),
        ([vm_init(), gem_new(1), bind(op("map", 1, PAGE, 1))], 3, 0, "map [0x1, 0x1001) to handle 1"),
        ([vm_init(), gem_new(1, size=PAGE), bind(op("map", 0, 2 * PAGE, 1))], 3, 0, "EINVAL"),
        ([vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1, flags=0x7))], 3, 0, "kind 0x7"),
    ],
)
def test_what_is_refused_but_was_accepted_names_line_and_op(
    calls: list[Call], line: int, index: int | None, message: str
) -> None:
    with pytest.raises(ReplayError) as caught:
        replayed(*calls)
    assert (caught.value.line, caught.value.op) == (line, index)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kind_that_the_format_lacks_can_be_left_out() -> None:
    records = records_of(vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1, flags=6)))
    with MemoryReplay("trace", records, X86_64, any_kind=True) as replay:
        replay.run(records)
        assert replay.kinds_left_out == {6}
        assert shown(replay, replay.clients[1], 0)[0].kind == 0
    with MemoryReplay("trace", records, TU102, any_kind=True) as replay:
        replay.run(records)
        assert not replay.kinds_left_out
        assert shown(replay, replay.clients[1], 0)[0].kind == 6


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "x86_64"])
def test_every_call_of_a_recorded_trace_leaves_all_in_order(name: str) -> None:
    records = records_in(SPARSE_BUFFER)
    with MemoryReplay("trace", records, FORMATS[name]) as replay:
        for number, record in enumerate(records):
            replay.feed(record)
            if number % scaled(10, 1) == 0:
                replay.check()
        tables = [client.page_table for client in replay.clients.values()]
        left = [sum(one.statistics().tables.values()) for one in tables if one is not None]
        assert left == [1, 1]  # the roots
        assert replay.device.statistics().objects == 0


# -- what binds do to page tables


def test_the_streaming_trace_in_page_tables() -> None:
    with Source(str(STREAMING)) as source:
        records = list(islice(read_records(source.name, source), scaled(400, 10_855)))
    idle, busy = count_tables("trace", records, TU102).values()
    assert (idle.most_tables, idle.written) == (1, 0)
    with MemoryReplay("trace", records, TU102) as replay:
        tables = replay.run(records).clients[2].page_table
        assert tables is not None
        mapped = sum(tables.statistics().mapped.values())
    assert busy.written - busy.cleared_without_keep == mapped
    assert busy.cleared <= busy.cleared_without_keep
    assert busy.most_tables >= busy.tables >= 1
    if len(records) > 10_000:
        assert (busy.tables, mapped) == (1, 0)


def test_ignoring_keep_clears_as_much_as_was_counted() -> None:
    with Source(str(STREAMING)) as source:
        records = list(islice(read_records(source.name, source), scaled(400, 10_855)))
    records += records_of(
        vm_init(client=9),
        gem_new(1, client=9),
        *(bind(op("map", 0, pages * PAGE, 1), client=9) for pages in (8, 4, 8)),
    )
    counted = {number: one.cleared_without_keep for number, one in count_tables("t", records, TU102).items()}
    with MemoryReplay("t", records, TU102, honour_keep=False) as replay:
        spaces = replay.run(records).clients
        tables = {number: one.page_table for number, one in spaces.items() if one.page_table is not None}
        cleared = {number: one.statistics().written_clears for number, one in tables.items()}
    assert cleared == counted
    assert counted[9] == 12


def test_tables_and_entries_are_counted() -> None:
    records = records_of(
        vm_init(1),
        vm_init(2),
        gem_new(1, client=2, size=2 * BIG),
        bind(op("map", 0, 2 * BIG, 1), client=2),
        bind(op("map", BIG, PAGE, 1, BIG), client=2),  # the same bytes: keep
        bind(op("unmap", 0, 2 * BIG), client=2),
    )
    counts = count_tables("trace", records, TU102)
    assert list(counts) == [1, 2]
    idle, busy = counts.values()
    assert (idle.most_tables, idle.tables, idle.bytes, idle.written, idle.cleared) == (1, 1, 4096, 0, 0)
    # PD3, PD2, PD1, PD0, LPT, and the SPT once a page is cut.
    assert (busy.most_tables, busy.tables) == (6, 1)
    assert (busy.most_bytes, busy.bytes) == (5 * 4096 + 256, 4096)
    # 2 of 64 KiB; 15 of what is left of one, and the requested page.
    assert busy.written == 2 + 15 + 1
    assert busy.cleared == 2 + 15 + 1
    assert busy.cleared_without_keep == busy.cleared
    assert list(count_tables("trace", records, TU102, client=2)) == [2]


def test_keep_saves_clearing_what_is_written_again() -> None:
    records = records_of(
        vm_init(), gem_new(1), bind(op("map", 0, 8 * PAGE, 1)), bind(op("map", 0, 4 * PAGE, 1))
    )
    counts = count_tables("trace", records, TU102)[1]
    assert (counts.written, counts.cleared, counts.cleared_without_keep) == (12, 0, 4)


# -- uses


def test_a_use_is_a_map_or_a_push_once_for_each_call() -> None:
    records = records_of(
        vm_init(),
        gem_new(1),
        gem_new(2),
        gem_new(3),
        bind(op("map", 0, PAGE, 2), op("map", BIG, PAGE, 1), op("map", 2 * BIG, PAGE, 2)),
        bind(op("unmap", BIG, PAGE), op("map", 4 * BIG, BIG, flags=0x100)),
        bind(op("map", 0, PAGE, 3), ret=-22),
        execution(2 * BIG, 0, BIG, (1 << 64) - 8),
        execution(1 << 46),
        call("exec"),
        gem_close(1),
        gem_new(1),
        bind(op("map", 8 * BIG, PAGE, 1)),
    )
    assert all_uses("trace", records) == [(2, 3), (1, 2), (2, 3), (1, 12)]
    assert all_uses("trace", records, client=7) == []
