"""A photograph in the manner of paintings: what `faussaire transfer` and `faussaire.transfer` do.

Pictures are read, a frozen network is opened, and the family `styletransfer` is played by the engine's
rounds. A job of minutes on one picture has no run folder: it is begun anew rather than resumed.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faussaire.core.batch import RowDraws
from faussaire.core.device import Device, DeviceName, Precision
from faussaire.core.distributed import World
from faussaire.core.errors import UserError, nearest
from faussaire.core.loop import Plan, Rounds
from faussaire.core.phase import stage_at
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.families.styletransfer import (
    LEAST_SIDE,
    RECIPES,
    Originals,
    StyleTransfer,
    StyleTransferConfig,
    fitted,
    resized,
)
from faussaire.metrics.extractors import ignore
from faussaire.metrics.maps import FeatureMaps, Pool, choose, open_maps
from faussaire.originals import Picture, read_picture
from faussaire.report.pictures import to_image, to_uint8

_BESIDES = 20_000.0  # pixels that would take as long as what a step does besides
TICK = 0.5
"""Seconds between reports."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a transfer has come.

    Attributes:
        step, steps: done, and in all.
        scale: the picture's size now, WIDTHxHEIGHT.
        losses: weighted terms, means since the last report.
        elapsed, remaining: seconds; the rest is estimated by the pixels that are to be painted.
        picture: as it stands; only where it was asked for.
    """

    step: int
    steps: int
    scale: str
    losses: Mapping[str, float]
    elapsed: float
    remaining: float
    picture: Image.Image | None = None

    @property
    def progress(self) -> float:
        """Share of the steps that are done, in [0, 1]."""
        return self.step / self.steps


Watcher = Callable[[Moment], None]


def transfer(
    content: Picture,
    styles: Sequence[Picture],
    *,
    shares: Sequence[float] | None = None,
    size: int = 512,
    style_scale: float = 1.0,
    keep_colour: bool = False,
    seed: int = 0,
    extractor: str | FeatureMaps = "auto",
    weights: Path | None = None,
    pool: Pool | None = None,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    preview_every: int = 0,
    watch: Watcher | None = None,
    note: Callable[[str], None] = ignore,
    progress: Progress | None = None,
    **settings: Any,
) -> Image.Image:
    """Paint `content` in the manner of `styles`; see `faussaire.transfer`.

    Args:
        preview_every: steps between moments that have the picture; 0: none.
        watch: sees how it goes.
        note: hears what the user should know, in sentences.
        progress: called as progress(what, done, total) during a download.
        settings: those of `StyleTransferConfig`.
    """
    if not styles:
        raise UserError("No style was given.", "Give a painting, or several to be mixed.")
    portions = [1.0] * len(styles) if shares is None else [float(share) for share in shares]
    if len(portions) != len(styles) or min(portions) < 0 or not 0 < sum(portions) < math.inf:
        raise UserError(
            f"The shares {', '.join(map(str, portions))} do not fit {len(styles)} styles.",
            "Give one number of at least 0 for each style.",
        )
    for what, value, least, most in (
        ("size", size, LEAST_SIDE, 8192),
        ("style_scale", style_scale, 0.1, 4.0),
        ("preview_every", preview_every, 0, math.inf),
    ):
        if not least <= value <= most:
            raise UserError(f"{what} cannot be {value}.", f"It must be from {least} to {most}.")
    photo = read_picture(content)
    paintings = [read_picture(style).tensor for style in styles]
    if size * min(photo.tensor.shape[2:]) < LEAST_SIDE * max(photo.tensor.shape[2:]):
        raise UserError(
            f"The content's shorter side would be less than {LEAST_SIDE} of {size} pixels.",
            "Cut it to a less narrow picture, or raise the size.",
        )
    layer = _under(settings)
    maps, layers = _look(extractor, weights, pool, layer, note, progress)
    config = _config({**layers, **layer})
    if config.optimiser == "lbfgs" and precision == "auto":
        precision = "float32"  # the line search of L-BFGS stumbles over the noise of 8 bits
    here = Device.choose(device, precision)
    if isinstance(extractor, str):  # a caller's own network is left as it is
        here.prepare(maps)
    target = resized(photo.tensor, fitted(photo.tensor, size)).clamp(-1.0, 1.0)
    # Enlarged paintings would teach blurred strokes.
    sides = [min(max(one.shape[2:]), round(size * style_scale)) for one in paintings]
    paintings = [
        resized(one, fitted(one, side)).clamp(-1.0, 1.0)
        for one, side in zip(paintings, sides, strict=True)
    ]
    if keep_colour:
        paintings = [recoloured(one, target) for one in paintings]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        originals = Originals(
            content=target.to(here.name),
            styles=tuple(one.to(here.name) for one in paintings),
            shares=tuple(share / sum(portions) for share in portions),
            maps=maps,
        )
        family = StyleTransfer(config, originals)
        painted = paint(family, here, seed=seed, watch=watch, preview_every=preview_every)
    return photo.like(painted)


def _under(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, over the preset of the optimiser."""
    preset = StyleTransfer.presets.get(str(settings.get("optimiser")), {})
    return {**preset, **{name: value for name, value in settings.items() if value is not None}}


def _config(settings: Mapping[str, Any]) -> StyleTransferConfig:
    known = [field.name for field in dataclasses.fields(StyleTransferConfig)]
    for name in settings:
        if name not in known:
            raise UserError(
                f"There is no setting '{name}'.{nearest(name, known)}",
                f"The settings are {', '.join(known)}.",
            )
    choices = {"start": ("content", "noise"), "optimiser": ("adam", "lbfgs")}
    for name, allowed in choices.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise UserError(
                f"{name} cannot be '{settings[name]}'.", f"It is {' or '.join(allowed)}."
            )
    return StyleTransferConfig(**settings)


