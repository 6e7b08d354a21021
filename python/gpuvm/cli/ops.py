"""``gpuvm ops``: requests in, answers out."""

from __future__ import annotations

import argparse
import json
import sys

from gpuvm.cli.options import EXIT_OK, MERGE_NAMES, Verbs, add_merge, add_verb
from gpuvm.trace import requests as language
from gpuvm.trace.session import Session
from gpuvm.trace.source import Source

_DESCRIPTION = f"""\
Answer requests to the address-space manager, one JSON object a line.

{(language.__doc__ or "").strip().replace("``", "")}

An answer has seq, req, in; then ops, va, ret or dump; then err: 0 or the negative errno of a refusal.
A refusal is an answer; only a line that is no request at all ends the command."""

_EXAMPLE = """\
gpuvm ops requests.txt  # an answer for each line of the file
echo 'init 0 0x10000 0 0' | gpuvm ops  # or of standard input"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm ops [FILE|-] [--merge POLICY]``."""
    parser = add_verb(
        verbs, "ops", "answer requests: the ops that split and merge emit", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="plain or gzipped; - is stdin")
    add_merge(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer every request of the file."""
    with Source(arguments.file) as source:
        session = Session(source.name, merge=MERGE_NAMES[arguments.merge])
        # Whoever feeds requests through a pipe may wait for each answer.
        flush = arguments.file == "-"
        for request in language.read_requests(source.name, source):
            answer = json.dumps(session.answer(request), separators=(",", ":"), ensure_ascii=False)
            sys.stdout.write(answer + "\n")
            if flush:
                sys.stdout.flush()
    return EXIT_OK
