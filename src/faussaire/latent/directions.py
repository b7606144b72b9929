"""Directions of a latent space along which pictures change in one respect.

Three ways to find them:

- Principal components of many codes: GANSpace: Discovering Interpretable GAN Controls. Härkönen,
  Hertzmann, Lehtinen, Paris. 2020. arXiv 2004.02546. In W, whose codes have no fixed distribution, the
  components of the codes themselves (section 3.1). Where there is only z, which is equally wide
  everywhere, those of features y of the samples, carried back by the least squares (section 3.2)
  U = argmin sum_j |U x_j - z_j|^2, x_j being coordinates of y_j. Its authors take an early layer for y;
  here it is the picture itself, averaged to at most 16 pixels a side, which every family has.
- Closed form: Closed-Form Factorization of Latent Semantics in GANs (SeFa). Shen, Zhou. 2020. arXiv
  2007.06600: what the first linear map A of the latent changes most, argmax |A n|^2 over unit n: the
  eigenvectors of A^T A, all layers' A stacked where each has its own. Of StyleGAN2's A that part is left
  out which its demodulation undoes (`StyleGAN2.affines`); the paper keeps it.
- From labels: Interpreting the Latent Space of GANs for Semantic Face Editing (InterFaceGAN). Shen, Gu,
  Tang, Zhou. 2020. arXiv 2005.09635: the normal of a linear SVM's hyperplane between codes with and
  without something. Of samples that a classifier scored, those at both ends are taken, 70 % of them to
  learn from and 30 % to be tested on (section 4.1).

An edit moves a code by a number of standard deviations: those of the model's own codes along the
direction. What should not change with it is projected away: n - (n . m) m for another direction m, and
for several their span (section 3.2 of InterFaceGAN).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.errors import UserError
from faussaire.latent.space import Space

SAMPLED = 20_000
"""Codes that principal components are taken of; in z, where each is a picture, a tenth."""
_SIDE = 16
_LEAST = 4  # codes on either side that a boundary can be drawn between


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A direction with a name.

    Attributes:
        name: by which edits ask for it.
        space: `z` or `w`; one of W moves codes of W+, too.
        vector: (numbers,), of length 1.
        deviation: of the model's codes along it: what a strength of 1 moves.
        method: `pca`, `sefa`, `svm` or `given`.
        layers: first and last of the layers that it moves, from 0; None: all.
        examples: how many examples the model had seen.
        facts: what else is known, JSON-ready: variance, accuracy ...
    """

    name: str
    space: str
    vector: Tensor
    deviation: float
    method: str
    layers: tuple[int, int] | None = None
    examples: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> Tensor:
        """What a strength of 1 adds, (numbers,)."""
        return self.vector * self.deviation

    def said(self) -> str:
        """One line for people: how it was found, and how well."""
        words = [f"{key} {_short(value)}" for key, value in self.facts.items()]
        if self.layers is not None:
            words.append(f"layers {self.layers[0]} to {self.layers[1]}")
        return ", ".join([f"{self.method} in {self.space}", *words])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def moved(codes: Tensor, space: str, strengths: Sequence[tuple[Direction, float]]) -> Tensor:
    """Codes (N, layers, numbers) moved along directions by strengths in standard deviations.

    A direction that moves some layers only makes codes of W+ of those of W.

    Args:
        codes: of the space.
        space: `z`, `w` or `w+`.
        strengths: each direction with its own.

    Raises:
        UserError: a direction is of another space.
    """
    for direction, _ in strengths:
        if (direction.space == "z") != (space == "z"):
            raise UserError(
                f"'{direction.name}' is a direction of {direction.space}, and the code is of {space}.",
                f"Find one there, or project the picture with --space {direction.space}.",
            )
    for direction, strength in strengths:
        step = strength * direction.step.to(codes)
        if direction.layers is None:
            codes = codes + step
            continue
        first, last = direction.layers
        if codes.shape[1] <= last:
            raise UserError(
                f"'{direction.name}' moves layers {first} to {last}, and the code has "
                f"{codes.shape[1]}.",
                "Project with --space w+, or leave --layers out.",
            )
        chosen = torch.zeros(codes.shape[1], 1, device=codes.device)
        chosen[first : last + 1] = 1.0
        codes = codes + chosen * step
    return codes


