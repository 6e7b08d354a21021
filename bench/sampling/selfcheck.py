"""The proof, before any clock is read, that every contender does the work of its cases."""

from __future__ import annotations

from collections.abc import Sequence

from bench.sampling.case import Table
from bench.sampling.measure import run_once
from bench.selfcheck import Disagreement

_SHARE = 50


def self_check(tables: Sequence[Table]) -> int:
    """Let everybody do a small part of every case; the number of things found done. Raises `Disagreement`."""
    found = 0
    for table in tables:
        for case in table.cases:
            done = {}
            for name, make in case.contenders.items():
                contender = make()
                try:
                    run_once(contender, case.units_of(_SHARE), table.clock)
                    done[name] = contender.check()
                finally:
                    contender.close()
            if len(set(done.values())) > 1:
                raise Disagreement(f"{table.title}, {case.title}: {done}")
            found += sum(done.values())
    return found
