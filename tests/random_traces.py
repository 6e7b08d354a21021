"""Small random traces: calls of two clients that share things, with the driver's own results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from driver_traces import PATIENCE, binary, channel_alloc, execute, point, syncobj
from gpuvm.errors import ERRNO_NAMES
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.recorded import Record
from trace_scenes import records_of_lines
from tracefile import PAGE, Call, bind, call, gem_close, gem_new, op, vm_init

SLOTS = 12
"""Places of one page each; push buffers lie in the first four, from which nothing is ever taken away."""
SPARSE = 0x100
_OBJECT_PAGES = 4
_ERRNOS = {name: number for number, name in ERRNO_NAMES.items()}

_client = st.integers(1, 2)
_number = st.integers(1, 4)
_slot = st.integers(4, SLOTS - 1)
_syncs = st.lists(st.builds(point, _number, st.integers(1, 5)) | st.builds(binary, _number), max_size=2)


def _mapped(slot: int, pages: int, handle: int, offset: int) -> Call:
    return op("map", slot * PAGE, pages * PAGE, handle, offset * PAGE)


_op = st.one_of(
    st.builds(_mapped, _slot, st.integers(1, 3), _number, st.integers(0, _OBJECT_PAGES)),
    st.builds(lambda slot, pages: op("unmap", slot * PAGE, pages * PAGE), _slot, st.integers(1, 4)),
)
_region = st.builds(
    lambda name, at: op(name, (SLOTS + 4 * at) * PAGE, 4 * PAGE, flags=SPARSE),
    st.sampled_from(["map", "unmap"]),
    st.integers(0, 1),
)
_in_region = st.builds(_mapped, st.integers(SLOTS, SLOTS + 7), st.integers(1, 2), _number, st.just(0))


def _bound(client: int, ops: list[Call], run_async: bool, waits: list[Call], signals: list[Call]) -> Call:
    syncs = {"flags": 1, "waits": waits, "signals": signals} if run_async else {}
    return {**bind(*ops, client=client), **syncs}


def _called(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.builds(lambda client, **drawn: call(name, client=client, **drawn), _client, **fields)


_numbers = st.lists(_number, min_size=1, max_size=2)
_fd = st.integers(0, 1)
_CALLS: st.SearchStrategy[Call] = st.one_of(
    st.builds(lambda client, handle: gem_new(handle, client, _OBJECT_PAGES * PAGE), _client, _number),
    st.builds(lambda client, handle: gem_close(handle, client), _client, _number),
    st.builds(
        _bound,
        _client,
        st.lists(_op | _region | _in_region, min_size=1, max_size=3),
        st.booleans(),
        _syncs,
        _syncs,
    ),
    st.builds(
        lambda client, channel, slots, waits, signals: execute(
            channel, *[slot * PAGE for slot in slots], client=client, waits=waits, signals=signals
        ),
        _client,
        st.integers(1, 2),
        st.lists(st.integers(0, 3), max_size=1),
        _syncs,
        _syncs,
    ),
    st.builds(lambda client, channel: channel_alloc(channel, client), _client, st.integers(1, 2)),
    _called("channel_free", channel=st.integers(1, 2)),
    st.builds(
        lambda client, handle, flags: syncobj(handle, client, flags), _client, _number, st.integers(0, 1)
    ),
    _called("syncobj_destroy", handle=_number),
    _called("syncobj_reset", handles=_numbers),
    _called("syncobj_signal", handles=_numbers),
    _called("syncobj_wait", handles=_numbers, flags=st.integers(0, 1)),
    _called("syncobj_timeline_signal", handles=st.tuples(_number), points=st.tuples(st.integers(1, 5))),
    _called(
        "syncobj_timeline_wait",
        handles=st.tuples(_number),
        points=st.tuples(st.integers(1, 5)),
        flags=st.just(0),
    ),
    _called(
        "syncobj_transfer",
        src_handle=_number,
        dst_handle=_number,
        src_point=st.integers(0, 2),
        dst_point=st.integers(0, 5),
        flags=st.just(0),
    ),
    _called("prime_handle_to_fd", handle=_number, flags=st.just(0), fd=_fd),
    _called("prime_fd_to_handle", handle=_number, fd=_fd),
    _called(
        "syncobj_handle_to_fd",
        handle=_number,
        flags=st.integers(0, 1),
        point=st.just(0),
        fd=st.integers(2, 3),
    ),
    _called(
        "syncobj_fd_to_handle",
        handle=_number,
        flags=st.integers(0, 1),
        point=st.just(0),
        fd=st.integers(2, 3),
    ),
)


def _ready(client: int) -> list[Call]:
    """A client with an object behind its push buffers, and a few more things."""
    return [
        vm_init(client),
        gem_new(9, client, _OBJECT_PAGES * PAGE),
        bind(op("map", 0, 4 * PAGE, 9), client=client),
        channel_alloc(1, client),
        gem_new(1, client, _OBJECT_PAGES * PAGE),
        syncobj(1, client),
    ]


BEGUN = len([*_ready(1), *_ready(2)])
"""From there on calls are random."""


def with_results(records: list[Record]) -> list[Record]:
    """The records with the results that the driver gives them; without those of which a trace cannot tell."""
    told = []
    with DriverReplay("random", records, patience=PATIENCE) as replay:
        for record in records:
            before, not_made = len(replay.differences), replay.calls.get(record.call)
            skipped = not_made.not_made if not_made else 0
            replay.feed(record)
            if replay.calls[record.call].not_made > skipped:
                continue
            if len(replay.differences) == before:
                told.append(record)
            elif (errno := _ERRNOS.get(replay.differences[-1].got)) is not None:
                told.append(replace(record, ret=-errno))
    return told


def random_records(calls: int) -> st.SearchStrategy[list[Record]]:
    """Traces of up to so many calls behind what every client begins with."""
    return st.lists(_CALLS, min_size=calls // 2, max_size=calls).map(
        lambda drawn: with_results(records_of_lines(*_ready(1), *_ready(2), *drawn))
    )


def drawn_records(calls: int) -> st.SearchStrategy[list[Record]]:
    """The same as if all calls were accepted."""
    return st.lists(_CALLS, max_size=calls).map(
        lambda drawn: records_of_lines(*_ready(1), *_ready(2), *drawn)
    )


def renumbered(records: list[Record]) -> list[Record]:
    """The same with numbers from 1 on."""
    return [replace(record, line=line) for line, record in enumerate(records, 1)]
