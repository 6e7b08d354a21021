"""Lending: a thread that is about to wait for its job does the worker's work on it, and wakes nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvm.sched.freeing import free_done
from gpuvm.sched.job import ARMED, QUEUED, next_stamp
from gpuvm.sched.run_queue import guard
from gpuvm.sync import lockdep, task

if TYPE_CHECKING:
    from gpuvm.sched.job import Job
    from gpuvm.sched.worker import Worker


def lend(worker: Worker, job: Job) -> bool:
    """Push the job, which is armed, give it to the hardware and, if it is done then, free it.

    Returns:
        False, and the job is not pushed, if somebody is at work for the scheduler, or the job would have to
        wait for something: dependencies, jobs whose turn it is, credits, a scheduler that is stopped.

    Raises:
        BaseException: what is no ``Exception``, such as ``KeyboardInterrupt``, came meanwhile or in a
            callback. The job is pushed all the same. If it was just being given to the hardware, it is done
            with EIO.
    """
    try:
        if lockdep.enabled:
            lockdep.might_wait(job._finished)
        if not worker.post.take():
            return False
        worker.run_lock.lock()
        lent = _take_alone(worker, job)
        if lent:
            worker.give_to_hardware(job)
        worker.run_lock.unlock()
        if lent and worker.done:
            free_done(worker)
        _leave(worker)
    except BaseException:
        _break_off(worker, job)
        raise
    return lent


def _take_alone(worker: Worker, job: Job) -> bool:
    """Push it and take it out at once, unless anything keeps it waiting."""
    entity = job.entity
    queue = entity._queue
    waits_for = job._dependencies
    if waits_for is not None and worker.prepare is None and waits_for.all_signalled():
        job._dependencies, job._ready = None, True
    stamp = next_stamp()
    now = 0 if worker.watchdog is None else task.now()
    with guard:
        if (
            job._state is not ARMED
            or not job._ready
            or entity.stopped
            or worker.paused
            or worker.woken
            or worker.queue.entities
            or queue[0] is not job
            or (len(queue) > 1 and queue[1]._state is QUEUED)
            or job.credits > worker.credit_limit - worker.credits_used
        ):
            return False
        job._stamp = stamp
        worker.take_out(job, now)
    if worker.watchdog is not None:
        worker.watchdog.wind_up()
    return True


def _leave(worker: Worker) -> None:
    """Wake the worker if there is more to do."""
    worker.post.clear()
    if worker.done or worker.woken or worker.queue.entities or worker.closing:
        worker.post.ring()
    worker.post.leave()


def _break_off(worker: Worker, job: Job) -> None:
    """Leave to the worker what is left, wherever we were torn out."""
    if worker.post.is_mine():
        try:
            if worker.run_lock.held_here and worker.handling is job:
                _end_handling(worker, job)
        finally:
            worker.handling = None
            worker.run_lock.let_go()
            worker.free_lock.let_go()
            worker.post.leave()
    worker.post.ring()
    if job._state is ARMED:
        job.push()


def _end_handling(worker: Worker, job: Job) -> None:
    """It was taken out of the queue, and perhaps given to the hardware."""
    if worker.watchdog is not None:
        worker.watchdog.wind_up()
    hardware, finished = job.parent, job._finished
    job._scheduled.announce()
    if finished._done:
        worker.done.append(job)  # perhaps a second time, which does no harm
    elif job._ended:
        worker.look_again(job)
    elif hardware is None:
        worker.end(job, job._error)
    else:
        hardware.remove_callback(job._hardware_done)
        worker.follow(job, hardware)
