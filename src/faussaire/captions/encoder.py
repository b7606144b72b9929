"""Two encoders that meet: captions and pictures as vectors, near each other where they belong together.

AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks. Tao Xu,
Pengchuan Zhang, Qiuyuan Huang, Han Zhang, Zhe Gan, Xiaolei Huang, Xiaodong He. 2018. arXiv 1711.10485,
section 3.2: the deep attentional multimodal similarity model (DAMSM). Of it, this is the level of whole
sentences: with R the cosine of a picture's vector v_i and a caption's e_j,

    P(e_j | v_i) = exp(gamma R(v_i, e_j)) / sum_k exp(gamma R(v_i, e_k))          (equation 11, gamma_3)
    L = -sum_i log P(e_i | v_i) - sum_i log P(v_i | e_i)                          (equations 12, 13)

over the pairs of a batch. Its other level, attention between words and regions, is left out, and so is
its picture network pretrained on ImageNet: a small one learns from these very pictures.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.captions.spec import Captioned
from faussaire.core.batch import Batch
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.sizes import doublings
from faussaire.texts.tokens import END


class Reader(nn.Module):
    """Captions to vectors (N, D) of length sqrt(D): of tokens (N, T), or of a ready encoder's (N, E).

    Tokens go through a GRU (Cho et al. 2014, arXiv 1406.1078; DAMSM has an LSTM) in each direction;
    their last states, beside the mean of all, are mapped onto D numbers. A ready encoder's vectors are
    mapped alone. It runs in float32 at any precision of the run.

    Args:
        spec: of the data.
        size: D.
        width: numbers that stand for a token, and in the states of both directions together.
    """

    def __init__(self, spec: Captioned, *, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        if spec.embedding:
            self.embed = None
            self.conclude = nn.Linear(spec.embedding, size)
        else:
            half = (width + 1) // 2
            self.embed = nn.Embedding(spec.text.size, width)
            self.forth, self.back = (nn.GRU(width, half, batch_first=True) for _ in range(2))
            self.conclude = nn.Linear(4 * half, size)
            nn.init.normal_(self.embed.weight, 0.0, 0.5)

    def forward(self, captions: Tensor) -> Tensor:
        with torch.autocast(captions.device.type, enabled=False):
            seen = captions.float() if self.embed is None else self.sentence(captions.long())
            return F.normalize(self.conclude(seen), dim=1) * self.size**0.5

    def sentence(self, tokens: Tensor) -> Tensor:
        """The last states of both directions and the mean of all, (N, 4 H)."""
        assert self.embed is not None
        there = tokens != END
        last = there.sum(dim=1).clamp(min=1)[:, None] - 1
        # Each caption is turned around in its own length: what fills its row comes behind it both ways.
        place = torch.arange(tokens.shape[1], device=tokens.device)
        turned = tokens.gather(1, (last - place).clamp(min=0))
        ends, means = [], []
        for gru, row in ((self.forth, tokens), (self.back, turned)):
            states, _ = gru(self.embed(row))
            ends.append(states.gather(1, last[:, :, None].expand(-1, -1, states.shape[2]))[:, 0])
            means.append((states * there[:, :, None]).sum(dim=1) / (last + 1))
        return torch.cat([*ends, *means], dim=1)


class Eye(nn.Module):
    """Pictures (N, C, H, W) to vectors (N, D) of length 1: a small network of strided convolutions.

    Args:
        spec: of the data.
        size: D.
        width: channels next to the picture; they double with each halving, up to eight times.
    """

    def __init__(self, spec: Captioned, *, size: int, width: int) -> None:
        super().__init__()
        steps = doublings(spec.height, spec.width)
        widths = [width * min(8, 2**step) for step in range(steps + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(spec.channels, width, 3, padding=1, bias=False),
            BatchNormAct2d(width, 0.2),
        ]
        for narrow, wide in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
                BatchNormAct2d(wide, 0.2),
            ]
        self.body = nn.Sequential(*layers)
        self.conclude = nn.Linear(widths[-1] * 16, size)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.adaptive_avg_pool2d(self.body(x), 4).flatten(1)
        return F.normalize(self.conclude(seen).float(), dim=1)


def matching_loss(
    pictures: Tensor, captions: Tensor, same: Tensor, gamma: float, batch: Batch
) -> Tensor:
    """Equations 11 to 13 over the pairs of a batch on all processes, a mean over pairs, ().

    Every process computes the loss of the whole batch, the others' vectors standing still, so that the
    mean of the processes' gradients, times their number, is the gradient of one.

    Args:
        pictures, captions: (N, D) of length 1.
        same: (N, T) the captions themselves: equal ones are no wrong answers to each other.
        gamma: how much a cosine counts.
        batch: that they are of.
    """
    v, e = (_with_others(rows, batch) for rows in (pictures, captions))
    words = batch.gather(same)
    alike = (words[:, None] == words[None]).flatten(2).all(dim=2)
    alike.fill_diagonal_(False)
    scores = (gamma * v @ e.T).masked_fill(alike, -torch.inf)
    right = torch.arange(len(scores), device=scores.device)
    loss = F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)
    times = batch.total / batch.size
    return times * loss - (times - 1.0) * loss.detach()


def _with_others(rows: Tensor, batch: Batch) -> Tensor:
    """The rows of all processes, through whose own the gradient goes: (N, D) to (total, D)."""
    whole = batch.gather(rows)
    if len(whole) == len(rows):
        return rows
    places = batch.own(torch.arange(len(whole), device=rows.device))
    return whole.index_copy(0, places, rows)
