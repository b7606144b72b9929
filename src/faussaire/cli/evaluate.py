"""`faussaire evaluate RUN`: figures with their provenance."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from faussaire.cli.console import Reading, out, parse, print_json, warn
from faussaire.core.config import Count, Resolution
from faussaire.core.errors import UserError
from faussaire.core.figures import METRICS, Figure, choose_metrics
from faussaire.core.quantity import format_duration
from faussaire.report.figures import given

if TYPE_CHECKING:
    from faussaire.measuring import Evaluation


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a run, or one set of pictures (--fake) against another (--real).

    Attributes:
        run: a run's folder, or one of its checkpoints.
        against: compare with these pictures, prepared like the training pictures, in place of them; of a
            run that makes pictures from pictures, measure it on these.
        target: what the pictures of --against should become (pix2pix), or the second set (cyclegan).
        fake: pictures to judge, in place of a run.
        real: pictures that they should be like.
        metrics: such as fid,kid,prdc, or psnr,perceptual of pairs; `all` of them; none: the usual ones.
            `faussaire evaluate --explain` says what each means.
        count: samples; none: 50,000 on a GPU, 10,000 on a CPU. Pairs at most; none: all held out.
        reference_count: pictures to compare with, at random; none: all on a GPU, 10,000 on a CPU.
        extractor: inception-2015 (the field's), squeezenet1.1, squeezenet1.0, dinov2-small, -base or
            -large, clip-vit-base-patch32, clip-vit-large-patch14-336, pixels; `auto` is the first of
            inception-2015, squeezenet1.1 and pixels that can be had.
        weights: a file or folder with weights of extractors (also: FAUSSAIRE_WEIGHTS).
        resize: how pictures reach the extractor's size: `clean` (antialiased), `legacy` (the code of
            2017) or `pytorch` (pytorch-fid's).
        checkpoint: `latest`, `best`, or a number of examples seen.
        seed: of the samples.
        device: `auto` takes a GPU where there is one.
        resolution: with --fake: bring both to this size first.
        channels: with --fake: grey, rgb or rgba.
        classes: with --fake or --against: where class names come from: folders, none, auto or a
            column; none given: as in training.
        out: a folder for metrics.jsonl and the pictures to look at, in place of the run's.
        explain: say what each metric means, and do nothing.
        json: print JSON.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    against: str | None = None
    target: str | None = None
    fake: str | None = None
    real: str | None = None
    metrics: str | None = None
    count: Count | None = None
    reference_count: Count | None = None
    extractor: str = "auto"
    weights: Path | None = None
    resize: Literal["clean", "legacy", "pytorch"] = "clean"
    checkpoint: str = "latest"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    resolution: Resolution | None = None
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    classes: str | None = None
    out: Path | None = None
    explain: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Measure, print, and add to the run's `metrics.jsonl`."""
    options = parse("evaluate", Options, arguments)
    if options.explain:
        _explain()
        return 0
    _check(options)
    from faussaire import evaluate

    reading = Reading()
    try:
        found = evaluate(
            options.run,
            fake=options.fake,
            real=options.real,
            against=options.against,
            target=options.target,
            metrics=options.metrics,
            count=options.count,
            reference_count=options.reference_count,
            extractor=options.extractor,
            weights=options.weights,
            resize=options.resize,
            checkpoint=options.checkpoint,
            seed=options.seed,
            device=options.device,
            resolution=options.resolution,
            channels=options.channels,
            classes=options.classes,
            out=options.out,
            progress=reading,
        )
    finally:
        reading.close()
    if options.json:
        print_json(found.record())
    else:
        show(found, options.out)
    return 0


def _check(options: Options) -> None:
    """Contradictions are told before torch is imported."""
    if options.metrics is not None:
        choose_metrics(options.metrics)
    sources = [options.fake, options.real]
    if options.run is None and None in sources:
        missing = "--real" if options.fake else "--fake" if options.real else "a run"
        raise UserError(
            f"faussaire evaluate needs {missing}.",
            "Give a run: faussaire evaluate runs/NAME; or two sets of pictures: "
            "faussaire evaluate --fake FOLDER --real FOLDER.",
        )
    if options.run is not None and sources != [None, None]:
        raise UserError(
            "A run and --fake or --real were given, and only one of the two can be measured.",
            "Use --against SOURCE to compare a run with other pictures.",
        )
    if (options.against or options.target) is not None and options.run is None:
        raise UserError("--against belongs to a run.", "Use --real with --fake.")


def show(found: Evaluation, folder: Path | None = None) -> None:
    """Print the figures as a table, with what a perfect generator would get."""
    out.print(found.title, markup=False)
    out.print(f"against {found.against}; {format_duration(found.seconds)}", markup=False)
    if any(figure.real is not None for figure in found.figures):
        if any(figure.metric.of == "pairs" for figure in found.figures):
            out.print(
                "real: of the true pictures, or between parts of them, as many as in brackets"
            )
        else:
            out.print(
                "real: the same of real ones, or between parts of them, of the counts in brackets"
            )
    if what := given(found.figures):
        out.print(f"as given: {what}: no skill")
    out.print()
    header, *rows = lines(found.figures)
    out.print(f"[dim]{header}[/]")
    for row in rows:
        out.print(row, markup=False)
    for note in found.notes:
        warn(note)
    where = folder or found.run
    if where is not None:
        out.print(f"\nadded to {where / 'metrics.jsonl'}", markup=False)
        if found.neighbours is not None:
            path = where / "evaluation" / "neighbours.png"
            out.print(f"look at {path}: samples, each with its nearest real pictures", markup=False)
        if found.answers is not None:
            path = where / "evaluation" / "answers.png"
            out.print(f"look at {path}: input, answer, truth; best to worst", markup=False)
        for sheet in found.sheets:
            path = where / "evaluation" / sheet.name
            out.print(f"look at {path}: {sheet.caption}", markup=False)
    if found.run is not None:
        word = shlex.quote(str(found.run))
        out.print(f"compare with another run: faussaire compare {word} RUN", markup=False)


def lines(figures: Sequence[Figure]) -> list[str]:
    """Name, value, the same for real pictures, and which way is better, in aligned columns.

    Plain lines, not a table of rich's, which would cut names and digits where they do not fit.
    """
    rows = [("figure", "value", "", "as given", "real", "better")]
    for figure in figures:
        error = "" if figure.error is None else f"± {number(figure.error)}"
        real = "" if figure.real is None else f"{number(figure.real)} ({figure.real_counts})"
        given = "" if figure.given is None else number(figure.given)
        way = {"lower": "lower", "higher": "higher", "real": "as real"}[figure.metric.better]
        rows.append((figure.name, number(figure.value), error, given, real, way))
    marks = ["<", ">", "<", ">", ">", "<"]
    if not any(figure.given is not None for figure in figures):
        rows = [(*row[:3], *row[4:]) for row in rows]
        del marks[3]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{mark}{width}}" for cell, mark, width in zip(row, marks, widths, strict=True)
        )
        for row in rows
    ]


def number(value: float) -> str:
    """Four significant digits, as people read them."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _explain() -> None:
    for metric in METRICS.values():
        way = {"lower": "lower is better", "higher": "higher is better", "real": "as real ones"}
        out.print(f"[bold]{metric.name}[/]  {metric.title} ({way[metric.better]}; {metric.source})")
        out.print(f"    {metric.reading}", markup=False)
