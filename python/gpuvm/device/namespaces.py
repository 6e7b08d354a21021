"""Namespaces of the program: mounts of its own, and, for whoever may not make those, users of its own."""

from __future__ import annotations

import os

from gpuvm.device import linux
from gpuvm.device.linux import CloneFlag, MountFlag
from gpuvm.device.step import taking


def enter(*, users: bool) -> None:
    """Give this process, which must have one thread, mounts that no one else sees.

    Args:
        users: in a user namespace, in which its user and group are themselves, and nobody else is anybody.

    Raises:
        StepFailed: the kernel refuses.

    Source: ``user_namespaces(7)``, ``mount_namespaces(7)``.
    """
    user, group = os.geteuid(), os.getegid()
    if users:
        with taking(
            "unshare(CLONE_NEWUSER)",
            "user namespaces (CONFIG_USER_NS, Linux 3.8)",
            "see the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone, and whether a "
            "container forbids it; root can do without",
        ):
            linux.unshare(CloneFlag.NEWUSER)
        with taking(
            "writing /proc/self/uid_map",
            "user namespaces that ordinary users may set up",
            "see the sysctl kernel.apparmor_restrict_unprivileged_userns; root can do without",
        ):
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {user} 1")
            _write("/proc/self/gid_map", f"{group} {group} 1")
    with taking(
        "unshare(CLONE_NEWNS)",
        "mount namespaces" + ("" if users else " and CAP_SYS_ADMIN"),
        "see the sysctl user.max_mnt_namespaces, and "
        + ("kernel.apparmor_restrict_unprivileged_userns" if users else "else pass --userns"),
    ):
        linux.unshare(CloneFlag.NEWNS)
    with taking("mount(MS_SLAVE)", "mount namespaces", "see whether a container forbids mounts"):
        # What the machine mounts later is seen; what is mounted here is not seen elsewhere.
        linux.mount_propagation(b"/", MountFlag.RECURSIVE | MountFlag.SLAVE)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
