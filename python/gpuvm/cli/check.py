"""``gpuvm check``: what is wrong with a program's binds, jobs and memory."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpuvm.cli.options import EXIT_OK, EXIT_REFUSED, Verbs, add_verb, coloured, note
from gpuvm.cli.progress import Progress
from gpuvm.cli.run import add_device, end_as, options, recorded

if TYPE_CHECKING:
    from gpuvm.report.check import Checked
    from gpuvm.report.suppressions import Suppression

_DESCRIPTION = """\
Look for what is wrong in a trace: memory that is unmapped or replaced under a running job, or used before its
bind is done; faults; what was closed twice, or never; and what costs for nothing.

Each rule decides by evidence. An error went wrong, by what was recorded. A warning can go wrong, because
nothing says which of two calls comes first. A note costs something, or cannot be judged.

With a PROGRAM it is run as `gpuvm record` does, and its recording is checked; what is found goes to standard
error then, below the report. A program that fails keeps its exit code if nothing was found.

Suppressions are a file with a line for each: RULE [client=N] [addr=A-B] [calls=A-B]  # why."""

_EXIT_CODES = """\
exit codes: 0 clean; 99 something was found that counts: an error or a warning, with --strict a note, too; 1 a
result could not be written, or the recording is not complete; 2 wrong usage, or a file that cannot be used.
With a PROGRAM: 99, or its own."""

_EXAMPLE = """\
gpuvm check app.gpuvm  # what is wrong with it?
gpuvm check -- ./app --frames 10  # run, record and check it
gpuvm check app.gpuvm --ignore leak-at-exit --sarif app.sarif  # in CI
gpuvm check --explain use-after-unmap  # what does this mean?"""

EXIT_FOUND = 99


