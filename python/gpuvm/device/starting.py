"""Starting a program below the device: the side of whoever serves it."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import gpuvm
from gpuvm.device import linux
from gpuvm.device.launcher import LONGEST_MESSAGE
from gpuvm.device.plan import GO, MARK, Failed, Filtered, Plan, Ready
from gpuvm.device.step import StepFailed, taking
from gpuvm.device.tree import NodeName
from gpuvm.errors import GpuvmError, Interrupted, InvalidArgument, NotSupported
from gpuvm.nouveau.uapi.user_memory import UserMemory

_COERCED: Final = ("C.UTF-8", "C.utf8", "UTF-8")
_T = TypeVar("_T", Ready, Filtered)


class Started:
    """A process that waits to become a program. ``go`` lets it.

    Attributes:
        pid: of the process, a child of ours that somebody has to wait for; the program will have it.
        directory: a descriptor of a file system that no path leads to.
        nodes: descriptors (``O_PATH``) of the nodes that the program sees.
        multiplexer: a descriptor (``O_PATH``) of ``/dev/ptmx``, if programs cannot open that themselves.
        sysfs: devices of the file systems that stand for sysfs, as ``st_dev``.

    Locking: one thread, but for ``wait_until_executed``.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid: Final = pid
        self._channel: Final = channel
        ready, descriptors = _hear(channel, Ready)
        self.directory: Final = descriptors[0]
        self.nodes: Final[Mapping[NodeName, int]] = dict(zip(ready.nodes, descriptors[1:], strict=False))
        self.multiplexer: Final = next(iter(descriptors[1 + len(ready.nodes) :]), None)
        self.sysfs: Final = ready.devices
        self._mark: Final = ready.mark

    def try_rights(self) -> None:
        """What serving a program takes: say what is missing before there is one.

        Call it with no more rights than there will be.

        Raises:
            NotSupported: the kernel, or the machine's settings, refuse something.
        """
        if os.readlink("/proc/self") != str(os.getpid()):
            raise NotSupported(
                "the program was not started: /proc is that of another pid namespace; mount this one's"
            )
        with _trying("openat2", "Linux 5.6", "see whether a container forbids it"):
            os.close(linux.openat2(linux.AT_FDCWD, b"/", os.O_PATH, linux.Resolve.IN_ROOT))
        tracing = "the right to trace our own children (CAP_SYS_PTRACE if they are root's)"
        yama = (
            "see the sysctl kernel.yama.ptrace_scope, which must not be 3, and 2 for root only; in a "
            "container without that capability pass --userns"
        )
        with _trying("process_vm_readv", f"{tracing}, and CONFIG_CROSS_MEMORY_ATTACH", yama):
            try:
                UserMemory(self.pid).read(self._mark, len(MARK))
            except GpuvmError as error:
                raise OSError(error.code, error.strerror) from error
        with _trying("pidfd_getfd", f"{tracing}, and Linux 5.6", yama):
            pidfd = os.pidfd_open(self.pid)
            try:
                os.close(linux.pidfd_getfd(pidfd, 0))
            except OSError as error:
                if error.errno != errno.EBADF:  # whoever started us may have closed it
                    raise
            finally:
                os.close(pidfd)

    def go(self) -> int:
        """Have its calls caught from now on.

        Returns:
            The listener. It must be served, or the program does not get far.

        Raises:
            NotSupported: the kernel refuses.
        """
        _send(self._channel, GO)
        return _hear(self._channel, Filtered)[1][0]

    def wait_until_executed(self) -> None:
        """Sleep until the program runs.

        Raises:
            NotFound: there is no such program.
            PermissionDenied: the kernel does not execute it; ``value`` is its errno.
        """
        message, _ = _receive(self._channel)
        self._channel.close()
        if isinstance(message, Failed):
            raise message.error

    def abandon(self) -> None:
        """There will be no program: close the descriptors, end the process.

        Raises:
            Interrupted: a signal has ended it already; ``value`` is its number.
        """
        self._channel.close()
        for fd in (self.directory, *self.nodes.values(), self.multiplexer):
            if fd is not None:
                os.close(fd)
        _end(self.pid)


def start(words: Sequence[bytes], plan: Plan, environment: Mapping[str, str] | None = None) -> Started:
    """Prepare a process that will be the program ``words``.

    It has this process's descriptors, but those that are closed at exec.

    Args:
        environment: of the program; None: what this process was given.

    Raises:
        NotSupported: the kernel or the machine's settings refuse something; the message says what.
        Interrupted: a signal ended the process; ``value`` is its number.
        InvalidArgument: no words.
    """
    if not words:
        raise InvalidArgument("start: no program; pass its name and its arguments", words)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        # -P: the directory that the program is started in says nothing about modules.
        above = str(Path(gpuvm.__file__).parent.parent)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        code = (
            f"import sys; sys.path.append({above!r}); from gpuvm.device.launcher import main; import os; "
            "main(int(sys.argv[1]), [*map(os.fsencode, sys.argv[2:])], "
            f"interruptible={signal.SIGINT not in blocked})"
        )
        arguments: list[str | bytes] = [sys.executable, "-P", "-c", code, str(theirs.fileno()), *words]
        given = given_environment() if environment is None else environment
        try:
            # The interpreter would tell of Ctrl-C at length.
            pid = os.posix_spawn(sys.executable, arguments, given, setsigmask=[*blocked, signal.SIGINT])
        except OSError as error:
            ours.close()
            raise NotSupported(
                f"the program was not started: execve of {sys.executable}, which prepares it, failed: "
                f"{error.strerror}; whoever runs this must be able to execute it",
                error.errno,
            ) from error
    try:
        _send(ours, pickle.dumps(plan))
        return Started(pid, ours)
    except BaseException:
        ours.close()
        _end(pid)
        raise


def _end(pid: int) -> None:
    """End a child.

    Raises:
        Interrupted: a signal has done so already.
    """
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        number = os.WTERMSIG(status)
        raise Interrupted(f"the program was not started: {signal.strsignal(number)}", number)


def given_environment() -> dict[str, str]:
    """This process's, less what the interpreter added to it (PEP 538)."""
    environment = dict(os.environ)
    if (
        environment.get("LC_CTYPE") in _COERCED
        and b"LC_CTYPE=" not in Path("/proc/self/environ").read_bytes()
    ):
        del environment["LC_CTYPE"]
    return environment


def _send(channel: socket.socket, data: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # what is received next is the end
        channel.send(data)


def _receive(channel: socket.socket) -> tuple[object, list[int]]:
    """A message, None if the other end is closed, and descriptors."""
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, LONGEST_MESSAGE, 16)
    except ConnectionResetError:  # closed, and not all was read
        return None, []
    return (pickle.loads(data) if data else None), descriptors


def _hear(channel: socket.socket, expected: type[_T]) -> tuple[_T, list[int]]:
    message, descriptors = _receive(channel)
    if isinstance(message, expected):
        return message, descriptors
    if isinstance(message, Failed):
        raise message.error
    raise NotSupported("the program was not started: the process that was to be it has ended", message)


@contextmanager
def _trying(call: str, feature: str, remedy: str) -> Iterator[None]:
    try:
        with taking(call, feature, remedy):
            yield
    except StepFailed as failure:
        raise NotSupported(f"the program was not started: {failure}", failure.code) from failure
