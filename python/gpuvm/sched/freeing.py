"""Freeing: the driver's ``free_job`` is called, once, for each job that is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvm.sched.backend import call
from gpuvm.sched.job import FREED, KILLED, RUNNING
from gpuvm.sched.run_queue import guard

if TYPE_CHECKING:
    from gpuvm.sched.job import Job
    from gpuvm.sched.worker import Worker


def free_done(worker: Worker) -> None:
    """Free the jobs that are done, unless the scheduler is stopped. By whoever stands at the post."""
    worker.free_lock.lock()
    try:
        while worker.done and not worker.paused:
            _free(worker, worker.done[0])
            del worker.done[0]
    finally:
        worker.free_lock.unlock()


def _free(worker: Worker, job: Job) -> None:
    """Free it, unless it is freed, or the driver looks at it because it hung."""
    try:
        with guard:
            if job is worker.timing_out:
                worker.done_late = job
                return
            if job._state is RUNNING:
                place = 0
                if worker.watchdog is not None or worker.in_flight[0] is not job:
                    place = _place_in_flight(worker, job)
                del worker.in_flight[place]
                worker.credits_used -= job.credits
            elif job._state is KILLED:
                del worker.killed[job]
            else:
                return
            job._state = FREED
            worker.outstanding -= 1
            worker.freed += 1
            worker.freeing = job
        call(worker.call_free_job, job)
    except BaseException as error:
        if worker.freeing is not None:  # Ctrl-C was faster
            call(worker.call_free_job, job)
        worker.keep_running(error, f"free_job of {job!r}")


def _place_in_flight(worker: Worker, job: Job) -> int:
    """If it is the first, the next one is timed from here on."""
    place = worker.in_flight.index(job)
    if place == 0:
        worker.note_end_of_oldest(job)
    return place
