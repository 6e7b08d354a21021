"""IGT's wait matrix of syncobj_wait and syncobj_timeline: flags, stages of the work, and the outcome.

The names are IGT's. Those of the timeline's tell the outcome: ``invalid-`` EINVAL, ``etime-`` ETIME, else
success.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from gpuvm.sync.syncobj_table import WAIT_ALL, WAIT_AVAILABLE, WAIT_FOR_SUBMIT

FLAGS = {"all": WAIT_ALL, "for-submit": WAIT_FOR_SUBMIT, "available": WAIT_AVAILABLE}
STAGES = ("unsubmitted", "submitted", "signaled")


def subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def expected(flags: int, stages: Sequence[str]) -> str:
    """The outcome of a wait for points at these stages, told from what each alone means."""
    waits_for_submission = bool(flags & (WAIT_FOR_SUBMIT | WAIT_AVAILABLE))
    if "unsubmitted" in stages and not waits_for_submission:
        return "invalid-"
    reached = {"submitted", "signaled"} if flags & WAIT_AVAILABLE else {"signaled"}
    enough = all if flags & WAIT_ALL else any
    return "" if enough(stage in reached for stage in stages) else "etime-"


def cases(kind: str, timeline: bool) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for names in subsets([name for name in FLAGS if timeline or name != "available"]):
        flags = sum(FLAGS[name] for name in names)
        for stages in subsets(STAGES):
            if len(stages) == 1 or (kind == "multi" and stages):
                yield "-".join([f"{kind}-wait", *names, *stages]), flags, stages
