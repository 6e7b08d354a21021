"""What is measured, with whom: tables of cases."""

from __future__ import annotations

import time
from functools import partial

from bench import targets
from bench.locking.commit import ExecCommit, SortedLocks, ValidatedCommit, VmCommit
from bench.locking.jobs import ExecutorJobs, QueueJobs, SchedulerJobs, WaitedJobs
from bench.locking.wake import EventPingPong, FencePingPong, LockPingPong
from bench.sampling.case import Case, Table, Target

SIZES = (1, 10, 100, 1000)
THREADS = 4
BATCH = 1000


def _commit_units(objects: int) -> int:
    """Rounds that take about as long for any number of objects."""
    return 100_000 // (objects + 4)


def _commit(objects: int, threads: int) -> Case:
    measured = objects == targets.COMMIT_OBJECTS and threads == 1
    return Case(
        f"{objects:,} object{'s' if objects > 1 else ''}",
        {
            "exec": partial(ExecCommit, objects, threads),
            "exec_lock": partial(VmCommit, objects, threads),
            "sorted": partial(SortedLocks, objects, threads),
        },
        units=_commit_units(objects),
        step=threads,
        targets=(Target(targets.COMMIT_RATIO, "sorted"),) if measured else (),
    )


def _validated(objects: int) -> Case:
    return Case(
        f"{objects:,} object{'s' if objects > 1 else ''}",
        {"on": partial(ValidatedCommit, objects, 1), "off": partial(ExecCommit, objects, 1)},
        units=_commit_units(objects),
    )


def _jobs(title: str, batch: int) -> Case:
    alone = {"waited": partial(WaitedJobs, 1)} if batch == 1 else {}
    return Case(
        title,
        {
            "scheduler": partial(SchedulerJobs, batch),
            **alone,
            "executor": partial(ExecutorJobs, batch),
            "queue": partial(QueueJobs, batch),
        },
        units=5 * BATCH,
        step=batch,
        targets=(Target(targets.JOB_NS),),
    )


COMMITTERS = {"exec": "Exec", "exec_lock": "exec_lock", "sorted": "sorted locks"}
COMMIT_RATIOS = (("exec", "sorted"), ("exec_lock", "sorted"))

TABLES: tuple[Table, ...] = (
    Table(
        "commit",
        "lock and commit, one thread: CPU time a round",
        COMMITTERS,
        COMMIT_RATIOS,
        tuple(_commit(objects, 1) for objects in SIZES),
        clock=time.thread_time_ns,
    ),
    Table(
        "contended",
        f"lock and commit, {THREADS} threads for the same objects: time a round",
        COMMITTERS,
        COMMIT_RATIOS,
        tuple(_commit(objects, THREADS) for objects in SIZES),
    ),
    Table(
        "wake",
        "signal to wake: time a turn",
        {"fence": "Fence", "event": "Event", "lock": "lock"},
        (("fence", "event"), ("fence", "lock")),
        (
            Case(
                "two threads in turn",
                {"fence": FencePingPong, "event": EventPingPong, "lock": LockPingPong},
                units=10_000,
                step=2,
            ),
        ),
    ),
    Table(
        "jobs",
        "work for another thread: time a job",
        {
            "scheduler": "Scheduler",
            "waited": "push_and_wait",
            "executor": "executor",
            "queue": "queue",
        },
        (("scheduler", "executor"), ("scheduler", "queue"), ("waited", "queue")),
        (
            _jobs(f"{BATCH:,} jobs, then wait for all", BATCH),
            _jobs("one job, then wait for it", 1),
        ),
    ),
    Table(
        "validator",
        "lock and commit by Exec, lock validator on or off: CPU time a round",
        {"on": "on", "off": "off"},
        (("on", "off"),),
        tuple(_validated(objects) for objects in SIZES),
        clock=time.thread_time_ns,
    ),
)
