"""Eight programs in as many threads, in a quarter of the memory that they want, with accidents: a stress."""

from __future__ import annotations

import errno
import faulthandler
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import numpy as np

import pushbuf
from contention import in_real_threads, strategy_of
from driver_calls import Typed
from driver_world import (
    BIG,
    GART,
    HUGE,
    NO_SHARE,
    PAGE,
    TIMELINE,
    VRAM,
    Bo,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    sparse_op,
    unmap_op,
)
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.sync import task
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from interleaved import sleep_until
from suite import FULL, scaled

THREADS = 8
OBJECTS = 6
SIZE = 4 * BIG
WORKING_SET = THREADS * OBJECTS * SIZE
SLOTS = [HUGE * (1 + slot) for slot in range(2 * OBJECTS)]
"""Where objects are mapped, each slot one; in the last one is what all share."""
REGION = (64 * HUGE, HUGE)
SEMAPHORE = 128 * HUGE
STEPS, SECONDS = 25, 60.0
TIME_LIMIT = 0.2
"""Seconds that a job may take. Copies take far less; where they do not, their channel dies, as it should."""


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """If it takes longer, all threads' stacks are printed, and the process ends."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class TooSlow(Exception):
    """A channel died though it did nothing wrong."""


class Actor:
    """One program, what it should see, and what it does next, by a seed.

    Everything that it submits waits for a point of one timeline and signals the next, so that it knows what
    each copy finds. Jobs of the channel for accidents stand aside.
    """

    def __init__(self, device: Device, seed: int, shared: int) -> None:
        self.device, self.random, self.shared = device, Random(seed), shared
        self.done: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """A new client."""
        self.program = Program(self.device)
        client = self.program.client
        self.calls = Typed(client)
        domains = [VRAM, VRAM | NO_SHARE] * (OBJECTS // 2)
        self.bos = [self.program.bo(SIZE, domain) for domain in domains]
        self.bytes = {bo.handle: client.view(bo.handle).copy() for bo in self.bos}
        common = Bo(client.prime_fd_to_handle(self.shared), SIZE, 0)
        self.bytes[common.handle] = client.view(common.handle).copy()
        self.slots: dict[int, Bo] = dict(zip(SLOTS, self.bos, strict=False)) | {SLOTS[-1]: common}
        self.semaphores = self.program.bo(PAGE, GART)
        self.program.words(self.semaphores)[:] = 0
        self.timeline, self.point = client.syncobjs.create(0), 0
        self.fences: list[Fence] = []
        self.accidents = client.channel_alloc()
        self.retry(
            lambda: self.calls.vm_bind(
                [
                    *(map_op(addr, SIZE, bo.handle) for addr, bo in self.slots.items()),
                    map_op(SEMAPHORE, PAGE, self.semaphores.handle),
                    sparse_op(*REGION),
                ]
            )
        )

    def must_have_been_slow(self) -> None:
        channel = self.program.channel
        assert channel.killed
        name = self.program.client.name
        assert not [
            report for report in self.device.faults if (report.client, report.channel) == (name, channel.id)
        ]
        raise TooSlow

    def retry(self, call: Any) -> None:
        """Others may need the memory just now."""
        for _ in range(1000):
            result = call()
            if result == 0:
                return
            if result == -errno.ENODEV:
                self.must_have_been_slow()
            assert result == -errno.ENOMEM, errno.errorcode[-result]
            self.done["no memory"] += 1
            sleep_until(task.now() + 1_000_000)
        raise AssertionError("no memory for a thousand times")

    # -- submitting

    def syncs(self) -> tuple[list[Sync], list[Sync]]:
        waits = [Sync(TIMELINE, self.timeline, self.point)] if self.point else []
        return waits, [Sync(TIMELINE, self.timeline, self.point + 1)]

    def bind(self, *ops: VmBindOp) -> None:
        if self.random.random() < 0.3:
            self.finish()
            self.retry(lambda: self.calls.vm_bind(ops))
        else:
            self.retry(lambda: self.calls.vm_bind(ops, *self.syncs(), run_async=True))
            self.submitted()

    def exec(self, words: pushbuf.Push) -> None:
        push = self.program.push(words)
        self.retry(lambda: self.calls.exec(self.program.channel.id, [push], *self.syncs()))
        self.submitted()

    def submitted(self) -> None:
        self.point += 1
        syncobj = self.program.client.syncobjs.find(self.timeline)
        assert syncobj is not None
        self.fences.append(syncobj.fence(self.point))

    def finish(self) -> None:
        """All that was submitted is done, and all bytes are as they should be."""
        for fence in self.fences:
            if ended(fence):
                self.must_have_been_slow()
        self.fences.clear()
        for handle, expected in self.bytes.items():
            assert np.array_equal(self.program.client.view(handle), expected), f"object {handle}"

    # -- steps

    def step(self) -> None:
        """Copies most of the time."""
        names = ["copy"] * 6 + ["remap"] * 3 + ["sparse", "evict", "fault", "hang", "reopen", "look"]
        name = self.random.choice(names)
        try:
            getattr(self, name)()
            if len(self.fences) > 12:
                self.finish()
        except TooSlow:
            name = "too slow"
            self.reopen()
        self.done[name] += 1

    def copy(self) -> None:
        src = self.random.choice([*self.slots])
        targets = [slot for slot, bo in self.slots.items() if bo in self.bos and bo != self.slots[src]]
        if not targets:
            return
        dst = self.random.choice(targets)
        size = self.random.randrange(1, SIZE)
        source, target = (self.random.randrange(SIZE - size + 1) for _ in range(2))
        self.exec(pushbuf.Push().copy(dst + target, src + source, size))
        self.bytes[self.slots[dst].handle][target : target + size] = self.bytes[self.slots[src].handle][
            source : source + size
        ]

    def remap(self) -> None:
        """Another object, or none, in some slots."""
        ops = []
        for slot in self.random.sample(SLOTS[:-1], 2):
            if self.random.random() < 0.7:
                bo = self.random.choice(self.bos)
                self.slots[slot] = bo
                ops.append(map_op(slot, SIZE, bo.handle))
            else:
                self.slots.pop(slot, None)
                ops.append(unmap_op(slot, SIZE))
        self.bind(*ops)

    def sparse(self) -> None:
        """Zeros from a hole, bytes beside it; and another region where it was."""
        bo = self.random.choice(self.bos)
        self.bind(map_op(REGION[0] + PAGE, PAGE, bo.handle, PAGE))
        dst = self.random.choice([slot for slot, other in self.slots.items() if other in self.bos] or [0])
        if dst:
            self.exec(pushbuf.Push().copy(dst, REGION[0], 2 * PAGE))
            source = self.bytes[bo.handle][PAGE : 2 * PAGE].copy()
            target = self.bytes[self.slots[dst].handle]
            target[:PAGE] = 0
            target[PAGE : 2 * PAGE] = source
        self.bind(drop_op(*REGION))
        self.bind(sparse_op(*REGION))

    def evict(self) -> None:
        self.program.evict(*self.random.sample(self.bos, 2))

    def look(self) -> None:
        """What others may ask of it at any time."""
        self.program.client.statistics()
        self.device.statistics()
        assert self.program.client.fdinfo()
        assert self.device.gpuvas()

    def fault(self) -> None:
        self.accident(pushbuf.Push().fill(PAGE, 4, 1))

    def hang(self) -> None:
        self.accident(pushbuf.Push().acquire(SEMAPHORE, 1))

    def accident(self, words: pushbuf.Push) -> None:
        """The channel for them dies of it, and the other one goes on meanwhile."""
        push = self.program.push(words)
        client = self.program.client
        sync = Sync(0, client.syncobjs.create(0))
        self.retry(lambda: self.calls.exec(self.accidents.id, [push], (), [sync]))
        self.copy()
        assert ended(client.syncobjs.find_fence(sync.handle, 0, 0)) == errno.ENODEV
        assert self.calls.exec(self.accidents.id) == -errno.ENODEV
        client.syncobjs.destroy(sync.handle)
        client.channel_free(self.accidents.id)
        self.accidents = client.channel_alloc()

    def reopen(self) -> None:
        """Closed in flight; what was submitted ends somehow."""
        fences, self.fences = self.fences, []
        self.program.client.close()
        for fence in fences:
            assert ended(fence) in (0, errno.ESRCH, errno.ENODEV)
        self.begin()

    def end(self) -> None:
        with suppress(TooSlow):
            self.finish()
        self.program.client.close()


class Stage:
    """A device for some actors, with what all of them share."""

    def __init__(self, device: Device) -> None:
        self.device, self.owner = device, Program(device)
        self.shared = self.owner.client.prime_handle_to_fd(self.owner.bo(SIZE, VRAM | GART).handle)
        self.actors: list[Actor] = []

    def actor(self, seed: int) -> Actor:
        actor = Actor(self.device, seed, self.shared)
        self.actors.append(actor)
        return actor

    def close(self) -> Counter[str]:
        """What was done in all."""
        os.close(self.shared)
        self.owner.client.close()
        return sum((actor.done for actor in self.actors), Counter())


def test_stress() -> None:
    """Nobody waits for ever, every byte is where it should be, nothing is left."""
    with watched(scaled(300, 900)), device_of(vram=WORKING_SET // 4, timeout=TIME_LIMIT) as device:
        stage = Stage(device)
        until = time.monotonic() + SECONDS

        def work(number: int) -> None:
            actor = stage.actor(number)
            step = 0
            while time.monotonic() < until if FULL else step < STEPS:
                actor.step()
                step += 1
            actor.end()

        in_real_threads(THREADS, work)
        done = stage.close()
    print(done)
    assert all(done[name] for name in ("copy", "remap", "sparse", "evict", "fault", "hang", "reopen"))
    assert device.mem.statistics().evictions > 50


def test_in_many_orders() -> None:
    """The same by fewer, each time in another order, which can be repeated."""
    done = Counter[str]()
    for seed in range(scaled(4, 100)):
        vram = 3 * OBJECTS * SIZE // 2
        with Interleaving(strategy_of(seed)) as run, device_of(vram=vram, timeout=TIME_LIMIT) as device:
            stage = Stage(device)

            def work(number: int, stage: Stage = stage) -> None:
                actor = stage.actor(number)
                for _ in range(6):
                    actor.step()
                actor.end()

            for number in range(3):
                run.spawn(work, 3 * seed + number)
            run.run()
            done += stage.close()
    print(done)
    assert not done["too slow"]
