"""How a call is told in a line."""

from __future__ import annotations

from random import Random

import pytest

from driver_traces import binary, execute, point, syncobj
from gpuvm.report.call_text import call_text, dump_line, flag_names, result_text
from gpuvm.report.names import TraceNames
from gpuvm.trace.call_fields import FIELDS
from gpuvm.trace.recorded import Record
from trace_scenes import records_of_lines, trace_of
from tracefile import PAGE, Call, bind, call, gem_close, gem_new, op, vm_init


def record(one: Call) -> Record:
    return records_of_lines(one)[0]


LINES = [
    (vm_init(), "VM_INIT({kernel_managed_addr=0x8000000000, kernel_managed_size=0x8000000000}) = 0"),
    (gem_new(5, domain=0x22), "GEM_NEW({size=0x100000, domain=VRAM|NO_SHARE} => {handle=5}) = 0"),
    (
        {**gem_new(0, domain=0x42), "align": 4096, "ret": -12},
        "GEM_NEW({size=0x100000, domain=VRAM|0x40, align=0x1000}) = -1 ENOMEM (Cannot allocate memory)",
    ),
    (gem_close(5), "GEM_CLOSE({handle=5}) = 0"),
    (
        {**bind(op("map", 0, PAGE, 5, PAGE, 6), op("unmap", PAGE, PAGE)), "flags": 1, "waits": [binary(3)]},
        "VM_BIND({flags=RUN_ASYNC, wait=[3], ops=[{MAP, kind=0x6, handle=5, addr=0, range=0x1000, "
        "bo_offset=0x1000}, {UNMAP, addr=0x1000, range=0x1000}]}) = 0",
    ),
    (
        {**bind(op("map", 0, PAGE, flags=0x100)), "signals": [point(3, 17)], "ret": -28},
        "VM_BIND({sig=[3:17], ops=[{MAP, flags=SPARSE, addr=0, range=0x1000}]}) = "
        "-1 ENOSPC (No space left on device)",
    ),
    (
        bind(*[op("unmap", at * PAGE, PAGE) for at in range(6)]),
        "VM_BIND({ops=[{UNMAP, addr=0, range=0x1000}, {UNMAP, addr=0x1000, range=0x1000}, "
        "{UNMAP, addr=0x2000, range=0x1000}, {UNMAP, addr=0x3000, range=0x1000}, ... 2 more]}) = 0",
    ),
    (
        {**execute(2, PAGE), "pushes": [{"va": PAGE, "va_len": 16, "flags": 1}]},
        "EXEC({channel=2, push=[{va=0x1000, va_len=0x10, flags=NO_PREFETCH}]}) = 0",
    ),
    (call("exec"), "EXEC({channel=?, push=[]}) = 0"),
    (call("channel_alloc", channel=1), "CHANNEL_ALLOC({} => {channel=1}) = 0"),
    (call("channel_free", channel=1), "CHANNEL_FREE({channel=1}) = 0"),
    (call("gem_info", handle=1, size=PAGE), "GEM_INFO({handle=1} => {size=0x1000}) = 0"),
    (call("gem_cpu_prep", handle=1, flags=5), "GEM_CPU_PREP({handle=1, flags=NOWAIT|WRITE}) = 0"),
    (call("gem_cpu_fini", handle=1), "GEM_CPU_FINI({handle=1}) = 0"),
    (
        call("prime_handle_to_fd", handle=1, flags=0x80002, fd=4),
        "PRIME_HANDLE_TO_FD({handle=1, flags=CLOEXEC|RDWR} => {fd=4}) = 0",
    ),
    (call("prime_fd_to_handle", handle=1, fd=4), "PRIME_FD_TO_HANDLE({fd=4} => {handle=1}) = 0"),
    (call("getparam", param=17), "GETPARAM({param=EXEC_PUSH_MAX}) = 0"),
    (call("getparam", param=4, value=0x162), "GETPARAM({param=PCI_DEVICE} => {value=0x162}) = 0"),
    (call("getparam", param=99), "GETPARAM({param=99}) = 0"),
    (call("get_cap", capability=0x13), "GET_CAP({capability=SYNCOBJ}) = 0"),
    (syncobj(3, flags=1), "SYNCOBJ_CREATE({flags=SIGNALED} => {handle=3}) = 0"),
    (call("syncobj_destroy", handle=3), "SYNCOBJ_DESTROY({handle=3}) = 0"),
    (call("syncobj_reset", handles=[3, 4]), "SYNCOBJ_RESET({handles=[3, 4]}) = 0"),
    (
        call("syncobj_timeline_wait", handles=[3, 4], points=[1, 0], flags=3),
        "SYNCOBJ_TIMELINE_WAIT({handles=[3:1, 4:0], flags=WAIT_ALL|WAIT_FOR_SUBMIT}) = 0",
    ),
    (
        call("syncobj_query", handles=[3], flags=1, points=[9]),
        "SYNCOBJ_QUERY({handles=[3], flags=LAST_SUBMITTED} => {points=[9]}) = 0",
    ),
    (
        call("syncobj_transfer", src_handle=3, dst_handle=4, src_point=0, dst_point=5, flags=0),
        "SYNCOBJ_TRANSFER({src=3, dst=4:5}) = 0",
    ),
    (
        call("syncobj_handle_to_fd", handle=3, flags=1, fd=6),
        "SYNCOBJ_HANDLE_TO_FD({handle=3, flags=EXPORT_SYNC_FILE} => {fd=6}) = 0",
    ),
    (
        call("syncobj_fd_to_handle", fd=6, flags=1, handle=3),
        "SYNCOBJ_FD_TO_HANDLE({fd=6, flags=IMPORT_SYNC_FILE, handle=3}) = 0",
    ),
    (call("syncobj_fd_to_handle", fd=6, handle=3), "SYNCOBJ_FD_TO_HANDLE({fd=6} => {handle=3}) = 0"),
    (call("syncobj_eventfd", handle=3, point=2), "SYNCOBJ_EVENTFD({handle=3:2}) = 0"),
    (call("syncobj_wait"), "SYNCOBJ_WAIT({handles=?}) = 0"),
    (call("version"), "VERSION() = 0"),
    (call("close"), "close() = 0"),
]


