"""Replaying traces: clients and their spaces, handles and objects, sparse regions, refusals."""

from __future__ import annotations

import hashlib
import json

import pytest

from gpuvm.trace.errors import ReplayError, TraceError
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.replay import GemHandle, Replay, with_space
from gpuvm.trace.source import Source
from tracefile import (
    EXAMPLES,
    PAGE,
    STREAMING,
    Call,
    bind,
    call,
    gem_close,
    gem_new,
    op,
    text_of,
    vm_init,
)


def replayed(*calls: Call, client: int | None = None) -> Replay:
    lines = enumerate(text_of(*calls).splitlines(), 1)
    return Replay("trace", client=client).run(read_records("trace", lines))


def mappings(replay: Replay, client: int = 1) -> list[list[int]]:
    return replay.clients[client].mappings()


def test_the_kernels_numbers_for_the_streaming_trace() -> None:
    expected = json.loads((EXAMPLES / "nvk-tile-streaming.expected.json").read_text())
    replay = Replay("streaming")
    with Source(str(STREAMING)) as source:
        for record in read_records(source.name, source):
            replay.feed(record)
            if record.line == expected["at_line"]:
                at_line = mappings(replay, expected["client"])
    client = replay.clients[expected["client"]]
    assert client.requests == expected["requests"]
    assert client.ops == expected["ops"]
    assert len(at_line) == expected["mappings_at_line"]
    compact = json.dumps(at_line, separators=(",", ":"))
    assert hashlib.sha256(compact.encode()).hexdigest() == expected["sha256_at_line"]
    assert len(mappings(replay, expected["client"])) == expected["mappings_at_end"]


def test_clients_have_spaces_of_their_own() -> None:
    replay = replayed(
        vm_init(1),
        vm_init(2),
        gem_new(1, client=1),
        gem_new(1, client=2),
        bind(op("map", 0, 2 * PAGE, 1), client=1),
        bind(op("map", PAGE, PAGE, 1, 0x3000), client=2),
        bind(op("unmap", 0, PAGE), client=1),
    )
    assert mappings(replay, 1) == [[PAGE, PAGE, 1, PAGE]]
    assert mappings(replay, 2) == [[PAGE, PAGE, 1, 0x3000]]
    assert replay.clients[1].ops == {"map": 1, "remap": 1, "unmap": 0}
    assert replay.clients[2].requests == 1


def test_one_client_alone() -> None:
    calls = [vm_init(1), vm_init(2), bind(op("unmap", 0, PAGE), client=2)]
    assert list(replayed(*calls, client=2).clients) == [2]


def test_a_reused_handle_is_another_object() -> None:
    replay = replayed(
        vm_init(),
        gem_new(1),
        bind(op("map", 0, PAGE, 1)),
        gem_close(1),
        gem_new(1),
        bind(op("map", PAGE, PAGE, 1, PAGE)),
        bind(op("map", 0, PAGE, 1)),
    )
    vm = replay.clients[1].vm
    assert vm is not None
    first, second = (va.obj for va in vm.mappings(0, 2 * PAGE))
    assert isinstance(first, GemHandle)
    assert first is second
    assert first.line == 5
    assert mappings(replay) == [[0, PAGE, 1, 0], [PAGE, PAGE, 1, PAGE]]


def test_closing_a_handle_leaves_the_mapping() -> None:
    replay = replayed(vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1)), gem_close(1))
    assert mappings(replay) == [[0, PAGE, 1, 0]]


def test_an_imported_handle_is_the_same_object_until_it_is_closed() -> None:
    fd = call("prime_fd_to_handle", handle=4)
    replay = replayed(vm_init(), fd, bind(op("map", 0, PAGE, 4)), fd, bind(op("map", PAGE, PAGE, 4, PAGE)))
    vm = replay.clients[1].vm
    assert vm is not None
    assert len({id(va.obj) for va in vm.mappings(0, 2 * PAGE)}) == 1