def add_parser(verbs: Verbs) -> None:
    """``gpuvm check TRACE [OPTION...]`` or ``gpuvm check [OPTION...] -- PROGRAM ARG...``."""
    summary = "look for what is wrong in a trace, or in a program"
    parser = add_verb(verbs, "check", summary, _DESCRIPTION, _EXIT_CODES, example=_EXAMPLE)
    _add_options(parser)
    add_device(parser)
    parser.add_argument("-o", "--output", metavar="TRACE", help="keep a PROGRAM's recording in this new file")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "checked", nargs=argparse.REMAINDER, metavar="TRACE, or PROGRAM ARG...", help="what to check"
    )
    parser.usage = f"{parser.prog} TRACE [OPTION...]\n       {parser.prog} [OPTION...] -- PROGRAM [ARG...]"
    parser.set_defaults(run=run, parser=parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ignore", action="append", metavar="RULE", help="do not ask this rule; repeatable")
    parser.add_argument("--suppressions", metavar="FILE", help="findings that are known, a line each")
    parser.add_argument("--strict", action="store_true", help="notes count, too")
    parser.add_argument("--json", action="store_true", help="the findings of a TRACE as JSON")
    parser.add_argument("--sarif", metavar="FILE", help="write them as SARIF 2.1.0, too")
    parser.add_argument("--rules", action="store_true", help="list the rules")
    parser.add_argument("--explain", metavar="RULE", help="what a rule is about, with its examples")


def run(arguments: argparse.Namespace) -> int:
    """Check it, tell what was found."""
    parser: argparse.ArgumentParser = arguments.parser
    words: list[str] = arguments.checked
    program = words[1:] if words[:1] == ["--"] else []
    if words and not program and words[0] != "--":
        behind = argparse.ArgumentParser(prog=parser.prog, add_help=False, argument_default=argparse.SUPPRESS)
        _add_options(behind)
        behind.add_argument("-f", "--force", action="store_true")
        behind.usage = parser.usage
        if "--" in words:
            parser.error("pass a TRACE, or a program after --, not both")
        _, rest = behind.parse_known_args(words[1:], arguments)
        if rest:
            parser.error(f"one TRACE is checked, without: {' '.join(rest)}")
    if arguments.rules or arguments.explain is not None:
        return _tell_rules(arguments)
    suppressions = _suppressions(arguments)
    if program:
        return _check_program(program, suppressions, arguments)
    if not words or words[0] == "--":
        parser.error("pass a TRACE, or a program after --, such as: gpuvm check -- ./app")
    checked = _check(words[0], suppressions, arguments)
    if arguments.json:
        from gpuvm.report.check import check_document

        print(json.dumps(check_document(checked), separators=(",", ":")))
    else:
        from gpuvm.report.check import check_text

        file = None if words[0] == "-" else words[0]
        sys.stdout.write(check_text(checked, file=file, colour=coloured(sys.stdout)))
    return EXIT_OK if checked.clean(strict=arguments.strict) else EXIT_FOUND


def _tell_rules(arguments: argparse.Namespace) -> int:
    from gpuvm.report.rules import RULES
    from gpuvm.report.rules.explained import explained_text

    if arguments.explain is None:
        width = max(len(rule.id) for rule in RULES)
        for rule in RULES:
            print(f"{rule.id:<{width}}  {rule.summary}")
        return EXIT_OK
    _require_rules(arguments, [arguments.explain])
    rule = next(rule for rule in RULES if rule.id == arguments.explain)
    sys.stdout.write(explained_text(rule))
    return EXIT_OK


def _require_rules(arguments: argparse.Namespace, names: list[str]) -> None:
    from gpuvm.report.rules import RULES

    for name in names:
        if all(rule.id != name for rule in RULES):
            arguments.parser.error(f"no rule {name[:40]!r}: gpuvm check --rules lists them")


def _suppressions(arguments: argparse.Namespace) -> list[Suppression]:
    _require_rules(arguments, arguments.ignore or [])
    if arguments.suppressions is None:
        return []
    from gpuvm.report.rules import RULES
    from gpuvm.report.suppressions import read_suppressions
    from gpuvm.trace.source import Source

    with Source(arguments.suppressions) as source:
        return read_suppressions(source.name, source, {rule.id for rule in RULES})


def _check(
    path: str, suppressions: list[Suppression], arguments: argparse.Namespace, name: str | None = None
) -> Checked:
    """Check it, and write the SARIF; ``name`` for messages, if not that of the file."""
    from gpuvm.cli.destination import check_destination, write_text
    from gpuvm.cli.opening import open_trace
    from gpuvm.report.check import check_trace
    from gpuvm.report.rules import RULES
    from gpuvm.trace.trace import Form

    ignored = arguments.ignore or ()
    if arguments.sarif is not None:
        check_destination(arguments.sarif, force=arguments.force, source=path)
    with open_trace(path) as trace:
        lines = trace.form is Form.JSON_LINES
        with Progress(f"check {trace.name}", len(RULES), "rules") as progress:
            watch = progress.update
            checked = check_trace(trace, ignored=ignored, suppressions=suppressions, progress=watch)
    for unused in checked.unused:
        note(f"{arguments.suppressions}:{unused.line}: nothing was suppressed by: {unused.text}")
    if arguments.sarif is not None:
        from importlib.metadata import version

        from gpuvm.report.sarif import sarif_document

        rules = [rule for rule in RULES if rule.id not in ignored]
        document = sarif_document(checked, rules, version("gpuvm"), path=name or path, lines=lines)
        write_text(arguments.sarif, json.dumps(document, indent=1) + "\n", force=arguments.force)
    return checked if name is None else replace(checked, name=name)


# -- of a program


def _check_program(words: list[str], suppressions: list[Suppression], arguments: argparse.Namespace) -> int:
    from gpuvm.report.check import check_text
    from gpuvm.report.run import run_report

    if arguments.json:
        arguments.parser.error("--json goes to standard output, which is the program's: use --sarif FILE")
    with _recording(arguments) as path:
        ended, made = recorded(words, options(arguments), path, force=arguments.force)
        if isinstance(ended, int):
            return ended
        _tell(run_report(ended, made if arguments.output is not None else None))
        if not os.path.exists(path):
            _tell("nothing to check: the program made no call of the driver\n")
            return end_as(ended.status)
        name = words[0] if arguments.output is None else None
        checked = _check(path, suppressions, arguments, name=name)
    _tell(check_text(checked, file=arguments.output, colour=coloured(sys.stderr)))
    if not checked.clean(strict=arguments.strict):
        return EXIT_FOUND
    if checked.cut_short:
        _tell("gpuvm: the recording is not complete, so there may be more\n")
        return EXIT_REFUSED
    return end_as(ended.status)


@contextmanager
def _recording(arguments: argparse.Namespace) -> Iterator[str]:
    """Where it goes."""
    if arguments.output is not None:
        yield arguments.output
        return
    with tempfile.TemporaryDirectory(prefix="gpuvm-check-") as folder:
        yield str(Path(folder) / "trace.gpuvm")


def _tell(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more
        sys.stderr.write(text)
        sys.stderr.flush()
