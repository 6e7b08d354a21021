"""What rules look at: a trace, the order of its jobs, where they are in conflict, and the names of calls."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Final

from gpuvm.trace.call_numbers import NAMES
from gpuvm.trace.conflicts import Conflicts
from gpuvm.trace.order import Order

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace


class Evidence:
    """Of one trace, which stays open meanwhile. What takes long is made when a rule first asks for it."""

    def __init__(self, trace: Trace) -> None:
        self.trace: Final = trace
        self.db: Final = trace.db
        self._numbers: Final = {client.id: client.number for client in trace.clients()}

    @cached_property
    def order(self) -> Order:
        """Of its jobs."""
        return Order(self.trace)

    @cached_property
    def conflicts(self) -> Conflicts:
        """Of EXECs with VM_BINDs."""
        return Conflicts(self.trace, self.order)

    @cached_property
    def ended(self) -> bool:
        """The program ended well, and the trace has all of it."""
        about = self.trace.about
        made_of_lines = "status" not in about and about.get("source") != "gpuvm record"
        return self.trace.whole and (made_of_lines or int(about.get("status") or 0) == 0)

    def number(self, client: int) -> int:
        """A client's number as recorded, by its id."""
        return self._numbers[client]

    def name(self, call: int) -> str:
        """``call 57 (exec on channel 1)``."""
        row = "SELECT nr, args, channel FROM calls LEFT JOIN jobs ON jobs.call = calls.id WHERE calls.id = ?"
        nr, args, channel = self.db.execute(row, (call,)).fetchone()
        name = NAMES[nr]
        if name == "exec":
            channel = channel or (json.loads(args).get("channel") if args else None)
        return f"call {call} ({name}{f' on channel {channel}' if channel else ''})"
