"""Objects that are moved out of the way: executions bring them back, or fail and publish nothing."""

from __future__ import annotations

import errno
import os
from random import Random

import pytest

import pushbuf
from contention import strategy_of
from driver_calls import Typed
from driver_failures import SOURCES
from driver_world import (
    BIG,
    BINARY,
    GART,
    HUGE,
    MIB,
    NO_SHARE,
    PAGE,
    VRAM,
    Bo,
    Held,
    Program,
    device_of,
    ended,
    map_op,
    program_of,
    state,
    unmap_op,
)
from gpuvm.errors import OutOfMemory
from gpuvm.mem import Domain
from gpuvm.nouveau.sync import Sync
from gpuvm.sync import task
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from interleaved import sleep_until
from suite import scaled

AT, AGAIN = 16 * HUGE, 32 * HUGE
DOMAINS = {"external": VRAM, "private": VRAM | NO_SHARE, "anywhere": VRAM | GART, "system": GART}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=[*DOMAINS])


def domain_of(program: Program, bo: Bo) -> Domain:
    return program.client.handles.lookup(bo.handle).domain


@every_domain
class TestOneObject:
    def test_an_execution_brings_it_back(self, domain: int) -> None:
        with program_of() as program:
            bo = program.bo(HUGE, domain)
            program.bind(map_op(AT, HUGE, bo.handle), map_op(AGAIN, BIG, bo.handle, PAGE))
            before = program.entries(AT, AT + 2 * PAGE)
            program.evict(bo)
            assert before == "vv"
            assert program.entries(AT, AT + 2 * PAGE) == program.entries(AGAIN, AGAIN + 2 * PAGE) == "ii"
            assert program.client.vm is not None
            assert len(program.client.vm.evicted) == 1
            assert program.run() == 0
            assert program.client.vm.evicted == []
            assert program.entries(AT, AT + 2 * PAGE) == program.entries(AGAIN, AGAIN + 2 * PAGE) == "vv"
            assert program.shows(AT, bo, 0, 16 * PAGE)
            assert program.shows(AGAIN, bo, PAGE, BIG)

    def test_swapped_out(self, domain: int) -> None:
        """Evicted from there, too: to where the GPU does not reach."""
        with program_of() as program:
            bo = program.bo(HUGE, domain)
            program.bind(map_op(AT, HUGE, bo.handle))
            program.evict(bo)
            program.evict(bo)
            assert domain_of(program, bo) is Domain.CPU
            program.words(bo)[1, 1] = 99
            assert program.shows(AT, bo, 0, 16 * PAGE)
            assert program.look(AT + PAGE + 8, 1) == b"c"

    def test_unmapped_or_cut_meanwhile(self, domain: int) -> None:
        """Its entries are gone already; what is left of it comes back."""
        with program_of() as program:
            bo, other = program.bo(HUGE, domain), program.bo()
            program.bind(map_op(AT, HUGE, bo.handle), map_op(AGAIN, BIG, bo.handle))
            program.evict(bo)
            program.bind(unmap_op(AGAIN, BIG), unmap_op(AT, PAGE), map_op(AT + BIG, BIG, other.handle))
            assert program.entries(AT, AT + 2 * PAGE) == "ii"
            assert program.shows(AT + BIG, other)
            assert program.entries(AT, AT + 2 * PAGE) == "iv"
            assert program.shows(AT + PAGE, bo, PAGE, 15 * PAGE)
            assert program.shows(AT + 2 * BIG, bo, 2 * BIG, BIG)
            assert program.entry(AGAIN) == "invalid"

    def test_bound_again_while_it_is_evicted(self, domain: int) -> None:
        with program_of() as program:
            bo = program.bo(HUGE, domain)
            program.bind(map_op(AT, HUGE, bo.handle))
            program.evict(bo)
            program.bind(map_op(AGAIN, BIG, bo.handle))
            assert program.entry(AT) == program.entry(AGAIN) == "valid"
            assert program.shows(AGAIN, bo, 0, BIG)

    def test_users_are_waited_for(self, domain: int) -> None:
        """Executions that can still use it, and were not even begun."""
        for seed in range(scaled(3, 100)):
            with Interleaving(strategy_of(seed)) as run, program_of() as program:
                bo, target = program.bo(BIG, domain), program.bo()
                program.bind(map_op(AT, BIG, bo.handle), map_op(AGAIN, BIG, target.handle))
                held = program.held()
                done = program.exec(pushbuf.Push().copy(AGAIN, AT, BIG), waits=[held.sync])

                def let_go(held: Held = held) -> None:
                    sleep_until(task.now() + task.NSEC_PER_SEC)
                    held.let_go()

                run.spawn(let_go)
                run.spawn(program.evict, bo)
                run.run()
                assert ended(done) == 0
                assert program.entry(AT) == "invalid"
                assert program.words(target)[:, 0].tolist() == program.words(bo)[:, 0].tolist()


