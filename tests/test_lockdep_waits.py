"""The lock validator: waits of every kind in fence-signalling sections, and waits for user space."""

from __future__ import annotations

import asyncio

import pytest

from fences import make
from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep
from gpuvm.sync.container import FenceArray, FenceChain
from gpuvm.sync.fence import Fence
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.syncobj import SyncObj
from gpuvm.sync.syncobj_table import WAIT_FOR_SUBMIT, SyncObjTable
from locks import in_thread


def test_no_wait_for_user_space_inside() -> None:
    syncobj, table = SyncObj(signalled=True), SyncObjTable()
    handle = table.insert(syncobj)
    with lockdep.fence_signalling(5):
        with pytest.raises(LockdepError, match=r"waits for user space.* section .* of context 5"):
            syncobj.wait(timeout=0)
        with pytest.raises(LockdepError, match="waits for user space"):
            table.wait([handle], 0, WAIT_FOR_SUBMIT)
        with pytest.raises(LockdepError, match="foreign wait"):
            table.wait([handle], 0, 0)
    assert syncobj.wait(timeout=0)


def test_no_wait_for_user_space_with_a_lock() -> None:
    lock = Mutex("device")
    with lock, pytest.raises(LockdepError, match=r'waits for user space.* "device" \(class device\)'):
        SyncObj(signalled=True).wait()


def test_no_await_of_a_foreign_fence_inside() -> None:
    fence = Fence(9, 1)

    async def main() -> None:
        with lockdep.fence_signalling(5):
            await fence

    with pytest.raises(LockdepError, match="waits for fence 9:1"):
        asyncio.run(main())
    assert fence.statistics().callbacks == 0


def test_no_await_with_a_lock_that_signallers_take() -> None:
    queue = Mutex("queue")

    def signaller() -> None:
        with lockdep.fence_signalling(5), queue:
            pass

    async def main() -> None:
        with queue:
            await Fence(5, 1)

    assert in_thread("signaller", signaller) is None
    with pytest.raises(LockdepError, match="fence -> queue -> fence"):
        asyncio.run(main())


def test_a_container_is_what_is_in_it() -> None:
    own = [Fence(5, 1), Fence(6, 1)]
    foreign = make()
    with lockdep.fence_signalling(5, 6):
        assert not FenceArray(own).wait(0)
        assert not FenceChain(FenceChain(None, own[0], 1), FenceArray(own), 2).wait(0)
        for container in (
            FenceArray([*own, foreign]),
            FenceChain(None, FenceArray([own[0], foreign]), 1),
            FenceChain(FenceChain(None, foreign, 1), own[0], 2),
        ):
            assert foreign.context in container.contexts
            with pytest.raises(LockdepError, match=f"made of contexts .*{foreign.context}"):
                container.wait(0)
