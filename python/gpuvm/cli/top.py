"""``gpuvm top``: a running program's address spaces, memory, queues and faults, on the terminal."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gpuvm.cli.options import EXIT_OK, OutputError, Verbs, add_verb, note
from gpuvm.cli.run import add_device

if TYPE_CHECKING:
    from gpuvm.report.top.screen import Scene

_DESCRIPTION = """\
Show what a program does to the GPU while it runs: what its address spaces hold, how many binds it makes a
second, the GPU's memory and what was evicted, jobs that wait and run, calls by kind, the last fault.

The program runs under `gpuvm record`, with nothing on its standard input. What it prints is shown below. With
-o its recording stays. A TRACE is shown as it is while it is being recorded, or as it was at its end.

keys: q quits, and ends the program if you say so; space pauses the view; tab goes from table to table; /
shows only clients with a name; f, or enter on the last fault, shows the reports of faults.

It needs Textual, which is installed with: pip install 'gpuvm[top]'"""

_EXIT_CODES = """\
exit codes: 0 done, however the program ended; 1 no terminal, or no Textual; 2 wrong usage or a TRACE that
cannot be used; 125, 126, 127 the program was not started, as gpuvm run has it."""

_EXAMPLE = """\
gpuvm top -- ./app  # what is it doing?
gpuvm top -o app.gpuvm -- ./app --frames 10000  # the same, and keep the recording
gpuvm top app.gpuvm  # another terminal's `gpuvm record`, or how it ended"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm top [OPTION...] -- PROGRAM ARG...`` or ``gpuvm top TRACE``."""
    summary = "watch a program on the virtual device"
    parser = add_verb(verbs, "top", summary, _DESCRIPTION, _EXIT_CODES, example=_EXAMPLE)
    add_device(parser)
    parser.add_argument("-o", "--output", metavar="TRACE", help="keep the recording in this new file")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing TRACE")
    parser.add_argument(
        "watched", nargs=argparse.REMAINDER, metavar="TRACE, or PROGRAM ARG...", help="what to watch"
    )
    parser.usage = f"{parser.prog} [OPTION...] -- PROGRAM [ARG...]\n       {parser.prog} TRACE"
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the view until the user quits."""
    words: list[str] = arguments.watched
    parser: argparse.ArgumentParser = arguments.parser
    a_program = words[:1] == ["--"]
    if len(words) < 2 if a_program else len(words) != 1:
        parser.error("pass a program after --, such as: gpuvm top -- ./app; or one TRACE")
    if words == ["-"] or arguments.output == "-":
        parser.error("standard input and output are the terminal here; pass a file")
    if (arguments.output or "").endswith(".jsonl"):
        parser.error(
            "-o: nothing but calls would be in a .jsonl; top needs an SQLite trace, such as app.gpuvm"
        )
    if not a_program and (arguments.output is not None or arguments.force):
        parser.error("-o and -f are for a program's recording; TRACE is one already")
    _require_terminal()
    return _watch_program(words[1:], arguments) if a_program else _watch_trace(words[0])


def _require_terminal() -> None:
    """Raises OutputError: what the view needs is not there."""
    try:
        import textual  # noqa: F401 - nothing else is imported before the terminal is known to be one
    except ModuleNotFoundError:
        raise OutputError("top needs Textual, which is not installed: pip install 'gpuvm[top]'") from None
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        raise OutputError("top needs a terminal; gpuvm record and gpuvm info do without one")


def _watch_program(words: list[str], arguments: argparse.Namespace) -> int:
    from gpuvm.cli.destination import check_destination
    from gpuvm.cli.top_program import RecordedProgram
    from gpuvm.report.top.scenes import LiveScene

    if arguments.output is not None:
        check_destination(arguments.output, force=arguments.force)
    with tempfile.TemporaryDirectory(prefix="gpuvm-top-") as folder:
        trace = arguments.output or str(Path(folder) / "trace.gpuvm")
        with RecordedProgram(words, arguments, trace) as program:
            _show(LiveScene(program.name, trace, program), live=True)
        not_started = program.not_started()
        if arguments.output is not None or not_started is not None:
            note(program.last_words())
    return EXIT_OK if not_started is None else not_started


def _watch_trace(path: str) -> int:
    from gpuvm.cli.opening import open_trace
    from gpuvm.report.top.scenes import EndedScene, LiveScene
    from gpuvm.trace.trace import Form

    with open_trace(path) as trace:
        ended = trace.whole or trace.form is Form.JSON_LINES
        if ended:
            _show(EndedScene(trace), live=False)
    if not ended:
        _show(LiveScene(trace.name, path, None), live=True)
    return EXIT_OK


def _show(scene: Scene, *, live: bool) -> None:
    from gpuvm.report.top.app import TopApp

    TopApp(scene, live=live).run()
