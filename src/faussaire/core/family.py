"""What a family of GANs is: nets, a training plan, and a way to sample.

A family is one file that reads like its paper. It knows nothing of devices, precision, processes,
checkpoints or consoles; the loop knows nothing of the family.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from torch import Tensor, nn

from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.optim import OptimiserSpec
from faussaire.core.phase import Stage


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a picture family is told of its data.

    Attributes:
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        height, width: pixels.
        classes: class names in the order of their label numbers; empty where there are no labels.
        vector: length of the vector that describes each picture in place of a class; 0: none.
        input_channels: channels of the pictures that these are made from; 0: they are made from noise.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()
    vector: int = 0
    input_channels: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def condition_size(self) -> int:
        """Numbers in a condition: one for each class, or those of a vector."""
        return len(self.classes) or self.vector


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the players make of one batch, for the doctor.

    Attributes:
        reals: examples as the discriminator gets them, before any augmentation: (N, ...).
        fakes: the generator's for the same conditions, in the same form.
        real_logits, fake_logits: what the discriminator says to them, (N,).
        levelled: whether 0 is where it is undecided.
    """

    reals: Tensor
    fakes: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    levelled: bool = True


ConfigT = TypeVar("ConfigT")


class Family(Generic[ConfigT]):
    """A family with its weights: what a checkpoint restores and a run trains.

    Class attributes:
        Config: frozen dataclass of the family's own settings.
        modality: which data feed it (`pictures`).
        presets: settings by preset name, over the defaults; training settings may be among them.
        sizes: settings by `--size` (tiny, small, base, large), underneath a preset.
        training: the family's own defaults of training settings, such as its batch.
        averaged: nets that samples are made with by their moving average.
        half_life: of the averages in examples, where the user does not say.
        least_side: pictures smaller than this are enlarged, unless a resolution is asked for.
        sources: `one` set of pictures, `pair`s of an input and a picture, or `two` sets.
        applies: whether it makes pictures from pictures (`apply`) rather than from noise (`sample`).
        faithful: whether what it makes of a picture shows the same, so that grey has to stay grey.
        panels: what `demonstrated` gives, a name for each, from left to right.
        tiles: whether large pictures may be gone through in tiles; else they are seen whole, unless the
            user asks for tiles.
        stylises: whether `apply` gives pictures the manner of paintings, which it is told by `styled`.
        partly_labelled: whether it learns from pictures with a label and from others without: its
            batches have `labelled` pictures and their `labels` beside `images`, in their own order.
        classifies: whether it tells the classes of pictures (`classify`).
        rebuilds: whether it makes pictures from noise and gives back pictures besides: `encode` finds
            their latents, and `apply` makes of pictures of its own size what it knows of them.
        adversarial: whether a discriminator learns, and so can learn a small set by heart.
        fills: whether it fills holes: the last channel that `apply` takes is 1 where something is
            missing, and -1 elsewhere.
        spaces: where the latent of a picture may be sought and moved, the usual one first: `z`, `w`
            (what a mapping makes of z) and `w+` (a w for each layer). `faussaire.latent` works there.

    Attributes:
        config: the settings.
        spec: what the data look like.
        nets: the networks by name. Losses and `sample` look them up here at each call, so that a
            view with averaged nets is the same family.
    """

    Config: ClassVar[type]
    modality: ClassVar[str] = "pictures"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    training: ClassVar[Mapping[str, Any]] = {}
    averaged: ClassVar[tuple[str, ...]] = ()
    half_life: ClassVar[float] = 10_000.0
    least_side: ClassVar[int] = 1
    sources: ClassVar[Literal["one", "pair", "two"]] = "one"
    applies: ClassVar[bool] = False
    panels: ClassVar[tuple[str, ...]] = ()
    faithful: ClassVar[bool] = False
    tiles: ClassVar[bool] = True
    stylises: ClassVar[bool] = False
    rebuilds: ClassVar[bool] = False
    fills: ClassVar[bool] = False
    partly_labelled: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    adversarial: ClassVar[bool] = True
    spaces: ClassVar[tuple[str, ...]] = ("z",)

    def __init__(self, config: ConfigT, spec: Any) -> None:
        self.config = config
        self.spec = spec
        self.nets: dict[str, nn.Module] = {}

    @classmethod
    def needs(cls, config: Any) -> Literal["one", "pair", "two"]:
        """The sources that it takes with these settings; one where it makes inputs itself."""
        return cls.sources

    @classmethod
    def makes(cls, config: Any, channels: int) -> int:
        """Channels of the inputs that it makes of each picture with `channels` itself; 0: none."""
        return 0

    @classmethod
    def completed(cls, config: ConfigT, progress: Callable[[str, int, int], None]) -> ConfigT:
        """The settings with what was left to choose filled in, as a run that begins keeps them.

        Args:
            config: the settings as they were given.
            progress: called as progress(what, done, total) where this takes long.

        Raises:
            UserError: what they ask for cannot be had.
        """
        return config

    def frozen(self) -> Mapping[str, nn.Module]:
        """Networks that losses look through and nobody trains: read once, no part of a checkpoint.

        Asked for when a state is made, before anything is written.

        Raises:
            UserError: their weights cannot be had.
        """
        return {}

    def begin(self) -> None:
        """Read what else training needs, and a checkpoint, if there was one, did not hold.

        Raises:
            UserError: it cannot be had.
        """

    @classmethod
    def compares(cls, config: Any) -> tuple[str, ...]:
        """What `faussaire evaluate` measures unasked of pictures made from pictures.

        Names of `core.figures.METRICS`. What does not fit, or needs weights that cannot be had, is
        left out.
        """
        return ()

    @classmethod
    def judged_by(cls, config: Any) -> tuple[str, ...]:
        """What decides which checkpoint is best: the first of these metrics that can be measured."""
        return ("fid",)

    @property
    def takes(self) -> int:
        """Channels of the pictures that `apply` takes."""
        return self.spec.input_channels

    @property
    def scale(self) -> int:
        """How many times as wide and as high as pictures is what `apply` makes of them."""
        return 1

    @property
    def reach(self) -> int:
        """How far around itself `apply` looks to make a pixel, in pixels of the input.

        Where a picture is gone through in tiles, what lies nearer to a tile's edge is not used. 0: it
        looks at the whole picture, or nobody knows.
        """
        return 0

    @property
    def gives(self) -> int:
        """Channels of the pictures that `apply` makes."""
        return self.spec.channels

    def optimisers(self) -> Mapping[str, OptimiserSpec]:
        """The optimisers by name; between them they own every net that a phase moves."""
        raise NotImplementedError

    def stages(self, total: int) -> Sequence[Stage]:
        """The training plan for a run of `total` examples."""
        raise NotImplementedError

    def cautions(self, count: int, batch: int) -> list[str]:
        """Sentences for those who are about to train this on `count` examples in such batches.

        Where the family is known to fail, and what to take instead.
        """
        return []

    def latents(self, draws: Draws) -> Tensor | None:
        """Latent vectors for `draws.size` samples, or None where the family has no latent space."""
        return None

    def mapped(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """w of z: (N, latent) to (N, style), for families with `w` among their spaces.

        Args:
            z: as `latents` gives them.
            labels: (N,) class numbers or (N, K) vectors of a conditional family.

        Raises:
            UserError: it has no mapping.
        """
        raise UserError(
            f"{type(self).__name__.lower()} has no mapping from z to w.",
            "Take --space z; stylegan2 has w.",
        )

    def synthesised(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pictures (N, C, H, W) of styles, not bounded, for families with `w` among their spaces.

        Args:
            w: (N, style) for all layers, or (N, layers, style).
            noise: (N, numbers of all `noise_planes`); None: what `sample(latents=...)` takes.

        Raises:
            UserError: it has no styles.
        """
        raise UserError(
            f"{type(self).__name__.lower()} has no styles to make pictures of.",
            "Take --space z; stylegan2 has w.",
        )

    @property
    def noise_planes(self) -> Sequence[tuple[int, int]]:
        """(height, width) of each layer's noise, which `synthesised` takes one after the other."""
        return ()

    def affines(self) -> Sequence[Tensor]:
        """What each layer makes of the latent before anything else, as matrices (outputs, numbers).

        One for each layer that has a w of its own; of families without w the first layer's, which
        takes all of z.

        Raises:
            UserError: it does not say.
        """
        raise UserError(
            f"{type(self).__name__.lower()} does not tell which linear map takes its latent in, so its "
            "directions have no closed form here.",
            "Find them by principal components (--find pca) or from labels (--learn).",
        )

    def sample(
        self,
        draws: Draws,
        *,
        labels: Tensor | None = None,
        latents: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Samples in the form of the data: pictures are (N, C, H, W) in [-1, 1].

        Args:
            draws: randomness for N rows; each row depends on its own draws alone.
            labels: (N,) int64 class numbers, or (N, K) vectors, for a conditional family.
            latents: (N, ...) to use in place of `latents(draws)`.
            truncation: less variety for more typical samples; None: the whole distribution. What
                the number means is the family's to say.

        Raises:
            UserError: it makes pictures from pictures (`apply`).
        """
        if self.applies:
            raise UserError(
                f"{type(self).__name__.lower()} makes pictures from pictures, so it cannot be sampled.",
                "Give it some: faussaire apply RUN pictures/ --out results/",
            )
        raise NotImplementedError

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """What becomes of pictures: (N, K, h, w) in [-1, 1] to (N, C, H, W) in [-1, 1].

        Args:
            x: pictures of any one size.
            draws: randomness for N rows; each row depends on its own draws alone.
        """
        raise NotImplementedError

    def classify(self, x: Tensor) -> Tensor:
        """How probable each class is: (N, C, H, W) in [-1, 1] to (N, K), rows of which sum to 1.

        Raises:
            UserError: the family tells no classes.
        """
        raise UserError(
            f"{type(self).__name__.lower()} tells no classes.",
            "Train one that does: faussaire train sgan pictures/ --labels labels.csv",
        )

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents of which `sample` makes pictures like these: (N, C, H, W) to (N, ...).

        Args:
            x: pictures of the family's own size, in [-1, 1].
            labels: their classes, (N,), or conditions, (N, K); None: a conditional family finds out.

        Raises:
            UserError: the family has no encoder.
        """
        raise UserError(
            f"{type(self).__name__.lower()} has no encoder: it knows no latents of given pictures.",
            "Train vae or vaegan, which have.",
        )

    def moved(self, shift: Tensor) -> Self:
        """A view whose `apply` adds `shift`, in the form of one picture's latents, to what it encodes.

        Raises:
            UserError: the family does not rebuild pictures.
        """
        raise UserError(
            f"{type(self).__name__.lower()} encodes no pictures, so there is no attribute to add.",
            "Leave --plus and --minus out; vae and vaegan have them.",
        )

    def inverse(self) -> Self:
        """A view that applies the other way round.

        Raises:
            UserError: the family has no way back.
        """
        raise UserError(
            f"{type(self).__name__.lower()} has no way back.",
            "Leave --inverse out, or train the other way round.",
        )

    def styled(
        self,
        paintings: Sequence[Tensor],
        shares: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Self:
        """A view that gives pictures the manner of paintings.

        Args:
            paintings: (1, 3, H, W) in [-1, 1] each, of any sizes and on any device.
            shares: of each in the mixture; None: equal ones.
            strength: 0 to 1, from the picture's own manner to theirs.

        Raises:
            UserError: the family takes none, or shares or strength do not fit.
        """
        raise UserError(
            f"{type(self).__name__.lower()} takes no painting when it is used.",
            "Leave --style out; adain takes any.",
        )

    def exam(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What `apply` is tested with on a batch of data, and what should come of it.

        Returns:
            (N, K, h, w) as `apply` takes it, and (N, C, H, W), or None where nobody knows the truth;
            both in [-1, 1].
        """
        raise NotImplementedError

    def unlearnt(self, x: Tensor) -> Tensor | None:
        """What `exam`'s inputs make as they are: (N, K, h, w) to (N, C, H, W), or None.

        The answer of one who has learnt nothing, to measure beside `apply`'s. By default the input
        itself, where it has the form of an answer.
        """
        return x if x.shape[1] == self.gives and self.scale == 1 else None

    @property
    def exam_name(self) -> str:
        """How `exam` makes its inputs, in names of figures: `x2,bicubic`; empty: they are given."""
        return ""

    def consistent(self, made: Tensor) -> Tensor:
        """What input would be expected of a picture made: (N, C, H, W) to (N, K, h, w).

        For families that compare `consistency`.
        """
        raise NotImplementedError

    def demonstrated(self, batch: Batch) -> tuple[Tensor, ...]:
        """Pictures to be looked at side by side, in the order of `panels`.

        Each (N, C, H, W) in [-1, 1], of any sizes and channels. For families that `applies`.
        """
        raise NotImplementedError

    def settle(self, draws: Draws) -> None:
        """Get finished nets ready to sample with, once: BigGAN's standing statistics, say.

        Called on a view with averaged nets in evaluation mode, before measuring and after loading.
        """

    def shown(self, batch: Batch, clock: Clock) -> Tensor:
        """The batch's examples as the discriminator gets them, before any augmentation: (N, ...)."""
        raise NotImplementedError

    def examined(self, batch: Batch, clock: Clock) -> Look | None:
        """How the players fare on this batch; None: there is no such game.

        Called without gradients, with nets in training mode; buffers and extra state are put back.
        A family that has it has `shown` and `judged`, too.
        """
        return None

    def judged(self, batch: Batch, clock: Clock) -> Tensor:
        """What the discriminator makes of the batch's real examples: logits (N,).

        Called as `examined` is; a family that has the one has the other.
        """
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """What it has learnt to see in pictures, for a classifier of one's own: (N, C, H, W) to (N, K).

        Args:
            x: pictures of the form that it was trained on, in [-1, 1].

        Raises:
            UserError: the family has nothing that looks at pictures, or does not show it.
        """
        raise UserError(
            f"{type(self).__name__.lower()} does not show what it sees in pictures.",
            "Take a run of pretext, or of dcgan, sngan or biggan, whose discriminators do.",
        )

    def extra_state(self) -> dict[str, Tensor]:
        """State outside the nets (an image pool, a controller), equal on every process."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `extra_state` gave."""

    def changed(self, **settings: Any) -> Self:
        """A view of this family with other settings of its training (rates, steps, penalties).

        Nets and extra state are shared. What the nets were built from cannot be changed so.

        Raises:
            UserError: a value is out of range.
        """
        view = copy.copy(self)
        view.config = dataclasses.replace(self.config, **settings)  # pyright: ignore[reportArgumentType]
        return view

    def with_nets(self, nets: Mapping[str, nn.Module]) -> Self:
        """A view of this family in which some nets are replaced, for sampling with averages."""
        view = copy.copy(self)
        view.nets = {**self.nets, **nets}
        return view
