"""The job scheduler (the kernel's ``drm_gpu_scheduler``).

- ``scheduler``   ``Scheduler``: credits, stopping and starting, ending
- ``entity``      ``Entity``: a queue of jobs in order; flush, kill, destroy
- ``job``         ``Job``: dependencies, arm, push
- ``backend``     ``SchedulerBackend``: what a driver brings
- ``run_queue``   whose turn it is: priorities and policies
- ``arguments``   what is looked at before any thread begins
- ``worker``      the thread that runs jobs
- ``freeing``     how they are freed
- ``lending``     how a thread that waits for its job does that by itself
- ``post``        where the one or the other stands, and is rung for
- ``watchdog``    the thread that finds those that hang
- ``doorbell``    how that one is woken
- ``dependency``  fences to wait for, the latest of each context
- ``fence``       the fences of a job

Locks, outermost first: whatever the caller holds, ``sched_run`` or ``sched_free``, what a callback takes.
``run_queue.guard`` is inside of everything and nothing is taken under it.
"""

from gpuvm.sched.backend import SchedulerBackend, TimeoutStatus
from gpuvm.sched.entity import Entity, EntityStatistics
from gpuvm.sched.job import Job, JobState, JobStatistics
from gpuvm.sched.run_queue import Policy, Priority
from gpuvm.sched.scheduler import Scheduler, SchedulerStatistics

__all__ = [
    "Entity",
    "EntityStatistics",
    "Job",
    "JobState",
    "JobStatistics",
    "Policy",
    "Priority",
    "Scheduler",
    "SchedulerBackend",
    "SchedulerStatistics",
    "TimeoutStatus",
]
