"""What recording costs the tile-streaming program: its calls in this process, and the program under gpuvm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from bench.device.ways import has_cc
from bench.sampling.case import Case, Table, Target
from bench.sampling.contender import Contender, Job
from bench.trace.files import new_path
from bench.trace.streaming_calls import Make, Player, steps
from gpuvm.nouveau import Client, Device
from gpuvm.trace.recording import Recording

MOST = 1.1
"""Times the calls without a recording."""
ROUNDS = 3
"""How often a program makes the calls."""


class Plays(Contender):
    """Makes the calls in this process, recorded into a file with this suffix, or not."""

    def __init__(self, suffix: str | None) -> None:
        self._suffix = suffix
        self._recording: Recording | None = None

    def jobs(self, units: int) -> list[Job]:
        make: Make = Client.drm_ioctl
        if self._suffix is None:
            self._device = Device(name="bench")
        else:
            self._recording = Recording(new_path(f"overhead{self._suffix}"))
            self._device = Device(name="bench", watcher=self._recording.recorder)
            make = self._recording.recorder.make
        return [Player(self._device, make).play]

    def check(self) -> int:
        self._device.close()
        if self._recording is not None:
            self._recording.close()
            assert self._recording.failed is None, self._recording.failed
            assert self._recording.calls == len(steps())
        return len(steps())


class Runs(Contender):
    """Starts the program under ``gpuvm run``, or recorded. It tells itself how long its calls took."""

    def __init__(self, suffix: str | None) -> None:
        self._suffix = suffix
        self._in_calls = 0

    @property
    def clock(self) -> Callable[[], int]:
        return lambda: self._in_calls

    def jobs(self, units: int) -> list[Job]:
        verb = ["run"] if self._suffix is None else ["record", "-o", new_path(f"run{self._suffix}")]
        command = [sys.executable, "-m", "gpuvm", *verb, "--", *program()]

        def job() -> None:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            self._in_calls += sum(int(line.split()[0]) for line in done.stdout.splitlines())

        return [job]

    def check(self) -> int:
        return ROUNDS * len(steps())


@cache
def program() -> tuple[str, ...]:
    """The command, compiled, with the calls in a file."""
    player, calls = new_path("player"), new_path("calls.bin")
    subprocess.run(["cc", "-O2", "-o", player, Path(__file__).with_name("player.c")], check=True)
    Path(calls).write_bytes(b"".join(step.packed() for step in steps()))
    return player, calls, str(ROUNDS)


def table() -> Table:
    """Both, with and without."""
    return Table(
        "overhead",
        "the tile-streaming program, recorded: time a call",
        {"own": "gpuvm record", "lines": "JSON Lines", "none": "not recorded"},
        (("own", "none"), ("lines", "none")),
        (
            Case("in one process", _ways(Plays), units=len(steps()), step=len(steps()), targets=_TARGETS),
            *_under_gpuvm(),
        ),
    )


def _under_gpuvm() -> tuple[Case, ...]:
    """Nothing, where the program cannot be compiled."""
    units = ROUNDS * len(steps())
    title = "under gpuvm run"
    return (Case(title, _ways(Runs), units=units, step=units, targets=_TARGETS),) if has_cc() else ()


_TARGETS = (Target(MOST, "none"),)


def _ways(kind: Callable[[str | None], Contender]) -> Mapping[str, Callable[[], Contender]]:
    suffixes = {"own": ".gpuvm", "lines": ".jsonl", "none": None}
    return {name: partial(kind, suffix) for name, suffix in suffixes.items()}
