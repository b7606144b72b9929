"""Inception Score: are samples each of one class, and together of many?

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv 1606.03498, section 4:

    IS = exp( E_x[ KL( p(y|x) || p(y) ) ] ),   p(y) = E_x[ p(y|x) ]

It looks at no real picture.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from faussaire.metrics.inputs import require_features


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation of the score over `splits` equal parts, in the order given.

    The deviation is divided by `splits`, not `splits` - 1, as in the authors' tables. It depends on
    the size of a part: compare only scores of equal counts.

    Args:
        logits: (N, K) of the classifier.
        splits: parts; N >= splits.

    Raises:
        UserError: fewer than `splits` samples, NaN or infinity.
    """
    logits = require_features(logits, least=splits)
    count = len(logits)
    edges = [count * i // splits for i in range(splits + 1)]
    scores = torch.stack([_score(logits[a:b]) for a, b in pairwise(edges)])
    return float(scores.mean()), float(scores.std(correction=0))


def _score(logits: Tensor) -> Tensor:
    """exp of the mean divergence of (n, K) from their mixture, by log-probabilities in float64."""
    log_p = logits.double().log_softmax(dim=1)
    log_mixture = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_mixture)).sum(dim=1).mean().exp()
