"""`faussaire tune FAMILY SOURCE`: search for the settings that suit your data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faussaire import families
from faussaire.cli.console import err, out, print_json, print_table, warn
from faussaire.cli.train import batch_auto, parse_settings, peek, positionals
from faussaire.core.config import Duration, Settings, TrainingConfig, read_yaml
from faussaire.core.errors import UserError
from faussaire.core.quantity import format_duration

if TYPE_CHECKING:
    from faussaire.tuning import Found, Plan

_BUDGETS = ("--for", "--for-each", "--examples")


@dataclass(frozen=True, kw_only=True)
class Command:
    """The search. Give one of --for, --for-each and --examples.

    Attributes:
        out: the search's folder; None: tunings/FAMILY-SOURCE. An existing search is continued.
        trials: how many, those of other processes counted; a larger number continues a search.
        for_each: training time of each trial, in place of --for.
        search: what is searched, in place of the family's usual space: lr=1e-5..1e-2 is a range (by
            factors, where its ends are more than 10 times apart), batch=16,32,64 a list of choices,
            discriminator_lr/lr=0.5..4 a ratio.
        storage: of the study, as Optuna takes it, such as postgresql://user@host/database, for several
            machines; None: study.db in the folder. Processes with the same storage and name of folder
            share the work.
        config: a YAML file of settings where the search begins, underneath the flags.
        size: how large the networks are: tiny, small, base or large; None: the family's defaults.
        preset: a named set of settings of the family where the search begins.
        allow_changes: go on although settings or ranges have changed.
        json: print JSON.
    """

    out: Path | None = None
    trials: int = 20
    for_each: Duration | None = None
    search: tuple[str, ...] = ()
    storage: str | None = None
    config: Path | None = None
    size: str | None = None
    preset: str | None = None
    allow_changes: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Trials(TrainingConfig):
    """How each trial trains and is measured; a setting given here is the same in all.

    Attributes:
        examples: what each trial sees at most.
        duration: training time of the WHOLE search (the flag is --for), each trial's share of which is
            1/TRIALS at most; measuring and starting come on top. Trials that are pruned leave theirs.
        seed: of the training of every trial, and of the search.
        evaluate_every: examples between measurements of a trial; 0: about five times.
        evaluate_metrics: what is measured; the first is what is searched for.
        keep: how many of the latest checkpoints of each trial are kept; the best stays besides.
    """

    keep: int = 1


def run(arguments: list[str]) -> int:
    """Search, then show what was found."""
    words, family, source = positionals(batch_auto(arguments))
    known = peek(words)
    layer = read_yaml(Path(known["config"])) if known.get("config") else {}
    family, source = family or layer.get("family"), source or layer.get("source")
    helping = {"-h", "--help"} & {*words}
    if family is None:
        print(_help())
        if helping or not arguments:
            return 0
        raise UserError(
            "faussaire tune needs a family and data, before any flag.",
            "For example: faussaire tune dcgan photos/ --trials 20 --for 2h",
        )
    families.describe(family)  # an unknown family is told before torch is imported
    if source is None and not helping:
        raise UserError(
            f"faussaire tune {family} needs data.",
            f"Name a folder of pictures right after it: faussaire tune {family} photos/",
        )
    from faussaire.training import layers

    start = {key: value for key, value in layer.items() if key not in ("examples", "for", "keep")}
    below = [*layers(family, {}, preset=known.get("preset"), size=known.get("size")), start]
    settings, command = parse_settings(
        family,
        _lasting(str(source or "SOURCE")),
        words,
        [{"keep": Trials.keep}, *below],
        name="tune",
        kind=Command,
        training=Trials,
    )
    return search(
        settings, command, {word.partition("=")[0] for word in words if word.startswith("--")}
    )


def search(settings: Settings, command: Command, flags: set[str]) -> int:
    """Search with these settings; `flags` are those that the user gave."""
    from faussaire.tuning import Plan, require_optuna, tune
    from faussaire.tuning.space import parse_space, usual_space
    from faussaire.tuning.training import rehearse, train_command

    require_optuna()
    settings = with_budget(settings, command, flags)
    folder = command.out or _folder(settings)
    given = {_key(flag) for flag in flags}
    stored = read_yaml(folder / "tune.yaml") if (folder / "tune.yaml").exists() else {}
    space = parse_space(command.search, settings) if command.search else None
    if space is not None:
        for dimension in space.dimensions:
            if dimension.setting in given:
                raise UserError(
                    f"{dimension.setting} is both given and searched.",
                    f"Leave out --{dimension.setting.replace('_', '-')}, or its part of --search.",
                )
    if settings.training.evaluate_metrics == "auto":
        # Named now: trials are ranked by it, and must not choose one each.
        judge = families.load_family(settings.family).judged_by(settings.model)[0]
        measured = dataclasses.replace(settings.training, evaluate_metrics=judge)
        settings = dataclasses.replace(settings, training=measured)
    pictures, speed = stored.get("pictures"), stored.get("per_second")
    if not pictures or not speed or command.allow_changes:
        if not command.json:
            out.print("three steps of training, to see what a trial costs ...", markup=False)
        found = rehearse(settings.flat(), train_command(settings.family, settings.source))
        pictures, speed = found.pictures, found.per_second
    plan = Plan(
        settings=settings,
        space=space or usual_space(settings, given, int(pictures)),
        out=folder,
        trials=command.trials,
        storage=command.storage,
        allow_changes=command.allow_changes,
        pictures=int(pictures),
        per_second=float(speed),
    )
    talk = err if command.json else out
    _announce(plan, talk)
    result = tune(plan, told=lambda sentence: talk.print(sentence, markup=False))
    if command.json:
        print_json(result.record())
    else:
        show(result)
    return 0 if result.best is not None else 1


def with_budget(settings: Settings, command: Command, flags: set[str]) -> Settings:
    """The settings with each trial's own budget.

    Raises:
        UserError: not exactly one budget was given, or none is to be spent.
    """
    if command.trials < 1:
        raise UserError(f"--trials {command.trials} are none.", "Ask for some, such as 20.")
    asked = [flag for flag in _BUDGETS if flag in flags]
    if len(asked) != 1:
        said = f"{' and '.join(asked)} were given" if asked else "No budget was given"
        raise UserError(
            f"{said}, and a search needs exactly one.",
            "Give --for 2h (training time of the whole search, shared by its trials), "
            "--for-each 5m or --examples 200k (of each trial).",
        )
    training = settings.training
    if training.duration is not None:
        each = round(training.duration / command.trials, 1)
        training = dataclasses.replace(training, duration=max(0.1, each))
    elif command.for_each is not None:
        training = dataclasses.replace(training, duration=command.for_each)
    return dataclasses.replace(settings, training=training)


def _key(flag: str) -> str:
    """The setting that a flag decides: `--no-flip` and `--flip` are one."""
    return flag.removeprefix("--").removeprefix("no-").replace("-", "_")


def _lasting(source: str) -> str:
    """A path that means the same from every folder; names such as `digits` stay."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def _folder(settings: Settings) -> Path:
    """`tunings/<family>-<name of the source>`."""
    from faussaire.training import default_out

    return Path("tunings") / default_out(settings.family, settings.source).name


