"""A classifier of clips by their log-mel spectrograms, taught the recordings' own classes.

What the Inception network is to pictures: Donahue et al. 2019, arXiv 1802.04208, section 5.1, train such
a one on spoken digits and take the Inception Score (Salimans et al. 2016, arXiv 1606.03498) by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import mix
from faussaire.sound.mel import FLOOR, log_mel

STEPS = 400
BATCH = 64
_FRAMES = 4  # spectrogram frames that are averaged to one
_MOST = 12  # places by which a clip is moved in training


@dataclass
class Ear:
    """A classifier that was taught.

    Attributes:
        net: log-mel pictures to logits.
        rate: of the clips that it hears.
        accuracy: the share of unseen recordings that it tells right.
        unseen: how many those were.
    """

    net: nn.Module
    rate: int
    accuracy: float = float("nan")
    unseen: int = 0

    @torch.no_grad()
    def __call__(self, waves: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) of clips (N, L) in [-1, 1]."""
        shown = looks(waves, self.rate)
        parts = [self.net(shown[at : at + 256]).softmax(1) for at in range(0, len(shown), 256)]
        return torch.cat(parts).double().numpy()


def looks(waves: np.ndarray, rate: int) -> Tensor:
    """What the classifier sees of clips (N, L): (N, 1, frames / 4, 40), 0 at half range."""
    mel = (log_mel(waves, rate) - FLOOR / 2) / (-FLOOR / 2)
    frames = mel.shape[1] // _FRAMES * _FRAMES
    mel = mel[:, :frames].reshape(len(mel), -1, _FRAMES, mel.shape[2]).mean(axis=2)
    return torch.from_numpy(mel.astype(np.float32))[:, None]


def teach(
    waves: np.ndarray,
    labels: np.ndarray,
    classes: int,
    rate: int,
    *,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Ear:
    """A classifier that has learnt from labelled clips, on the CPU.

    Args:
        waves, labels: (N, L) in [-1, 1], and class numbers (N,).
        classes: how many there are.
        rate: of the clips.
        test: unseen clips and their labels; None: its accuracy stays unknown.
        steps: of Adam, on batches of 64.
        seed: of weights and batches.
        progress: called as progress(what, done, total).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "ear"))
        net = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((2, 3)),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(384, classes),
        )
        shown, truth = looks(waves, rate), torch.from_numpy(np.asarray(labels, np.int64))
        optimiser = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=1e-4)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        rng = np.random.default_rng(mix(seed, "lessons"))
        for step in range(steps):
            rows = torch.from_numpy(rng.integers(len(shown), size=BATCH))
            batch = shown[rows].roll(int(rng.integers(-_MOST // 4, _MOST // 4 + 1)), dims=2)
            loss = F.cross_entropy(net(batch), truth[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            if progress is not None:
                progress("teaching a classifier", step, steps)
    ear = Ear(net.eval(), rate)
    if test is not None:
        told = ear(test[0]).argmax(axis=1)
        ear.accuracy, ear.unseen = float((told == test[1]).mean()), len(told)
    return ear


def inception_score(probabilities: np.ndarray) -> float:
    """exp E KL(p(y|x) || p(y)) of rows (N, classes): 1 to the number of classes."""
    p = np.clip(probabilities, 1e-12, 1.0)
    marginal = p.mean(axis=0, keepdims=True)
    return float(np.exp((p * (np.log(p) - np.log(marginal))).sum(axis=1).mean()))
