"""Bundles: short-lived mappings drawn together, where there are more than a page can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuvm.report.page.columns import Numbers

_SLICES: Final = 512
"""Of the calls: what of a client was born in one of them may share a bundle."""
_FARTHEST: Final = 1 << 24
"""Bytes between neighbours in a bundle."""


@dataclass(slots=True)
class Mappings:
    """Columns. Where there are several `members` it is a bundle, of which `offset` is the mapped bytes.

    Attributes:
        longest: calls that a bundled mapping lived, at most; 0: there is no bundle.
    """

    client: Numbers
    addr: Numbers
    range: Numbers
    object: Numbers
    offset: Numbers
    kind: Numbers
    born: Numbers
    died: Numbers
    members: Numbers
    longest: int = 0

    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return ("client", "addr", "range", "object", "offset", "kind", "born", "died", "members")


def bundled(mappings: Mappings, most: int) -> Mappings:
    """At most about ``most``: the longest-lived as they are, the others bundled. O(n log n).

    A bundle is of one client and of neighbours: at most 16 MiB are between two of its mappings, and they were
    born in the same 512th of the calls.
    """
    if len(mappings.addr) <= most:
        return mappings
    keep = most // 2
    life = mappings.died - mappings.born
    order = np.argsort(-life, kind="stable")
    alone, others = np.sort(order[:keep]), order[keep:]
    longest = int(life[others].max())

    slice_ = mappings.born[others] * _SLICES // max(int(mappings.born.max()) + 1, 1)
    others = others[np.lexsort((mappings.addr[others], slice_, mappings.client[others]))]
    slice_ = mappings.born[others] * _SLICES // max(int(mappings.born.max()) + 1, 1)
    client, addr = mappings.client[others], mappings.addr[others]
    new = np.ones(len(others), dtype=bool)
    near = np.abs(addr[1:] - (addr + mappings.range[others])[:-1]) <= _FARTHEST
    new[1:] = (client[1:] != client[:-1]) | (slice_[1:] != slice_[:-1]) | ~near
    longest_run = -(-len(others) // (most - keep))
    new |= _every(new, max(longest_run, 1))
    starts = np.flatnonzero(new)

    first = np.minimum.reduceat(addr, starts)
    end = np.maximum.reduceat(addr + mappings.range[others], starts)
    members = np.diff(np.append(starts, len(others)))
    bytes_ = np.add.reduceat(mappings.range[others], starts)
    single = members == 1
    born = np.minimum.reduceat(mappings.born[others], starts)
    columns = {
        "client": client[starts],
        "addr": first,
        "range": end - first,
        "object": mappings.object[others][starts],
        "offset": np.where(single, mappings.offset[others][starts], bytes_),
        "kind": np.where(single, mappings.kind[others][starts], 0),
        "born": born,
        "died": np.maximum.reduceat(mappings.died[others], starts),
        "members": members,
    }
    joined = {
        name: np.concatenate([getattr(mappings, name)[alone], columns[name]]) for name in mappings.names()
    }
    by_birth = np.argsort(joined["born"], kind="stable")
    return Mappings(**{name: values[by_birth] for name, values in joined.items()}, longest=longest)


def _every(new: Numbers, most: int) -> Numbers:
    """Where a run that is longer than ``most`` is cut."""
    starts = np.flatnonzero(new)
    place = np.arange(len(new)) - np.repeat(starts, np.diff(np.append(starts, len(new))))
    cut: Numbers = place % most == 0
    return cut
