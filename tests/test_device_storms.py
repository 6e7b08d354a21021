"""Storms: no call is carried out twice and none is lost, whatever signals come and whoever is killed."""

from __future__ import annotations

import pytest

from caught_program import CaughtProgram
from compiled import compiled, needs_cc
from running import both_modes, gpuvm_run
from suite import scaled
from toys import Toys

pytestmark = needs_cc
IN_HANDLER = 100


@pytest.mark.parametrize("restart", ["restart", "end"])
@pytest.mark.parametrize("threads", [1, 5])
def test_each_call_is_counted_once_in_a_storm_of_signals(threads: int, restart: str) -> None:
    toys = Toys()
    calls = scaled(3000, 200_000) // threads
    with CaughtProgram([compiled("storm"), str(threads), str(calls), restart], toys) as program:
        status, output = program.finish()
    assert status == 0, output
    handled = 0
    for line in output.splitlines():
        thread, done, in_handler = map(int, line.split())
        assert done == calls
        assert toys.counted[thread] == done
        assert toys.counted[IN_HANDLER + thread] == in_handler
        handled += in_handler
    assert handled > 50


@pytest.mark.parametrize("restart", ["restart", "end"])
@pytest.mark.parametrize("threads", [1, 6])
def test_waits_end_only_for_a_handler_in_a_storm_of_signals(threads: int, restart: str) -> None:
    toys = Toys()
    waits = str(scaled(40, 3000) if threads == 1 else scaled(20, 500))
    with CaughtProgram([compiled("storm_waits"), str(threads), waits, restart], toys) as program:
        status, output = program.finish()
        assert status == 0, output
        assert program.server.statistics().watcher.interrupts > 0
    ended, handlers = map(int, output.split())
    assert handlers > 0
    assert (ended > 0) == (restart == "end")


@both_modes
@pytest.mark.parametrize("restart", ["restart", "end"])
def test_no_bind_and_no_object_is_made_twice_in_a_storm_of_signals(
    mode: tuple[str, ...], restart: str
) -> None:
    threads, objects = 3, scaled(40, 2000)
    ran = gpuvm_run(
        compiled("storm_binds"), str(threads), str(objects), restart, options=mode, timeout=scaled(60, 600)
    )
    assert ran.status == 0, ran
    assert ran.out == "stormy\n"
    made = threads * objects
    assert f"in {threads} opens" in ran.report["calls"]
    assert f"{made:,} GEM_NEW" in ran.report["calls"]
    assert f"{made:,} SYNCOBJ_CREATE" in ran.report["calls"]
    assert ran.report["binds"] == f"{2 * made:,} with {2 * made:,} operations"