def _look(
    extractor: str | FeatureMaps,
    weights: Path | None,
    pool: Pool | None,
    settings: Mapping[str, Any],
    note: Callable[[str], None],
    progress: Progress | None,
) -> tuple[FeatureMaps, dict[str, Mapping[str, float]]]:
    """The network to look through, and the layers for content and style with their weights."""
    path = None
    if isinstance(extractor, str):
        name, path = choose(extractor, weights=weights, note=note, progress=progress)
    else:
        name = extractor.name
    recipe = RECIPES.get(name)
    layers: dict[str, Mapping[str, float]] = {}
    for kind in ("content", "style"):
        asked = settings.get(f"{kind}_layers")
        layers[f"{kind}_layers"] = asked or (getattr(recipe, kind) if recipe else {})
    wanted = [name for chosen in layers.values() for name in chosen]
    if path is None:
        assert isinstance(extractor, FeatureMaps)
        if unseen := [name for name in wanted if name not in extractor.names]:
            raise UserError(
                f"The extractor that was given does not look at the layer '{unseen[0]}'.",
                f"It looks at {', '.join(extractor.names)}.",
            )
        return extractor, layers
    pool = pool or (recipe.pool if recipe else "max")
    return open_maps(name, path, wanted, pool=pool), layers


class _Nothing:
    """A stream without data: a picture is painted after what its family was given."""

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        return {}


def paint(
    family: StyleTransfer,
    device: Device,
    *,
    seed: int = 0,
    watch: Watcher | None = None,
    preview_every: int = 0,
) -> Tensor:
    """Play the family's rounds to the end; the averaged picture, (1, 3, H, W) in [-1, 1].

    Raises:
        UserError: a loss is not a number.
    """
    state = State(family, device, total=family.steps, half_life=family.config.half_life)
    world = World()
    rounds = Rounds(state, _Nothing(), Plan(batch=1, seed=seed), world)
    began = last = time.monotonic()
    while (step := state.clock.examples) < state.clock.total:
        rounds.play()
        now = state.clock.examples
        ended = now >= state.clock.total
        due = preview_every > 0 and now // preview_every > step // preview_every
        if not (ended or due or time.monotonic() - last >= TICK):
            continue
        last = time.monotonic()
        taken = rounds.means.take(world)["losses"]
        losses = {name.partition(".")[2]: value for name, value in taken.items()}
        _make_sure(family, losses, now)
        if watch is not None:
            watch(
                Moment(
                    step=min(now, state.clock.total),
                    steps=state.clock.total,
                    scale=stage_at(state.stages, step).name,
                    losses=losses,
                    elapsed=last - began,
                    remaining=_remaining(family, state, last - began),
                    picture=_shown(state, step) if due else None,
                )
            )
    with state.sampling() as finished:
        return finished.sample(RowDraws([0], device=device.name))


def _make_sure(family: StyleTransfer, losses: Mapping[str, float], step: int) -> None:
    """Stop where something is no longer a number: nothing that comes after would be."""
    wrong = next((name for name, value in losses.items() if not math.isfinite(value)), None)
    pixels = [parameter for net in family.nets.values() for parameter in net.parameters()]
    if wrong is None and all(bool(values.isfinite().all()) for values in pixels):
        return
    what = "The picture" if wrong is None else f"The {wrong} loss"
    advice = "Try a smaller --lr, smaller weights, or --precision float32."
    if family.config.optimiser == "lbfgs":
        advice = "Use --optimiser adam, which seldom does so, or smaller weights."
    raise UserError(f"{what} became NaN within {step} steps of {family.config.optimiser}.", advice)


def _remaining(family: StyleTransfer, state: State, elapsed: float) -> float:
    """Seconds left, a step taking as long as its picture has pixels."""
    at, begin, done, left = state.clock.examples, 0, 0.0, 0.0
    for stage, (height, width) in zip(state.stages, family.sizes_px, strict=True):
        end = stage.until or state.clock.total
        cost = height * width + _BESIDES
        ours = min(max(at - begin, 0), end - begin)
        done += ours * cost
        left += (end - begin - ours) * cost
        begin = end
    return elapsed * left / done


def _shown(state: State, step: int) -> Image.Image:
    """The averaged picture at the scale that a step belongs to."""
    stage = stage_at(state.stages, step)
    with state.sampling() as family:
        assert isinstance(family, StyleTransfer)
        return to_image(to_uint8(family.picture(list(family.nets).index(stage.name)))[0])


def recoloured(style: Tensor, content: Tensor) -> Tensor:
    """A painting in the colours of a photograph: its mean and covariance of RGB become theirs.

    Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer", arXiv 1606.05897, section
    4.1, with the symmetric square roots of the covariances (equation 6, from image analogies).

    Args:
        style, content: (1, 3, h, w) and (1, 3, H, W), in [-1, 1].
    """
    a, p = (x.double().flatten(2)[0] for x in (style, content))
    middle = a.mean(1, keepdim=True)
    turned = _root(torch.cov(p)) @ torch.linalg.inv(_root(torch.cov(a))) @ (a - middle)
    found = turned + p.mean(1, keepdim=True)
    return found.to(style.dtype).view_as(style).clamp(-1.0, 1.0)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance + 1e-6 * torch.eye(3, dtype=covariance.dtype))
    return vectors @ values.sqrt().diag() @ vectors.T
