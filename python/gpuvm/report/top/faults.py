"""The faults of a recorded program: a line each, and the report of the one under the cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, OptionList, Static

from gpuvm.report.top.watch import Fault, Moment
from gpuvm.report.top.words import duration, fault_words
from gpuvm.trace.errors import TraceError


class FaultsScreen(Screen[None]):
    """The newest first; the report is read when it is looked at."""

    CSS = """
    #list { height: auto; max-height: 40%; border: round $foreground 30%; }
    #list:focus { border: round $accent; }
    #report { border: round $foreground 30%; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f", "dismiss", "back", key_display="esc"),
        Binding("tab", "app.focus_next", "list or report"),
    ]

    def __init__(self, moment: Moment, report: Callable[[Fault], str]) -> None:
        super().__init__()
        self._moment = moment
        self._report = report

    def compose(self) -> ComposeResult:
        """The list over the report."""
        lines = (
            f"{duration(self._moment.now - one.t)} ago: {fault_words(self._moment, one)}"
            for one in self._moment.faults
        )
        options = OptionList(*lines, id="list", markup=False, compact=True)
        more = self._moment.faults_total - len(self._moment.faults)
        options.border_title = f"faults: {self._moment.faults_total:,}" + (
            f", the last {len(self._moment.faults)} are shown" if more else ""
        )
        yield options
        with VerticalScroll(id="report") as scroll:
            scroll.border_title = "report"
            yield Static(id="text", markup=False)
        yield Footer(compact=True, show_command_palette=False)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show its report."""
        try:
            text = self._report(self._moment.faults[event.option_index])
        except TraceError as error:
            text = str(error)
        self.query_one("#text", Static).update(text)
