"""Software timelines where debugfs has them."""

from __future__ import annotations

import fcntl
import os
import select
import struct

PATH = "/sys/kernel/debug/sync/sw_sync"
CREATE_FENCE, INC = 0xC0285700, 0x40045701

print(os.access(PATH, os.R_OK | os.W_OK))
timeline = os.open(PATH, os.O_RDWR | os.O_CLOEXEC)
another = os.open(PATH, os.O_RDWR)
print(os.get_inheritable(timeline), os.get_inheritable(another))
asked = bytearray(struct.pack("=I32si", 2, b"second", 0))
fcntl.ioctl(timeline, CREATE_FENCE, asked)
fence = struct.unpack("=I32si", asked)[2]
for who in (another, timeline, timeline):
    fcntl.ioctl(who, INC, struct.pack("=I", 1))
    print(select.select([fence], [], [], 0)[0] == [fence])
