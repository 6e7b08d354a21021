"""Pages that are stories, such as the tutorial: their commands, one after the other, in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled import needs_cc
from transcripts import ROOT, STORIES, Block, blocks, replayed_story, told_alike

CONSOLE = [block for page in STORIES for block in blocks(page, "console")]
PROGRAM = (ROOT / "examples" / "broken_streaming.c").read_text(encoding="utf-8")


@needs_cc
@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.name)
def test_a_command_prints_what_the_page_shows(block: Block) -> None:
    assert told_alike(replayed_story(block.page)[block.line]) == told_alike(block.text)


@pytest.mark.parametrize("page", STORIES, ids=lambda page: page.name)
def test_what_it_shows_of_the_program_is_there(page: Path) -> None:
    for shown in blocks(page, "c"):
        assert shown.text in PROGRAM
