"""`faussaire bench`: which games find all the modes of data whose modes are known.

Two kinds, as their data differ: `modes` makes its own points in the plane, `stacked` needs digits, a
classifier that reads them, and a device.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from faussaire.cli.console import Reading, err, out, parse, print_json
from faussaire.core.config import Count
from faussaire.core.errors import UserError

PUBLISHED = (
    "published, as touched / good / reverse KL (Lin et al. 2018, Table 1; larger networks, 400 epochs "
    "of 100,000 points):\n"
    "ring of 8: GAN 6.3 / 98 % / .45, PacGAN2 7.9 / 96 % / .07; "
    "grid of 25: GAN 17.3 / 95 % / .70, PacGAN4 24.8 / 94 % / .04"
)
PUBLISHED_STACKED = (
    "published for three digits of MNIST, as touched of 1,000 / reverse KL:\n"
    "Lin et al. 2018 (DCGAN's networks, 50 epochs of 128,000 stacks): DCGAN 78.9 / 4.50, "
    "VEEGAN 150 / 2.95, PacDCGAN 1000 / .06 to .07\n"
    "Huang et al. 2024, tables 1 and 3 (networks of 20.7 M parameters, 10 M stacks): R3GAN's loss "
    "1000 / .078, the plain loss with R1 and R2 693 / .927,\nwith R1 alone either diverges, R3GAN "
    "1000 / .029; by others: WGAN-GP 959 / .73, StyleGAN2 940 / .42"
)


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Train small GANs on mixtures in the plane and count the modes that they find.

    Attributes:
        sets: mixtures: ring8 has 8 modes on a circle, grid25 has 25 on a square.
        recipes: games: gan, wgan-gp, gan+r1, r3gan. None: all.
        examples: points seen by each.
        seeds: one run each.
        plot: a PNG file for samples of the first seed, a row for each set, a column for each recipe.
        overwrite: replace the file where it exists.
        json: print JSON.
    """

    sets: tuple[str, ...] = ("ring8", "grid25")
    recipes: tuple[str, ...] | None = None
    examples: Count = 3_000_000
    seeds: tuple[int, ...] = (0,)
    plot: Path | None = None
    overwrite: bool = False
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """Train small GANs on stacked digits and count the modes that they find.

    A stack has a random digit in each channel, so two digits make 100 modes and three make 1,000
    (Stacked MNIST). A classifier that learns from the same digits tells the modes.

    Attributes:
        source: labelled digits, such as MNIST's train-images-idx3-ubyte.gz with
            train-labels-idx1-ubyte.gz beside it.
        labels: their labels, where they do not lie beside them: `.npy` or IDX.
        digits: in a stack, 1 to 3. None: three where there is a GPU, else two.
        recipes: games: gan, wgan-gp, gan+r1, r3gan. None: all.
        examples: stacks seen by each. None: 150,000 for two digits or one; PacGAN's 6.4 million for
            three.
        samples: stacks that are judged.
        width: of the networks: channels next to the picture.
        resolution: pixels a side.
        device: `auto` takes a GPU where there is one.
        seeds: one run each.
        plot: a PNG file for samples of the first seed: two rows of real stacks, then of each recipe.
        overwrite: replace the file where it exists.
        json: print JSON.
    """

    source: Annotated[str, tyro.conf.Positional]
    labels: str | None = None
    digits: Literal[1, 2, 3] | None = None
    recipes: tuple[str, ...] | None = None
    examples: Count | None = None
    samples: Count = 26_000
    width: int = 32
    resolution: int = 28
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seeds: tuple[int, ...] = (0,)
    plot: Path | None = None
    overwrite: bool = False
    json: bool = False


KINDS = {"modes": Modes, "stacked": Stacked}
_KIND = (
    Annotated[Modes, tyro.conf.subcommand(name="modes")]
    | Annotated[Stacked, tyro.conf.subcommand(name="stacked")]
)
_PLAYS = {1: 150_000, 2: 150_000, 3: 6_400_000}
_SHOWN = 24


def run(arguments: list[str]) -> int:
    """Train, count, print."""
    options: Modes | Stacked = parse("bench", _KIND, arguments)
    from faussaire.doctor.modes import RECIPES

    recipes = options.recipes or tuple(RECIPES)
    _require("recipe", recipes, RECIPES)
    if not options.seeds:
        raise UserError("Nothing was asked for.", "Give --seeds a number.")
    if options.plot is not None and options.plot.exists() and not options.overwrite:
        raise UserError(f"'{options.plot}' exists.", "Add --overwrite, or name another file.")
    if isinstance(options, Modes):
        _modes(options, recipes)
    else:
        _stacked(options, recipes)
    if options.plot is not None and not options.json:
        out.print(f"samples are drawn in {options.plot}", markup=False)
    return 0


def _require(kind: str, asked: Iterable[str], known: Iterable[str]) -> None:
    for name in asked:
        if name not in known:
            raise UserError(f"There is no {kind} '{name}'.", f"There are: {', '.join(known)}.")