def test_sparse_maps_make_regions_and_are_no_requests() -> None:
    sparse = bind(op("map", 0, 16 * PAGE, flags=0x100))
    calls = [vm_init(), gem_new(1), sparse, bind(op("map", PAGE, 2 * PAGE, 1), op("unmap", 2 * PAGE, PAGE))]
    replay = replayed(*calls)
    client = replay.clients[1]
    assert client.vm is not None
    assert (client.requests, client.sparse_maps) == (2, 1)
    assert [(one.addr, one.range, one.sparse) for one in client.vm.region_list()] == [(0, 16 * PAGE, True)]
    replay = replayed(*calls, bind(op("unmap", 0, 16 * PAGE, flags=0x100)))
    client = replay.clients[1]
    assert client.vm is not None
    assert client.requests == 3
    assert client.ops == {"map": 1, "remap": 1, "unmap": 1}
    assert not client.vm.region_list()
    assert mappings(replay) == []


def test_calls_that_had_failed_are_skipped_and_counted() -> None:
    replay = replayed(
        vm_init(2, ret=-38),
        vm_init(1),
        gem_new(1),
        bind(op("map", 0, PAGE, 9), ret=-2),
        call("gem_new", size=0, ret=-22),
        call("gem_close", handle=1, ret=-22),
        bind(op("map", 0, PAGE, 1)),
    )
    assert mappings(replay) == [[0, PAGE, 1, 0]]
    assert replay.clients[1].failed_calls == 1
    assert replay.clients[2].failed_calls == 1
    assert replay.clients[2].vm is None


def test_a_bind_without_ops_is_a_pure_sync_job() -> None:
    assert replayed(vm_init(), bind()).clients[1].requests == 0


def test_a_space_without_kernel_node() -> None:
    vm = replayed(vm_init(kernel_addr=0, kernel_size=0)).clients[1].vm
    assert vm is not None
    assert vm.kernel_node is None
    assert (vm.start, vm.end) == (0, 1 << 47)


@pytest.mark.parametrize(
    ("calls", "line", "index", "message"),
    [
        ([bind(op("unmap", 0, PAGE))], 1, None, "binds before its vm_init"),
        ([vm_init(), vm_init()], 2, None, "already has a space"),
        ([vm_init(kernel_addr=1 << 47, kernel_size=PAGE)], 1, None, "vm_init of client 1"),
        ([vm_init(), bind(op("unmap", 0, PAGE), op("map", 0, PAGE, 5))], 2, 1, "to handle 5"),
        ([vm_init(), gem_new(1), bind(op("map", (1 << 47) - PAGE, 2 * PAGE, 1))], 3, 0, "EINVAL"),
        ([vm_init(), bind(op("unmap", 0, PAGE, flags=0x100))], 2, 0, "unmap sparse [0x0, 0x1000)"),
        ([vm_init(), bind(*[op("map", 0, PAGE, flags=0x100)] * 2)], 2, 1, "ENOSPC"),
        ([vm_init(), gem_new(1), gem_close(1), bind(op("map", 0, PAGE, 1))], 4, 0, "ENOENT"),
    ],
)
def test_what_we_refuse_but_was_accepted_names_line_and_op(
    calls: list[Call], line: int, index: int | None, message: str
) -> None:
    with pytest.raises(ReplayError) as caught:
        replayed(*calls)
    assert caught.value.line == line
    assert caught.value.op == index
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_bind_changes_nothing() -> None:
    calls = [vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1), op("map", PAGE, PAGE, 2))]
    replay = Replay("trace")
    with pytest.raises(ReplayError):
        replay.run(read_records("trace", enumerate(text_of(*calls).splitlines(), 1)))
    assert mappings(replay) == []
    assert replay.clients[1].requests == 0


def test_with_space() -> None:
    clients = replayed(vm_init(3), call("exec", client=1), vm_init(2)).clients
    assert list(with_space(clients, "f")) == [2, 3]
    assert list(with_space(clients, "f", 3)) == [3]
    with pytest.raises(TraceError, match="client 1 did no successful vm_init"):
        with_space(clients, "f", 1)
