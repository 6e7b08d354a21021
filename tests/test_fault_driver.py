"""Faults of channels, through the driver."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest

import pushbuf
from fault_driver_scene import GART, MIB, driven, ended
from gpuvm.errors import NoDevice
from gpuvm.mem.aperture import Domain
from gpuvm.mmu.translation import Access
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.fault import Cause, FaultReport
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push, VmBindOp
from gpuvm.nouveau.vm import Uvmm
from gpuvm.report.fault import fault_text
from gpuvm.sync import task
from suite import scaled

SRC, DST = 0x4000_0000, 0x8000_0000
SPARSE = 0x100


def unmap_at(addr: int, size: int, flags: int = 0) -> VmBindOp:
    return VmBindOp(1, flags, 0, addr, 0, size)


def text_of(report: FaultReport) -> str:
    text = fault_text(report)
    assert str(report.cause) in text
    return text


def test_use_after_unmap() -> None:
    with driven() as it:
        src = it.map(SRC, MIB)
        dst = it.map(DST, MIB)
        it.view(src)[:] = 7
        assert it.copy(DST, SRC, MIB) == 0
        assert (it.view(dst) == 7).all()
        begun = task.now()
        it.bind(VmBindOp(0, 0, src, SRC + 16 * MIB, 0, MIB), unmap_at(SRC, MIB), run_async=True)
        other = it.client.channel_alloc()
        assert it.copy(DST, SRC + 4096, 8192) == errno.ENODEV

        report = it.report
        assert (report.cause, report.addr, report.access) == (Cause.USE_AFTER_UNMAP, SRC + 4096, Access.READ)
        assert (report.channel, report.engine, report.class_, report.method) == (
            it.channel.id, "copy", 0xC5B5, 0x300,
        )  # fmt: skip
        last, mapped = report.last, report.mapped
        assert last is not None
        assert mapped is not None
        assert (last.call, last.index, last.op, last.run_async, last.run) == (4, 1, OpCode.UNMAP, True, True)
        assert begun <= last.time <= report.time
        assert (mapped.call, mapped.handle) == (2, src)
        assert report.object is not None
        assert (report.object.handle, report.object.domain) == (src, Domain.VRAM)
        assert "bind #4 op 1 unmapped it" in text_of(report)

        with pytest.raises(NoDevice):
            it.exec(pushbuf.Push())
        assert it.run(pushbuf.Push().copy(DST, SRC + 16 * MIB, MIB), other) == 0
        it.client.channel_free(it.channel.id)


def test_an_out_of_bounds_copy() -> None:
    """It dies in the launch that leaves the source; those before it were done."""
    launch = 1 << 17
    with driven() as it:
        src, dst = it.map(SRC, 2 * launch), it.map(DST, 4 * launch)
        it.view(src)[:] = 9
        assert it.copy(DST, SRC + launch // 2, 2 * launch) == errno.ENODEV
        report = it.report
        assert (report.cause, report.addr, report.access) == (
            Cause.OUT_OF_BOUNDS, SRC + 2 * launch, Access.READ,
        )  # fmt: skip
        assert report.object is not None
        assert report.object.handle == src
        assert (it.view(dst)[:launch] == 9).all()
        assert not it.view(dst)[launch:].any()
        assert "the first byte past the end of" in text_of(report)


def test_a_write_out_of_bounds() -> None:
    with driven() as it:
        it.map(SRC, MIB)
        dst = it.map(DST, 1 << 16)
        assert it.run(pushbuf.Push().fill(DST + 0xFF00, 0x1000, 0x11111111)) == errno.ENODEV
        report = it.report
        assert (report.cause, report.addr, report.access) == (
            Cause.OUT_OF_BOUNDS, DST + (1 << 16), Access.WRITE,
        )  # fmt: skip
        assert not it.view(dst).any()


def test_a_read_from_what_is_evicted_but_not_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver whose exec forgets to validate; ours does not."""
    with driven() as it:
        src, dst = it.map(SRC, MIB), it.map(DST, MIB)
        it.view(src)[:] = 5
        it.evict(src)
        with monkeypatch.context() as forgetful:
            forgetful.setattr(Uvmm, "validate", lambda vm, exec: None)
            assert it.copy(DST, SRC, MIB) == errno.ENODEV
        report = it.report
        assert (report.cause, report.addr) == (Cause.EVICTED, SRC)
        assert report.here is not None
        assert report.here.invalidated
        assert report.object is not None
        assert (report.object.handle, report.object.domain) == (src, Domain.GART)
        assert "was moved to GART" in text_of(report)
        assert not it.view(dst).any()

        channel = it.client.channel_alloc()
        assert it.run(pushbuf.Push().copy(DST, SRC, MIB), channel) == 0
        assert (it.view(dst) == 5).all()
        assert len(it.device.faults) == 1


def test_a_copy_through_a_sparse_hole() -> None:
    """It reads zeros and writes vanish; nothing faults."""
    with driven() as it:
        dst = it.map(DST, MIB)
        it.view(dst)[:] = 3
        it.bind(VmBindOp(0, SPARSE, 0, SRC, 0, 4 * MIB))
        tile = it.new(1 << 16)
        it.bind(VmBindOp(0, 0, tile, SRC + (1 << 16), 0, 1 << 16))
        it.view(tile)[:] = 8
        assert it.copy(DST, SRC, MIB) == 0
        expected = np.zeros(MIB, np.uint8)
        expected[1 << 16 : 2 << 16] = 8
        assert (it.view(dst) == expected).all()

        it.view(dst)[:] = 4
        assert it.copy(SRC, DST, MIB) == 0
        assert (it.view(tile) == 4).all()
        it.view(dst)[:] = 3
        assert it.copy(DST, SRC, 1 << 16) == 0
        assert not it.view(dst)[: 1 << 16].any()
        assert not it.device.faults

        it.bind(unmap_at(SRC, 4 * MIB, SPARSE))
        assert it.copy(DST, SRC, 1 << 16) == errno.ENODEV
        assert it.report.cause is Cause.USE_AFTER_UNMAP
        assert "the sparse region that bind #3 op 0 had made" in " ".join(text_of(it.report).split())


