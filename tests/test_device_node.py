"""The node under `gpuvm run` itself: as root, in a user namespace, as an ordinary user."""

from __future__ import annotations

import os

import pytest

from compiled import compiled, needs_cc
from device_world import device_world
from running import Ran, both_modes, gpuvm_run, needs_ordinary_user, run_as_nobody
from suite import scaled

pytestmark = needs_cc

SCENES = [
    ("lifetime", "forked"),
    ("lifetime", "duplicated"),
    ("lifetime", "executed"),
    ("lifetime", "sent"),
    ("lifetime", "mapped"),
    ("lifetime", "many", "50"),
    ("sharing", "prime"),
    ("sharing", "syncobj"),
    ("sharing", "fences"),
    ("sharing", "exhausted"),
    ("reopened",),
    ("races", "1", str(scaled(50, 5000))),
    ("hell", "calls", "1", str(scaled(300, 50_000))),
    ("hell", "vanish", "2"),
]


def script() -> str:
    """All of them, one after the other. At each step a program is told to go on."""
    lines = ["set -e"]
    for words in SCENES:
        command = " ".join([compiled(words[0]), *words[1:]])
        lines += [f"echo -- {' '.join(words)}", f"{command} < /dev/zero"]
    return "\n".join([*lines, "echo all"])


def check(ran: Ran) -> None:
    assert ran.status == 0, ran
    assert ran.out.endswith("all\n"), ran
    assert "Traceback" not in ran.err, ran


@both_modes
def test_programs_one_after_the_other(mode: tuple[str, ...]) -> None:
    check(gpuvm_run("sh", "-c", script(), options=mode))


@needs_ordinary_user
def test_as_an_ordinary_user() -> None:
    os.chmod(os.path.dirname(compiled("reopened")), 0o755)
    check(run_as_nobody("sh", "-c", script()))


def test_a_file_that_was_cut_off_past_us() -> None:
    with device_world() as world, world.program("reopened", "by-32-bit-calls") as program:
        if not (line := program.line()):
            pytest.skip("this kernel does no calls of 32-bit programs")
        assert line == "cut off"
        (client,) = world.device.clients
        view = client.view(1)
        assert not view.any()
        program.goes_on_until("mended")
        assert view[0] == 1
        assert world.device.mem.object_file.statistics().cut_off == 1
        world.device.check()
        del view, client
        program.ends_well()
