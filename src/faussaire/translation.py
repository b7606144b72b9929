"""What families share that turn pictures into pictures: the game of `game.py`, begun from a picture.

A translator's generator takes a picture where others take noise, and its discriminator may see beside
a picture what it was made from. A family's file says what the input is (another picture of the data,
or what it does to a picture itself), how the output is compared with what it should be, and has the
networks.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from torch import Tensor

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Look, Pictures
from faussaire.game import GameConfig, ImageGAN
from faussaire.nn.patch import per_picture

ConfigT = TypeVar("ConfigT", bound=GameConfig)


class Translator(ImageGAN[ConfigT]):
    """A generator of pictures from pictures.

    A family gives `nets["generator"]` and `nets["discriminator"]`, (pictures, what they were made from
    or None) -> logits (N, ...), and overrides `inputs`, `translate` and `comparison`.
    """

    applies = True
    panels = ("input", "output", "what it should be")
    beside: ClassVar[bool] = True
    """Whether the discriminator sees what a picture was made from."""

    def __init__(self, config: ConfigT, spec: Pictures) -> None:
        if config.conditional:
            name = type(self).__name__.lower()
            raise UserError(
                f"{name} makes a picture from another, which is its condition; it knows no classes.",
                "Leave --conditional out.",
            )
        super().__init__(config, spec)

    # ---- What a paper says ----

    def inputs(self, batch: Batch) -> Tensor:
        """What the batch's pictures are to be made from, (N, K, h, w)."""
        return batch["inputs"]

    def translate(self, x: Tensor, draws: Draws) -> Tensor:
        """The generator's answer to pictures (N, K, h, w)."""
        return self.nets["generator"](x)

    def comparison(self, batch: Batch, fake: Tensor, clock: Clock) -> dict[str, Tensor]:
        """Terms of the generator's loss besides the adversarial one."""
        return {}

    # ---- How it is measured ----

    @classmethod
    def compares(cls, config: Any) -> tuple[str, ...]:
        return ("l1", "psnr", "ssim_luma", "perceptual")

    @classmethod
    def judged_by(cls, config: Any) -> tuple[str, ...]:
        return ("perceptual", "l1")

    def exam(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        return self.inputs(batch), batch["images"]

    # ---- The game ----

    def condition(self, batch: Batch) -> Tensor | None:
        return self.inputs(batch) if self.beside else None

    def critic(self, batch: Batch, clock: Clock) -> losses.Critic:
        beside, draws = self.condition(batch), batch.draws
        if beside is None or self.config.augment == "none":
            return lambda images: self.judge(self.augmented(images, draws, clock), beside, clock)

        def together(images: losses.Samples) -> Tensor:
            changed = self.augmented((beside, _whole(images)), draws, clock)
            return self.judge(changed[1], changed[0], clock)

        return together

    # Inputs may be drawn, too. They are drawn before the fakes are: a fake that is made a second time
    # (`Batch.forget`) would else find them there, and its own numbers at another place.

    def fakes(self, batch: Batch, clock: Clock) -> losses.Samples:
        self.inputs(batch)
        return super().fakes(batch, clock)

    def still_fakes(self, batch: Batch, clock: Clock) -> losses.Samples:
        self.inputs(batch)
        return super().still_fakes(batch, clock)

    def made(self, batch: Batch, clock: Clock) -> Tensor:
        return self.translate(self.inputs(batch), batch.draws)

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        terms = super().generator_loss(batch, clock)
        return terms | self.comparison(batch, _whole(self.fakes(batch, clock)), clock)

    # ---- For the doctor, and to look at ----

    def examined(self, batch: Batch, clock: Clock) -> Look:
        beside, reals = self.condition(batch), _whole(self.reals(batch, clock))
        fakes = self.made(batch, clock)
        return Look(
            reals=reals,
            fakes=fakes,
            real_logits=per_picture(self.judge(reals, beside, clock)),
            fake_logits=per_picture(self.judge(fakes, beside, clock)),
            levelled=self.game.levelled,
        )

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        return per_picture(self.judge(self.reals(batch, clock), self.condition(batch), clock))

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        return self.inputs(batch), self.made(batch, Clock()), batch["images"]

    # ---- Use ----

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        return self.translate(x, draws).clamp(-1.0, 1.0)

    def latents(self, draws: Draws) -> Any:
        return None

    sample = Family.sample  # not the game's, which begins with noise


def _whole(images: losses.Samples) -> Tensor:
    assert isinstance(images, Tensor)  # a translator has one scale
    return images
