"""Screens of `gpuvm top` as text, at a size, after some keys; and the picture of it that docs/ shows.

python tests/top_screens.py     renew tests/top_screens/*.txt and docs/gpuvm-top.svg
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from gpuvm.report.top.app import TopApp
from gpuvm.report.top.scenes import LiveScene
from gpuvm.report.top.screen import Scene
from top_scenes import BEGUN, Recording, rendering

FOLDER: Final = Path(__file__).with_name("top_screens")
PICTURE: Final = Path(__file__).parent.parent / "docs" / "gpuvm-top.svg"
Size: TypeAlias = tuple[int, int]
SIZES: Final[tuple[Size, ...]] = ((80, 24), (120, 40))


class Ran:
    """A program that has run, or runs, as the view sees it."""

    name = "./game"

    def __init__(self, *, running: bool = True, printed: str = "") -> None:
        self._running = running
        self._printed = printed

    def running(self) -> bool:
        return self._running

    def end(self) -> None:
        self._running = False

    def ending(self) -> str:
        return "ended with 0"

    def not_started(self) -> int | None:
        return None

    def output(self) -> str:
        printed, self._printed = self._printed, ""
        return printed


def live(recording: Recording, program: Ran | None, ms: int = 0) -> LiveScene:
    """The recording ``ms`` milliseconds after what it had last."""
    recording.commit()
    now = datetime.fromisoformat(BEGUN) + timedelta(milliseconds=recording.ms + ms)
    title = "./game" if program is not None else "game.gpuvm"
    return LiveScene(title, recording.path, program, clock=lambda: now)


def screens_of(scene: Scene, keys: Sequence[str] = (), sizes: Sequence[Size] = SIZES) -> dict[Size, str]:
    """What is seen, line by line, in a terminal of the first size that then gets the others."""

    async def show() -> dict[Size, str]:
        app = TopApp(scene, live=False)
        seen = {}
        async with app.run_test(size=sizes[0]) as pilot:
            await pilot.press(*keys)
            for size in sizes:
                await pilot.resize_terminal(*size)
                await pilot.pause()
                strips = app.screen._compositor.render_strips()
                lines = ("".join(segment.text for segment in strip).rstrip() for strip in strips)
                seen[size] = "\n".join(lines) + "\n"
        return seen

    return asyncio.run(show())


def svg_of(scene: Scene, size: Size) -> str:
    async def show() -> str:
        app = TopApp(scene, live=False)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            return app.export_screenshot()

    return asyncio.run(show())


# -- the screens


def _rendering(folder: Path) -> Scene:
    printed = "".join(f"frame {frame}\n" for frame in range(1, 201)) + "\x1b[33mslow frame\x1b[0m\n"
    return live(rendering(folder / "game.gpuvm"), Ran(printed=printed), ms=40)


def _with_faults(folder: Path) -> Scene:
    recording = rendering(folder / "game.gpuvm")
    recording.ms += 500
    recording.fault(0x1_0001_0000)
    recording.ms += 10
    recording.fault(0x7_0000_0000, client=2)
    return live(recording, Ran(printed="game: device lost\n"), ms=1000)


def _ended(folder: Path) -> Scene:
    recording = rendering(folder / "game.gpuvm")
    for client in (2, 1):
        recording.ms += 100
        recording.closed(client)
    return live(recording, Ran(running=False, printed="done\ngpuvm: ./game ended with 0\n"))


def _nothing_yet(folder: Path) -> Scene:
    return LiveScene("./game", str(folder / "game.gpuvm"), Ran())


def _of_somebody_else(folder: Path) -> Scene:
    return live(rendering(folder / "game.gpuvm", frames=40), None, ms=2000)


SCREENS: Final[dict[str, tuple[Callable[[Path], Scene], tuple[str, ...]]]] = {
    "rendering": (_rendering, ()),
    "faults": (_with_faults, ()),
    "fault-report": (_with_faults, ("f", "down")),
    "one-client": (_with_faults, ("slash", *"brow", "enter", "tab")),
    "leaving": (_rendering, ("q",)),
    "paused": (_rendering, ("space",)),
    "ended": (_ended, ()),
    "nothing-yet": (_nothing_yet, ("f",)),
    "of-somebody-else": (_of_somebody_else, ()),
}


def drawn(name: str) -> dict[Size, str]:
    make, keys = SCREENS[name]
    with tempfile.TemporaryDirectory() as folder:
        return screens_of(make(Path(folder)), keys)


def picture() -> str:
    """As SVG: a minute of rendering, with a fault some seconds ago."""
    with tempfile.TemporaryDirectory() as folder:
        recording = rendering(Path(folder) / "game.gpuvm", frames=1600, fault_at=1450)
        printed = "".join(f"frame {frame}\n" for frame in range(1590, 1601))
        return svg_of(live(recording, Ran(printed=printed), ms=40), (110, 32))


def file_of(name: str, size: Size) -> Path:
    return FOLDER / f"{name}-{size[0]}x{size[1]}.txt"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SCREENS:
        for size, seen in drawn(name).items():
            file_of(name, size).write_text(seen, encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
