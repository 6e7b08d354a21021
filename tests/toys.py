"""Calls for a program without a driver: they count, and sleep until they are told to go on."""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from collections.abc import Callable

from gpuvm.device.notify import Notification
from gpuvm.errors import Interrupted
from gpuvm.sync import task
from gpuvm.sync.mutex import Mutex

COUNT, WAIT, RELEASE, INSIST, SLEEPERS, INTERRUPTED, LOOKS, DOZE = range(1, 9)


class Toys:
    """What tests/device_programs/toy.h calls."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.counted: Counter[int] = Counter()
        self.slept = 0
        self.interrupted = 0
        self._released: set[int] = set()
        self._sleeping: dict[int, list[task.Waiter]] = defaultdict(list)
        self._observers: list[task.Waiter] = []
        self._mutex = Mutex("toys")
        self.looks: Callable[[], int] = lambda: 0

    def __call__(self, number: int, argument: int, _call: Notification) -> int:
        with self._mutex:
            self.calls[number] += 1
        if number == COUNT:
            with self._mutex:
                self.counted[argument] += 1
        elif number in (WAIT, INSIST):
            self._sleep(argument, number == WAIT)
        elif number == RELEASE:
            self.release(argument)
        elif number == SLEEPERS:
            self._observe(lambda: self.slept >= argument)
        elif number == INTERRUPTED:
            self._observe(lambda: self.interrupted >= argument)
        elif number == DOZE:
            task.Waiter().wait(task.now() + argument * 1000, interruptible=True)
        elif number == LOOKS:
            until = self.looks() + argument
            while self.looks() < until:
                task.Waiter().wait(task.now() + 1_000_000)
        else:
            return -errno.ENOTTY
        return 0

    def _sleep(self, what: int, interruptible: bool) -> None:
        with self._mutex:
            if what in self._released:
                return
            waiter = task.Waiter()
            self._sleeping[what].append(waiter)
            self.slept += 1
            self._wake_observers()
        try:
            waiter.wait(interruptible=interruptible)
        except Interrupted:
            with self._mutex:
                self.interrupted += 1
                self._wake_observers()
            raise

    def release(self, what: int) -> None:
        with self._mutex:
            self._released.add(what)
            for waiter in self._sleeping.pop(what, ()):
                waiter.wake()

    def _observe(self, seen: Callable[[], bool]) -> None:
        while True:
            with self._mutex:
                if seen():
                    return
                waiter = task.Waiter()
                self._observers.append(waiter)
            waiter.wait(interruptible=True)

    def _wake_observers(self) -> None:
        for waiter in self._observers:
            waiter.wake()
        self._observers.clear()
