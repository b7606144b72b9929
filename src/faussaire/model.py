"""A trained model, loaded again: samples and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faussaire.application import Opened, answer
from faussaire.classification import prepared, probabilities
from faussaire.core.batch import RowDraws, mix
from faussaire.core.device import Device, DeviceName
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.state import settling_draws
from faussaire.data.decode import Fault, normalise
from faussaire.families import load_family
from faussaire.features import Given, features_of
from faussaire.holes import with_hole
from faussaire.modality import load_modality
from faussaire.nn.degrade import grey
from faussaire.originals import Picture, read_picture
from faussaire.rebuilding import fitted
from faussaire.report import pictures
from faussaire.restoring import restore
from faussaire.sampling import class_numbers, seeded_rows

_BATCH = 64


@dataclass(frozen=True)
class Classes:
    """What a model tells of N pictures.

    Attributes:
        names: of the K classes.
        probabilities: (N, K) float32 on the CPU; rows sum to 1.
    """

    names: tuple[str, ...]
    probabilities: Tensor

    @property
    def numbers(self) -> Tensor:
        """The most probable class of each picture, (N,) int64."""
        return self.probabilities.argmax(dim=1)

    @property
    def told(self) -> list[str]:
        """Their names."""
        return [self.names[number] for number in self.numbers.tolist()]


class Model:
    """A family with trained, averaged weights.

    Attributes:
        family: the family, its nets in evaluation mode.
        spec: what its pictures look like.
        examples: how many examples it had seen.
        device: where it runs.
    """

    def __init__(self, family: Family[Any], spec: Pictures, examples: int, device: Device) -> None:
        self.family, self.spec, self.examples, self.device = family, spec, examples, device

    @property
    def conditional(self) -> bool:
        """Whether samples have a class."""
        return bool(getattr(self.family.config, "conditional", False))

    def sample(
        self,
        count: int = 16,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        label: str | int | Sequence[int] | None = None,
        truncation: float | None = None,
        start: int = 0,
    ) -> Tensor:
        """Pictures as float32 (count, C, H, W) in [0, 1], on the CPU.

        Picture i depends on (seed, start + i) alone: sampling 64 begins with the 16 of sampling 16.

        Args:
            count: how many.
            seed: names an endless sequence of pictures.
            seeds: the first picture of each of these seeds, in place of count, seed and start.
            label: a class by name or number for all, or a number for each; None: drawn at random.
            truncation: less variety for more typical samples: stylegan2 goes this share of the way
                from its mean picture, other families keep latent numbers within it.
            start: where in the sequence to begin.

        Raises:
            UserError: the model has no such class, or no classes.
        """
        rows = seeded_rows(count, seed, seeds, start)
        labels = self.labels(label, len(rows))
        parts = []
        for first in range(0, len(rows), _BATCH):
            some = rows[first : first + _BATCH]
            draws = RowDraws([mix(*row) for row in some], device=self.device.name)
            chosen = None if labels is None else labels[first : first + _BATCH]
            parts.append(self._run(draws, chosen, None, truncation))
        return torch.cat(parts)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1] from latent vectors (N, ...) and class numbers (N,)."""
        parts = []
        for first in range(0, len(latents), _BATCH):
            some = latents[first : first + _BATCH].to(self.device.name)
            chosen = None if labels is None else labels[first : first + _BATCH]
            draws = RowDraws.counted(0, len(some), start=first, device=self.device.name)
            parts.append(self._run(draws, chosen, some))
        return torch.cat(parts)

    def latents(self, count: int, *, seed: int = 0) -> Tensor:
        """The latent vectors that `sample(count, seed=seed)` starts from, (count, ...).

        Raises:
            UserError: the family has no latent space.
        """
        found = self.family.latents(RowDraws.counted(seed, count))
        if found is None:
            raise UserError("This family has no latent space.", "Use `sample` instead.")
        return found

    def encode(
        self, image: Picture | Sequence[Picture] | Tensor, label: str | int | None = None
    ) -> Tensor:
        """Latents of pictures, (N, ...) on the CPU, of which `decode` makes pictures like them.

        Args:
            image: a path or a Pillow image, or several, of any size; or float (N, C, H, W) in [0, 1],
                of the model's.
            label: their class, of a conditional model; None: it finds out, for each.

        Raises:
            UserError: the family has no encoder, or a file cannot be read.
        """
        if isinstance(image, Tensor):
            x = image.float() * 2.0 - 1.0
            if tuple(x.shape[1:]) != self.spec.shape:
                raise UserError(
                    f"The model knows pictures of {self.spec.shape}, as (C, H, W), and these are "
                    f"{tuple(x.shape[1:])}.",
                    "Resize them, or give Pillow images.",
                )
        else:
            some = [image] if isinstance(image, str | Path | Image.Image) else image
            x = torch.cat([fitted(self.family, _opened(one)) for one in some])
        parts = []
        for first in range(0, len(x), _BATCH):
            rows = x[first : first + _BATCH].to(self.device.name)
            labels = None if label is None else self.labels(label, len(rows))
            with torch.no_grad():
                labels = None if labels is None else labels.to(rows.device)
                parts.append(self.family.encode(rows, labels).float().cpu())
        return torch.cat(parts)

    def classes_of(self, image: Picture | Sequence[Picture]) -> Tensor:
        """The class numbers (N,) that a conditional model with an encoder thinks likeliest.

        Raises:
            UserError: a file cannot be read.
        """
        some = [image] if isinstance(image, str | Path | Image.Image) else image
        x = torch.cat([fitted(self.family, _opened(one)) for one in some])
        with torch.no_grad():
            return self.family.likeliest(x.to(self.device.name)).cpu()  # pyright: ignore

    def apply(
        self,
        image: Image.Image | np.ndarray | Tensor | str | Path,
        *,
        seed: int = 0,
        tile: int | None = None,
        inverse: bool = False,
        mask: Image.Image | np.ndarray | Tensor | str | Path | None = None,
        work_resolution: int | None = None,
        style: Picture | Sequence[Picture] | None = None,
        share: Sequence[float] | None = None,
        strength: float = 1.0,
        shift: Tensor | None = None,
    ) -> Any:
        """What the model makes of a picture, as large as it (times the model's scale).

        vae and vaegan give back what they know of it, at the size that they were trained at.

        Args:
            image: a Pillow image or a path, which give a Pillow image; uint8 (H, W) or (H, W, C),
                which gives the same; or float (N, C, H, W) in [0, 1], which gives float.
            seed: of what the model draws at random, where it does.
            tile: pixels a side that are handled at once; 0: all; None: 1024 for larger pictures.
            inverse: the way back, which cyclegan has.
            mask: for inpaint, what is missing, as light places of a picture of the same size: of any
                kind that `image` may be, or (N, 1, H, W) in [0, 1].
            work_resolution: pixels of the shorter side at which colorize makes colours; None: as
                trained.
            style: for adain, a painting (a path, or a Pillow image), or several to be mixed.
            share: of each painting in the mixture; None: equal ones.
            strength: 0 to 1, from the picture's own manner to the paintings'; or how much of `shift`.
            shift: for vae and vaegan, what to add to the picture's latents: a difference of what
                `encode` gave, say.

        Raises:
            UserError: the model makes pictures of noise, has no way back, the file cannot be read, or
                the mask has another size.
        """
        how: dict[str, Any] = {
            "seed": seed,
            "tile": tile,
            "inverse": inverse,
            "work_resolution": work_resolution,
            "style": style,
            "share": share,
            "strength": strength,
            "shift": shift,
        }
        if isinstance(image, Tensor):
            x = image.float() * 2.0 - 1.0
            alpha = x[:, 3:] if x.shape[1] == 4 else None
            made = self.answer(_holed(Opened(x[:, :3], alpha, False), mask), **how)
            parts = [made.colour] if made.alpha is None else [made.colour, made.alpha]
            return torch.cat(parts, dim=1).clamp(-1.0, 1.0).add(1.0).div(2.0)
        if isinstance(image, np.ndarray):
            found = self.answer(_holed(_opened(image), mask), **how)
            return np.asarray(found.image())
        return self.answer(_holed(_opened(image), mask), **how).image()

    def features(self, images: Given) -> Tensor:
        """What the discriminator sees in pictures, float32 (N, K) on the CPU; see `features_of`.

        Raises:
            UserError: the family does not show it, or the pictures are of another form.
        """
        return features_of(self.family, self.device, images)

    def answers(
        self,
        *,
        inverse: bool = False,
        work_resolution: int | None = None,
        style: Picture | Sequence[Picture] | None = None,
        share: Sequence[float] | None = None,
        strength: float = 1.0,
        shift: Tensor | None = None,
    ) -> Family[Any]:
        """The family that `answer` asks: this one, its way back, it at another resolution or in a style.

        Or, of one that rebuilds pictures, it with something added to each.

        Raises:
            UserError: it makes pictures of noise, has no way back, no such setting, or wants a style
                that was not given.
        """
        name = type(self.family).__name__.lower()
        if not (self.family.applies or self.family.rebuilds):
            raise UserError(
                f"{name} makes pictures of noise, not of other pictures.",
                "Use `sample`; pix2pix, cyclegan, colorize, superres, inpaint, faststyle and adain turn "
                "pictures into pictures, vae and vaegan give them back.",
            )
        family = self.family.inverse() if inverse else self.family
        if shift is not None:
            family, strength = family.moved(strength * shift), 1.0
        if style is not None:
            one = isinstance(style, str | Path | Image.Image)
            paintings = [read_picture(each).tensor for each in ([style] if one else style)]
            family = family.styled(paintings, share, strength)
        elif family.stylises:
            raise UserError(
                f"{name} gives pictures the manner of a painting, and none was given.",
                "Name one, or several to be mixed: --style painting.jpg; in Python, `style`.",
            )
        elif share is not None or strength != 1.0:
            raise UserError(
                f"{name} takes no painting when it is used, so there is no share or strength of one.",
                "Leave --share and --strength out; adain has them.",
            )
        if work_resolution is None:
            return family
        if not hasattr(family.config, "work_resolution"):
            raise UserError(
                f"{name} works at each picture's own size.",
                "Leave --work-resolution out; colorize has it.",
            )
        return family.changed(work_resolution=work_resolution)

    def answer(
        self, opened: Opened, *, seed: int = 0, tile: int | None = None, **how: Any
    ) -> Opened:
        """`apply` on a picture that was read.

        Args:
            opened: the picture.
            seed, tile: as for `apply`.
            how: as for `answers`.

        Raises:
            UserError: see `answers`; or the model fills holes and was told of none.
        """
        return answer(self.answers(**how), self.device, opened, seed=seed, tile=tile)

    @torch.no_grad()
    def _run(
        self,
        draws: RowDraws,
        labels: Tensor | None,
        latents: Tensor | None,
        truncation: float | None = None,
    ) -> Tensor:
        if labels is not None:
            labels = labels.to(self.device.name)
        images = self.family.sample(draws, labels=labels, latents=latents, truncation=truncation)
        return images.clamp(-1.0, 1.0).add(1.0).div(2.0).float().cpu()

    def classify(
        self, images: Picture | np.ndarray | Tensor | Sequence[Picture | np.ndarray]
    ) -> Classes:
        """The classes of pictures.

        Args:
            images: a path, a Pillow image or uint8 (H, W) or (H, W, C), or several of these, of any
                size, which are brought to that of the model as training does it with `fit="crop"`; or
                float (N, C, H, W) in [0, 1] of the model's own size and channels.

        Raises:
            UserError: the model tells no classes, a file cannot be read, or a tensor has another size.
        """
        if isinstance(images, Tensor):
            if tuple(images.shape[1:]) != self.spec.shape:
                raise UserError(
                    f"Pictures of shape {tuple(images.shape[1:])} do not fit this model, which tells "
                    f"classes of {self.spec.shape}.",
                    "Resize them, or give Pillow images or paths.",
                )
            with torch.no_grad():
                x = images.float().mul(2.0).sub(1.0)
                parts = [
                    self.family.classify(part.to(self.device.name)) for part in x.split(_BATCH)
                ]
            return Classes(self.spec.classes, torch.cat(parts).float().cpu())
        one = isinstance(images, str | Path | Image.Image | np.ndarray)
        pixels = [
            prepared(_opened(image).image(), self.spec) for image in ([images] if one else images)
        ]
        found = probabilities(self.family, self.device, np.stack(pixels))
        return Classes(self.spec.classes, found)

    def pictures(self, count: int = 16, **how: Any) -> list[Image.Image]:
        """`sample` as Pillow images."""
        rows = pictures.to_uint8(self.sample(count, **how) * 2.0 - 1.0)
        return [pictures.to_image(row) for row in rows]

    def grid(self, count: int = 64, **how: Any) -> Image.Image:
        """`sample` as one picture."""
        return pictures.grid(pictures.to_uint8(self.sample(count, **how) * 2.0 - 1.0))

    def labels(self, label: str | int | Sequence[int] | None, count: int) -> Tensor | None:
        """Class numbers (count,) for a class by name or number, or one for each row."""
        return class_numbers(label, count, self.spec.classes, self.conditional)


