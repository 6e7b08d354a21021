"""The question before ``gpuvm top`` ends a program."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static


class LeaveScreen(ModalScreen[bool]):
    """Its result: whether to end the program and quit."""

    CSS = """
    LeaveScreen { align: center middle; }
    #question { width: auto; max-width: 90%; height: auto; padding: 1 2; border: round $warning; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,q,enter", "dismiss(True)", "end it"),
        Binding("n,escape", "dismiss(False)", "go on"),
    ]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name_shown = name

    def compose(self) -> ComposeResult:
        """One box."""
        text = f"{self._name_shown} is still running.\nEnd it and quit?   y yes   n no"
        yield Static(text, id="question", markup=False)
