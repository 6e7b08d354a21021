"""tools/debian-root: a root made of packages, added to, left alone when it is there; nothing if they lack."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "debian-root"
BASE = ("base-files", "base-passwd", "libc-bin", "dash", "coreutils")
FILES = {
    "base-passwd": {
        "usr/share/base-passwd/passwd.master": "root:x",
        "usr/share/base-passwd/group.master": "root:x",
    },
    "libc-bin": {"usr/sbin/ldconfig": '#!/bin/sh\ntouch "$2/etc/ld.so.cache"\n'},
    "dash": {"bin/dash": "found through the link"},
}
APT = """#!/bin/sh
# Gives what lies in $DEBS, as if a mirror had it; notes what it is asked for.
echo "$*" >>"$DEBS/asked"
for word; do
    case $word in Dir::Cache=*) cache=${word#*=} ;; esac
done
case "$*" in
*--error-on*) cp "${cache%/cache}/sources.list" "$DEBS/sources" ;;
update*) . /etc/os-release && echo "'http://mirror.invalid/debian/dists/$VERSION_CODENAME/InRelease' x 0 " ;;
*--print-uris*) ;;
*--download-only*)
    for package; do
        file=$DEBS/${package%/*}.deb
        [ ! -f "$file" ] || cp "$file" "$cache/archives/${package%/*}_1_all.deb"
    done
    [ ! -e "$DEBS/unreachable" ] ;;
esac
"""

pytestmark = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None or not Path("/etc/os-release").is_file(), reason="no dpkg here"
)


@pytest.fixture
def debs(tmp_path: Path) -> Path:
    """Packages, and an apt-get beside them that gives them."""
    debs = tmp_path / "debs"
    for package in (*BASE, "client"):
        tree = tmp_path / "trees" / package
        control = tree / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        control.write_text(
            f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        )
        for name, text in FILES.get(package, {"usr/share/doc/" + package: ""}).items():
            file = tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        if package == "base-files":
            (tree / "usr" / "bin").mkdir()
            (tree / "etc").mkdir()
            (tree / "bin").symlink_to("usr/bin")
        debs.mkdir(exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, debs / f"{package}.deb"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    apt = debs / "apt-get"
    apt.write_text(APT)
    apt.chmod(0o755)
    return debs


def call(directory: Path, *packages: str, path: Path) -> str:
    """What it says. It always ends with 0."""
    ended = subprocess.run(
        [TOOL, directory, directory.with_name("log"), *packages],
        check=True,
        env={"PATH": f"{path}:{os.environ['PATH']}", "DEBS": str(path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    return ended.stderr


def test_packages_are_unpacked_through_the_links_of_the_first(debs: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert "nothing is installed" in call(root, "client", path=debs)
    assert (root / "usr" / "bin" / "dash").read_text() == "found through the link"
    assert (root / "bin").is_symlink()
    assert (root / "etc" / "passwd").read_text() == "root:x"
    assert (root / "etc" / "ld.so.cache").exists()
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert {path.name for path in tmp_path.iterdir()} == {"root", "debs", "trees", "log"}


def test_what_is_there_is_left_alone_and_more_is_added(debs: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    call(root, path=debs)
    assert not (root / "usr" / "share" / "doc" / "client").exists()
    asked = (debs / "asked").read_text()
    assert call(root, path=debs) == ""
    assert (debs / "asked").read_text() == asked

    mark = root / "usr" / "bin" / "ours"
    mark.touch()
    assert "(client/trixie-backports)" in call(root, "client/trixie-backports", path=debs)
    assert "trixie-backports main" in (debs / "sources").read_text()
    assert (root / "usr" / "share" / "doc" / "client").exists()
    assert mark.exists()
    assert call(root, "client", path=debs) == ""


def test_a_mirror_that_gives_only_some_leaves_nothing(debs: Path, tmp_path: Path) -> None:
    (debs / "unreachable").touch()
    root = tmp_path / "root"
    assert "no mirror of Debian gave them" in call(root, path=debs).splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"debs", "trees", "log"}


def test_a_root_that_cannot_be_added_to_stays_as_it_is(debs: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    call(root, path=debs)
    before = sorted(root.rglob("*"))
    (debs / "unreachable").touch()
    assert "no mirror of Debian gave them" in call(root, "client", path=debs)
    assert sorted(root.rglob("*")) == before


def test_without_apt(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sh", "dirname", "realpath", "grep", "mkdir", "rm", "sed"):
        found = shutil.which(name)
        assert found is not None
        (commands / name).symlink_to(found)
    root = tmp_path / "root"
    ended = subprocess.run(
        [TOOL, root, tmp_path / "log"],
        check=True,
        env={"PATH": str(commands)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "no mirror of Debian gave them" in ended.stderr.splitlines()[-1]
    assert not root.exists()
