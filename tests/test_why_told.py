"""What `gpuvm why` says of the histories that people ask about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpuvm.report.history_reader import history_of
from gpuvm.report.verdict import Verdict, verdict
from gpuvm.report.why import why_text
from gpuvm.trace import database
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from trace_scenes import records_of_lines, trace_of
from tracefile import PAGE, Call, bind, call, gem_new, op, vm_init

ADDR = 0x40000
US = 1000
READ = 0
SETUP = (
    vm_init(),
    gem_new(5, size=4 * PAGE, domain=4),
    call("channel_alloc", channel=1),
    bind(op("map", ADDR, 4 * PAGE, 5)),
)
MAP = 4
"""The number of SETUP's last call."""


WHILE_IT_WAS_USED = """\
0x40000 of client 1

  unmapped by call 6 (vm_bind), 1 us after call 5 (exec on channel 1) was queued, which reads it and had not
  ended: it came 42 us too late, and faulted

history of [0x40000, 0x41000), 4 KiB that no bind ever told apart
      0.000002 s  call 2 gem_new                makes object 2 (handle 5): 16 KiB in GART
      0.000004 s  call 4 vm_bind                maps byte 0x0 of object 2 (handle 5); [0x40000, 0x44000)
      0.000005 s  call 5 exec on channel 1      is queued; ended 44 us later
      0.000006 s  call 6 vm_bind                unmaps it from [0x40000, 0x44000); [0x41000, 0x44000) is left
>     0.000048 s  call 5 exec on channel 1      faults: read of 0x40000 by the copy engine, use after unmap

around it after call 6
> 0x40000                     nothing is mapped
  0x41000            12 KiB  begins 0x1000 behind       object 2 (handle 5) from +0x1000, call 6
"""


def exec_() -> Call:
    return call("exec", channel=1, waits=[], signals=[], pushes=[])


def recorded(*calls: Call, then: Callable[[Writer], None]) -> Trace:
    """A trace whose call N began N us after it began, and took one; ``then`` adds what engines did."""
    db = database.create_temporary()
    writer = Writer(db)
    for i, record in enumerate(
        records_of_lines(*({**one, "t": i * US} for i, one in enumerate(calls, 1))), 1
    ):
        writer.call(record, US, map_handle=0x1000 if record.call == "gem_new" else None)
        if record.call == "exec":
            writer.queued(i, 7, i, "channel 1", i * US)
    then(writer)
    writer.finish()
    writer.check()
    database.register_functions(db)
    return Trace("trace", Form.SQLITE, db)


def fault(writer: Writer, t: int, exec_: int, addr: int, cause: str = "USE_AFTER_UNMAP") -> None:
    writer.faulted(t * US, 1, 1, exec_, addr, "READ", "PTE", cause, "copy", None, None, "{}")


def said(trace: Trace, addr: int = ADDR, at: int | None = None) -> Verdict:
    with trace:
        return verdict(history_of(trace.db, 1, addr, at))


def test_unmapped_while_it_was_used() -> None:
    def then(writer: Writer) -> None:
        writer.started(7, 5, 5 * US)
        fault(writer, 48, 5, ADDR)
        writer.done(7, 5, 49 * US, 19)

    calls = (*SETUP, exec_(), bind(op("unmap", ADDR, PAGE)))
    trace = recorded(*calls, then=then)
    history = history_of(trace.db, 1, ADDR)
    text = why_text(history)
    assert said(trace, ADDR + 0x10) == Verdict(
        "unmapped by call 6 (vm_bind), 1 us after call 5 (exec on channel 1) was queued, which reads it and "
        "had not ended: it came 42 us too late, and faulted",
        (5, 6),
    )
    assert text == WHILE_IT_WAS_USED


def test_used_after_it_was_unmapped() -> None:
    calls = (*SETUP, bind(op("unmap", ADDR, 4 * PAGE)), vm_init(2), exec_())
    trace = recorded(*calls, then=lambda writer: fault(writer, 20, 7, ADDR))
    assert said(trace) == Verdict(
        "unmapped by call 5 (vm_bind); call 7 (exec on channel 1), queued 2 us later, reads it, and faulted",
        (5, 7),
    )


def test_past_the_end_of_an_object() -> None:
    def then(writer: Writer) -> None:
        fault(writer, 20, 5, ADDR + 4 * PAGE + 8, "OUT_OF_BOUNDS")

    assert said(recorded(*SETUP, exec_(), then=then), ADDR + 4 * PAGE) == Verdict(
        "call 5 (exec on channel 1) reads it, and faulted: out of bounds; never mapped; it is right behind "
        "what call 4 mapped of object 2 (handle 5)",
        (4, 5),
    )


