"""MuseGAN: phrases of several tracks as piano rolls, by a shared network and one for each track.

MuseGAN: Multi-track Sequential Generative Adversarial Networks for Symbolic Music Generation and
Accompaniment. Hao-Wen Dong, Wen-Yi Hsiao, Li-Chia Yang, Yi-Hsuan Yang. 2018. arXiv 1709.06298. And:
Convolutional Generative Adversarial Networks with Binary Neurons for Polyphonic Music Generation.
Hao-Wen Dong, Yi-Hsuan Yang. 2018. arXiv 1804.09399.

A phrase is x in {0, 1}, bars x steps x pitches x tracks. The first paper's hybrid model has four kinds
of noise: z and z_i, one for all tracks and one for each, that stay; and z^(t) and z_i^(t), of which
temporal generators make a vector for each bar: G(z, G_temp(z^(t))^(bar), z_i, G_temp,i(z_i^(t))^(bar)).
With `private` 0 it is the composer model: all tracks from the same noise.

The networks are the second paper's: the generator's shared part makes a map of beats by octaves, from
which a private part for each track makes twelve pitches of every octave and the steps of every beat, in
both orders (a stream of pitch, then time, and one of time, then pitch), which are merged. The critic is
the mirror: private streams, then a shared part; beside them a chroma stream sees octaves and a beat's
steps added up, and an onset/offset stream sees where notes begin and end. WGAN-GP without normalisation
in the critic; Adam of rate 1e-3, beta1 .5, beta2 .9, whose rate falls to 0 over the last tenth.

Binary neurons (second paper): 1[s(h) > 1/2], deterministic, or 1[s(h) > v] with v uniform, stochastic,
whose gradient is that of s(a h), the slope a growing over the run (the slope-annealing trick). They take
over after a first part of the run with real-valued outputs (`pretrain`), as the paper trains in two
stages. `threshold` never trains with them: outputs are rounded when samples are made.

Where this leaves the papers:
- Every kernel here is as large as its stride; so each layer is a product of matrices on reshaped
  tensors, which is what a CPU does best.
- In the second stage the generator itself goes on with binary neurons; there is no refiner network.
- The jamming model (no shared noise) and generation from a given track are not here.
- Any number of tracks, bars, steps and octaves; samples by averaged weights; half of the paper's width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.phase import Stage
from faussaire.music.spec import MusicData, Score
from faussaire.nn.fused import BatchNormAct2d
from faussaire.wasserstein import WassersteinConfig, WassersteinGAN


@dataclass(frozen=True, kw_only=True)
class MuseGANConfig(WassersteinConfig):
    """Settings of MuseGAN.

    Attributes:
        lr: learning rate of both.
        decay_from: share of the run after which the rate falls to 0 in a straight line; 1: never.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        critic_steps: updates of the critic in a round.
        gradient_penalty: lambda of E(|grad D| - 1)^2 between reals and fakes.
        shared: numbers in the noise of all tracks; half stay, half become a vector for each bar.
        private: numbers in the noise of each track, likewise; 0: none (the composer model).
        width: channels of the shared map of beats by octaves, a multiple of 8; others follow from it
            (paper: 128).
        binary: the generator's outputs in training: `deterministic` or `stochastic` binary neurons, or
            real numbers that a `threshold` makes binary when samples are made.
        pretrain: share of the run with real-valued outputs before binary neurons take over.
        slope: of the neurons' gradient at the end of the run; it is 1 at the beginning.
    """

    Data: ClassVar[type] = MusicData

    lr: float = 1e-3
    decay_from: float = 0.9
    beta1: float = 0.5
    beta2: float = 0.9
    critic_steps: int = 5
    gradient_penalty: float = 10.0
    shared: int = 64
    private: int = 16
    width: int = 64
    binary: Literal["deterministic", "stochastic", "threshold"] = "deterministic"
    pretrain: float = 0.5
    slope: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            shared=(2, 100_000),
            private=(0, 100_000),
            width=(8, 4096),
            pretrain=(0, 1),
            slope=(1, 100),
        )
        for name, least in (("shared", 2), ("private", 2), ("width", 8)):
            if getattr(self, name) % least:
                raise UserError(
                    f"{name} cannot be {getattr(self, name)}.", f"It must be a multiple of {least}."
                )


class Normed(nn.Module):
    """A product with a matrix, batch normalisation and ReLU, on the last axis of any tensor."""

    def __init__(self, ins: int, outs: int, channels: int | None = None) -> None:
        super().__init__()
        self.map = nn.Linear(ins, outs, bias=False)
        self.channels = channels or outs
        self.norm = BatchNormAct2d(self.channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.map(x)
        return self.norm(y.reshape(-1, self.channels, 1, 1)).view(y.shape)


class TemporalGenerator(nn.Module):
    """G_temp: noise (N, K) to a vector for each bar, (N, bars, K)."""

    def __init__(self, size: int, bars: int) -> None:
        super().__init__()
        self.bars = bars
        self.spread = Normed(size, 2 * size)
        self.unroll = Normed(2 * size, bars * size, size)

    def forward(self, z: Tensor) -> Tensor:
        return self.unroll(self.spread(z)).view(len(z), self.bars, -1)


class Noise(nn.Module):
    """Noise (N, 2 K) to (N, bars, 2 K): one half as it is in every bar, the other a vector for each."""

    def __init__(self, size: int, bars: int) -> None:
        super().__init__()
        self.bars = bars
        self.temporal = TemporalGenerator(size // 2, bars)

    def forward(self, z: Tensor) -> Tensor:
        still, moving = z.chunk(2, dim=1)
        return torch.cat([still[:, None].expand(-1, self.bars, -1), self.temporal(moving)], dim=2)


class PrivateGenerator(nn.Module):
    """A track's part: maps (N, bars, beats, octaves, C) and noise (N, bars, K) to logits.

    The logits are (N, bars, beats, steps of a beat, octaves, 12).
    """

    def __init__(self, config: MuseGANConfig, score: Score) -> None:
        super().__init__()
        width, steps = config.width, score.beat_steps
        one, two = width // 4, width // 8
        self.steps = steps
        self.own = None
        self.grid = (score.beats, score.octaves)
        extra = 0
        if config.private:
            extra = one
            self.noise = Noise(config.private, score.bars)
            self.own = Normed(config.private, math.prod(self.grid) * one, one)
        self.pitch_first = Normed(width + extra, 12 * one, one)
        self.then_time = Normed(one, steps * two, two)
        self.time_first = Normed(width + extra, steps * one, one)
        self.then_pitch = Normed(one, 12 * two, two)
        self.merge = nn.Linear(2 * two, 1)
        # Rolls are mostly empty: to begin at one half everywhere would be far from all music.
        nn.init.constant_(self.merge.bias, -3.0)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        if self.own is not None and z is not None:
            own = self.own(self.noise(z))
            x = torch.cat([x, own.view(*x.shape[:2], *self.grid, -1)], dim=4)
        head = x.shape[:4]
        pitch = self.then_time(self.pitch_first(x).view(*head, 12, -1))
        pitch = pitch.view(*head, 12, self.steps, -1).transpose(4, 5)
        time = self.then_pitch(self.time_first(x).view(*head, self.steps, -1))
        time = time.view(*head, self.steps, 12, -1)
        # The merge of both streams, before they lie side by side.
        ways = self.merge.weight.split(pitch.shape[-1], dim=1)
        logits = F.linear(pitch, ways[0]) + F.linear(time, ways[1], self.merge.bias)
        return logits[..., 0].transpose(3, 4)


class Generator(nn.Module):
    """Noise (N, shared + tracks * private) to logits (N, bars, steps, pitches, tracks)."""

    def __init__(self, config: MuseGANConfig, score: Score) -> None:
        super().__init__()
        width = config.width
        self.sizes = [config.shared, *[config.private] * len(score.tracks)]
        self.score = score
        self.noise = Noise(config.shared, score.bars)
        self.bar = Normed(config.shared, 4 * width)
        self.beats = Normed(4 * width, score.beats * 2 * width, 2 * width)
        self.octaves = Normed(2 * width, score.octaves * width, width)
        self.tracks = nn.ModuleList([PrivateGenerator(config, score) for _ in score.tracks])

    def forward(self, z: Tensor) -> Tensor:
        score = self.score
        common, *own = z.split(self.sizes, dim=1)
        x = self.bar(self.noise(common))
        x = self.beats(x).view(len(z), score.bars, score.beats, -1)
        x = self.octaves(x).view(len(z), score.bars, score.beats, score.octaves, -1)
        parts = [track(x, some) for track, some in zip(self.tracks, own, strict=True)]
        return torch.stack(parts, dim=6).view(len(z), *score.shape)


class PrivateCritic(nn.Module):
    """A track's part: its roll (N, bars, beats, steps of a beat, octaves, 12) to features.

    Features are (N, bars, beats, octaves, width).
    """

    def __init__(self, config: MuseGANConfig, score: Score) -> None:
        super().__init__()
        one, two = config.width // 4, config.width // 2
        steps = score.beat_steps
        self.pitch_first = nn.Linear(12, one)
        self.then_time = nn.Linear(steps * one, two)
        self.time_first = nn.Linear(steps, one)
        self.then_pitch = nn.Linear(12 * one, two)

    def forward(self, x: Tensor) -> Tensor:
        pitch = _leaky(self.pitch_first(x)).transpose(3, 4).flatten(4)
        time = _leaky(self.time_first(x.permute(0, 1, 2, 4, 5, 3))).flatten(4)
        return _leaky(torch.cat([self.then_time(pitch), self.then_pitch(time)], dim=4))


class Critic(nn.Module):
    """Rolls (N, bars, steps, pitches, tracks) to scores (N,)."""

    def __init__(self, config: MuseGANConfig, score: Score) -> None:
        super().__init__()
        width, tracks = config.width, len(score.tracks)
        self.score = score
        self.tracks = nn.ModuleList([PrivateCritic(config, score) for _ in score.tracks])
        self.join = nn.Linear(tracks * width, 2 * width)
        self.octaves = nn.Linear(score.octaves * 2 * width, 2 * width)
        self.beats = nn.Linear(score.beats * 2 * width, 4 * width)
        self.chroma = nn.Linear(12 * tracks, width)
        self.chroma_beats = nn.Linear(score.beats * width, width)
        self.onsets = nn.Linear(score.beat_steps * 2 * tracks, width // 2)
        self.onset_beats = nn.Linear(score.beats * width // 2, width)
        self.bars = nn.Linear(score.bars * 6 * width, 4 * width)
        # Without a bias: to Wasserstein's distance it means nothing.
        self.decide = nn.Linear(4 * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        score = self.score
        head = (len(x), score.bars, score.beats)
        cells = x.reshape(*head, score.beat_steps, score.octaves, 12, len(score.tracks))
        parts = [track(cells[..., index]) for index, track in enumerate(self.tracks)]
        seen = _leaky(self.join(torch.cat(parts, dim=4)))
        seen = _leaky(self.octaves(seen.flatten(3)))
        seen = _leaky(self.beats(seen.flatten(2)))
        classes = chroma(cells).flatten(3)
        classes = _leaky(self.chroma_beats(_leaky(self.chroma(classes)).flatten(2)))
        edges = onsets_and_offsets(x).view(*head, -1)
        edges = _leaky(self.onset_beats(_leaky(self.onsets(edges)).flatten(2)))
        bars = torch.cat([seen, classes, edges], dim=2).flatten(1)
        return self.decide(_leaky(self.bars(bars)))[:, 0]


def chroma(cells: Tensor) -> Tensor:
    """How long each pitch class sounds in each beat: (N, bars, beats, 12, tracks), in beats.

    Args:
        cells: (N, bars, beats, steps of a beat, octaves, 12, tracks).
    """
    return cells.sum(dim=(3, 4)) / cells.shape[3]


def onsets_and_offsets(x: Tensor) -> Tensor:
    """How many notes begin and end at each step: (N, bars, steps, 2 tracks).

    Differences of adjacent steps over the whole phrase, those up and those down, summed over pitches.

    Args:
        x: (N, bars, steps, pitches, tracks).
    """
    line = x.flatten(1, 2)
    change = line - F.pad(line[:, :-1], (0, 0, 0, 0, 1, 0))
    edges = torch.cat([change.relu().sum(dim=2), (-change).relu().sum(dim=2)], dim=2)
    return edges.view(*x.shape[:3], -1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def binary_neurons(logits: Tensor, threshold: Tensor | float, slope: float) -> Tensor:
    """1[s(h) > threshold], with the gradient of s(slope h).

    Args:
        logits: h.
        threshold: 1/2, or uniform numbers of the shape of h.
        slope: a.
    """
    soft = torch.sigmoid(slope * logits)
    return soft + ((logits.sigmoid() > threshold).to(soft) - soft).detach()


class MuseGAN(WassersteinGAN[MuseGANConfig]):
    """MuseGAN on phrases of any tracks and bars."""

    Config = MuseGANConfig
    modality = "music"
    presets: ClassVar = {
        "paper": {"width": 128, "shared": 64, "private": 64, "batch": 64},
        "composer": {"shared": 128, "private": 0},
    }
    sizes: ClassVar = {
        "tiny": {"width": 32},
        "small": {"width": 64},
        "base": {"width": 128},
        "large": {"width": 256},
    }
    training: ClassVar = {"batch": 64}

    def __init__(self, config: MuseGANConfig, spec: Score) -> None:
        super().__init__(config, spec)
        self.nets = {"generator": Generator(config, spec), "critic": Critic(config, spec)}

    def stages(self, total: int) -> tuple[Stage, ...]:
        phases = self.phases()
        share = self.config.pretrain
        if self.config.binary == "threshold" or share >= 1.0:
            return (Stage(name="real-valued", phases=phases),)
        if share <= 0.0:
            return (Stage(name="binary", phases=phases),)
        first = Stage(name="real-valued", phases=phases, until=round(share * total))
        return first, Stage(name="binary", phases=phases)

    def reals(self, batch: Any) -> Tensor:
        """Rolls of uint8 as numbers 0 and 1, (N, bars, steps, pitches, tracks)."""
        return batch["rolls"].float()

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Tensor:
        logits = self.nets["generator"](z)
        if clock.stage != "binary":
            return logits.sigmoid()
        slope = 1.0 + (self.config.slope - 1.0) * clock.progress
        return binary_neurons(logits, self.threshold(draws), slope)

    def threshold(self, draws: Draws) -> Tensor | float:
        """What an output must exceed to be a note."""
        if self.config.binary == "stochastic":
            return draws.uniform(*self.spec.shape)
        return 0.5

    def judge(self, x: Tensor, condition: Tensor | None, draws: Draws) -> Tensor:
        return self.nets["critic"](x)

    def glimpse(self, x: Tensor) -> Tensor:
        """How long each pitch class sounds in each beat of each track."""
        score = self.spec
        beats = (score.bars, score.beats, score.beat_steps)
        return chroma(x.reshape(len(x), *beats, score.octaves, 12, -1)).flatten(1)

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(self.config.shared + len(self.spec.tracks) * self.config.private)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Rolls (N, bars, steps, pitches, tracks) of 0 and 1.

        Args:
            draws: randomness for N rows.
            labels: not used: there are no classes.
            latents: (N, shared + tracks * private) to use in place of `latents(draws)`.
            truncation: what the latent numbers are multiplied by, above 0.

        Raises:
            UserError: a truncation out of range.
        """
        z = self.latents(draws) if latents is None else latents
        if truncation is not None:
            if truncation <= 0.0:
                raise UserError(
                    f"A truncation of {truncation} leaves one phrase.", "Write one above 0."
                )
            z = truncation * z
        p = self.nets["generator"](z).sigmoid()
        return (p > self.threshold(draws)).float()

    def cautions(self, count: int, batch: int) -> list[str]:
        return []
