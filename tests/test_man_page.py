"""gpuvm.1 and the other files that a wheel brings: they are what the parsers say, and roff can read them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from tools.man_page import man_page
from tools.shipped_files import FOLDER, shipped_files

from gpuvm.cli import parser_of_all
from gpuvm.cli.completions.grammar import verbs_of

PAGE = FOLDER / "man" / "man1" / "gpuvm.1"


@pytest.mark.parametrize("name", shipped_files())
def test_a_shipped_file_is_up_to_date(name: str) -> None:
    """If not: python -m tools.shipped_files."""
    assert (FOLDER / name).read_text(encoding="utf-8") == shipped_files()[name]


def test_nothing_else_is_shipped() -> None:
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert found == set(shipped_files())


@pytest.mark.parametrize(
    "command",
    [
        ["groff", "-ww", "-man", "-Tutf8", "-z", str(PAGE)],
        ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)],
    ],
    ids=lambda command: command[0],
)
def test_roff_has_nothing_to_complain_of(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not there")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def rendered() -> str:
    """As a terminal shows it, without emphasis."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not there")
    command = ["groff", "-man", "-Tascii", "-P-c", "-rLL=110n", str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", done.stdout)


def test_it_shows_every_verb_with_its_options_and_examples() -> None:
    text = " ".join(rendered().split())
    for verb in verbs_of(parser_of_all()):
        assert f"{verb.name} - {verb.help}" in text
        for option in verb.options[1:]:  # -h is every verb's
            assert ", ".join(option.names) in text
        assert f"gpuvm {verb.name} " in text


def test_nothing_of_the_text_is_taken_for_roff() -> None:
    """Quotes, backslashes, and dots at the beginning of a line are shown."""
    text = rendered()
    assert "echo 'init 0 0x10000 0 0' | gpuvm ops" in text
    assert 'gpuvm explain "unmap 0x3fffa40000 0x80000" --on app.jsonl --until 60' in text
    for line in man_page().splitlines():
        assert not line.startswith("'")
        assert not re.match(r"\.(?!TH|SH|SS|PP|TP|IR|I |B |BR|RI|RB|br|in|EX|EE|RS|RE)", line)


def test_man_finds_it_where_a_wheel_puts_it() -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not there")
    done = subprocess.run(
        ["man", "-M", str(FOLDER / "man"), "gpuvm"],
        env={"PATH": "/usr/bin:/bin", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "gpuvm - Linux's GPU virtual-memory manager in user space" in re.sub(r".\x08", "", done.stdout)
