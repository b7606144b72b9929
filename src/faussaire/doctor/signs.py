"""Vital signs: numbers that tell how a game goes, from what the players do to a few dozen examples.

Pure functions of tensors. None of them depends on a loss, a family or the level of the logits; where a
sign is a ratio to the reals, 1 is what real data would give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

# ---- What the discriminator thinks ----


def win_rate(one: Tensor, other: Tensor) -> float:
    """P(a > b) + P(a = b) / 2 for logits a of `one` (N,) and b of `other` (M,), in [0, 1].

    The area under the ROC curve (Mann and Whitney 1947): .5 is a discriminator that cannot tell the
    two apart, 1 one that always can. It needs no threshold, so it means the same for every loss.
    """
    difference = one.double()[:, None] - other.double()[None, :]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


def margin(real: Tensor, fake: Tensor) -> float:
    """Distance of mean logits (N,), (M,) in units of their spread within each group."""
    spread = 0.5 * (real.double().var(unbiased=False) + fake.double().var(unbiased=False))
    distance = float(real.double().mean() - fake.double().mean())
    return distance / max(float(spread.sqrt()), 1e-12)


# ---- How examples are looked at ----


@dataclass(frozen=True)
class Glance:
    """A look at examples that costs next to nothing and needs no weights: (N, ...) to rows (N, D).

    Pictures (N, C, H, W) become their colours on a grid of 8x8 and the strength of their edges, in four
    directions, on one of 4x4; points (N, D) stay. Both parts are scaled so that distances between reals
    are 1 on average, so neither is drowned by the other.

    Attributes:
        scales: what each part is multiplied by.
    """

    scales: tuple[float, ...]

    @classmethod
    def of(cls, reals: Tensor) -> Glance:
        """The glance whose unit is the distance between these reals (N, ...), N at least 2."""
        parts = _parts(reals)
        usual = [mean_distance(part) for part in parts]
        count = math.sqrt(len(parts))
        return cls(tuple(1.0 / (count * size) if size > 0 else 0.0 for size in usual))

    def __call__(self, examples: Tensor) -> Tensor:
        """Rows (N, D), float32."""
        parts = _parts(examples)
        scaled = (part * scale for part, scale in zip(parts, self.scales, strict=True))
        return torch.cat([*scaled], dim=1)


def _parts(examples: Tensor) -> list[Tensor]:
    examples = examples.detach().float()
    if examples.dim() != 4:
        return [examples.flatten(1)]
    colours = F.adaptive_avg_pool2d(examples, (8, 8)).flatten(1)
    if min(examples.shape[2:]) < 4:
        return [colours]
    light = examples.mean(dim=1, keepdim=True)
    across = light[:, :, :, 1:] - light[:, :, :, :-1]
    down = light[:, :, 1:, :] - light[:, :, :-1, :]
    edges = [F.relu(sign * step) for step in (across, down) for sign in (1.0, -1.0)]
    pooled = [F.adaptive_avg_pool2d(edge, (4, 4)).flatten(1) for edge in edges]
    return [colours, torch.cat(pooled, dim=1)]


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances (N, M); by differences, so that equal rows are at distance 0."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def mean_distance(rows: Tensor) -> float:
    """Mean Euclidean distance between two different rows of (N, D); 0 for a single one."""
    count = len(rows)
    if count < 2:
        return 0.0
    return float(_distances(rows, rows).double().sum()) / (count * (count - 1))


def nearest(rows: Tensor, others: Tensor | None = None, *, count: int | None = None) -> Tensor:
    """Distance (N,) of each row (N, D) to the nearest of `others` (M, D), or of its fellows.

    Args:
        count: of the first so many rows only.
    """
    some = rows[:count]
    distances = _distances(some, rows if others is None else others)
    if others is None:
        distances.fill_diagonal_(math.inf)
    return distances.min(dim=1).values


# ---- What the generator makes ----


def diversity(fakes: Tensor, reals: Tensor) -> float:
    """Mean distance between fakes over that between reals, rows (N, D), (M, D). Collapse: 0."""
    usual = mean_distance(reals)
    return mean_distance(fakes) / usual if usual > 0 else 1.0


def distance(fakes: Tensor, reals: Tensor) -> float:
    """Energy distance of rows (N, D), (M, D): (2 E|x - y| - E|x - x'| - E|y - y'|) / E|x - x'|.

    Székely and Rizzo 2013, "Energy statistics: a class of statistics based on distances". 0: the same
    distribution (a little less by chance, for it is estimated without bias); about 1: one real alone.
    """
    usual = mean_distance(reals)
    across = float(_distances(fakes, reals).double().mean())
    return (2.0 * across - usual - mean_distance(fakes)) / usual if usual > 0 else 0.0


@dataclass(frozen=True)
class Centroids:
    """Classes known by their mean row, to ask whether examples look like what they are labelled.

    Attributes:
        rows: (K, D); a class without examples has infinities.
        chance: share that one would get right by always naming the most frequent class.
    """

    rows: Tensor
    chance: float

    @classmethod
    def of(cls, rows: Tensor, labels: Tensor, classes: int) -> Centroids:
        """The means of rows (N, D) with labels (N,) in 0 .. classes - 1."""
        counts = torch.bincount(labels, minlength=classes)
        sums = torch.zeros(classes, rows.shape[1]).index_add_(0, labels, rows.float())
        means = sums / counts.clamp(min=1)[:, None]
        means[counts == 0] = math.inf
        return cls(means, float(counts.max()) / max(1, len(labels)))

    def right(self, rows: Tensor, labels: Tensor) -> float:
        """Share of rows (N, D) nearest to their own class, over what chance leaves; 0 is chance."""
        known = self.rows.isfinite().all(dim=1).nonzero().flatten()
        named = known[_distances(rows.float(), self.rows[known]).argmin(dim=1)]
        share = float((named == labels).double().mean())
        return (share - self.chance) / max(1.0 - self.chance, 1e-6)


def duplicates(fakes: Tensor, reals: Tensor) -> float:
    """Share of fakes (N, D) with a fellow closer than half the 1st percentile among reals (M, D).

    Reals that are equal are left out of it: many a folder has some.
    """
    usual = nearest(reals)
    usual = usual[usual > 0]
    limit = 0.5 * float(torch.quantile(usual, 0.01)) if len(usual) else 0.0
    return float((nearest(fakes) <= limit).double().mean())


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred rows (N, D).

    In how many directions rows vary, directions counted by their share. Roy and Vetterli 2007, "The
    effective rank: a measure of effective dimensionality", equation 2.
    """
    values = torch.linalg.svdvals((rows - rows.mean(dim=0)).double())
    total = values.sum()
    if float(total) <= 0:
        return 1.0
    share = values / total
    return float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum()))


