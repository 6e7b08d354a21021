"""Opens: who has the device's node open, and when the last descriptor and mapping of an open are gone."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import select
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from gpuvm._core import DescriptorLinks
from gpuvm.device.inotify import Closes
from gpuvm.device.mappings import Mappings
from gpuvm.device.marks import is_marked, mark
from gpuvm.device.process import link_by_copy
from gpuvm.errors import CheckFailed, FileTableFull, GpuvmError, OutOfMemory
from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.channel import PATIENCE
from gpuvm.sync import lockdep, task
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.sw_sync import SwSync

_FLAGS: Final = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK
"""Of an open of the node: those that stay with it. O_TRUNC would be for the file behind."""
_GRACE: Final = 1_000_000
"""ns from the news of a close until it is looked at: a thread that is at work is not disturbed."""
_SOONEST: Final = 0.001
_LATEST: Final = 0.1
"""Seconds after which an open is looked at again that was closed and is still marked."""


class OpenNode:
    """One open of the node, as many descriptors and mappings as there may be of it (``struct file``).

    Attributes:
        client: who it is to the driver.
        node: which file of ``/dev/dri`` was opened.
        name: of its link, told by ``/proc/PID/fd``. Nobody can guess it.
        number: counts opens.
        over: signalled when nobody has it any more, and all is gone that its client had.
    """

    __slots__ = ("client", "is_ending", "marked", "name", "node", "number", "over")

    def __init__(self, client: Client, node: str, number: int) -> None:
        self.client: Final = client
        self.node: Final = node
        self.number: Final = number
        self.name: Final = secrets.token_hex(8)
        self.marked = False
        """It was given its mark, which goes with its last close; else the first close told is the last."""
        self.is_ending = False
        self.over: Final = Fence(fence_context_alloc(), 1, driver="device", timeline=f"open {number}")

    def __repr__(self) -> str:
        return f"<OpenNode {self.number} of {self.node}: {self.client!r}>"


@dataclass(frozen=True, slots=True)
class OpensStatistics:
    """A snapshot of all opens."""

    open: int
    opened: int
    """All that there ever were."""
    ending: int
    """Closed by all, and not all that they had is gone."""
    doubtful: int
    """Told to be closed, and still open."""
    lost: int
    """How often the kernel had more to tell than it keeps."""


def _nothing(_open: OpenNode) -> None:
    pass


class Opens:
    """The opens of one device's nodes, and the clients that they are.

    The device's objects lie in a file with a name in ``directory``. An open of the node is an open of a hard
    link to it, with a name of its own: ``/proc/PID/fd`` tells by it whose descriptor one is, however that was
    copied, and ``mmap`` of it is the kernel's business alone. That nobody has it any more is told by inotify,
    for the name, and made sure of by the open's mark: who opens ``/proc/PID/fd/N`` past us closes only that.

    Locking: any thread, with nothing held. A thread of its own waits for closes and ends clients; one that
    may take long ends in a thread of its own.

    Args:
        device: made with ``objects=directory``.
        directory: a descriptor, on a tmpfs that nobody else writes to.
        opened, closing, closed: are told of an open: when it is there; right before its client is closed;
            when all that this had is gone.

    Raises:
        TooManyFiles: as ``Closes``.
    """

    def __init__(
        self,
        device: Device,
        directory: int,
        *,
        opened: Callable[[OpenNode], None] = _nothing,
        closing: Callable[[OpenNode], None] = _nothing,
        closed: Callable[[OpenNode], None] = _nothing,
    ) -> None:
        self._device: Final = device
        self._directory: Final = directory
        self._objects: Final = device.mem.object_file
        self._mappings: Final = Mappings(self._objects.fd)
        self._objects.mapped = self._mapped
        self._tell_opened: Final = opened
        self._tell_closing: Final = closing
        self._tell_closed: Final = closed
        self._numbers: Final = itertools.count(1)
        self._opened = 0
        self._links: Final = DescriptorLinks()
        self._by_link: Final[dict[str, OpenNode]] = {}
        """By what /proc/PID/fd leads to."""
        self._ending: Final[dict[OpenNode, None]] = {}
        self._again: list[OpenNode] = []
        """Whose clients could not let go of all."""
        self._doubtful: Final[dict[str, None]] = {}
        self._lost = 0
        self._mutex: Final = Mutex("opens", lockdep.lock_class("opens"))
        """Over which opens there are. Clients are closed without it."""
        self._closes: Final = Closes(directory)
        self._stop: Final = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll: Final = select.epoll()
        for fd in (self._closes.fd, carriers.fileno(), self._stop):
            self._epoll.register(fd, select.EPOLLIN)
        self._thread: Final = task.start("closes", self._watch)

    # -- opening

    def open(self, node: str, flags: int, who: str = "") -> tuple[OpenNode, int]:
        """A new open: what it is, and a descriptor of it, which the caller gives away and closes.

        If that is its only one its client ends with it. What was closed before is gone when this returns,
        or has had a second for it.

        Args:
            node: which file of ``/dev/dri``.
            flags: of ``open(2)``.
            who: for reports.

        Raises:
            FileTableFull: we have no descriptor left, or the directory no room.
            OutOfMemory: there is no memory for it.

        Source: ``drm_open``.
        """
        self.collect()
        deadline = task.deadline_after(PATIENCE)
        for ending in [*self._ending]:
            ending.over.wait_until(deadline)
        made = OpenNode(self._device.open(name=who), node, next(self._numbers))
        try:
            fd = self._open_link(made, flags)
        except OSError as error:
            made.client.close()
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOSPC):
                raise FileTableFull(
                    f"open of {node}: {error.strerror} in the supervisor; raise its `ulimit -n`, or have "
                    "programs close what they do not use"
                ) from error
            raise OutOfMemory(f"open of {node}: {error.strerror}") from error
        self._tell_opened(made)
        return made, fd

    def open_sw_sync(self, who: str = "") -> int:
        """A descriptor of a new ``sw_sync`` timeline, which the caller gives away and closes.

        Raises:
            TooManyFiles: we have no descriptor left.

        Source: ``sw_sync_debugfs_open``.
        """
        timeline = SwSync(who)
        return carriers.export(timeline, timeline.close)[0]

    def _open_link(self, made: OpenNode, flags: int) -> int:
        access = flags & _FLAGS
        if access & os.O_ACCMODE == os.O_ACCMODE:  # ioctl only; but a file can be had so of devices only
            access ^= os.O_ACCMODE ^ os.O_RDWR
        link = f"/{made.name}"
        os.link(self._objects.name, made.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        fd = -1
        self._by_link[link] = made
        try:
            os.fchmod(self._objects.fd, 0o600)  # a program can change it by a descriptor of its own
            fd = os.open(made.name, access | os.O_CLOEXEC, dir_fd=self._directory)
            made.marked = mark(fd, made.number)
        except OSError:
            with self._mutex:
                self._forget(link)
            if fd >= 0:
                os.close(fd)
            raise
        self._opened += 1
        return fd

    # -- whose a descriptor is

    def find(self, tid: int, fd: int) -> OpenNode | object | None:
        """What the thread's descriptor ``fd`` is: an open, or an object of ours that is a file; else None.

        Cost: a system call.

        Source: ``fdget``.
        """
        fd &= 0xFFFFFFFF  # AT_FDCWD is none
        link = self._links.find(tid, fd) or link_by_copy(tid, fd)
        if link is None:
            return None
        found = self._by_link.get(link)
        if found is not None:
            return found
        if link.startswith("socket:["):
            return carriers.content(int(link[8:-1]))
        return None

    def _mapped(self) -> list[tuple[int, int]]:
        """What is mapped of the objects: nothing, while nobody has the node open. See ``ObjectFile``."""
        return self._mappings() if self._by_link else []

    # -- the last close

    def _watch(self) -> None:
        """Wait for closes, of the nodes and of files that name objects."""
        pause = _SOONEST
        look_again = False
        with self._epoll as epoll:
            while True:
                told = epoll.poll(pause if look_again else None)
                if any(fd == self._stop for fd, _ in told):
                    return
                task.Waiter().wait(task.now() + _GRACE)  # who opens again at once does it himself meanwhile
                look_again = not self._look()
                pause = min(2 * pause, _LATEST) if look_again else _SOONEST

    def _look(self) -> bool:
        """Let go of what nobody has any more; False if somebody should look again soon."""
        try:
            carriers.collect()
            self.collect()
            self._device.mem.reap()
            if not self._by_link:
                self._objects.collect()
        except (GpuvmError, OSError):  # no memory, or no descriptor, even for that
            return False
        return not (self._doubtful or self._again)

    def collect(self) -> None:
        """End the clients of what nobody has open any more, as far as it has been told."""
        with self._mutex:
            over = self._gone_now()
        for made in over:
            if not (
                made.client.channels and _started(f"end of {made.client.name}", partial(self._end, made))
            ):
                self._end(made)

    def _gone_now(self) -> list[OpenNode]:
        """Whose last descriptor was closed, and who has something left from before. Locking: ``_mutex``."""
        names, lost = self._closes.read()
        self._lost += lost
        told = {f"/{name}": None for name in names} | self._doubtful
        if lost:
            told |= dict.fromkeys(link for link, made in self._by_link.items() if made.marked)
        over, self._again = self._again, []
        for link in told:
            made = self._by_link.get(link)
            if made is None:
                continue
            if made.marked and is_marked(self._objects.fd, made.number):
                # Another open of the link was closed; or this one just now, and its mark goes a moment later.
                self._doubtful[link] = None
            else:
                self._forget(link)
                self._ending[made] = None
                over.append(made)
        return over

    def _forget(self, link: str) -> None:
        """Take the link away. Locking: ``_mutex``."""
        self._by_link.pop(link, None)
        self._doubtful.pop(link, None)
        os.unlink(link[1:], dir_fd=self._directory)

    def _end(self, made: OpenNode) -> None:
        """Close a client. If calls of it are under way, the last of them lets go of what it has."""
        client = made.client
        if not made.is_ending:
            made.is_ending = True
            self._tell_closing(made)
        try:
            client.close()
        except GpuvmError:  # no memory, even for that
            self._end_again(made)
            return
        if client.released.signalled:
            self._ended(made)
        elif not _started(f"end of {client.name}", partial(self._wait_for_end, made)):
            self._end_again(made)

    def _end_again(self, made: OpenNode) -> None:
        """Next time."""
        with self._mutex:
            self._again.append(made)

    def _wait_for_end(self, made: OpenNode) -> None:
        made.client.released.wait()
        self._ended(made)

    def _ended(self, made: OpenNode) -> None:
        try:
            self._tell_closed(made)
        finally:
            del self._ending[made]
            made.over.signal()

    def close(self) -> None:
        """Close all clients, whoever has them open, and wait until all is gone. No call may come any more.

        Raises:
            GpuvmError: as ``Client.close``.
        """
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        with self._mutex:
            left, self._again = self._again, []
            for link, made in [*self._by_link.items()]:
                self._forget(link)
                self._ending[made] = None
                left.append(made)
        for made in left:
            self._end(made)
        for made in self._again:
            made.client.close()
            self._wait_for_end(made)
        for made in [*self._ending]:
            made.over.wait()
        self._objects.mapped = None
        self._objects.collect()
        self._closes.close()
        self._links.close()
        os.close(self._stop)

    # -- itself

    def check(self) -> None:
        """Verify that links and marks are those of the opens. No open may come or go meanwhile.

        Raises:
            CheckFailed: with the state.
        """
        links = set(self._names())
        names = {made.name for made in self._by_link.values()}
        unmarked = [
            made
            for made in self._by_link.values()
            if made.marked and not is_marked(self._objects.fd, made.number)
        ]
        if links != names or unmarked or not self._doubtful.keys() <= self._by_link.keys():
            raise CheckFailed(f"opens {self._by_link}, links {links}, unmarked {unmarked}")

    def _names(self) -> list[str]:
        """Of the links that there are."""
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            return [name for name in os.listdir(readable) if name != self._objects.name]
        finally:
            os.close(readable)

    def statistics(self) -> OpensStatistics:
        """Counts, of now."""
        return OpensStatistics(
            len(self._by_link), self._opened, len(self._ending), len(self._doubtful), self._lost
        )

    def __repr__(self) -> str:
        return f"<Opens of {self._device!r}: {len(self._by_link)}>"


def _started(name: str, target: Callable[[], None]) -> bool:
    """Run it in a thread of its own, unless there can be none."""
    try:
        task.start(name, target)
    except (RuntimeError, MemoryError):  # none is left to this user, or to this machine
        return False
    return True
