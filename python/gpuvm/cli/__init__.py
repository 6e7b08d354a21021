"""The ``gpuvm`` command: one thin file a verb; this one picks the verb and turns errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence

from gpuvm.cli import (
    check,
    completion,
    diff,
    dump,
    explain,
    export,
    info,
    ops,
    pagetable,
    record,
    replay,
    run,
    show,
    sniff,
    sql,
    top,
    trim,
    view,
    why,
)
from gpuvm.cli.options import EXIT_CODES, EXIT_INPUT, EXIT_REFUSED, OutputError
from gpuvm.errors import GpuvmError
from gpuvm.trace.errors import ReplayError, TraceError

_VERBS = (
    run,
    record,
    top,
    sniff,
    info,
    check,
    why,
    view,
    dump,
    sql,
    diff,
    trim,
    export,
    replay,
    show,
    pagetable,
    explain,
    ops,
    completion,
)
"""As --help lists them: programs, what they did, address spaces, the rest."""
_PRINT_NOTHING = (["run"], ["record"], ["sniff"])
"""Their standard output is a program's."""
_EXIT_INTERRUPTED = 130
_EXIT_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_EPILOG = f"""\
gpuvm VERB --help tells about one of them. Addresses and sizes are bytes.

example:
  gpuvm record -o app.gpuvm -- ./app  # then: gpuvm check app.gpuvm

{EXIT_CODES}"""


class _Version(argparse.Action):
    """Looks the version up only when asked; that import is slow."""

    def __call__(self, *_: object) -> None:
        from importlib.metadata import version

        print(f"gpuvm {version('gpuvm')}")
        sys.exit(0)


def parser_of_all() -> argparse.ArgumentParser:
    """The parser of the whole command; completions and the manual page are made from it."""
    parser = argparse.ArgumentParser(
        prog="gpuvm",
        description="Linux's GPU virtual-memory manager in user space: run programs, explain what they did.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    for verb in _VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv`` by default; returns the exit code.

    Raises:
        SystemExit: from argparse, after ``--help``, ``--version`` (0) or wrong usage (2).
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
    if sys.stdout is None:
        if (sys.argv[1:] if argv is None else argv)[:1] not in _PRINT_NOTHING:
            return _complain("standard output is closed", EXIT_REFUSED)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed at exec, as all that we open
    for stream in (sys.stdout, sys.stderr):
        # A path may hold bytes that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _complain("interrupted", _EXIT_INTERRUPTED)
    except BrokenPipeError:
        _drop_stdout()
        return _EXIT_PIPE
    except (OutputError, ReplayError, GpuvmError) as error:
        return _complain(str(error), EXIT_REFUSED)
    except TraceError as error:
        return _complain(str(error), EXIT_INPUT)
    except OSError as error:
        # Reading and pictures have errors of their own; what is left is standard output.
        _drop_stdout()
        reason = os.strerror(error.errno or errno.EIO)
        return _complain(f"cannot write standard output: {reason}", EXIT_REFUSED)


def _run(argv: Sequence[str] | None) -> int:
    parser = parser_of_all()
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        print(parser.format_help(), end="")
        return 0
    code: int = arguments.run(arguments)
    return code


def _complain(message: str, code: int) -> int:
    print(f"gpuvm: {message}", file=sys.stderr)
    return code


def _drop_stdout() -> None:
    # What is still buffered cannot be written either; without this the interpreter says so at exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
