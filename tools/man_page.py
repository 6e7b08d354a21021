"""The manual page gpuvm(1): parts written by hand, and what the verbs' parsers tell of themselves."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Final

from gpuvm.cli import parser_of_all
from gpuvm.cli.completions.grammar import verbs_of

_DATE: Final = "2026-11-21"
"""Of the parts here."""

_HEAD: Final = rf"""
.TH GPUVM 1 {_DATE} gpuvm "User Commands"
.SH NAME
gpuvm \- Linux's GPU virtual-memory manager in user space
.SH SYNOPSIS
.B gpuvm
.I VERB
.RI [ OPTION ]...
.RI [ FILE ]...
.br
.B gpuvm run
.RB | " record" " | " check " | " top " | " sniff
.RI [ OPTION ]...
.B \-\-
.I PROGRAM
.RI [ ARG ]...
.SH DESCRIPTION
.B gpuvm
runs programs, unmodified, on a virtual NVIDIA GPU with Linux's nouveau driver, records what they do to its
memory, and answers questions about such recordings: what was mapped where and when, why an access faulted,
which binds are wrong or useless.
.PP
A
.I trace
is what
.B gpuvm record
writes, an SQLite database; or JSON Lines, plain or gzipped, one call a line. Every verb reads both, told
apart by their first bytes. A
.I request file
is written by hand, one request a line; see
.BR "gpuvm ops" .
As a file's name,
.B \-
is standard input.
.PP
Addresses and sizes are bytes, decimal or hexadecimal behind 0x. Results go to standard output, progress and
problems to standard error. Nothing is overwritten unless
.B \-f
says so.
"""

_TAIL: Final = r"""
.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
refused by the manager, another result than recorded, traces that differ, or a result that could not be
written
.TP
.B 2
wrong usage, or an input that cannot be used
.TP
.B 99
.B gpuvm check
has findings
.TP
.BR 125 ", " 126 ", " 127
.BR run ", " record ", " sniff ", " check " and " top :
the program was not started; it cannot be executed; there is none
.TP
.B 130
interrupted
.TP
.B 141
the reader of standard output went away
.PP
Otherwise
.BR run ", " record " and " sniff
end as the program did, by the same signal if it was one.
.SH ENVIRONMENT
.TP
.B NO_COLOR
if it is set and not empty, nothing is coloured
.TP
.B TERM
with
.BR dumb ,
too
.SH FILES
.TP
.IR PROGRAM .gpuvm
what
.B gpuvm record
writes, in the current directory, if
.B \-o
does not name it
.TP
.IR TRACE "-wal, " TRACE -shm
are there while a trace is being written. Copy them with it, if its recording was killed
.TP
.BR /dev/dri/renderD128 ", " /dev/dri/card0
the device, as a program under
.B gpuvm run
sees it; the machine needs none
.SH EXAMPLES
Record a program, see what is wrong with it, and what became of an address:
.PP
.in +4n
.EX
gpuvm record \-o app.gpuvm \-\- ./app
gpuvm check app.gpuvm
gpuvm why app.gpuvm 0x3ffff06000
gpuvm view app.gpuvm \-o app.html
.EE
.in
.PP
Which calls took longest?
.PP
.in +4n
.EX
gpuvm sql app.gpuvm "SELECT call, max(took) FROM calls GROUP BY call ORDER BY 2 DESC"
.EE
.in
.SH SEE ALSO
.BR strace (1),
.BR sqlite3 (1),
.BR vulkaninfo (1),
.BR seccomp (2),
.BR drm (7)
"""


def man_page() -> str:
    """All of it, as roff with the macros of man(7)."""
    parser = parser_of_all()
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    lines = [".SH VERBS"]
    for verb in verbs_of(parser):
        lines += _verb(action.choices[verb.name], verb.help)
    return _HEAD.lstrip() + "\n".join(lines) + _TAIL


def _verb(parser: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    yield f".SS {parser.prog.removeprefix('gpuvm ')} \\- {_text(summary)}"
    yield "\n.br\n".join(map(_text, _usage(parser)))
    for paragraph in (parser.description or "").strip().split("\n\n"):
        yield from _paragraph(paragraph)
    for one in parser._actions:
        if not isinstance(one, argparse._HelpAction) and one.help is not argparse.SUPPRESS:
            yield ".TP"
            yield _name(one)
            yield _text(one.help or "")
    examples, _, exit_codes = (parser.epilog or "").partition("\n\n")
    heading, *lines = examples.splitlines()
    yield ".PP"
    yield _text(heading)
    for line in lines:
        command, _, why = line.strip().partition("  # ")
        yield from (".TP", f"\\fB{_text(command.rstrip())}\\fR", _text(why))
    if "FILE:LINE:COLUMN" not in exit_codes:  # not those of most verbs, which EXIT STATUS has
        yield from _paragraph(exit_codes)


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    text = " ".join(parser.format_usage().removeprefix("usage: ").split())
    return re.sub(r" (?=gpuvm )", "\n", text).splitlines()


def _paragraph(text: str) -> Iterator[str]:
    """One that is filled, or, if columns stand under each other in it, one that is left as it is."""
    if re.search(r"^ |\S   ", text, re.MULTILINE):
        yield from _preformatted(text.splitlines())
    else:
        yield ".PP"
        yield from map(_text, text.splitlines())


def _preformatted(lines: list[str]) -> Iterator[str]:
    yield from (".PP", ".in +4n", ".EX", *map(_text, lines), ".EE", ".in")


def _name(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _text(_metavar(action))
    if not action.option_strings:
        return f".I {value}"
    names = ", ".join(f"\\fB{_text(one)}\\fR" for one in action.option_strings)
    return f"{names} \\fI{value}\\fR" if value else names


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices is not None else action.dest.upper()


def _text(text: str) -> str:
    """A line of text, so that roff shows it as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
