"""Pretext: a network learns to see by questions whose answers the pictures themselves hold.

No labels, and no game: one network is asked what nobody had to write down. What it has learnt to see
(`faussaire features`) then serves a classifier of few labels. `task` is one of three papers:

`rotation`: Unsupervised Representation Learning by Predicting Image Rotations. Spyros Gidaris, Praveer
Singh, Nikos Komodakis. 2018. arXiv 1803.07728. By how many quarters was a picture turned? All four turns
of each picture are in the batch (equations 2 and 3, section 3.2):

    loss = -1/K sum_y log F^y(g(X | y)),  K = 4

`position`: Unsupervised Visual Representation Learning by Context Prediction. Carl Doersch, Abhinav
Gupta, Alexei A. Efros. 2015. arXiv 1505.05192. Where, of eight places, did a second patch lie around the
first? Short cuts are closed as in section 3.1: a gap of half a patch, jitter of 7/96 of one, each patch
without its mean, and colours without what lies between green and magenta, a = [-1, 2, -1]:

    B = I - a^T a / (a a^T)

or all channels but one replaced by noise: lenses bend each colour a little differently, so that colours
tell where in the picture a patch lies. Patches are seen by one network, and their features joined
(section 3, figure 3: fc6, then fc7 to fc9).

`order`: Shuffle and Learn: Unsupervised Learning using Temporal Order Verification. Ishan Misra, C.
Lawrence Zitnick, Martial Hebert. 2016. arXiv 1603.08561. Are three frames of a clip in the order of
time? Of a < b < c < d < e, (b, c, d) are, and (b, a, d) and (b, e, d) are not; all may be reversed, so
that the question is whether the second lies between the others (section 3.1; `pretext/clips.py`).

Where this leaves the papers:
- One small network for all, of 3x3 convolutions with batch norm, in place of AlexNet and NIN; Adam in
  place of SGD. Its features are the means of its last maps.
- rotation: of pictures that are not square the middle is taken.
- position: the first patch lies where all eight neighbours fit, or where it lies would tell which one is
  asked; a patch is 3/16 of the smaller side. No patches are made coarse, as some of the paper are.
- order: as many questions in order as not (the paper: one of four), and a hidden layer joins the frames'
  features: from a sum of one for each frame nobody can tell what lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import linear
from faussaire.nn.fused import BatchNormAct2d
from faussaire.nn.turns import QUARTERS, turned_all_ways
from faussaire.pretext.spec import PretextData

ANSWERS = {
    "rotation": ("0", "90", "180", "270"),
    "position": (
        *("up left", "up", "up right", "left"),
        *("right", "down left", "down", "down right"),
    ),
    "order": ("out of order", "in order"),
}
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Steps down and across to the eight places, in the order of their names."""
VIEWS = {"rotation": 1, "position": 2, "order": 3}
"""Pictures in a question."""
CELLS = {"rotation": 1, "position": 2, "order": 4}
"""Cells a side of the grid over which maps are averaged for the head: two ask where something is."""


@dataclass(frozen=True, kw_only=True)
class PretextConfig:
    """Settings of pretext.

    Attributes:
        task: what is asked: `rotation` by how many quarters a picture was turned, `position` where a
            patch lies beside another, `order` whether three frames of a clip are in order.
        width: channels of the network's first maps; they double with each of three halvings.
        hidden: numbers in which the head joins the pictures of a question.
        lr: Adam's rate at the beginning; it falls to 0 over the run.
        patch: for position, pixels a side of a patch; None: 3/16 of the smaller side.
        pairs: for position, questions of each picture in a batch.
        colour: for position, what is done about colours that tell where a patch lies: `project`,
            `drop` all but one channel, or `keep`.
    """

    Data: ClassVar[type] = PretextData

    task: Literal["rotation", "position", "order"] = "rotation"
    width: int = 32
    hidden: int = 128
    lr: float = 1e-3
    patch: int | None = None
    pairs: int = 4
    colour: Literal["project", "drop", "keep"] = "project"

    def __post_init__(self) -> None:
        check_range(self, width=(1, 1024), hidden=(1, 65_536), lr=(0, 1), pairs=(1, 1000))
        if self.patch is not None:
            check_range(self, patch=(4, 4096))