def without(direction: Direction, others: Sequence[Direction], space: Space) -> Direction:
    """The direction with what it has of others projected away; InterFaceGAN, section 3.2.

    Raises:
        UserError: nothing of it would be left, or they are of different spaces.
    """
    if not others:
        return direction
    if foreign := [one for one in others if one.space != direction.space]:
        raise UserError(
            f"'{foreign[0].name}' is of {foreign[0].space}, and '{direction.name}' of "
            f"{direction.space}.",
            "Only directions of one space can be taken apart.",
        )
    basis, _ = torch.linalg.qr(torch.stack([one.vector for one in others], dim=1))
    left = direction.vector - basis @ (basis.T @ direction.vector)
    if float(left.norm()) < 1e-3:
        names = ", ".join(one.name for one in others)
        raise UserError(
            f"Nothing of '{direction.name}' is left without {names}: they are the same direction.",
            "Leave some of --without out.",
        )
    vector = left / left.norm()
    return dataclasses.replace(
        direction,
        vector=vector,
        deviation=space.spread.along(vector.to(space.device)),
        facts={**direction.facts, "without": [one.name for one in others]},
    )


def _named(
    space: Space, name: str, vector: Tensor, method: str, facts: Mapping[str, Any], **how: Any
) -> Direction:
    """A direction of a vector of any length."""
    vector = (vector / vector.norm()).float()
    return Direction(
        name=name,
        space="z" if space.name == "z" else "w",
        vector=vector.cpu(),
        deviation=space.spread.along(vector.to(space.device)),
        method=method,
        facts=dict(facts),
        **how,
    )


def _signed(vector: Tensor) -> Tensor:
    """With its largest number positive: eigenvectors have no sign of their own."""
    return vector * vector[vector.abs().argmax()].sign()


# ---- Without labels ----


