"""`gpuvm export --format perfetto`: what Perfetto draws of a trace whose every time is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiled import compiled, needs_cc
from gpuvm.trace import database
from gpuvm.trace.recorded import GetParam
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from perfetto_reader import Drawn, Slice, draw
from perfetto_scene import AT, OTHER, PAGE, PID, scene, written
from running import gpuvm_run
from trace_scenes import trace_of

APP = f"app {PID}/{PID}"


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw(written(scene()))


def test_calls_are_slices_of_their_process(drawn: Drawn) -> None:
    calls = [one for one in drawn.slices(APP) if one.depth == 0]
    assert calls == [
        Slice("VM_INIT", 100, 150, 0),
        Slice("GEM_NEW", 200, 250, 0),
        Slice("SYNCOBJ_CREATE", 400, 450, 0),
        Slice("VM_BIND", 1000, 1100, 0),
        Slice("EXEC", 2000, 2100, 0),
        Slice("SYNCOBJ_TIMELINE_WAIT", 3000, 8000, 0),
        Slice("SYNCOBJ_WAIT", 8500, 8510, 0),
        Slice("VM_BIND", 9000, 9100, 0),
        Slice("GEM_CLOSE", 9200, 9210, 0),
    ]
    other = f"other {OTHER}/{OTHER}"
    assert [one.name for one in drawn.slices(other)] == ["GEM_NEW", "CLOSE"]
    assert drawn.notes[APP, 1000] == {"call": 5, "client": 1, "bind ops": 1, "channel": 0}
    assert drawn.notes[APP, 2000] == {"call": 6, "client": 1, "push buffers": 1, "channel": 2}
    assert drawn.notes[APP, 8500] == {"call": 9, "client": 1, "error": "ETIME"}


def test_a_call_beside_another_is_of_another_thread(drawn: Drawn) -> None:
    (beside,) = (name for name in drawn.names if "at the same time" in name)
    assert beside.startswith(f"app, at the same time {PID}/")
    assert drawn.slices(beside) == [Slice("EXEC", 2050, 2250, 0)]
    assert drawn.instants[beside] == [(2060, "queued 7")]


def test_jobs_are_on_their_rings(drawn: Drawn) -> None:
    assert drawn.instants[APP] == [(1050, "queued 5"), (2010, "queued 6")]
    assert drawn.slices("sched-client 1 binds") == [Slice("job 5", 1100, 2500, 0)]
    # The second was started while the first was running; Perfetto draws it when it is the ring's only one.
    assert drawn.slices("sched-client 1 channel 2") == [
        Slice("job 6", 2600, 5000, 0),
        Slice("job 7", 5000, 7000, 0),
    ]


def test_fences_are_on_their_timelines(drawn: Drawn) -> None:
    # Before the first dma_fence_emit Perfetto takes dma_fence_init for the begin.
    assert drawn.slices("fence-timeline 40-40") == [
        Slice("fence 1", 1050, 1100, 0),
        Slice("fence 1", 1100, 2500, 0),
    ]
    assert drawn.slices("fence-timeline 41-41") == [
        Slice("fence 1", 2010, 2600, 0),
        Slice("fence 1", 2600, 5000, 0),
        Slice("fence 2", 5000, 7000, 0),
    ]
    assert drawn.slices("fence-moves-50") == [Slice("fence 1", 2100, 2200, 0)]


def test_a_wait_names_the_fence_that_ended_it(drawn: Drawn) -> None:
    waits = [one for one in drawn.slices(APP) if one.depth == 1]
    # The other call that waits finds its fence signalled.
    assert waits == [Slice("wait 41:2", 3001, 7999, 1)]


def test_memory_is_made_bound_and_destroyed(drawn: Drawn) -> None:
    two = {"pid": PID, "memory": 2}
    three = {"pid": OTHER, "memory": 3, "size": PAGE}
    four, rest = {"size": 4 * PAGE}, {"size": 3 * PAGE}
    assert drawn.memory == [
        {"time": 250, "what": "DEVICE_MEMORY CREATE", "function": "gem_new", **two, **four},
        {"time": 350, "what": "DEVICE_MEMORY CREATE", "function": "gem_new", **three},
        {"time": 1100, "what": "BUFFER BIND", "function": "vm_bind", "address": AT, **two, **four},
        {"time": 9100, "what": "BUFFER DESTROY_BOUND", "function": "vm_bind", "address": AT, **two, **four},
        {"time": 9100, "what": "BUFFER BIND", "function": "vm_bind", "address": AT + PAGE, **two, **rest},
        {"time": 9920, "what": "DEVICE_MEMORY DESTROY", "function": "close", **three},
    ]
    kind = "vulkan.mem.device.memory.type"
    assert drawn.counters[f"app {PID}: {kind}.0.allocation"] == [(250, 4 * PAGE)]
    assert drawn.counters[f"app {PID}: {kind}.0.bind"][-1] == (9100, 3 * PAGE)
    # A type of its own, or Perfetto would add the two.
    assert drawn.counters[f"other {OTHER}: {kind}.2.allocation"] == [(350, PAGE), (9920, 0)]


def test_counters_moves_and_faults(drawn: Drawn) -> None:
    assert drawn.counters[f"app {PID}: client 1 mapped"] == [(1100, 4 * PAGE), (9100, 3 * PAGE)]
    assert drawn.counters["VRAM"] == [(1020, 4 * PAGE), (1110, 0)]
    assert drawn.slices("moves of objects") == [Slice("first use, in vram", 1000, 1020, 0)]
    # The eviction began before that ended.
    assert drawn.slices("moves of objects'") == [Slice("evicted from vram to gart", 1010, 1110, 0)]
    faults = f"app {PID}: faults"
    assert drawn.instants[faults] == [(5500, "USE_AFTER_UNMAP")]
    notes = drawn.notes[faults, 5500]
    assert (notes["address"], notes["unmapped by call"], notes["mapped by call"]) == (AT + 8, 10, 5)


def test_the_wall_clock_is_told(drawn: Drawn) -> None:
    assert drawn.clocks == [{6: 0, 1: 1767323045_500_000_000}]


def test_json_lines_have_no_times_of_jobs() -> None:
    drawn = draw(
        written(
            trace_of(
                '{"t":5,"client":9,"call":"vm_init","kernel_addr":0,"kernel_size":0,"ret":0}\n',
                '{"t":6,"client":9,"call":"gem_new","domain":4,"size":4096,"align":0,"handle":1,"ret":0}\n',
                '{"t":7,"client":9,"call":"exec","channel":1,"pushes":[],"waits":[],"signals":[],"ret":0}\n',
                '{"t":8,"client":9,"call":"getparam","param":3,"ret":-22}\n',
            )
        )
    )
    (thread,) = (name for name in drawn.names if "/" in name)
    assert thread.startswith("client 9 ")
    assert drawn.instants[thread] == [(5, "VM_INIT"), (6, "GEM_NEW"), (7, "EXEC"), (8, "GETPARAM")]
    assert drawn.notes[thread, 8]["error"] == "EINVAL"
    assert [said["what"] for said in drawn.memory] == ["DEVICE_MEMORY CREATE"]
    assert [name[-17:] for name in drawn.counters] == ["type.1.allocation"]
    assert not drawn.tracks
    assert drawn.clocks == []


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=40))
def test_calls_of_a_lane_never_overlap(spans: list[tuple[int, int]]) -> None:
    db = database.create_temporary()
    writer = Writer(db)
    for call, (begin, took) in enumerate(spans, 1):
        writer.call(GetParam(call, begin, 1, 0, "getparam", 3, None), took)
    writer.finish()
    drawn = draw(written(Trace("spans", Form.SQLITE, db)))
    shown = [one for track in drawn.tracks for one in drawn.slices(track)]
    assert sorted((one.begin, one.end) for one in shown) == sorted((at, at + took) for at, took in spans)
    assert all(one.depth == 0 for one in shown)
    ordered = sorted(spans, key=lambda span: span[0])
    running = [sum(at + took > now for at, took in ordered[:index]) for index, (now, _) in enumerate(ordered)]
    assert len(drawn.tracks) == 1 + max(running)


@needs_cc
def test_a_recorded_program(tmp_path: Path) -> None:
    path = tmp_path / "app.gpuvm"
    ran = gpuvm_run(str(compiled("frames")), "--frames", "4", verb="record", options=("-o", str(path)))
    assert ran.status == 0, ran
    with Trace.open(str(path)) as recorded:
        drawn = draw(written(recorded))
        calls = recorded.last_call()
        jobs = recorded.db.execute("SELECT count(*) FROM jobs WHERE done IS NOT NULL").fetchone()[0]
        (pid,) = recorded.db.execute("SELECT pid FROM clients").fetchone()
    slices = {name: drawn.slices(name) for name in drawn.tracks}
    threads = [name for name in drawn.names if f" {pid}/" in name]
    # The close of the open, which lasted no time, is told among the queued jobs.
    assert sum(one.depth == 0 for name in threads for one in slices[name]) == calls - 1
    rings = [name for name in slices if name.startswith("sched-client 1 ")]
    assert sum(len(slices[name]) for name in rings) == jobs > 0
    assert sum(len(drawn.instants[name]) for name in threads) == jobs + 1
    assert all(one.end is not None for name in slices for one in slices[name])
    (mapped,) = (name for name in drawn.counters if name.endswith("mapped"))
    assert drawn.counters[mapped][-1][1] == 0
    assert drawn.clocks
