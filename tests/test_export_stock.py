"""Perfetto itself opens what `gpuvm export --format perfetto` writes, and draws it where and when it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import needs_browser
from compiled import compiled, needs_cc
from gpuvm.trace.trace import Trace
from perfetto_reader import Drawn, draw
from perfetto_scene import AT, OTHER, PAGE, PID, scene, written
from running import gpuvm_run
from stock_perfetto import Perfetto, needs_perfetto, perfetto
from tracefile import EXAMPLES

pytestmark = [needs_browser, needs_perfetto]

# What a slice is called and where it is, in the words of perfetto_reader.
_SLICES = """
SELECT coalesce(
        thread.name || ' ' || process.pid || '/' || tid,
        process.name || ' ' || process.pid || ': ' || track.name,
        track.name),
    ts, dur, iif(dur = 0, 0, depth),
    CASE slice.name
        WHEN 'job' THEN 'job ' || extract_arg(slice.arg_set_id, 'gpu sched job')
        WHEN 'drm_sched_job' THEN 'queued ' || extract_arg(slice.arg_set_id, 'gpu sched job')
        WHEN 'fence' THEN 'fence ' || extract_arg(slice.arg_set_id, 'fence seqno')
        WHEN 'dma_fence_wait' THEN
            'wait ' || extract_arg(slice.arg_set_id, 'fence context')
            || ':' || extract_arg(slice.arg_set_id, 'fence seqno')
        ELSE slice.name
    END
