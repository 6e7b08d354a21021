"""The screen of ``gpuvm top``: it looks at a trace twice a second and shows the moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, Protocol

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, RichLog, Static

from gpuvm.report.top import words
from gpuvm.report.top.faults import FaultsScreen
from gpuvm.report.top.leaving import LeaveScreen
from gpuvm.report.top.watch import Fault, Moment
from gpuvm.trace.errors import TraceError

TICK: Final = 0.5
"""Seconds between two looks."""


class Program(Protocol):
    """The program that is watched, if we started it."""

    @property
    def name(self) -> str:
        """Its command line, to be shown."""

    def running(self) -> bool:
        """Whether it has not ended yet."""

    def ending(self) -> str:
        """How it ended."""

    def not_started(self) -> int | None:
        """The exit code, if it ended because it never began."""

    def output(self) -> str:
        """What it has printed since the last time that this was asked."""


class Scene(Protocol):
    """Where the moments come from."""

    @property
    def title(self) -> str:
        """The program, or the trace."""

    @property
    def program(self) -> Program | None:
        """None: somebody else runs it, or it has ended."""

    def look(self) -> Moment | None:
        """The moment that is now; None: there is no trace yet. Raises TraceError."""

    def report(self, fault: Fault) -> str:
        """All that is known of a fault. Raises TraceError."""


class FaultLine(Static, can_focus=True):
    """The last fault; enter shows its report."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.faults", "report", show=False)]


