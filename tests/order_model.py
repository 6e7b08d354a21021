"""An oracle for the order of jobs: a graph with an edge for everything that waits, and a search for a path.

Nodes are jobs, fences and the steps of the program, one a call. Nothing is remembered but edges.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias

from tracefile import Call

Node: TypeAlias = tuple[str, int]

_SYNC_FILE = 1
_AVAILABLE = 4


class OrderModel:
    """Of calls that are numbered from 1 on, and all went well."""

    def __init__(self, calls: list[Call]) -> None:
        self.behind: defaultdict[Node, set[Node]] = defaultdict(set)
        self.jobs: list[int] = []
        self.calls = len(calls)
        self._last: dict[tuple[int, int], Node] = {}  # of each queue
        self._queues: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
        self._syncobjs: dict[tuple[int, int], int] = {}
        self._chains: defaultdict[int, list[tuple[int, Node]]] = defaultdict(list)
        self._files: dict[int, int] = {}
        self._sync_files: dict[int, Node | None] = {}
        self._fences = 0
        for number, call in enumerate(calls, 1):
            self._edge(("step", number - 1), ("step", number))
            getattr(self, "_" + call["call"], self._nothing)(number, call["client"], call)

    def after(self, first: int) -> list[int]:
        """All calls behind it, up to the one that comes after the last, that job ``first`` comes before."""
        seen: set[Node] = set()
        todo = list(self.behind["job", first])
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += self.behind[node]
        jobs = set(self.jobs)
        ends = range(first + 1, self.calls + 2)
        return [at for at in ends if ("step", at - 1) in seen or (at in jobs and ("job", at) in seen)]

    def _edge(self, first: Node, second: Node) -> None:
        self.behind[first].add(second)

    def _nothing(self, number: int, client: int, call: Call) -> None:
        pass

    # -- jobs

    def _job(self, number: int, client: int, channel: int, call: Call) -> None:
        queue, job = (client, channel), ("job", number)
        self.jobs.append(number)
        self._edge(("step", number - 1), job)
        if queue in self._last:
            self._edge(self._last[queue], job)
        self._last[queue] = job
        self._queues[client].add(queue)
        for sync in call.get("waits", ()):
            point = sync["value"] if sync["type"] == "timeline" else 0
            fence = self._find(self._syncobjs[client, sync["handle"]], point)
            if fence is not None:
                self._edge(fence, job)
        for sync in call.get("signals", ()):
            point = sync["value"] if sync["type"] == "timeline" else 0
            self._put(self._syncobjs[client, sync["handle"]], point, job)

    def _exec(self, number: int, client: int, call: Call) -> None:
        self._job(number, client, call["channel"], call)

    def _vm_bind(self, number: int, client: int, call: Call) -> None:
        self._job(number, client, 0, call)
        if not call["flags"]:
            self._edge(("job", number), ("step", number))

    def _channel_free(self, number: int, client: int, call: Call) -> None:
        queue = client, call["channel"]
        if queue in self._last:
            self._edge(self._last[queue], ("step", number))

    def _gem_cpu_prep(self, number: int, client: int, call: Call) -> None:
        """The object is mapped in the client's space alone, before its first EXEC."""
        for queue in self._queues[client]:
            if queue[1]:
                self._edge(self._last[queue], ("step", number))

    # -- sync objects

    def _put(self, syncobj: int, point: int, source: Node | None) -> None:
        self._fences += 1
        fence = "fence", self._fences
        chain = self._chains[syncobj]
        if source is not None:
            self._edge(source, fence)
        if point == 0:
            chain.clear()
        elif chain:
            self._edge(chain[-1][1], fence)
            point = max(point, chain[-1][0])
        chain.append((point, fence))

    def _find(self, syncobj: int, point: int) -> Node | None:
        chain = self._chains[syncobj]
        if point == 0:
            return chain[-1][1] if chain else None
        return next((fence for at, fence in chain if at >= point), None)

    def _of(self, client: int, call: Call) -> list[int]:
        return [self._syncobjs[client, handle] for handle in call["handles"]]

    def _waited(self, number: int, syncobj: int, point: int) -> None:
        fence = self._find(syncobj, point)
        if fence is not None:
            self._edge(fence, ("step", number))

    def _syncobj_create(self, number: int, client: int, call: Call) -> None:
        self._syncobjs[client, call["handle"]] = number
        if call["flags"]:
            self._put(number, 0, None)

    def _syncobj_wait(self, number: int, client: int, call: Call) -> None:
        if call["flags"] & 1 or len(call["handles"]) == 1:
            for syncobj in self._of(client, call):
                self._waited(number, syncobj, 0)

    def _syncobj_timeline_wait(self, number: int, client: int, call: Call) -> None:
        if call["flags"] & _AVAILABLE:
            return
        if call["flags"] & 1 or len(call["handles"]) == 1:
            for syncobj, point in zip(self._of(client, call), call["points"], strict=True):
                self._waited(number, syncobj, point)

    def _syncobj_query(self, number: int, client: int, call: Call) -> None:
        for syncobj, point in zip(self._of(client, call), call["points"], strict=True):
            if point and not call["flags"]:
                self._waited(number, syncobj, point)

    def _syncobj_reset(self, number: int, client: int, call: Call) -> None:
        for syncobj in self._of(client, call):
            self._chains[syncobj].clear()

    def _syncobj_signal(self, number: int, client: int, call: Call) -> None:
        for syncobj in self._of(client, call):
            self._put(syncobj, 0, None)

    def _syncobj_timeline_signal(self, number: int, client: int, call: Call) -> None:
        for syncobj, point in zip(self._of(client, call), call["points"], strict=True):
            self._put(syncobj, point, None)

    def _syncobj_transfer(self, number: int, client: int, call: Call) -> None:
        source = self._find(self._syncobjs[client, call["src_handle"]], call["src_point"])
        self._put(self._syncobjs[client, call["dst_handle"]], call["dst_point"], source)

    def _syncobj_handle_to_fd(self, number: int, client: int, call: Call) -> None:
        syncobj = self._syncobjs[client, call["handle"]]
        if call["flags"] & _SYNC_FILE:
            self._sync_files[call["fd"]] = self._find(syncobj, call["point"])
        else:
            self._files[call["fd"]] = syncobj

    def _syncobj_fd_to_handle(self, number: int, client: int, call: Call) -> None:
        if call["flags"] & _SYNC_FILE:
            fence = self._sync_files.get(call["fd"])
            self._put(self._syncobjs[client, call["handle"]], call["point"], fence)
        else:
            self._syncobjs[client, call["handle"]] = self._files[call["fd"]]
