"""`faussaire advise SOURCE`: which family to train, how large, and how long it takes."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from faussaire.advice import OTHERS, Advice, Facts, advise
from faussaire.cli.console import Reading, memory, out, parse, print_json
from faussaire.core.config import Duration, Resolution
from faussaire.core.quantity import format_count, format_duration
from faussaire.data.check import Check, check
from faussaire.data.sources import open_source
from faussaire.kinds import for_pictures, kind_of


@dataclass(frozen=True, kw_only=True)
class Options:
    """Look at data and machine, play a few rounds, and say what to type.

    For pictures, tables, texts, MIDI files and recordings.

    Attributes:
        source: a folder, archive, array, table, hf:owner/name or `digits`.
        duration: the time you have (the flag is --for); None: an hour on a CPU, a night on a GPU.
        resolution: pixels that you want; None: what the pictures and the machine suggest.
        classes: `auto`, `folders`, `none` or a column's name.
        labels: a CSV file with the columns file and label.
        device: where you mean to train.
        json: print JSON.
    """

    source: Annotated[str, tyro.conf.Positional]
    duration: Annotated[Duration | None, tyro.conf.arg(name="for")] = None
    resolution: Resolution | None = None
    classes: str = "auto"
    labels: Path | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    json: bool = False

    def of_pictures(self) -> list[str]:
        """Flags given that only pictures understand."""
        usual = Options(source=self.source)
        names = ("resolution", "classes", "labels")
        return [f"--{name}" for name in names if getattr(self, name) != getattr(usual, name)]


def run(arguments: list[str]) -> int:
    """Advise; exit code 1 where nothing can be trained on."""
    options = parse("advise", Options, arguments)
    kind = kind_of(options.source)
    if kind != "pictures":
        return _others(options, kind)
    reading = Reading()
    with open_source(options.source, classes=options.classes, labels=options.labels) as source:
        report = check(source, options.resolution, progress=reading)
    reading.close()
    if not report.ok:
        for line in report.lines():
            out.print(line, markup=False)
        return 1
    facts = gather(options, report)
    advice = advise(facts)
    command = _command(options, advice, facts.seconds)
    speed = _rehearse(options, advice)
    if options.json:
        print_json(
            {
                "facts": dataclasses.asdict(facts),
                "advice": dataclasses.asdict(advice),
                "examples_per_second": round(speed["per_second"], 1),
                "examples": speed["examples"](facts.seconds),
                "command": command,
            }
        )
        return 0
    classes = f", {len(report.classes)} classes" if report.classes else ""
    out.print(f"data     {report.usable:,} pictures, usually {facts.side} pixels{classes}")
    out.print(f"machine  {speed['device']}, {memory(facts.memory)} free")
    size = f", {advice.size}" if advice.size else ""
    out.print(f"advice   {advice.family}{size}, {speed['resolution']}", style="bold")
    for reason in advice.reasons:
        out.print(f"         {reason}", markup=False)
    examples = speed["examples"](facts.seconds)
    out.print(
        f"time     {speed['per_second']:,.0f} pictures a second here: {format_count(examples)} in "
        f"{format_duration(facts.seconds)}, {format_count(examples / report.usable)} times the data"
    )
    for other, when in advice.others:
        out.print(f"or       {other}: {when}", markup=False)
    out.print(f"\n{command}", markup=False)
    return 0


def _others(options: Options, kind: str) -> int:
    """Advice on data that are not pictures: fewer families, and no sizes to choose."""
    from faussaire.core.config import resolve
    from faussaire.families import load_family
    from faussaire.training import layers
    from faussaire.workshop import DEFAULT_EXAMPLES, Workshop, available_memory

    for_pictures(options.source, kind, options.of_pictures())
    advice = OTHERS[kind]
    config = load_family(advice.family).Config
    below = layers(advice.family, {})
    settings = resolve(advice.family, options.source, config, *below, {"device": options.device})
    reading = Reading()
    shop = Workshop.open(settings, progress=reading)
    reading.close()
    forecast = shop.measure().forecast
    words = ["faussaire", "train", advice.family, options.source]
    words += ["--device", options.device] if options.device != "auto" else []
    if options.duration is None:
        examples = settings.training.examples or DEFAULT_EXAMPLES
        seconds = forecast.time(examples)
    else:
        examples, seconds = forecast.examples(options.duration), options.duration
        words += ["--for", format_duration(seconds).replace(" ", "")]
    command = shlex.join(words)
    if options.json:
        print_json(
            {
                "kind": kind,
                "facts": shop.material.facts(),
                "advice": {"family": advice.family, "reasons": advice.reasons},
                "others": dict(advice.others),
                "examples_per_second": round(examples / seconds, 1),
                "examples": examples,
                "seconds": round(seconds, 1),
                "command": command,
            }
        )
        return 0
    out.print(f"data     {shop.material.told()}", markup=False)
    for warning in shop.material.warnings:
        out.print(f"         note: {warning}", markup=False)
    out.print(f"machine  {shop.device.describe()}, {memory(available_memory())} free")
    out.print(f"advice   {advice.family}", style="bold")
    for reason in advice.reasons:
        out.print(f"         {reason}", markup=False)
    out.print(
        f"time     {examples / seconds:,.0f} examples a second here: {format_count(examples)} in "
        f"{format_duration(seconds)}, {format_count(examples / len(shop.material))} times the data"
    )
    for other, when in advice.others:
        out.print(f"or       {other}: {when}", markup=False)
    out.print(f"\n{command}", markup=False)
    return 0


def gather(options: Options, report: Check) -> Facts:
    """The facts that the advice depends on."""
    import torch

    from faussaire.core.device import Device
    from faussaire.workshop import available_memory

    device = Device.choose(options.device)
    free = available_memory()
    if device.kind == "cuda":
        free = torch.cuda.mem_get_info()[0]
    sides = [report.sizes[f"{side}_median"] for side in ("height", "width")]
    usual = 3600.0 if device.kind == "cpu" else 8 * 3600.0
    return Facts(
        count=report.usable,
        side=round(min(sides)),
        resolution=options.resolution or report.resolution,
        classes=dict(report.classes),
        device=device.kind,
        memory=free,
        seconds=options.duration or usual,
        fixed_resolution=options.resolution is not None,
    )


def _command(options: Options, advice: Advice, seconds: float) -> str:
    """What to type."""
    words = ["faussaire", "train", advice.family, options.source, *advice.flags()]
    if options.classes != "auto":
        words += ["--classes", options.classes]
    if options.labels is not None:
        words += ["--labels", str(options.labels)]
    words += ["--device", options.device] if options.device != "auto" else []
    return shlex.join([*words, "--for", format_duration(seconds).replace(" ", "")])


def _rehearse(options: Options, advice: Advice) -> dict[str, Any]:
    """A few real rounds of what is advised: the speed that it will have."""
    from faussaire.core.config import resolve
    from faussaire.families import load_family
    from faussaire.training import layers
    from faussaire.workshop import Workshop

    layer = {
        **advice.settings(),
        "classes": options.classes,
        "labels": options.labels,
        "device": options.device,
    }
    below = layers(advice.family, {}, size=advice.size)
    config = load_family(advice.family).Config
    settings = resolve(advice.family, options.source, config, *below, layer)
    reading = Reading()
    shop = Workshop.open(settings, progress=reading)
    reading.close()
    found = shop.measure()
    return {
        "per_second": found.forecast.examples(3600.0) / 3600.0,
        "examples": found.forecast.examples,
        "device": shop.device.describe(),
        "resolution": shop.material.facts()["resolution"],
    }