@pytest.mark.parametrize(("one", "text"), LINES, ids=[text for _, text in LINES])
def test_a_line(one: Call, text: str) -> None:
    assert call_text(record(one)) == text


def test_every_call_of_a_recording_has_a_line() -> None:
    for name in FIELDS:  # of the others, a line is above
        assert name.upper() in call_text(record(call(name))).upper()


def test_long_lists_in_full() -> None:
    one = record(bind(*[op("unmap", at * PAGE, PAGE) for at in range(6)]))
    assert "more" not in call_text(one, full=True)
    assert call_text(one, full=True).count("UNMAP") == 6


def test_names_are_of_their_time() -> None:
    calls = (
        vm_init(),
        gem_new(5),
        gem_close(5),
        gem_new(5),
        gem_new(5, client=2),
        syncobj(5),
        execute(1, signals=[binary(5)]),
        gem_close(5),
    )
    with trace_of(*calls) as trace:
        names = TraceNames(trace)
        lines = [dump_line(one, names) for one in trace.records()]
    assert "handle=5<object 2>" in lines[1]
    assert lines[2] == "[call 3] client 1  GEM_CLOSE({handle=5<object 2>}) = 0"
    assert "handle=5<object 4>" in lines[3]
    assert lines[4].startswith("[call 5] client 2  GEM_NEW")
    assert "handle=5<object 5>" in lines[4]
    assert "sig=[5<syncobj 6>]" in lines[6]
    assert "handle=5<object 4>" in lines[7]


def test_names_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the order of the calls: what is read ahead, passed over and looked up again is the same."""
    monkeypatch.setattr("gpuvm.report.names._AHEAD", 3)
    random = Random(7)
    calls: list[Call] = [vm_init(), vm_init(client=2)]
    held: set[tuple[int, int]] = set()
    for _ in range(60):
        key = client, handle = random.randint(1, 2), random.randint(1, 4)
        calls.append((gem_close if key in held else gem_new)(handle, client=client))
        held ^= {key}
    with trace_of(*calls) as trace:
        names, records = TraceNames(trace), list(trace.records())
        lines = [dump_line(one, names) for one in records]
        assert any(line.count("<object ") for line in lines if "GEM_CLOSE" in line)
        for _ in range(5):
            random.shuffle(records)
            names = TraceNames(trace)
            assert all(dump_line(one, names) == lines[one.line - 1] for one in records)


def test_names_of_nothing() -> None:
    with trace_of(vm_init(), gem_new(5), gem_close(5), {**gem_close(5), "ret": -22}, gem_close(7)) as trace:
        names = TraceNames(trace)
        assert [call_text(one, names) for one in trace.records(first=4)] == [
            "GEM_CLOSE({handle=5}) = -1 EINVAL (Invalid argument)",
            "GEM_CLOSE({handle=7}) = 0",
        ]


def test_flags_and_results() -> None:
    assert flag_names(0, {1: "A"}) == "0x0"
    assert flag_names(3, {1: "A"}) == "A|0x2"
    assert result_text(-4000) == "-1 4000 (Unknown error 4000)"
