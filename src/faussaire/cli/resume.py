"""`faussaire resume RUN`: continue a run with its own settings."""

from __future__ import annotations

from pathlib import Path

from faussaire.cli.train import Command, parse_settings, start
from faussaire.core.errors import UserError
from faussaire.core.run import Run


def run(arguments: list[str]) -> int:
    """Continue; every flag of `train` may follow, and a longer --examples or --for is no surprise."""
    if not arguments or arguments[0].startswith("-"):
        print(
            "usage: faussaire resume RUN [SOURCE] [--examples N | --for TIME] [--allow-changes ...]\n\n"
            "Continues a run with its own settings. A longer budget extends it; other changed\n"
            "settings, by any flag of `faussaire train`, need --allow-changes. SOURCE says where the\n"
            "data are now, if they have moved."
        )
        if not arguments or arguments[0] in ("-h", "--help"):
            return 0
        raise UserError("faussaire resume needs a run.", "Name its folder: faussaire resume RUN")
    path, words = Path(arguments[0]), arguments[1:]
    stored = Run.find(path).config()
    family, source = str(stored.get("family")), str(stored.get("source"))
    if words and not words[0].startswith("-"):
        source = words.pop(0)
    for flag in ("--out", "--config", "--preset", "--size"):
        if any(word.partition("=")[0] == flag for word in words):
            raise UserError(
                f"faussaire resume takes no {flag}: a run has a folder and settings of its own.",
                "Give single settings as flags, or use `faussaire train` for a new run.",
            )
    settings, command = parse_settings(family, source, words, [stored])
    command = Command(**{**vars(command), "out": path})
    return start(settings, command, ["resume", *arguments], new_budget=True)
