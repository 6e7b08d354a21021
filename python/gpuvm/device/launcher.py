"""The process that becomes the program: it makes its own surroundings, has its calls caught, and executes.

It is fresh and has one thread, since only such a process may enter a user namespace. What it is told comes
by a socket; the program's words are its own arguments, and the program's environment is its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import socket
from collections.abc import Sequence
from typing import Final, NoReturn

from gpuvm.device import linux, mounts, namespaces, seccomp
from gpuvm.device.plan import GO, MARK, Failed, Filtered, Plan, Ready
from gpuvm.device.step import StepFailed, taking
from gpuvm.device.tree import Bind, Directory
from gpuvm.errors import GpuvmError, InvalidArgument, NotFound, NotSupported, PermissionDenied

NOT_STARTED: Final = 125
"""Status of this process where there was no program; who started it knows why."""
_IGNORED_FOR_US: Final = (signal.SIGPIPE, signal.SIGXFSZ, 32, 33)
"""By the interpreter, and by ``posix_spawn`` of the GNU C library, which uses the last two itself."""
LONGEST_MESSAGE: Final = 1 << 17

_FROM_OUTSIDE: Final = Directory({name: Bind(f"/{name}") for name in ("dev", "proc", "sys")})
"""What a program's own root directory has of the machine's."""


def main(channel_number: int, words: list[bytes], *, interruptible: bool) -> NoReturn:
    """Become the program ``words``, as the other end of the socket ``channel_number`` says.

    SIGINT is blocked until here; ``interruptible``: it was not before.
    """
    signal.signal(signal.SIGINT, _former(signal.SIGINT))
    if interruptible:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    channel = socket.socket(fileno=channel_number)
    channel.set_inheritable(False)
    environment = _environment()
    try:
        _surround_and_filter(channel)
        _execute(words, environment)
    except StepFailed as failure:
        _tell(channel, Failed(NotSupported(f"the program was not started: {failure}", failure.code)))
    except GpuvmError as error:
        _tell(channel, Failed(error))
    except OSError as error:
        what = error.strerror if error.filename is None else f"{error.filename!r}: {error.strerror}"
        told = f"the program was not started: {what}; see whether a `ulimit` is in the way"
        _tell(channel, Failed(NotSupported(told, error.errno)))
    os._exit(NOT_STARTED)


def _surround_and_filter(channel: socket.socket) -> None:
    plan: Plan = pickle.loads(channel.recv(LONGEST_MESSAGE))
    namespaces.enter(users=plan.users)
    private = mounts.private_directory()
    grafts = _lay(plan)
    if plan.users:
        linux.keep_capabilities(())
    with taking("prctl(PR_SET_NO_NEW_PRIVS)", "Linux 3.5", "update the kernel"):
        linux.no_new_privileges()
    mark = ctypes.create_string_buffer(MARK)
    ready = Ready(tuple(grafts.nodes), frozenset(grafts.devices), ctypes.addressof(mark))
    descriptors = [private, *grafts.nodes.values()]
    if grafts.multiplexer is not None:
        descriptors.append(grafts.multiplexer)
    _tell(channel, ready, descriptors)
    for fd in descriptors:
        os.close(fd)
    if channel.recv(len(GO)) != GO:
        os._exit(NOT_STARTED)  # whoever started us changed his mind, and is gone
    listener = seccomp.install(plan.rules)
    _tell(channel, Filtered(), [listener])
    os.close(listener)


def _lay(plan: Plan) -> mounts.Grafts:
    """All that the program is to see."""
    grafts = mounts.Grafts(real_nodes=plan.real_nodes)
    umask = os.umask(0)
    top = _opened_directory(b"/")
    root = grafts.lay(top, plan.trees)
    if plan.root is not None:
        os.close(root)
        place = _opened_root(plan.root)
        with mounts.mounting("open_tree and move_mount"):
            tree = linux.clone_tree(place, b"")
            linux.move_mount(tree, place, b"")
        root = grafts.lay(tree, _FROM_OUTSIDE)
    if not os.path.samestat(os.fstat(root), os.fstat(top)):
        with taking("pivot_root", "a root that is no initial ramfs", "start it from a root on a file system"):
            linux.change_root(root)
    os.umask(umask)
    return grafts


def _opened_root(path: bytes) -> int:
    try:
        return _opened_directory(path)
    except OSError as error:
        name = os.fsdecode(path)
        raise InvalidArgument(f"{name!r} is no root directory: {error.strerror}; pass one", name) from error


def _opened_directory(path: bytes) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _execute(words: list[bytes], environment: dict[bytes, bytes]) -> None:
    """Never returns.

    Raises:
        NotFound: there is no such file.
        PermissionDenied: the kernel does not execute it; ``value`` is the errno.
    """
    for number in _IGNORED_FOR_US:
        linux.reset_signal(number)
    name = os.fsdecode(words[0])
    failure: OSError | None = None
    for file in _candidates(words[0], environment):
        try:
            os.execve(file, words, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = error
            if error.errno != errno.EACCES:  # else another one of that name may be better
                break
    if failure is None:
        raise NotFound(f"there is no program {name!r}; pass a path, or the name of one in PATH", name)
    raise PermissionDenied(f"{name!r} cannot be executed: {failure.strerror}", failure.errno)


def _candidates(word: bytes, environment: dict[bytes, bytes]) -> list[bytes]:
    """Files that a shell would try."""
    if not word:
        return []
    if b"/" in word:
        return [word]
    path = environment.get(b"PATH", os.fsencode(os.defpath))
    return [os.path.join(directory, word) for directory in path.split(b":")]


def _environment() -> dict[bytes, bytes]:
    """What this process was given, before the interpreter added to it."""
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0"))
        return {name: value for name, equals, value in pairs if name and equals}


def _former(number: signal.Signals) -> signal.Handlers:
    ignored = signal.getsignal(number) is signal.SIG_IGN
    return signal.SIG_IGN if ignored else signal.SIG_DFL


def _tell(
    channel: socket.socket, message: Ready | Filtered | Failed, descriptors: Sequence[int] = ()
) -> None:
    socket.send_fds(channel, [pickle.dumps(message)], descriptors)
