"""``gpuvm sniff``: what a program needs of a GPU that the virtual device does not have."""

from __future__ import annotations

import argparse

from gpuvm.cli.options import Verbs, add_verb
from gpuvm.cli.run import EXIT_CODES, add_device, add_program, carry_out, finish, options, program

_DESCRIPTION = """\
Run a program as `gpuvm run` does, and list all that it asked for in vain, with how often.

These are: ioctls that the driver does not have, parameters, capabilities and classes that it does not know,
methods in push buffers that no engine executes, paths of devices that were opened and are not there. Methods
that only set state come last. The list goes to stderr, since standard output is the program's."""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm sniff [OPTION...] -- PROGRAM ARG...``."""
    parser = add_verb(
        verbs,
        "sniff",
        "list what a program needs and the virtual device lacks",
        _DESCRIPTION,
        EXIT_CODES,
        example="gpuvm sniff -- ./app  # is there anything that it misses?",
    )
    add_device(parser)
    add_program(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the program, print the list; the exit code is the program's."""
    words, device = program(arguments), options(arguments)
    from gpuvm.report.sniff import sniff_report

    return finish(carry_out(words, device), sniff_report)
