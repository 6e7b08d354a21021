"""The words that PushBuffer makes, against those that were worked out by hand from NVIDIA's documents."""

from __future__ import annotations

import pytest

from gpuvm.nouveau import PushBuffer

DST, SRC = 0x5_1234_5678, 0x1FFFF_0000_0000


def words(push: PushBuffer) -> list[str]:
    return [f"{word:08x}" for word in push.words]


# A header: what kind of sequence << 29 | count << 16 | subchannel << 13 | method >> 2.
MADE: dict[str, tuple[PushBuffer, str]] = {
    "inc": (PushBuffer().inc(4, 0x400, 1, 2), "20028100 00000001 00000002"),
    "non_inc": (PushBuffer().non_inc(2, 0x1B4, 7, 8), "6002406d 00000007 00000008"),
    "one_inc": (PushBuffer().one_inc(0, 0x3800, 7, 8), "a0020e00 00000007 00000008"),
    "immediate": (PushBuffer().immediate(1, 0x110, 0x1FFF), "9fff2044"),
    "raw": (PushBuffer().raw([-1, 1 << 32]), "ffffffff 00000000"),
    # OFFSET_IN 400, OFFSET_OUT 408; LINE_LENGTH_IN 418, LINE_COUNT 41c; LAUNCH_DMA 300: non-pipelined, flush,
    # source and target by pitch, several lines.
    "copy": (
        PushBuffer().copy(DST, SRC, 5),
        "20048100 0001ffff 00000000 00000005 12345678 20028106 00000005 00000001 838680c0",
    ),
    # SET_REMAP_CONST_A, B, COMPONENTS 700: four bytes of constant A to one component; LAUNCH_DMA: remapped.
    "fill": (
        PushBuffer().fill(DST, 0x1000, 0xAABBCCDD),
        "200381c0 aabbccdd 00000000 00034444 20028102 00000005 12345678 20028106 00000400 00000001 858680c0",
    ),
    # SEMAPHOREA to D 10: acquire with switch; release without the time.
    "acquire": (PushBuffer().acquire(DST, 9), "20040004 00000005 12345678 00000009 00001001"),
    "acquire at least": (PushBuffer().acquire(DST, 9, 4), "20040004 00000005 12345678 00000009 00001004"),
    "release": (PushBuffer().release(DST, 9), "20040004 00000005 12345678 00000009 01000002"),
    # SET_REPORT_SEMAPHORE_A to D 1b00: a report of four words from the end of the pipeline, of nothing.
    "timestamp": (PushBuffer().timestamp(DST), "200406c0 00000005 12345678 00000000 0000f002"),
}


@pytest.mark.parametrize(("push", "expected"), MADE.values(), ids=MADE)
def test_words(push: PushBuffer, expected: str) -> None:
    assert words(push) == expected.split()
    assert len(bytes(push)) == len(push) == 4 * len(push.words)


def test_copies_are_split_as_nvk_does() -> None:
    push = PushBuffer().copy(DST, SRC, (1 << 18) + 3)
    launches = [push.words[at : at + 9] for at in range(0, len(push.words), 9)]
    assert [launch[6] for launch in launches] == [1 << 17, 1 << 17, 3]
    assert [launch[2] for launch in launches] == [0, 1 << 17, 1 << 18]
    assert [launch[4] for launch in launches] == [0x12345678 + done for done in (0, 1 << 17, 1 << 18)]


def test_nothing_is_copied_by_no_words() -> None:
    assert words(PushBuffer().copy(DST, SRC, 0)) == []
