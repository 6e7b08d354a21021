"""The numbers of `gpuvm top`: right at every moment of a recording, without reading all of it again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvm.report.top.watch import FAULTS_KEPT, Moment, Watch
from gpuvm.trace.errors import TraceError
from gpuvm.trace.snapshot import take_snapshot
from gpuvm.trace.source import Source, upto
from gpuvm.trace.stream import Stream
from gpuvm.trace.trace import Trace
from suite import scaled
from top_scenes import KIB, MIB, MS, SIZE, Recording, rendering
from trace_scenes import trace_of
from tracefile import SPARSE_BUFFER, gem_new, vm_init

SECOND = 1_000_000_000


def look(watch: Watch, recording: Recording, now: int | None = None) -> Moment:
    recording.commit()
    with Trace.open(recording.path) as trace:
        moment = watch.look(trace, now)
    with Trace.open(recording.path) as trace:
        watch.check(trace)
    return moment


def test_a_rendering_program(tmp_path: Path) -> None:
    scene = rendering(tmp_path / "a.gpuvm", frames=40)
    moment = look(Watch(), scene)
    game, browser = moment.clients
    assert (game.name, browser.name) == ("game (1001)", "browser (1002)")
    assert (game.space.mappings, game.space.mapped_bytes, game.space.regions) == (30, 30 * SIZE, 1)
    assert (browser.space.mappings, browser.space.mapped_bytes) == (3, 12 * MIB)
    assert [(one.name, one.count, one.refused) for one in browser.calls] == [
        ("gem_new", 3, 0),
        ("vm_bind", 3, 0),
        ("gem_info", 1, 1),
        ("vm_init", 1, 0),
    ]
    assert (game.tables.written, game.tables.cleared, game.tables.tables) == (40 * 16, 10 * 16, 30)
    assert moment.memory is not None
    assert moment.memory.vram == 30 * SIZE + 12 * MIB
    assert (moment.chip, moment.vram, moment.faults_total) == ("TU102", 8 << 30, 0)
    assert moment.last_call_at == scene.ms * MS + 20_000


def test_jobs_wait_run_and_end(tmp_path: Path) -> None:
    scene, watch = Recording(tmp_path / "a.gpuvm"), Watch()
    scene.opened(1, "game")
    first = scene.exec()
    scene.ms += 5
    scene.exec()
    assert [(q.queued, q.running, q.since, q.done) for q in look(watch, scene).queues or ()] == [(2, 0, 0, 0)]
    scene.start(first)
    assert [(q.queued, q.running, q.since, q.done) for q in look(watch, scene).queues or ()] == [(1, 1, 0, 0)]
    scene.end(first, error=19)
    (queue,) = look(watch, scene).queues or ()
    assert (queue.queued, queue.running, queue.since) == (1, 0, 5 * MS)
    assert (queue.done, queue.failed) == (1, 1)
    scene.closed(1)
    assert look(watch, scene).queues == ()


def test_page_work_that_comes_later_is_counted(tmp_path: Path) -> None:
    scene, watch = Recording(tmp_path / "a.gpuvm"), Watch()
    scene.opened(1, "game")
    scene.object(1)
    bind = {"client": 1, "call": "vm_bind", "flags": 1, "waits": [], "signals": [], "ret": 0}
    ops = [{"op": "map", "flags": 0, "handle": 1, "addr": SIZE, "bo_offset": 0, "range": SIZE}]
    call = scene.call({**bind, "ops": ops})
    scene.writer.queued(call, 7, 1, "binds", scene.ms * MS)
    for _ in range(3):
        assert look(watch, scene).clients[0].tables.written == 0
    scene.writer.page_work(call, 16, 0, 1, 0)
    scene.writer.done(7, 1, scene.ms * MS, 0)
    assert look(watch, scene).clients[0].tables.written == 16
    assert look(watch, scene).clients[0].tables.written == 16


def test_evictions_and_what_is_gone(tmp_path: Path) -> None:
    scene, watch = Recording(tmp_path / "a.gpuvm"), Watch()
    scene.opened(1, "game")
    for handle in (1, 2):
        scene.object(handle)
    scene.evict(1)
    memory = look(watch, scene).memory
    assert memory is not None
    assert (memory.vram, memory.gart, memory.evictions, memory.evicted_bytes) == (SIZE, SIZE, 1, SIZE)
    scene.writer.moved(scene.ms * MS, 0, (1 << 40) + 2 * MIB, SIZE, "vram", None, False)
    memory = look(watch, scene).memory
    assert memory is not None
    assert (memory.vram, memory.evictions) == (0, 1)


def test_a_closed_client_stands_as_it_was(tmp_path: Path) -> None:
    scene, watch = rendering(tmp_path / "a.gpuvm", frames=30), Watch()
    before = look(watch, scene).clients
    scene.closed(1)
    after = look(watch, scene).clients
    assert after[0].space == before[0].space
    assert after[0].closed == scene.ms * MS
    assert after[1].closed is None
    assert watch.statistics().mappings == 3
    scene.opened(3, "game")
    assert [one.space.mappings for one in look(watch, scene).clients] == [25, 3, 0]


def test_rates_are_of_the_last_second_and_go_down_when_nothing_comes(tmp_path: Path) -> None:
    scene, watch = Recording(tmp_path / "a.gpuvm"), Watch()
    scene.opened(1, "game")
    scene.object(1)
    for _ in range(20):  # for two seconds, ten a second
        scene.map(SIZE, 1)
        scene.ms += 100
    moment = look(watch, scene, scene.ms * MS)
    assert (moment.clients[0].binds_per_second, moment.now) == (10, 2 * SECOND)
    assert moment.clients[0].ops_per_second == 19 - 9 + 10  # each but the first unmaps, too
    assert moment.clients[0].binds[-21:] == (*([1] * 20), 0)
    assert look(watch, scene, 2_500 * MS).clients[0].binds_per_second == 5
    later = look(watch, scene, 4 * SECOND)
    assert later.clients[0].binds_per_second == 0
    much_later = look(watch, scene, 90 * SECOND)
    assert much_later.clients[0].binds == ()
    assert look(watch, scene, 30 * SECOND).clients[0].binds_per_second == 0


def test_faults_newest_first(tmp_path: Path) -> None:
    scene, watch = Recording(tmp_path / "a.gpuvm"), Watch()
    scene.opened(1, "game")
    for number in range(FAULTS_KEPT + 5):
        scene.fault(number * KIB)
        if number % 50 == 0:
            look(watch, scene)
    moment = look(watch, scene)
    assert moment.faults_total == FAULTS_KEPT + 5
    assert [one.addr for one in moment.faults[:2]] == [(FAULTS_KEPT + 4) * KIB, (FAULTS_KEPT + 3) * KIB]
    assert len(moment.faults) == FAULTS_KEPT


def test_among_chooses_clients(tmp_path: Path) -> None:
    scene = rendering(tmp_path / "a.gpuvm", frames=10)
    scene.fault(KIB, client=2)
    moment = look(Watch(), scene)
    assert [one.id for one in moment.among("GAME").clients] == [1]
    assert [one.id for one in moment.among("2").clients] == [2]
    assert moment.among("game").faults == ()
    assert moment.among("game").faults_total == 0
    assert {one.client for one in moment.among("game").queues or ()} == {1}
    assert moment.among("nobody").clients == ()
    assert moment.among("100").faults_total == 1


def test_an_empty_recording(tmp_path: Path) -> None:
    moment = look(Watch(), Recording(tmp_path / "a.gpuvm"))
    assert (moment.clients, moment.last_call, moment.faults, moment.queues) == ((), 0, (), ())


def test_json_lines_do_not_tell_jobs_and_memory() -> None:
    with trace_of(vm_init(), gem_new(1)) as trace:
        moment = Watch().look(trace)
    assert (moment.queues, moment.memory, moment.whole, moment.chip) == (None, None, True, None)
    assert moment.clients[0].name == "client 1"


@pytest.mark.parametrize("line", [20, 40, 60, 90, 116])
def test_mappings_are_those_of_the_space_itself(line: int, tmp_path: Path) -> None:
    text = "".join(SPARSE_BUFFER.read_text().splitlines(keepends=True)[:line])
    (tmp_path / "part.jsonl").write_text(text)
    with Source(str(SPARSE_BUFFER)) as source:
        lines = upto(source.name, source, line)
        known = take_snapshot(Stream(source.name, lines, None), client=2).vm
    with Trace.open(str(tmp_path / "part.jsonl")) as trace:
        (space,) = (one.space for one in Watch().look(trace).clients if one.id == 2)
    expected = known.statistics()
    assert (space.mappings, space.mapped_bytes) == (expected.mappings, expected.mapped_bytes)
    assert (space.holes, space.fragmentation) == (expected.holes, expected.fragmentation)
    assert space.regions == len(known.region_list())


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE mappings SET addr = 0, range = 1 << 20",
        "UPDATE mappings SET addr = 'here'",
        "UPDATE clients SET name = CAST(x'ff' AS TEXT)",
    ],
)
def test_contradicting_tables_are_told(damage: str, tmp_path: Path) -> None:
    scene = rendering(tmp_path / "a.gpuvm", frames=5)
    scene.writer._db.execute(damage)
    scene.commit()
    with (
        Trace.open(scene.path) as trace,
        pytest.raises(TraceError, match=r"a.gpuvm: (its tables contradict|damaged)"),
    ):
        Watch().look(trace)


def test_only_new_rows_are_read(tmp_path: Path) -> None:
    """No query of a later look goes through a table from its beginning."""
    scene, watch = rendering(tmp_path / "a.gpuvm", frames=30), Watch()
    look(watch, scene)
    scene.object(99)
    scene.map(9 * MIB, 99)
    scene.commit()
    asked: list[str] = []
    with Trace.open(scene.path) as trace:
        trace.db.set_trace_callback(asked.append)
        watch.look(trace)
        trace.db.set_trace_callback(None)
        assert len(asked) > 10
        for query in asked:
            for *_, step in trace.db.execute(f"EXPLAIN QUERY PLAN {query}"):
                assert not step.startswith("SCAN") or step.split()[1] in _SMALL, f"{step}: {query}"
    assert watch.statistics().rows < 12


_SMALL = ("device", "call_totals", "json_each", "one", "alive", "late", "CONSTANT")
"""What has one row, a row for each kind of call, or one for each that was not finished."""


# -- any recording, looked at at any time

STEPS: dict[str, Callable[[Recording, int, int], object]] = {
    "object": lambda scene, client, n: scene.object(n, client),
    "map": lambda scene, client, n: scene.map(n * SIZE, 1 + n % 3, client, (1 + n % 4) * SIZE),
    "unmap": lambda scene, client, n: scene.unmap(n * SIZE, client, (1 + n % 2) * SIZE),
    "sparse": lambda scene, client, n: scene.sparse((64 + 16 * n) * MIB, client),
    "sparse gone": lambda scene, client, n: scene.sparse((64 + 16 * n) * MIB, client, code="unmap"),
    "exec": lambda scene, client, n: scene.exec(1 + n % 2, client),
    "fault": lambda scene, client, n: scene.fault(n * KIB, client),
    "evict": lambda scene, client, n: scene.evict(n, client),
    "time": lambda scene, client, n: setattr(scene, "ms", scene.ms + n * n * 40),
}


@settings(max_examples=scaled(25, 500), deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 3), st.integers(0, 9), st.booleans()),
        max_size=40,
    ),
    ends=st.lists(st.integers(0, 30), max_size=10),
)
def test_following_sees_what_a_first_look_sees(
    steps: list[tuple[str, int, int, bool]], ends: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene, watch = Recording(Path(folder) / "a.gpuvm"), Watch()
        for client in (1, 2, 3):
            scene.opened(client, "game")
            for handle in (1, 2, 3):
                scene.object(handle, client, MIB)
        for at, (step, client, n, looked) in enumerate(steps):
            if step == "time" and n == 9 and at % 5 == 0:
                scene.closed(client)
                scene.opened(client, "again")
            STEPS[step](scene, client, n)
            if at in ends:
                scene.writer.done(101, at, scene.ms * MS, 0)
            if looked:
                look(watch, scene)
        look(watch, scene)
        scene.finish()
