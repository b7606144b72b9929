"""`faussaire train FAMILY SOURCE`: from a folder of pictures to a trained run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from faussaire import families
from faussaire.cli import launch
from faussaire.cli.console import Reading, console, memory, out, parse, print_json
from faussaire.core.config import Settings, TrainingConfig, hints, read_yaml, resolve, sections
from faussaire.core.errors import UserError
from faussaire.core.quantity import format_count, format_duration
from faussaire.core.run import Run

#: What data are called in examples, by modality.
_EXAMPLES = {
    "pictures": "photos/",
    "captions": "photos/ --captions captions.csv",
    "texts": "sentences.txt",
    "tables": "people.csv",
    "music": "midi/",
    "sound": "recordings/",
    "pretext": "photos/",
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to do with the settings.

    Attributes:
        out: the run's folder; None: a new one under runs/. An existing run is continued.
        config: a YAML file of settings, underneath the flags.
        size: how large the networks are: tiny, small, base or large, underneath a preset; None: the
            family's defaults.
        preset: a named set of settings of the family, underneath file and flags.
        processes: train with so many processes on this machine: GPUs, or shares of the CPU.
        tensorboard: also write TensorBoard files into the run (extra `tensorboard`).
        dry_run: only say what would happen: size, memory, speed of three real steps, time.
        allow_changes: continue an existing run although settings or data have changed.
        json: with --dry-run, print JSON.
    """

    out: Path | None = None
    config: Path | None = None
    size: str | None = None
    preset: str | None = None
    processes: int = 1
    tensorboard: bool = False
    dry_run: bool = False
    allow_changes: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Parse, then train."""
    words, family, source = positionals(second_source(batch_auto(arguments)))
    known = peek(words)
    layer = read_yaml(Path(known["config"])) if known.get("config") else {}
    family = family or layer.get("family")
    if family is None:
        print(_help())
        if {*arguments} <= {"-h", "--help"}:
            return 0
        raise UserError(
            "faussaire train needs a family and data, before any flag.",
            "For example: faussaire train dcgan photos/ --resolution 64",
        )
    families.describe(family)  # an unknown family is told before torch is imported
    if "--target" in words and "target" not in {name for name, _ in data_fields(family)}:
        raise UserError(
            f"{family} learns from one set of pictures, and a second one was named: "
            f"'{words[words.index('--target') + 1]}'.",
            "Leave it out; pix2pix, cyclegan and adain take two.",
        )
    source = source or layer.get("source")
    if source is None and "--help" not in words and "-h" not in words:
        modality = families.modality_of(family)
        raise UserError(
            f"faussaire train {family} needs data.",
            f"Name them right after it: faussaire train {family} {_EXAMPLES[modality]}",
        )
    # In an existing run, what the user does not say stays as the run has it.
    stored = Run(known["out"]).config_of(family) if known.get("out") else {}
    from faussaire.training import layers

    chosen = {name: known.get(name) for name in ("preset", "size")}
    below = [*layers(family, stored, **chosen), layer]
    settings, command = parse_settings(family, str(source or "SOURCE"), words, below)
    return start(settings, command, ["train", *arguments])


def start(
    settings: Settings, command: Command, words: list[str], *, new_budget: bool = False
) -> int:
    """Train with these settings; shared with `resume`."""
    from faussaire import training

    if command.processes < 1:
        raise UserError(f"--processes {command.processes} is none.", "Ask for at least one.")
    if settings.training.batch % command.processes:
        raise UserError(
            f"A batch of {settings.training.batch} cannot be shared equally by "
            f"{command.processes} processes.",
            f"Choose a batch that is a multiple of {command.processes}.",
        )
    if command.processes > 1 and not training.under_torchrun():
        if command.out is None:
            # Every process must mean the same folder.
            words = [*words, "--out", str(training.free_run(settings).path)]
        return launch.together(words, command.processes)
    if command.dry_run:
        return _rehearse(settings, command)
    if command.out is None and training.under_torchrun():
        raise UserError("Several processes need to agree on a folder.", "Add --out RUN.")
    run_folder = Run(command.out) if command.out is not None else training.free_run(settings)
    reading = Reading()

    def observers(final: Settings) -> list[Any]:
        reading.close()
        watching: list[Any] = [console()]
        if command.tensorboard:
            from faussaire.report.tensorboard import TensorBoard

            watching.append(TensorBoard(run_folder.path))
        return watching

    try:
        training.run_settings(
            settings,
            run_folder,
            allow_changes=command.allow_changes,
            new_budget=new_budget,
            observers=observers,
            progress=reading,
            command=["faussaire", *words],
        )
    finally:
        reading.close()
    if not training.under_torchrun() or training.leads():
        _farewell(run_folder)
    return 0


def batch_auto(arguments: list[str]) -> list[str]:
    """`--batch auto` keeps the batch and asks how much of it fits at once."""
    words = [word.replace("--batch=auto", "--micro=auto") for word in arguments]
    for index, pair in enumerate(pairwise(words)):
        if pair == ("--batch", "auto"):
            words[index] = "--micro"
    return words


def data_fields(family: str) -> list[tuple[str, Any]]:
    """Names and types of the family's settings of data."""
    return hints(sections(families.load_family(family).Config)["data"])


