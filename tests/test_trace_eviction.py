"""Replaying with little VRAM: what the policies find in place, what they move, and that no byte is lost."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuvm.mem.gem import GemObject
from gpuvm.mem.policy import Clock, Lru
from gpuvm.mmu.formats import TU102
from gpuvm.trace.errors import ReplayError
from gpuvm.trace.eviction_replay import EvictionReplay, PolicyResult, compare_policies
from gpuvm.trace.recorded import GemNew
from memory_traces import VRAM, execution, records_of, shown
from suite import scaled
from tracefile import (
    PAGE,
    SPARSE_BUFFER,
    Call,
    bind,
    gem_new,
    op,
    records_in,
    vm_init,
)

MIB = 1 << 20


def compared(vram: int, *calls: Call, policies: str = "lru", gart: int = 64 * MIB) -> list[PolicyResult]:
    records = records_of(*calls)
    return compare_policies("trace", records, policies.split(","), TU102, vram=vram, gart=gart)


def objects(count: int, size: int = MIB, **fields: int) -> list[Call]:
    """A space, and that many objects, mapped one behind the other."""
    made = [gem_new(number, size=size, **fields) for number in range(1, count + 1)]
    return [vm_init(), *made]


def maps(*numbers: int) -> list[Call]:
    return [bind(op("map", number * 4 * MIB, MIB, number)) for number in numbers]


def test_hits_and_misses_of_lru() -> None:
    # Room for three beside the page tables. 4 evicts 1, then 1 evicts 2; 4 is found.
    (lru,) = compared(4 * MIB, *objects(4), *maps(1, 2, 3, 4, 1, 4))
    assert (lru.uses, lru.first_uses, lru.hits) == (6, 4, 1)
    assert (lru.evictions, lru.moved_in, lru.moved_out) == (2, MIB, 2 * MIB)
    assert (lru.without_room, lru.stalls, lru.refused) == (0, 0, None)
    assert lru.hit_rate == 1 / 6


def test_who_knows_the_future_moves_less() -> None:
    round_ = [1, 2, 3, 4] * 5
    lru, clock, farthest = compared(4 * MIB, *objects(4), *maps(*round_), policies="lru,clock,farthest")
    assert [one.policy for one in (lru, clock, farthest)] == ["lru", "clock", "farthest"]
    assert lru.hits == 0
    assert lru.evictions == 17
    assert farthest.evictions < clock.evictions <= lru.evictions
    # Belady: after the first three, every third use is a miss.
    assert farthest.hits == 11


def test_moving_what_the_latest_call_uses_is_a_stall() -> None:
    (lru,) = compared(2 * MIB, *objects(2), *maps(1, 2, 1))
    assert (lru.evictions, lru.stalls) == (2, 2)
    (lru,) = compared(2 * MIB, *objects(3), *maps(1), bind(op("unmap", 0, PAGE)), *maps(2))
    assert (lru.evictions, lru.stalls) == (1, 0)


def test_a_push_buffer_is_brought_back_and_mapped_again() -> None:
    (lru,) = compared(2 * MIB, *objects(2), *maps(1, 2), execution(4 * MIB), execution(4 * MIB + 64))
    assert (lru.uses, lru.hits, lru.evictions) == (4, 1, 2)


def test_what_a_call_uses_together_is_used_from_gart_where_there_is_no_room() -> None:
    together = bind(op("map", 0, MIB, 1), op("map", MIB, MIB, 2))
    (lru,) = compared(2 * MIB, *objects(2), together, together)
    assert (lru.uses, lru.hits, lru.without_room, lru.refused) == (4, 1, 2, None)


def test_a_working_set_that_may_only_be_in_vram_ends_the_replay() -> None:
    together = bind(op("map", 0, MIB, 1), op("map", MIB, MIB, 2))
    lru, clock = compared(2 * MIB, *objects(2, domain=VRAM), *maps(1), together, policies="lru,clock")
    for one in (lru, clock):
        assert one.refused is not None
        assert one.refused.line == 5
        assert "the objects that this call uses do not fit together" in str(one.refused)
        assert "ENOMEM" in str(one.refused)
        assert (one.uses, one.hits) == (1, 0)


def test_an_object_that_vram_can_never_hold_belongs_in_gart() -> None:
    (lru,) = compared(MIB, *objects(1, size=2 * MIB), bind(op("map", 0, 2 * MIB, 1)), *maps(1))
    assert (lru.uses, lru.hits, lru.without_room, lru.evictions) == (2, 1, 0, 0)
    (lru,) = compared(MIB, *objects(1, size=2 * MIB, domain=VRAM), *maps(1))
    assert lru.refused is not None
    assert "ENOSPC" in str(lru.refused)


def test_a_small_gart_overflows_to_the_cpus_side() -> None:
    (lru,) = compared(2 * MIB, *objects(3), *maps(1, 2, 3, 1), gart=MIB)
    assert lru.refused is None
    # 1 to GART, which is full then, 2 and 3 out of the GPU's reach; 1 back.
    assert lru.evictions == 3
    assert (lru.moved_out, lru.moved_in) == (3 * MIB, MIB)


@pytest.mark.parametrize("policy", [Lru, Clock])
@pytest.mark.parametrize("vram", [MIB, 2 * MIB])
def test_bytes_survive_moving(vram: int, policy: type[Lru | Clock]) -> None:
    records = records_in(SPARSE_BUFFER)
    replay = EvictionReplay("trace", records, TU102, vram=vram, gart=4 * MIB, policy=policy())
    for record in records:
        replay.feed(record)
        client = replay.clients[record.client]
        if isinstance(record, GemNew):
            stamp(client.objects[record.handle], record.line)
        if record.line % scaled(8, 1) or client.vm is None:
            continue
        replay.check()
        for va in client.vm.mappings():
            if va.kernel:
                continue
            line = int(va.obj.name.rsplit(" ", 1)[1])
            assert stamps(va.obj.view) == [line] * (va.obj.size // PAGE)
            if not va.invalidated:
                assert shown(replay, client, va.addr)[1] == line % 251
                assert shown(replay, client, va.end - PAGE)[1] == line % 251
    assert replay.device.statistics().evictions > 0
    replay.clear()


def stamp(obj: GemObject, line: int) -> None:
    obj.view[::PAGE] = line % 251
    obj.view[1::PAGE] = line // 251


def stamps(view: NDArray[np.uint8]) -> list[int]:
    return [int(low) + 251 * int(high) for low, high in zip(view[::PAGE], view[1::PAGE], strict=True)]


def test_another_refusal_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(ReplayError, match="EINVAL"):
        compared(MIB, vm_init(), gem_new(1, size=PAGE), bind(op("map", 0, 2 * PAGE, 1)))
