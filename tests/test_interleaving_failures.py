"""What is told of a run that fails."""

from __future__ import annotations

import re
from _thread import allocate_lock
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import (
    Deadlock,
    Interleaving,
    Livelock,
    Pct,
    RandomWalk,
    Replay,
    Stuck,
    explore,
    replay,
    sample,
)
from interleaved import pause, pending_fence


def deadlock_scene(run: Interleaving) -> None:
    mutex = Mutex("the-mutex")
    fence = pending_fence()

    def wait_inside() -> None:
        with mutex:
            fence.wait()

    def take() -> None:
        fence_after = pending_fence()
        assert not fence_after.wait(1.0)
        with mutex:
            fence.signal()

    run.spawn(wait_inside, name="waits")
    run.spawn(take, name="takes")


def test_a_deadlock_is_told() -> None:
    with pytest.raises(Deadlock) as caught:
        replay(deadlock_scene, Pct(4, depth=1))
    report = str(caught.value)
    assert report.startswith("nobody can go on\n  at step ")
    assert "2000000000 ns" in report  # the clock begins at one second
    assert re.search(r'thread 0 "waits", holds <Mutex \'the-mutex\' locked>, sleeps at\n', report)
    waits = r", holds no lock, waits for <Mutex 'the-mutex' locked>"
    assert re.search(rf'thread 1 "takes"{waits}, sleeps at\n', report)
    assert "in wait_inside\n" in report
    assert "fence.wait()" in report
    assert "in take\n" in report
    assert "testing/interleaving.py" not in report
    assert "threading.py" not in report
    assert "last switches, of" in report
    assert re.search(
        r"step \d+: waits at test_interleaving_failures.py:\d+ .*wait_inside, in \S+ -> takes", report
    )
    assert caught.value.__notes__ == ["  repeat: replay(deadlock_scene, Pct(4, depth=1, steps=200))"]
    with pytest.raises(Deadlock) as again:
        eval(caught.value.__notes__[0].split("repeat:")[1])
    assert str(again.value) == report


def test_a_recorded_schedule_repeats_a_deadlock() -> None:
    run = Interleaving(Pct(4, depth=1))

    def play() -> None:
        with run:
            deadlock_scene(run)
            run.run()

    with pytest.raises(Deadlock) as caught:
        play()
    assert caught.value.__notes__ == ["  repeat: Interleaving(Pct(4, depth=1, steps=200))"]
    with pytest.raises(Deadlock) as again:
        replay(deadlock_scene, Replay(run.schedule))
    assert str(again.value) == str(caught.value)


def test_files_are_told_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = Path(__file__)
    for directory, shown in ((here.parent, here.name), (tmp_path, str(here))):
        monkeypatch.chdir(directory)
        with pytest.raises(Deadlock) as caught:
            replay(deadlock_scene, 1)
        assert f'      File "{shown}", line ' in str(caught.value)


def test_who_holds_and_who_waits_is_told_as_it_was() -> None:
    """Not as it became while the threads were unwound, which lets go of one lock after the other."""
    first, second, owners = Mutex("first"), Mutex("second"), Mutex("owners")

    def holds_first() -> None:
        with first:
            never = pending_fence()
            never.wait()

    def holds_second() -> None:
        with second, first:
            pass

    def scene(run: Interleaving) -> None:
        with owners:
            for function in (holds_first, holds_second, second.lock, owners.lock):
                run.spawn(function)
            run.run()

    with pytest.raises(Deadlock) as caught:
        replay(scene, Replay([]))
    told = re.findall(
        r"^  (?:thread \d|the owner).*?(holds .*?)(?:, sleeps at)?$", str(caught.value), re.MULTILINE
    )
    assert told == [
        "holds <Mutex 'first' locked>",
        "holds <Mutex 'second' locked>, waits for <Mutex 'first' locked>",
        "holds no lock, waits for <Mutex 'second' locked>",
        "holds no lock, waits for <Mutex 'owners' locked>",
        "holds <Mutex 'owners' locked>",
    ]


def test_without_the_validator_a_deadlock_tells_nothing_of_locks() -> None:
    lockdep.disable()
    with pytest.raises(Deadlock, match=r'thread 0 "waits", sleeps at'):
        replay(deadlock_scene, 1)


def test_a_failure_names_thread_seed_and_step() -> None:
    def scene(run: Interleaving) -> None:
        def fail() -> None:
            pause(3)
            raise ValueError("planted")

        run.spawn(pause, 50)
        run.spawn(fail, name="failing")

    with pytest.raises(ValueError, match="planted") as caught:
        sample(scene, range(5, 10))
    notes = "\n".join(caught.value.__notes__)
    assert re.search(r'in thread 1 "failing" at step \d+, 1000000000 ns', notes)
    assert re.findall("repeat: .*", notes) == ["repeat: replay(scene, RandomWalk(5))"]
    assert "after 0 runs without failure" in notes


