"""What people read of a fault."""

from __future__ import annotations

from typing import Any

import pytest

from fault_scene import KERNEL, Client, map_at, scene, sparse_at, unmap_at
from gpuvm.mem.aperture import Domain
from gpuvm.mmu.translation import Access, Fault, FaultType
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.engine.fault import EngineFault
from gpuvm.nouveau.fault import Cause, FaultReport, Neighbour, ObjectState
from gpuvm.nouveau.history import Touch
from gpuvm.report.fault import diagnosis, fault_text
from gpuvm.va import Region

MIB = 1 << 20
AT = 0x3F_FFF0_0000
LOW = 0x3F_C000_0000
MS = 1_000_000

VERTICES = ObjectState("vertices", 7, MIB, Domain.VRAM, swapped=False, shared=False)
IMAGE = ObjectState("image", 0, 4 * MIB, Domain.GART, swapped=False, shared=False)
SHARED = ObjectState("image", 9, 4 * MIB, Domain.GART, swapped=True, shared=True)

MAPPED = Touch(4, 0, 1, OpCode.MAP, False, AT, MIB, 7, 0x2000, 1_000 * MS, False, True)
UNMAPPED = Touch(12, 3, 5, OpCode.UNMAP, False, AT, MIB, 0, 0, 5_000 * MS, True, True)


def report(**changes: Any) -> FaultReport:
    """A use after an unmap, or what ``changes`` make of it."""
    fields: dict[str, Any] = {
        "chip": "TU102",
        "client": "game",
        "channel": 2,
        "engine": "copy",
        "class_": 0xC5B5,
        "method": 0x300,
        "error": "",
        "addr": AT + 0x1040,
        "access": Access.READ,
        "reason": FaultType.PTE,
        "level": "SPT",
        "word": 0,
        "time": 5_004 * MS + 100_000,
        "cause": Cause.USE_AFTER_UNMAP,
        "before": Neighbour(AT - 0x10000, 0x8000, 0x9040, VERTICES, 0x2000, 0, invalidated=False),
        "here": None,
        "after": Neighbour(AT + 4 * MIB, 4 * MIB, 4 * MIB - 0x1040, SHARED, 0, 0, invalidated=True),
        "region": Region(AT - 16 * MIB, 64 * MIB, sparse=True),
        "history": (UNMAPPED, MAPPED),
        "unmapped": UNMAPPED,
        "mapped": MAPPED,
        "oldest": 1,
        "object": VERTICES,
    }
    return FaultReport(**(fields | changes))


def test_the_whole() -> None:
    assert fault_text(report()) == (
        """\
GPU page fault: copy engine, read of 0x3f_fff0_1040

  diagnosis use after unmap: bind #12 op 3 unmapped it 4.1 ms before; it was byte 0x3040 of handle
            7, mapped by bind #4 op 0
  channel   2 of client "game" on TU102, dead now
  method    TURING_DMA_COPY_A LAUNCH_DMA (c5b5, 0300)
  reason    PTE, SPT entry 0x0
  object    what has that handle now: "vertices" (handle 7), 1 MiB in VRAM
  time      5.004100 s of the monotonic clock

around the address
  0x3f_ffef_0000        32 KiB  ends 0x9040 bytes before      "vertices" (handle 7) from +0x2000
> 0x3f_fff0_1040                 nothing is mapped
  0x40_0030_0000         4 MiB  begins 0x3fefc0 bytes after   "image" (handle 9) from +0x0, no entries
  in a sparse region, [0x3f_fef0_0000, 0x40_02f0_0000)

binds that touched it, newest first
  bind #12 op 3  UNMAP [0x3f_fff0_0000, 0x40_0000_0000), async, 4.1 ms before
  bind #4 op 0   MAP [0x3f_fff0_0000, 0x40_0000_0000) handle 7 +0x2000, sync, 4 s before

what to do
  Unmap later, or use it earlier: let the bind wait for a sync object that the work signals. If the
  work came after the unmap, look for what still keeps the address: a descriptor, a pointer in a
  buffer, a recorded command buffer.
"""
    )


