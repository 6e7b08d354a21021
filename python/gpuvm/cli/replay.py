"""``gpuvm replay``: make the recorded binds again and say what they did."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from gpuvm.cli.options import (
    EXIT_OK,
    EXIT_REFUSED,
    POLICY_NAMES,
    Verbs,
    add_client,
    add_until,
    add_verb,
    coloured,
    memory_size,
    note,
    policies,
)
from gpuvm.cli.progress import each_record
from gpuvm.cli.streams import open_stream
from gpuvm.errors import NoSpace, OutOfMemory
from gpuvm.report.table import replay_table
from gpuvm.trace.errors import ReplayError, TraceError
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import Record, Submission, VmBind
from gpuvm.trace.replay import Client, Replay, with_space
from gpuvm.trace.requests import ARGUMENTS
from gpuvm.trace.stream import Lines, Stream, look_ahead

if TYPE_CHECKING:
    from gpuvm.trace.driver_client import DriverClient
    from gpuvm.trace.table_counts import TableCounts

_DESCRIPTION = """\
Replay a recorded trace, each client in an address space of its own.

Through the driver, every recorded call is made again, those that had failed too, and must have the result
that it had. The first that has not is told with the calls around it, the others with their lines, and the
exit code is 1. Which numbers new handles and
channels get is no result. What the CPU wrote was not recorded: push buffers are zeros. A trace that has
execs, channels, sync objects, or binds that wait or signal goes through the driver by itself.

Without the driver plain maps and unmaps go to the manager, sparse ones make and drop sparse regions as
nouveau does. Calls that failed when recorded are skipped and counted. The binds are made in page tables
too, in real memory with room for everything.

Requests are plain maps and all unmaps; the ops are what the manager emitted for them. The time per
request is the time inside the bind calls, by the wall clock. A split is a remap that left two pieces;
fragmentation is 1 - largest hole / all free bytes. Of page tables it is told how many there were, entries
that were written and cleared, and how many more are cleared if keep is ignored.

