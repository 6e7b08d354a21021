"""Which of these tests run: they need the Debian 13 below build/, and most of them `make test-nvk`."""

from __future__ import annotations

import pytest

from nvk import debian
from suite import NVK


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short_form: runs in every `make test`, not only in `make test-nvk`")
    config.addinivalue_line("markers", "program(name, root): needs this program of a Debian 13 below build/")


def pytest_unconfigure() -> None:
    debian.remove_built()


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _why_not(item)
    if reason is not None:
        pytest.skip(reason)


def _why_not(item: pytest.Item) -> str | None:
    if not NVK and item.get_closest_marker("short_form") is None:
        return "only make test-nvk runs it"
    lacking = [debian.lacks("vulkaninfo")]
    lacking += [debian.lacks(*mark.args) for mark in item.iter_markers("program")]
    return next(filter(None, lacking), None)
