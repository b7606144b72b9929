"""Using and measuring families that rebuild pictures: what their encoder knows, and how well.

Such a family sees pictures of its own size. Others are brought to it as training does (`crop`), and what
becomes of them has the model's size, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from faussaire.autoencoding import Autoencoder, divergence
from faussaire.core.batch import RowDraws, mix
from faussaire.core.config import Settings
from faussaire.core.device import Device, precise
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import Figure, Provenance
from faussaire.data.decode import Fault
from faussaire.data.fit import fit, to_array, to_channels
from faussaire.data.pack import Images
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.material import split, tile_counts

if TYPE_CHECKING:
    from faussaire.application import Opened

OF_LATENTS = ("elbo", "active-units")
"""Metrics that ask an encoder of pictures, not samples."""
SPREAD = 0.01
"""Variance of a latent's mean over pictures, and nats of its divergence, from which it is in use."""
_BATCH = 100
_WHITE = (255, 255, 255)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


# ---- Pictures of any size ----


def fitted(family: Family[Any], opened: Opened) -> Tensor:
    """A picture as the family knows pictures: (N, C, H, W) in [-1, 1] of its own size.

    The middle of a larger or smaller one is resized; what is transparent shows white, unless the
    family knows transparency.
    """
    channels, height, width = family.spec.shape
    if len(opened.colour) > 1:
        return _of_size(family, opened)
    image = replace(opened, deep=False).image()
    image = fit(to_channels(image, _MODES[channels], _WHITE), (height, width), "crop", _WHITE)
    pixels = torch.from_numpy(np.array(to_array(image)))
    return pixels.permute(2, 0, 1)[None].float().div(127.5).sub(1.0)


def _of_size(family: Family[Any], opened: Opened) -> Tensor:
    """Several pictures at once, which must have the size already.

    Raises:
        UserError: they have not.
    """
    parts = [opened.colour] if opened.alpha is None else [opened.colour, opened.alpha]
    x = torch.cat(parts, dim=1)
    if x.shape[1:] != family.spec.shape:
        raise UserError(
            f"{type(family).__name__.lower()} knows pictures of {family.spec.shape}, as (C, H, W), and "
            f"these are {tuple(x.shape[1:])}.",
            "Resize them, or give one at a time.",
        )
    return x


def encode_files(family: Family[Any], device: Device, paths: Sequence[Path]) -> Tensor:
    """Latents of pictures, (N, ...) on the CPU.

    Raises:
        UserError: one cannot be read, or the family has no encoder.
    """
    from faussaire.application import Opened

    parts = []
    for first in range(0, len(paths), _BATCH):
        rows = []
        for path in paths[first : first + _BATCH]:
            try:
                rows.append(fitted(family, Opened.read(path)))
            except Fault as fault:
                raise UserError(
                    f"'{path}' cannot be read: {fault.reason}.", "Leave it out."
                ) from fault
        with torch.no_grad():
            parts.append(family.encode(torch.cat(rows).to(device.name)).float().cpu())
    return torch.cat(parts)


def attribute(
    family: Family[Any], device: Device, plus: Sequence[Path], minus: Sequence[Path]
) -> Tensor:
    """The mean latent of some pictures less that of others, in the form of one picture's latents.

    Larsen et al. 2016, arXiv 1512.09300, section 4.1: what the first have and the second have not.

    Args:
        family: that rebuilds pictures.
        device: where it runs.
        plus, minus: files; the more, the less of what is only chance remains.

    Raises:
        UserError: one cannot be read.
    """
    having, lacking = (encode_files(family, device, paths).mean(0) for paths in (plus, minus))
    return having - lacking


# ---- Figures ----


