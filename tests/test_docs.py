"""No drift: every command, session and picture of README.md and the manual is run again and compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gpuvm
from gpuvm.cli import main
from gpuvm.errors import ERRNO_NAMES
from transcripts import PAGES, ROOT, STORIES, Block, blocks, replayed, run_python, timeless

CONSOLE = [block for page in PAGES if page not in STORIES for block in blocks(page, "console")]
DEBIAN = "build/debian13"
PICTURE = ROOT / "docs" / "nvk-sparse-buffer.svg"


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.name)
def test_a_command_prints_what_the_page_shows(block: Block) -> None:
    if DEBIAN in block.text and not (ROOT / DEBIAN).is_dir():
        pytest.skip(f"{DEBIAN} is not there: make test sets it up where apt has a mirror")
    assert timeless(replayed(block)) == timeless(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_gives_what_the_page_shows(page: Path) -> None:
    complaints = run_python(page)
    assert not complaints, "".join(complaints)


def test_the_picture_is_the_one_that_show_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    drawn = tmp_path / "drawn.svg"
    assert main(["show", "examples/nvk-sparse-buffer.jsonl", "--until", "60", "-o", str(drawn)]) == 0
    assert drawn.read_text() == PICTURE.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_table_of_errors_has_all_of_them() -> None:
    page = (ROOT / "docs" / "manager.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(E\w+)` \|", page, re.MULTILINE)
    classes = gpuvm.GpuvmError.__subclasses__()
    assert sorted(rows) == sorted((one.__name__, ERRNO_NAMES[one.code]) for one in classes)
