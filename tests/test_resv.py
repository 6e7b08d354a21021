"""`Resv`: slots before fences, which fence takes which one's place, who waits for whom."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from actors import actors
from contention import in_real_threads
from gpuvm.errors import CheckFailed, InvalidArgument, LockdepError, OutOfMemory
from gpuvm.sync import lockdep, task
from gpuvm.sync.container import FenceArray, FenceChain
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.sync.resv import Resv, ResvStatistics, Usage, refuse_reservation
from gpuvm.testing import Interleaving
from resvs import each_usage, listed, pending, put, with_fence
from suite import scaled


class TestUsage:
    def test_order(self) -> None:
        assert Usage.KERNEL < Usage.WRITE < Usage.READ < Usage.BOOKKEEP
        assert [int(usage) for usage in Usage] == [0, 1, 2, 3]

    def test_rw(self) -> None:
        assert Usage.rw(True) is Usage.READ, "a writer waits for readers and writers"
        assert Usage.rw(False) is Usage.WRITE, "a reader waits for writers only"


class TestSlots:
    def test_adding_without(self) -> None:
        resv, fence = Resv("bo"), pending()
        with resv:
            with pytest.raises(InvalidArgument, match=r'add_fence: no free slot in "bo".* reserve_fences'):
                resv.add_fence(fence, Usage.READ)
            resv.check()
        assert resv.fences(Usage.BOOKKEEP) == []

    def test_as_many_as_reserved(self) -> None:
        resv = Resv()
        with resv:
            resv.reserve_fences(2)
            assert resv.statistics().reserved == 2
            resv.add_fence(pending(), Usage.READ)
            resv.add_fence(pending(), Usage.READ)
            assert resv.statistics().reserved == 0
            with pytest.raises(InvalidArgument):
                resv.add_fence(pending(), Usage.READ)
            assert len(resv.fences(Usage.READ)) == 2
            for fence in resv.fences(Usage.READ):
                fence.signal()

    def test_reserving_again_does_not_add_up(self) -> None:
        resv = Resv()
        with resv:
            resv.reserve_fences(2)
            resv.reserve_fences(1)
            resv.reserve_fences(2)
            assert resv.statistics().reserved == 2

    def test_forgotten_at_unlock(self) -> None:
        resv = Resv()
        with resv:
            resv.reserve_fences(3)
        resv.check()
        with resv, pytest.raises(InvalidArgument, match="no free slot"):
            resv.add_fence(pending(), Usage.READ)

    def test_an_unlock_that_is_refused_forgets_nothing(self) -> None:
        with actors("holder", "stranger") as [holder, stranger]:
            resv, fence = Resv(), stub_fence()
            holder.do(resv.lock)
            holder.do(resv.reserve_fences, 1)
            assert isinstance(stranger.do(resv.unlock).error, InvalidArgument)
            assert holder.do(resv.add_fence, fence, Usage.READ).result is None
            holder.do(resv.unlock)

    @pytest.mark.parametrize("count", [0, -1])
    def test_fewer_than_one(self, count: int) -> None:
        resv = Resv()
        with resv, pytest.raises(InvalidArgument, match="reserve at least 1") as caught:
            resv.reserve_fences(count)
        assert (caught.value.errno, caught.value.value, caught.value.bound) == (errno.EINVAL, count, 1)

    def test_signalled_ones_make_room(self) -> None:
        resv = Resv()
        for _ in range(200):
            with resv:
                resv.reserve_fences(1)
                fence = pending()
                resv.add_fence(fence, Usage.READ)
                fence.signal()
            assert resv.statistics().fences <= 8
            resv.check()

    def test_refused_for_fault_injection(self) -> None:
        resv = Resv()
        with refuse_reservation(1), resv:
            resv.reserve_fences(1)
            with pytest.raises(OutOfMemory):
                resv.reserve_fences(5)
            assert resv.statistics().reserved == 1
            resv.reserve_fences(5)
            assert resv.statistics().reserved == 5
        with resv:
            resv.reserve_fences(1)

    @pytest.mark.parametrize(
        "change",
        [
            lambda resv: resv.reserve_fences(1),
            lambda resv: resv.add_fence(stub_fence(), Usage.READ),
            lambda resv: resv.replace_fences(1, stub_fence(), Usage.READ),
            lambda resv: resv.copy_fences(Resv()),
        ],
        ids=["reserve", "add", "replace", "copy"],
    )
    def test_changes_need_the_lock(self, change: Callable[[Resv], None]) -> None:
        with pytest.raises(LockdepError, match="assert_held"):
            change(Resv())


class TestReplacement:
    """Which fence takes which one's place."""

    @each_usage
    def test_later_of_its_context(self, usage: Usage) -> None:
        context = fence_context_alloc()
        old, new = pending(context, 1), pending(context, 2)
        resv, _ = with_fence(usage, old)
        put(resv, (new, usage))
        assert listed(resv) == [(new, usage)]

    @each_usage
    def test_needs_no_slot(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        with resv:
            resv.add_fence(fence, usage)
        assert listed(resv) == [(fence, usage)]

    @pytest.mark.parametrize("old", list(Usage))
    @pytest.mark.parametrize("new", list(Usage))
    def test_promoted_and_never_made_weaker(self, old: Usage, new: Usage) -> None:
        resv, fence = with_fence(old)
        put(resv, (fence, new))
        if new <= old:
            assert listed(resv) == [(fence, new)]
        else:
            assert listed(resv) == [(fence, old), (fence, new)]
        assert resv.fences(old) != []

    @each_usage
    def test_earlier_of_its_context_stands_beside(self, usage: Usage) -> None:
        context = fence_context_alloc()
        old, new = pending(context, 2), pending(context, 1)
        resv, _ = with_fence(usage, old)
        put(resv, (new, usage))
        assert listed(resv) == [(old, usage), (new, usage)]

    def test_of_another_context_stands_beside(self) -> None:
        resv, first = with_fence(Usage.READ)
        second = pending()
        put(resv, (second, Usage.READ))
        assert resv.fences(Usage.READ) == [first, second]

    @each_usage
    def test_signalled_of_any_context_and_usage(self, usage: Usage) -> None:
        resv, old = with_fence(Usage.KERNEL)
        old.signal()
        new = pending()
        with resv:
            resv.add_fence(new, usage)
        assert listed(resv) == [(new, usage)]

    def test_container_refused(self) -> None:
        fence = pending()
        chain = FenceChain(None, pending(), 1)
        for container in (FenceArray([fence], fence_context_alloc(), 1), chain):
            resv, inside = with_fence(Usage.READ)
            with resv:
                resv.reserve_fences(1)
                with pytest.raises(InvalidArgument, match=r"add_fence: .* container; .* unwrap"):
                    resv.add_fence(container, Usage.READ)
                with pytest.raises(InvalidArgument, match=r"replace_fences: .* container"):
                    resv.replace_fences(inside.context, container, Usage.READ)
                resv.check()
            assert listed(resv) == [(inside, Usage.READ)]

    def test_replace_fences(self) -> None:
        context, other = fence_context_alloc(), pending()
        resv = Resv()
        first, second, replacement = pending(context, 2), pending(context, 1), pending()
        put(resv, (first, Usage.BOOKKEEP), (other, Usage.READ), (second, Usage.BOOKKEEP))
        with resv:
            resv.replace_fences(context, replacement, Usage.KERNEL)
            resv.replace_fences(fence_context_alloc(), stub_fence(), Usage.KERNEL)
        taken = (replacement, Usage.KERNEL)
        assert listed(resv) == [taken, (other, Usage.READ), taken]

    def test_copy_fences(self) -> None:
        source, copy = Resv(), Resv()
        done, kept = pending(), pending()
        put(source, (done, Usage.WRITE), (kept, Usage.BOOKKEEP))
        put(copy, (pending(), Usage.READ))
        done.signal()
        with copy:
            copy.copy_fences(source)
            copy.check()
        assert listed(copy) == [(kept, Usage.BOOKKEEP)]
        put(source, (pending(), Usage.READ))
        assert len(copy.fences(Usage.BOOKKEEP)) == 1, "what comes later is not copied"


class TestWaiting:
    @each_usage
    def test_for_what_it_asks_for(self, usage: Usage) -> None:
        resv = Resv()
        fences = {each: pending() for each in Usage}
        put(resv, *((fence, each) for each, fence in fences.items()))
        with Interleaving(0) as run:
            waiting = run.spawn(lambda: resv.wait(usage))
            for each in Usage:
                run.advance(1)
                assert waiting.ended == (usage < each)
                run.spawn(fences[each].signal).join()
                waiting_ends = usage <= each
                if waiting_ends:
                    waiting.join()
            run.run()
            assert waiting.result is True

    def test_timeout(self) -> None:
        resv, fence = with_fence(Usage.READ)
        second = pending()
        put(resv, (second, Usage.READ))
        with Interleaving(0) as run:
            begin = run.now()

            def wait() -> tuple[bool, int]:
                return resv.wait(Usage.READ, timeout=2.0), task.now() - begin

            def signal_one() -> None:
                task.Waiter().wait(begin + task.NSEC_PER_SEC)
                fence.signal()

            waiting = run.spawn(wait)
            run.spawn(signal_one)
            run.run()
            assert waiting.result == (False, 2 * task.NSEC_PER_SEC), "in all, not for each fence"

    def test_polling(self) -> None:
        resv, fence = with_fence(Usage.READ)
        assert not resv.wait(Usage.READ, timeout=0)
        assert resv.wait(Usage.WRITE, timeout=0)
        fence.signal()
        assert resv.wait(Usage.READ, timeout=0)

    def test_interrupted(self) -> None:
        with actors("sleeper") as [sleeper]:
            resv, fence = with_fence(Usage.READ)
            assert sleeper.do(resv.wait, Usage.READ, interruptible=True).asleep
            sleeper.thread.task.interrupt()
            task.Waiter().wait(task.now() + 1)
            assert type(sleeper.error).__name__ == "Interrupted"
            assert fence.statistics().callbacks == 0

    @each_usage
    def test_deadline(self, usage: Usage) -> None:
        resv = Resv()
        fences = {each: pending() for each in Usage}
        put(resv, *((fence, each) for each, fence in fences.items()))
        resv.set_deadline(usage, 17)
        assert [fences[each].deadline for each in Usage] == [17 if each <= usage else None for each in Usage]


class TestItself:
    def test_statistics(self) -> None:
        resv, fence = with_fence(Usage.READ)
        done = pending()
        put(resv, (done, Usage.READ))
        done.signal()
        with resv:
            resv.reserve_fences(2)
            assert resv.statistics() == ResvStatistics("resv", True, 0, 0, fences=2, pending=1, reserved=2)
        assert resv.statistics() == ResvStatistics("resv", False, 0, 0, fences=2, pending=1, reserved=0)
        fence.signal()

    def test_check_finds_slots_left_over(self) -> None:
        resv = Resv()
        resv._slots = 1
        with pytest.raises(CheckFailed, match="1 slots"):
            resv.check()

    def test_check_finds_a_container(self) -> None:
        resv = Resv()
        resv._entries.append((FenceArray([pending()], fence_context_alloc(), 1), Usage.READ))
        with pytest.raises(CheckFailed):
            resv.check()

    def test_not_inside_a_fence_signalling_section(self) -> None:
        with lockdep.fence_signalling(1), pytest.raises(LockdepError):
            Resv().lock()


def test_real_threads_add_and_look() -> None:
    """Whoever looks without the lock never misses a fence: it finds that or a later one until it is done."""
    resv = Resv()
    contexts = [fence_context_alloc() for _ in range(3)]
    rounds = scaled(200, 10_000)

    def work(number: int) -> None:
        if number >= len(contexts):
            before: list[Fence] = []
            for _ in range(rounds):
                found = resv.fences(Usage.BOOKKEEP)
                for old in before:
                    later = [new for new in found if new.context == old.context and not old.is_later(new)]
                    assert later or old.signalled
                resv.statistics()
                before = found
            return
        last = stub_fence()
        for seqno in range(1, rounds + 1):
            fence = pending(contexts[number], seqno)
            put(resv, (fence, Usage(seqno % 2)))
            put(resv, (fence, Usage.KERNEL))
            if not last.signalled:
                last.signal()
            last = fence
        last.signal()

    in_real_threads(len(contexts) + 2, work)
    resv.check()
    assert resv.test_signalled(Usage.BOOKKEEP)