FROM slice JOIN track ON track.id = track_id
LEFT JOIN thread_track ON thread_track.id = track_id LEFT JOIN thread USING (utid)
LEFT JOIN process_track ON process_track.id = track_id
LEFT JOIN process ON process.upid = coalesce(thread.upid, process_track.upid)"""
_COUNTERS = """
SELECT iif(process.pid IS NULL, '', process.name || ' ' || process.pid || ': ') || track.name, ts, value
FROM counter JOIN counter_track AS track ON track.id = track_id
LEFT JOIN process_counter_track ON process_counter_track.id = track_id LEFT JOIN process USING (upid)"""


@pytest.fixture(scope="module")
def stock() -> Iterator[Perfetto]:
    with perfetto() as browser:
        yield browser


@pytest.fixture(scope="module")
def drawn(stock: Perfetto) -> Perfetto:
    stock.open(written(scene()))
    return stock


def _complaints(stock: Perfetto) -> list[Any]:
    """Of the import and of the UI."""
    wrong = stock.rows("SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0")
    return [*wrong, *stock.js("return app.trace.loadingErrors")]


def _slices(stock: Perfetto, track: str) -> list[tuple[Any, ...]]:
    return [(ts, dur, name) for at, ts, dur, _, name in stock.rows(f"{_SLICES} ORDER BY ts") if at == track]


def test_it_has_nothing_to_complain_about(drawn: Perfetto) -> None:
    assert _complaints(drawn) == []


def test_calls_are_slices_of_their_process(drawn: Perfetto) -> None:
    assert drawn.rows("SELECT pid, name FROM process WHERE pid > 0") == [(PID, "app"), (OTHER, "other")]
    calls = drawn.rows(
        "SELECT slice.name, ts, dur, tid = pid FROM slice JOIN thread_track ON thread_track.id = track_id"
        f" JOIN thread USING (utid) JOIN process USING (upid) WHERE depth = 0 AND pid = {PID} ORDER BY ts"
    )
    assert calls == [
        ("VM_INIT", 100, 50, 1),
        ("GEM_NEW", 200, 50, 1),
        ("SYNCOBJ_CREATE", 400, 50, 1),
        ("VM_BIND", 1000, 100, 1),
        ("EXEC", 2000, 100, 1),
        ("EXEC", 2050, 200, 0),
        ("SYNCOBJ_TIMELINE_WAIT", 3000, 5000, 1),
        ("SYNCOBJ_WAIT", 8500, 10, 1),
        ("VM_BIND", 9000, 100, 1),
        ("GEM_CLOSE", 9200, 10, 1),
    ]


def test_jobs_fences_and_waits_are_on_its_own_tracks(drawn: Perfetto) -> None:
    assert _slices(drawn, "sched-client 1 binds") == [(1100, 1400, "job 5")]
    assert _slices(drawn, "sched-client 1 channel 2") == [(2600, 2400, "job 6"), (5000, 2000, "job 7")]
    assert _slices(drawn, "fence-timeline 41-41") == [
        (2010, 590, "fence 1"),
        (2600, 2400, "fence 1"),
        (5000, 2000, "fence 2"),
    ]
    assert _slices(drawn, "fence-moves-50") == [(2100, 100, "fence 1")]
    waits = drawn.rows("SELECT ts, dur FROM slice WHERE name = 'dma_fence_wait'")
    assert waits == [(3001, 4998)]
    arrows = drawn.rows(
        "SELECT call.name, call.ts, job.ts FROM flow JOIN slice AS queued ON queued.id = slice_out"
        " JOIN slice AS call ON call.id = queued.parent_id JOIN slice AS job ON job.id = slice_in"
        " ORDER BY call.ts"
    )
    assert arrows == [("VM_BIND", 1000, 1100), ("EXEC", 2000, 2600), ("EXEC", 2050, 5000)]


def test_memory_is_made_bound_and_destroyed(drawn: Perfetto) -> None:
    memory = drawn.rows(
        "SELECT timestamp, pid, operation, function_name, device_memory, memory_address, memory_size"
        " FROM vulkan_memory_allocations AS event JOIN process USING (upid) ORDER BY timestamp, event.id"
    )
    assert memory == [
        (250, PID, "CREATE", "gem_new", 2, None, 4 * PAGE),
        (350, OTHER, "CREATE", "gem_new", 3, None, PAGE),
        (1100, PID, "BIND", "vm_bind", 2, AT, 4 * PAGE),
        (9100, PID, "DESTROY_BOUND", "vm_bind", 2, AT, 4 * PAGE),
        (9100, PID, "BIND", "vm_bind", 2, AT + PAGE, 3 * PAGE),
        (9920, OTHER, "DESTROY", "close", 3, None, PAGE),
    ]


def test_counters_moves_and_faults(drawn: Perfetto) -> None:
    counters = sorted(drawn.rows(_COUNTERS))
    kind = "vulkan.mem.device.memory.type"
    assert counters == [
        ("VRAM", 1020, 4 * PAGE),
        ("VRAM", 1110, 0),
        (f"app {PID}: client 1 mapped", 1100, 4 * PAGE),
        (f"app {PID}: client 1 mapped", 9100, 3 * PAGE),
        (f"app {PID}: {kind}.0.allocation", 250, 4 * PAGE),
        (f"app {PID}: {kind}.0.bind", 1100, 4 * PAGE),
        (f"app {PID}: {kind}.0.bind", 9100, 0),
        (f"app {PID}: {kind}.0.bind", 9100, 3 * PAGE),
        (f"other {OTHER}: {kind}.2.allocation", 350, PAGE),
        (f"other {OTHER}: {kind}.2.allocation", 9920, 0),
    ]
    assert _slices(drawn, "moves of objects") == [
        (1000, 20, "first use, in vram"),
        (1010, 100, "evicted from vram to gart"),
    ]
    assert _slices(drawn, f"app {PID}: faults") == [(5500, 0, "USE_AFTER_UNMAP")]
    notes = drawn.rows(
        "SELECT key, display_value FROM slice JOIN args USING (arg_set_id)"
        " WHERE slice.name = 'USE_AFTER_UNMAP'"
    )
    assert ("debug.address", hex(AT + 8)) in notes
    assert ("debug.unmapped by call", "10") in notes


def test_the_wall_clock_is_known(drawn: Perfetto) -> None:
    clocks = drawn.rows("SELECT clock_name, CAST(clock_value AS TEXT) FROM clock_snapshot")
    assert clocks == [("BOOTTIME", "0"), ("REALTIME", "1767323045500000000")]


def test_the_window_shows_the_tracks(drawn: Perfetto) -> None:
    names = drawn.js("return app.trace.workspace.flatTracks.map((track) => track.name)")
    for name in (
        *("GPU", "Vulkan Allocations", "Vulkan Binds", "DRM Sched Ring", "DRM Fence"),
        *(f"app {PID}", f"other {OTHER}", "sched-client 1 binds", "fence-moves-50"),
        *("client 1 mapped", "VRAM", "moves of objects", "faults"),
    ):
        assert name in names


def _of_reader(read: Drawn) -> tuple[list[Any], list[Any]]:
    slices = [
        (track.rstrip("'"), one.begin, (one.end or 0) - one.begin, one.depth, one.name)
        for track in list(read.tracks)
        for one in read.slices(track)
    ]
    instants = [(track, at, 0, 0, name) for track, all_ in read.instants.items() for at, name in all_]
    shown = [(track, at, took, depth if took else 0, name) for track, at, took, depth, name in slices]
    counts = [(track, at, value) for track, all_ in read.counters.items() for at, value in all_]
    return sorted(shown + instants), sorted(counts)


def _of_stock(stock: Perfetto) -> tuple[list[Any], list[Any]]:
    return sorted(stock.rows(_SLICES)), sorted(stock.rows(_COUNTERS))


def test_our_reader_draws_the_scene_as_it_does(drawn: Perfetto) -> None:
    assert _of_reader(draw(written(scene()))) == _of_stock(drawn)


@needs_cc
def test_a_recorded_program_with_a_fault(stock: Perfetto, tmp_path: Path) -> None:
    path = tmp_path / "broken.gpuvm"
    options = ("-o", str(path))
    gpuvm_run(compiled("broken_streaming", folder=EXAMPLES), verb="record", options=options)
    with Trace.open(str(path)) as recorded:
        data = written(recorded)
        (fault,) = recorded.db.execute("SELECT t, cause, unmapped FROM faults").fetchall()
    stock.open(data)
    assert _complaints(stock) == []
    assert _of_reader(draw(data)) == _of_stock(stock)
    shown = stock.rows(
        "SELECT ts, slice.name, extract_arg(slice.arg_set_id, 'debug.unmapped by call') FROM slice"
        " JOIN process_track ON process_track.id = track_id WHERE process_track.name = 'faults'"
    )
    assert shown == [fault]
