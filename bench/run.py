"""The command: ``python -m bench.run``. Progress goes to stderr, the tables to stdout."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench import targets
from bench.contenders import REGISTRY, available, contender_class
from bench.machine import machine
from bench.measure import Result, measure
from bench.memory import ORDERS, Memory, measure_memory
from bench.report import Report, as_json, markdown, write_between_markers
from bench.selfcheck import Disagreement, self_check

SIZES = (1_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 20_000)
QUICK_MEMORY_SIZE = 50_000
REPEATS = 7
QUICK_REPEATS = 3


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="renew the measured block of this page")
    parser.add_argument("--sizes", type=_sizes, metavar="N,N", help="other numbers of mappings")
    parser.add_argument("--repeats", type=int, metavar="N", help="samples a cell")
    parser.add_argument("--contenders", metavar="A,B", help=f"some of {', '.join(REGISTRY)}")
    parser.add_argument("--no-memory", action="store_true", help="leave out the bytes a mapping")
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


def main(argv: list[str] | None = None) -> int:
    """Check, measure, report."""
    parser = _parser()
    args = parser.parse_args(argv)
    names = args.contenders.split(",") if args.contenders else list(REGISTRY)
    unknown = [name for name in names if name not in REGISTRY]
    if unknown:
        parser.error(f"unknown contender {', '.join(unknown)}; there are {', '.join(REGISTRY)}")
    partial = bool(args.quick or args.sizes or args.contenders or args.no_memory)
    if args.write and partial:
        parser.error("--write publishes the numbers: it needs the whole run, all contenders and sizes")
    sizes = args.sizes or (QUICK_SIZES if args.quick else SIZES)
    missing = [name for name in names if not available(name)]
    if missing:
        if args.write:
            parser.error(f"--write needs every contender; not installed: {', '.join(missing)}")
        _say(f"not installed, left out: {', '.join(missing)}")
        names = [name for name in names if name not in missing]

    classes = {name: contender_class(name) for name in names}
    try:
        compared = self_check(classes)
        _say(f"self-check: {compared:,} operations are the same for {', '.join(names)}")
        repeats = args.repeats or (QUICK_REPEATS if args.quick else REPEATS)
        results: list[Result] = []
        for size in sizes:
            results += measure(classes, size, repeats=repeats, quick=args.quick, progress=_say)
    except Disagreement as problem:
        print(f"no numbers: the contenders do not do the same work: {problem}", file=sys.stderr)
        return 1
    memory_size = QUICK_MEMORY_SIZE if args.quick else targets.MEMORY_SIZE
    memory = [] if args.no_memory else _memory(names, memory_size)
    report = Report(machine(quick=args.quick), names, sizes, repeats, results, memory, compared)
    text = markdown(report)
    print(text, end="")
    if args.json:
        args.json.write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    if args.write:
        write_between_markers(args.write, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