def test_a_push_buffer_that_is_not_there() -> None:
    with driven() as it:
        assert ended(it.exec_at(Push(SRC, 64))) == errno.ENODEV
        report = it.report
        assert (report.engine, report.method, report.addr, report.cause) == (
            "host", 0, SRC, Cause.NEVER_MAPPED,
        )  # fmt: skip
        assert "the push buffer was being read" in text_of(report)


def test_a_push_that_makes_no_sense() -> None:
    """No access went wrong, yet one wants to know why the channel died."""
    with driven() as it:
        assert it.run(pushbuf.Push().header(1, 5, pushbuf.COPY, 0x400)) == errno.ENODEV
        report = it.report
        assert (report.cause, report.addr, report.engine) == (Cause.METHOD_REFUSED, None, "host")
        assert report.error.startswith("PBENTRY")
        text = text_of(report)
        assert f"GPU method refused: host engine, {report.error}" in text
        assert "around the address" not in text


def test_work_that_does_not_wait_for_its_bind() -> None:
    """The bind waits for another channel, which stands at a semaphore; the work was not told to."""
    with driven() as it:
        it.map(DST, MIB)
        sem = it.map(0xC000_0000, 1 << 16, GART)
        blocked, client = it.client.channel_alloc(), it.client
        syncobj = client.syncobjs.create(0)
        client.exec(blocked.id, [it.push(pushbuf.Push().acquire(0xC000_0000, 1))], (), [Sync(0, syncobj)])
        src = it.new(MIB)
        it.bind(VmBindOp(0, 0, src, SRC, 0, MIB), waits=[Sync(0, syncobj)], run_async=True)
        assert it.copy(DST, SRC, MIB) == errno.ENODEV
        report = it.report
        assert report.cause is Cause.NOT_BOUND_YET
        assert report.last is not None
        assert (report.last.run_async, report.last.run) == (True, False)
        it.view(sem)[:4] = [1, 0, 0, 0]
        channel = client.channel_alloc()
        syncobj = client.syncobjs.create(0)
        it.bind(run_async=True, signals=[Sync(0, syncobj)])
        words = it.push(pushbuf.Push().copy(DST, SRC, MIB))
        assert ended(it.exec_at(words, channel, (Sync(0, syncobj),))) == 0


def test_the_kernels_area() -> None:
    with driven() as it:
        it.map(SRC, MIB)
        assert it.copy(1 << 39, SRC, 4096) == errno.ENODEV
        assert (it.report.cause, it.report.access) == (Cause.KERNEL_AREA, Access.WRITE)


def test_the_object_was_closed_before_it_was_unmapped() -> None:
    with driven() as it:
        it.map(DST, MIB)
        src = it.map(SRC, MIB)
        it.client.gem_close(src)
        assert it.copy(DST, SRC, MIB) == 0
        it.bind(unmap_at(SRC, MIB))
        assert it.copy(DST, SRC, MIB) == errno.ENODEV
        assert (it.report.cause, it.report.object) == (Cause.USE_AFTER_UNMAP, None)
        assert f"handle {src} (closed since)" in " ".join(text_of(it.report).split())


def test_reports_are_kept_by_the_device_and_bounded() -> None:
    with driven() as it:
        kept = it.device.faults.maxlen
        assert kept is not None
        for _ in range(3):
            channel = it.client.channel_alloc()
            assert it.run(pushbuf.Push().copy(DST, SRC, 4096), channel) == errno.ENODEV
            it.client.channel_free(channel.id)
        assert [report.channel for report in it.device.faults] == [2, 2, 2]


def test_reports_while_others_bind_and_evict() -> None:
    """Whatever the address space is at that moment, there is a report, and it is about the address."""
    with driven() as it:
        handle = it.map(DST, MIB)
        stop = threading.Event()
        failures: list[BaseException] = []

        def churn() -> None:
            try:
                while not stop.is_set():
                    pieces = [VmBindOp(0, 0, handle, SRC + at * MIB, 0, 1 << 16) for at in range(8)]
                    it.bind(*pieces)
                    it.evict(handle)
                    it.bind(unmap_at(SRC, 8 * MIB))
                    it.client.gem_close(it.new(1 << 16))
            except BaseException as error:
                failures.append(error)

        churner = threading.Thread(target=churn)
        churner.start()
        try:
            for _ in range(scaled(25, 400)):
                channel = it.client.channel_alloc()
                assert it.run(pushbuf.Push().copy(DST, SRC + (1 << 16), 64), channel) == errno.ENODEV
                report = it.device.faults[-1]
                assert report.addr == SRC + (1 << 16)
                assert report.cause in (Cause.OUT_OF_BOUNDS, Cause.NEVER_MAPPED)
                text_of(report)
                it.client.channel_free(channel.id)
        finally:
            stop.set()
            churner.join()
        assert not failures
        it.client.history.check()
