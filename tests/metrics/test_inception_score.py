"""The Inception Score by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from faussaire.core.errors import UserError
from faussaire.metrics.inception_score import inception_score


def test_no_opinion_scores_1():
    assert inception_score(torch.full((100, 8), 3.0)) == (pytest.approx(1.0), pytest.approx(0.0))


def test_sure_and_balanced_scores_the_number_of_classes():
    logits = 1e4 * F.one_hot(torch.arange(200) % 20, 20).float()
    mean, deviation = inception_score(logits)
    assert mean == pytest.approx(20.0)
    assert deviation == pytest.approx(0.0, abs=1e-9)


def test_one_class_alone_scores_1():
    logits = 1e4 * F.one_hot(torch.full((50,), 3), 10).float()
    assert inception_score(logits)[0] == pytest.approx(1.0)


def test_two_samples_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    mixture = (0.6, 0.4)
    divergence = 0.5 * sum(
        float(row[c]) * math.log(float(row[c]) / mixture[c]) for row in p for c in range(2)
    )
    found = inception_score(p.log() + 7.0, splits=1)  # logits have no absolute height
    assert found == (pytest.approx(math.exp(divergence), rel=1e-12), 0.0)


def test_splits_are_in_order_and_cover_everything():
    sure = 1e4 * F.one_hot(torch.arange(50) % 5, 5).float()
    logits = torch.cat([sure, torch.zeros(53, 5)])  # 103: parts of 10 and 11
    mean, deviation = inception_score(logits)
    assert 2.8 < mean < 3.2
    assert 1.8 < deviation < 2.1
    edges = [103 * i // 10 for i in range(11)]
    parts = [inception_score(logits[a:b], splits=1)[0] for a, b in pairwise(edges)]
    assert mean == pytest.approx(sum(parts) / 10.0)
    assert deviation == pytest.approx((sum((p - mean) ** 2 for p in parts) / 10.0) ** 0.5)


def test_what_cannot_be_measured():
    with pytest.raises(UserError, match="9 feature vectors are too few: this statistic needs 10"):
        inception_score(torch.zeros(9, 5))
    with pytest.raises(UserError, match="picture 2 holds NaN or infinity"):
        inception_score(torch.tensor([[0.0, 1.0]] * 2 + [[0.0, float("inf")]] + [[0.0, 1.0]] * 9))