def _opened(image: Image.Image | np.ndarray | str | Path) -> Opened:
    """A picture of any kind but a tensor.

    Raises:
        UserError: the file cannot be read.
    """
    if isinstance(image, np.ndarray):
        return Opened.of(Image.fromarray(image))
    if isinstance(image, Image.Image):
        return Opened.of(normalise(image))
    try:
        return Opened.read(Path(image))
    except Fault as fault:
        raise UserError(f"'{image}' cannot be read: {fault.reason}.", "Give another.") from fault


def _holed(opened: Opened, mask: Image.Image | np.ndarray | Tensor | str | Path | None) -> Opened:
    """The picture with the hole that a mask shows.

    Raises:
        UserError: the mask has another size, or its file cannot be read.
    """
    if mask is None:
        return opened
    light = mask.float() * 2.0 - 1.0 if isinstance(mask, Tensor) else _opened(mask).colour
    try:
        return with_hole(opened, grey(light), "given")
    except Fault as fault:
        raise UserError(
            f"{fault.reason}.", "Give a mask of the picture's size, light where it is missing."
        ) from fault


def load(path: str | Path, *, checkpoint: str = "latest", device: DeviceName = "auto") -> Any:
    """A model from a run folder, from one checkpoint folder, or from a file of published weights.

    Args:
        path: `RUN` or `RUN/checkpoints/000012800`; or weights of ESRGAN or Real-ESRGAN, `.safetensors`
            or `.pth`.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to put it.

    Returns:
        What its modality has: a `Model` for pictures, a `texts.model.TextModel` for sentences.

    Raises:
        UserError: nothing to load there, or it is damaged.
    """
    folder = Path(path)
    if folder.is_file():
        family = load_family("superres").from_file(folder)  # pyright: ignore[reportAttributeAccessIssue]
        return _ready(family, family.spec, 0, device)
    found = restore(folder, checkpoint)
    return _ready(found.family, found.spec, found.examples, device)


def load_pictures(
    path: str | Path, *, checkpoint: str = "latest", device: DeviceName = "auto"
) -> Model:
    """`load` of what makes pictures.

    Raises:
        UserError: as `load`; or it makes something else.
    """
    model = load(path, checkpoint=checkpoint, device=device)
    if not isinstance(model, Model):
        noun = load_modality(type(model.family)).noun
        raise UserError(
            f"'{path}' makes {noun}, and this is for pictures.",
            "Use faussaire sample or faussaire evaluate.",
        )
    return model


def _ready(family: Family[Any], spec: Any, examples: int, device: DeviceName) -> Any:
    """A family with its weights, where it is to run."""
    place = Device.choose(device, "auto")
    for net in family.nets.values():
        place.prepare(net.eval())
    with torch.no_grad():
        family.settle(settling_draws(place.name))
    return load_modality(type(family)).model(family, spec, examples, place)