def _modes(options: Modes, recipes: tuple[str, ...]) -> None:
    """Points in the plane."""
    import numpy as np

    from faussaire.doctor.mixtures import MIXTURES, cover, picture
    from faussaire.doctor.modes import RECIPES, samples, train

    _require("set", options.sets, MIXTURES)
    if not options.sets:
        raise UserError("Nothing was asked for.", f"Give --sets some of {', '.join(MIXTURES)}.")
    results, maps, reading = [], [], Reading()
    for name, recipe, seed in product(options.sets, recipes, options.seeds):
        mixture, began = MIXTURES[name], time.perf_counter()
        told = partial(reading, f"{name} {recipe} {seed}", total=options.examples)
        state = train(RECIPES[recipe], mixture, examples=options.examples, seed=seed, told=told)
        points = samples(state, mixture)
        record = {"set": name, "recipe": recipe, "seed": seed}
        results.append(_record(record, cover(points, mixture), began))
        if seed == options.seeds[0]:
            maps.append(picture(points, mixture))
    reading.close()
    _draw(np.stack(maps), options.plot, columns=len(recipes))
    if options.json:
        print_json(results)
        return
    out.print(_table(results))
    out.print(PUBLISHED, markup=False)


def _stacked(options: Stacked, recipes: tuple[str, ...]) -> None:
    """Stacks of digits."""
    import numpy as np

    from faussaire.core.batch import mix
    from faussaire.core.device import Device
    from faussaire.doctor import stacked
    from faussaire.doctor.digits import CONFIDENT, Digits, Eye

    if options.width < 1 or not 16 <= options.resolution <= 64:
        raise UserError(
            f"--width {options.width} --resolution {options.resolution} make no networks.",
            "Give a width of at least 1 and a resolution of 16 to 64.",
        )
    device, reading = Device.choose(options.device), Reading()
    count = options.digits or (2 if device.kind == "cpu" else 3)
    examples = options.examples or _PLAYS[count]
    digits = Digits.read(options.source, options.labels, options.resolution, reading)
    eye = Eye.taught(digits, device, reading)
    what = f"{count} digits" if count > 1 else "1 digit"
    learned, asked = len(digits.taught), len(digits.held)
    told_by = (
        f"digits are told by a classifier that learned {learned:,} of them and tells {eye.accuracy:.1%} "
        f"of {asked:,} others right;\ngood is a stack of digits to each of which it gives a probability "
        f"of {CONFIDENT:g}, as it does to {eye.fooled:.1%} of spoiled digits;\nreal stacks are of the "
        f"{asked:,} digits that nobody learned"
    )
    err.print(told_by, markup=False)
    shares, results, shown = stacked.shares(digits, count), [], []

    def judge(record: dict[str, Any], pictures: Any, began: float) -> None:
        told, chances = eye.tell(pictures)
        found = stacked.cover(told, chances, shares, digits.classes)
        results.append(_record({"set": what, **record}, found, began))
        if record["seed"] == options.seeds[0]:
            shown.append(stacked.side_by_side(pictures[:_SHOWN]))

    began, first = time.perf_counter(), options.seeds[0]
    real = stacked.Stacks(digits, digits.held, count, seed=mix(first, "real"))
    judge({"recipe": "(real)", "seed": first}, real.read(0, options.samples)["images"], began)
    for recipe, seed in product(recipes, options.seeds):
        began = time.perf_counter()
        told = partial(reading, f"{recipe} {seed}", total=examples)
        settings = {**stacked.RECIPES[recipe], "width": options.width}
        state = stacked.train(
            settings, digits, count, examples=examples, seed=seed, device=device, told=told
        )
        pictures = stacked.samples(state, options.samples)
        judge({"recipe": recipe, "seed": seed, "examples": examples}, pictures, began)
    reading.close()
    _draw(np.concatenate(shown), options.plot, columns=_SHOWN // 2)
    if options.json:
        classifier = {"accuracy": eye.accuracy, "taught": learned, "asked": asked}
        classifier["fooled"] = eye.fooled
        classifier["confident"] = CONFIDENT
        facts = {"source": options.source, "key": digits.images.key, "device": device.describe()}
        facts |= {"samples": options.samples, "width": options.width}
        print_json({**facts, "classifier": classifier, "results": results})
        return
    out.print(_table(results))
    out.print(told_by, markup=False)
    out.print(
        f"{examples:,} stacks seen, {options.samples:,} samples, on {device.describe()}",
        markup=False,
    )
    out.print(PUBLISHED_STACKED, markup=False)


def _record(record: dict[str, Any], found: Any, began: float) -> dict[str, Any]:
    """What was counted of a run, also said on standard error."""
    counts = dataclasses.asdict(found)
    who = " ".join(str(record[name]) for name in ("set", "recipe"))
    err.print(f"{who} seed {record['seed']}: {counts}", markup=False)
    return {**record, **counts, "seconds": round(time.perf_counter() - began, 1)}


def _draw(pictures: Any, path: Path | None, columns: int) -> None:
    """Pictures (K, H, W, C) in a grid, where it was asked for."""
    if path is not None:
        from faussaire.report.pictures import grid, save_png

        save_png(grid(pictures, columns=columns), path)


def _table(results: list[dict[str, Any]]) -> Table:
    """A row for each set and recipe, with means over seeds."""
    table = Table(box=None, pad_edge=False)
    for title in ("set", "recipe", "seeds", "modes", "touched", "found", "good", "reverse KL"):
        table.add_column(title, justify="left" if title in ("set", "recipe") else "right")
    for key in dict.fromkeys((one["set"], one["recipe"]) for one in results):
        some = [one for one in results if (one["set"], one["recipe"]) == key]

        def mean(name: str, some: list[dict[str, Any]] = some) -> float:
            return sum(one[name] for one in some) / len(some)

        table.add_row(
            *key,
            str(len(some)),
            str(some[0]["modes"]),
            f"{mean('touched'):.1f}",
            f"{mean('found'):.1f}",
            f"{mean('quality'):.1%}",
            f"{mean('reverse_kl'):.3f}",
        )
    return table
