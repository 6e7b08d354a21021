"""The completion script for fish 3.4 or newer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gpuvm.cli.completions.grammar import Kind, Option, Value, Verb

_HEAD: Final = """\
# Completion of gpuvm for fish, made by `gpuvm completion fish`.

# Whether the verb is this one, and no program has begun.
function __gpuvm_verb
    set -l words (commandline -opc)
    test "$words[2]" = $argv[1]; and not contains -- -- $words
end

# Whether the verb is one of these, and a program has begun.
function __gpuvm_runs
    set -l words (commandline -opc)
    contains -- "$words[2]" $argv; and contains -- -- $words
end

function __gpuvm_no_verb
    test (count (commandline -opc)) -eq 1
end

# The program that begins behind --, as its own completion has it.
function __gpuvm_program
    set -l words (commandline -opc) (commandline -ct)
    set -l at (math 1 + (contains -i -- -- $words))
    if test $at -eq (count $words)
        complete -C $words[-1]
    else
        complete -C (string join -- ' ' (string escape -- $words[$at..-2]) $words[-1])
    end
end

# Traces and request files; all files, if there is none of these.
function __gpuvm_traces
    set -l files (__fish_complete_path (commandline -ct))
    set -l traces (string match -r -- '^.*\\.(?:gpuvm|jsonl|jsonl\\.gz|txt)(?:\\t.*)?$' $files)
    if set -q traces[1]
        printf '%s\\n' $traces (string match -r -- '^.*/(?:\\t.*)?$' $files)
    else
        printf '%s\\n' $files
    end
end

complete -c gpuvm -e
complete -c gpuvm -f
complete -c gpuvm -n __gpuvm_no_verb -s h -l help -d 'show help'
complete -c gpuvm -n __gpuvm_no_verb -s V -l version -d 'print the version'
"""


def script(verbs: tuple[Verb, ...]) -> str:
    """All of it."""
    running = " ".join(verb.name for verb in verbs if verb.has_program)
    program = f"complete -c gpuvm -n '__gpuvm_runs {running}' -a '(__gpuvm_program)'\n"
    return "".join([_HEAD, program, *(f"{line}\n" for verb in verbs for line in _verb(verb))])


def _verb(verb: Verb) -> Iterator[str]:
    yield ""
    yield f"complete -c gpuvm -n __gpuvm_no_verb -a {verb.name} -d {_quoted(verb.help)}"
    condition = f"-n '__gpuvm_verb {verb.name}'"
    for option in verb.options:
        yield f"complete -c gpuvm {condition} {_option(option)}"
    if any(one.kind in (Kind.TRACE, Kind.TRACE_OR_PROGRAM) for one in verb.operands):
        yield f"complete -c gpuvm {condition} -a '(__gpuvm_traces)'"
    for value in verb.operands:
        if value.kind is Kind.WORDS:
            yield f"complete -c gpuvm {condition} -a {_quoted(' '.join(value.words))}"
        elif value.kind in (Kind.PROGRAM, Kind.TRACE_OR_PROGRAM):
            yield f"complete -c gpuvm {condition} -a -- -d 'the program begins'"


def _option(option: Option) -> str:
    names = " ".join(f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.names)
    value = "" if option.value is None else f" {_value(option.value)}"
    return f"{names}{value} -d {_quoted(option.help)}"


def _value(value: Value) -> str:
    match value.kind:
        case Kind.WORDS:
            return f"-x -a {_quoted(' '.join(value.words))}"
        case Kind.FILE:
            return "-r -F"
        case Kind.FOLDER:
            return "-x -a '(__fish_complete_directories)'"
        case _:
            return "-x"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