def _announce(plan: Plan, talk: Console) -> None:
    """What is about to happen."""
    training = plan.settings.training
    each = f"{training.examples:,} examples" if training.examples else ""
    if training.duration is not None:
        whole = format_duration(training.duration * plan.trials)
        each = (
            f"{format_duration(training.duration)} of training ({whole} in all, without measuring)"
        )
    talk.print(f"{plan.trials} trials of {plan.settings.family}, each at most {each}", markup=False)
    for name, text in plan.space.text().items():
        talk.print(f"  {name:<22} {text}", markup=False)


def show(found: Found) -> None:
    """Print the trials by rank, the result, and what to type next."""
    from faussaire.report.tuning import table, verdict
    from faussaire.tuning.search import best_command

    out.print()
    columns = [one.name for one in found.plan.space.dimensions]
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("rank", "trial", found.plan.metric.name, *columns, "examples", "end"):
        grid.add_column(Text(title), no_wrap=title != "end")
    for line in table(found):
        cells = (line.rank, line.name, line.value, *line.values, line.seen, line.end)
        grid.add_row(*map(Text, cells), style="bold" if line.best else "")
    print_table(grid)
    for note in found.notes:
        warn(note)
    if found.figure:
        out.print(f"\n{found.figure}. {verdict(found)}", markup=False)
    out.print(f"page in {found.plan.out / 'tuning.html'}", markup=False)
    if found.best is None:
        warn(f"No trial came to its end. What they said stands in '{found.plan.out / 'trials'}'.")
        return
    out.print(f"\n{best_command(found)}", markup=False)


def _help() -> str:
    return "\n".join(
        [
            "usage: faussaire tune FAMILY SOURCE --trials 20 --for 2h [--out FOLDER] [options]",
            "",
            "Searches for settings: each trial is a short training with other ones, measured as it",
            "goes and ended early where it is behind or sick. --for is the training time of the whole",
            "search; --for-each or --examples is each trial's. Flags of `faussaire train` stay as",
            "given in all trials. The same command again continues a search. Families are those of",
            "`faussaire families`; `faussaire tune FAMILY --help` lists every option.",
        ]
    )