class Encoder(nn.Module):
    """Pictures (N, C, h, w) of 8x8 pixels at least to features (N, F cells^2), F = 8 width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**step for step in range(4)]
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            BatchNormAct2d(width),
        ]
        for narrow, wide in pairwise(widths):
            layers += [
                nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
                BatchNormAct2d(wide),
                nn.Conv2d(wide, wide, 3, padding=1, bias=False),
                BatchNormAct2d(wide),
            ]
        self.body = nn.Sequential(*layers)
        self.size = widths[-1]
        self.apply(initialise)

    def forward(self, x: Tensor, cells: int = 1) -> Tensor:
        maps = self.body(x).float()
        if cells == 1:
            return maps.mean(dim=(2, 3))
        return F.adaptive_avg_pool2d(maps, cells).flatten(1)


class Head(nn.Module):
    """Features of a question's pictures, (N, V, F), to logits of its answers, (N, K).

    One picture: a linear layer. Several: fc6 of each with shared weights, joined by fc7.
    """

    def __init__(self, size: int, views: int, hidden: int, answers: int) -> None:
        super().__init__()
        self.several = views > 1
        if self.several:
            self.fc6 = nn.Linear(size, hidden, bias=False)
            self.norm6 = BatchNormAct2d(hidden)
            self.fc7 = nn.Linear(views * hidden, hidden, bias=False)
            self.norm7 = BatchNormAct2d(hidden)
        self.classify = nn.Linear(hidden if self.several else size, answers)
        self.apply(initialise)

    def forward(self, views: Tensor) -> Tensor:
        if not self.several:
            return self.classify(views[:, 0])
        each = self.norm6(self.fc6(views.flatten(0, 1))[:, :, None, None])
        joined = self.norm7(self.fc7(each.reshape(len(views), -1))[:, :, None, None])
        return self.classify(joined.flatten(1))


def initialise(layer: nn.Module) -> None:
    """He et al.'s normal distribution (2015, arXiv 1502.01852), for layers before a ReLU."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def without_tint(x: Tensor) -> Tensor:
    """Colours projected: x B with B = I - a^T a / (a a^T), a = [-1, 2, -1]; (N, C, H, W), C >= 3."""
    axis = torch.tensor([-1.0, 2.0, -1.0], device=x.device)
    onto = torch.eye(3, device=x.device) - torch.outer(axis, axis) / axis.dot(axis)
    colours = torch.einsum("nchw,cd->ndhw", x[:, :3], onto)
    return torch.cat([colours, x[:, 3:]], dim=1)


