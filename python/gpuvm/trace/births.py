"""Births: which call made what a number names, while a trace is read from its beginning."""

from __future__ import annotations

from gpuvm.trace import recorded
from gpuvm.trace.recorded import Record
from gpuvm.trace.references import Number, References, What


class Births:
    """What numbers name after the last record that was fed. Not thread-safe.

    A client that closes has nothing any more, nor has one whose number is opened again: that is a ``vm_init``
    that was accepted where it came too late for the open before.
    """

    def __init__(self) -> None:
        self._files: dict[Number, int] = {}
        self._of_clients: dict[int, dict[Number, int]] = {}
        self._used: set[int] = set()
        """Clients for which a vm_init is too late."""

    def of(self, client: int, number: Number) -> int | None:
        """The call that made what the number names; None: nobody told of one. Cost: O(1)."""
        return self._named(client, number).get(number)

    def feed(self, record: Record, parts: References) -> list[tuple[Number, int]]:
        """The call was made: what it makes begins, what it ends is gone. A refused one changes nothing.

        Returns:
            What it ended, and which call had made that.
        """
        if record.ret:
            return []
        match record:
            case recorded.VmInit():
                ended = self._close(record.client) if record.client in self._used else []
                self._used.add(record.client)
                return ended
            case recorded.GemNew() | recorded.ChannelAlloc():
                self._used.add(record.client)
            case recorded.Other(call="close"):
                return self._close(record.client)
            case _:
                pass
        ended = []
        for number in parts.ends:
            born = self._named(record.client, number).pop(number, None)
            if born is not None:
                ended.append((number, born))
        for number in parts.makes:
            named = self._named(record.client, number)
            if not (isinstance(record, recorded.GemImport) and number in named):
                named[number] = record.line
        return ended

    def _named(self, client: int, number: Number) -> dict[Number, int]:
        if number.what is What.FILE:
            return self._files
        return self._of_clients.setdefault(client, {})

    def _close(self, client: int) -> list[tuple[Number, int]]:
        self._used.discard(client)
        return [*self._of_clients.pop(client, {}).items()]