def second_source(arguments: list[str]) -> list[str]:
    """A third word before any flag is what `--target` names."""
    flags = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    if flags < 3:
        return arguments
    return [*arguments[:2], "--target", arguments[2], *arguments[3:]]


def positionals(arguments: list[str]) -> tuple[list[str], str | None, str | None]:
    """The leading words that are no flags: family and source; and what is left."""
    words = list(arguments)
    found: list[str] = []
    while words and not words[0].startswith("-") and len(found) < 2:
        found.append(words.pop(0))
    return words, found[0] if found else None, found[1] if len(found) > 1 else None


def peek(words: list[str]) -> dict[str, str]:
    """What lies underneath the flags, and so must be known before they are read."""
    found = {}
    for index, word in enumerate(words):
        for name in ("config", "preset", "size", "out"):
            if word == f"--{name}" and index + 1 < len(words):
                found[name] = words[index + 1]
            elif word.startswith(f"--{name}="):
                found[name] = word.partition("=")[2]
    return found


def parse_settings(
    family: str,
    source: str,
    words: list[str],
    layers: Sequence[Mapping[str, Any]],
    *,
    name: str = "train",
    kind: type = Command,
    training: type[TrainingConfig] = TrainingConfig,
) -> tuple[Settings, Any]:
    """Settings from layers of flat values, each over the one before, and flags over all.

    Args:
        family, source: as typed.
        words: the flags.
        layers: flat settings.
        name: the command's.
        kind: what else it takes, a dataclass.
        training: the settings of training with the command's own words for what they mean.

    Returns:
        The settings, and an instance of `kind`.
    """
    model = families.load_family(family).Config
    below = resolve(family, source, model, *layers)
    below = dataclasses.replace(below, training=training(**vars(below.training)))
    kinds: dict[str, type] = {**sections(model), "training": training, "command": kind}
    group = dataclasses.make_dataclass(
        "Options",
        [
            (
                part,
                tyro.conf.OmitArgPrefixes[cls],
                dataclasses.field(default=getattr(below, part, kind())),
            )
            for part, cls in kinds.items()
        ],
        frozen=True,
    )
    group.__doc__ = f"{families.describe(family).summary}."
    # A budget on the command line replaces the other kind of budget underneath it.
    given = {word.partition("=")[0] for word in words}
    default = group()
    if given & {"--for", "--examples"}:
        cleared = dataclasses.replace(below.training, examples=None, duration=None)
        default = dataclasses.replace(default, training=cleared)
    options = parse(
        f"{name} {family} SOURCE", tyro.conf.OmitArgPrefixes[group], words, default=default
    )
    settings = Settings(
        family=family,
        source=source,
        data=options.data,
        training=TrainingConfig(**vars(options.training)),
        model=options.model,
    )
    return settings, options.command