With --vram there is that much VRAM and no driver, and policies of eviction are compared. A trace does not
tell what the GPU touched. So a use is what the kernel sees: a vm_bind that maps an object, an exec that has
a push buffer in it. It is brought to VRAM then, if the trace allows it there and it is
not larger than VRAM; others are evicted to GART. A hit found it in place. Where a call's own objects leave
no room it is used from GART. What is evicted has to wait for the client's latest call: a stall.
Bytes moved are sizes of objects, for what they hold is not recorded."""

_EXAMPLE = """\
gpuvm replay app.jsonl  # every call again: has each the result that it had?
gpuvm replay app.jsonl --vram 64M --policy lru,clock  # what would be evicted, with so little memory"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm replay FILE`` and its options."""
    parser = add_verb(
        verbs, "replay", "replay a recorded trace and summarise it", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="the trace; - is stdin")
    add_client(parser, "replay this client alone")
    add_until(parser)
    parser.add_argument(
        "--driver",
        action=argparse.BooleanOptionalAction,
        help="whether to go through the driver (if not given: if the trace has calls that need it)",
    )
    parser.add_argument("--vram", type=memory_size, metavar="SIZE", help="this much VRAM: 64M, 1G, bytes")
    parser.add_argument("--gart", type=memory_size, metavar="SIZE", help="with --vram: GART (default 64G)")
    parser.add_argument(
        "--policy",
        type=policies,
        metavar="NAMES",
        help=f"with --vram: some of {','.join(POLICY_NAMES)}, with commas (default lru)",
    )
    parser.add_argument("--json", action="store_true", help="counts and mappings, or the policies, as JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay the file, print the table or the JSON.

    The exit code is 1 when a policy did not come to the end, or the driver gave another result than recorded.
    """
    if arguments.vram is None and (arguments.gart or arguments.policy):
        arguments.parser.error(f"--{'gart' if arguments.gart else 'policy'} needs --vram SIZE")
    if arguments.vram is not None and arguments.driver:
        arguments.parser.error("--driver has room for everything, and --vram has not: leave one of them out")
    with open_stream(arguments.file, "read", arguments.until) as stream:
        records = list(_records(stream))
    name = stream.name
    if not records:
        raise TraceError(name, "no call in it; the recording was killed before there was one")
    title = f"{name}, {stream.unit} 1-{records[-1].line}"
    driver = any(map(_needs_driver, records)) if arguments.driver is None else arguments.driver
    if driver and arguments.vram is None:
        return _through_driver(arguments, name, title, records)
    replay = Replay(name, client=arguments.client)
    replay.run(each_record(f"replay {name}", records))
    clients = with_space(replay.clients, name, arguments.client)
    if arguments.vram is not None:
        return _compare(arguments, name, title, records)
    if arguments.json:
        document = {"clients": {str(number): _client_json(client) for number, client in clients.items()}}
        print(json.dumps(document, separators=(",", ":")))
        return EXIT_OK
    page_tables = _page_tables(name, records, arguments.client) if clients else {}
    without_space = sum(client.vm is None for client in replay.clients.values())
    shown = list(clients.values())
    table = replay_table(title, shown, without_space, page_tables, colour=coloured(sys.stdout))
    sys.stdout.write(table)
    return EXIT_OK


def _needs_driver(record: Record) -> bool:
    match record:
        case VmBind():
            return bool(record.waits or record.signals)
        case Submission():
            return True
        case _:
            return record.call.startswith(("channel_", "syncobj_"))


def _records(stream: Stream) -> Iterable[Record]:
    """All of a trace."""
    if stream.records is not None:
        return stream.records
    assert stream.lines is not None
    return read_records(stream.name, _of_trace(stream.name, stream.lines))


def _of_trace(name: str, lines: Lines) -> Iterator[tuple[int, str]]:
    """The lines, unless they are requests for `gpuvm ops`."""
    is_trace, lines = look_ahead(name, lines)
    first = next(lines, None)
    if first is not None:
        lines = chain([first], lines)
        words = first[1].split()
        if not is_trace and words and (words[0] in ARGUMENTS or words[0].startswith(("#", "{"))):
            raise TraceError(
                name,
                "this is a request file, and replay wants a trace, one JSON object a line; "
                "give request files to `gpuvm ops`",
                line=first[0],
            )
    return lines


# What follows needs NumPy, whose import takes longer than the other verbs.


def _through_driver(arguments: argparse.Namespace, name: str, title: str, records: Sequence[Record]) -> int:
    from gpuvm.report.driver import driver_json, driver_table
    from gpuvm.trace.driver_replay import DriverReplay

    only = arguments.client
    with DriverReplay(name, records, client=only) as replay:
        replay.run(each_record(f"driver: {name}", records)).check()
        clients = with_space(replay.clients, name, only)
        if arguments.json:
            document = {
                "clients": {str(number): _client_json(client) for number, client in clients.items()},
                "driver": driver_json(replay),
            }
            print(json.dumps(document, separators=(",", ":")))
        else:
            sys.stdout.write(driver_table(title, name, replay, records, colour=coloured(sys.stdout)))
        return EXIT_REFUSED if replay.differences else EXIT_OK


def _page_tables(name: str, records: Sequence[Record], client: int | None) -> dict[int, TableCounts]:
    """What the binds do to page tables; of no client where this machine cannot have so many objects."""
    from gpuvm.mmu.formats import TU102
    from gpuvm.trace.table_counts import count_tables

    watch = partial(each_record, f"page tables of {name}")
    try:
        return count_tables(name, records, TU102, client=client, watch=watch)
    except (ReplayError, OutOfMemory) as error:
        if isinstance(error, ReplayError) and not isinstance(error.__cause__, NoSpace | OutOfMemory):
            raise
        note(f"no page tables are told: {error}")
        return {}


def _compare(arguments: argparse.Namespace, name: str, title: str, records: Sequence[Record]) -> int:
    from gpuvm.mmu.formats import TU102
    from gpuvm.report.policies import policy_json, policy_table
    from gpuvm.trace.eviction_replay import compare_policies
    from gpuvm.trace.memory_replay import ROOMY

    memory = {"vram": arguments.vram, "gart": arguments.gart or ROOMY}
    names = arguments.policy or POLICY_NAMES[:1]
    watch = partial(each_record, f"evictions of {name}")
    results = compare_policies(name, records, names, TU102, **memory, client=arguments.client, watch=watch)
    if arguments.json:
        document = {**memory, "policies": {one.policy: policy_json(one) for one in results}}
        print(json.dumps(document, separators=(",", ":")))
    else:
        sys.stdout.write(policy_table(title, results, **memory, colour=coloured(sys.stdout)))
    return EXIT_OK if all(one.refused is None for one in results) else EXIT_REFUSED


def _client_json(client: Client | DriverClient) -> dict[str, object]:
    return {"requests": client.requests, "ops": client.ops, "mappings": client.mappings()}
