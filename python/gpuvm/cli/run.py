"""``gpuvm run``: a program on the virtual device."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from gpuvm.cli.destination import check_destination
from gpuvm.cli.options import OutputError, Verbs, add_verb, memory_size, note
from gpuvm.errors import GpuvmError, Interrupted, NotFound, PermissionDenied
from gpuvm.trace.errors import TraceError
from gpuvm.trace.source import display_name

if TYPE_CHECKING:
    from gpuvm.device.supervisor import Options, RunResult
    from gpuvm.report.run import TraceMade

_DESCRIPTION = """\
Run a program, unmodified, on a virtual NVIDIA GPU with Linux's nouveau driver.

The program, and whatever it starts, finds /dev/dri/renderD128, card0 and their entries in /sys, opens them
and talks to the driver: Mesa's NVK does. Copies, fills, binds, semaphores and timestamps are real; shaders
and draws are not executed, but counted. No kernel module and no LD_PRELOAD: the kernel hands the system
calls in question to gpuvm (seccomp user notification; Linux 5.19 or newer on x86-64).

Standard input, output and the terminal are the program's. After its end a short report goes to stderr.
As root the program stays root. Other users, and root with --userns, get a user namespace in which they are
who they were."""

EXIT_CODES = """\
exit codes: the program's own, and if a signal killed it gpuvm dies of the same one. 127 there is no such
program; 126 it cannot be executed; 125 it was not started, stderr says why: if the device could not be set
up, which call failed and what it needs; 2 wrong usage."""

EXIT_SETUP = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""As `env` and `timeout` have them."""

_EXAMPLE = """\
gpuvm run -- ./app  # what did it do to the GPU?
gpuvm run --vram 256M -- ./app --frames 10  # the same on a small one"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm run [OPTIONS] -- PROGRAM ARG...``."""
    parser = add_verb(
        verbs, "run", "run a program on the virtual device", _DESCRIPTION, EXIT_CODES, example=_EXAMPLE
    )
    add_device(parser)
    parser.add_argument("-o", "--output", metavar="TRACE", help="record the driver's calls in this new file")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing TRACE")
    add_program(parser)
    parser.set_defaults(run=run, parser=parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """What the device is, and where the program finds it."""
    parser.add_argument(
        "--chipset",
        type=chipset,
        default=0x162,
        metavar="CHIP",
        help="turing (TU102, the default), ampere (GA102), or a number such as 0x162",
    )
    parser.add_argument(
        "--vram", type=memory_size, default=8 << 30, metavar="SIZE", help="its memory: 512M, 8G (the default)"
    )
    parser.add_argument("--root", metavar="DIR", help="run the program with this directory as its root")
    parser.add_argument("--userns", action="store_true", help="use a user namespace as root, too")


def add_program(parser: argparse.ArgumentParser) -> None:
    """``-- PROGRAM ARG...``; where options end without ``--`` it begins, too."""
    parser.usage = f"{parser.prog} [OPTION...] -- PROGRAM [ARG...]"
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="PROGRAM ARG...", help="what to run, as a shell would"
    )


def program(arguments: argparse.Namespace) -> list[str]:
    """The program and its arguments; ends with wrong usage if there is none."""
    words: list[str] = arguments.program
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        parser = arguments.parser
        parser.error(f"no program; pass one after --, such as: {parser.prog} -- vulkaninfo --summary")
    return words


def chipset(text: str) -> int:
    """The number of a chip that there is; as an argument's type.

    Raises:
        ArgumentTypeError: none such.
    """
    with _without_threads():
        from gpuvm.nouveau.chipset import CHIPS

    named = {"turing": 0x162, "ampere": 0x172}
    known = ", ".join(f"{number:#x} {chip.name}" for number, chip in CHIPS.items())
    try:
        number = named[text] if text in named else int(text, 0)
    except ValueError:
        number = -1
    if number not in CHIPS:
        raise argparse.ArgumentTypeError(f"no chip {text[:40]!r}: pass turing, ampere, or one of {known}")
    return number


def options(arguments: argparse.Namespace) -> Options:
    """What `add_device` parsed."""
    with _without_threads():
        from gpuvm.device.supervisor import Options

    return Options(arguments.chipset, arguments.vram, arguments.root, arguments.userns)


def run(arguments: argparse.Namespace) -> int:
    """Run the program, print the report; the exit code is the program's."""
    words, device = program(arguments), options(arguments)
    from gpuvm.report.run import run_report

    if arguments.output is None:
        return finish(carry_out(words, device), run_report)
    return record(words, device, arguments.output, force=arguments.force)


def record(words: Sequence[str], device: Options, path: str, *, force: bool) -> int:
    """Run the program and record what it does; the exit code is the program's."""
    from gpuvm.report.run import run_report

    ended, made = recorded(words, device, path, force=force)
    return finish(ended, lambda result: run_report(result, made))


def recorded(
    words: Sequence[str], device: Options, path: str, *, force: bool
) -> tuple[RunResult | int, TraceMade | None]:
    """Run the program and record it: how it ended, and what was recorded if there was a program."""
    from gpuvm.report.run import TraceMade
    from gpuvm.trace.recording import Recording

    try:
        check_destination(path, force=force)
        recording = Recording(path, force=force)
    except TraceError as error:
        tell(f"cannot write {error.path}: {error.message}")
        return EXIT_SETUP, None
    except (GpuvmError, OSError, OutputError) as error:
        tell(str(error))
        return EXIT_SETUP, None
    with recording:
        recorder = recording.recorder
        recorder.about("program", json.dumps(words))
        ended = carry_out(words, device, make=recorder.make, watcher=recorder)
        if not isinstance(ended, int):
            recorder.about("status", ended.returncode)
    if recording.failed is not None:
        tell(f"cannot write {display_name(path)}: {recording.failed}; it is not complete")
    elif not (recording.calls or recording.closes):  # there was no program, or it made no call
        recording.remove()
    return ended, TraceMade(path, recording.calls, recording.closes, recording.failed is None)


def carry_out(words: Sequence[str], device: Options, **observers: Any) -> RunResult | int:
    """Run ``words`` on the device; an exit code, and a line on stderr, if there was no program."""
    from gpuvm.device import supervisor

    try:
        return supervisor.run(words, device, tell=tell, **observers)
    except NotFound as error:
        tell(f"{error.strerror}")
        return EXIT_NOT_FOUND
    except PermissionDenied as error:
        tell(f"{error.strerror}")
        return EXIT_NOT_EXECUTABLE
    except Interrupted as error:
        tell(f"{error.strerror}")
        return 128 + int(str(error.value))
    except GpuvmError as error:
        tell(str(error))
        return EXIT_SETUP


@contextmanager
def _without_threads() -> Iterator[None]:
    """NumPy's import starts no threads: those that there are when rights are given up would keep them."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def finish(ended: RunResult | int, report: Callable[[RunResult], str]) -> int:
    """Print the report, and end as the program did."""
    if isinstance(ended, int):
        return ended
    with suppress(OSError, ValueError):  # nobody reads it any more
        sys.stderr.write(report(ended))
        sys.stderr.flush()
    return end_as(ended.status)


def tell(line: str) -> None:
    """A line for the user, between what the program prints."""
    with suppress(OSError, ValueError):  # nobody reads it any more
        note(f"gpuvm: {line}")


def end_as(status: int) -> int:
    """The exit code of a program; if a signal killed it, die of the same."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its own
    with suppress(OSError, ValueError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number