def _rehearse(settings: Settings, command: Command) -> int:
    """--dry-run: three real steps, and what they mean for the whole."""
    import torch

    from faussaire import workshop

    reading = Reading()
    with workshop.enough_memory(settings):
        shop = workshop.Workshop.open(settings, progress=reading)
        reading.close()
        shop.settle_micro()
        settings = shop.settings
        found = shop.measure()
    if not shop.world.leads:
        return 0
    if settings.training.duration is not None:
        seconds = settings.training.duration
        examples = found.forecast.examples(seconds)
    else:
        examples = settings.training.examples or workshop.DEFAULT_EXAMPLES
        seconds = found.forecast.time(examples)
    facts = {
        "family": settings.family,
        **shop.material.facts(),
        "device": shop.device.describe(),
        "parameters": dict(found.parameters),
        "peak_memory_bytes": found.memory,
        "batch": settings.training.batch,
        "micro": settings.training.micro,
        "examples_per_second": round(examples / seconds, 1),
        "examples": examples,
        "seconds": round(seconds, 1),
        "settings": settings.flat(),
    }
    if command.json:
        print_json(facts)
        return 0
    sizes = ", ".join(f"{name} {format_count(count)}" for name, count in found.parameters.items())
    out.print(f"family      {settings.family}")
    out.print(f"data        {shop.material.told()}", markup=False)
    for warning in shop.material.warnings:
        out.print(f"            note: {warning}", markup=False)
    with torch.device("meta"):
        family = shop.kind(settings.model, shop.spec)
    for caution in family.cautions(len(shop.material), settings.training.batch):
        out.print(f"            note: {caution}", markup=False)
    out.print(f"device      {facts['device']}")
    out.print(f"parameters  {sizes}")
    out.print(f"memory      {memory(found.memory)} at the peak of three steps")
    if settings.training.micro:
        out.print(
            f"batch       {settings.training.batch}, {settings.training.micro} of them at once"
        )
    out.print(f"speed       {examples / seconds:,.0f} examples a second")
    out.print(
        f"time        about {format_duration(seconds)} for {examples:,} examples "
        f"({format_count(examples / len(shop.material))} times the data)"
    )
    out.print("Nothing was written but the data cache. Leave out --dry-run to train.")
    return 0


def _farewell(run_folder: Run) -> None:
    """Where everything is, and what to do with it."""
    path = run_folder.path
    word = shlex.quote(str(path))
    from faussaire.core.checkpoint import Checkpoints  # imports torch, as training has done

    best = int(Checkpoints(run_folder.checkpoints).marks().get("best", -1))
    better = 0 <= best < max(run_folder.saved(), default=0)
    family = str(run_folder.config()["family"])
    uses = {
        "pictures": [
            f"  more samples   faussaire sample {word} --count 64 --grid grid.png",
            f"  a film         faussaire film {word} film.gif",
        ],
        "captions": [f"  more samples   faussaire sample {word} --text '...' --grid grid.png"],
        "texts": [f"  more samples   faussaire sample {word} --count 64"],
        "tables": [f"  more rows      faussaire sample {word} --count 1000 --out synthetic.csv"],
    }.get(
        families.modality_of(family),
        [f"  more samples   faussaire sample {word} --count 16 --out made/"],
    )
    python = f"  from Python    faussaire.load({str(path)!r}).sample(16, seed=0)"
    kind = families.load_family(family)
    if kind.classifies:
        uses = [
            f"  tell classes   faussaire classify {word} pictures/ --out predictions.csv",
            uses[0],
        ]
        python = f"  from Python    faussaire.load({str(path)!r}).classify('picture.png').told"
    if kind.rebuilds:
        uses.append(f"  rebuild yours  faussaire apply {word} pictures/ --out made/")
    if kind.applies:
        uses = [f"  use it         faussaire apply {word} pictures/ --out made/"]
        python = f"  from Python    faussaire.load({str(path)!r}).apply('picture.png')"
    if families.modality_of(family) == "pretext":
        uses = [f"  what it sees   faussaire features {word} pictures/ --out features.npz"]
        python = f"  from Python    faussaire.load({str(path)!r}).features(['picture.png'])"
    for line in (
        f"\nDone. Look at {path / 'report.html'}",
        *([f"  better before  --checkpoint best (at {best:,} examples)"] if better else []),
        *uses,
        f"  train longer   faussaire resume {word} --examples N",
        python,
    ):
        out.print(line, markup=False)


def _help() -> str:
    lines = [f"  {name:<10} {families.describe(name).summary}" for name in families.names()]
    return "\n".join(
        [
            "usage: faussaire train FAMILY SOURCE [--out RUN] [options]",
            "",
            "SOURCE is a folder of pictures, a zip or tar, .npy/.npz, IDX (MNIST's format), a CSV or",
            "parquet table, hf:owner/name, or `digits` (built in). Families:",
            "",
            *lines,
            "",
            "`faussaire train FAMILY --help` lists every option, with its default.",
        ]
    )
