"""How well pictures follow their captions, as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faussaire.captions.material import CaptionMaterial
from faussaire.core.batch import mix
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.metrics.pictures import shuffled_rows
from faussaire.sampling import sample_rows

AMONG = 100
"""Captions among which a picture's own has to be found."""
EACH = 8
"""Pictures of one caption between which variety is measured."""
_BATCH = 64

Progress = Callable[[str, int, int], None] | None


@dataclass(frozen=True)
class Share:
    """A share of tries, its standard error, and the same of real pictures."""

    value: float
    error: float
    real: float
    count: int


class Questions:
    """Captions of one half of the data, and pictures of them.

    Args:
        material: the data.
        pictures: rows whose captions are asked for.
        without: rows none of whose captions may be: what is held out must not be trained on.
        count: of pictures to make.
        seed: of all draws.

    Raises:
        UserError: there is nothing to ask.
    """

    def __init__(
        self,
        material: CaptionMaterial,
        pictures: np.ndarray,
        *,
        without: np.ndarray | None = None,
        count: int,
        seed: int,
    ) -> None:
        self.material, self.seed = material, seed
        which = material.which[pictures]
        allowed = which >= 0
        if without is not None:
            allowed &= ~np.isin(which, material.which[without])
        rows, columns = np.nonzero(allowed)
        if len(rows) == 0:
            raise UserError(
                "Every caption of the pictures that are held out is a trained picture's, too.",
                "Hold out more: --holdout 0.1.",
            )
        order = shuffled_rows(len(rows), seed)
        chosen = order[np.arange(count) % len(order)]
        self.pictures = pictures[rows[chosen]]
        self.captions = which[rows[chosen], columns[chosen]]
        self.pool = np.unique(which[allowed])
        self.different = min(count, len(order))

    def __len__(self) -> int:
        return len(self.captions)

    def texts(self, captions: np.ndarray) -> Tensor:
        """Captions as a family takes them."""
        return torch.from_numpy(self.material.texts[captions])

    def require(self, count: int) -> None:
        """Refuse to ask where no picture has so many wrong captions.

        Raises:
            UserError: that is so.
        """
        there = len(self.material.captions) - int((self.material.which >= 0).sum(axis=1).max())
        if there < count:
            raise UserError(
                f"R-precision sets {count} wrong captions beside each right one, and the data have "
                f"{there}."
                if count > 1
                else "There is no wrong caption to set beside a right one.",
                "Leave it out, or give more captions.",
            )

    def wrong(self, count: int) -> np.ndarray:
        """For each question `count` different captions, none of its picture's, (N, count).

        From the same half of the data, and where these do not suffice, from all of it.

        Raises:
            UserError: there are not so many.
        """
        self.require(count)
        rng = np.random.default_rng(mix("wrong captions", self.seed))
        found = np.empty((len(self), count), np.int64)
        for row, picture in enumerate(self.pictures):
            own = self.material.which[picture]
            pool = self.pool[~np.isin(self.pool, own)]
            if len(pool) < count:
                rest = np.setdiff1d(np.arange(len(self.material.captions)), own)
                rest = np.setdiff1d(rest, pool)
                pool = np.concatenate([pool, rng.choice(rest, count - len(pool), replace=False)])
            found[row] = rng.choice(pool, count, replace=False)
        return found

    def reals(self) -> Tensor:
        """The real pictures of the captions, (N, C, H, W) in [-1, 1]."""
        pixels = np.asarray(self.material.images.pixels[self.pictures])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def made(self, family: Any, device: Device, progress: Progress = None) -> Tensor:
        """What a family makes of the captions, (N, C, H, W) in [-1, 1]."""
        rows = [(self.seed, row) for row in range(len(self))]
        parts = []
        for first in range(0, len(rows), _BATCH):
            if progress is not None:
                progress("pictures of captions", first, len(rows))
            part = slice(first, first + _BATCH)
            labels = self.texts(self.captions[part])
            parts.append(sample_rows(family, device, rows[part], labels=labels))
        return torch.cat(parts)


