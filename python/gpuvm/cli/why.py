"""``gpuvm why``: everything that happened to one address."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING

from gpuvm.cli.options import EXIT_OK, Verbs, add_client, add_verb, address, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuvm.trace.trace import Trace

_DESCRIPTION = """\
Tell everything that ever happened to an address: who made the object there, who mapped, cut and unmapped it,
which engines used it, faults, evictions, and what lies around it.

The first lines are the verdict. It and what lies around are of the moment before the first fault there; if
there was none of the end, before the client closed the device; with --at of the moment after that call. With
several clients, those are told that ever had the address."""

_EXAMPLE = """\
gpuvm why app.gpuvm 0x3ffff06000  # who unmapped it?
gpuvm why app.gpuvm 0x3ffff06000 --at 3  # as it was after call 3"""

_NEAR = 20
"""Calls that are looked at together; of those that are farther apart, the last."""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm why TRACE ADDR [--at CALL] [--client N] [--all] [--json]``."""
    parser = add_verb(verbs, "why", "everything that happened to an address", _DESCRIPTION, example=_EXAMPLE)
    parser.add_argument("trace", metavar="TRACE", help="a trace; - is stdin")
    parser.add_argument("addr", metavar="ADDR", type=address, help="decimal, or 0x hexadecimal")
    parser.add_argument(
        "--at", type=_call_number, metavar="CALL", help="what it was after this call, instead of at the fault"
    )
    add_client(parser, "of this one alone")
    parser.add_argument("--all", action="store_true", help="every event, not the first and last of many")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object, with all events")
    parser.set_defaults(run=run)


def _call_number(text: str) -> int:
    number = address(text)
    if number == 0:
        raise argparse.ArgumentTypeError("the first call is 1")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Read the trace, tell the address."""
    from gpuvm.cli.opening import open_trace
    from gpuvm.report.history_reader import history_of
    from gpuvm.report.verdict import verdict
    from gpuvm.report.why import calls_text, why_document, why_text

    with open_trace(arguments.trace) as trace:
        if arguments.at is not None:
            trace.call(arguments.at)
        clients = _clients(trace, arguments.addr, arguments.client)
        told = [history_of(trace.db, client, arguments.addr, arguments.at) for client in clients]
        if arguments.json:
            document = {"trace": trace.name, "clients": [*map(why_document, told)]}
            print(json.dumps(document, separators=(",", ":")))
            return EXIT_OK
        print("\n".join(why_text(one, everything=arguments.all) for one in told))
        calls = sorted({call for one in told for call in verdict(one).calls})
        if calls:
            print(calls_text(trace, calls))
        for line in _doubts(trace):
            note(line)
        where = f"--client {told[0].client} --call vm_bind"
        if calls:
            first = calls[0] if calls[-1] - calls[0] <= _NEAR else calls[-1]
            where = f"--ops --calls {first}" + (f"-{calls[-1]}" if first < calls[-1] else "")
        note(f"next: gpuvm dump {shlex.quote(arguments.trace)} {where}")
    return EXIT_OK


def _clients(trace: Trace, addr: int, number: int | None) -> list[int]:
    """Ids of the clients to tell of.

    Raises:
        TraceError: none has the number, or none an address space.
    """
    from gpuvm.report.history_reader import clients_with
    from gpuvm.trace.errors import TraceError

    if number is not None:
        return [client.id for client in trace.clients_of(number)]
    if found := clients_with(trace.db, addr):
        return found
    binds = "SELECT client FROM calls WHERE call = 'vm_bind' GROUP BY client ORDER BY count(*) DESC"
    found = [row[0] for row in trace.db.execute(binds)]
    if not found:
        raise TraceError(trace.name, "no client bound anything, so there is no address to tell of")
    if len(found) > 1:
        note(f"no client ever had {addr:#x}; the one with the most binds is told, --client shows others")
    return found[:1]


def _doubts(trace: Trace) -> Iterator[str]:
    """What may be missing from what was told."""
    if not trace.whole:
        yield f"{trace.name}: what came after call {trace.last_call()} is not in the trace"
    count, first = trace.db.execute("SELECT count(*), min(call) FROM doubts").fetchone()
    if count:
        why = trace.db.execute("SELECT why FROM doubts WHERE call = ?", (first,)).fetchone()[0]
        calls = f"{count:,} call" if count == 1 else f"{count:,} calls"
        yield f"{trace.name}: {calls} of which the effect is not known; call {first}: {why}"
    timed = trace.db.execute("SELECT 1 FROM calls WHERE took IS NOT NULL LIMIT 1").fetchone()
    if timed is None:
        yield f"{trace.name}: when jobs ran, and what engines used, was not recorded; `gpuvm record` does"
