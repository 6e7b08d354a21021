"""Service: what serves one program and whatever it starts: the device, opens, handlers of system calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuvm.device import caught
from gpuvm.device.faces import Faces
from gpuvm.device.ioctls import Ioctls
from gpuvm.device.node import Opens
from gpuvm.device.notify import Listener
from gpuvm.device.opening import Opening
from gpuvm.device.server import Handler, Server
from gpuvm.device.stating import Stating
from gpuvm.errors import GpuvmError
from gpuvm.sync import task

if TYPE_CHECKING:
    from gpuvm.device.node import OpensStatistics
    from gpuvm.device.server import ServerStatistics
    from gpuvm.device.starting import Started
    from gpuvm.device.tally import Tally, TallyStatistics
    from gpuvm.nouveau import Device
    from gpuvm.nouveau.device import DeviceStatistics


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """A snapshot of all that serves a program."""

    tally: TallyStatistics
    opens: OpensStatistics
    server: ServerStatistics
    device: DeviceStatistics


class Service:
    """Serves a program from ``start`` until nobody is left; then ``close`` it.

    Locking: one thread.

    Args:
        device: made with ``objects=started.directory``; the service closes it.
        started: the program, which waits.
        tally: counts.
        by_path: whether paths of nodes are stated by us.
        tell: prints a line for the user.

    Attributes:
        nobody_left: a descriptor, to be read once nobody is left that could make a call.
    """

    def __init__(
        self,
        device: Device,
        started: Started,
        *,
        tally: Tally,
        by_path: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._device: Final = device
        self._tally: Final = tally
        self._tell: Final = tell
        self._opens: Final = Opens(
            device,
            started.directory,
            opened=lambda _: tally.opened(),
            closing=lambda made: tally.closing(made.client),
            closed=lambda made: tally.closed(made.client),
        )
        self._listener: Final = Listener(started.go())
        self.nobody_left: Final = os.eventfd(0, os.EFD_CLOEXEC)
        faces = Faces(self._opens, started.nodes, device.mem.object_file.fd, started.multiplexer)
        opening = Opening(faces, self._listener, tally.lacks.path)
        stating = Stating(faces, self._listener, started.sysfs, by_path=by_path)
        ioctls = Ioctls(self._opens, self._listener, tally.door, tally.unknown)
        self._server: Final = Server(self._listener, _handlers(ioctls, opening, stating))

    def start(self) -> None:
        """Serve, in threads of its own."""
        task.start("gpuvm service", self._serve)

    def _serve(self) -> None:
        try:
            self._server.run()
        except GpuvmError as error:
            self._tell(str(error))
            self._listener.close()  # better no device than one that never answers
        finally:
            os.eventfd_write(self.nobody_left, 1)

    def check(self) -> None:
        """Verify all of it. Call it while no call is in progress.

        Raises:
            CheckFailed: with the state.
        """
        self._tally.check()
        self._opens.check()
        self._server.check()
        self._device.check()

    def statistics(self) -> ServiceStatistics:
        """Counts, of now."""
        return ServiceStatistics(
            self._tally.statistics(),
            self._opens.statistics(),
            self._server.statistics(),
            self._device.statistics(),
        )

    def close(self) -> None:
        """Close the device. Nobody may be left.

        Raises:
            CheckFailed: something of ours is wrong, or was made so by a program.
            GpuvmError: something is left of what programs had.
        """
        self._opens.close()
        self._listener.close()
        os.close(self.nobody_left)
        try:
            self._device.check()
        finally:
            self._device.close()


def _handlers(ioctls: Ioctls, opening: Opening, stating: Stating) -> dict[int, Handler]:
    return {
        caught.IOCTL: ioctls,
        caught.OPEN: opening.open,
        caught.CREAT: opening.creat,
        caught.OPENAT: opening.openat,
        caught.OPENAT2: opening.openat2,
        caught.STAT: stating.stat,
        caught.LSTAT: stating.lstat,
        caught.FSTAT: stating.fstat,
        caught.NEWFSTATAT: stating.newfstatat,
        caught.STATX: stating.statx,
        caught.STATFS: stating.statfs,
        caught.FSTATFS: stating.fstatfs,
        caught.TRUNCATE: stating.truncate,
        caught.FTRUNCATE: stating.ftruncate,
        caught.FALLOCATE: stating.fallocate,
    }
