"""How a program comes to be: what it is given, its root directory, and what is said if it is not to be."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import CC, SOURCES, needs_cc
from device_starts import refuse, started, told_by_child
from running import MODES, both_modes, gpuvm_run, needs_ordinary_user, python_of_others, run_as_nobody
from suite import scaled

UNSHARE, MKNODAT, PROCESS_VM_READV, SECCOMP, PIVOT_ROOT = 272, 259, 310, 317, 155
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSMOUNT, OPENAT2, PIDFD_GETFD, MOUNT_SETATTR = (
    428,
    429,
    430,
    432,
    437,
    438,
    442,
)
USERS = os.geteuid() != 0


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (FSOPEN, errno.ENOSYS, "fsmount failed with ENOSYS"),
        (
            FSMOUNT,
            errno.EPERM,
            "fsmount failed with EPERM (Operation not permitted): it takes mounts by desc",
        ),
        (OPEN_TREE, errno.EPERM, "open_tree("),
        (MOVE_MOUNT, errno.EPERM, "move_mount"),
        (MOUNT_SETATTR, errno.ENOSYS, "it takes mounts by descriptor (Linux 5.12); see whether a container"),
        (
            PIVOT_ROOT,
            errno.EINVAL,
            "pivot_root failed with EINVAL (Invalid argument): it takes a root that is no",
        ),
        (OPENAT2, errno.ENOSYS, "openat2 failed with ENOSYS (Function not implemented): it takes Linux 5.6"),
        (PROCESS_VM_READV, errno.EPERM, "the sysctl kernel.yama.ptrace_scope"),
        (PIDFD_GETFD, errno.EPERM, "the sysctl kernel.yama.ptrace_scope"),
        (SECCOMP, errno.ENOSYS, "CONFIG_SECCOMP_FILTER"),
    ],
)
def test_what_the_kernel_refuses_is_named(number: int, code: int, told: str) -> None:
    def attempt() -> object:
        before = set(os.listdir("/proc/self/fd"))
        refuse(number, code)
        try:
            started("true", users=USERS, root=b"/usr" if number == PIVOT_ROOT else None).go()
        finally:
            assert number == SECCOMP or set(os.listdir("/proc/self/fd")) == before
        return "started"

    said = told_by_child(attempt)
    assert told in said
    assert said.startswith("NotSupported: ")


def test_whoever_may_not_unshare_is_told_what_to_set() -> None:
    def attempt(users: bool) -> object:
        refuse(UNSHARE, errno.EPERM)
        return started("true", users=users)

    said = told_by_child(lambda: attempt(True))
    assert "unshare(CLONE_NEWUSER) failed with EPERM" in said
    assert "user.max_user_namespaces" in said
    if not USERS:
        assert "pass --userns" in told_by_child(lambda: attempt(False))


@pytest.mark.skipif(USERS, reason="needs root")
def test_a_container_without_device_nodes_is_told_of_userns() -> None:
    def attempt() -> object:
        refuse(MKNODAT, errno.EPERM)
        return started("true", users=False)

    assert "mknod failed with EPERM" in told_by_child(attempt)
    assert "pass --userns" in told_by_child(attempt)


def test_a_namespace_without_room_for_another_is_named() -> None:
    """The sysctl, of a user namespace of our own."""

    def attempt() -> object:
        user = os.geteuid()
        namespace = (
            "import os, subprocess, sys; from gpuvm.device import namespaces; namespaces.enter(users=True); "
        )
        limit = "open('/proc/sys/user/max_user_namespaces', 'w').write('0'); "
        then = "sys.exit(subprocess.run(sys.argv[1:]).returncode)"
        command = [sys.executable, "-m", "gpuvm", "run", "--userns", "--", "true"]
        ran = subprocess.run(
            [sys.executable, "-c", namespace + limit + then, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert os.geteuid() == user
        return f"{ran.returncode} {ran.stderr}"

    said = told_by_child(attempt)
    assert said.startswith(
        "125 gpuvm: the program was not started: unshare(CLONE_NEWUSER) failed with ENOSPC"
    )
    assert said.count("\n") == 1


def test_a_program_that_is_not_started_leaves_nothing() -> None:
    def attempt() -> object:
        before = set(os.listdir("/proc/self/fd"))
        one = started("true", users=USERS)
        one.abandon()
        assert set(os.listdir("/proc/self/fd")) == before
        with pytest.raises(ChildProcessError):
            os.waitpid(one.pid, 0)
        return "nothing"

    assert told_by_child(attempt) == "nothing"


# -- what it is given


def surroundings(words: list[str]) -> list[str]:
    return [sys.executable, str(SOURCES / "surroundings.py"), *words]


@both_modes
def test_a_program_is_given_what_it_has_without_us(mode: tuple[str, ...]) -> None:
    """The same, run natively, is the oracle. What ends up in words and variables may be any bytes."""
    odd = os.fsdecode(b"\xff \xc3(\n")
    words = ["two words", "", odd, "--userns", "--"] + (["capabilities"] if not mode else [])
    environment = {"LC_ALL": "C", "ODD": odd, "EMPTY": "", "PATH": os.environ["PATH"]}
    native = subprocess.run(
        surroundings(words), env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=True
    )
    command = [sys.executable, "-m", "gpuvm", "run", *mode, "--", *surroundings(words)]
    under = subprocess.run(
        command, env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=True
    )
    same = [line for line in native.stdout.splitlines() if b"pipe:" not in line]
    assert [line for line in under.stdout.splitlines() if b"pipe:" not in line] == same
    assert len(same) > 8


def test_descriptors_and_ignored_signals_are_handed_on(tmp_path: Path) -> None:
    inside = "readlink /proc/self/fd/5; grep SigIgn /proc/self/status; kill -INT $$; kill -PIPE $$; echo no"
    command = [sys.executable, "-m", "gpuvm", "run", "--", "sh", "-c", inside]
    script = 'trap "" INT; exec 5>"$0"; exec "$@"'
    ran = subprocess.run(
        ["sh", "-c", script, str(tmp_path / "five"), *command], capture_output=True, text=True, check=False
    )
    path, ignored, *rest = ran.stdout.splitlines()
    assert path == str(tmp_path / "five")
    assert int(ignored.split()[1], 16) & 1 << 1, ran  # SIGINT
    assert rest == []  # it was killed by SIGPIPE
    assert ran.returncode == -13


@pytest.mark.parametrize("mode", MODES[scaled(1, 0) :])
def test_rights_in_the_program(mode: tuple[str, ...]) -> None:
    script = "grep -E '^(Cap|NoNew)' /proc/self/status; id -u; id -g"
    ran = gpuvm_run("sh", "-c", script, options=mode)
    told = dict(line.split(":\t") for line in ran.out.splitlines()[:-2])
    assert ran.out.splitlines()[-2:] == [str(os.geteuid()), str(os.getegid())]
    assert told["NoNewPrivs"] == "1"
    if mode:
        assert {told[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}


# -- its root directory


def static_program(directory: Path) -> Path:
    """One that lists directories, and opens the node, with nothing around it."""
    program = directory / "lister"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static"]
    assert CC is not None
    subprocess.run([CC, *options, "-o", program, SOURCES / "lister.c"], check=True)
    return program


IN_ROOT = [
    "/: dev etc lister proc sys",
    "/dev/dri: by-path card0 renderD128",
    "/sys/class/drm: card0 renderD128 version",
]


ROOTS = ["odd things", "nothing", "mount points"][: scaled(1, 3)]


@needs_cc
@both_modes
@pytest.mark.parametrize("there", ROOTS)
def test_a_root_directory_needs_nothing(mode: tuple[str, ...], there: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    shutil.copy(static_program(tmp_path), root)
    if there == "mount points":
        for name in ("dev", "proc", "sys"):
            (root / name).mkdir()
    if there == "odd things":
        (root / "dev").symlink_to("etc")
        (root / "sys").write_text("a file")
    before = sorted(path.name for path in root.rglob("*"))
    ran = gpuvm_run("/lister", "/", "/dev/dri", "/sys/class/drm", options=(*mode, "--root", str(root)))
    assert (ran.status, ran.out.splitlines()) == (0, [*IN_ROOT, "opened, alone: yes"]), ran
    assert sorted(path.name for path in root.rglob("*")) == before


READ_ONLY = """
import ctypes, os, subprocess, sys
from gpuvm.device import linux, namespaces
namespaces.enter(users=os.geteuid() != 0)
place = os.open(sys.argv[1], os.O_PATH)
tree = linux.clone_tree(place, b"")
linux.move_mount(tree, place, b"")
linux.set_read_only(tree)
try: os.mkdir(sys.argv[1] + "/x"); sys.exit("not read only")
except OSError: pass
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