@pytest.mark.parametrize("addr", [(1 << 64) - 1, 1 << 63, 0x8000_0000_0000])
def test_an_address_that_no_space_has(addr: int) -> None:
    trace = recorded(*SETUP, exec_(), then=lambda writer: fault(writer, 9, 5, addr, "OUTSIDE"))
    page = addr - addr % PAGE
    assert said(trace, page + 5) == Verdict(
        "call 5 (exec on channel 1) reads it, and faulted: outside; never mapped", (5,)
    )
    asked = bind(op("map", page, PAGE, 5), ret=-22)
    with trace_of(*SETUP, asked) as other:
        told = history_of(other.db, 1, addr)
    assert [(event.facts["first"], event.call) for event in told.events] == [(page, 5)]
    assert verdict(told).text == "outside: address spaces end at 0x800000000000"


def test_a_page_that_is_there_but_not_for_this() -> None:
    trace = recorded(*SETUP, exec_(), then=lambda writer: fault(writer, 9, 5, ADDR, "READ_ONLY"))
    assert said(trace) == Verdict(
        "call 5 (exec on channel 1) reads it, and faulted: read only; mapped by call 4 (vm_bind): it is byte "
        "0x0 of object 2 (handle 5)",
        (4, 5),
    )


@pytest.mark.parametrize(
    ("done", "text"), [(30, "; its job ran 21 us too late"), (None, "; its job had not run"), (6, "")]
)
def test_used_before_the_bind_has_run(done: int | None, text: str) -> None:
    def then(writer: Writer) -> None:
        writer.queued(4, 3, 1, "binds", 4 * US)
        if done is not None:
            writer.done(3, 1, done * US, 0)
        fault(writer, 9, 5, ADDR, "NOT_BOUND_YET")

    trace = recorded(*SETUP[:3], {**SETUP[3], "flags": 1}, exec_(), then=then)
    assert said(trace).text == (
        "call 5 (exec on channel 1) reads it, and faulted: not bound yet; mapped by call 4 (vm_bind): it is "
        f"byte 0x0 of object 2 (handle 5){text}"
    )


def test_mapped_anew_while_it_was_used() -> None:
    def then(writer: Writer) -> None:
        writer.accessed(6 * US, US, 1, 1, 6, "copy", READ, ADDR, PAGE)
        writer.accessed(9 * US, US, 1, 1, 6, "copy", READ, ADDR, PAGE)

    other, anew = gem_new(6, size=4 * PAGE, domain=4), bind(op("map", ADDR, 4 * PAGE, 6))
    assert said(recorded(*SETUP, other, exec_(), anew, then=then)) == Verdict(
        "mapped by call 7 (vm_bind): it is byte 0x0 of object 5 (handle 6); call 6 (exec on channel 1), "
        "which reads it, was queued before that and had not ended",
        (6, 7),
    )


@pytest.mark.parametrize(
    ("done", "text"), [(30, " 20 us before the bind was in the page table"), (10, ""), (None, "")]
)
def test_used_before_the_bind_was_done(done: int | None, text: str) -> None:
    def then(writer: Writer) -> None:
        writer.queued(4, 3, 1, "binds", 4 * US)
        if done is not None:
            writer.done(3, 1, done * US, 0)
        writer.accessed(10 * US, US, 1, 1, 5, "copy", READ, ADDR, PAGE)

    assert said(recorded(*SETUP[:3], {**SETUP[3], "flags": 1}, exec_(), then=then)) == Verdict(
        "mapped by call 4 (vm_bind): it is byte 0x0 of object 2 (handle 5); last used by call 5 (exec on "
        f"channel 1), which reads it{text}",
        (4, 5),
    )


def test_what_uses_it() -> None:
    def then(writer: Writer) -> None:
        for i in range(3):
            writer.accessed((10 + i) * US, US, 1, 1, 5, "copy", READ, ADDR, PAGE)
        writer.done(7, 5, 30 * US, 0)

    def ends(at: int) -> Trace:
        return recorded(*SETUP, exec_(), *[exec_()] * (at - 6), bind(op("unmap", ADDR, 4 * PAGE)), then=then)

    used = said(ends(20), at=MAP)
    assert used == Verdict(
        "mapped by call 4 (vm_bind): it is byte 0x0 of object 2 (handle 5); no engine has used it since", (4,)
    )
    assert said(ends(20), at=18) == Verdict(
        "mapped by call 4 (vm_bind): it is byte 0x0 of object 2 (handle 5); last used by call 5 (exec on "
        "channel 1), which reads it",
        (4, 5),
    )
    assert said(ends(20)) == Verdict(
        "unmapped by call 20 (vm_bind) while call 5 (exec on channel 1), which reads it, had not ended",
        (5, 20),
    )
    assert said(ends(40)) == Verdict("unmapped by call 40 (vm_bind)", (40,))