def test_everything_is_brought_back_whatever_is_executed() -> None:
    """Who knows what a push will use."""
    with program_of() as program:
        bos = [program.bo(HUGE, domain) for domain in DOMAINS.values()]
        program.bind(*(map_op(AT + index * HUGE, HUGE, bo.handle) for index, bo in enumerate(bos)))
        program.device.mem.evict_all(Domain.VRAM)
        program.device.mem.evict_all(Domain.GART)
        assert {domain_of(program, bo) for bo in bos} == {Domain.CPU}
        assert program.run() == 0
        for index, bo in enumerate(bos):
            assert program.entry(AT + index * HUGE) == "valid"
            assert program.shows(AT + index * HUGE, bo, 0, 16 * PAGE)


def test_two_programs_share_one_that_is_evicted() -> None:
    """It is gone for both, and each brings back its own mappings."""
    with device_of() as device:
        one, other = Program(device), Program(device)
        bo = one.bo()
        fd = one.client.prime_handle_to_fd(bo.handle)
        theirs = Bo(other.client.prime_fd_to_handle(fd), bo.size, bo.tag)
        os.close(fd)
        one.bind(map_op(AT, BIG, bo.handle))
        other.bind(map_op(AGAIN, BIG, theirs.handle))
        one.evict(bo)
        assert (one.entry(AT), other.entry(AGAIN)) == ("invalid", "invalid")
        assert one.shows(AT, bo)
        assert (one.entry(AT), other.entry(AGAIN)) == ("valid", "invalid")
        assert other.shows(AGAIN, theirs)


@pytest.mark.parametrize("seed", range(scaled(2, 20)))
def test_programs_take_turns(seed: int) -> None:
    """VRAM has room for the working set of one of three; nobody's bytes are lost."""
    random = Random(seed)
    with device_of(vram=12 * MIB) as device:
        programs = [Program(device) for _ in range(3)]
        bos = {program: [program.bo(2 * MIB, VRAM) for _ in range(3)] for program in programs}
        for program in programs:
            program.bind(*(map_op(AT + at * HUGE, HUGE, bo.handle) for at, bo in enumerate(bos[program])))
        for _ in range(scaled(12, 60)):
            program = random.choice(programs)
            at, bo = random.choice([*enumerate(bos[program])])
            offset = BIG * random.randrange(16)
            assert program.shows(AT + at * HUGE + offset, bo, offset, 4 * PAGE)
        assert device.mem.statistics().evictions > 3


def test_what_is_private_to_one_space_does_not_make_room() -> None:
    """Not for more of it: GEM_NEW says so, before a bind has to. Room is where somebody else can go."""
    with device_of(vram=8 * MIB, gart=8 * MIB) as device:
        one, other = Program(device), Program(device)
        bos = [one.bo(2 * MIB, VRAM | NO_SHARE) for _ in range(3)]
        one.bind(*(map_op(AT + at * HUGE, HUGE, bo.handle) for at, bo in enumerate(bos)))
        with pytest.raises(OutOfMemory):
            one.client.gem_new(4 * MIB, VRAM | NO_SHARE)
        anywhere = one.bo(4 * MIB, VRAM | GART | NO_SHARE)
        assert domain_of(one, anywhere) is Domain.GART
        theirs = other.bo(4 * MIB, VRAM | NO_SHARE)
        assert domain_of(other, theirs) is Domain.VRAM
        assert device.mem.statistics().evictions > 0
        for at, bo in enumerate(bos):
            assert one.shows(AT + at * HUGE, bo)