NEXT_TO = Neighbour(AT, 0x1000, 0x40, VERTICES, 0, 0, invalidated=False)
HERE = Neighbour(AT, MIB, 0, IMAGE, 0, 0, invalidated=True)
AREA = Neighbour(KERNEL[0], KERNEL[1], 0, None, 0, 0, invalidated=False)
AGAIN = Touch(14, 0, 1, OpCode.UNMAP, False, AT, MIB, 0, 0, 5_001 * MS, True, True)
LATE = Touch(9, 1, 2, OpCode.MAP, False, AT, MIB, 3, 0, 5_000 * MS, True, False)
SPARSE = Touch(4, 0, 1, OpCode.MAP, True, AT, MIB, 0, 0, 0, False, True)
ALONE: dict[str, Any] = {
    "history": (),
    "unmapped": None,
    "mapped": None,
    "before": None,
    "after": None,
    "object": None,
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"object": None}, "it was byte 0x3040 of handle 7 (closed since), mapped by bind #4 op 0"),
        (
            {"mapped": None, "oldest": 11, "object": None},
            "what had mapped it came before bind #11, the first that is known",
        ),
        ({"history": (AGAIN, UNMAPPED, MAPPED)}, "bind #12 op 3 unmapped it 4.1 ms before"),
        ({"mapped": SPARSE}, "it was in the sparse region that bind #4 op 0 had made"),
        (
            ALONE | {"cause": Cause.OUT_OF_BOUNDS, "before": NEXT_TO},
            '0x40 bytes past the end of "vertices" (handle 7), and nothing was ever mapped there',
        ),
        (
            ALONE | {"cause": Cause.OUT_OF_BOUNDS, "after": NEXT_TO, "oldest": 3},
            '0x40 bytes before the start of "vertices" (handle 7), and nothing was ever mapped there since '
            "bind #3, the first that is known",
        ),
        (
            {"cause": Cause.EVICTED, "here": HERE, "object": IMAGE},
            '"image" (all handles closed) was moved to GART, and not validated since',
        ),
        ({"cause": Cause.NOT_BOUND_YET, "history": (LATE,)}, "bind #9 op 1 maps it, but its job has not run"),
        ({"cause": Cause.KERNEL_AREA, "here": AREA}, "[0x40_0000_0000, 0x80_0000_0000) is the kernel's"),
        (ALONE | {"cause": Cause.NEVER_MAPPED}, "no bind mapped it, and no object is near"),
        (ALONE | {"cause": Cause.METHOD_REFUSED, "error": "ILLEGAL_CLASS", "addr": None}, "ILLEGAL_CLASS"),
    ],
)
def test_diagnoses(changes: dict[str, Any], told: str) -> None:
    one = report(**changes)
    assert told in diagnosis(one)
    assert told in " ".join(fault_text(one).split())


def plausible(cause: Cause) -> dict[str, Any]:
    """What there is at least, if this is the cause."""
    match cause:
        case Cause.USE_AFTER_UNMAP:
            return {"history": (UNMAPPED,), "unmapped": UNMAPPED}
        case Cause.OUT_OF_BOUNDS:
            return {"before": NEXT_TO}
        case Cause.EVICTED:
            return {"here": HERE}
        case Cause.NOT_BOUND_YET:
            return {"history": (LATE,)}
        case Cause.KERNEL_AREA:
            return {"here": AREA}
        case Cause.METHOD_REFUSED:
            return {"addr": None, "access": None, "reason": None, "level": None, "error": "ILLEGAL_CLASS"}
    return {}


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_told(cause: Cause) -> None:
    one = report(cause=cause, **ALONE | plausible(cause))
    text = fault_text(one)
    assert f"diagnosis {cause}: " in text
    assert text.endswith(".\n")
    assert "None" not in text


def test_kinds_and_states() -> None:
    text = fault_text(report(cause=Cause.READ_ONLY, here=HERE, object=SHARED))
    assert '"image" (handle 9), 4 MiB in GART, swapped out, shared' in text
    tiled = Neighbour(AT, MIB, 0, VERTICES, 0, 0xDB, invalidated=False)
    assert '"vertices" (handle 7) from +0x0, kind 0xdb' in fault_text(report(before=tiled))


def test_distances() -> None:
    touching = Neighbour(AT, 0x1000, 0, VERTICES, 0, 0, invalidated=False)
    one = report(**ALONE | {"cause": Cause.OUT_OF_BOUNDS, "before": touching})
    assert 'the first byte past the end of "vertices"' in diagnosis(one)
    assert "ends right before" in fault_text(one)
    one = report(**ALONE | {"cause": Cause.OUT_OF_BOUNDS, "after": Neighbour(
        AT + 0x1041, 0x1000, 1, VERTICES, 0, 0, invalidated=False)})  # fmt: skip
    assert "1 byte before the start" in diagnosis(one)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (999, "999 ns"), (4_100, "4.1 us"), (2_500_000, "2.5 ms"), (90 * 10**9, "90 s")],
)
def test_times(nanoseconds: int, text: str) -> None:
    one = report(time=UNMAPPED.time + nanoseconds)
    assert f"unmapped it {text} before" in diagnosis(one)


def test_a_bind_that_came_after_the_report_was_timed() -> None:
    assert "0 ns before" in diagnosis(report(time=UNMAPPED.time - 5))


def test_the_push_buffer_itself() -> None:
    text = fault_text(report(engine="host", class_=0xC46F, method=0))
    assert "GPU page fault: host engine, read of" in text
    assert "none, the push buffer was being read by TURING_CHANNEL_GPFIFO_A" in text


def test_what_mapped_and_unmapped_it_is_shown_even_if_the_list_is_cut() -> None:
    text = fault_text(report(history=(AGAIN,)))
    assert text.count("bind #4 op 0") == 2
    assert text.count("bind #12 op 3") == 2


def test_reports_of_real_faults_fit_a_terminal() -> None:
    with scene() as client:
        handle = client.new("texture")
        client.bind(sparse_at(LOW, 8 * MIB), map_at(LOW + 2 * MIB, MIB, handle))
        client.bind(map_at(LOW + 16 * MIB, MIB, handle))
        client.bind(unmap_at(LOW + 16 * MIB, MIB), map_at(LOW + 24 * MIB, MIB, handle))
        lines = _text(client, LOW + 16 * MIB).splitlines()
        assert max(map(len, lines)) <= 100
        assert len(lines) <= 30


def _text(client: Client, addr: int) -> str:
    return fault_text(client.report(EngineFault("copy", 0xC5B5, 0x300, Fault(
        addr, FaultType.PTE, "SPT", 0, Access.READ))))  # fmt: skip