@pytest.mark.parametrize(
    ("calls", "addr", "text"),
    [
        (
            (),
            ADDR + 0x9000,
            "never mapped; it is 20 KiB past the end of what call 4 mapped of object 2 (handle 5)",
        ),
        (
            (),
            ADDR - PAGE,
            "never mapped; it is 4 KiB before the start of what call 4 mapped of object 2 (handle 5)",
        ),
        ((), ADDR + (1 << 30), "never mapped"),
        ((), 1 << 47, "outside: address spaces end at 0x800000000000"),
        (
            (),
            0x80_0000_1000,
            "in the kernel's part of the space, [0x8000000000, 0x10000000000): no bind maps anything there",
        ),
        (
            (bind(op("map", 1 << 30, PAGE, 5), ret=-12),),
            1 << 30,
            "never mapped: call 5 (vm_bind), which was to map it, was refused",
        ),
        (
            (bind(op("map", 1 << 30, PAGE, flags=0x100)),),
            1 << 30,
            "nothing was ever bound there; it is in the sparse region [0x40000000, 0x40001000) of call 5: "
            "reads give zeros",
        ),
        (
            (bind(op("map", 1 << 30, PAGE, flags=0x100)), bind(op("unmap", 1 << 30, PAGE, flags=0x100))),
            1 << 30,
            "never bound; it was in a sparse region, which call 6 (vm_bind) dropped",
        ),
        ((call("close"),), ADDR, "mapped by call 4 (vm_bind): it is byte 0x0 of object 2 (handle 5)"),
        (
            (call("close"),),
            ADDR + 4 * PAGE,
            "never mapped; it is right behind what call 4 mapped of object 2 (handle 5)",
        ),
        (
            (bind(op("unmap", ADDR, PAGE)),),
            ADDR + PAGE,
            "mapped by call 4 (vm_bind): it is byte 0x1000 of object 2 (handle 5); [0x41000, 0x44000) of "
            "that mapping is left",
        ),
    ],
)
def test_verdicts(calls: tuple[Call, ...], addr: int, text: str) -> None:
    assert said(trace_of(*SETUP, *calls), addr).text == text


def test_after_the_close() -> None:
    verdict = said(trace_of(*SETUP, call("close")), at=5)
    assert verdict == Verdict("unmapped when call 5 (close) ended the space", (5,))


def test_not_yet() -> None:
    assert said(trace_of(*SETUP), at=2) == Verdict("not mapped yet: call 4 (vm_bind) maps it later", (4,))


def test_moves_of_the_object_while_it_is_mapped() -> None:
    def then(writer: Writer) -> None:
        for t, evicted in ((1, False), (5, True), (90, True)):
            writer.moved(t * US, US, 0x1000, 4 * PAGE, "vram", "gart", evicted)

    trace = recorded(*SETUP, vm_init(2), bind(op("unmap", ADDR, 4 * PAGE)), then=then)
    with trace:
        lines = why_text(history_of(trace.db, 1, ADDR)).splitlines()
    moved = [line for line in lines if "moves" in line]
    assert moved == [
        "      0.000005 s  driver                        moves object 2 from VRAM to GART, to make room"
    ]


def test_what_binds_did_to_page_tables_and_when() -> None:
    def then(writer: Writer) -> None:
        writer.queued(4, 3, 1, "binds", 4 * US)
        writer.done(3, 1, 9 * US, 0)
        writer.page_work(4, 4, 0, 1, 0)

    trace = recorded(*SETUP[:3], {**SETUP[3], "flags": 1}, then=then)
    with trace:
        text = " ".join(why_text(history_of(trace.db, 1, ADDR)).split())
    assert "[0x40000, 0x44000); in the page table 5 us later; page table: 4 written" in text


def test_the_same_bytes_again_and_an_access_of_no_known_call() -> None:
    def then(writer: Writer) -> None:
        writer.accessed(9 * US, US, 1, 1, None, "host", READ, ADDR, 4)

    with recorded(*SETUP, bind(op("map", ADDR, 4 * PAGE, 5)), then=then) as trace:
        history = history_of(trace.db, 1, ADDR)
    text = why_text(history)
    assert "call 5 vm_bind                unmaps object 2 (handle 5), for the same bytes again\n" in text
    assert "  0.000009 s  exec on channel 1             reads it, by the host engine\n" in text
    assert verdict(history).text.endswith("(handle 5); no engine has used it since")


def test_many_events_are_folded() -> None:
    again = [bind(op("unmap", ADDR, PAGE)), bind(op("map", ADDR, PAGE, 5))]
    with trace_of(*SETUP, *again * 500) as trace:
        history = history_of(trace.db, 1, ADDR)
        folded, whole = why_text(history), why_text(history, everything=True)
        middle = why_text(history_of(trace.db, 1, ADDR, 500))
    assert len(whole.splitlines()) > 1002
    shown = len(history.events) - (len(whole.splitlines()) - len(folded.splitlines()) + 1)
    assert f"    ... {1002 - shown:,} more, --all shows them: 497 mapped, 497 unmapped" in folded.splitlines()
    assert "--all" not in whole
    assert middle.count("--all shows them") == 2
    assert "call 500 " in middle
