"""The listener: calls come, answers and descriptors go, and who is gone is told apart from who is not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import caught_program
from gpuvm.device.notify import CONTINUE, Listener, Notification
from gpuvm.errors import BadFile, CheckFailed, Gone, TooManyFiles

CALL = """
import fcntl, os, resource, sys
def call(number, argument=0):
    try:
        return fcntl.ioctl(0, 0x6400 + number, argument)
    except OSError as error:
        return -error.errno
"""


@contextmanager
def caller(script: str) -> Iterator[tuple[subprocess.Popen[bytes], Listener]]:
    child, listener = caught_program.start([sys.executable, "-c", CALL + script])
    try:
        yield child, listener
    finally:
        child.kill()
        child.communicate()
        listener.close()


def received(listener: Listener) -> Notification:
    call = listener.receive()
    assert call is not None
    return call


def output(child: subprocess.Popen[bytes]) -> str:
    return child.communicate()[0].decode().strip()


def test_calls_come_with_their_arguments_and_get_their_answers() -> None:
    with caller("print(call(7, 42), call(8), call(9))") as (child, listener):
        call = received(listener)
        assert (call.pid, call.nr, call.args[:3]) == (child.pid, 16, (0, 0x6407, 42))
        assert call.ip != 0
        assert listener.answer(call.id, 12345)
        assert listener.answer(received(listener).id, -errno.EXDEV)
        assert listener.answer(received(listener).id, 0)
        assert output(child) == f"12345 {-errno.EXDEV} 0"
        assert listener.receive() is None
        assert listener.abandoned()


def test_a_call_goes_on_in_the_kernel() -> None:
    with caller("print(call(7))") as (child, listener):
        assert listener.answer(received(listener).id, CONTINUE)
        assert output(child) == str(-errno.ENOTTY)  # a pipe has no such ioctl


def test_a_file_of_ours_is_opened_there() -> None:
    script = "for _ in range(2): fd = call(1); print(os.read(fd, 9).decode(), os.get_inheritable(fd))"
    with caller(script) as (child, listener):
        for cloexec in (True, False):
            call = received(listener)
            file = os.memfd_create("ours")
            os.write(file, b"contents")
            os.lseek(file, 0, os.SEEK_SET)
            assert listener.answer(call.id, listener.add_fd(call.id, file, cloexec=cloexec))
            os.close(file)
        assert output(child).split() == ["contents", "False", "contents", "True"]


def test_the_program_has_no_descriptor_left() -> None:
    script = """
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(call(1))
"""
    with caller(script) as (child, listener):
        call = received(listener)
        with pytest.raises(TooManyFiles, match="in the program under us"):
            listener.add_fd(call.id, 2, cloexec=True)
        assert listener.answer(call.id, -errno.EMFILE)
        assert output(child) == str(-errno.EMFILE)


def test_a_descriptor_that_is_not_open_here() -> None:
    with caller("print(call(1))") as (_child, listener):
        call = received(listener)
        with pytest.raises(OSError, match="Bad file"):
            listener.add_fd(call.id, 99999, cloexec=True)
        assert listener.answer(call.id, 0)


def test_the_caller_is_gone() -> None:
    with caller("call(1)") as (child, listener):
        call = received(listener)
        assert listener.is_valid(call.id)
        child.kill()
        child.wait()
        assert not listener.is_valid(call.id)
        assert not listener.answer(call.id, 0)
        assert not listener.answer(call.id, CONTINUE)
        with pytest.raises(Gone) as gone:
            listener.add_fd(call.id, 0, cloexec=True)
        assert gone.value.errno == errno.ESRCH
        assert listener.receive() is None


def test_nobody_is_left_only_when_the_last_child_has_ended() -> None:
    script = """
if os.fork() == 0:
    os.setsid()
    call(2)
else:
    call(1)
"""
    with caller(script) as (child, listener):
        calls = {call.args[1] & 0xFF: call for call in (received(listener), received(listener))}
        assert listener.answer(calls[1].id, 0)
        child.wait()
        assert not listener.abandoned()
        assert listener.answer(calls[2].id, 0)
        listener.wait_until_abandoned()
        assert listener.abandoned()


def test_signals_for_us_are_handled_while_we_sleep() -> None:
    """The handler runs in the sleep, not after it: without it the call would not come."""
    script = "os.read(0, 1); print(call(1))"
    with caller(script) as (child, listener):
        gate = child.stdin
        assert gate is not None
        handled: list[int] = []

        def handle(number: int, _: object) -> None:
            handled.append(number)
            if len(handled) == 3:
                os.write(gate.fileno(), b"x")

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            call = received(listener)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(handled) >= 3
        assert listener.answer(call.id, 5)
        assert output(child) == "5"


def test_who_sleeps_can_be_stopped_by_an_exception() -> None:
    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with caller("os.read(0, 1)") as (_child, listener):
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            with pytest.raises(KeyboardInterrupt):
                listener.receive()
        finally:
            signal.signal(signal.SIGALRM, before)


def test_an_answer_and_the_next_call_in_one_go() -> None:
    with caller("print(call(1), call(2), call(3))") as (child, listener):
        call = received(listener)
        for value in (7, -errno.EPERM, CONTINUE):
            following = listener.answer_and_receive(call.id, value)
            if following is None:
                break
            call = following
        assert following is None
        assert output(child) == f"7 {-errno.EPERM} {-errno.ENOTTY}"
        assert listener.statistics().lost == 0


def test_the_next_call_comes_though_the_answer_is_too_late() -> None:
    with caller("if os.fork(): os.write(1, b'%d' % call(1))\nelse: call(2)") as (child, listener):
        calls = {call.args[1] & 0xFF: call for call in (received(listener), received(listener))}
        os.kill(calls[2].pid, signal.SIGKILL)
        while listener.is_valid(calls[2].id):
            os.sched_yield()
        assert not listener.answer(calls[2].id, 0)
        assert listener.answer(calls[1].id, 4)
        assert listener.answer_and_receive(calls[2].id, 0) is None
        assert listener.statistics().lost == 2
        assert output(child) == "4"


def test_a_kernel_that_cannot_wake_on_the_same_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with caller("print(call(1))") as (child, listener), monkeypatch.context() as patch:
        patch.setattr("fcntl.ioctl", ioctl)
        other = Listener(os.dup(listener.fd))
        patch.undo()
        assert not other.statistics().sync_wake_up
        assert other.answer(received(other).id, 3)
        other.close()
        assert output(child) == "3"


def test_no_listener() -> None:
    with pytest.raises(BadFile):
        Listener(99999)
    file = os.memfd_create("other")
    listener = Listener(file)
    with pytest.raises(CheckFailed, match="is no seccomp listener"):
        listener.check()
    listener.close()
    listener.close()
    assert not listener.statistics().open


def test_check_is_content_with_a_listener() -> None:
    with caller("call(1)") as (_child, listener):
        listener.check()
        assert listener.answer(received(listener).id, 0)
