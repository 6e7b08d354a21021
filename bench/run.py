"""The command: ``python -m bench.run``. Progress goes to stderr, the tables to stdout."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import report, targets
from bench.contenders import REGISTRY, available, contender_class
from bench.device import measure as device
from bench.device import report as device_report
from bench.device.ways import has_cc
from bench.driver import cases as driver
from bench.locking import cases as locking
from bench.machine import Machine, machine
from bench.measure import Result, measure
from bench.memory import ORDERS, Memory, measure_memory
from bench.page import renew_blocks
from bench.paging import cases as paging
from bench.sampling import measure as sampling
from bench.sampling import report as sampling_report
from bench.sampling import selfcheck as sampling_selfcheck
from bench.sampling.case import Table
from bench.selfcheck import Disagreement, self_check
from bench.trace import cases as trace
from bench.trace import size as trace_size

MAPPINGS = "mappings"
LOCKING = "locking"
PAGING = "paging"
DRIVER = "driver"
TRACE = "trace"
PARTS = (MAPPINGS, LOCKING, PAGING, DRIVER, TRACE)
DEVICE = "device"
"""Has a page of its own, so it runs only if it is named."""

SIZES = (1_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 20_000)
QUICK_MEMORY_SIZE = 50_000
REPEATS = 7
QUICK_REPEATS = 3
QUICK_SHARE = 5
QUICK_TRACE = (20_000, 10_000)
"""Calls of the trace that is opened, and of those that are written."""
DEVICE_ROUNDS = (15, 200)
"""And the calls of each."""
QUICK_DEVICE_ROUNDS = (3, 20)


@dataclass(frozen=True)
class Part:
    """What was measured, as text and for programs."""

    text: str
    json: dict[str, Any]


def _sizes(text: str) -> tuple[int, ...]:
    """Numbers of mappings; fewer than a hundred would leave some cases without anything to do."""
    sizes = tuple(int(size) for size in text.split(","))
    if min(sizes) < 100:
        raise argparse.ArgumentTypeError("at least 100 mappings")
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of less than a minute; rough numbers"
    )
    parser.add_argument("--part", choices=(*PARTS, DEVICE), help=f"only that one; {DEVICE} runs only so")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="renew the measured blocks of this page")
    parser.add_argument("--repeats", type=int, metavar="N", help="samples a cell")
    mappings = parser.add_argument_group("the part on mappings")
    mappings.add_argument("--sizes", type=_sizes, metavar="N,N", help="other numbers of mappings")
    mappings.add_argument("--contenders", metavar="A,B", help=f"some of {', '.join(REGISTRY)}")
    mappings.add_argument("--no-memory", action="store_true", help="leave out the bytes a mapping")
    return parser


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _memory(names: list[str], size: int) -> list[Memory]:
    figures = []
    for name in names:
        count = min(size, contender_class(name).limit)
        for order in ORDERS:
            _say(f"memory: {name}, {count:,} mappings in {order} order")
            figures.append(measure_memory(name, count, order))
    return figures


def _mappings(args: argparse.Namespace, names: list[str], repeats: int, on: Machine) -> Part:
    sizes = args.sizes or (QUICK_SIZES if args.quick else SIZES)
    classes = {name: contender_class(name) for name in names}
    compared = self_check(classes)
    _say(f"self-check: {compared:,} operations are the same for {', '.join(names)}")
    results: list[Result] = []
    for size in sizes:
        results += measure(classes, size, repeats=repeats, quick=args.quick, progress=_say)
    memory_size = QUICK_MEMORY_SIZE if args.quick else targets.MEMORY_SIZE
    memory = [] if args.no_memory else _memory(names, memory_size)
    done = report.Report(on, names, sizes, repeats, results, memory, compared)
    return Part(report.markdown(done), report.as_json(done))


def _sampled(
    tables: tuple[Table, ...], things: str, args: argparse.Namespace, repeats: int, on: Machine
) -> Part:
    """A part that is made of cases; `things` are what its contenders' checks count."""
    checked = sampling_selfcheck.self_check(tables)
    _say(f"self-check: {checked:,} {things} are as they should be")
    results: list[sampling.Result] = []
    for table in tables:
        share = QUICK_SHARE if args.quick else 1
        results += sampling.measure(table, repeats=repeats, share=share, progress=_say)
    done = sampling_report.Report(on, tables, repeats, results, checked, things)
    return Part(sampling_report.markdown(done), sampling_report.as_json(done))