class MainScreen(Screen[None]):
    """Numbers and tables. ``live``: the trace grows, so it is looked at again and again."""

    CSS = """
    MainScreen { layout: vertical; }
    #head { background: $primary-background; color: $text; text-style: bold; }
    #head, #rates, #memory, #tables, FaultLine { height: 1; padding: 0 1; }
    #rates { color: $success; }
    FaultLine.bad { color: $text-error; text-style: bold; }
    FaultLine:focus { background: $error 30%; }
    DataTable, #output { height: 1fr; border: round $foreground 30%; border-title-color: $foreground 70%; }
    DataTable, #output { scrollbar-size: 1 1; }
    DataTable:focus, #output:focus { border: round $accent; }
    DataTable > .datatable--cursor { background: transparent; text-style: none; color: $foreground; }
    DataTable:focus > .datatable--cursor { background: $primary; color: $text; }
    #spaces { height: auto; min-height: 4; max-height: 40%; }
    #middle { height: 1fr; }
    #queues { width: 3fr; }
    #calls { width: 2fr; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #filter.shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("space", "pause", "pause"),
        Binding("tab", "app.focus_next", "next table"),
        Binding("slash", "filter", "client", key_display="/"),
        Binding("f", "faults", "faults"),
        Binding("escape", "unfilter", "all clients", show=False),
    ]

    def __init__(self, scene: Scene, *, live: bool) -> None:
        super().__init__()
        self._scene = scene
        self._live = live
        self._paused = False
        self._wanted = ""
        self._problem = ""
        self.moment: Moment | None = None

    def compose(self) -> ComposeResult:
        """Lines on top, tables below, the program's output under them."""
        yield Static(id="head", markup=False)
        yield Static(id="rates", markup=False)
        yield Static(id="memory", markup=False)
        yield Static(id="tables", markup=False)
        yield FaultLine(markup=False)
        yield _table("spaces", "address spaces", words.SPACE_COLUMNS)
        with Horizontal(id="middle"):
            yield _table("queues", "queues", words.QUEUE_COLUMNS)
            yield _table("calls", "calls", words.CALL_COLUMNS)
        if self._scene.program is not None:
            output = RichLog(id="output", max_lines=2000, wrap=True)
            output.border_title = "output"
            yield output
        yield Input(placeholder="clients with this in their name; empty for all", id="filter", compact=True)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#spaces").focus()
        self.look()
        if self._live:
            self.set_interval(TICK, self.look)

    def on_resize(self, _: Resize) -> None:
        """A sparkline is as long as there is room."""
        self.call_after_refresh(self._show)

    def look(self) -> None:
        """Take a look, if not paused, and show it. Quit if there is no program, or none to be asked about."""
        program = self._scene.program
        asked = isinstance(self.app.screen, LeaveScreen)
        if program is not None and (program.not_started() is not None or (asked and not program.running())):
            self.app.exit()
        if not self._paused:
            try:
                self.moment, self._problem = self._scene.look(), ""
            except TraceError as error:
                self._problem = str(error)
        self._show()

    # -- keys

    def action_leave(self) -> None:
        """Quit; first ask whether to end the program."""
        program = self._scene.program
        if program is not None and program.running():
            self.app.push_screen(LeaveScreen(program.name), lambda leave: self.app.exit() if leave else None)
        else:
            self.app.exit()

    def action_pause(self) -> None:
        """Stop looking, or go on. The program goes on all the time."""
        self._paused = not self._paused
        self.look()

    def action_filter(self) -> None:
        """Ask for which clients."""
        asked = self.query_one("#filter", Input)
        asked.add_class("shown")
        asked.focus()

    def action_unfilter(self) -> None:
        """All clients again."""
        self.query_one("#filter", Input).value = ""
        self._end_filter()

    def action_faults(self) -> None:
        """All faults with their reports."""
        moment = self._chosen()
        if moment is not None and moment.faults:
            self.app.push_screen(FaultsScreen(moment, self._scene.report))

    def on_input_changed(self, event: Input.Changed) -> None:
        """The tables follow what is typed."""
        self._wanted = event.value.strip()
        self._show()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Back to the tables."""
        self._end_filter()

    def _end_filter(self) -> None:
        self.query_one("#filter").remove_class("shown")
        self.query_one("#spaces").focus()

    # -- showing

    def _chosen(self) -> Moment | None:
        return self.moment and (self.moment.among(self._wanted) if self._wanted else self.moment)

    def _show(self) -> None:
        moment = self._chosen()
        program = self._scene.program
        self.query_one("#head", Static).update(self._head(moment))
        if program is not None and (printed := program.output()):
            self.query_one("#output", RichLog).write(Text.from_ansi(printed.rstrip("\n")))
        if moment is None:
            self.query_one("#rates", Static).update(self._nothing_yet(program))
            return
        self.query_one("#rates", Static).update(words.rates_line(moment, self.size.width - 2))
        self.query_one("#memory", Static).update(words.memory_line(moment, self.size.width - 2))
        self.query_one("#tables", Static).update(words.tables_line(moment))
        line = self.query_one(FaultLine)
        line.update(words.fault_line(moment))
        line.set_class(bool(moment.faults), "bad")
        _fill(self.query_one("#spaces", DataTable), words.space_rows(moment))
        _fill(self.query_one("#queues", DataTable), words.queue_rows(moment))
        _fill(self.query_one("#calls", DataTable), words.call_rows(moment))

    def _head(self, moment: Moment | None) -> str:
        if self._problem:
            return f"gpuvm top   {self._problem}"
        parts = ["gpuvm top", self._state(moment)]
        if self._paused:
            parts.append("PAUSED")
        if moment is not None and moment.chip is not None:
            parts.append(moment.chip)
        if self._wanted:
            parts.append(f"clients with {self._wanted!r}")
        return "   ".join([*parts, self._scene.title])

    def _state(self, moment: Moment | None) -> str:
        program = self._scene.program
        at = "" if moment is None else words.duration(moment.now)
        if program is not None:
            return f"running {at}" if program.running() else f"{program.ending()} after {at}"
        if moment is not None and moment.whole:
            return f"recorded, {at}"
        idle = "" if moment is None else words.duration(moment.now - moment.last_call_at)
        return f"being recorded, {at}, last call {idle} ago"

    def _nothing_yet(self, program: Program | None) -> str:
        if program is not None and not program.running():
            return "it did not open the GPU"
        return "it has not opened the GPU yet"


def _table(name: str, title: str, columns: Sequence[str]) -> DataTable[Text]:
    table: DataTable[Text] = DataTable(id=name, cursor_type="row", cell_padding=0)
    table.border_title = title
    for column in columns:
        table.add_column(_cell(column, first=column == columns[0]), key=column)
    return table


def _fill(table: DataTable[Text], rows: Sequence[words.Row]) -> None:
    """New rows; cursor and scroll stay where they were."""
    row, x, y = table.cursor_row, table.scroll_x, table.scroll_y
    table.clear()
    for cells in rows:
        table.add_row(*(_cell(cell, first=at == 0) for at, cell in enumerate(cells)))
    table.move_cursor(row=min(row, max(len(rows) - 1, 0)), scroll=False)
    table.scroll_to(x, y, animate=False)


def _cell(text: str, *, first: bool) -> Text:
    """Names to the left, numbers to the right with a gap before them."""
    return Text(text) if first else Text(f" {text}", justify="right")
