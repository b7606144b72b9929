"""`faussaire bench modes`: which games find all the modes of a mixture whose modes are known."""

from __future__ import annotations

import time
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train small GANs on mixtures in the plane and count the modes that they find.

    Attributes:
        what: `modes`.
        sets: mixtures: ring8 has 8 modes on a circle, grid25 has 25 on a square.
        recipes: games: gan, wgan-gp, gan+r1, r3gan. None: all.
        examples: points seen by each.
        seeds: one run each.
        plot: a PNG file for samples of the first seed, a row for each set, a column for each recipe.
        overwrite: replace the file where it exists.
        json: print JSON.
    """

    what: Annotated[Literal["modes"], tyro.conf.Positional]
    sets: tuple[str, ...] = ("ring8", "grid25")
    recipes: tuple[str, ...] | None = None
    examples: Count = 5_000_000
    seeds: tuple[int, ...] = (0,)
    plot: Path | None = None
    overwrite: bool = False
    json: bool = False


def run(arguments: list[str]) -> int:
    """Train, count, print."""
    options = parse("bench", Options, arguments)
    from faussaire.doctor.mixtures import MIXTURES
    from faussaire.doctor.modes import RECIPES

    recipes = options.recipes or tuple(RECIPES)
    for kind, asked, known in (("set", options.sets, MIXTURES), ("recipe", recipes, RECIPES)):
        for name in asked:
            if name not in known:
                raise UserError(f"There is no {kind} '{name}'.", f"There are: {', '.join(known)}.")
    if not (options.sets and recipes and options.seeds):
        raise UserError("Nothing was asked for.", "Give --sets, --recipes and --seeds a word each.")
    if options.plot is not None and options.plot.exists() and not options.overwrite:
        raise UserError(f"'{options.plot}' exists.", "Add --overwrite, or name another file.")
    results, maps = _play(options, recipes)
    if options.plot is not None:
        from faussaire.report.pictures import grid, save_png

        save_png(grid(maps, columns=len(recipes)), options.plot)
    if options.json:
        print_json(results)
        return 0
    out.print(_table(results))
    out.print(PUBLISHED, markup=False)
    if options.plot is not None:
        out.print(f"samples are drawn in {options.plot}", markup=False)
    return 0


def _play(options: Options, recipes: tuple[str, ...]) -> tuple[list[dict[str, Any]], Any]:
    """A record for each run, and pictures (K, H, W, 3) of the first seed's samples."""
    import dataclasses

    import numpy as np

    from faussaire.doctor.mixtures import MIXTURES, cover, picture
    from faussaire.doctor.modes import RECIPES, samples, train

    results, maps, reading = [], [], Reading()
    for name, recipe, seed in product(options.sets, recipes, options.seeds):
        mixture, began = MIXTURES[name], time.perf_counter()
        told = partial(reading, f"{name} {recipe} {seed}", total=options.examples)
        state = train(RECIPES[recipe], mixture, examples=options.examples, seed=seed, told=told)
        points = samples(state, mixture)
        found = dataclasses.asdict(cover(points, mixture))
        record = {"set": name, "recipe": recipe, "seed": seed, **found}
        record["seconds"] = round(time.perf_counter() - began, 1)
        results.append(record)
        err.print(f"{name} {recipe} seed {seed}: {found}", markup=False)
        if seed == options.seeds[0]:
            maps.append(picture(points, mixture))
    reading.close()
    return results, np.stack(maps)


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
