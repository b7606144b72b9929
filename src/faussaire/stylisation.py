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
from typing import Any, Literal

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
from faussaire.data.decode import Fault, decode, decoding, normalise
from faussaire.data.parallel import Progress
from faussaire.families.styletransfer import (
    LEAST_SIDE,
    RECIPES,
    Originals,
    Recipe,
    StyleTransfer,
    StyleTransferConfig,
    fitted,
    resized,
)
from faussaire.metrics.extractors import ignore
from faussaire.metrics.maps import FeatureMaps, Pool, choose, open_maps
from faussaire.report.pictures import to_uint8

Picture = str | Path | Image.Image

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
    """Paint `content` in the manner of `styles`; see `faussaire.transfer`."""
    if not styles:
        raise UserError("No style was given.", "Give a painting, or several to be mixed.")
    shares = [1.0] * len(styles) if shares is None else list(shares)
    if len(shares) != len(styles) or min(shares) < 0 or not sum(shares) > 0:
        raise UserError(
            f"{len(shares)} shares ({', '.join(map(str, shares))}) do not fit {len(styles)} styles.",
            "Give one number of at least 0 for each style.",
        )
    if not LEAST_SIDE <= size <= 16384:
        raise UserError(f"The size cannot be {size} pixels.", f"It is from {LEAST_SIDE} to 16384.")
    if not 0.1 <= style_scale <= 4.0:
        raise UserError(f"The style's scale cannot be {style_scale}.", "It is from 0.1 to 4.")
    photo = read_picture(content)
    paintings = [read_picture(style) for style in styles]
    here = Device.choose(device, precision)
    if settings.get("optimiser") == "lbfgs" and precision == "auto":
        here = dataclasses.replace(here, precision="float32")  # its line search sees 8 bits' noise
    maps, recipe = _eyes(extractor, weights, pool, settings, note, progress)
    here.prepare(maps)
    config = StyleTransferConfig(**{**_defaults(recipe, settings), **settings})
    target = resized(photo.tensor, fitted(photo.tensor, size))
    tensors = [resized(one.tensor, fitted(one.tensor, round(size * style_scale))) for one in paintings]
    if keep_colour:
        tensors = [recoloured(one, target) for one in tensors]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = StyleTransfer(
            config,
            Originals(
                content=target.clamp(-1, 1).to(here.name),
                styles=tuple(one.clamp(-1, 1).to(here.name) for one in tensors),
                shares=tuple(share / sum(shares) for share in shares),
                maps=maps,
            ),
        )
        finished = paint(family, here, seed=seed, watch=watch, preview_every=preview_every)
    return photo.like(finished)


def _eyes(
    extractor: str | FeatureMaps,
    weights: Path | None,
    pool: Pool | None,
    settings: Mapping[str, Any],
    note: Callable[[str], None],
    progress: Progress | None,
) -> tuple[FeatureMaps, Recipe]:
    """The network to look through, and how."""
    if not isinstance(extractor, str):
        name, path = extractor.name, None
    else:
        name, path = choose(extractor, weights=weights, note=note, progress=progress)
    recipe = RECIPES.get(name)
    layers = {
        kind: settings.get(f"{kind}_layers") or (getattr(recipe, kind) if recipe else {})
        for kind in ("content", "style")
    }
    chosen = Recipe(content=layers["content"], style=layers["style"])
    if path is None:
        return extractor, chosen  # pyright: ignore
    wanted = [*chosen.content, *chosen.style]
    return open_maps(name, path, wanted, pool=pool or "max"), chosen


def _defaults(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"content_layers": recipe.content, "style_layers": recipe.style}
    if settings.get("optimiser") == "lbfgs":
        found |= {"lr": 1.0, "shift": 0, "half_life": 0.0}
    return found


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
    state = State(family, device, total=family.steps)
    rounds = Rounds(state, _Nothing(), Plan(batch=1, seed=seed), World())
    world = World()
    began = last = time.monotonic()
    losses: dict[str, float] = {}
    while (step := state.clock.examples) < state.clock.total:
        rounds.play()
        now = state.clock.examples
        ended = now >= state.clock.total
        due = preview_every > 0 and now // preview_every > step // preview_every
        if not (ended or due or time.monotonic() - last >= TICK):
            continue
        last = time.monotonic()
        losses = {
            name.partition(".")[2]: value
            for name, value in rounds.means.take(world)["losses"].items()
        }
        _sound(family, losses, now)
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


def _sound(family: StyleTransfer, losses: Mapping[str, float], step: int) -> None:
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if wrong or not all(net.pixels.isfinite().all() for net in family.nets.values()):  # pyright: ignore
        how = family.config.optimiser
        advice = (
            "Take --optimiser adam, which does not fail so, or a smaller --style-weight."
            if how == "lbfgs"
            else "Try a smaller --lr, or --precision float32."
        )
        what = f"The {wrong[0]} loss" if wrong else "The picture"
        raise UserError(f"{what} is no longer a number after {step} steps of {how}.", advice)


def _remaining(family: StyleTransfer, state: State, elapsed: float) -> float:
    """Seconds left, a step taking as long as its picture has pixels."""
    done = left = 0.0
    position, at = 0, state.clock.examples
    for stage, (height, width) in zip(state.stages, family.sizes_px, strict=True):
        until = stage.until or state.clock.total
        cost = height * width + 20_000.0  # what a step takes besides
        here = min(max(at - position, 0), until - position)
        done += here * cost
        left += (until - position - here) * cost
        position = until
    return elapsed * left / done if done else 0.0


def _shown(state: State, step: int) -> Image.Image:
    """The averaged picture at the scale that step belongs to."""
    stage = stage_at(state.stages, step)
    with state.sampling() as family:
        assert isinstance(family, StyleTransfer)
        level = list(family.nets).index(stage.name)
        return Image.fromarray(to_uint8(family.picture(level))[0])


@dataclass(frozen=True)
class Original:
    """A picture that was read: (1, 3, H, W) in [-1, 1] on white, and its transparency, if any."""

    tensor: Tensor
    alpha: Image.Image | None

    def like(self, painted: Tensor) -> Image.Image:
        """A painted picture as an image, transparent where this one was."""
        image = Image.fromarray(to_uint8(painted)[0])
        if self.alpha is not None:
            image.putalpha(self.alpha.resize(image.size, Image.Resampling.LANCZOS))
        return image


def read_picture(source: Picture) -> Original:
    """A picture from a file or from Pillow, upright, in RGB.

    Raises:
        UserError: it is missing or damaged.
    """
    if isinstance(source, Image.Image):
        image, what = source, "The picture"
    else:
        path = Path(source).expanduser()
        what = f"'{path}'"
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{what} cannot be read ({error.strerror or error}).", "Give the path of a picture."
            ) from error
    try:
        with decoding():
            image = normalise(source) if isinstance(source, Image.Image) else decode(raw).image
    except Fault as fault:
        raise UserError(f"{what} cannot be used: {fault.reason}.", "Give another picture.") from fault
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
        alpha = alpha if alpha.getextrema()[0] < 255 else None
    pixels = np.asarray(image.convert("RGB"), np.float32) / 127.5 - 1.0
    return Original(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None], alpha)


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
