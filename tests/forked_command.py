"""A process that has imported `gpuvm run` and forks itself for each command: imports take half a second.

The command runs under the lock validator, as all tests do.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

_LONGEST = 1 << 20


class Forker:
    """Runs `gpuvm` with arguments, one command after the other."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd="/")

    def run(
        self,
        arguments: Sequence[str],
        streams: Sequence[int],
        environment: Mapping[str, str],
        cwd: Path,
        timeout: float,
    ) -> int:
        """The status, as subprocess has it. Raises TimeoutExpired; the command was killed then."""
        request = pickle.dumps((arguments, dict(environment), str(cwd)))
        socket.send_fds(self._ours, [request], streams)
        pid = int(self._ours.recv(_LONGEST))
        in_time, _, _ = select.select([self._ours], [], [], timeout)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(int(self._ours.recv(_LONGEST)))
        if not in_time:
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        return status

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


@functools.cache
def forker() -> Forker:
    made = Forker()
    atexit.register(made.close)
    return made


def _serve(channel: socket.socket) -> None:
    while True:
        request, streams, _, _ = socket.recv_fds(channel, _LONGEST, 3)
        if not request:
            return
        pid = os.fork()
        if not pid:
            channel.close()
            arguments, environment, cwd = pickle.loads(request)
            _become(arguments, environment, cwd, streams)
        for fd in streams:
            os.close(fd)
        channel.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        channel.send(str(status).encode())


def _become(arguments: list[str], environment: dict[str, str], cwd: str, streams: list[int]) -> NoReturn:
    from gpuvm.cli import main
    from gpuvm.sync import lockdep

    lockdep.enable()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    status = 1
    try:
        status = main(arguments)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    import gpuvm.device.supervisor
    import gpuvm.report.run
    import gpuvm.report.sniff
    import gpuvm.trace.recorder  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _serve(socket.socket(fileno=int(sys.argv[1])))
