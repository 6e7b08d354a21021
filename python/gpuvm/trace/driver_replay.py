"""Replay through the nouveau driver: every recorded call is made again, and must have the result it had."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType
from typing import Final, Self

from gpuvm.errors import GpuvmError
from gpuvm.nouveau.device import Device
from gpuvm.trace import recorded
from gpuvm.trace.difference import Difference, NotMade, OtherResult, result_name, why_accepted
from gpuvm.trace.driver_client import DriverClient
from gpuvm.trace.memory_replay import ROOMY, import_sizes
from gpuvm.trace.shared_files import SharedFiles
from gpuvm.trace.submission_counts import SubmissionCounts

PATIENCE: Final = 30.0
"""Seconds that a wait may take which came to an end when it was recorded."""

_ERESTARTSYS = 512
# A trace has neither pointers nor signals nor whoever took the memory and the file descriptors.
_NO_POINTERS = (errno.EFAULT, errno.EOVERFLOW, errno.ENOTTY)
_NO_SIGNALS = (errno.EINTR, _ERESTARTSYS)
_ENOUGH_OF_ALL = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_NOT_REPLAYABLE = frozenset((*_NO_POINTERS, *_NO_SIGNALS, *_ENOUGH_OF_ALL))
# Whether these come too early is a matter of time.
_WAITS = (recorded.SyncobjWait, recorded.SyncobjTimelineWait, recorded.SyncobjTransfer, recorded.CpuPrep)


@dataclass(slots=True)
class CallCounts:
    """What became of the calls of one name."""

    made: int = 0
    differing: int = 0
    """Of these those with another result than recorded."""
    sooner: int = 0
    """Of these those that had timed out or met something busy, and did not here: that is no difference."""
    not_made: int = 0
    """The trace does not tell enough, or a replay cannot have the error that was recorded."""


class DriverReplay:
    """Clients of one device as they are after the last record fed. Close it.

    A client's number is an open of the device. A vm_init that was accepted, of a client that has a space, or
    is too late to make one, is a new open of the same number; the one before is closed.

    What the CPU wrote into memory is not recorded, so push buffers are zeros, in which there is no method.

    Args:
        name: of the trace, for messages.
        records: all that may be fed; they tell how long imported objects are.
        client: replay this one alone.
        patience: seconds that a wait may take which came to an end when it was recorded.

    Attributes:
        device: whose driver it is, with room for everything.
        clients: the last open of each number, in the order of their first record.
        reopened: how many opens were closed for another of the same number.
        submitted: by all clients.
        calls: by name.
        differences: in the order of their lines.
        line: the last line fed.
        wall_ns: nanoseconds inside the driver.
    """

    def __init__(
        self,
        name: str,
        records: Iterable[recorded.Record],
        *,
        client: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._only = client
        self._patience = patience
        self._import_sizes = import_sizes(records)
        self.device: Final = Device(vram=ROOMY, gart=ROOMY, name=name)
        self._files = SharedFiles(self.device)
        self.clients: Final[dict[int, DriverClient]] = {}
        self.reopened = 0
        self.submitted: Final = SubmissionCounts()
        self.calls: Final[dict[str, CallCounts]] = {}
        self.differences: Final[list[Difference]] = []
        self.line = 0
        self.wall_ns = 0

    def run(self, records: Iterable[recorded.Record]) -> Self:
        """Feed every record, and wait until all that was submitted is done."""
        for record in records:
            self.feed(record)
        self.settle()
        return self

    def feed(self, record: recorded.Record) -> None:
        """Make one recorded call, and compare its result.

        Submissions do not block. A wait that came to an end when recorded is waited for; what had timed out
        is only looked at.
        """
        self.line = record.line
        if self._only not in (None, record.client):
            return
        counts = self.calls.setdefault(record.call, CallCounts())
        client = self._client(record)
        client.failed_calls += record.ret != 0 and isinstance(record, recorded.VmInit | recorded.VmBind)
        if -record.ret in _NOT_REPLAYABLE:
            counts.not_made += 1
            return
        begin = perf_counter_ns()
        try:
            client.make(record)
        except NotMade:
            counts.not_made += 1
            return
        except OtherResult as other:
            self._differs(record, other.recorded, other.got, other.meaning)
        except GpuvmError as error:
            if error.code != -record.ret:
                self._differs(record, result_name(record.ret), result_name(-error.code), str(error))
        else:
            if -record.ret in (errno.ETIME, errno.EBUSY) and isinstance(record, _WAITS):
                counts.sooner += 1
            elif record.ret:
                self._differs(record, result_name(record.ret), "0", why_accepted(record.ret))
        finally:
            self.wall_ns += perf_counter_ns() - begin
        counts.made += 1

    def _client(self, record: recorded.Record) -> DriverClient:
        client = self.clients.get(record.client)
        if client is not None and client.used and isinstance(record, recorded.VmInit) and record.ret == 0:
            client.settle()
            client.client.close()
            self.reopened += 1
            client = None
        if client is None:
            opened = self.device.open(name=f"client {record.client}")
            client = self.clients[record.client] = DriverClient(
                record.client,
                opened,
                self._files,
                self.submitted,
                patience=self._patience,
                import_sizes=self._import_sizes,
            )
        return client

    def _differs(self, record: recorded.Record, recorded: str, got: str, meaning: str) -> None:
        self.calls[record.call].differing += 1
        self.differences.append(Difference(record.line, record.client, record.call, recorded, got, meaning))

    @property
    def not_executed(self) -> Counter[tuple[int, int]]:
        """Methods in push buffers that no engine here executes: times by class and method."""
        total: Counter[tuple[int, int]] = Counter()
        for channel in self.submitted.channels:
            total.update(channel.processor.counts.not_executed)
        return total

    # -- the end

    def settle(self) -> None:
        """Wait until all that was submitted is done, and cleaned up."""
        begin = perf_counter_ns()
        for client in self.clients.values():
            client.settle()
        self.wall_ns += perf_counter_ns() - begin

    def check(self) -> None:
        """Verify the device and its clients. Raises CheckFailed."""
        self.device.check()

    def close(self) -> None:
        """Close all clients and the device; then nothing may be left. Raises Busy if there is."""
        self._files.close()
        for client in self.clients.values():
            client.client.close()
        self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # its traceback may hold objects, which a device that closes must not have
            self.close()
