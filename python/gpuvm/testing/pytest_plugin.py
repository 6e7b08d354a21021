"""What pytest has where gpuvm is installed: ``--gpuvm``, and the fixture ``gpuvm_node``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from gpuvm.testing.node import Node

_BELOW: Final = "GPUVM_PYTEST"
"""Of the environment: this session is the one that was started below the device."""
_SCRIPTS: Final = ("pytest", "py.test")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--gpuvm``."""
    parser.getgroup("gpuvm").addoption(
        "--gpuvm",
        action="store_true",
        help="run the whole session under `gpuvm run`: tests and what they start find /dev/dri/renderD128",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Begin again below the device, in the same process, with the same arguments."""
    if not config.getoption("--gpuvm") or _BELOW in os.environ:
        return
    script = [sys.argv[0]] if os.path.basename(sys.argv[0]) in _SCRIPTS else ["-m", "pytest"]
    session = [sys.executable, *script, *config.invocation_params.args]
    sys.stdout.flush()
    sys.stderr.flush()
    # A word of the command, so that the command that the report names does what this one did.
    below = ["env", f"{_BELOW}=1", *session]
    os.execv(sys.executable, [sys.executable, "-m", "gpuvm", "run", "--", *below])


@pytest.fixture
def gpuvm_node() -> Iterator[Node]:
    """A device's node for one test, in this process. At its end nothing may be left of what was opened."""
    from gpuvm.testing.node import Node

    with Node() as node:
        yield node
