"""``gpuvm record``: a program on the virtual device, and a trace of all that it does there."""

from __future__ import annotations

import argparse
import os

from gpuvm.cli.options import Verbs, add_verb
from gpuvm.cli.run import EXIT_CODES, add_device, add_program, options, program
from gpuvm.cli.run import record as record_program

_DESCRIPTION = """\
Run a program as `gpuvm run` does, and record it: each call with its arguments and result, what it did to
address spaces and page tables, memory, jobs and fences, what engines read and wrote, evictions, faults.

The trace is an SQLite database, which is written while the program runs, by a process of its own: it can be
read meanwhile (`gpuvm top TRACE`), and is there whatever becomes of the program or of gpuvm. A name that ends
in .jsonl gets one line of JSON for each call, and nothing else."""

_EXAMPLE = """\
gpuvm record -- ./app  # into app.gpuvm
gpuvm record -f -o app.gpuvm --vram 256M -- ./app --frames 10  # again, on a small device"""

_SUFFIX = ".gpuvm"


def add_parser(verbs: Verbs) -> None:
    """``gpuvm record [OPTION...] -- PROGRAM ARG...``."""
    summary = "run a program on the virtual device and record it"
    parser = add_verb(verbs, "record", summary, _DESCRIPTION, EXIT_CODES, example=_EXAMPLE)
    add_device(parser)
    parser.add_argument(
        "-o", "--output", metavar="TRACE", help="the new file; by default the program's name and .gpuvm, here"
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing TRACE")
    add_program(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run and record it, print the report; the exit code is the program's."""
    words = program(arguments)
    path = arguments.output or os.path.basename(words[0]) + _SUFFIX
    return record_program(words, options(arguments), path, force=arguments.force)
