"""Recorder: writes the calls of programs as a trace, JSON Lines, while they are made."""

from __future__ import annotations

import json
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from gpuvm.errors import CheckFailed
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.numbers import TYPE
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex
from gpuvm.trace.copied import Copied, CopiedFiles
from gpuvm.trace.told_calls import TOLD, Made, Place, Told

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client

_NO_FILE: Final = -1


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A snapshot of a recorder."""

    calls: int
    """Written, or about to be."""
    left_out: int
    """Of which a trace cannot tell."""
    pending: int
    """That wait for one that began before them."""


class Recorder:
    """Makes calls, and writes what became of each. Close it; the file is closed with it.

    What a call was about is what the driver copied when it made it, not what the program's memory has later.
    Files are told by numbers of their own, one for each, since programs pass them to each other.

    Calls of several threads stand in an order in which they can be made one after the other.

    Locking: any thread, nothing held. A call that is recorded takes some ten microseconds more.

    Args:
        file: where to.

    Attributes:
        failed: why nothing can be written any more; None while it can. The calls go on.
    """

    def __init__(self, file: TextIO) -> None:
        self._file: Final = file
        self._mutex: Final = Mutex("recorder", lockdep.lock_class("recorder"))
        self._pending: Final[deque[_Line]] = deque()
        """In the order of the trace: the first is not complete."""
        self._files: Final[dict[tuple[int, int], int]] = {}
        self._begin: Final = task.now()
        self._calls = 0
        self._left_out = 0
        self.failed: str | None = None

    def make(self, client: Client, request: int, arg: int, caller: Caller) -> int:
        """Make one call, as ``Client.drm_ioctl`` does, and write it."""
        told = TOLD.get(request & 0xFF) if request >> 8 & 0xFF == TYPE else None
        if told is None:
            return client.drm_ioctl(request, arg, caller)
        began = task.now()
        line = self._reserve() if told.place is Place.BEGINNING else None
        copied, files = Copied(caller.memory), CopiedFiles(caller.files)
        result = client.drm_ioctl(request, arg, Caller(copied, files))
        self._end(told, line, client.id, began, result, request, arg, copied, files)
        return result

    def _reserve(self) -> _Line:
        line = _Line()
        with self._mutex:
            self._pending.append(line)
        return line

    def _end(
        self,
        told: Told,
        line: _Line | None,
        client: int,
        began: int,
        result: int,
        request: int,
        arg: int,
        copied: Copied,
        files: CopiedFiles,
    ) -> None:
        size = min(request >> 16 & 0x3FFF, told.layout.size)
        before = (copied.told(arg, size) or b"").ljust(told.layout.size, b"\0")
        after = (copied.answered(arg) or before).ljust(told.layout.size, b"\0")
        fields = told.fields(Made(before, after, copied, result == 0))
        text = None
        if fields is not None:
            head: dict[str, Any] = {"t": began - self._begin, "client": client, "call": told.name}
            if told.file:
                fields["fd"] = self._number_of(files.file)
            text = json.dumps({**head, **fields, "ret": result}, separators=(",", ":")) + "\n"
        late = told.late is not None and told.late(before)
        with self._mutex:
            self._calls += text is not None
            self._left_out += text is None
            if line is None or late:
                self._pending.append(_Line(text or "", True))
            if line is not None:
                line.text, line.complete = "" if late else text or "", True
            self._write()

    def _number_of(self, file: tuple[int, int] | None) -> int:
        if file is None:
            return _NO_FILE
        with self._mutex:
            return self._files.setdefault(file, len(self._files))

    def close_client(self, client: int) -> None:
        """The last descriptor of an open was closed, and what it had is gone."""
        line = {"t": task.now() - self._begin, "client": client, "call": "close", "ret": 0}
        with self._mutex:
            self._pending.append(_Line(json.dumps(line, separators=(",", ":")) + "\n", True))
            self._write()

    def _write(self) -> None:
        """What is complete. Locking: the recorder's."""
        done = []
        while self._pending and self._pending[0].complete:
            done.append(self._pending.popleft().text)
        if self.failed is not None or not done:
            return
        try:
            self._file.writelines(done)
        except OSError as error:
            self.failed = os.strerror(error.errno or 0)

    # -- its end

    def close(self) -> None:
        """Write the rest. A call that has not ended is left out."""
        with self._mutex:
            for line in self._pending:
                line.complete = True
            self._write()
            try:
                self._file.close()
            except OSError as error:
                self.failed = self.failed or os.strerror(error.errno or 0)

    def check(self) -> None:
        """Verify that nothing waits that could be written.

        Raises:
            CheckFailed: with the state.
        """
        with self._mutex:
            if self._pending and self._pending[0].complete:
                raise CheckFailed(f"recorder: {len(self._pending)} lines wait for none")

    def statistics(self) -> RecorderStatistics:
        """Counts, of now."""
        with self._mutex:
            return RecorderStatistics(self._calls, self._left_out, len(self._pending))


@dataclass(slots=True)
class _Line:
    """A place in the trace."""

    text: str = ""
    """"": nothing will be there."""
    complete: bool = False
