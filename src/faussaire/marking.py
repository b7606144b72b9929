"""Marks for what makes pictures from pictures: how near each answer is to the picture it should be.

One pass over an examination gives all metrics of pairs; a figure is the mean over pairs, beside what
pictures get that were left as they were given.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from faussaire.core.device import Device, keep_memory
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import METRICS, Figure, Provenance
from faussaire.data.parallel import Progress
from faussaire.examination import WINDOW, Answer, Examination, Way, answers, as_sets, border
from faussaire.measuring import Evaluation, Options, facts_of, find_extractor
from faussaire.metrics import bench as sets
from faussaire.metrics import paired
from faussaire.metrics.bench import FEATURE_METRICS, Bench
from faussaire.metrics.extractors import Extractor
from faussaire.metrics.perceptual import PerceptualDistance, open_perceptual
from faussaire.metrics.weights import Unavailable
from faussaire.nn.degrade import rounded
from faussaire.report.pictures import beside

MIDDLE = 256
"""Pixels a side of whole pictures that the perceptual distance looks at, unshrunk."""
PERFECT = 100.0
"""Decibels of equal pictures; whole levels that differ anywhere in a megapixel have less."""


def _decibels(values: Tensor) -> Tensor:
    return values.clamp(max=PERFECT)


def _middle(x: Tensor) -> Tensor:
    top, left = (max(0, (side - MIDDLE) // 2) for side in x.shape[2:])
    return x[:, :, top : top + MIDDLE, left : left + MIDDLE]


Meter = Callable[[Answer], Tensor]
"""One number for each of some answers, (N,)."""

METERS: dict[str, Meter] = {
    "l1": lambda seen: paired.l1(seen.made, seen.true),
    "psnr": lambda seen: _decibels(paired.psnr(seen.made, seen.true)),
    "psnr_luma": lambda seen: _decibels(paired.psnr_luma(seen.made, seen.true, seen.border)),
    "ssim_luma": lambda seen: paired.ssim_luma(seen.made, seen.true, seen.border),
    "l1_hole": lambda seen: paired.l1(seen.made, seen.true, seen.hole),
    "psnr_hole": lambda seen: _decibels(paired.psnr(seen.made, seen.true, seen.hole)),
    "colourfulness": lambda seen: paired.colourfulness(seen.made),
    "consistency": lambda seen: _decibels(paired.psnr(seen.family.consistent(seen.made), seen.x)),
    "cycle_l1": lambda seen: paired.l1(seen.back(), seen.x),
}
OF_TRUTH: dict[str, Meter] = {"colourfulness": lambda seen: paired.colourfulness(seen.true)}
"""The same of the true pictures, for metrics that should be as theirs."""
_OF_NETS = ("cycle_l1",)
"""Metrics that say something of nets alone: doing nothing comes back unchanged."""
assert {*METERS, "perceptual"} == {name for name, metric in METRICS.items() if metric.of == "pairs"}


def refusal(name: str, family: Family[Any], examination: Examination) -> str:
    """Why a metric of pairs cannot be measured, as a sentence; empty: it can."""
    kind = type(family).__name__.lower()
    way = examination.main
    if name == "cycle_l1":
        try:
            family.inverse()
        except UserError as error:
            return error.cause
        return ""
    if not examination.paired:
        return f"{name} compares pictures with the truth, and {kind} learns without pairs."
    if name.endswith("_hole") and not family.fills:
        return f"{name} is of holes, and {kind} fills none."
    if name == "consistency" and name not in family.compares(family.config):
        return f"{name} is not known of {kind} with these settings."
    if name == "colourfulness" and family.gives < 3:
        return f"{name} is of colours, and these pictures are grey."
    if name == "ssim_luma" and way.pairs.least < WINDOW + 2 * border(family):
        return f"{name} needs {WINDOW}x{WINDOW} pixels, and these pictures have fewer."
    return ""


@dataclass(frozen=True)
class Marks:
    """What one pass over an examination finds.

    Attributes:
        figures: by metric.
        far: L1 of each answer to the truth, (N,), row by row; None: nobody knows the truth.
    """

    figures: dict[str, Figure]
    far: Tensor | None


def compare_pairs(
    family: Family[Any],
    device: Device,
    way: Way,
    names: Sequence[str],
    *,
    seed: int,
    perceptual: PerceptualDistance | None,
    progress: Progress | None = None,
) -> Marks:
    """Metrics of pairs in one pass.

    Args:
        family: its nets in evaluation mode; of the way back, `family.inverse()`.
        device: where it runs.
        way: what is asked.
        names: of metrics of pairs that are not refused.
        seed: of what inputs and answers draw at random.
        perceptual: the distance, where it is among them.
        progress: called as progress(what, done, total).

    Raises:
        UserError: the family gives values that are not numbers.
    """
    exam = way.pairs
    meters = {name: METERS[name] for name in names if name != "perceptual"}
    if "perceptual" in names:
        assert perceptual is not None
        meters["perceptual"] = _seen_by(perceptual, device)
    found: dict[str, list[Tensor]] = {name: [] for name in meters}
    given: dict[str, list[Tensor]] = {name: [] for name in meters if name not in _OF_NETS}
    real: dict[str, list[Tensor]] = {name: [] for name in meters if name in OF_TRUTH}
    far: list[Tensor] = []
    done = 0
    for answer in answers(family, device, exam, seed):
        unlearnt = family.unlearnt(answer.x)
        asis = None if unlearnt is None else dataclasses.replace(answer, made=rounded(unlearnt))
        with torch.no_grad():
            for name, meter in meters.items():
                found[name].append(meter(answer).double().cpu())
            if asis is not None:
                for name, rows in given.items():
                    rows.append(meters[name](asis).double().cpu())
            for name, rows in real.items():
                rows.append(OF_TRUTH[name](answer).double().cpu())
            if answer.truth is not None:
                far.append(METERS["l1"](answer))
        done += len(answer.made)
        if progress is not None:
            progress("pairs", done, len(exam))
    figures = {
        name: _figure(name, found[name], given.get(name), real.get(name), family, way, perceptual)
        for name in names
    }
    return Marks(figures, torch.cat(far) if far else None)


def _figure(
    name: str,
    found: list[Tensor],
    given: list[Tensor] | None,
    real: list[Tensor] | None,
    family: Family[Any],
    way: Way,
    perceptual: PerceptualDistance | None,
) -> Figure:
    """The mean over pairs, and what pictures as given, and true ones, get."""
    values, exam = torch.cat(found), way.pairs
    details = [family.exam_name, way.word]
    if name.endswith("_luma") and border(family):
        details.append(f"border={border(family)}")
    sees = perceptual if name == "perceptual" else None
    if sees is not None and exam.size == "whole":
        details.append(f"middle-{MIDDLE}")
    value, count = float(values.mean()), len(values)
    level = None if real is None else float(torch.cat(real).mean())
    return Figure(
        provenance=Provenance(
            metric=name,
            extractor="" if sees is None else sees.name,
            weights="" if sees is None else sees.weights,
            count=count,
            reference=exam.name,
            reference_count=len(exam),
            reference_key=exam.key,
            whole=exam.whole,
            pictures=exam.size,
            details=",".join(filter(None, details)),
        ),
        value=value,
        error=float(values.std()) / math.sqrt(count) if count > 1 else None,
        real=level,
        real_counts="" if level is None else str(count),
        given=float(torch.cat(given).mean()) if given else None,
        parts={"share of the real": value / level} if level else {},
    )


def _seen_by(perceptual: PerceptualDistance, device: Device) -> Meter:
    def meter(seen: Answer) -> Tensor:
        made, truth = seen.made, seen.true
        if seen.size == "whole":
            # Shrunk, pictures would lose the very detail that was to be made.
            made, truth = _middle(made), _middle(truth)
        return perceptual(made.to(device.name), truth.to(device.name))

    return meter


def named_back(figure: Figure, word: str) -> Figure:
    """A figure of the way back, which says so."""
    if not word:
        return figure
    details = ",".join(filter(None, (figure.provenance.details, word)))
    return dataclasses.replace(
        figure, provenance=dataclasses.replace(figure.provenance, details=details)
    )


# ---- All figures of a model ----


@dataclass(frozen=True)
class Tools:
    """What pictures made from pictures are measured with.

    Attributes:
        names: of metrics, in order.
        extractor: of features, where one is needed.
        perceptual: the perceptual distance, where it is.
    """

    names: tuple[str, ...]
    extractor: Extractor | None
    perceptual: PerceptualDistance | None


def choose_tools(
    family: Family[Any],
    device: Device,
    examination: Examination,
    options: Options,
    names: Sequence[str],
    *,
    must: bool,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> Tools:
    """The metrics that can be measured, and what they need.

    Args:
        family: that is measured.
        device: where it runs.
        examination: what it is asked.
        options: extractor, weights, seed.
        names: of metrics that are wanted.
        must: whether one that cannot be measured is an error; else it is left out with a sentence.
        tell: called with sentences.
        progress: called as progress(what, done, total).

    Raises:
        UserError: a metric that must be cannot be measured, or none can.
    """
    left: dict[str, UserError] = {}
    hint = "Leave it out of --metrics; `faussaire evaluate --explain` says what each means."
    for name in names:
        if METRICS[name].of == "classes":
            left[name] = UserError(
                f"{name} is of models that tell classes, and this one does not.", hint
            )
        if METRICS[name].of == "pairs" and (why := refusal(name, family, examination)):
            left[name] = UserError(why, hint)
    perceptual = extractor = None
    if "perceptual" in names and "perceptual" not in left:
        try:
            perceptual = open_perceptual(options.weights, device.name)
        except Unavailable as error:
            left["perceptual"] = error
    of_sets = [name for name in names if METRICS[name].of == "sets"]
    if FEATURE_METRICS & {*of_sets}:
        extractor = find_extractor(options, device, tell, progress)
    for way in examination.ways if of_sets else ():
        answering = family.inverse() if way.word else family
        try:
            bench = Bench(*as_sets(answering, device, way, options.seed), extractor, device=device)
        except UserError as error:
            left |= dict.fromkeys(of_sets, error)
            continue
        for name in of_sets:
            try:
                bench.refuse([name])
            except UserError as error:
                left[name] = error
    if must and left:
        raise next(iter(left.values()))
    chosen = tuple(name for name in names if name not in left)
    if not chosen:
        raise next(iter(left.values()))
    for name, error in left.items():
        if name in family.compares(
            family.config
        ):  # of all the others nobody asked for them by name
            tell(f"{name} is left out: {error.cause}")
    return Tools(chosen, extractor, perceptual)


def examine(
    family: Family[Any],
    device: Device,
    examination: Examination,
    tools: Tools,
    options: Options,
    *,
    circumstances: Mapping[str, Any],
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    cache: Path | None = None,
    look: bool = False,
) -> Evaluation:
    """Every chosen figure of what makes pictures from pictures, for each way.

    Args:
        family: its nets in evaluation mode.
        device: where it runs.
        examination: what it is asked.
        tools: which figures.
        options: seed, counts.
        circumstances: facts to store with each figure.
        progress: called as progress(what, done, total).
        note: called with sentences, as they come up.
        cache: the cache folder; None: the user's.
        look: whether to show answers beside the truth, where it is known.

    Raises:
        UserError: the family gives values that are not numbers.
    """
    began = time.monotonic()
    if device.kind == "cpu":
        keep_memory()
    notes: list[str] = []
    found: list[Figure] = []
    of_pairs = [name for name in tools.names if METRICS[name].of == "pairs"]
    of_sets = [name for name in tools.names if METRICS[name].of == "sets"]
    far: Tensor | None = None
    for way in examination.ways:
        answering = family.inverse() if way.word else family
        figures: dict[str, Figure] = {}
        if of_pairs:
            marks = compare_pairs(
                answering,
                device,
                way,
                of_pairs,
                seed=options.seed,
                perceptual=tools.perceptual,
                progress=progress,
            )
            figures |= marks.figures
            far = marks.far if way is examination.main else far
        if of_sets:
            bench = Bench(
                *as_sets(answering, device, way, options.seed),
                tools.extractor,
                device=device,
                seed=options.seed,
                progress=progress,
                cache=cache,
            )
            bench.look_at_samples(of_sets)
            figures |= {name: named_back(sets.METERS[name](bench), way.word) for name in of_sets}
            notes += [remark for remark in bench.notes if remark not in notes]
        found += [figures[name] for name in tools.names]
    for one in found:
        for what, share in one.parts.items() if one.provenance.metric == "colourfulness" else ():
            notes.append(
                f"Colourfulness is {share:.0%} of {what.removeprefix('share of ')} pictures'."
            )
    for remark in notes if note is not None else ():
        note(remark)  # pyright: ignore[reportOptionalCall]
    seconds = time.monotonic() - began
    facts = facts_of(circumstances, options, seconds, device)
    return Evaluation(
        title=examination.describe(),
        against=examination.describe(),
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in found),
        notes=tuple(notes),
        answers=sheet(family, device, examination.main, options.seed, far)
        if look and examination.paired
        else None,
        seconds=seconds,
    )


# ---- To look at ----


@torch.no_grad()
def sheet(
    family: Family[Any],
    device: Device,
    way: Way,
    seed: int,
    far: Tensor | None = None,
    rows: int = 8,
) -> Image.Image:
    """From the answer nearest to the truth to the one farthest from it, evenly: input, answer, truth.

    Nearest by L1. Of whole pictures, the middle.

    Args:
        family: its nets in evaluation mode.
        device: where it runs.
        way: what is asked, with the truth known.
        seed: of what inputs and answers draw at random.
        far: L1 of each answer to the truth, where that is known already: all are asked else.
        rows: answers at most.
    """
    if far is None:
        far = torch.cat([METERS["l1"](seen) for seen in answers(family, device, way.pairs, seed)])
    places = torch.linspace(0, len(far) - 1, min(rows, len(far))).round().long()
    chosen = [[row] for row in far.argsort()[places].tolist()]
    kinds: list[list[Tensor]] = []
    for seen in answers(family, device, way.pairs, seed, chosen):
        unlearnt = family.unlearnt(seen.x)
        given = seen.x[:, :3] if unlearnt is None else unlearnt.clamp(-1.0, 1.0)
        parts = [given, seen.made, seen.true]
        kinds.append([_middle(part) for part in parts] if seen.size == "whole" else parts)
    height, width = (min(row[-1].shape[axis] for row in kinds) for axis in (2, 3))
    return beside(
        [
            torch.cat([part[:, :, :height, :width] for part in parts])
            for parts in zip(*kinds, strict=True)
        ]
    )
