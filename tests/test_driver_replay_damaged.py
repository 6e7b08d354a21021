"""Recordings that no driver made, replayed through one: differences, and nothing worse."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from driver_traces import replay_of
from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import read_records
from suite import scaled
from tracefile import SPARSE_BUFFER

_RETS = (0, 0, -2, -12, -14, -16, -22, -28, -38, -62)


def damaged(rng: random.Random) -> list[str]:
    """The recording with a few lines lost, repeated or out of order, and a few numbers that are others."""
    calls = [json.loads(line) for line in SPARSE_BUFFER.read_text().splitlines()]
    for _ in range(rng.choice((1, 5, 30))):
        at = rng.randrange(len(calls))
        match rng.randrange(5):
            case 0:
                del calls[at]
            case 1:
                calls.insert(rng.randrange(len(calls)), calls[at])
            case 2:
                calls.insert(rng.randrange(len(calls)), calls.pop(at))
            case 3:
                calls[at] = {**calls[at], "ret": rng.choice(_RETS)}
            case 4:
                calls[at] = changed(rng, calls[at])
    return [json.dumps(one) for one in calls]


def changed(rng: random.Random, value: Any) -> Any:
    """The JSON value with one number in it another one."""
    if isinstance(value, dict):
        key = rng.choice(list(value))
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list):
        if not value:
            return value
        at = rng.randrange(len(value))
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, int):
        near = max(value + rng.choice((-1, 1)), 0)
        return rng.choice((0, 1, near, value ^ (1 << rng.randrange(48)), value * 2, (1 << 64) - 4096))
    return value


@pytest.mark.parametrize("seed", range(scaled(10, 300)))
def test_a_damaged_recording_is_replayed_to_its_end(seed: int) -> None:
    lines = damaged(random.Random(seed))
    try:
        records = list(read_records("damaged", enumerate(lines, 1)))
    except TraceError:
        return  # that is what the reader is for
    with replay_of(records) as replay:
        made = sum(counts.made + counts.not_made for counts in replay.calls.values())
        assert made == len(records)
        assert len({one.line for one in replay.differences}) == len(replay.differences)
