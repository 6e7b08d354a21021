"""``gpuvm explain``: what one request would do, drawn, and why."""

from __future__ import annotations

import argparse
import json
import sys

from gpuvm.cli.options import (
    EXIT_OK,
    EXIT_REFUSED,
    MERGE_NAMES,
    Verbs,
    add_client,
    add_merge,
    add_until,
    add_verb,
    coloured,
)
from gpuvm.cli.streams import open_stream
from gpuvm.report.explanation import Explanation
from gpuvm.trace.requests import parse_explained
from gpuvm.trace.snapshot import take_snapshot

_DESCRIPTION = """\
Explain what a request would do to an address space, as it is after a line of a trace or of a request
file: the mappings before, the request and the mappings after as the kernel's documentation draws them,
then every op with its numbers and why it is there. Nothing is changed.

requests:
  map ADDR RANGE [bo=N] [off=BYTES]    N is a handle in a trace, a BO number in a request file, 0 for none
  unmap ADDR RANGE
  prefetch ADDR RANGE"""

_EXAMPLE = """\
gpuvm explain "unmap 0x3fffa40000 0x80000" --on app.jsonl --until 60  # a hole into what was mapped then"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm explain REQUEST --on FILE [--until LINE] [--client N] [--merge POLICY] [--json]``."""
    parser = add_verb(
        verbs, "explain", "say what one request would do, and why", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("request", metavar="REQUEST", help='such as "map 0x1000 0x4000 bo=2 off=0"')
    parser.add_argument("--on", required=True, metavar="FILE", help="a trace or a request file; - is stdin")
    add_client(parser, "whose space (default: the one with the most requests)")
    add_until(parser)
    add_merge(parser)
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation; exit code 1 when the manager refuses the request."""
    request = parse_explained(arguments.request)
    with open_stream(arguments.on, "replay", arguments.until) as stream:
        space = take_snapshot(stream, client=arguments.client, merge=MERGE_NAMES[arguments.merge])
    explanation = Explanation(space, *request)
    if arguments.json:
        print(json.dumps(explanation.document(), separators=(",", ":")))
    else:
        print("\n".join(explanation.text(colour=coloured(sys.stdout))))
    return EXIT_OK if explanation.refusal is None else EXIT_REFUSED
