"""Two programs share a buffer of four tiles. The writer copies one word after the other into it. The reader
has its tiles here and there in a sparse region, and copies that out. A timeline keeps the GPU in step.
"""

import os

from gpuvm.mem import Domain
from gpuvm.nouveau import SYNC_TIMELINE, VM_BIND_SPARSE, Device, Push, PushBuffer, Sync, VmBindOp
from gpuvm.nouveau import VM_BIND_OP_MAP as MAP
from gpuvm.sync.syncobj_table import CREATE_SIGNALED

WORDS, PLACES = (b"BIND", b"EXEC", b"DONE"), (1, 4, 6, 13)
TILE, ROW = 1 << 16, 1 << 20  # bytes: of a letter, of 16 letters
OWN, BUFFER, SPARSE = 1 << 32, 2 << 32, 3 << 32  # addresses


class Program:
    """An open device: an address space, a channel, and memory: a row for each word, one for push buffers."""

    def __init__(self, device: Device, name: str) -> None:
        self.client, self.timeline = device.open(name=name), 0
        self.client.vm_init(1 << 46, 1 << 46)  # the upper half is the kernel's
        self.channel = self.client.channel_alloc().id
        own = self.client.gem_new(4 * ROW, Domain.VRAM).handle
        self.client.vm_bind([VmBindOp(MAP, 0, own, OWN, 0, 4 * ROW)])
        self.memory = self.client.view(own).data

    def copy(self, target: int, source: int, size: int, after: int, then: int) -> None:
        words, at = bytes(PushBuffer().copy(target, source, size)), 3 * ROW + then * TILE
        self.memory[at : at + len(words)] = words
        wait, signal = (Sync(SYNC_TIMELINE, self.timeline, point) for point in (after, then))
        self.client.exec(self.channel, [Push(OWN + at, len(words))], [wait], [signal])


def run(writer: Program, reader: Program) -> None:
    buffer = writer.client.gem_new(4 * TILE, Domain.GART).handle
    writer.client.vm_bind([VmBindOp(MAP, 0, buffer, BUFFER, 0, 4 * TILE)])
    writer.timeline = writer.client.syncobjs.create(CREATE_SIGNALED)
    fds = writer.client.prime_handle_to_fd(buffer), writer.client.syncobjs.handle_to_fd(writer.timeline, 0)
    shared = reader.client.prime_fd_to_handle(fds[0])
    reader.timeline = reader.client.syncobjs.fd_to_handle(0, 0, fds[1])
    for fd in fds:
        os.close(fd)
    ops = [VmBindOp(MAP, 0, shared, SPARSE + tile * TILE, n * TILE, TILE) for n, tile in enumerate(PLACES)]
    reader.client.vm_bind([VmBindOp(MAP, VM_BIND_SPARSE, 0, SPARSE, 0, ROW), *ops])

    for row, word in enumerate(WORDS):  # nobody waits here
        writer.memory[row * ROW :][: 4 * TILE] = b"".join(bytes([letter]) * TILE for letter in word)
        writer.copy(BUFFER, OWN + row * ROW, 4 * TILE, after=2 * row, then=2 * row + 1)
        reader.copy(OWN + row * ROW, SPARSE, ROW, after=2 * row + 1, then=2 * row + 2)
    reader.client.syncobjs.timeline_wait([reader.timeline], [2 * len(WORDS)], (1 << 63) - 1, 0)

    for row, word in enumerate(WORDS):
        copied, letters = bytes(reader.memory[row * ROW :][:ROW]), dict(zip(PLACES, word, strict=True))
        print(copied[::TILE].replace(b"\0", b".").decode())
        assert copied == b"".join(bytes([letters.get(tile, 0)]) * TILE for tile in range(16))


with Device(vram=64 << 20, gart=64 << 20) as device:
    run(Program(device, "writer"), Program(device, "reader"))
