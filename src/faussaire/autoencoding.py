"""What families share that know pictures by a latent vector, there and back: encode, decode, rebuild.

Such a family makes pictures of noise, as others do (`sample`), and gives back pictures by way of what it
knows of them (`encode`, then `sample` with these latents; `apply` does both). A family's file has its
networks and its loss; what a condition is, how latents are drawn, moved and truncated, and which class a
picture has that nobody told, stands here.

Encoders give the mean and the log variance of q(z | x, y), a Gaussian with independent numbers. The
prior is N(0, I).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import Batch, Draws
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.game import truncated

ConfigT = TypeVar("ConfigT")


class Autoencoder(Family[ConfigT]):
    """An encoder and a decoder of pictures.

    A family gives `nets["encoder"]`, (pictures, condition) -> mean and log variance of z, (N, latent)
    each, and overrides `painted` and `costs`. Its config has `latent` and `conditional`.
    """

    averaged = ("encoder", "decoder")
    rebuilds = True
    panels = ("real", "rebuilt")
    likelihood: ClassVar[bool] = False
    """Whether `costs` are nats of a likelihood of the picture itself, so that their sum is -ELBO."""

    shift: Tensor | None = None
    """What `apply` adds to latents, (latent,); see `moved`."""

    def __init__(self, config: ConfigT, spec: Pictures) -> None:
        super().__init__(config, spec)
        self.latent: int = config.latent  # pyright: ignore[reportAttributeAccessIssue]
        self.conditional: bool = config.conditional  # pyright: ignore[reportAttributeAccessIssue]
        least = self.least_side
        if min(spec.height, spec.width) < least:
            raise UserError(
                f"{type(self).__name__.lower()} needs pictures of at least {least}x{least}, not "
                f"{spec.width}x{spec.height}.",
                "Choose a larger --resolution; small pictures are enlarged.",
            )
        if self.conditional and spec.condition_size < 2:
            raise UserError(
                f"--conditional needs at least two classes; the data have {len(spec.classes)}.",
                "Put each class in a sub-folder and add --classes folders, or give a labels.csv.",
            )

    # ---- What a paper says ----

    def painted(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """The decoder's picture: latents (N, latent) and conditions (N, K) or None to (N, C, H, W)."""
        raise NotImplementedError

    def regarded(self, x: Tensor, draws: Draws) -> Tensor:
        """Pictures (N, C, H, W) as `costs` should be asked of them in training and measuring."""
        return x

    def costs(
        self, x: Tensor, condition: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What rebuilding each picture costs, and what telling its z does, (N,) each, in nats.

        Args:
            x: (N, C, H, W) in [-1, 1].
            condition: (N, K) or None.
            noise: (N, latent) standard normal numbers that z is drawn with; None: z is its mean.
        """
        raise NotImplementedError

    # ---- Parts of losses ----

    def posterior(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x, y), (N, latent) each."""
        return self.nets["encoder"](x, condition)

    def condition(self, batch: Batch) -> Tensor | None:
        """The conditions of the batch's pictures, (N, K); None without any."""
        return self.encoded(batch["labels"]) if self.conditional else None

    def encoded(self, labels: Tensor) -> Tensor:
        """Class numbers (N,) or vectors (N, K) as conditions (N, K)."""
        if labels.is_floating_point():
            return labels
        return F.one_hot(labels, self.spec.condition_size).float()

    # ---- Use ----

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(self.latent)

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1]: for each z the mean of p(x | z), not a draw of it.

        Args:
            draws: randomness for N rows.
            labels: as in `Family.sample`.
            latents: (N, latent).
            truncation: bound of the numbers in z; beyond it they are drawn anew.

        Raises:
            UserError: a truncation that is not positive, or vectors are needed as conditions.
        """
        z = self.latents(draws) if latents is None else latents
        if truncation is not None:
            z = truncated(z, truncation)
        return self.painted(z, self.chosen(draws, labels))

    def chosen(self, draws: Draws, labels: Tensor | None) -> Tensor | None:
        """The conditions to sample with: those asked for, else classes drawn at random.

        Raises:
            UserError: the model was trained on vectors, and none were given.
        """
        if not self.conditional:
            return None
        if labels is None:
            self._require_classes()
            labels = draws.integers(len(self.spec.classes))
        return self.encoded(labels)

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.conditional and labels is None:
            labels = self.likeliest(x)
        condition = None if labels is None or not self.conditional else self.encoded(labels)
        return self.posterior(x, condition)[0]

    def likeliest(self, x: Tensor) -> Tensor:
        """The classes (N,) under which pictures (N, C, H, W) cost least, z at its mean.

        With classes equally frequent that is the largest p(y | x), as far as the bound tells
        (Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", arXiv 1406.5298).

        Raises:
            UserError: the model was trained on vectors, of which there are too many to try.
        """
        self._require_classes()
        costs = []
        for number in range(len(self.spec.classes)):
            label = torch.full((len(x),), number, device=x.device)
            rebuilt, told = self.costs(x, self.encoded(label), None)
            costs.append(rebuilt + told)
        return torch.stack(costs).argmin(dim=0)

    def _require_classes(self) -> None:
        if not self.spec.classes:
            raise UserError(
                "This model was trained with condition vectors, and none were given.",
                "Give `labels`, (N, K).",
            )

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """Pictures (N, C, H, W) of the model's own size by way of the mean of q(z | x)."""
        labels = self.likeliest(x) if self.conditional else None
        z = self.encode(x, labels)
        if self.shift is not None:
            z = z + self.shift.to(z)
        return self.painted(z, None if labels is None else self.encoded(labels))

    def moved(self, shift: Tensor) -> Self:
        view = copy.copy(self)
        view.shift = shift
        return view

    # ---- How it is measured, and to look at ----

    def exam(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch["images"], batch["images"]

    def unlearnt(self, x: Tensor) -> None:
        return None  # the picture itself would be perfect

    @property
    def exam_name(self) -> str:
        return "rebuilt"

    @property
    def takes(self) -> int:
        return self.spec.channels

    @property
    def measured_as(self) -> str:
        """The likelihood that `costs` are nats of, in names of figures."""
        return ""

    @classmethod
    def compares(cls, config: Any) -> tuple[str, ...]:
        return ("l1", "psnr", "ssim_luma", "perceptual")

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        condition = self.condition(batch)
        return batch["images"], self.painted(
            self.posterior(batch["images"], condition)[0], condition
        )


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each number, in nats, of the arguments' shape.

    Kingma and Welling 2014, appendix B, with the sign turned.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor | None) -> Tensor:
    """z = mean + sigma * noise, the reparameterisation of Kingma and Welling 2014; None: the mean."""
    return mean if noise is None else mean + (0.5 * log_variance).exp() * noise
