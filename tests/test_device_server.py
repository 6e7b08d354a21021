"""The server: who waits delays nobody else, nothing is lost with whoever ends, and bugs are told."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from typing import Any

import pytest

from caught_program import CaughtProgram
from compiled import compiled, needs_cc
from gpuvm.device import caught
from gpuvm.device.notify import CONTINUE, Notification
from gpuvm.errors import CheckFailed, NoSpace
from gpuvm.sync import task
from suite import scaled
from toys import INSIST, WAIT, Toys

pytestmark = needs_cc


def test_a_crowd_waits_and_others_go_on() -> None:
    crowd = scaled(100, 600)
    toys = Toys()
    with CaughtProgram([compiled("crowd"), str(crowd)], toys) as program:
        assert program.finish() == (0, "")
        statistics = program.server.statistics()
    assert toys.calls[WAIT] == toys.calls[INSIST] == crowd // 2
    assert toys.counted[1] == 1000
    assert crowd < statistics.most_threads < crowd + 8
    assert statistics.threads == 0


def test_more_calls_at_once_than_threads_may_be_get_no_memory() -> None:
    toys = Toys()
    with CaughtProgram([compiled("crowd"), "20"], toys, most_threads=10) as program:
        program.child.wait()
        toys.release(2)  # what insists does not end with its caller
        status, output = program.finish()
        statistics = program.server.statistics()
    assert status == 1
    assert f"errno {errno.ENOMEM}" in output
    assert statistics.refused > 0
    assert statistics.most_threads == 10


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the storm of a program that leaves its user no process: its calls fail, the server lives on."""
    start = task.start
    allowed = ["gpuvm watcher", "gpuvm server", "gpuvm server"]

    def refuse(name: str, target: Any) -> task.Thread:
        if name.startswith("gpuvm"):
            if name not in allowed:
                raise RuntimeError("can't start new thread")
            allowed.remove(name)
        return start(name, target)

    monkeypatch.setattr(task, "start", refuse)
    toys = Toys()
    with CaughtProgram([compiled("crowd"), "5"], toys) as program:
        program.child.wait()
        toys.release(2)
        status, output = program.finish()
    assert status == 1
    assert f"errno {errno.ENOMEM}" in output


@pytest.mark.parametrize(
    ("what", "times", "counted"), [("beget", scaled(8, 200), 4), ("kill-calling", scaled(25, 1000), 1)]
)
def test_families(what: str, times: int, counted: int) -> None:
    toys = Toys()
    with CaughtProgram([compiled("families"), what, str(times)], toys) as program:
        assert program.finish() == (0, "")
    assert toys.counted[1] == counted * times


def test_the_killed_leave_no_thread_of_ours_behind() -> None:
    toys = Toys()
    with CaughtProgram([compiled("families"), "kill-waiting", "40"], toys) as program:
        assert program.finish() == (0, "")
        statistics = program.server.statistics()
    assert toys.interrupted == 40
    watcher = statistics.watcher
    assert watcher.killed + watcher.interrupts >= 40  # some are seen while they die: with a signal to handle


def test_a_child_that_outlives_the_program_is_served_to_its_end() -> None:
    toys = Toys()
    with CaughtProgram([compiled("families"), "orphan", "0"], toys) as program:
        assert program.finish() == (-signal.SIGKILL, "")
    assert toys.counted[1] == 1


def test_a_failing_handler_is_told_once_and_the_server_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: told.append(raised.exc_value))
    answers = {1: -errno.EIO, 2: -errno.ENOSPC, 3: 12345, 4: -errno.EIO}
    results: dict[int, list[int]] = {number: [] for number in answers}

    def handle(number: int, argument: int, _call: Notification) -> int:
        if number == 5:  # what the program got from number ``argument & 7``
            results[argument & 7].append(argument >> 3)
        elif number in (1, 4):
            raise KeyError(number)
        elif number == 2:
            raise NoSpace("nothing is left")
        return answers.get(number, 0)

    program = "import fcntl\n" + "".join(
        f"""
for _ in range(3):
    try:
        got = fcntl.ioctl(0, 0x6400 + {number}, 0)
    except OSError as error:
        got = error.errno
    fcntl.ioctl(0, 0x6405, got << 3 | {number})
"""
        for number in answers
    )
    with CaughtProgram([sys.executable, "-c", program], handle) as caught_program:
        assert caught_program.finish() == (0, "")
        assert caught_program.server.statistics().failures == 6
    assert results == {number: [abs(answer)] * 3 for number, answer in answers.items()}
    assert [repr(error) for error in told] == ["KeyError(1)"]


def test_what_no_handler_is_there_for_the_kernel_does() -> None:
    rules = caught.rules(paths_are_stated=True)
    with CaughtProgram([compiled("families"), "count", "1"], {}, rules=rules) as program:
        assert program.finish() == (1, "")  # an ioctl on no file
        statistics = program.server.statistics()
    assert statistics.continued == statistics.calls >= 4
    assert statistics.by_number[caught.IOCTL] == 1
    assert statistics.by_number[caught.OPENAT] >= 1


def test_a_handler_leaves_calls_to_the_kernel() -> None:
    rules = caught.rules(paths_are_stated=False)
    opened = []

    def handle(call: Notification) -> int:
        opened.append(call.nr)
        return CONTINUE

    with CaughtProgram(["/bin/cat", "/proc/self/comm"], {caught.OPENAT: handle}, rules=rules) as program:
        assert program.finish() == (0, "cat\n")
    assert opened


def test_check_sees_a_call_in_progress() -> None:
    seen: list[str] = []

    def handle(_number: int, _argument: int, _call: Notification) -> int:
        try:
            program.server.check()
        except CheckFailed as error:
            seen.append(str(error))
        return 0

    with CaughtProgram([compiled("families"), "count", "1"], handle) as program:
        assert program.finish() == (0, "")
    assert "calls in progress: [Notification(id=" in seen[0]


def test_who_sleeps_where_we_do_not_see_it_delays_nobody_for_long() -> None:
    """A handler that a program under us has sent into a page fault that never ends, for example."""
    slept = threading.Event()

    def handle(_number: int, argument: int, _call: Notification) -> int:
        if argument == 0:
            slept.wait()
        else:
            slept.set()
        return 0

    script = "import fcntl, os; raise SystemExit(fcntl.ioctl(0, 0x6401, int(os.fork() == 0)))"
    with CaughtProgram([sys.executable, "-c", script], handle) as program:
        assert program.finish() == (0, "")
        statistics = program.server.statistics()
    assert statistics.calls == 2
    assert statistics.handed_over <= 2


def test_calls_that_do_not_sleep_are_served_by_one_thread() -> None:
    toys = Toys()
    with CaughtProgram([compiled("families"), "kill-calling", "3"], toys) as program:
        assert program.finish() == (0, "")
        statistics = program.server.statistics()
    assert statistics.handed_over <= 1  # the machine may stand still for a while
    assert statistics.most_threads <= 3
