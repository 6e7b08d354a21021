"""The examples that README.md and the pages of the manual show: found, run again, compared.

A ``console`` block has commands behind ``$ `` and below each what it prints, both streams together. Those
of a story are run one after the other in one folder, those of other pages each block in a new one. A
``pycon`` block is a Python dialogue. A ``python`` block is run, what it prints is not looked at. The Python
of one page shares its names, from top to bottom.

    python tests/transcripts.py FILE...     rewrite the console blocks whose output has changed
"""

from __future__ import annotations

import doctest
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STORIES = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "checker.md"]

_BLOCK = re.compile(r"^```(console|pycon|python|c)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "--- end of one command ---"
# What `make test` hands down, and `make run` below should not take for its own.
_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
_CLOCK = re.compile(r"^(time per request|wall time in the driver|bind ops per second).*$", re.MULTILINE)
# Of a recording: moments and durations, the process's number, and what follows from them.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]+|\b[\d,]+(\.\d+)? (ns|us|ms|s)\b|(?<=<)\d+\.\d+(?=>)")
_WRITTEN = re.compile(r"(?<=, )[\d.]+ [KM]iB(?=; )")
_PROCESS = re.compile(r"\(\d+\)|(?<=pid )\d+")
_ROWS = re.compile(r"^  (size|time in calls) .*\n( {16}.*\n)*", re.MULTILINE)
_LONGEST = re.compile(r"(waited|ran) \S+ \w+\s+at\s+most\s+\(call\s+\d+\)")
_CUT_SHORT = re.compile(r"\(<Channel .*?\.\.\.\)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Attributes: ``line`` of the page where the text begins, from 1."""

    page: Path
    line: int
    kind: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *kinds: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = (Block(page, text.count("\n", 0, m.start(2)) + 1, m[1], m[2]) for m in _BLOCK.finditer(text))
    return [block for block in found if block.kind in kinds]


def replayed(block: Block) -> str:
    """A console block with the output that its commands have now."""
    return _replayed((block.text,))[0]


@functools.cache
def replayed_story(page: Path) -> dict[int, str]:
    """The console blocks of a page as they are now, by their lines; run once."""
    told = blocks(page, "console")
    return dict(zip((one.line for one in told), _replayed(tuple(one.text for one in told)), strict=True))


def _replayed(texts: Sequence[str]) -> list[str]:
    """The blocks, run in one folder."""
    commands = [[line[2:] for line in text.splitlines() if line.startswith("$ ")] for text in texts]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for name, target in (("examples", ROOT), ("tests", ROOT), ("build", ROOT), (".venv", None)):
            (Path(folder) / name).symlink_to(Path(sys.prefix) if target is None else target / name)
        run = subprocess.run(
            ["bash", "-c", "exec 2>&1\n" + "\n".join(_scripted(one) for block in commands for one in block)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    outputs = run.stdout.split(_MARK + "\n")
    assert len(outputs) == sum(map(len, commands)) + 1, run.stdout
    ended = iter(outputs)
    return ["".join(f"$ {command}\n{next(ended)}" for command in block) for block in commands]


def _scripted(command: str) -> str:
    # The next command may ask for the exit code with $?.
    if command in ("make run", "make setup"):  # without the set-up, which the tests have been through
        made = "setup" if command == "make run" else ".venv/stamps/core"
        command = f"make --silent --directory={ROOT} --assume-old={made} {command.split()[1]}"
    return f"{command}\nstatus=$?; echo '{_MARK}'; (exit $status)"


def timeless(text: str) -> str:
    """The text without what differs from one run to the next."""
    return _CLOCK.sub(r"\1", text)


def told_alike(text: str) -> str:
    """The text without what differs from one recording to the next, and without where lines are broken."""
    for pattern in (_ROWS, _LONGEST, _CUT_SHORT, _WRITTEN, _MOMENT, _PROCESS):
        text = pattern.sub("...", text)
    return " ".join(text.split())


def run_python(page: Path) -> list[str]:
    """Run the page's Python; what differs from what it shows, in words."""
    names: dict[str, Any] = {"__name__": "__main__"}
    complaints: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for block in blocks(page, "python", "pycon"):
        if block.kind == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
            continue
        session = doctest.DocTest([], {}, block.name, str(page), block.line - 1, None)
        session.globs = names  # itself, not a copy: functions of earlier blocks see what later ones name
        session.examples = doctest.DocTestParser().get_examples(block.text)
        runner.run(session, out=complaints.append, clear_globs=False)
    return complaints


def rewrite(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    alike = told_alike if page.resolve() in STORIES else timeless
    for block in blocks(page, "console"):
        now = replayed_story(page)[block.line] if page.resolve() in STORIES else replayed(block)
        if alike(now) != alike(block.text):
            text = text.replace(f"```console\n{block.text}```", f"```console\n{now}```", 1)
            print(f"{block.name} is renewed")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite(Path(argument))
