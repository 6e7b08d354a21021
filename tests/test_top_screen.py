"""What `gpuvm top` shows: screens that are kept, at two sizes, and what its keys do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from gpuvm.report.top.app import TopApp
from gpuvm.report.top.scenes import EndedScene, LiveScene
from gpuvm.report.top.screen import FaultLine, Scene
from gpuvm.trace.errors import TraceError
from gpuvm.trace.trace import Trace
from top_scenes import Recording, rendering
from top_screens import PICTURE, SCREENS, SIZES, Ran, drawn, file_of, live, picture, screens_of


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_it_was(name: str) -> None:
    for size, seen in drawn(name).items():
        assert seen == file_of(name, size).read_text(encoding="utf-8")


def test_no_screen_is_kept_that_is_not_compared() -> None:
    folder = file_of("rendering", SIZES[0]).parent
    assert set(folder.iterdir()) == {file_of(name, size) for name in SCREENS for size in SIZES}


def test_the_picture_shows_what_the_view_does() -> None:
    """Its words; how Textual draws them as SVG is its own affair."""

    def words(svg: str) -> list[str]:
        return re.findall(r"<text [^>]*>([^<]*)</text>", svg)

    assert words(PICTURE.read_text(encoding="utf-8")) == words(picture())


# -- keys


def play(scene: Scene, steps: Callable[[TopApp, Pilot[None]], Awaitable[None]]) -> None:
    async def run() -> None:
        app = TopApp(scene, live=False)
        async with app.run_test(size=(100, 30)) as pilot:
            await pilot.pause()
            await steps(app, pilot)

    asyncio.run(run())


def tables(app: TopApp) -> dict[str | None, DataTable[object]]:
    return {table.id: table for table in app.screen.query(DataTable)}


def test_tab_goes_from_table_to_table(tmp_path: Path) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        seen = []
        for _ in range(5):
            seen.append(app.focused and (app.focused.id or type(app.focused).__name__))
            await pilot.press("tab")
        assert seen == ["spaces", "queues", "calls", "output", "FaultLine"]

    play(live(rendering(tmp_path / "a.gpuvm", 5), Ran()), steps)


def test_enter_on_the_fault_shows_its_report_and_escape_goes_back(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)
    recording.fault(0x1234000)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        main = app.screen
        app.screen.query_one(FaultLine).focus()
        await pilot.press("enter")
        assert "GPU page fault: copy engine, read of 0x123_4000" in str(
            app.screen.query_one("#text", Static).visual
        )
        await pilot.press("escape")
        assert app.screen is main

    play(live(recording, Ran()), steps)


def test_space_stops_looking_and_goes_on(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        rows = tables(app)["calls"].row_count
        await pilot.press("space")
        recording.close_handle(1)
        recording.commit()
        app._main.look()
        assert tables(app)["calls"].row_count == rows
        await pilot.press("space")
        assert tables(app)["calls"].row_count == rows + 1

    play(live(recording, Ran()), steps)


def test_the_cursor_stays_where_it_was(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("tab", "tab", "down", "down")
        app._main.look()
        assert tables(app)["calls"].cursor_row == 2

    play(live(recording, Ran()), steps)


def test_slash_chooses_clients_and_escape_takes_all(tmp_path: Path) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"game")
        assert tables(app)["spaces"].row_count == 1
        assert app.screen.query_one(Input).has_focus
        await pilot.press("enter")
        assert tables(app)["spaces"].has_focus
        await pilot.press("escape")
        assert tables(app)["spaces"].row_count == 2

    play(live(rendering(tmp_path / "a.gpuvm", 5), Ran()), steps)


@pytest.mark.parametrize(
    ("running", "keys", "quits"),
    [(False, "q", True), (True, "q", False), (True, "qn", False), (True, "qy", True), (False, "f", False)],
)
def test_q_asks_before_it_ends_a_program(running: bool, keys: str, quits: bool, tmp_path: Path) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press(*keys)
        assert app._exit is quits

    play(live(rendering(tmp_path / "a.gpuvm", 5), Ran(running=running)), steps)


def test_a_program_that_ends_while_it_is_asked_about_ends_the_view(tmp_path: Path) -> None:
    program = Ran()

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("q")
        program.end()
        app._main.look()
        assert app._exit

    play(live(rendering(tmp_path / "a.gpuvm", 5), program), steps)


def test_control_c_asks_from_every_screen(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)
    recording.fault(0x1000)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("f", "ctrl+c")
        assert "still running" in str(app.screen.query_one("#question", Static).visual)
        await pilot.press("n", "f", "ctrl+c", "y")
        assert app._exit

    play(live(recording, Ran()), steps)


def test_a_trace_that_breaks_is_told_and_the_last_numbers_stay(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        Path(recording.path).rename(tmp_path / "elsewhere")
        app._main.look()
        assert "cannot open: No such file" in str(app.screen.query_one("#head", Static).visual)
        assert tables(app)["spaces"].row_count == 2

    play(live(recording, Ran()), steps)


# -- what is looked at


def test_before_the_recorder_has_its_file_there_is_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "a.gpuvm")
    assert LiveScene("./game", path, Ran()).look() is None
    with pytest.raises(TraceError, match="cannot open"):
        LiveScene("a.gpuvm", path, None).look()


def test_a_recording_that_has_ended_is_not_opened_again(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)
    scene = live(recording, Ran(running=False))
    recording.finish()
    moment = scene.look()
    Path(recording.path).unlink()
    assert scene.look() is moment


def test_an_ended_trace_and_its_reports(tmp_path: Path) -> None:
    recording = rendering(tmp_path / "a.gpuvm", 5)
    recording.fault(0x5000)
    recording.finish()
    with Trace.open(recording.path) as trace:
        scene = EndedScene(trace)
        (fault,) = scene.look().faults
        assert "read of 0x5000" in scene.report(fault)
        assert "recorded, " in screens_of(scene)[80, 24]


def test_a_report_that_is_none(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.gpuvm")
    recording.opened(1, "game")
    where = (1, 1, None, 4096, "READ", "PTE", "NEVER_MAPPED", "copy", None, None)
    recording.writer.faulted(0, *where, '{"chip": 5}')
    recording.finish()
    with Trace.open(recording.path) as trace:
        scene = EndedScene(trace)
        (fault,) = scene.look().faults
        with pytest.raises(TraceError, match=r"report cannot be read: .*the file is damaged"):
            scene.report(fault)
        assert "cannot be read" in screens_of(scene, "f")[80, 24]