@torch.no_grad()
def r_precision(family: Any, device: Device, questions: Questions, made: Tensor) -> Share:
    """The share of pictures whose own caption is nearest among `AMONG` to the family's own eye.

    Xu et al. 2018, arXiv 1711.10485, section 4: R = 1 of 100, 99 being captions of other pictures.
    """
    candidates = np.concatenate([questions.captions[:, None], questions.wrong(AMONG - 1)], axis=1)
    numbers, places = np.unique(candidates, return_inverse=True)
    places = places.reshape(candidates.shape)
    texts = _by_parts(lambda part: family.read(part), questions.texts(numbers), device)

    def share(pictures: Tensor) -> float:
        seen = _by_parts(lambda part: family.seen(part), pictures, device)
        scores = (texts[torch.from_numpy(places)] * seen[:, None]).sum(dim=2)
        return float((scores[:, :1] > scores[:, 1:]).all(dim=1).double().mean())

    value = share(made)
    return Share(
        value, _error(value, questions.different), share(questions.reals()), len(questions)
    )


@torch.no_grad()
def matched(family: Any, device: Device, questions: Questions, made: Tensor) -> Share:
    """How often the discriminator prefers a picture beside its own caption to it beside another's."""
    wrong = questions.texts(questions.wrong(1)[:, 0])
    right = questions.texts(questions.captions)

    def share(pictures: Tensor) -> float:
        own, other = (
            torch.cat(
                [
                    family.scores(
                        pictures[first : first + _BATCH].to(device.name),
                        texts[first : first + _BATCH].to(device.name),
                    )
                    .float()
                    .cpu()
                    for first in range(0, len(pictures), _BATCH)
                ]
            )
            for texts in (right, wrong)
        )
        return float(((own > other).double() + 0.5 * (own == other).double()).mean())

    value = share(made)
    return Share(
        value, _error(value, questions.different), share(questions.reals()), len(questions)
    )


def variety(family: Any, device: Device, questions: Questions, captions: int) -> float:
    """How far apart pictures of one caption are, as a share of how far apart those of several are.

    Root mean squared differences of pixels. 0: one picture for each caption, whatever the noise; 1: the
    caption decides nothing.
    """
    chosen = questions.texts(np.unique(questions.captions)[:captions])
    rows = [(questions.seed, row) for row in range(len(chosen) * EACH)]
    labels = chosen.repeat_interleave(EACH, dim=0)
    made = sample_rows(family, device, rows, labels=labels).flatten(1)
    distances = torch.cdist(made, made) / math.sqrt(made.shape[1])
    number = torch.arange(len(rows)) // EACH
    same = number[:, None] == number[None]
    own = same & ~torch.eye(len(rows), dtype=torch.bool)
    return float(distances[own].mean() / distances[~same].mean().clamp_min(1e-12))


def _by_parts(encode: Callable[[Tensor], Tensor], rows: Tensor, device: Device) -> Tensor:
    parts = [encode(part.to(device.name)).float().cpu() for part in rows.split(_BATCH)]
    return torch.cat(parts)


def _error(share: float, count: int) -> float:
    """The standard error of a share of `count` independent tries."""
    return math.sqrt(share * (1.0 - share) / max(1, count))


def seen_and_new(
    material: CaptionMaterial, holdout: float | None, *, count: int, seed: int
) -> tuple[Questions, Questions | None]:
    """Questions of captions that are trained on, and of ones that no trained picture has, if any."""
    train, held = material.split(holdout)[0]
    seen = Questions(material, train, count=count, seed=seed)
    new = np.setdiff1d(material.which[held], material.which[train])
    if not (new >= 0).any():
        return seen, None
    return seen, Questions(material, held, without=train, count=count, seed=seed)


def names_measured() -> Sequence[str]:
    """Names of the metrics of captions, in the order of tables."""
    return ("r-precision", "r-precision-new", "matched", "matched-new", "caption-variety")
