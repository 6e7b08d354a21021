"""The completion script for bash 4 or newer. It uses the package bash-completion where that is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gpuvm.cli.completions.grammar import Kind, Value, Verb

_HELPERS: Final = """\
# Completion of gpuvm for bash, made by `gpuvm completion bash`.

_gpuvm_words() {
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_gpuvm_files() {
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$cur"))
}

_gpuvm_folders() {
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -d -- "$cur"))
}

# Traces and request files; all files, if there is none of these.
_gpuvm_traces() {
    local IFS=$'\\n' name found=() folders
    compopt -o filenames 2>/dev/null
    for name in $(compgen -f -- "$cur"); do
        [[ $name == *.@(gpuvm|jsonl|jsonl.gz|txt) && ! -d $name ]] && found+=("$name")
    done
    folders=($(compgen -d -- "$cur"))
    COMPREPLY=("${found[@]}" "${folders[@]}")
    ((${#found[@]})) || COMPREPLY=($(compgen -f -- "$cur"))
}

# The program that begins at a word, as its own completion has it.
_gpuvm_program() {
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif ((COMP_CWORD == $1)); then
        local IFS=$'\\n'
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -c -- "$cur"))
    else
        _gpuvm_files
    fi
}
"""
_BEGIN: Final = """\
_gpuvm() {
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local options= valued=' ' program= operands=0 i
    COMPREPLY=()
    # --option=value comes as three words.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
"""
_END: Final = """\
    for ((i = 2; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --)
            [[ $program ]] && _gpuvm_program $((i + 1))
            return
            ;;
        = | -*) ;;
        *)
            [[ $valued == *" ${COMP_WORDS[i - 1]} "* || ${COMP_WORDS[i - 1]} == = ]] && continue
            if [[ $program == always ]]; then
                _gpuvm_program "$i"
                return
            fi
            operands=$((operands + 1))
            ;;
        esac
    done
    if [[ $valued == *" $previous "* ]]; then
        _gpuvm_value "$verb" "$previous"
    elif [[ $cur == -* ]]; then
        _gpuvm_words "$options"
    else
        _gpuvm_operand "$verb" "$operands"
    fi
}

complete -F _gpuvm gpuvm
"""


def script(verbs: tuple[Verb, ...]) -> str:
    """All of it."""
    values, operands, cases = (
        "".join(f"{line}\n" for line in lines) for lines in (_values(verbs), _operands(verbs), _cases(verbs))
    )
    return f"{_HELPERS}\n{values}\n{operands}\n{_BEGIN}{cases}{_END}"


def _cases(verbs: tuple[Verb, ...]) -> Iterator[str]:
    yield "    if ((COMP_CWORD == 1)); then"
    yield f'        _gpuvm_words "{" ".join(one.name for one in verbs)} -h --help -V --version"'
    yield "        return"
    yield "    fi"
    yield "    case $verb in"
    for verb in verbs:
        names = " ".join(name for one in verb.options for name in one.names)
        valued = " ".join(name for one in verb.options if one.value for name in one.names)
        yield f"    {verb.name})"
        yield f'        options="{names}{" --" if verb.has_program else ""}"'
        if valued:
            yield f'        valued=" {valued} "'
        if verb.has_program:
            always = verb.operands[0].kind is Kind.PROGRAM
            yield f"        program={'always' if always else 'behind--'}"
        yield "        ;;"
    yield "    *) return ;;"
    yield "    esac"


def _values(verbs: tuple[Verb, ...]) -> Iterator[str]:
    yield "# The value of an option of a verb."
    yield "_gpuvm_value() {"
    yield "    case $1:$2 in"
    for verb in verbs:
        for option in verb.options:
            if option.value is not None and option.value.kind is not Kind.NOTHING:
                pattern = " | ".join(f"{verb.name}:{name}" for name in option.names)
                yield f"    {pattern}) {_offer(option.value)} ;;"
    yield "    esac"
    yield "}"


def _operands(verbs: tuple[Verb, ...]) -> Iterator[str]:
    yield "# What a verb takes without an option, behind so many others."
    yield "_gpuvm_operand() {"
    yield "    case $1:$2 in"
    for verb in verbs:
        for place, value in enumerate(verb.operands):
            if value.kind is not Kind.NOTHING:
                yield f"    {verb.name}:{place}) {_offer(value)} ;;"
    yield "    esac"
    yield "}"


def _offer(value: Value) -> str:
    match value.kind:
        case Kind.WORDS:
            return f'_gpuvm_words "{" ".join(value.words)}"'
        case Kind.FILE:
            return "_gpuvm_files"
        case Kind.FOLDER:
            return "_gpuvm_folders"
        case Kind.PROGRAM:
            return '_gpuvm_program "$COMP_CWORD"'
        case _:
            return "_gpuvm_traces"
