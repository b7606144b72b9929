"""The game of families that make pictures of words: `ImageGAN`'s, with captions for a condition.

A caption reaches the players as a vector, (N, D) float32, which a `Reader` makes of it. The reader
learns first, with an `Eye`, to tell which caption belongs to which picture (`encoder.py`); then both
stand still. The eye is kept to measure by (R-precision).

The discriminator is matching-aware (Reed et al. 2016, arXiv 1605.05396, algorithm 1; GAN-CLS): besides
fakes it has to refuse real pictures beside a caption that is not theirs,

    L_D = l(D(x, e) = real) + 1/2 l(D(G(z, e), e) = fake) + 1/2 l(D(x, e') = fake).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.captions.encoder import Eye, Reader, matching_loss
from faussaire.captions.spec import CaptionData, Captioned
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Look
from faussaire.core.optim import Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage, stage_at
from faussaire.game import GameConfig, ImageGAN
from faussaire.losses import Samples
from faussaire.texts.tokens import END, UNKNOWN

WORDS = "words"
"""The first stage, in which captions and pictures are matched and nobody plays yet."""


@dataclass(frozen=True, kw_only=True)
class CaptionedConfig(GameConfig):
    """Settings of families that make pictures of words, besides those of every game.

    Attributes:
        sentence: numbers in the vector of a caption.
        reader_width: numbers that stand for a word, and in the reader's states.
        eye_width: channels of the eye's first layer.
        words_share: share of the run's examples for the first stage, in which reader and eye learn.
        words_batch: examples in a batch of that stage, where each is told from all others; None: the
            run's.
        words_lr: Adam's rate in that stage.
        gamma: how much a cosine counts in it.
        forgotten: share of the words that are read as unknown in it, so that captions with unknown words
            are understood.
        mismatched: weight of real pictures beside wrong captions among what the discriminator refuses;
            the fakes have the rest.
    """

    Data: ClassVar[type] = CaptionData

    sentence: int = 128
    reader_width: int = 128
    eye_width: int = 32
    words_share: float = 0.2
    words_batch: int | None = None
    words_lr: float = 1e-3
    gamma: float = 10.0
    forgotten: float = 0.1
    mismatched: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, sentence=(2, 65_536), reader_width=(2, 65_536), eye_width=(1, 8192))
        check_range(self, words_share=(0.0, 0.9), words_lr=(0, None), gamma=(0.01, 1000))
        check_range(self, forgotten=(0, 0.9), mismatched=(0, 1))
        if self.words_batch is not None:
            check_range(self, words_batch=(2, 1_000_000))
        if self.conditional:
            raise UserError(
                "--conditional is for classes, and this family's conditions are captions.",
                "Leave it out.",
            )


ConfigT = TypeVar("ConfigT", bound=CaptionedConfig)


class CaptionedGAN(ImageGAN[ConfigT]):
    """A game with captions.

    A family adds its players to `nets`, which begin with `reader` and `eye`, and gives `played`, its
    stages after the first.
    """

    modality = "captions"

    def __init__(self, config: ConfigT, spec: Captioned) -> None:
        if not isinstance(spec, Captioned):
            raise UserError(
                f"{type(self).__name__.lower()} makes pictures of words, and these have no captions.",
                "Add --captions captions.csv.",
            )
        super().__init__(config, spec)
        self.nets = {
            "reader": Reader(spec, size=config.sentence, width=config.reader_width),
            "eye": Eye(spec, size=config.sentence, width=config.eye_width),
        }

    # ---- The plan ----

    def optimisers(self) -> dict[str, OptimiserSpec]:
        players = {
            net: spec for net, spec in super().optimisers().items() if net not in ("reader", "eye")
        }
        return {WORDS: Adam(nets=("reader", "eye"), lr=self.config.words_lr), **players}

    def stages(self, total: int) -> tuple[Stage, ...]:
        begin = max(1, round(self.config.words_share * total))
        words = Phase(name=WORDS, nets=("reader", "eye"), loss=self.words_loss)
        first = Stage(name=WORDS, phases=(words,), until=begin, batch=self.config.words_batch)
        return (first, *self.played(begin, total))

    def played(self, begin: int, total: int) -> tuple[Stage, ...]:
        """The stages of the game, from `begin` examples to `total`."""
        return (Stage(name="adversarial", phases=self.phases()),)

    def stage(self, clock: Clock) -> str:
        """The name of the stage that comes next."""
        return stage_at(self.stages(clock.total), clock.examples).name

    # ---- Words ----

    def words_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """How badly captions and pictures find each other."""
        captions = batch["captions"]
        seen = self.nets["eye"](batch["images"])
        read = self.nets["reader"](self.partly(captions, batch))
        vectors = F.normalize(read, dim=1)
        return {"matching": matching_loss(seen, vectors, captions, self.config.gamma, batch)}

    def partly(self, captions: Tensor, batch: Batch) -> Tensor:
        """Captions in which some words are unknown; vectors of a ready encoder as they are."""
        if captions.is_floating_point() or not self.config.forgotten:
            return captions
        lost = batch.uniform(captions.shape[1]) < self.config.forgotten
        return captions.masked_fill(lost & (captions != END), UNKNOWN)

    def condition(self, batch: Batch) -> Tensor:
        return batch.shared("condition", lambda: self.encoded(batch["captions"]))

    def wrong_condition(self, batch: Batch) -> Tensor:
        """Captions that are not those of the batch's pictures, (N, D)."""
        return batch.shared("wrong condition", lambda: self.encoded(batch["mismatched"]))

    @torch.no_grad()
    def encoded(self, labels: Tensor) -> Tensor:
        """Captions, (N, T) tokens or (N, E) vectors, as conditions (N, D)."""
        return self.nets["reader"](labels)

    def chosen(self, draws: Draws, labels: Tensor | None) -> Tensor:
        """The conditions to sample with: those asked for, else captions that are known, at random.

        Raises:
            UserError: the model was trained with a ready encoder's vectors, and none were given.
        """
        if labels is None:
            spec = self.spec
            if spec.embedding or not spec.known:
                raise UserError(
                    "This model makes pictures of captions, and none were given.",
                    "Give some: --text.",
                )
            number = draws.integers(len(spec.known))
            labels = torch.from_numpy(spec.encode(spec.known)).to(number.device)[number]
        return self.encoded(labels)

    # ---- Losses ----

    def refused(
        self, batch: Batch, clock: Clock, real: Samples, real_logits: Tensor, fake_logits: Tensor
    ) -> Tensor:
        """l(D(x, e) = real), and as fake both fakes and real pictures beside a wrong caption."""
        right = super().refused(batch, clock, real, real_logits, fake_logits)
        share = self.config.mismatched
        if not share:
            return right
        shown = self.augmented(real, batch.draws, clock)
        wrong_logits = self.judge(shown, self.wrong_condition(batch), clock)
        batch.observe({"mismatched": wrong_logits})
        wrong = super().refused(batch, clock, real, real_logits, wrong_logits)
        return (1.0 - share) * right + share * wrong

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        return None if self.stage(clock) == WORDS else super().examined(batch, clock)

    # ---- Measuring ----

    def scores(self, images: Tensor, captions: Tensor) -> Tensor:
        """What the discriminator makes of pictures beside captions: logits (N,)."""
        return self.judge(images, self.encoded(captions), Clock())

    def seen(self, images: Tensor) -> Tensor:
        """Vectors of pictures, (N, D) of length 1."""
        return self.nets["eye"](images)

    def read(self, captions: Tensor) -> Tensor:
        """Vectors of captions, (N, D) of length 1."""
        return F.normalize(self.encoded(captions), dim=1)
