"""The page that is published: each part of the benchmark has a block there; the rest is written by hand."""

from __future__ import annotations

from pathlib import Path


def markers(part: str) -> tuple[str, str]:
    """The lines between which the block of a part stands."""
    return (
        f"<!-- bench:{part}:begin (written by `make bench`, do not edit) -->",
        f"<!-- bench:{part}:end -->",
    )


def renew(text: str, part: str, block: str) -> str:
    """The page with another block for this part."""
    begin, end = markers(part)
    head, found_begin, rest = text.partition(begin)
    _old, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the page has no lines {begin} and {end}")
    return f"{head}{begin}\n\n{block}\n{end}{tail}"


def renew_blocks(page: Path, blocks: dict[str, str]) -> None:
    """All blocks at once, by part, or none."""
    text = page.read_text(encoding="utf-8")
    for part, block in blocks.items():
        text = renew(text, part, block)
    page.write_text(text, encoding="utf-8")
