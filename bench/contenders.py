"""The registry: who takes part, and who can on this machine."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from bench.contender import Contender

# Name on the command line: module that defines it, class, package it needs.
REGISTRY: dict[str, tuple[str, str, str]] = {
    "gpuvm": ("bench.contender_gpuvm", "GpuvmContender", "gpuvm._core"),
    "btreemap": ("bench.contender_rust", "BTreeContender", "gpuvm_rivals"),
    "redblack": ("bench.contender_rust", "RedBlackContender", "gpuvm_rivals"),
    "sortedcontainers": ("bench.sorted_space", "SortedContender", "sortedcontainers"),
    "intervaltree": ("bench.interval_space", "IntervalContender", "intervaltree"),
}


def available(name: str) -> bool:
    """Whether the package behind a contender is installed."""
    try:
        return find_spec(REGISTRY[name][2]) is not None
    except ModuleNotFoundError:
        return False


def contender_class(name: str) -> type[Contender]:
    """The class of a contender; calling it makes an empty space."""
    module, class_name, _package = REGISTRY[name]
    return cast(type[Contender], getattr(import_module(module), class_name))
