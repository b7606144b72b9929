"""What written texts are judged by: likelihoods, BLEU beside real texts and each other, copies.

One figure tells little: a model that always writes the same good sentence has a fine BLEU. So each
figure of quality stands beside one of variety, and both at several temperatures (`curve`), because any
model becomes better at the one and worse at the other when it is cooled (Caccia et al. 2018, Language
GANs Falling Short, arXiv 1811.02549).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faussaire.core.batch import RowDraws
from faussaire.core.errors import UserError
from faussaire.texts.recurrent import counted, shifted, surprise

_BATCH = 500
FLOOR = 0.1
"""Matches that an order without any is given, so that one missing order does not make a BLEU of 0."""


# ---- Likelihoods ----


@torch.no_grad()
def sampled(family: Any, count: int, *, seed: int = 0, temperature: float | None = None) -> Tensor:
    """Sentences of a family as its nets stand, (count, T) int64, on the CPU.

    Args:
        family: a `Writer`.
        count: how many.
        seed: the same seed gives the same sentences, and more of them begin with the same.
        temperature: of each choice; None: the family's.
    """
    device = next(family.nets["generator"].parameters()).device
    parts = []
    for first in range(0, count, _BATCH):
        some = min(_BATCH, count - first)
        draws = RowDraws.counted(seed, some, start=first, device=str(device))
        parts.append(family.sample(draws, truncation=temperature).cpu())
    return torch.cat(parts)


@torch.no_grad()
def nll_gen(family: Any, tokens: Tensor | np.ndarray, *, temperature: float | None = None) -> float:
    """Nats a token that a family gives to sentences (N, T), their ends counted.

    On sentences that it did not train on, the negative log-likelihood; on an oracle's, NLL_gen of
    Zhu et al. 2018 (Texygen, arXiv 1802.01886). Less is better; dropped kinds of sentences raise it.

    Args:
        family: a `Writer`.
        tokens: real sentences.
        temperature: that its logits are divided by, as sampling at it does, above 0; None: the
            family's.
    """
    heat = family.config.temperature if temperature is None else temperature
    net = family.nets["generator"]
    device = next(net.parameters()).device
    rows = torch.as_tensor(tokens).long()
    total = count = 0.0
    for part in rows.split(_BATCH):
        part = part.to(device)
        logits, _ = net(shifted(part, family.spec.begin))
        mask = counted(part, family.spec)
        total += float((surprise(logits / heat, part) * mask).sum(dtype=torch.float64))
        count += float(mask.sum())
    return total / count


# ---- BLEU ----


def bleu(
    sentences: Sequence[Sequence[Hashable]],
    references: Sequence[Sequence[Hashable]] | None = None,
    *,
    order: int = 4,
) -> np.ndarray:
    """BLEU of each sentence beside all references at once, in [0, 1], (N,).

    Papineni et al. 2002, doi 10.3115/1073083.1073135, by sentence as papers on GANs for text have it:
    of the runs of 1 to `order` tokens the geometric mean of the shares that occur in some reference,
    each at most as often as in the reference that has it most; too short sentences pay. An order
    without matches counts as 0.1 of one (method 1 of Chen and Cherry 2014, doi 10.3115/v1/W14-3346).

    Args:
        sentences: of any tokens that can be compared.
        references: None: each sentence beside all the other sentences, which is Self-BLEU (Zhu et al.
            2018, arXiv 1802.01886).
        order: longest runs.

    Raises:
        ValueError: nothing to compare, or nothing to compare with.
    """
    if not sentences or not (len(sentences) > 1 if references is None else references):
        raise ValueError("BLEU needs sentences, and others to compare them with")
    numbers: dict[Hashable, int] = {}

    def numbered(texts: Iterable[Sequence[Hashable]]) -> list[np.ndarray]:
        return [
            np.array([numbers.setdefault(t, len(numbers)) for t in text], int) for text in texts
        ]

    ours = numbered(sentences)
    theirs = None if references is None else numbered(references)
    logs = np.zeros(len(ours))
    for size in range(1, order + 1):
        matches = _matches(ours, theirs, size)
        totals = np.array([max(1, len(text) - size + 1) for text in ours])
        logs += np.log(np.where(matches > 0, matches, FLOOR) / totals) / order
    lengths = np.array([len(text) for text in ours])
    usual = _closest(lengths, None if theirs is None else np.array([len(text) for text in theirs]))
    brevity = np.where(lengths >= usual, 0.0, 1.0 - usual / np.maximum(lengths, 1))
    return np.where(lengths > 0, np.exp(logs + brevity), 0.0)


def self_bleu(sentences: Sequence[Sequence[Hashable]], *, order: int = 4) -> float:
    """The mean BLEU of each sentence beside all the others, in [0, 1]: high where all are alike."""
    return float(bleu(sentences, order=order).mean())


def _grams(texts: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """All runs of `size` tokens, (K, size), and the text that each is of, (K,)."""
    views = [
        np.lib.stride_tricks.sliding_window_view(text, size) for text in texts if len(text) >= size
    ]
    owners = [
        np.full(len(text) - size + 1, owner)
        for owner, text in enumerate(texts)
        if len(text) >= size
    ]
    if not views:
        return np.zeros((0, size), int), np.zeros(0, int)
    return np.concatenate(views), np.concatenate(owners)


def _matches(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray] | None, size: int
) -> np.ndarray:
    """Of each of our texts, how many of its runs some reference has, each at most as often, (N,)."""
    grams, owners = _grams(ours, size)
    if theirs is not None:
        more, others = _grams(theirs, size)
        grams, owners = np.concatenate([grams, more]), np.concatenate([owners, others + len(ours)])
    if not len(grams):
        return np.zeros(len(ours))
    kinds = np.unique(grams, axis=0, return_inverse=True)[1].reshape(-1)
    pairs, counts = np.unique(np.stack([kinds, owners], 1), axis=0, return_counts=True)
    kind, owner = pairs.T
    mine = owner < len(ours)
    known = np.zeros(kinds.max() + 1, int)
    if theirs is not None:
        np.maximum.at(known, kind[~mine], counts[~mine])
        most = known[kind]
    else:
        # Most often in any other text: the largest count, or the second where the largest is its own.
        order = np.lexsort((-counts, kind))
        first = np.flatnonzero(np.r_[True, np.diff(kind[order]) > 0])
        second = np.minimum(first + 1, len(order) - 1)
        same = (kind[order[second]] == kind[order[first]]) & (second > first)
        known[kind[order[first]]] = counts[order[first]]
        runner_up = np.zeros_like(known)
        runner_up[kind[order[first]]] = np.where(same, counts[order[second]], 0)
        leader = np.zeros_like(known)
        leader[kind[order[first]]] = owner[order[first]]
        most = np.where(leader[kind] == owner, runner_up[kind], known[kind])
    clipped = np.minimum(counts, most)
    return np.bincount(owner[mine], clipped[mine], minlength=len(ours))


def _closest(lengths: np.ndarray, references: np.ndarray | None) -> np.ndarray:
    """The length nearest to each among the references, the shorter of two: (N,)."""
    if references is None:
        kept = np.sort(lengths)
        several = np.searchsorted(kept, lengths, "right") - np.searchsorted(kept, lengths) > 1
        unique = np.unique(lengths)
        if len(unique) == 1:
            return lengths
        # Alone at its length: the nearest of the other lengths.
        place = np.searchsorted(unique, lengths)
        below = unique[np.maximum(place - 1, 0)]
        above = unique[np.minimum(place + 1, len(unique) - 1)]
        take = (place > 0) & ((lengths - below <= above - lengths) | (place == len(unique) - 1))
        return np.where(several, lengths, np.where(take, below, above))
    unique = np.unique(references)
    place = np.searchsorted(unique, lengths)
    below, above = unique[np.maximum(place - 1, 0)], unique[np.minimum(place, len(unique) - 1)]
    return np.where(np.abs(lengths - below) <= np.abs(above - lengths), below, above)


def corpus_bleu(
    sentences: Sequence[str], references: Sequence[str], *, order: int = 4
) -> tuple[float, str]:
    """sacrebleu's BLEU, 0 to 100, of sentences of which each has all references; and its signature.

    Post 2018, "A Call for Clarity in Reporting BLEU Scores", arXiv 1804.08771. It counts each pair, so
    some hundred of either are a matter of seconds.

    Args:
        sentences: what was written.
        references: real sentences, of which any is as good as another.
        order: longest runs; 4 is BLEU as everybody has it.

    Raises:
        UserError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as error:
        raise UserError(
            "This BLEU needs sacrebleu, which is not installed.",
            "Run: pip install 'faussaire[texts]'",
        ) from error
    metric = BLEU(max_ngram_order=order)
    streams = [[reference] * len(sentences) for reference in references]
    score = metric.corpus_score(list(sentences), streams).score
    return score, str(metric.get_signature())


