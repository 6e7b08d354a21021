"""Reading what the calls of a driver have beside addresses: channels, sync objects, flags, files."""

from __future__ import annotations

from typing import Any

import pytest

from gpuvm.trace import recorded
from gpuvm.trace.call_fields import FIELDS
from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import read_records
from memory_traces import records_of
from tracefile import PAGE, Call, bind, call, gem_new, op, text_of

HEAD = (1, 7, 1, 0)


@pytest.mark.parametrize(
    ("of", "record"),
    [
        (call("channel_alloc", channel=3), recorded.ChannelAlloc(*HEAD, "channel_alloc", 3)),
        (call("channel_free", channel=3), recorded.ChannelFree(*HEAD, "channel_free", 3)),
        (call("gem_info", handle=2, size=PAGE), recorded.GemInfo(*HEAD, "gem_info", 2, PAGE)),
        (call("gem_info", handle=2), recorded.GemInfo(*HEAD, "gem_info", 2, None)),
        (call("gem_cpu_prep", handle=2, flags=4), recorded.CpuPrep(*HEAD, "gem_cpu_prep", 2, 4)),
        (call("gem_cpu_fini", handle=2), recorded.CpuFini(*HEAD, "gem_cpu_fini", 2)),
        (call("getparam", param=4, value=2**63), recorded.GetParam(*HEAD, "getparam", 4, 2**63)),
        (call("getparam", param=17), recorded.GetParam(*HEAD, "getparam", 17, None)),
        (call("get_cap", capability=0x13), recorded.GetCap(*HEAD, "get_cap", 0x13, None)),
        (
            call("prime_handle_to_fd", handle=2, flags=2, fd=9),
            recorded.GemExport(*HEAD, "prime_handle_to_fd", 2, 2, 9),
        ),
        (
            call("prime_fd_to_handle", fd=9, handle=2),
            recorded.GemImport(*HEAD, "prime_fd_to_handle", 2, 9),
        ),
        (call("gem_open", handle=2), recorded.GemImport(*HEAD, "gem_open", 2, None)),
        (call("syncobj_create", flags=1, handle=4), recorded.SyncobjCreate(*HEAD, "syncobj_create", 1, 4)),
        (call("syncobj_destroy", handle=4), recorded.SyncobjDestroy(*HEAD, "syncobj_destroy", 4)),
        (call("syncobj_reset", handles=[4, 5]), recorded.SyncobjReset(*HEAD, "syncobj_reset", (4, 5))),
        (call("syncobj_signal", handles=[]), recorded.SyncobjSignal(*HEAD, "syncobj_signal", ())),
        (
            call("syncobj_timeline_signal", handles=[4], points=[1 << 60]),
            recorded.SyncobjTimelineSignal(*HEAD, "syncobj_timeline_signal", (4,), (1 << 60,)),
        ),
        (
            call("syncobj_query", handles=[4], flags=1, points=[6]),
            recorded.SyncobjQuery(*HEAD, "syncobj_query", (4,), 1, (6,)),
        ),
        (
            call("syncobj_transfer", src_handle=4, dst_handle=5, src_point=6, flags=2),
            recorded.SyncobjTransfer(*HEAD, "syncobj_transfer", 4, 5, 6, 0, 2),
        ),
        (call("syncobj_wait", handles=[4], flags=1), recorded.SyncobjWait(*HEAD, "syncobj_wait", (4,), 1)),
        (
            call("syncobj_timeline_wait", handles=[4], points=[6]),
            recorded.SyncobjTimelineWait(*HEAD, "syncobj_timeline_wait", (4,), (6,), 0),
        ),
        (
            call("syncobj_handle_to_fd", handle=4, flags=1, fd=9),
            recorded.SyncobjExport(*HEAD, "syncobj_handle_to_fd", 4, 1, 0, 9),
        ),
        (
            call("syncobj_fd_to_handle", fd=9, flags=0, handle=4),
            recorded.SyncobjImport(*HEAD, "syncobj_fd_to_handle", 9, 0, 0, 4),
        ),
        (
            call("syncobj_eventfd", handle=4, flags=0, point=6, fd=9),
            recorded.SyncobjEventfd(*HEAD, "syncobj_eventfd", 4, 0, 6),
        ),
        (call("nvif", data="00"), recorded.Other(*HEAD, "nvif")),
    ],
    ids=lambda value: "",
)
def test_calls_have_their_fields(of: Call, record: recorded.Record) -> None:
    assert records_of(of) == [record]


