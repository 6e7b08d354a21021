"""``gpuvm replay``: make the recorded binds again and say what they did."""

from __future__ import annotations

import argparse
import json
import sys

from gpuvm.cli.options import EXIT_OK, Verbs, add_client, add_until, add_verb, coloured
from gpuvm.cli.progress import Progress
from gpuvm.report.table import replay_table
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.replay import Client, Replay, with_space
from gpuvm.trace.source import Source, upto, watched

_DESCRIPTION = """\
Replay a recorded trace (JSON Lines, plain or gzipped): each client gets its own address space of
47 bits; plain maps and unmaps go to the manager, sparse ones make and drop sparse regions as nouveau
does. Calls that failed when recorded are skipped and counted.

Requests are plain maps and all unmaps; the ops are what the manager emitted for them. The time per
request is the time inside the bulk bind calls, by the wall clock. A split is a remap that left two
pieces; fragmentation is 1 - largest hole / all free bytes."""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm replay FILE [--client N] [--until LINE] [--json]``."""
    parser = add_verb(verbs, "replay", "replay a recorded trace and summarise it", _DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the trace; - is stdin")
    add_client(parser, "replay this client alone")
    add_until(parser)
    parser.add_argument("--json", action="store_true", help="counts and every mapping as one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay the file, print the table or the JSON."""
    with Source(arguments.file) as source, Progress(f"replay {source.name}", source.size) as progress:
        replay = Replay(source.name, client=arguments.client)
        lines = upto(source.name, watched(source, progress.update), arguments.until)
        replay.run(read_records(source.name, lines))
        clients = with_space(replay.clients, source.name, arguments.client)
    if arguments.json:
        document = {"clients": {str(number): _client_json(client) for number, client in clients.items()}}
        print(json.dumps(document, separators=(",", ":")))
    else:
        without_space = sum(client.vm is None for client in replay.clients.values())
        title = f"{source.name}, lines 1-{replay.line}"
        table = replay_table(title, list(clients.values()), without_space, colour=coloured(sys.stdout))
        sys.stdout.write(table)
    return EXIT_OK


def _client_json(client: Client) -> dict[str, object]:
    return {"requests": client.requests, "ops": client.ops, "mappings": client.mappings()}