@torch.no_grad()
def principal(
    space: Space, count: int, *, seed: int = 0, sampled: int = SAMPLED
) -> list[Direction]:
    """The first principal components: `pca1` is along which samples differ most.

    Args:
        space: where.
        count: how many.
        seed: of the samples.
        sampled: codes that they are taken of.
    """
    if space.name == "z":
        return _of_pictures(space, count, seed, max(count + 1, sampled // 10))
    count = _possible(count, space.width)
    codes = space.draw(sampled, mix(seed, "principal"))[:, 0].double()
    around = codes - codes.mean(0)
    values, vectors = torch.linalg.eigh(around.T @ around / len(codes))
    shares = values.flip(0) / values.sum()
    return [
        _named(
            space,
            f"pca{row + 1}",
            _signed(vectors[:, -1 - row]),
            "pca",
            {"variance": float(shares[row])},
        )
        for row in range(count)
    ]


def _of_pictures(space: Space, count: int, seed: int, sampled: int) -> list[Direction]:
    """Components of pictures, carried back to z."""
    count = _possible(count, space.width)
    codes = space.draw(sampled, mix(seed, "principal"))
    labels = space.labels(sampled, mix(seed, "principal"))
    pictures = space.show(codes, labels=labels)
    height, width = (min(side, _SIDE) for side in pictures.shape[2:])
    features = F.adaptive_avg_pool2d(pictures, (height, width)).flatten(1).double()
    around = features - features.mean(0)
    _, values, axes = torch.linalg.svd(around, full_matrices=False)
    count = min(count, len(values))
    # Coordinates of unit deviation: the columns of U are then what a deviation of each moves.
    x = around @ axes[:count].T / (values[:count] / sampled**0.5)
    z = codes[:, 0].cpu().double()
    carried = torch.linalg.lstsq(x, z - z.mean(0)).solution  # (count, numbers)
    shares = values.square() / values.square().sum()
    return [
        _named(space, f"pca{row + 1}", carried[row], "pca", {"variance": float(shares[row])})
        for row in range(count)
    ]


@torch.no_grad()
def closed_form(
    space: Space, count: int, *, layers: tuple[int, int] | None = None
) -> list[Direction]:
    """SeFa's directions: `sefa1` is what the first linear maps of the latent change most by.

    Args:
        space: where.
        count: how many.
        layers: first and last of the layers that count, and are moved; None: all.

    Raises:
        UserError: the family has no such maps, or in this space, or not so many layers.
    """
    if space.name == "z" and "w" in space.family.spaces:
        raise UserError(
            f"{type(space.family).__name__.lower()} maps w, not z, to styles.",
            "Leave --space z out.",
        )
    maps = [*space.family.affines()]
    if layers is not None:
        first, last = layers
        if not 0 <= first <= last < len(maps):
            raise UserError(
                f"There are no layers {first} to {last}.", f"The last of them is {len(maps) - 1}."
            )
        maps = maps[first : last + 1]
    count = _possible(count, space.width)
    stacked = torch.cat([*maps]).double()
    values, vectors = torch.linalg.eigh(stacked.T @ stacked)
    suffix = "" if layers is None else f"_{layers[0]}_{layers[1]}"
    return [
        _named(
            space,
            f"sefa{row + 1}{suffix}",
            _signed(vectors[:, -1 - row]),
            "sefa",
            {"eigenvalue": float(values[-1 - row])},
            layers=layers if space.name != "z" else None,
        )
        for row in range(count)
    ]


def chance(space: Space, count: int, *, seed: int = 0) -> list[Direction]:
    """Random directions, to compare with: `random1` ..."""
    draws = RowDraws.counted(mix(seed, "chance"), count)
    return [
        _named(space, f"random{row + 1}", vector, "given", {})
        for row, vector in enumerate(draws.normal(space.width))
    ]


def _possible(count: int, width: int) -> int:
    if not 1 <= count <= width:
        raise UserError(
            f"{count} directions cannot be found.", f"The space has {width}; ask for 1 to {width}."
        )
    return count


# ---- From labels ----


def separating(
    space: Space,
    name: str,
    codes: Tensor,
    yes: np.ndarray,
    *,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Direction:
    """The normal of the hyperplane between codes with something and without, towards the first.

    Args:
        space: of the codes.
        name: of the direction.
        codes: (N, layers, numbers); of several layers the mean counts.
        yes: (N,) bool.
        facts: to be kept besides its accuracies.
        seed: of the split.

    Raises:
        UserError: fewer than 4 codes on either side, or scikit-learn is missing.
    """
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise UserError(
            "Directions from labels need scikit-learn, which is not installed.",
            "Install it with pip install 'faussaire[edit]'.",
        ) from error
    flat = codes.float().mean(1).cpu().numpy().astype(np.float64)
    sides = [np.flatnonzero(yes), np.flatnonzero(~yes)]
    if min(map(len, sides)) < _LEAST:
        raise UserError(
            f"'{name}' cannot be learnt from {len(sides[0])} examples with it and {len(sides[1])} "
            "without.",
            f"Give at least {_LEAST} of each; hundreds are better.",
        )
    rng = np.random.default_rng(mix(seed, "split"))
    sides = [rng.permutation(side) for side in sides]
    cuts = [max(1, round(0.7 * len(side))) for side in sides]
    lessons = np.concatenate([side[:cut] for side, cut in zip(sides, cuts, strict=True)])
    exam = np.concatenate([side[cut:] for side, cut in zip(sides, cuts, strict=True)])
    # Numbers of one size: what a wrong side costs means the same in every space.
    scale = space.spread.sigma / space.width**0.5
    middle = space.spread.mean.cpu().numpy().astype(np.float64)
    ready = (flat - middle) / scale
    machine = SVC(kernel="linear", C=1.0, class_weight="balanced")
    machine.fit(ready[lessons], yes[lessons])
    found = {
        "accuracy": _balanced(machine.predict(ready[exam]), yes[exam]),
        "accuracy_taught": _balanced(machine.predict(ready[lessons]), yes[lessons]),
        "examples": f"{len(sides[0])}+{len(sides[1])}",
    }
    vector = torch.from_numpy(np.array(machine.coef_[0]))  # a copy: scikit-learn's own is read-only
    return _named(space, name, vector, "svm", {**found, **(facts or {})})


def _balanced(said: np.ndarray, true: np.ndarray) -> float:
    """The mean of the shares that are right on either side."""
    return float(np.mean([(said[true == side] == side).mean() for side in (True, False)]))


def ends(scores: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the highest and of the lowest scores, a share of all each; InterFaceGAN, section 4.1.

    Args:
        scores: (N,).
        share: at most one half.

    Raises:
        UserError: the share is none.
    """
    if not 0.0 < share <= 0.5:
        raise UserError(f"A share of {share} at either end is none.", "Write 0.02 to 0.5.")
    order = np.argsort(scores, kind="stable")
    count = max(_LEAST, round(share * len(order)))
    return order[-count:], order[:count]
