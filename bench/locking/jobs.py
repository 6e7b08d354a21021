"""Work for another thread: hand it over, let it run there, learn that it is done.

The work itself is to note its number. A unit is one job; after each batch the thread that made it waits for
all of it.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm import sched
from gpuvm.sync.fence import Fence, fence_context_alloc

CREDITS = 64


class Jobs(Contender):
    """One thread that makes jobs, and one that runs them."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._asked = 0
        self._ran: list[int] = []

    def jobs(self, units: int) -> list[Job]:
        batches = [range(begin, begin + self._batch) for begin in range(0, units, self._batch)]
        self._asked, self._ran = units, []
        run = self._run_batch

        def job() -> None:
            for batch in batches:
                run(batch)

        return [job]

    def check(self) -> int:
        if self._ran != list(range(self._asked)):
            raise Disagreement(f"{type(self).__name__}: not every job ran once and in order")
        return self._asked

    @abstractmethod
    def _run_batch(self, numbers: range) -> None:
        """Have these jobs done."""


class Numbered(sched.Job):
    """A job that knows its number."""

    __slots__ = ("number",)

    def __init__(self, entity: sched.Entity, number: int) -> None:
        super().__init__(entity)
        self.number = number


class Hardware(sched.SchedulerBackend[Numbered]):
    """It is done with a job at once, and has a fence for it that says so."""

    def __init__(self, ran: list[int]) -> None:
        self.ran = ran
        self._context = fence_context_alloc()

    def run_job(self, job: Numbered) -> Fence:
        self.ran.append(job.number)
        fence = Fence(self._context, job.number)
        fence.signal()
        return fence


class SchedulerJobs(Jobs):
    """A `Scheduler` with one entity."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self._hardware = Hardware(self._ran)
        self._scheduler = sched.Scheduler(self._hardware, name="bench", credit_limit=CREDITS)
        self._entity = sched.Entity(self._scheduler)

    def jobs(self, units: int) -> list[Job]:
        jobs = super().jobs(units)
        self._hardware.ran = self._ran
        return jobs

    def _run_batch(self, numbers: range) -> None:
        entity = self._entity
        finished = []
        for number in numbers:
            job = Numbered(entity, number)
            job.arm()
            finished.append(job.finished)
            job.push()
        for fence in finished:
            fence.wait()

    def close(self) -> None:
        self._entity.destroy()
        self._scheduler.fini()


class WaitedJobs(SchedulerJobs):
    """The same, one by one, each with the call for who waits for its job at once."""

    def _run_batch(self, numbers: range) -> None:
        entity = self._entity
        for number in numbers:
            job = Numbered(entity, number)
            job.arm()
            job.push_and_wait()


class ExecutorJobs(Jobs):
    """A future for each job."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self._executor = ThreadPoolExecutor(1)

    def _run_batch(self, numbers: range) -> None:
        submit, run = self._executor.submit, self._ran.append
        for future in [submit(run, number) for number in numbers]:
            future.result()

    def close(self) -> None:
        self._executor.shutdown()


class QueueJobs(Jobs):
    """The floor: a queue there, and one back that tells of each job that is done."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self._todo: SimpleQueue[int | None] = SimpleQueue()
        self._done: SimpleQueue[int] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        todo, done = self._todo.get, self._done.put
        while (number := todo()) is not None:
            self._ran.append(number)
            done(number)

    def _run_batch(self, numbers: range) -> None:
        put, done = self._todo.put, self._done.get
        for number in numbers:
            put(number)
        for _ in numbers:
            done()

    def close(self) -> None:
        self._todo.put(None)
        self._thread.join()
