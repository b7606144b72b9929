"""Telling classes with a trained model, and how often it is right."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faussaire.application import Failed, meant
from faussaire.core.device import Device
from faussaire.core.errors import UserError, nearest
from faussaire.core.family import Family, Pictures
from faussaire.core.figures import Figure, Provenance
from faussaire.data.decode import EXTENSIONS, Fault, decode, decoding
from faussaire.data.fit import Colour, Resize, fit, from_array, to_array, to_channels
from faussaire.data.labels import apply_table, from_table
from faussaire.data.parallel import Progress
from faussaire.data.sources import open_source
from faussaire.measuring import Sheet

LEAST = 20
"""Fewer labelled pictures tell nothing of how often a model is right."""
_BATCH = 256
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@torch.no_grad()
def probabilities(family: Family[Any], device: Device, pixels: np.ndarray) -> Tensor:
    """How probable each class is: uint8 (N, H, W, C) to (N, K) on the CPU.

    Args:
        family: with averaged nets in evaluation mode.
        device: where it runs.
        pixels: of the size that it was trained at.

    Raises:
        UserError: the family tells no classes.
    """
    parts = [
        family.classify(device.put(np.ascontiguousarray(pixels[first : first + _BATCH])))
        for first in range(0, len(pixels), _BATCH)
    ]
    return torch.cat(parts).float().cpu()


def prepared(
    image: Image.Image, spec: Pictures, how: Resize = "crop", background: Colour = (255, 255, 255)
) -> np.ndarray:
    """A picture as training would have packed it: uint8 (H, W, C).

    Args:
        image: of mode L, RGB or RGBA.
        spec: what the model was told of its data.
        how: `crop`, `pad` or `squash`.
        background: behind transparent pixels and in borders.
    """
    image = to_channels(image, _MODES[spec.channels], background)
    return to_array(fit(image, (spec.height, spec.width), how, background))


# ---- Many pictures ----


@dataclass(frozen=True)
class Question:
    """A picture whose class is asked for.

    Attributes:
        name: as results have it.
        label: its class, where it is known.
        read: opens it; raises a Fault.
    """

    name: str
    label: str | None
    read: Callable[[], Image.Image]


@dataclass(frozen=True)
class Told:
    """A picture's class, as a model tells it.

    Attributes:
        name: of the picture.
        label: its class, where it is known.
        probabilities: of each class, (K,) float32 on the CPU.
    """

    name: str
    label: str | None
    probabilities: Tensor

    @property
    def number(self) -> int:
        """Of the most probable class."""
        return int(self.probabilities.argmax())


def questions(
    words: Sequence[Path], *, labels: Path | None = None, classes: str = "auto"
) -> list[Question]:
    """The pictures that are meant, in order.

    Args:
        words: one source of any kind (a folder, an archive, an array, a table); or files, folders and
            patterns.
        labels: true classes, as for training: a CSV (file, label), or an array's labels.
        classes: where they come from otherwise, as for training.

    Raises:
        UserError: nothing there, or labels that belong to none of them.
    """
    if len(words) == 1 and _is_source(words[0]):
        source = open_source(str(words[0]), classes=classes, labels=labels, partial=True)
        return [
            Question(item.name, item.label, lambda item=item: _image(item.read()))
            for item in source
        ]
    if classes not in ("auto", "none"):
        raise UserError(
            f"--classes {classes} is of one folder or table, and {len(words)} were named.",
            "Name one, or give --labels labels.csv.",
        )
    found = [
        (source, below if len(words) == 1 else word / below if word.is_dir() else source)
        for word in words
        for source, below in meant(word, None)
    ]
    if not found:
        raise UserError(
            f"There are no pictures in {', '.join(map(str, words))}.",
            "Name PNG, JPEG, WebP, TIFF or GIF files, or folders of them.",
        )
    names = [name.as_posix() for _, name in found]
    known: list[str | None] = [None] * len(names)
    if labels is not None:
        known, _ = apply_table(names, from_table(labels, "auto"), labels)
    return [
        Question(name, label, lambda source=source: _opened(source))
        for name, label, (source, _) in zip(names, known, found, strict=True)
    ]


def _is_source(word: Path) -> bool:
    """Whether it is a whole set, rather than a picture or a pattern of them."""
    if not word.exists():
        return str(word) == "digits" or str(word).startswith("hf:")
    return word.is_dir() or word.suffix.lower() not in EXTENSIONS


def _opened(path: Path) -> Image.Image:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Fault("unreadable", error.strerror or str(error)) from error
    with decoding():
        return decode(raw).image


def _image(found: Image.Image | np.ndarray) -> Image.Image:
    return from_array(found) if isinstance(found, np.ndarray) else found


def tell(
    family: Family[Any],
    device: Device,
    asked: Sequence[Question],
    *,
    how: Resize = "crop",
    background: Colour = (255, 255, 255),
    progress: Progress | None = None,
) -> tuple[list[Told], list[Failed]]:
    """The classes of pictures; one that cannot be read does not keep the others from being told.

    Args:
        family: with averaged nets in evaluation mode.
        device: where it runs.
        asked: the pictures.
        how, background: as for `prepared`.
        progress: called as progress(what, done, total).

    Raises:
        UserError: the family tells no classes.
    """
    told: list[Told] = []
    failed: list[Failed] = []
    for first in range(0, len(asked), _BATCH):
        rows: list[np.ndarray] = []
        those: list[Question] = []
        for one in asked[first : first + _BATCH]:
            try:
                rows.append(prepared(one.read(), family.spec, how, background))
            except Fault as fault:
                failed.append(Failed(Path(one.name), fault.reason))
            else:
                those.append(one)
        if rows:
            found = probabilities(family, device, np.stack(rows))
            told += [Told(one.name, one.label, row) for one, row in zip(those, found, strict=True)]
        if progress is not None:
            progress("pictures", min(first + _BATCH, len(asked)), len(asked))
    return told, failed


def written(told: Sequence[Told], classes: Sequence[str], *, every: bool = False) -> str:
    """A CSV: file, class, probability; the true class where any is known; `every`: all probabilities."""
    known = any(one.label is not None for one in told)
    header = ["file", "class", "probability", *(["label"] if known else [])]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*header, *([f"p({name})" for name in classes] if every else [])])
    for one in told:
        row = [one.name, classes[one.number], _share(one.probabilities[one.number])]
        row += [one.label or ""] if known else []
        table.writerow([*row, *(map(_share, one.probabilities) if every else [])])
    return text.getvalue()


def _share(value: Tensor) -> str:
    return f"{float(value):.4f}"


# ---- How often it is right ----


@dataclass(frozen=True)
class Tally:
    """Which class was told for pictures of which.

    Attributes:
        classes: names.
        counts: (K, K) int64, a row for each true class, a column for each told.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, told: np.ndarray, classes: Sequence[str]) -> Tally:
        """From class numbers (N,) of both."""
        size = len(classes)
        counts = np.bincount(true * size + told, minlength=size * size).reshape(size, size)
        return cls(tuple(classes), counts)

    @classmethod
    def known(cls, told: Sequence[Told], classes: Sequence[str]) -> tuple[Tally, list[str]]:
        """Of the pictures whose class is known, and sentences on those of other classes.

        Raises:
            UserError: none is of a class that the model tells.
        """
        numbers = {name: index for index, name in enumerate(classes)}
        known = [one for one in told if one.label is not None]
        rows = [(numbers[one.label], one.number) for one in known if one.label in numbers]
        foreign = sorted({str(one.label) for one in known} - numbers.keys())
        if not rows:
            raise UserError(
                f"No label is a class of this model; the first is '{foreign[0] if foreign else ''}'."
                f"{nearest(foreign[0], classes) if foreign else ''}",
                f"Its classes are: {', '.join(classes[:20])}.",
            )
        notes = []
        if foreign:
            count = len(known) - len(rows)
            notes.append(
                f"{count:,} pictures of other classes ({', '.join(foreign[:5])}) are not counted: the "
                "model knows none of them."
            )
        true, said = np.array(rows, np.int64).T
        return cls.of(true, said, classes), notes

    @property
    def count(self) -> int:
        """Pictures."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The share that was told right."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def error(self) -> float:
        """The standard error of the accuracy."""
        return math.sqrt(self.accuracy * (1.0 - self.accuracy) / self.count)

    @property
    def by_class(self) -> dict[str, float]:
        """The same of each class of which there is a picture."""
        return {
            name: float(self.counts[row, row] / self.counts[row].sum())
            for row, name in enumerate(self.classes)
            if self.counts[row].any()
        }

    @property
    def no_skill(self) -> float:
        """The share of the most frequent class: what always telling that one gets."""
        return float(self.counts.sum(axis=1).max() / self.counts.sum())

    @property
    def usual(self) -> str:
        """The most frequent class."""
        return self.classes[int(self.counts.sum(axis=1).argmax())]

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "labelled": self.count,
            "accuracy": self.accuracy,
            "error": self.error,
            "no_skill": self.no_skill,
            "classes": list(self.classes),
            "confusion": self.counts.tolist(),
        }

    def lines(self) -> list[str]:
        """The table, true classes down, told ones across; of many classes the usual confusions."""
        names = [str(name) for name in self.classes]
        if len(names) > 12:
            return [*self._confusions(10)]
        width = max(4, *(len(name) for name in names), len(str(self.counts.max())))
        head = " " * (width + 2) + " ".join(f"{name:>{width}}" for name in names)
        rows = [
            f"{name:>{width}}  " + " ".join(f"{count or '.':>{width}}" for count in row)
            for name, row in zip(names, self.counts.tolist(), strict=True)
        ]
        return [head, *rows]

    def sheet(self) -> Sheet:
        """The table as something to look at beside figures."""
        text = "\n".join(self.lines()) + "\n"
        return Sheet(
            name="confusion.txt",
            content=text.encode(),
            caption="true classes down, told ones across",
        )

    def _confusions(self, most: int) -> Iterator[str]:
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        for place in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            row, column = divmod(int(place), len(self.classes))
            if wrong[row, column]:
                true, told = self.classes[row], self.classes[column]
                yield f"{wrong[row, column]:,} pictures of '{true}' were told to be '{told}'"


@dataclass(frozen=True, kw_only=True)
class Test:
    """Labelled pictures that a model is asked for.

    Attributes:
        pixels: uint8 (N, H, W, C), of which `rows` are asked.
        rows: (M,) int64.
        labels: (M,) int64 class numbers.
        classes: their names.
        name: of the set, in figures: `held-out`.
        key: of its content.
    """

    __test__ = False  # it is none of pytest's

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    key: str

    def require(self) -> None:
        """Refuse a test that tells nothing.

        Raises:
            UserError: too few pictures.
        """
        if len(self.rows) < LEAST:
            raise UserError(
                f"{len(self.rows)} of the {self.name} pictures have a label, which is too few to tell "
                "how often the model is right.",
                "Hold out more (--holdout 0.2), or give others that have labels: faussaire classify RUN "
                "pictures/ --labels labels.csv",
            )

    def measure(
        self, family: Family[Any], device: Device, progress: Progress | None = None
    ) -> tuple[Figure, Tally]:
        """The accuracy.

        Raises:
            UserError: too few pictures, or the family tells no classes.
        """
        self.require()
        told: list[Tensor] = []
        for first in range(0, len(self.rows), _BATCH):
            rows = self.rows[first : first + _BATCH]
            told.append(probabilities(family, device, self.pixels[rows]).argmax(dim=1))
            if progress is not None:
                progress("labelled pictures", first + len(rows), len(self.rows))
        tally = Tally.of(self.labels, torch.cat(told).numpy(), self.classes)
        height, width, channels = self.pixels.shape[1:]
        figure = Figure(
            provenance=Provenance(
                metric="accuracy",
                count=len(self.rows),
                reference=self.name,
                reference_count=len(self.rows),
                reference_key=self.key,
                pictures=f"{height}x{width}x{channels}",
            ),
            value=tally.accuracy,
            error=tally.error,
            given=tally.no_skill,
            parts=tally.by_class,
        )
        return figure, tally
