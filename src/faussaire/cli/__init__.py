"""The command line: one module per command, and no torch until a command needs it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from faussaire import __version__
from faussaire.cli.console import fail
from faussaire.core.errors import Interrupted, UserError, nearest

#: Command -> what it does. The module `faussaire.cli.<command>` has `run(arguments)`.
COMMANDS = {
    "train": "Train a GAN on your data: faussaire train dcgan photos/",
    "resume": "Continue a run: faussaire resume runs/dcgan-photos",
    "check": "Look at data before training: faussaire check photos/",
    "advise": "Which family for your data and machine: faussaire advise photos/",
    "tune": "Search for the settings that suit your data: faussaire tune dcgan photos/",
    "sample": "Make pictures with a trained run",
    "apply": "Turn pictures into others with a trained run: faussaire apply RUN photos/ --out made/",
    "classify": "Tell the classes of pictures with a trained run: faussaire classify RUN photos/",
    "features": "What a run sees in pictures, for your own classifier",
    "project": "Find photographs in a run's latent space: faussaire project RUN me.jpg --out found/",
    "edit": "Move pictures along directions: faussaire edit RUN me.jpg --smile 2 --out edited/",
    "evaluate": "Measure a run, or one folder of pictures against another",
    "compare": "Compare runs: settings, figures and samples",
    "doctor": "Does a run learn, what is wrong, and what to do",
    "film": "A film through the latent space, or of the training",
    "transfer": "Paint a photograph like a painting: faussaire transfer photo.jpg art.jpg -o out.png",
    "bench": "Which games find all modes where they are known: faussaire bench modes",
    "runs": "List runs",
    "info": "Everything about one run",
    "report": "Write a run's report.html anew",
    "families": "The families of GANs, or one in detail",
    "env": "Versions and machine, for bug reports",
    "completion": "Tab completion for bash, zsh or fish",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0, 2 for a user's mistake, 3 for what the doctor found, 130/143 for a signal.
    """
    code = _answer(list(sys.argv[1:] if arguments is None else arguments))
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        # Everything is closed and flushed. Once in some dozens of ends, a thread of gloo's outlived
        # its process group and aborted the interpreter on its way out; so it goes out directly.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _answer(words: list[str]) -> int:
    """Run one command, and turn what a user can mend into a sentence and an exit code."""
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except Interrupted as error:
        if debug:
            raise
        if os.environ.get("RANK", "0") == "0":  # of several processes one says it
            fail(error)
        return error.code
    except UserError as error:
        if debug:
            raise
        fail(error)
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        fail(UserError("Stopped by Ctrl-C."))
        return 130
    except BrokenPipeError:
        # The reader of our output (head, a closed pager) has gone: nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("--version", "-V"):
        print(f"faussaire {__version__}")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        raise UserError(
            f"There is no command '{command}'.{nearest(command, COMMANDS)}",
            "`faussaire --help` lists them.",
        )
    module = importlib.import_module(f"faussaire.cli.{command}")
    return int(module.run(rest) or 0)


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Faussaire trains generative adversarial networks on your own data.",
            "",
            "usage: faussaire COMMAND [options]",
            "",
            *lines,
            "",
            "`faussaire COMMAND --help` explains one command; `--version` names this version;",
            "`--debug` shows tracebacks. First steps: faussaire train dcgan FOLDER-OF-PICTURES",
        ]
    )
