"""The examples of every verb's --help are run, where they can be."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from compiled import CC, compiled
from forked_command import forker
from gpuvm.cli import parser_of_all
from trace_scenes import write_sqlite
from tracefile import EXAMPLES, SPARSE_BUFFER, records_in

_MAY_SAY = {"check": (0, 99), "diff": (0, 1)}
"""Exit codes, where others than 0 are answers too."""
_NEED_TERMINAL = ("top",)
"""Tested in tests/test_top_terminal.py."""


def _verbs() -> dict[str, argparse.ArgumentParser]:
    actions = parser_of_all()._actions
    (verbs,) = (one for one in actions if isinstance(one, argparse._SubParsersAction))
    return dict(verbs.choices)


def _examples(parser: argparse.ArgumentParser) -> list[str]:
    shown = re.search(r"^examples?:\n((?:  .*\n)+)$", parser.epilog or "", re.MULTILINE)
    assert shown is not None, f"{parser.prog} --help shows no example"
    return [line.strip() for line in shown[1].splitlines()]


EXAMPLE_LINES = [(verb, line) for verb, parser in _verbs().items() for line in _examples(parser)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples are about: see `gpuvm.cli.options.add_verb`."""
    made = tmp_path_factory.mktemp("examples")
    shutil.copy(SPARSE_BUFFER, made / "app.jsonl")
    shutil.copy(EXAMPLES / "one-mapping.txt", made / "requests.txt")
    if CC is not None:
        shutil.copy(compiled("frames"), made / "app")
    records = records_in(SPARSE_BUFFER)
    write_sqlite(made / "app.gpuvm", records)
    write_sqlite(made / "old.gpuvm", records[:80])
    return made


@pytest.mark.parametrize(("verb", "line"), EXAMPLE_LINES, ids=[line for _, line in EXAMPLE_LINES])
def test_an_example_works(verb: str, line: str, folder: Path, tmp_path: Path) -> None:
    if verb in _NEED_TERMINAL:
        pytest.skip("needs a terminal")
    if CC is None and "./app" in line:
        pytest.skip("no C compiler: cc is not there")
    for source in folder.iterdir():
        if source.name in line.partition("  # ")[0]:  # what an example writes is not there before
            shutil.copy(source, tmp_path / source.name)
    code, printed = _run(line, tmp_path)
    assert code in _MAY_SAY.get(verb, (0,)), printed


def _run(line: str, folder: Path) -> tuple[int, str]:
    """The exit code, and what was printed; a shell is asked only where one is needed."""
    gpuvm, *words = shlex.split(line, comments=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with TemporaryFile("w+") as printed, open(os.devnull) as nothing:
        streams = [nothing.fileno(), printed.fileno(), printed.fileno()]
        if gpuvm == "gpuvm" and not {"|", ">"} & set(words):
            code = forker().run(words, streams, environment, folder, 60)
        else:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=folder,
                env=environment,
                stdin=nothing,
                stdout=printed,
                stderr=printed,
                timeout=60,
                check=False,
            )
            code = done.returncode
        printed.seek(0)
        return code, printed.read()


@pytest.mark.parametrize(("verb", "line"), EXAMPLE_LINES, ids=[line for _, line in EXAMPLE_LINES])
def test_an_example_is_of_its_verb_and_says_what_for(verb: str, line: str) -> None:
    command, _, why = line.partition("  # ")
    assert f"gpuvm {verb} " in f"{command} "
    assert why
    assert shlex.split(command)
