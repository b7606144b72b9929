"""Discriminators of texts: convolutions over time, as wide as phrases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Phrases(nn.Module):
    """What phrases are in a sentence: (N, E, T) to (N, sum of filters).

    Kim 2014, "Convolutional Neural Networks for Sentence Classification", arXiv 1408.5882: filters of
    several widths, each by its largest answer anywhere in the sentence; widths above T are left out.

    Args:
        embedding: numbers a token, E.
        filters: how many for each width.
        length: T.
    """

    def __init__(self, embedding: int, filters: Sequence[tuple[int, int]], length: int) -> None:
        super().__init__()
        fitting = [(width, count) for width, count in filters if width <= length]
        self.filters = nn.ModuleList(nn.Conv1d(embedding, count, width) for width, count in fitting)
        self.size = sum(count for _, count in fitting)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(filters(x)).amax(dim=2) for filters in self.filters], dim=1)


class Highway(nn.Module):
    """t * relu(W x) + (1 - t) * x with t = sigmoid(W' x): (N, C) to (N, C).

    Srivastava, Greff and Schmidhuber 2015, "Highway Networks", arXiv 1505.00387. It begins mostly open
    to x itself.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(size, size), nn.Linear(size, size)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        share = torch.sigmoid(self.gate(x))
        return share * F.relu(self.change(x)) + (1.0 - share) * x


@contextmanager
def judging(net: nn.Module) -> Iterator[None]:
    """Within it a network drops nothing, for what it says counts; its mode is put back."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