# ---- Copies, and the price of quality ----


def copied(tokens: Tensor | np.ndarray, known: Tensor | np.ndarray) -> float:
    """Share of sentences (N, T) that are among known ones (M, T), word for word.

    Read it beside the share of held-out sentences that are: short common sentences come twice in any
    corpus.
    """
    seen = {row.tobytes() for row in np.ascontiguousarray(np.asarray(known), np.int64)}
    rows = np.ascontiguousarray(np.asarray(tokens), np.int64)
    return float(np.mean([row.tobytes() in seen for row in rows]))


@dataclass(frozen=True)
class Point:
    """Quality and variety at one temperature."""

    temperature: float
    quality: float
    variety: float


def curve(
    family: Any,
    temperatures: Sequence[float],
    quality: Callable[[Tensor], float],
    variety: Callable[[Tensor, float], float],
    *,
    count: int = 1000,
    seed: int = 0,
) -> list[Point]:
    """What a family's sentences are worth at several temperatures.

    A model is better than another where its curve lies below (or above, where more is better) at every
    variety, not where one point does.

    Args:
        family: a `Writer`.
        temperatures: above 0.
        quality: of sentences (count, T).
        variety: of sentences (count, T) drawn at a temperature: Self-BLEU of the former, say, or
            `nll_gen` at the latter.
        count: sentences at each temperature.
        seed: of the sentences, the same for all temperatures.
    """
    points = []
    for temperature in temperatures:
        tokens = sampled(family, count, seed=seed, temperature=temperature)
        points.append(Point(temperature, quality(tokens), variety(tokens, temperature)))
    return points