@dataclass(frozen=True)
class Known:
    """Pictures that an encoder is asked of.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: their classes as numbers of `classes`, (N,), or None.
        name: what figures call them: `held-out`.
        key: of their content.
        whole: whether these are all that the key is of.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    name: str
    key: str
    whole: bool
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


def _likely(family: Family[Any]) -> bool:
    return family.likelihood  # pyright: ignore[reportAttributeAccessIssue]


def known_pictures(images: Images, settings: Settings, name: str | None) -> Known:
    """What an encoder is asked of: pictures held out, where there are any; all of other ones.

    Args:
        images: the run's pictures, or others.
        settings: of the run.
        name: of other pictures; None: the run's own.
    """
    train, unseen = split(len(images), settings.data.holdout, tile_counts(images))
    rows, called = (unseen, "held-out") if len(unseen) else (train, "train")
    if name is not None:
        rows, called = np.arange(len(images)), name
    labels = None if images.labels is None else np.asarray(images.labels)[rows]
    return Known(
        pixels=np.ascontiguousarray(images.pixels[rows]),
        labels=labels,
        name=called,
        key=digest(images.key, rows.tobytes()),
        whole=True,
        classes=tuple(images.classes),
    )


def refuse_latents(family: Family[Any], names: Sequence[str]) -> None:
    """Say no to metrics of latents that mean nothing here.

    Raises:
        UserError: the family has no encoder, or its loss is no likelihood of pictures.
    """
    name = type(family).__name__.lower()
    for metric in names:
        if metric in OF_LATENTS and not family.rebuilds:
            raise UserError(
                f"{metric} asks an encoder, and {name} has none.", "Leave it out; vae has it."
            )
        if metric == "elbo" and not _likely(family):
            raise UserError(
                f"elbo is a bound of pictures' likelihood, and {name} compares features instead.",
                "Leave it out; active-units says how many latents are in use.",
            )


def _labels_of(family: Autoencoder[Any], known: Known, rows: range, x: Tensor) -> Tensor:
    """The classes of some pictures; the likeliest where they are not those that the family knows."""
    if known.labels is None or known.classes != tuple(family.spec.classes):
        return family.likeliest(x)
    return torch.from_numpy(known.labels[rows.start : rows.stop]).to(x.device)


def latent_figures(
    family: Autoencoder[Any],
    device: Device,
    known: Known,
    names: Sequence[str],
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Figure, ...]:
    """-ELBO in nats a picture, and how many latents are in use.

    Each picture's z is drawn once, with random numbers of its row and the seed.

    Args:
        family: its nets in evaluation mode.
        device: where it runs.
        known: the pictures.
        names: of `OF_LATENTS`, none refused.
        seed: of z, and of what is drawn to be black or white.
        progress: called as progress(what, done, total).
    """
    rebuilt, told, means, each = [], [], [], torch.zeros(family.latent, dtype=torch.float64)
    for first in range(0, len(known), _BATCH):
        rows = range(first, min(first + _BATCH, len(known)))
        draws = RowDraws([mix(seed, "elbo", row) for row in rows], device=device.name)
        x = device.put(np.ascontiguousarray(known.pixels[first : rows.stop]))
        labels = None
        if family.conditional:
            with torch.no_grad(), precise():
                labels = family.encoded(_labels_of(family, known, rows, x))
        with torch.no_grad(), precise():
            x = family.regarded(x, draws)
            cost, price = family.costs(x, labels, draws.normal(family.latent))
            mean, log_variance = family.posterior(x, labels)
        rebuilt.append(cost.double().cpu())
        told.append(price.double().cpu())
        means.append(mean.double().cpu())
        each += divergence(mean, log_variance).double().sum(0).cpu()
        if progress is not None:
            progress("latents", rows.stop, len(known))
    costs, prices = torch.cat(rebuilt), torch.cat(told)
    height, width, channels = known.pixels.shape[1:]

    def figure(name: str, value: float, **more: Any) -> Figure:
        return Figure(
            provenance=Provenance(
                metric=name,
                count=len(known),
                reference=known.name,
                reference_count=len(known),
                reference_key=known.key,
                whole=known.whole,
                pictures=f"{height}x{width}x{channels}",
                details=family.measured_as if name == "elbo" else f"of={family.latent}",
            ),
            value=value,
            **more,
        )

    found: dict[str, Figure] = {}
    if "elbo" in names:
        both = costs + prices
        found["elbo"] = figure(
            "elbo",
            float(both.mean()),
            error=float(both.std()) / math.sqrt(len(both)) if len(both) > 1 else None,
            parts={"reconstruction": float(costs.mean()), "divergence": float(prices.mean())},
        )
    if "active-units" in names:
        spread = torch.cat(means).var(0)
        found["active-units"] = figure(
            "active-units",
            float((spread > SPREAD).sum()),
            parts={"by divergence": float((each / len(known) > SPREAD).sum())},
        )
    return tuple(found[name] for name in names if name in found)
