"""What /proc/PID/fdinfo says of a node, to a process itself, to its child, to a tool that looks at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

node = os.open("/dev/dri/renderD128", os.O_RDWR)
card = os.open("/dev/dri/card0", os.O_RDONLY)
other = os.open("/dev/null", os.O_RDONLY)


def keys(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


own = keys(Path(f"/proc/self/fdinfo/{node}").read_text())
print(own["drm-driver"], own["drm-pdev"], own["flags"], [key for key in own if not key.startswith("drm-")])
for way in (f"/proc/{os.getpid()}", "/proc/thread-self", f"/proc/self/task/{os.getpid()}"):
    print(way.count("/"), keys(Path(f"{way}/fdinfo/{node}").read_text()) == own)
print(keys(Path(f"/proc/self/fdinfo/{card}").read_text())["drm-client-id"] != own["drm-client-id"])
print(any(key.startswith("drm-") for key in keys(Path(f"/proc/self/fdinfo/{other}").read_text())))
for name in ("4711", f"{node}/x"):
    try:
        os.open(f"/proc/self/fdinfo/{name}", os.O_RDONLY)
    except OSError as error:
        print(error.strerror)
parent = os.getpid()
if not os.fork():
    os.close(node)  # so it is not by our own that we find it
    seen = keys(Path(f"/proc/{parent}/fdinfo/{node}").read_text())
    print(seen == own)
    # As nvtop and gputop look for clients.
    descriptors = os.open(f"/proc/{parent}/fd", os.O_RDONLY | os.O_DIRECTORY)
    infos = os.open(f"/proc/{parent}/fdinfo", os.O_RDONLY | os.O_DIRECTORY)
    for name in sorted(os.listdir(descriptors), key=int):
        try:
            status = os.stat(name, dir_fd=descriptors)
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == 226:
            with open(os.open(name, os.O_RDONLY, dir_fd=infos), encoding="ascii") as file:
                print(
                    os.minor(status.st_rdev), keys(file.read())["drm-client-name"] == own["drm-client-name"]
                )
    os._exit(0)
os.wait()