def test_an_object_has_its_place_when_it_is_bound() -> None:
    """Unless memory may be short: many that nobody binds then take what they are said to."""
    with program_of(vram=8 * MIB, gart=8 * MIB) as program:
        bos = [program.bo(2 * MIB, VRAM) for _ in range(6)]
        domains = [program.client.handles.lookup(bo.handle).domain for bo in bos]
        assert domains == [Domain.CPU] * 3 + [Domain.VRAM] * 3
        assert program.client.gem_new(16 * MIB, 0).handle  # of no domain, where the GPU does not reach
        with pytest.raises(OutOfMemory):
            program.client.gem_new(16 * MIB, VRAM | GART)


def test_a_submission_that_cannot_fit_is_refused() -> None:
    """Shared objects make room for each other one by one; used at once they do not fit."""
    with program_of(vram=8 * MIB, gart=8 * MIB) as program:
        bos = [program.bo(3 * MIB, VRAM | GART) for _ in range(5)]
        for at, bo in enumerate(bos):
            program.bind(map_op(AT + 2 * at * HUGE, 3 * MIB, bo.handle))
        with pytest.raises(OutOfMemory):
            program.run()
        program.bind(unmap_op(AT, 3 * MIB))
        assert program.run() == 0
        for at, bo in enumerate(bos[1:], 1):
            assert program.shows(AT + 2 * at * HUGE, bo)


@pytest.mark.parametrize("source", SOURCES)
@every_domain
def test_every_allocation_on_the_way_back(domain: int, source: str) -> None:
    """The call fails and publishes nothing; the object stays evicted until it is tried again."""
    with program_of() as program:
        bo = program.bo(HUGE, domain)
        program.bind(map_op(AT, HUGE, bo.handle), map_op(AGAIN, BIG, bo.handle, PAGE))
        pushes = [program.push(pushbuf.Push().raw([0]))]
        signals = [Sync(BINARY, program.client.syncobjs.create(0))]
        number = -1
        for number in range(0, 500, scaled(3, 1) if source == "core" else 1):
            program.evict(bo)
            before = state(program)
            with SOURCES[source](number):
                try:
                    program.client.exec(program.channel.id, pushes, (), signals)
                except OutOfMemory:
                    pass
                else:
                    break
            now = state(program)
            for name in ("fences", "syncobjs", "channels", "binds", "history", "regions"):
                assert now[name] == before[name]
        assert number < 490
        assert program.shows(AT, bo, 0, BIG)
        assert program.shows(AGAIN, bo, PAGE, BIG)


def test_too_much_for_one() -> None:
    """ENOMEM, again and again, until there is room; those that were brought back stay."""
    with device_of(vram=12 * MIB) as device:
        program = Program(device)
        bos = [program.bo(3 * MIB) for _ in range(4)]
        for at, bo in enumerate(bos):
            program.bind(map_op(AT + at * 2 * HUGE, bo.size, bo.handle))
        calls = Typed(program.client)
        for _ in range(3):
            assert calls.exec(program.channel.id) == -errno.ENOMEM
        program.bind(unmap_op(AT, HUGE))
        assert calls.exec(program.channel.id) == -errno.ENOMEM  # the other half of it is still mapped
        program.bind(unmap_op(AT, 3 * MIB))
        for at, bo in [*enumerate(bos)][1:]:
            assert program.shows(AT + at * 2 * HUGE, bo, 0, BIG)


def test_one_program_is_in_anothers_way() -> None:
    """What an execution uses is not taken from it, however much others want: they wait until it is done."""
    for seed in range(scaled(3, 100)):
        with Interleaving(strategy_of(seed)) as run, device_of(vram=12 * MIB) as device:
            one, other = Program(device), Program(device)
            mine, theirs = one.bo(8 * MIB), other.bo(8 * MIB)
            one.bind(map_op(AT, 8 * MIB, mine.handle))
            held = one.held()
            done = one.exec(pushbuf.Push().copy(AT + MIB, AT, PAGE), waits=[held.sync])

            def come(other: Program = other, theirs: Bo = theirs, done: Fence = done) -> None:
                other.bind(map_op(AT, 8 * MIB, theirs.handle))
                assert done.signalled
                assert other.shows(AT, theirs, 0, BIG)

            run.spawn(come)
            run.spawn(held.let_go)
            run.run()
            assert one.look(AT + MIB) == one.look(AT)
