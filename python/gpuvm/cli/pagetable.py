"""``gpuvm pagetable``: the page tables of one address space, or the walk of one address."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from gpuvm.cli.options import EXIT_OK, Verbs, add_client, add_until, add_verb, address, coloured, note
from gpuvm.cli.progress import each_record
from gpuvm.cli.streams import open_stream

_FORMATS = ("tu102", "gp100", "gh100", "x86_64")

_DESCRIPTION = """\
Show the page tables of an address space, as they are after a line of a trace or of a request file. The
binds are made again in real memory: objects get physical addresses, large enough a VRAM for all of them,
and the tables are bytes in it, which are read back here.

With --addr: the walk of that address. Each entry that the MMU reads, with its table, index, raw words and
fields; then the page, its object and mapping, or sparse, or a fault with the nearest mappings.
Without: all tables as a tree, entries that continue each other on one line; and what the tables take.

A trace with several clients shows the one with the most requests unless --client says. In a request file
the units are bytes; its objects get the memory that is mapped of them."""

_EXAMPLE = """\
gpuvm pagetable app.jsonl --until 60  # all tables after line 60
gpuvm pagetable app.jsonl --until 60 --addr 0x3fffa40000  # how the MMU finds one address"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm pagetable FILE [--until LINE] [--addr A] [--client N] [--format NAME] [--json]``."""
    parser = add_verb(
        verbs, "pagetable", "show page tables, or the walk of one address", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="a trace or a request file; - is stdin")
    add_until(parser)
    parser.add_argument("--addr", type=address, metavar="A", help="walk this address, decimal or 0x")
    add_client(parser, "whose space")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="tu102",
        metavar="NAME",
        help="tu102 (Turing to Ada, the default), gp100 (Pascal), gh100 (Hopper) or x86_64",
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay up to the line into memory, print the walk or the tree."""
    # These need NumPy, whose import takes longer than the other verbs.
    from gpuvm.mmu.formats import FORMATS
    from gpuvm.report.page_table import Tree
    from gpuvm.report.walk import Walk
    from gpuvm.trace.memory_snapshot import memory_snapshot

    format = FORMATS[arguments.format]
    with open_stream(arguments.file, "replay", arguments.until) as stream:
        watch = partial(each_record, f"page tables of {stream.name}")
        with memory_snapshot(stream, format, client=arguments.client, watch=watch) as space:
            others = [str(client) for client in space.clients if client != space.client]
            shown = Tree(space) if arguments.addr is None else Walk(space, arguments.addr)
            document = shown.document() if arguments.json else {}
            text = [] if arguments.json else shown.text(colour=coloured(sys.stdout))
            client = space.client
    if others and arguments.client is None:
        note(f"client {client} is shown; --client shows {', '.join(others)}")
    if arguments.json:
        print(json.dumps(document, separators=(",", ":")))
    else:
        print("\n".join(text))
    return EXIT_OK