def _trace(args: argparse.Namespace, repeats: int, on: Machine) -> Part:
    """Sizes, besides times."""
    opened, handled = QUICK_TRACE if args.quick else (trace.OPENED, trace.HANDLED)
    part = _sampled(trace.tables(opened, handled), "calls and commands", args, repeats, on)
    sizes = trace_size.measure(handled)
    text = f"{part.text}\n{trace_size.markdown(sizes)}"
    return Part(text, {**part.json, "sizes": [asdict(one) for one in sizes]})


def _device(parser: argparse.ArgumentParser, args: argparse.Namespace, repeats: int, on: Machine) -> Part:
    """System calls of a program under `gpuvm run`; all columns, if the page is written."""
    if not has_cc():
        text = "Nothing was measured: the programs are in C, and there is no cc.\n"
        if args.write:
            parser.error(text.strip())
        return Part(text, {"results": []})
    rounds, calls = QUICK_DEVICE_ROUNDS if args.quick else DEVICE_ROUNDS
    measured = device.measure(repeats, rounds, calls, _say)
    for way in measured.ways:
        if way.lacks is not None:
            _say(f"not taking part: {way.title}: {way.lacks}")
            if args.write:
                parser.error(f"--write needs every column; {way.title}: {way.lacks}")
    done = device_report.Report(on, repeats, rounds, measured)
    return Part(device_report.markdown(done), device_report.as_json(done))


def _contenders(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Those who take part in measuring mappings."""
    names = args.contenders.split(",") if args.contenders else list(REGISTRY)
    unknown = [name for name in names if name not in REGISTRY]
    if unknown:
        parser.error(f"unknown contender {', '.join(unknown)}; there are {', '.join(REGISTRY)}")
    missing = [name for name in names if not available(name)]
    if missing:
        if args.write:
            parser.error(f"--write needs every contender; not installed: {', '.join(missing)}")
        _say(f"not installed, left out: {', '.join(missing)}")
    return [name for name in names if name not in missing]


def main(argv: list[str] | None = None) -> int:
    """Check, measure, report."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.write and (args.quick or args.sizes or args.contenders or args.no_memory):
        parser.error("--write publishes the numbers: it needs the whole run, all contenders and sizes")
    repeats = args.repeats or (QUICK_REPEATS if args.quick else REPEATS)
    names = _contenders(parser, args) if args.part in (None, MAPPINGS) else []
    parts: dict[str, Part] = {}
    on = machine(quick=args.quick)
    try:
        if args.part in (None, MAPPINGS):
            parts[MAPPINGS] = _mappings(args, names, repeats, on)
        if args.part in (None, LOCKING):
            parts[LOCKING] = _sampled(locking.TABLES, "fences, turns and jobs", args, repeats, on)
        if args.part in (None, PAGING):
            parts[PAGING] = _sampled(paging.TABLES, "entries, pages and blocks", args, repeats, on)
        if args.part in (None, DRIVER):
            parts[DRIVER] = _sampled(driver.tables(), "operations, jobs and KiB", args, repeats, on)
        if args.part in (None, TRACE):
            parts[TRACE] = _trace(args, repeats, on)
        if args.part == DEVICE:
            parts[DEVICE] = _device(parser, args, repeats, on)
    except Disagreement as problem:
        print(f"no numbers: the contenders do not do the same work: {problem}", file=sys.stderr)
        return 1
    print("\n".join(part.text for part in parts.values()), end="")
    if args.json:
        everything = {"machine": asdict(on), **{name: part.json for name, part in parts.items()}}
        args.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    if args.write:
        renew_blocks(args.write, {name: part.text for name, part in parts.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
