"""Signals while a call lasts: their handlers run in time, and calls restart, or end, as the kernel's do."""

from __future__ import annotations

import signal

import pytest

from caught_program import CaughtProgram
from compiled import compiled, needs_cc
from running import both_modes, gpuvm_run
from toys import INSIST, WAIT, Toys

pytestmark = needs_cc


def run(*argv: str) -> Toys:
    toys = Toys()
    with CaughtProgram([compiled(argv[0]), *argv[1:]], toys) as program:
        toys.looks = lambda: program.server.statistics().watcher.looks
        assert program.finish() == (0, "")
    return toys


def test_a_handler_runs_in_a_long_wait_and_the_call_is_repeated() -> None:
    toys = run("waits", "restart")
    assert toys.calls[WAIT] == 2
    assert toys.interrupted == 1


def test_without_restart_the_call_ends_with_eintr() -> None:
    toys = run("waits", "no-restart")
    assert toys.calls[WAIT] == 1


def test_a_handler_makes_calls_and_is_interrupted_itself() -> None:
    toys = run("waits", "nested")
    assert toys.interrupted == 2


def test_signals_of_no_effect_end_no_wait() -> None:
    toys = run("waits", "of-no-effect")
    assert toys.calls[WAIT] == 1
    assert toys.interrupted == 0


def test_what_no_signal_may_end_is_begun_once_and_ends() -> None:
    toys = run("waits", "insist")
    assert toys.calls[INSIST] == 1


@pytest.mark.parametrize("mode", ["timer", "timer-restart"])
def test_a_signal_every_millisecond(mode: str) -> None:
    run("waits", mode)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_a_process_stops_and_goes_on_while_it_waits(number: int) -> None:
    toys = run("waits", "stop", str(int(number)))
    assert toys.calls[WAIT] == 4  # once, and after each of three stops


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT])
def test_who_is_killed_in_a_wait_keeps_no_thread_of_ours(number: int) -> None:
    toys = run("waits", "die", str(int(number)))
    assert toys.interrupted == 1


@pytest.mark.parametrize("restart", ["restart", "end"])
@pytest.mark.parametrize("sent", ["directed", "process", "process-by-thread"])
def test_threads_that_all_wait(sent: str, restart: str) -> None:
    run("thread_waits", sent, restart)


@pytest.mark.parametrize("mode", ["blocked", "one-taker", "somebody-idle", "stop", "exec"])
def test_threads_of_which_some_wait(mode: str) -> None:
    run("thread_waits", mode)


@both_modes
@pytest.mark.parametrize("what", ["restart", "end", "kill"])
def test_waits_of_the_driver(mode: tuple[str, ...], what: str) -> None:
    ran = gpuvm_run(compiled("fence_waits"), what, options=mode)
    assert ran.status == 0, ran
    assert "1 SYNCOBJ_SIGNAL" in ran.report["calls"]
    if what == "restart":
        assert "2 SYNCOBJ_WAIT" in ran.report["calls"]