def test_a_bind_says_when_it_runs() -> None:
    waits = [{"type": "syncobj", "handle": 1, "value": 0}, {"type": "timeline", "handle": 2, "value": 5}]
    signals = [{"type": 7, "handle": 3}]
    of = {**bind(op("map", 0, PAGE, 1)), "flags": 1, "waits": waits, "signals": signals}
    (record,) = records_of(of)
    assert isinstance(record, recorded.VmBind)
    assert record.flags == recorded.BIND_RUN_ASYNC
    assert record.waits == ((0, 1, 0), (1, 2, 5))
    assert record.signals == ((7, 3, 0),)
    (record,) = records_of(call("vm_bind", ops=[]))
    assert record == recorded.VmBind(*HEAD, (), 0, (), ())


def test_an_exec_says_where() -> None:
    signals = [{"type": "timeline", "handle": 2, "value": 5}]
    pushes = [{"va": PAGE, "va_len": 8, "flags": 1}]
    (record,) = records_of(call("exec", channel=4, waits=[], signals=signals, pushes=pushes))
    assert record == recorded.Submission(
        *HEAD, (recorded.Push(PAGE, 8, 1),), 4, (), (recorded.Sync(1, 2, 5),)
    )


def test_an_object_has_its_layout() -> None:
    (record,) = records_of(gem_new(1, align=65536, tile_mode=4, tile_flags=0xFE00))
    assert isinstance(record, recorded.GemNew)
    assert (record.align, record.tile_mode, record.tile_flags) == (65536, 4, 0xFE00)


@pytest.mark.parametrize("name", FIELDS)
def test_a_call_that_says_nothing_is_read_and_known_as_such(name: str) -> None:
    (record,) = records_of(call(name))
    needed = [field.name for field in FIELDS[name][1] if field.needed]
    assert record.call == name
    assert isinstance(record, recorded.Untold) == bool(needed)
    if isinstance(record, recorded.Untold):
        assert record.field == needed[0]


def test_what_a_failed_call_returned_is_not_read() -> None:
    assert records_of(call("syncobj_create", ret=-22, flags=2, handle=None)) == [
        recorded.SyncobjCreate(1, 7, 1, -22, "syncobj_create", 2, None)
    ]
    assert records_of(call("prime_fd_to_handle", ret=-9, fd=-1)) == [
        recorded.GemImport(1, 7, 1, -9, "prime_fd_to_handle", 0, -1)
    ]


@pytest.mark.parametrize(
    ("of", "path", "message"),
    [
        (call("channel_free", channel="1"), '"1"', '"channel" is "1": expected a whole number'),
        (
            call("channel_free", channel=1 << 31),
            "2147",
            '"channel" is 2147483648, which does not',
        ),
        (call("channel_free", channel=-(1 << 31) - 1), "-2147", "does not fit 32 bits"),
        (call("channel_alloc", channel=-1), "-1", '"channel" is -1, which is negative'),
        (call("syncobj_create", flags=0, handle=True), "true", '"handle" is true: expected a whole number'),
        (call("syncobj_reset", handles=4), "4,", '"handles" is 4: expected a list of whole numbers'),
        (call("syncobj_reset", handles=[4, "b"]), '"b"', 'element 1 of "handles" is "b": expected a whole'),
        (call("syncobj_reset", handles=[4, -5]), "-5", 'element 1 of "handles" is -5, which is negative'),
        (
            call("syncobj_wait", handles=[1 << 32]),
            "4294967296",
            'element 0 of "handles" is 4294967296',
        ),
        (call("exec", channel=-1), "-1", '"channel" is -1, which is negative'),
        (call("exec", waits=3), "3,", '"waits" is 3: expected a list of sync objects'),
        (call("exec", signals=[3]), "3]", 'element 0 of "signals" is not a JSON object'),
        (call("exec", signals=[{"type": "fence", "handle": 1}]), '"fence"', 'unknown type "fence": expected'),
        (call("exec", signals=[{"type": [], "handle": 1}]), "[],", '"type" is []: expected a whole number'),
        (call("exec", signals=[{"type": "syncobj"}]), '{"type"', '"handle" is missing'),
        (
            call("exec", pushes=[{"va": 1, "va_len": 2, "flags": -1}]),
            "-1",
            '"flags" is -1, which is negative',
        ),
        (call("vm_bind", ops=[], flags=None), "null", '"flags" is null: expected a whole number'),
        (gem_new(1, tile_mode=1 << 32), "4294967296", "does not fit 32 bits"),
        (call("prime_fd_to_handle", handle=1, fd="3"), '"3"', '"fd" is "3"'),
    ],
)
def test_a_broken_field_is_named_with_its_column(of: dict[str, Any], path: str, message: str) -> None:
    text = text_of(of).strip()
    with pytest.raises(TraceError) as caught:
        list(read_records("f", [(9, text)]))
    assert caught.value.line == 9
    assert message in caught.value.message
    assert caught.value.column is not None
    assert text[caught.value.column - 1 :].startswith(path)
