"""Every way to a character device: what the kernel says to each, a line a way.

Run with /dev/null natively, it tells how any device's path behaves; under us a node must say the same.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import sys
from collections.abc import Callable

TARGET = sys.argv[1].encode()
SCRATCH = sys.argv[2].encode()
NAME = os.path.basename(TARGET)
HOME = os.path.dirname(TARGET)
THE_DEVICE = os.stat(TARGET)
AT_FDCWD = -100
OPEN, FSTAT, CREAT, OPENAT, NEWFSTATAT, STATX, OPENAT2 = 2, 5, 85, 257, 262, 332, 437
NEWNS, NEWUSER, NEWPID = 0x20000, 0x10000000, 0x20000000
BIND, RECURSIVE = 4096, 16384

libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes | None) -> int:
    result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return int(result)


def done(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def face(status: os.stat_result) -> str:
    if not stat.S_ISCHR(status.st_mode):
        return f"mode {status.st_mode:o}"
    return "the device" if (status.st_rdev, status.st_size) == (THE_DEVICE.st_rdev, 0) else "another device"


def opened(fd: int) -> str:
    """What a descriptor is; it is closed."""
    try:
        flags = libc.fcntl(fd, 3) & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_PATH)
        return f"{face(os.fstat(fd))}, flags {flags:o}, close on exec {libc.fcntl(fd, 1)}"
    finally:
        os.close(fd)


def tell(name: str, way: Callable[..., object], *arguments: object) -> None:
    try:
        told = way(*arguments)
    except OSError as error:
        told = errno.errorcode[error.errno or 0]
    print(f"{name}: {told}", flush=True)


def try_open(name: str, path: bytes, flags: int = os.O_RDWR, directory: int = AT_FDCWD) -> None:
    tell(name, lambda: opened(call(OPENAT, directory, path, flags, 0o600)))


def flags() -> None:
    for name in ("RDONLY", "WRONLY", "RDWR", "CREAT", "TRUNC", "APPEND", "NONBLOCK", "DIRECTORY", "PATH"):
        try_open(f"O_{name}", TARGET, getattr(os, f"O_{name}"))
    try_open("exclusive", TARGET, os.O_CREAT | os.O_EXCL)
    try_open("exclusive and a link", SCRATCH + b"/link", os.O_CREAT | os.O_EXCL)
    try_open("close on exec", TARGET, os.O_CLOEXEC | os.O_RDWR)
    try_open("temporary", TARGET, os.O_TMPFILE | os.O_RDWR)
    try_open("not followed", TARGET, os.O_NOFOLLOW)
    tell("open", lambda: opened(call(OPEN, TARGET, os.O_RDWR, 0)))
    tell("creat", lambda: opened(call(CREAT, TARGET, 0o600)))
    tell("upper half of flags", lambda: opened(call(OPENAT, AT_FDCWD, TARGET, 0x5_0000_0002, 0)))
    tell("upper half of directory", lambda: opened(call(OPENAT, 0x7_FFFF_FF9C, NAME, 2, 0)))


def texts() -> None:
    try_open("no path", b"")
    try_open("slash behind", TARGET + b"/")
    try_open("dot behind", TARGET + b"/.")
    try_open("dots behind", TARGET + b"/..")
    try_open("below it", TARGET + b"/x")
    try_open("slashes", TARGET.replace(b"/", b"///"))
    try_open("dots", HOME + b"/./../" + os.path.basename(HOME) + b"/" + NAME)
    try_open("above the root", b"/../../.." + TARGET)
    try_open("missing", TARGET + b"x")
    for length in (4094, 4095, 4096, 5000):
        try_open(f"{length} bytes", b"/" * (length - len(TARGET)) + TARGET)
    try_open("long name", HOME + b"/" + b"x" * 256)
    try_open("bytes", SCRATCH + b"/\xff\xfe\n\x80/\xc3")


def links() -> None:
    for name in (b"link", b"chain", b"relative", b"loop", b"dangling", b"directory/" + NAME):
        try_open(name.decode().split("/")[0], SCRATCH + b"/" + name)
        try_open(f"{name.decode().split('/')[0]}, not followed", SCRATCH + b"/" + name, os.O_NOFOLLOW)
    try_open("link and slash", SCRATCH + b"/link/")
    for depth in (39, 40, 41):
        try_open(f"{depth} links", SCRATCH + b"/%d" % depth)


def directories() -> None:
    home = os.open(HOME, os.O_PATH)
    file = os.open(os.path.realpath(__file__), os.O_RDONLY)
    try_open("from a directory", NAME, directory=home)
    try_open("absolute from nowhere", TARGET, directory=4711)
    try_open("from nowhere", NAME, directory=4711)
    try_open("from a file", NAME, directory=file)
    try_open("out of a directory", b"../" * 9 + TARGET[1:], directory=home)
    os.chdir(HOME)
    try_open("here", NAME)
    try_open("here, link", SCRATCH + b"/relative")
    os.chdir(SCRATCH)
    try_open("link from here", b"link")
    try_open("relative link from here", b"relative")
    moved = os.open(b"moved", os.O_PATH)
    os.chdir(b"moved")
    os.rename(SCRATCH + b"/moved", SCRATCH + b"/away")
    try_open("in a moved directory", b"link")
    try_open("from a moved directory", b"link", directory=moved)
    os.unlink(b"link")
    os.rmdir(SCRATCH + b"/away")
    try_open("in a removed directory", b"link")
    try_open("out of a removed directory", b".." + TARGET)
    try_open("absolute from a removed directory", TARGET)
    os.chdir(b"/")


def processes() -> None:
    path_only = os.open(TARGET, os.O_PATH)
    both = os.open(TARGET, os.O_RDWR)
    high = libc.fcntl(both, 0, 900)  # a number that a supervisor has not
    pid, tid = os.getpid(), call(186)
    for name, fd in (("path", path_only), ("descriptor", both), ("high descriptor", high)):
        for way in ("/proc/self", "/proc/thread-self", f"/proc/{pid}", f"/proc/{pid}/task/{tid}", "/dev"):
            known = way.replace(str(pid), "PID").replace(str(tid), "PID")
            try_open(f"{name} by {known}", f"{way}/fd/{fd}".encode(), os.O_RDONLY)
        link = SCRATCH + b"/to %s" % name.encode()
        os.symlink(b"/proc/self/fd/%d" % fd, link)
        try_open(f"{name} by a link", link)
        try_open(f"{name}, not followed", b"/proc/self/fd/%d" % fd, os.O_NOFOLLOW)
        tell(f"{name}, stat", lambda number: face(os.stat(number)), fd)
    try_open("closed descriptor", b"/proc/self/fd/901")
    try_open("own root", b"/proc/self/root" + TARGET)
    try_open("own directory", b"/proc/self/cwd" + TARGET)
    try_open("out of own root", b"/proc/self/root/../.." + TARGET)
    os.chdir(b"/proc")
    try_open("from proc", b"self/fd/%d" % both)
    os.chdir(b"/proc/self/fd")
    try_open("from descriptors", b"%d" % high)
    os.chdir(b"/")
    directory = os.open(HOME, os.O_PATH)
    try_open("by a directory's descriptor", b"/proc/self/fd/%d/%s" % (directory, NAME))
    os.close(both)
    os.close(high)


def pointers() -> None:
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(base + 2 * page), page, 0) == 0

    def at(name: str, offset: int, data: bytes) -> None:
        memory[offset : offset + len(data)] = data
        tell(name, lambda: opened(call(OPENAT, AT_FDCWD, base + offset, os.O_RDWR, 0)))

    at("to the end of memory", 2 * page - len(TARGET) - 1, TARGET + b"\0")
    at("beyond the end of memory", 2 * page - len(TARGET), TARGET)
    at("across pages", page - 3, TARGET + b"\0")
    for name, addr in (("null", 0), ("one", 1), ("kernel", 0xFFFF_8000_0000_0000), ("last", (1 << 64) - 1)):
        signed = ctypes.c_long(addr).value
        tell(name, call, OPENAT, AT_FDCWD, signed, 2, 0)
        tell(f"{name}, stat", call, NEWFSTATAT, AT_FDCWD, TARGET, signed, 0)
        fd = os.open(TARGET, os.O_RDWR)
        tell(f"{name}, fstat", call, FSTAT, fd, signed)
        os.close(fd)


def openat2() -> None:
    def way(
        name: str, path: bytes, flags: int, mode: int, resolve: int, size: int = 24, tail: bytes = b""
    ) -> None:
        how = struct.pack("=3Q", flags, mode, resolve) + tail
        directory = os.open(HOME, os.O_PATH)
        tell(f"openat2 {name}", lambda: opened(call(OPENAT2, directory, path, how, size)))
        os.close(directory)

    for name, resolve in (
        ("plain", 0),
        ("no xdev", 1),
        ("no magic", 2),
        ("no links", 4),
        ("beneath", 8),
        ("in root", 16),
    ):
        way(name, NAME, os.O_RDWR, 0, resolve)
        way(f"{name}, slash", b"/" + NAME, os.O_RDWR, 0, resolve)
        way(f"{name}, absolute", TARGET, os.O_RDWR, 0, resolve)
        way(f"{name}, up", b"../../.." + TARGET, os.O_RDWR, 0, resolve)
        way(f"{name}, link", SCRATCH + b"/link", os.O_RDWR, 0, resolve)
        way(f"{name}, own root", b"/proc/self/root" + TARGET, os.O_RDWR, 0, resolve)
    way("unknown flag", NAME, 1 << 40, 0, 0)
    way("unknown resolve", NAME, 2, 0, 1 << 20)
    way("mode for nothing", NAME, 2, 0o600, 0)
    way("path", NAME, os.O_PATH, 0, 0)
    way("both roots", NAME, 2, 0, 24)
    for size, tail in (
        (0, b""),
        (8, b""),
        (23, b""),
        (32, bytes(8)),
        (32, b"\1" + bytes(7)),
        (5000, bytes(5000)),
    ):
        way(f"size {size} {any(tail)}", NAME, 2, 0, 0, size, tail)
    tell("openat2 nowhere", lambda: opened(call(OPENAT2, AT_FDCWD, TARGET, 8, 24)))


def stats() -> None:
    fd = os.open(TARGET, os.O_RDWR)
    path_only = os.open(TARGET, os.O_PATH | os.O_NOFOLLOW)
    target = os.stat(TARGET)
    for name, status in (
        ("fstat", os.fstat(fd)),
        ("of a path", os.fstat(path_only)),
        ("lstat", os.lstat(TARGET)),
    ):
        same = (status.st_dev, status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_gid)
        known = (target.st_dev, target.st_ino, target.st_mode, target.st_nlink, target.st_uid, target.st_gid)
        tell(f"{name} is the path's", same.__eq__, known)
    tell("link, stat", lambda: face(os.stat(SCRATCH + b"/link")))
    tell("link, lstat", lambda: face(os.lstat(SCRATCH + b"/link")).split(" ")[0])
    buffer = ctypes.create_string_buffer(256)
    at = ctypes.addressof(buffer)

    def statx(directory: int, path: bytes | None, flags: int, mask: int = 0x7FF) -> object:
        call(STATX, directory, path, flags, mask, at)
        major, minor = struct.unpack_from("=II", buffer, 0x80)
        return os.makedev(major, minor) == target.st_rdev, oct(
            struct.unpack_from("=H", buffer, 0x1C)[0] >> 12
        )

    def newfstatat(directory: int, path: bytes | None, flags: int) -> object:
        call(NEWFSTATAT, directory, path, at, flags)
        return struct.unpack_from("=Q", buffer, 40)[0] == target.st_rdev

    home = os.open(HOME, os.O_PATH)
    for name, way in (("statx", statx), ("newfstatat", newfstatat)):
        tell(f"{name} of it", way, fd, b"", 0x1000)
        tell(f"{name} of its path", way, path_only, b"", 0x1000)
        tell(f"{name} of nothing", way, fd, b"", 0)
        tell(f"{name} by path", way, AT_FDCWD, TARGET, 0)
        tell(f"{name} by path, empty allowed", way, AT_FDCWD, TARGET, 0x1000)
        tell(f"{name} below it", way, fd, b"x", 0x1000)
        tell(f"{name} from a directory", way, home, NAME, 0x1000)
        tell(f"{name} with unknown flags", way, fd, b"", 0x11000 | 1 << 20)
        tell(f"{name} of a bad one", way, 4711, b"", 0x1000)
    tell("statx, unknown mask", lambda: statx(fd, b"", 0x1000, 1 << 31))
    tell("statx, bad sync", lambda: statx(fd, b"", 0x7000))
    for name, other in (
        ("access", lambda: os.access(TARGET, os.R_OK | os.W_OK)),
        ("readlink", lambda: os.readlink(TARGET)),
        ("truncate", lambda: os.truncate(TARGET, 0)),
        ("ftruncate", lambda: os.ftruncate(fd, 0)),
        ("fallocate", lambda: call(285, fd, 0, 0, 4096)),
        ("ftruncate of its path", lambda: os.ftruncate(path_only, 0)),
        ("listing", lambda: os.listdir(TARGET)),
        ("link", lambda: os.link(TARGET, SCRATCH + b"/hard")),
        ("mkdir", lambda: os.mkdir(TARGET)),
        ("chdir", lambda: os.chdir(TARGET)),
        ("exec", lambda: os.execv(TARGET, [b"x"])),
    ):
        tell(name, other)


def namespaces() -> None:
    """In mounts of its own, below a root of its own."""
    done(libc.unshare(NEWUSER | NEWNS))
    place, root = SCRATCH + b"/place", SCRATCH + b"/root"
    done(libc.mount(TARGET, place, None, ctypes.c_ulong(BIND), None))
    try_open("bind mount", place)
    tell("bind mount, stat", lambda: face(os.stat(place)))
    done(libc.mount(HOME, root + b"/home", None, ctypes.c_ulong(BIND | RECURSIVE), None))
    try_open("bind mount of its directory", root + b"/home/" + NAME)
    try_open("upwards out of a bind mount", root + b"/home/../../link")
    done(libc.mount(b"/proc", root + b"/proc", None, ctypes.c_ulong(BIND | RECURSIVE), None))
    outside = os.open(b"/", os.O_PATH)
    both = os.open(TARGET, os.O_RDWR)
    os.chroot(root)
    try_open("outside the root", TARGET)
    try_open("in the root", b"/home/" + NAME)
    try_open("above it", b"/../../home/" + NAME)
    try_open("absolute link", b"/absolute")
    try_open("relative to it", b"../home/" + NAME)
    try_open("left behind", TARGET[1:], directory=outside)
    try_open("own descriptor in it", b"/proc/self/fd/%d" % both)
    try_open("its own root", b"/proc/self/root/home/" + NAME)
    os.chdir(b"/home")
    try_open("directory in it", NAME)


def process_namespace() -> None:
    """Where this process has another number."""
    done(libc.unshare(NEWUSER | NEWNS | NEWPID))
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    done(libc.mount(b"proc", SCRATCH + b"/place-proc", b"proc", 0, None))
    both = os.open(TARGET, os.O_RDWR)
    try_open("number one", SCRATCH + b"/place-proc/self/fd/%d" % both)
    try_open("number one, thread", SCRATCH + b"/place-proc/thread-self/fd/%d" % both)
    try_open("number one by number", SCRATCH + b"/place-proc/1/fd/%d" % both)
    os._exit(0)


def prepare() -> None:
    os.symlink(TARGET, SCRATCH + b"/link")
    os.symlink(b"link", SCRATCH + b"/chain")
    os.symlink(b"../" * 20 + TARGET[1:], SCRATCH + b"/relative")
    os.symlink(b"loop", SCRATCH + b"/loop")
    os.symlink(TARGET + b"x", SCRATCH + b"/dangling")
    os.symlink(HOME, SCRATCH + b"/directory")
    os.mkdir(SCRATCH + b"/moved")
    os.symlink(TARGET, SCRATCH + b"/moved/link")
    os.mkdir(SCRATCH + b"/\xff\xfe\n\x80")
    os.symlink(TARGET, SCRATCH + b"/\xff\xfe\n\x80/\xc3")
    os.symlink(TARGET, SCRATCH + b"/1")
    for depth in range(2, 42):
        os.symlink(b"%d" % (depth - 1), SCRATCH + b"/%d" % depth)
    for name in (b"root", b"root/home", b"root/proc", b"place-proc"):
        os.mkdir(SCRATCH + b"/" + name)
    os.symlink(b"/home/" + NAME, SCRATCH + b"/root/absolute")
    with open(SCRATCH + b"/place", "wb"):
        pass


def apart(way: Callable[[], None]) -> None:
    """In a process of its own."""
    child = os.fork()
    if not child:
        try:
            way()
        except BaseException as error:
            print(f"{way.__name__} failed: {error!r}", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


prepare()
for part in (
    flags,
    texts,
    links,
    directories,
    processes,
    pointers,
    openat2,
    stats,
    namespaces,
    process_namespace,
):
    apart(part)
