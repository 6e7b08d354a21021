"""The terminal application of ``gpuvm top``."""

from __future__ import annotations

import asyncio
import signal
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from gpuvm.report.top.screen import MainScreen, Scene


class TopApp(App[None]):
    """The view of a scene. ``live``: it changes, so it is looked at again and again."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "leave", "quit", show=False, priority=True)
    ]

    def __init__(self, scene: Scene, *, live: bool) -> None:
        super().__init__()
        self.title = f"gpuvm top {scene.title}"
        self._main = MainScreen(scene, live=live)

    def on_mount(self) -> None:
        """Show the numbers and tables. A signal that ends programs leaves the terminal as it was."""
        self.push_screen(self._main)
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def action_leave(self) -> None:
        """As q, from every screen."""
        while self.screen is not self._main:
            self.pop_screen()
        self._main.action_leave()