@needs_cc
@pytest.mark.parametrize("mode", MODES[scaled(1, 0) :])
@pytest.mark.parametrize("there", [False, True][: scaled(1, 2)])
def test_a_root_directory_may_be_read_only(mode: tuple[str, ...], there: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    shutil.copy(static_program(tmp_path), root)
    for name in ("dev", "proc", "sys") if there else ():
        (root / name).mkdir()
    command = [sys.executable, "-m", "gpuvm", "run", *mode, "--root", str(root), "--"]
    words = ["/lister", "/", "/dev/dri", "/sys/class/drm"]
    ran = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(root), *command, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.splitlines()) == (0, [*IN_ROOT, "opened, alone: yes"]), ran


def test_a_root_directory_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path / "nothing", "No such file or directory"),
        (tmp_path / "file", "Not a directory"),
    ):
        ran = gpuvm_run("true", options=("--root", str(path)))
        assert (ran.status, ran.out) == (125, "")
        assert ran.err == f"gpuvm: '{path}' is no root directory: {why}; pass one [EINVAL]\n"


@needs_ordinary_user
def test_an_ordinary_user_lists_the_same() -> None:
    numbers = "os.stat('/dev/dri/card0').st_rdev == os.makedev(226, 0)"
    script = f"import os; print(*sorted(os.listdir('/dev/dri')), {numbers})"
    python = python_of_others()
    assert python is not None
    ran = run_as_nobody(python, "-c", script)
    assert (ran.status, ran.out) == (0, "by-path card0 renderD128 True\n"), ran