def coverage(fakes: Tensor, reals: Tensor, k: int = 5) -> float:
    """Share of reals (M, D) with a fake nearer than their k-th nearest fellow, over its ideal.

    Naeem et al. 2020, arXiv 2002.09797, equation 9; the ideal is 1 - 2^-k, what another such draw of
    reals would give (lemma 2), so that a perfect generator has 1.
    """
    count = len(reals)
    k = min(k, count - 1)
    distances = _distances(reals, reals)
    reach = distances.kthvalue(k + 1, dim=1).values  # itself is the first
    covered = (_distances(reals, fakes).min(dim=1).values <= reach).double().mean()
    return float(covered) / (1.0 - 2.0**-k)


def copying(fakes: Tensor, train: Tensor, usual: Tensor) -> float:
    """Median distance of fakes to their nearest training example over that of new reals.

    1 is what new reals would give; towards 0, fakes are copies.

    Args:
        fakes, train: rows (N, D), (T, D).
        usual: distances (M,) of unseen reals to their nearest training example; where nothing is held
            out, those of training examples to each other.
    """
    unit = float(usual.median())
    return float(nearest(fakes, train).median()) / unit if unit > 0 else 1.0


def checkerboard(pictures: Tensor) -> float:
    """Share of a picture's detail that alternates from pixel to pixel, pictures (N, C, H, W).

    The energy of the spectrum where either frequency is the highest there is, over that of all
    frequencies but the mean. Transposed convolutions leave it (Odena et al. 2016).
    """
    spectrum = torch.fft.fft2(pictures.detach().float()).abs().square().mean(dim=(0, 1))
    height, width = spectrum.shape
    rest = float(spectrum.sum() - spectrum[0, 0])
    # Odd sides have two highest frequencies, one of each sign.
    highest = torch.zeros(height, width, dtype=torch.bool)
    highest[[height // 2, -(height // 2)]] = True
    highest[:, [width // 2, -(width // 2)]] = True
    return float(spectrum[highest].sum()) / rest if rest > 0 else 0.0


def saturation(pictures: Tensor) -> float:
    """Share of values beyond .99 of the range [-1, 1]."""
    return float((pictures.detach().abs() > 0.99).double().mean())


def path_and_way(places: list[Tensor]) -> tuple[float, float]:
    """Length of the path through these rows (N, D) and the straight way from first to last.

    Means over rows, for the same latents at different times. A generator that cycles walks far and
    gets nowhere.
    """
    steps = [float((b - a).norm(dim=1).mean()) for a, b in pairwise(places)]
    return sum(steps), float((places[-1] - places[0]).norm(dim=1).mean())
