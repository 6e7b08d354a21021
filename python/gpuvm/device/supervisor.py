"""Supervisor: runs a program on the virtual device, from its start to the end of all that it started."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from gpuvm.device import caught, filesystem, linux, seccomp
from gpuvm.device.attendant import Attendant
from gpuvm.device.linux import Capability
from gpuvm.device.plan import Plan
from gpuvm.device.server import ServerStatistics
from gpuvm.device.service import Service
from gpuvm.device.starting import Started, start
from gpuvm.device.tally import Make, Tally, TallyStatistics
from gpuvm.errors import CheckFailed, GpuvmError, NotSupported
from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.chipset import chip_of
from gpuvm.nouveau.watcher import Watcher

if TYPE_CHECKING:
    from gpuvm.nouveau.fault import FaultReport

_PR_SET_CHILD_SUBREAPER: Final = 36
_KEPT: Final = (Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH, Capability.KILL)
"""To look into programs under us that have become other users, and to pass signals on to one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What device, and how the program finds it."""

    chipset: int = 0x162
    vram: int = 8 << 30
    """Bytes."""
    root: str | None = None
    """The program's root directory; None: the machine's."""
    userns: bool = False
    """In a user namespace, also if we are root."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a program, and what it did."""

    argv: tuple[str, ...]
    options: Options
    status: int
    """As ``waitpid`` has it."""
    chip: str
    tally: TallyStatistics
    bytes_evicted: int
    """Moved by the driver to make room, or back."""
    faults: tuple[FaultReport, ...]
    """The last ones."""
    faults_total: int
    cut_off: int
    """How often a program cut off the file that all objects lie in, and lost what others had there."""
    server: ServerStatistics

    @property
    def returncode(self) -> int:
        """The exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(self.status)

    @property
    def core_dumped(self) -> bool:
        """Whether the program left a core file."""
        return os.WIFSIGNALED(self.status) and os.WCOREDUMP(self.status)


def run(
    argv: Sequence[str],
    options: Options,
    *,
    tell: Callable[[str], None],
    make: Make = Client.drm_ioctl,
    watcher: Watcher | None = None,
) -> RunResult:
    """Run a program, and serve it and whatever it starts until the last of them has ended.

    It takes this process over: its signals, its children, its rights, of which it keeps few. So it can be
    called once, in the main thread of a process that is there for nothing else.

    Args:
        argv: the program and its arguments; the name is looked for as a shell does.
        tell: prints a line for the user.
        make: makes the driver's calls: a recorder, perhaps.
        watcher: of the device: the same, perhaps.

    Raises:
        NotFound: there is no such program.
        PermissionDenied: the kernel does not execute it.
        NotSupported: the kernel, or its settings, lack something; the message says what.
        Interrupted: a signal came before there was a program; ``value`` is its number.
        GpuvmError: as ``Device``.
    """
    linux.require_this_machine()
    with Attendant(tell) as attendant:
        as_root = os.geteuid() == 0 and not options.userns
        started = _start(argv, options, as_root)
        _give_up_rights()
        tally = Tally(make, tell)
        # Signals are blocked in the threads that are made here; the main thread gets them.
        with _or_no_program(started), _signals_blocked():
            started.try_rights()
            device = Device(
                chipset=options.chipset,
                vram=options.vram,
                objects=started.directory,
                name="gpuvm",
                watcher=watcher,
            )
            service = Service(device, started, tally=tally, by_path=not as_root, tell=tell)
            service.start()
        failure = _failure(started)
        status = attendant.attend(started.pid, service.nobody_left)
        result = partial(_result, argv, options, status, device, service)
        if attendant.dismissed:
            return result()  # what is left goes with this process
        _close(service, tell)
        if failure is not None:
            raise failure
        return result()


def _start(argv: Sequence[str], options: Options, as_root: bool) -> Started:
    """The process that will be the program; it waits."""
    plan = Plan(
        filesystem.files(chip_of(options.chipset)),
        None if options.root is None else os.fsencode(options.root),
        users=not as_root,
        real_nodes=as_root,
        rules=seccomp.program(caught.rules(paths_are_stated=not as_root)),
    )
    return start([os.fsencode(word) for word in argv], plan)


def _give_up_rights() -> None:
    """Whatever happens from now on, it happens to a process that can do little."""
    linux.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    linux.keep_capabilities(_KEPT)
    linux.no_new_privileges()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _or_no_program(started: Started) -> Iterator[None]:
    """Whatever fails within, the program never begins, or ends at once."""
    try:
        yield
    except BaseException as error:
        started.abandon()
        if isinstance(error, GpuvmError) or not isinstance(error, (OSError, RuntimeError)):
            raise
        reason = getattr(error, "strerror", None) or error  # a thread that cannot be started has no errno
        raise NotSupported(
            f"the device could not be set up: {reason}; look at `ulimit -n` (open files), `ulimit -u` "
            "(threads) and `ulimit -f` (size of files)"
        ) from error


def _failure(started: Started) -> GpuvmError | None:
    """Why there is no program; None once it runs."""
    try:
        started.wait_until_executed()
    except GpuvmError as error:
        return error
    return None


def _close(service: Service, tell: Callable[[str], None]) -> None:
    """What goes wrong here changes nothing for the program."""
    try:
        service.close()
    except (CheckFailed, GpuvmError, OSError) as error:
        tell(f"the device was not in order at the end: {error}")


def _result(
    argv: Sequence[str], options: Options, status: int, device: Device, service: Service
) -> RunResult:
    counts = service.statistics()
    return RunResult(
        tuple(argv),
        options,
        status,
        device.chip.name,
        counts.tally,
        counts.device.memory.bytes_moved,
        tuple(device.faults),
        counts.device.faults,
        device.mem.object_file.statistics().cut_off,
        counts.server,
    )