def counting_scene(run: Interleaving) -> Callable[[], None]:
    count = [0]

    def add() -> None:
        seen = count[0]
        pause()
        count[0] = seen + 1

    run.spawn(add)
    run.spawn(add)

    def check() -> None:
        assert count == [2], f"lost, {run.schedule}"

    return check


@pytest.mark.parametrize(
    "search", [lambda: sample(counting_scene, range(100)), lambda: explore(counting_scene)]
)
def test_the_line_to_repeat_repeats(search: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="lost") as found:
        search()
    line = next(note for note in found.value.__notes__ if "replay(" in note)
    with pytest.raises(AssertionError, match="lost") as again:
        eval(line.split("repeat:")[1])
    assert str(again.value) == str(found.value)


def test_the_first_failure_counts_and_stops_the_run() -> None:
    went_on = []

    def fail(number: int) -> None:
        if number == 0:
            raise KeyError(number)
        pause(1000)
        went_on.append(number)

    def scene(run: Interleaving) -> None:
        for number in range(3):
            run.spawn(fail, number)

    with pytest.raises(KeyError) as caught:
        replay(scene, RandomWalk(1))
    assert not went_on
    assert re.search(r"at step \d\d?,", "\n".join(caught.value.__notes__))


def one_thread(function: Callable[[], None]) -> Callable[[Interleaving], None]:
    def scene(run: Interleaving) -> None:
        run.spawn(function)

    return scene


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_any_exception_of_a_thread_is_raised(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("planted")

    with pytest.raises(error, match="planted"):
        replay(one_thread(fail), 1)


def test_a_worker_that_fails_fails_the_run() -> None:
    def fail() -> None:
        raise ValueError("planted")

    def starts() -> None:
        task.start("worker", fail).join()

    with pytest.raises(ValueError, match="planted") as caught:
        replay(one_thread(starts), 1)
    assert 'in thread 1 "worker"' in "\n".join(caught.value.__notes__)


def test_what_a_callback_raises_fails_the_run() -> None:
    def scene(run: Interleaving) -> None:
        fence = pending_fence()

        def fail(_fence: Fence) -> None:
            raise ValueError("planted")

        fence.add_callback(fail)
        run.spawn(fence.signal, name="signals")

    with pytest.raises(ValueError, match="planted") as caught:
        replay(scene, 1)
    assert 'in thread 0 "signals"' in "\n".join(caught.value.__notes__)


def test_a_lock_that_is_never_let_go_is_a_failure() -> None:
    with pytest.raises(LockdepError, match="the-lock"):
        replay(one_thread(Mutex("the-lock").lock), 1)


def test_failing_in_the_block_unwinds_too() -> None:
    ended = []

    def waits() -> None:
        try:
            never = pending_fence()
            never.wait()
        finally:
            ended.append(1)

    def scene(run: Interleaving) -> None:
        worker = task.start("worker", waits)
        run.run()
        run.spawn(worker.join)
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted") as caught:
        replay(scene, 1)
    assert ended == [1]
    assert task.preempt is None
    assert caught.value.__notes__ == ["  repeat: replay(scene, RandomWalk(1))"]


def test_polling_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interleaving, "STEPS", 500)

    def poll() -> None:
        while True:
            pause()

    with pytest.raises(Livelock, match="no end after 500 steps") as caught:
        replay(one_thread(poll), 1)
    assert 'thread 0 "poll-0", holds no lock, could go on at\n' in str(caught.value)


def test_blocking_elsewhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interleaving, "PATIENCE", 0.05)
    closed = allocate_lock()
    closed.acquire()
    ended = []

    def blocks() -> None:
        with closed:
            ended.append("blocks")

    def waits() -> None:
        try:
            never = pending_fence()
            never.wait()
        finally:
            ended.append("waits")

    os_threads: list[Thread | None] = []

    def scene(run: Interleaving) -> None:
        run.spawn(waits)
        os_threads.append(run.spawn(blocks).os_thread)

    with pytest.raises(Stuck, match=r'thread 1 "blocks-1" did not reach a place') as caught:
        replay(scene, Replay([0]))
    assert "with closed:" in str(caught.value)
    assert ended == ["waits"]
    closed.release()
    assert os_threads[0] is not None
    os_threads[0].join()
    assert ended == ["waits", "blocks"]
