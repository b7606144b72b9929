"""WaveGAN: a convolutional GAN of raw audio, in one dimension.

Adversarial Audio Synthesis. Chris Donahue, Julian McAuley, Miller Puckette. 2019. arXiv 1802.04208.

DCGAN flattened: a kernel of 5x5 with stride 2x2 becomes one of 25 with stride 4, so that a layer adds as
many samples as it did pixels. No batch normalisation; WGAN-GP with five steps of the critic, lambda 10;
z uniform in [-1, 1], Adam with rate 1e-4, beta1 .5, beta2 .9, batches of 64. Phase shuffle: transposed
convolutions leave a pitched noise of fixed phase, by which a critic could tell fakes too easily; so what
its layers see is moved by a random number of places from -n to n, the border filled by reflection. With
`post_filter`, 512 taps learnt at the generator's end take such noise out.

Where this leaves the paper:
- Clips of 8,192 and 32,768 samples begin with 32 places in place of 16; any rate.
- Classes, which the paper has not: the one-hot class joins z, and chooses a bias in every layer of the
  critic.
- Samples are made with averaged weights. The phase is drawn anew for each clip and layer.
- Weights begin as He et al. (2015, arXiv 1502.01852) have it, where the authors' code has Glorot's rule:
  with that, the critic's gradient began at a thirtieth of the length that the penalty asks for.
- Convolutions at the wave itself, of one channel, are computed as ones of stride 1 on frames of four
  samples: the same numbers in half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.sound.spec import LENGTHS, Sound, SoundData
from faussaire.wasserstein import WassersteinConfig, WassersteinGAN

_KERNEL, _STRIDE, _PAD = 25, 4, 11


@dataclass(frozen=True, kw_only=True)
class WaveGANConfig(WassersteinConfig):
    """Settings of WaveGAN.

    Attributes:
        lr: learning rate of both.
        decay_from: share of the run after which the rate falls to 0 in a straight line; 1: never.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        critic_steps: updates of the critic in a round.
        gradient_penalty: lambda of E(|grad D| - 1)^2 between reals and fakes.
        conditional: learn one distribution for each class of the data.
        latent: numbers in z, uniform in [-1, 1].
        width: channels of the layers next to the wave, in both networks; they double with each layer
            (the paper's d is 64).
        phase_shuffle: n: the critic's activations are moved by -n to n places; 0: not at all.
        post_filter: taps of a filter learnt at the generator's end; 0: none (paper: 512).
    """

    Data: ClassVar[type] = SoundData

    lr: float = 1e-4
    decay_from: float = 1.0
    beta1: float = 0.5
    beta2: float = 0.9
    critic_steps: int = 5
    gradient_penalty: float = 10.0
    conditional: bool = False
    latent: int = 100
    width: int = 16
    phase_shuffle: int = 2
    post_filter: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self,
            latent=(1, 100_000),
            width=(1, 1024),
            phase_shuffle=(0, 7),
            post_filter=(0, 4096),
        )


def layers(length: int) -> tuple[int, int]:
    """(layers of stride 4, places that they begin with): 16,384 samples are 5 from 16."""
    count, base = 0, length
    while base > 32:
        count, base = count + 1, base // _STRIDE
    return count, base


# A wave of C channels is (N, C, 1, L), so that the device's layout of pictures serves it, too.


class Down(nn.Module):
    """A convolution of 25 with stride 4: (N, C, 1, L) to (N, D, 1, L / 4)."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outs, ins, 1, _KERNEL))
        self.bias = nn.Parameter(torch.zeros(outs))
        nn.init.kaiming_normal_(self.weight, a=0.2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 1:
            return F.conv2d(x, self.weight, self.bias, stride=(1, _STRIDE), padding=(0, _PAD))
        # Frames i - 3 to i + 3 of four samples hold the 25 from 4 i - 11 on, and three more.
        count, _, _, length = x.shape
        frames = x.reshape(count, length // _STRIDE, 1, _STRIDE).permute(0, 3, 2, 1)
        taps = F.pad(self.weight[:, 0, 0], (1, 2)).view(-1, 7, _STRIDE).transpose(1, 2)
        return F.conv2d(frames, taps.unsqueeze(2), self.bias, padding=(0, 3))


class Up(nn.Module):
    """Its transpose: (N, C, 1, L) to (N, D, 1, 4 L)."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(ins, outs, 1, _KERNEL))
        self.bias = nn.Parameter(torch.zeros(outs))
        # Of a stride of 4, each sample is a sum over a quarter of the taps. The wave begins quiet.
        gain = 1.0 if outs > 1 else 0.1
        nn.init.normal_(self.weight, std=gain * (2.0 * _STRIDE / (_KERNEL * ins)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[1] > 1:
            return F.conv_transpose2d(
                x,
                self.weight,
                self.bias,
                stride=(1, _STRIDE),
                padding=(0, _PAD),
                output_padding=(0, 1),
            )
        # Sample 4 j + r is the sum over i = j - d of x_i w[4 d + r + 11].
        count, _, _, length = x.shape
        taps = F.pad(self.weight[:, 0, 0], (1, 2)).view(-1, 7, _STRIDE).flip(1).permute(2, 0, 1)
        frames = F.conv2d(x, taps.unsqueeze(2), padding=(0, 3))
        wave = frames.permute(0, 2, 3, 1).reshape(count, 1, 1, _STRIDE * length)
        return wave + self.bias.view(1, 1, 1, 1)


class Generator(nn.Module):
    """Noise (N, latent) and classes (N, K) or None to waves (N, L) in [-1, 1]."""

    def __init__(self, config: WaveGANConfig, spec: Sound) -> None:
        super().__init__()
        count, self.base = layers(spec.length)
        widths = [config.width * 2**step for step in reversed(range(count))]
        size = len(spec.classes) if config.conditional else 0
        self.project = nn.Linear(config.latent + size, self.base * widths[0])
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.ups = nn.ModuleList([Up(wide, narrow) for wide, narrow in pairwise([*widths, 1])])
        self.filter = None
        if config.post_filter:
            self.filter = nn.Conv1d(1, 1, config.post_filter, bias=False)
            nn.init.zeros_(self.filter.weight)
            with torch.no_grad():  # at first it lets everything through
                self.filter.weight[0, 0, (config.post_filter - 1) // 2] = 1.0

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            z = torch.cat([z, condition], dim=1)
        x = self.project(z)
        x = x.view(len(z), 1, self.base, -1).permute(0, 3, 1, 2)
        for up in self.ups:
            x = up(F.relu(x))
        wave = torch.tanh(x)[:, 0]
        if self.filter is not None:
            taps = self.filter.kernel_size[0]
            wave = self.filter(F.pad(wave, ((taps - 1) // 2, taps // 2)))
        return wave[:, 0]


class Critic(nn.Module):
    """Waves (N, L), classes (N, K) or None, and shifts (N, layers - 1) or None, to scores (N,)."""

    def __init__(self, config: WaveGANConfig, spec: Sound) -> None:
        super().__init__()
        count, base = layers(spec.length)
        widths = [config.width * 2**step for step in range(count)]
        self.downs = nn.ModuleList([Down(narrow, wide) for narrow, wide in pairwise([1, *widths])])
        size = len(spec.classes) if config.conditional else 0
        biases = [nn.Linear(size, width, bias=False) for width in widths] if size else []
        self.biases = nn.ModuleList(biases)
        # Without a bias: to Wasserstein's distance it means nothing.
        self.decide = nn.Linear(base * widths[-1], 1, bias=False)

    def forward(
        self, wave: Tensor, condition: Tensor | None = None, shifts: Tensor | None = None
    ) -> Tensor:
        x = wave[:, None, None]
        for index, down in enumerate(self.downs):
            x = down(x)
            if condition is not None:
                x = x + self.biases[index](condition)[:, :, None, None]
            x = F.leaky_relu(x, 0.2)
            if shifts is not None and index < len(self.downs) - 1:
                x = shuffle_phase(x, shifts[:, index])
        return self.decide(x.permute(0, 2, 3, 1).flatten(1))[:, 0]


def shuffle_phase(x: Tensor, shift: Tensor) -> Tensor:
    """Each row of (N, C, 1, L) moved along time by its own number of places, reflected at the border.

    Section 2.3 of the paper.

    Args:
        x: activations.
        shift: (N,) int64, smaller than L in size.
    """
    count, channels, _, length = x.shape
    at = torch.arange(length, device=x.device)[None] - shift[:, None]
    at = at.abs()  # -1 is 1
    at = torch.where(at >= length, 2 * (length - 1) - at, at)
    rows = at + torch.arange(count, device=x.device)[:, None] * length
    flat = x.permute(0, 2, 3, 1).reshape(count * length, channels)
    moved = flat.index_select(0, rows.flatten())
    return moved.view(count, 1, length, channels).permute(0, 3, 1, 2)


class WaveGAN(WassersteinGAN[WaveGANConfig]):
    """WaveGAN on clips of 4,096 to 65,536 samples, unconditional or by class."""

    Config = WaveGANConfig
    modality = "sound"
    presets: ClassVar = {"paper": {"width": 64, "batch": 64}}
    sizes: ClassVar = {
        "tiny": {"width": 8},
        "small": {"width": 16},
        "base": {"width": 32},
        "large": {"width": 64},
    }
    training: ClassVar = {"batch": 64}

    def __init__(self, config: WaveGANConfig, spec: Sound) -> None:
        super().__init__(config, spec)
        if spec.length not in LENGTHS:
            known = ", ".join(map(str, LENGTHS))
            raise UserError(
                f"wavegan makes no clips of {spec.length} samples.", f"It makes {known}."
            )
        self.require_classes()
        self.nets = {"generator": Generator(config, spec), "critic": Critic(config, spec)}

    def reals(self, batch: Any) -> Tensor:
        """Waves of int16 as numbers in [-1, 1), (N, L)."""
        return batch["waves"].float() / 32768.0

    def generate(self, z: Tensor, condition: Tensor | None, draws: Draws, clock: Clock) -> Tensor:
        return self.nets["generator"](z, condition)

    def judge(self, x: Tensor, condition: Tensor | None, draws: Draws) -> Tensor:
        most, shifts = self.config.phase_shuffle, None
        if most:
            shifts = draws.integers(2 * most + 1, layers(self.spec.length)[0] - 1) - most
        return self.nets["critic"](x, condition, shifts)

    def glimpse(self, x: Tensor) -> Tensor:
        """Spectrograms of some 32 bands, their loudness on a logarithmic scale: waves of equal sound may
        differ in every sample."""
        hop = max(128, self.spec.length // 64)
        window = torch.hann_window(256, device=x.device)
        spectrum = torch.stft(x, 256, hop, window=window, center=False, return_complex=True).abs()
        bands = F.avg_pool1d(spectrum[:, :128].transpose(1, 2), 4)
        return torch.log10(bands + 1e-3).flatten(1)

    def latents(self, draws: Draws) -> Tensor:
        return 2.0 * draws.uniform(self.config.latent) - 1.0

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Waves (N, L) in [-1, 1].

        Args:
            draws: randomness for N rows.
            labels: (N,) class numbers, where it learnt by class.
            latents: (N, latent) in [-1, 1] to use in place of `latents(draws)`.
            truncation: what the latent numbers are multiplied by, in (0, 1].

        Raises:
            UserError: a truncation out of range.
        """
        z = self.latents(draws) if latents is None else latents
        if truncation is not None:
            if not 0.0 < truncation <= 1.0:
                raise UserError(
                    f"A truncation of {truncation} is out of range.", "Write one up to 1."
                )
            z = truncation * z
        return self.nets["generator"](z, self.chosen(draws, labels)).clamp(-1.0, 1.0)

    def cautions(self, count: int, batch: int) -> list[str]:
        if count < 500:
            return [f"{count} clips are few: wavegan was made for thousands."]
        return []
