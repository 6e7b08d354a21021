"""``gpuvm completion``: the script with which a shell completes gpuvm's command lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpuvm.cli.options import EXIT_OK, Verbs, add_verb

if TYPE_CHECKING:
    from gpuvm.cli.completions.grammar import Verb

SHELLS = ("bash", "zsh", "fish")

_DESCRIPTION = """\
Print the script with which a shell completes verbs, options, their values, traces, and the program behind --
with its own arguments. The script does not run gpuvm.

bash:  gpuvm completion bash > ~/.local/share/bash-completion/completions/gpuvm
       without the package bash-completion: in .bashrc, source <(gpuvm completion bash)
zsh:   gpuvm completion zsh > ~/.zfunc/_gpuvm    with fpath+=~/.zfunc before compinit in .zshrc
fish:  gpuvm completion fish > ~/.config/fish/completions/gpuvm.fish

An installation into a system's prefix brings them, and this command's manual page, under share/."""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm completion SHELL``."""
    example = "source <(gpuvm completion bash)  # for this shell, until it ends"
    summary = "print a shell's completion script"
    parser = add_verb(verbs, "completion", summary, _DESCRIPTION, example=example)
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    sys.stdout.write(script(arguments.shell))
    return EXIT_OK


def script(shell: str) -> str:
    """The script for one of ``SHELLS``."""
    from gpuvm.cli import parser_of_all
    from gpuvm.cli.completions import bash, fish, zsh
    from gpuvm.cli.completions.grammar import verbs_of

    made: dict[str, Callable[[tuple[Verb, ...]], str]]
    made = {"bash": bash.script, "zsh": zsh.script, "fish": fish.script}
    return made[shell](verbs_of(parser_of_all()))