def only_channel(x: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
    """One colour channel of each picture, and noise in the others: a hundredth of its deviation.

    Args:
        x: (N, C, H, W), C >= 3; what lies behind the colours stays.
        kept: (N,) which.
        noise: (N, 3, H, W), standard normal, or zeros.
    """
    shown = F.one_hot(kept, 3).to(x.dtype)[:, :, None, None]
    colours = x[:, :3]
    deviation = (shown * colours).sum(dim=1, keepdim=True).std(dim=(2, 3), keepdim=True)
    hidden = (1.0 - shown) * noise * deviation / 100.0
    return torch.cat([shown * colours + hidden, x[:, 3:]], dim=1)


def cut_out(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """A square of each picture: (N, C, H, W) and its corners (N,) to (N, C, side, side)."""
    steps = torch.arange(side, device=x.device)
    rows, columns = top[:, None, None] + steps[:, None], left[:, None, None] + steps
    which = torch.arange(len(x), device=x.device)[:, None, None]
    return x[which, :, rows, columns].permute(0, 3, 1, 2)


def without_mean(x: Tensor) -> Tensor:
    """Each picture without its mean colour: how bright a patch is must not tell where it was."""
    return x - x.mean(dim=(2, 3), keepdim=True)


class Pretext(Family[PretextConfig]):
    """Self-supervision by rotation, by the places of patches, or by the order of frames."""

    Config = PretextConfig
    modality = "pretext"
    averaged = ("encoder", "head")
    least_side = 16
    adversarial = False
    training: ClassVar = {"batch": 32, "evaluate_every": 10_000}
    sizes: ClassVar = {
        "tiny": {"width": 16},
        "small": {"width": 32},
        "base": {"width": 64},
        "large": {"width": 128, "hidden": 512},
    }

    def __init__(self, config: PretextConfig, spec: Pictures) -> None:
        super().__init__(config, spec)
        if config.task == "position":
            self._expect_room()
        cells = CELLS[config.task]
        encoder = Encoder(spec.channels, config.width)
        self.nets = {
            "encoder": encoder,
            "head": Head(
                encoder.size * cells**2, VIEWS[config.task], config.hidden, len(self.answers)
            ),
        }

    def _expect_room(self) -> None:
        """Refuse patches of which no three fit beside each other.

        Raises:
            UserError: with the largest that does.
        """
        side = min(self.spec.height, self.spec.width)
        if self.room > side:
            largest = max(patch for patch in range(1, side) if room_of(patch) <= side)
            raise UserError(
                f"Patches of {self.patch} pixels need pictures of {self.room} a side at least, and "
                f"these are {self.spec.width}x{self.spec.height}.",
                f"Choose a larger --resolution, or a --patch of {largest} at most.",
            )

    @property
    def answers(self) -> tuple[str, ...]:
        """What can be answered, by number."""
        return ANSWERS[self.config.task]

    @property
    def asked_of_each(self) -> int:
        """Questions of each example."""
        return {"rotation": QUARTERS, "position": self.config.pairs, "order": 1}[self.config.task]

    @property
    def patch(self) -> int:
        """Pixels a side of a patch."""
        return self.config.patch or max(4, round(3 / 16 * min(self.spec.height, self.spec.width)))

    @property
    def room(self) -> int:
        """Pixels a side of a patch with all of its neighbours."""
        return room_of(self.patch)

    # ---- The plan ----

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        return {
            "all": Adam(
                nets=("encoder", "head"), lr=linear(self.config.lr, 0.0), betas=(0.9, 0.999)
            )
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        phase = Phase(name="pretext", nets=("encoder", "head"), loss=self.loss)
        return (Stage(name=self.config.task, phases=(phase,)),)

    def cautions(self, count: int, batch: int) -> list[str]:
        if self.config.task == "order" or count >= 200:
            return []
        return [
            f"{count} pictures are few: they will be known by heart. The answers on those held out tell "
            "how soon (--holdout), and --margin cuts each at another place every time."
        ]

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross entropy of the answers."""
        logits, truth = self.asked(batch)
        batch.observe({"right": (logits.argmax(dim=1) == truth).float()})
        return {self.config.task: F.cross_entropy(logits, truth)}

    def asked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of the answers to a batch's questions, (M, K), and the truth, (M,) int64."""
        views, truth = self.questions(batch)
        features = self.nets["encoder"](views.flatten(0, 1), CELLS[self.config.task])
        return self.nets["head"](features.unflatten(0, views.shape[:2])), truth

    # ---- Questions ----

    def questions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pictures of the batch's questions, (M, V, C, h, w), and their answers, (M,) int64.

        M is `asked_of_each` times the batch: all of its examples in order, as often.
        """
        ask = {"rotation": self.rotations, "position": self.positions, "order": self.orders}
        return ask[self.config.task](batch)

    def rotations(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """All four turns of each picture, or of its middle where it is not square."""
        x, truth = turned_all_ways(middle(batch["images"]))
        return x[:, None], truth

    def positions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pairs of patches, the second at one of eight places around the first."""
        images, patch, (gap, jitter) = batch["images"], self.patch, spaces(self.patch)
        step = patch + gap
        steps = torch.tensor(AROUND, device=images.device)
        margin = step + jitter
        views, truth = [], []
        for _ in range(self.config.pairs):
            free = torch.tensor(
                [self.spec.height - self.room + 1, self.spec.width - self.room + 1],
                device=images.device,
            )
            first = margin + (batch.uniform(2) * free).long()  # (N, 2): down and across
            place = batch.draws.integers(len(AROUND))
            moved = batch.draws.integers(2 * jitter + 1, 2) - jitter
            second = first + step * steps[place] + moved
            for corner in (first, second):
                seen = cut_out(images, corner[:, 0], corner[:, 1], patch)
                views.append(without_mean(self.discoloured(seen, batch.draws)))
            truth.append(place)
        pairs = torch.stack(views).unflatten(0, (-1, 2)).transpose(1, 2)  # (pairs, N, 2, C, h, w)
        return pairs.flatten(0, 1), torch.cat(truth)

    def orders(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """b, c, d in every other row; in the others b, d with what lies before or behind them."""
        rows = torch.arange(batch.size, device=batch["first"].device) + batch.draws.rows.start
        truth = rows % 2
        between = truth[:, None, None, None].bool()
        second = torch.where(between, batch["inside"], batch["outside"])
        return torch.stack([batch["first"], second, batch["last"]], dim=1), truth

    def discoloured(self, x: Tensor, draws: Draws) -> Tensor:
        """Patches (N, C, h, w) whose colours do not tell where they lie."""
        if x.shape[1] < 3 or self.config.colour == "keep":
            return x
        if self.config.colour == "project":
            return without_tint(x)
        kept, noise = draws.integers(3), draws.normal(3, *x.shape[2:])
        return only_channel(x, kept, noise)

    # ---- Use ----

    def features(self, x: Tensor) -> Tensor:
        """Means of the last maps, (N, 8 width), of pictures prepared as those of the questions."""
        if self.config.task != "position":
            return self.nets["encoder"](x)
        if x.shape[1] >= 3 and self.config.colour == "drop":  # each of three views, which are equal
            views = [
                only_channel(
                    x, torch.full((len(x),), kept, device=x.device), torch.zeros_like(x[:, :3])
                )
                for kept in range(3)
            ]
            return torch.stack([self.nets["encoder"](without_mean(one)) for one in views]).mean(0)
        if x.shape[1] >= 3 and self.config.colour == "project":
            x = without_tint(x)
        return self.nets["encoder"](without_mean(x))

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """It makes nothing.

        Raises:
            UserError: always.
        """
        raise UserError(
            "pretext learns to see and makes nothing, so it cannot be sampled.",
            "What it sees: faussaire features RUN pictures/ --out features.npz",
        )


def middle(x: Tensor) -> Tensor:
    """The middle square of pictures: (N, C, H, W) to (N, C, S, S), S the smaller side."""
    height, width = x.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return x[:, :, top : top + side, left : left + side]


def spaces(patch: int) -> tuple[int, int]:
    """The gap beside a patch, half of it, and the jitter, 7/96 of it, in pixels."""
    return patch // 2, max(1, round(7 / 96 * patch))


def room_of(patch: int) -> int:
    """Pixels a side of a patch and its neighbours, wherever jitter puts them."""
    gap, jitter = spaces(patch)
    return 3 * patch + 2 * (gap + jitter)
