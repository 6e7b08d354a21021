"""A program whose ioctls of type 'd' are carried out by a test's handlers: the transport without a driver."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from gpuvm.device import caught
from gpuvm.device.notify import Listener, Notification
from gpuvm.device.seccomp import Rule
from gpuvm.device.server import Handler, Server
from gpuvm.sync import task

IOCTLS = (Rule(caught.IOCTL, 1, 0xFF00, (ord("d") << 8,)),)

_LAUNCHER = """
import ctypes, os, socket, sys
from gpuvm.device import seccomp
rules = [seccomp.Rule(*rule) for rule in eval(sys.argv[2])]
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
listener = seccomp.install(seccomp.program(rules))
with socket.socket(fileno=int(sys.argv[1])) as to:
    socket.send_fds(to, [b"listener"], [listener])
os.execv(sys.argv[3], sys.argv[3:])
"""


def start(argv: Sequence[str], rules: Sequence[Rule] = IOCTLS) -> tuple[subprocess.Popen[bytes], Listener]:
    """A child, and the listener to its calls."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(theirs.fileno()), repr([tuple(r) for r in rules]), *argv],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        theirs.close()
        _, received, _, _ = socket.recv_fds(ours, 64, 1)
    assert received, "the launcher failed"
    os.set_inheritable(received[0], False)
    return child, Listener(received[0])


class CaughtProgram:
    """A child, and the server that serves it in a thread of this process."""

    def __init__(
        self,
        argv: Sequence[str],
        handlers: Mapping[int, Handler] | Callable[[int, int, Notification], int],
        *,
        rules: Sequence[Rule] = IOCTLS,
        most_threads: int = 1024,
    ) -> None:
        """``handlers`` by the system call's number; or one for the ioctls, given number and argument."""
        self.child, self.listener = start(argv, rules)
        if not isinstance(handlers, Mapping):
            handlers = {caught.IOCTL: by_ioctl(handlers)}
        self.server = Server(self.listener, handlers, most_threads=most_threads)
        self._thread = task.start("server", self.server.run)

    def finish(self) -> tuple[int, str]:
        """Its exit status and output, when nobody is left. The server is checked."""
        output, _ = self.child.communicate()
        self._thread.join()
        self.server.check()
        return self.child.returncode, output.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.kill()
        self.child.communicate()
        self._thread.join()
        self.listener.close()


def by_ioctl(handler: Callable[[int, int, Notification], int]) -> Handler:
    def handle(call: Notification) -> int:
        return handler(call.args[1] & 0xFF, call.args[2], call)

    return handle
