"""Completion in real shells: bash by its own function, fish by its own question, zsh at a terminal."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuvm.cli import main, parser_of_all
from gpuvm.cli.completion import SHELLS, script
from gpuvm.cli.completions.grammar import Kind, verbs_of
from pseudo_terminal import Terminal

VERBS = {verb.name for verb in verbs_of(parser_of_all())}
TRACES = {"a.gpuvm", "b.jsonl.gz", "with space.gpuvm"}

CASES: list[tuple[str, set[str]]] = [
    ("gpuvm rec", {"record"}),
    ("gpuvm repl", {"replay"}),
    ("gpuvm show ", TRACES | {"folder/"}),
    ("gpuvm show w", {"with space.gpuvm"}),
    ("gpuvm show n", {"notes.md"}),  # no trace begins so, but a file
    ("gpuvm show folder/", {"folder/c.jsonl"}),
    ("gpuvm run --ch", {"--chipset"}),
    ("gpuvm run --chipset ", {"turing", "ampere"}),
    ("gpuvm run --chipset t", {"turing"}),
    ("gpuvm run --root ", {"folder/"}),
    ("gpuvm run -- ./pro", {"./prog"}),
    ("gpuvm run --vram 4G -- ./pro", {"./prog"}),
    ("gpuvm run -- ./prog n", {"notes.md"}),
    ("gpuvm top ", TRACES | {"folder/"}),
    ("gpuvm top -- ./pro", {"./prog"}),
    ("gpuvm check -- ./prog n", {"notes.md"}),
    ("gpuvm export a.gpuvm --format ", {"perfetto", "json", "csv"}),
    ("gpuvm diff a.gpuvm b", {"b.jsonl.gz"}),
    ("gpuvm dump a.gpuvm --call vm_", {"vm_bind", "vm_init"}),
    ("gpuvm completion ", set(SHELLS)),
    ("gpuvm nonsense ", set()),
]
IDS = [line for line, _ in CASES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("completion")
    for name in (*TRACES, "notes.md", "prog", "folder/c.jsonl"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).touch(mode=0o755 if name == "prog" else 0o644)
    for shell in SHELLS:
        (made / f".{shell}").write_text(script(shell))
    return made


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not there")


def answers(shell: str, folder: Path, program: str) -> list[set[str]]:
    """What a program for the shell prints: a line that begins with > for each case, then the offers."""
    done = subprocess.run(
        [shell, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return [set(block.splitlines()) for block in done.stdout.split(">\n")[1:]]


def quoted(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"


_BASH = """
source .bash
complete -p gpuvm >/dev/null || exit
try() {
    COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    [[ $1 == *' ' ]] && COMP_WORDS+=('') COMP_CWORD=$((COMP_CWORD + 1))
    _gpuvm
    echo '>'
    for one in "${COMPREPLY[@]}"; do [[ -d $one && $one != */ ]] && one+=/; printf '%s\\n' "$one"; done
}
"""


@pytest.fixture(scope="module")
def of_bash(folder: Path) -> list[set[str]]:
    return answers("bash", folder, _BASH + "\n".join(f"try {quoted(line)}" for line, _ in CASES))


@needs("bash")
@pytest.mark.parametrize("at", range(len(CASES)), ids=IDS)
def test_bash(at: int, of_bash: list[set[str]]) -> None:
    assert of_bash[at] == CASES[at][1]


@needs("bash")
def test_bash_knows_words_that_it_splits_at_an_equals_sign(folder: Path) -> None:
    cases = ["gpuvm run --chipset =", "gpuvm run --chipset = a", "gpuvm run --vram = 4G ./pro"]
    found = answers("bash", folder, _BASH + "\n".join(f"try {quoted(line)}" for line in cases))
    assert found == [{"turing", "ampere"}, {"ampere"}, {"./prog"}]


@needs("bash")
def test_bash_by_its_tab_key(folder: Path) -> None:
    with Terminal(["bash", "--norc", "-i"], cwd=folder, environment={"PS1": "> "}) as terminal:
        terminal.wait_for("> ")
        terminal.press("source .bash\n")
        terminal.wait_for("> ")
        terminal.press("gpuvm show not\t && gpuvm rep\t\n")
        terminal.wait_for("gpuvm show notes.md")
        terminal.wait_for("gpuvm replay")


@pytest.fixture(scope="module")
def of_fish(folder: Path) -> list[set[str]]:
    lines = "\n".join(f"echo '>'; complete -C {quoted(line)}" for line, _ in CASES)
    found = answers("fish", folder, f"source .fish\n{lines}")
    return [{re.sub(r"\t.*", "", one) for one in offers} for offers in found]


@needs("fish")
@pytest.mark.parametrize("at", range(len(CASES)), ids=IDS)
def test_fish(at: int, of_fish: list[set[str]]) -> None:
    line, expected = CASES[at]
    assert of_fish[at] - {"--"} == expected or line == "gpuvm nonsense "


@pytest.fixture(scope="module")
def zsh(folder: Path) -> Iterator[Terminal]:
    # A dumb terminal, so that what is shown is what was typed and completed.
    environment = {"PS1": "> ", "TERM": "dumb", "ZDOTDIR": str(folder)}
    with Terminal(["zsh", "-f", "-i"], cwd=folder, environment=environment) as terminal:
        terminal.press("autoload -U compinit; compinit -u -D; source ./.zsh; echo rea''dy\n")
        terminal.wait_for("ready")
        terminal.wait_for("> ")  # the prompt: from now on it reads keys, not lines
        yield terminal


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("gpuvm rec", "ord "),
        ("gpuvm show n", "otes.md "),
        ("gpuvm show w", "ith\\ space.gpuvm "),
        ("gpuvm run --ch", "ipset "),
        ("gpuvm run --chipset=a", "mpere "),
        ("gpuvm run --root ", "folder/"),
        ("gpuvm run -- ./pro", "g "),
        ("gpuvm run --vram 4G -- ./prog n", "otes.md "),
        ("gpuvm top -- ./pro", "g "),
        ("gpuvm diff a.gpuvm b", ".jsonl.gz "),
        ("gpuvm check --explain use-a", "fter-unmap "),
    ],
)
def test_zsh(typed: str, completed: str, zsh: Terminal) -> None:
    zsh.press(f"{typed}\t.\x15")  # a dot behind it, and nothing of it is run
    zsh.wait_for(f"{typed[-3:]}")
    zsh.wait_for(f"{completed.rstrip(' ')}")


# -- the scripts themselves


@pytest.mark.parametrize("shell", SHELLS)
def test_the_verb_prints_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not there")
    subprocess.run([shell, "-n"], input=script(shell), text=True, check=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_it_has_every_verb_and_option(shell: str) -> None:
    text = script(shell)
    for verb in verbs_of(parser_of_all()):
        assert re.search(rf"\b{verb.name}\b", text)
        for option in verb.options:
            long = option.names[-1]
            assert (f"-l {long[2:]} " if shell == "fish" else long) in text


def test_every_value_that_can_be_offered_is_known() -> None:
    """A value is a file, a folder, words; or it is a number or a text, which nobody can guess."""
    for verb in verbs_of(parser_of_all()):
        values = [*verb.operands, *(option.value for option in verb.options)]
        for value in values:
            assert value is None or (value.kind is Kind.WORDS) == bool(value.words), f"{verb.name}: {value}"
