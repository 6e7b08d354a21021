"""The examples that README.md and the pages of the manual show: found, run again, compared.

A ``console`` block has commands behind ``$ `` and below each what it prints, both streams together. A
``pycon`` block is a Python dialogue. A ``python`` block is run, what it prints is not looked at. The Python
of one page shares its names, from top to bottom.

    python tests/transcripts.py FILE...     rewrite the console blocks whose output has changed
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(console|pycon|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "--- end of one command ---"
# What `make test` hands down, and `make run` below should not take for its own.
_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
_CLOCK = re.compile(r"^(time per request|wall time in the driver|bind ops per second).*$", re.MULTILINE)


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
    commands = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("examples", "build"):
            (Path(folder) / name).symlink_to(ROOT / name)
        run = subprocess.run(
            ["bash", "-c", "exec 2>&1\n" + "\n".join(map(_scripted, commands))],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    outputs = run.stdout.split(_MARK + "\n")
    assert len(outputs) == len(commands) + 1, run.stdout
    return "".join(f"$ {command}\n{output}" for command, output in zip(commands, outputs, strict=False))


def _scripted(command: str) -> str:
    # The next command may ask for the exit code with $?.
    if command == "make run":  # without the set-up, which the tests have been through
        command = f"make --no-print-directory --directory={ROOT} --assume-old=setup run"
    return f"{command}\nstatus=$?; echo '{_MARK}'; (exit $status)"


def timeless(text: str) -> str:
    """The text without what differs from one run to the next."""
    return _CLOCK.sub(r"\1", text)


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
    for block in blocks(page, "console"):
        now = replayed(block)
        if timeless(now) != timeless(block.text):
            text = text.replace(f"```console\n{block.text}```", f"```console\n{now}```", 1)
            print(f"{block.name} is renewed")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite(Path(argument))
