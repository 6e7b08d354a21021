"""The completion script for zsh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gpuvm.cli.completions.grammar import Kind, Option, Value, Verb

_HEAD: Final = """\
#compdef gpuvm
# Completion of gpuvm for zsh, made by `gpuvm completion zsh`.

# Traces and request files; all files, if there is none of these.
_gpuvm_traces() {
    _files -g '*.(gpuvm|jsonl|jsonl.gz|txt)(-.)' || _files
}

_gpuvm_trace_or_program() {
    if (( ${words[(I)--]} )); then
        _command_names -e
    else
        _gpuvm_traces
    fi
}

# The program, as its own completion has it.
_gpuvm_program() {
    if [[ $words[1] == -- ]]; then
        shift words
        (( CURRENT-- ))
    fi
    _normal
}

_gpuvm() {
    local context state line curcontext="$curcontext"
    _arguments -C \\
        '(-h --help)'{-h,--help}'[show help]' \\
        '(-V --version)'{-V,--version}'[print the version]' \\
        '1:verb:_gpuvm_verbs' \\
        '*::argument:->verb'
    [[ $state == verb ]] || return
    curcontext="${curcontext%:*:*}:gpuvm-$words[1]:"
    case $words[1] in
"""
_FOOT: Final = """\
    esac
}

# Sourced, or found in fpath and run for the first time.
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _gpuvm "$@"
else
    compdef _gpuvm gpuvm
fi
"""


def script(verbs: tuple[Verb, ...]) -> str:
    """All of it."""
    return f"{_HEAD}{''.join(map(_case, verbs))}{_FOOT}".replace(
        "_gpuvm() {", f"{_summaries(verbs)}_gpuvm() {{", 1
    )


def _summaries(verbs: tuple[Verb, ...]) -> str:
    lines = "".join(f"        {_quoted(f'{verb.name}:{verb.help}')}\n" for verb in verbs)
    return f"_gpuvm_verbs() {{\n    local -a verbs=(\n{lines}    )\n    _describe verb verbs\n}}\n\n"


def _case(verb: Verb) -> str:
    words = [word for option in verb.options for word in _option(option)]
    words += [_quoted(word) for word in _operands(verb)]
    continued = " \\\n            ".join(["_arguments -S", *words])
    return f"    {verb.name})\n        {continued}\n        ;;\n"


def _option(option: Option) -> Iterator[str]:
    value = "" if option.value is None else f":{option.value.name}:{_action(option.value)}"
    help = option.help.replace("[", r"\[").replace("]", r"\]").replace(":", r"\:")
    for name in option.names:
        others = "*" if option.repeated else f"({' '.join(option.names)})"
        joined = "=" if value and name.startswith("--") else ""  # --option=value, too
        yield _quoted(f"{others}{name}{joined}[{help}]{value}")


def _operands(verb: Verb) -> Iterator[str]:
    for place, value in enumerate(verb.operands, 1):
        if value.kind in (Kind.PROGRAM, Kind.TRACE_OR_PROGRAM):
            yield f"(-)1:program:{_action(value)}"
            yield "*::argument:_gpuvm_program"
        else:
            yield f"{place}:{value.name}:{_action(value)}"


def _action(value: Value) -> str:
    match value.kind:
        case Kind.WORDS:
            return f"({' '.join(value.words)})"
        case Kind.FILE:
            return "_files"
        case Kind.FOLDER:
            return "_files -/"
        case Kind.TRACE:
            return "_gpuvm_traces"
        case Kind.PROGRAM:
            return "_command_names -e"
        case Kind.TRACE_OR_PROGRAM:
            return "_gpuvm_trace_or_program"
        case Kind.NOTHING:
            return " "


def _quoted(text: str) -> str:
    escaped = text.replace("'", r"'\''")
    return f"'{escaped}'"
