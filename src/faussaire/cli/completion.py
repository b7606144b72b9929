"""`faussaire completion bash`: Tab completion, answered without importing torch.

The shell asks `faussaire completion words WORD...` at each Tab, so that families and flags are those of
the version installed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from faussaire import families
from faussaire.cli import bench
from faussaire.cli.console import parse

_SCRIPTS = {
    "bash": """\
_faussaire() {
    local answers
    answers=$(faussaire completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=($(compgen -W "$answers" -- "${COMP_WORDS[COMP_CWORD]}"))
    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o filenames -F _faussaire faussaire
""",
    "zsh": """\
#compdef faussaire
_faussaire() {
    local -a answers
    answers=(${(f)"$(faussaire completion words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    compadd -a answers
    _files
}
compdef _faussaire faussaire
""",
    "fish": """\
complete -c faussaire -a '(faussaire completion words (commandline -opc)[2..] (commandline -ct))'
""",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Print a completion script: `eval "$(faussaire completion bash)"`.

    Attributes:
        shell: whose language.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]


def run(arguments: list[str]) -> int:
    """Print a script, or answer one."""
    if arguments and arguments[0] == "words":
        print("\n".join(answers(arguments[1:])))
        return 0
    print(_SCRIPTS[parse("completion", Options, arguments).shell], end="")
    return 0


def answers(words: list[str]) -> list[str]:
    """What may stand in place of the last of these words."""
    from faussaire.cli import COMMANDS

    before, word = words[:-1], words[-1] if words else ""
    if not before:
        return [name for name in COMMANDS if name.startswith(word)]
    if word.startswith("-"):
        return [flag for flag in _flags(before) if flag.startswith(word)]
    if before in (["train"], ["tune"], ["families"]):
        return [name for name in families.names() if name.startswith(word)]
    if before == ["completion"]:
        return list(_SCRIPTS)
    if before == ["bench"]:
        return [name for name in bench.KINDS if name.startswith(word)]
    return []


def _flags(before: list[str]) -> list[str]:
    """The flags of a command, and of a family where one is named."""
    import importlib

    from faussaire.cli import train, tune
    from faussaire.core.config import PictureData, TrainingConfig

    names: list[str] = []
    if before[0] in ("train", "resume", "tune"):
        own = tune.Command if before[0] == "tune" else train.Command
        for kind in (PictureData, TrainingConfig, own):
            names += [field.name for field in dataclasses.fields(kind)]
        if before[0] != "resume" and len(before) > 1 and before[1] in families.names():
            names += families.describe(before[1]).fields
    elif before[0] == "bench":
        kinds = [kind for name, kind in bench.KINDS.items() if name in before[1:2]]
        names += [field.name for kind in kinds for field in dataclasses.fields(kind)]
    else:
        options = importlib.import_module(f"faussaire.cli.{before[0]}").Options
        names += [field.name for field in dataclasses.fields(options)]
    renamed = {"duration": "for", "label": "class"}
    return [f"--{renamed.get(name, name).replace('_', '-')}" for name in names] + ["--help"]
