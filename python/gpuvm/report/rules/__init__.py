"""The rules of `gpuvm check`, one a file: a docstring for the user, a bad and a good example, and `find`."""

from __future__ import annotations

from typing import Final

from gpuvm.report.rules import (
    bind_changes_nothing,
    double_close,
    eviction_thrash,
    exec_faulted,
    leak_at_exit,
    mapping_never_used,
    mergeable_neighbours,
    rebind_while_running,
    sparse_never_populated,
    use_after_unmap,
    use_before_bind,
)
from gpuvm.report.rules.rule import Rule, rule_of

RULES: Final[tuple[Rule, ...]] = tuple(
    rule_of(module)
    for module in (
        use_after_unmap,
        use_before_bind,
        rebind_while_running,
        exec_faulted,
        double_close,
        leak_at_exit,
        eviction_thrash,
        mergeable_neighbours,
        bind_changes_nothing,
        sparse_never_populated,
        mapping_never_used,
    )
)
"""The worst first."""
