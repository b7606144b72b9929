"""Measuring what makes pictures from pictures: each answer beside the picture that it should be.

Pictures are asked as `faussaire apply` asks, rounded to whole levels as its files are, and compared with
the truth one by one: a figure is the mean over pairs, with its standard error. Where data are cut into
tiles (super-resolution), whole pictures are asked, at their own size, as papers do. Metrics of sets (FID
and its like) compare answers with true pictures as they compare samples; without pairs they are what
there is, for the way there and the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from faussaire.application import TILE, translated
from faussaire.core.batch import Batch, BatchDraws, RowDraws, mix
from faussaire.core.config import Settings
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.data.fit import from_array, to_array, to_channels
from faussaire.data.pack import Images
from faussaire.data.parallel import Progress
from faussaire.data.scan import scan
from faussaire.data.source import Source, digest
from faussaire.data.sources import open_source
from faussaire.material import PictureMaterial, pack_options
from faussaire.metrics.pictures import PictureSet, shuffled_rows
from faussaire.nn.degrade import rounded
from faussaire.report.pictures import to_uint8

SEEN = 200
"""Pictures measured of those trained on, where none are held out and no count is asked for."""
_BATCH = 16
WINDOW = 11
"""Pixels a side of SSIM's windows."""


# ---- What is asked ----


class Exam(Protocol):
    """Data to make questions of, row by row.

    Attributes:
        name: what figures call them: `held-out`.
        key: of their content.
        whole: whether these are all that the key is of.
        size: of their pictures, `HxWxC`, or `whole` where each has its own.
        least: pixels of the shortest side.
    """

    name: str
    key: str
    whole: bool
    size: str
    least: int

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[list[int]]:
        """Rows that can be answered together, for they are of one size."""
        ...

    def fields(self, row: int) -> dict[str, np.ndarray]:
        """A row's data by field name, uint8 (1, H, W, C)."""
        ...


class PackedExam:
    """Rows of packed data.

    Args:
        table: pictures by field name, uint8 (N, H, W, C).
        rows: which of them.
        name, key, whole: see `Exam`.
    """

    def __init__(
        self, table: Mapping[str, np.ndarray], rows: np.ndarray, name: str, key: str, whole: bool
    ) -> None:
        self.table, self.rows = table, rows
        self.name, self.key, self.whole = name, key, whole
        self.size = "x".join(map(str, [*table.values()][-1].shape[1:]))
        self.least = min(min(pictures.shape[1:3]) for pictures in table.values())

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[list[int]]:
        for start in range(0, len(self), _BATCH):
            yield list(range(start, min(start + _BATCH, len(self))))

    def fields(self, row: int) -> dict[str, np.ndarray]:
        place = int(self.rows[row])
        return {
            # A copy, for packs are read-only, which torch warns of.
            name: np.array(pictures[place : place + 1])
            for name, pictures in self.table.items()
        }


class WholeExam:
    """Whole pictures of a source at their own size, cut to a multiple of the model's scale.

    Args:
        source: the pictures; opened, and left so.
        places: which of its items.
        digests: of the contents of these.
        settings: how pictures are read.
        images: their pack, for the channels.
        name, whole: see `Exam`.
        scale: the model's.
    """

    size = "whole"

    def __init__(
        self,
        source: Source,
        places: Sequence[int],
        digests: Sequence[str],
        settings: Settings,
        images: Images,
        *,
        name: str,
        whole: bool,
        scale: int,
    ) -> None:
        self.source, self.places, self.scale = source, list(places), scale
        self.name, self.whole = name, whole
        self.key = digest("whole", *digests)
        self.least = WINDOW + 2 * scale
        self._mode = images.mode
        self._background = pack_options(settings).background

    def __len__(self) -> int:
        return len(self.places)

    def blocks(self) -> Iterator[list[int]]:
        for row in range(len(self)):
            yield [row]

    def fields(self, row: int) -> dict[str, np.ndarray]:
        read = self.source[self.places[row]].read()
        image = from_array(read) if isinstance(read, np.ndarray) else read
        pixels = to_array(to_channels(image, self._mode, self._background))
        height, width = (side // self.scale * self.scale for side in pixels.shape[:2])
        return {"images": np.ascontiguousarray(pixels[None, :height, :width])}


@dataclass(frozen=True)
class Way:
    """One direction in which pictures are made of others.

    Attributes:
        word: in figures' names: empty, or `back`.
        pairs: what is asked for metrics of pairs.
        sets: what is asked for metrics of sets: of one size.
        reals: rows of what answers should be like, where they are no pairs; None: the pairs' truth.
    """

    word: str
    pairs: Exam
    sets: PackedExam
    reals: PackedExam | None = None


@dataclass(frozen=True)
class Examination:
    """All that is asked of a model.

    Attributes:
        ways: one, or two where there is a way back.
        paired: whether the truth is known.
        notes: what the reader should know of the choice of pictures.
    """

    ways: tuple[Way, ...]
    paired: bool
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Way:
        """The way there."""
        return self.ways[0]

    def describe(self) -> str:
        """What is asked, in words: `96 pairs of held-out, 64x64`."""
        exam = self.main.pairs
        what = "pairs" if self.paired else "pictures"
        counts = " and ".join(f"{len(way.pairs):,}" for way in self.ways)
        size = "at their own size" if exam.size == "whole" else exam.size.rpartition("x")[0]
        return f"{counts} {what} of {exam.name}, {size}"


def prepare(
    material: PictureMaterial,
    settings: Settings,
    kind: type[Family[Any]],
    *,
    scale: int,
    name: str | None = None,
    count: int | None = None,
    progress: Progress | None = None,
) -> Examination:
    """Choose what is asked: what training held out, or all of other pictures.

    Args:
        material: the run's data, or others read in the same way.
        settings: of the run, with the source of that material.
        kind: the family.
        scale: how many times as large its answers are.
        name: of other pictures, all of which are asked; None: the run's own.
        count: at most so many, at random; None: all, of those trained on `SEEN`.
        progress: called as progress(what, done, total).

    Raises:
        UserError: no pictures.
    """
    notes: list[str] = []
    chosen: list[tuple[np.ndarray, str, bool]] = []
    every: list[np.ndarray] = []
    limit = None
    for train, unseen in material.split(0.0 if name is not None else settings.data.holdout):
        rows, called, most = (train, name or "train", None) if name else (unseen, "held-out", None)
        if len(rows) == 0:
            rows, called, most = train, "train", SEEN
            notes = [
                "No pictures were held out, so those that it was trained on are measured, and learning "
                "by heart would look like learning. Train with --holdout 0.1, or compare with "
                "--against others."
            ]
        every.append(rows)
        limit = count or most
        if limit is not None and limit < len(rows):
            rows = np.sort(rows[shuffled_rows(len(rows))[:limit]])
        chosen.append((rows, called, len(rows) == len(every[-1])))
    tables = material.tables
    exams = [
        PackedExam(
            {field: pictures for field, pictures in table.items() if field != "labels"},
            rows,
            called,
            digest(material.key, str(place), rows.tobytes()),
            whole,
        )
        for place, (table, (rows, called, whole)) in enumerate(zip(tables, chosen, strict=True))
    ]
    if len(exams) == 2:
        inputs, images = exams
        turned = PackedExam(
            {"inputs": images.table["images"]}, images.rows, images.name, images.key, images.whole
        )
        ways = (Way("", inputs, inputs, images), Way("back", turned, turned, inputs))
        return Examination(ways, False, tuple(notes))
    (exam,) = exams
    pairs: Exam = exam
    if settings.data.fit == "tiles" and material.inputs is None:
        images = material.images
        owners = {images.names[row].rpartition("#")[0] for row in every[0].tolist()}
        pairs, left = _whole_pictures(images, owners, exam.name, settings, scale, limit, progress)
        if left:
            notes.append(f"{left} pictures are smaller than what is measured, and were left out.")
    return Examination((Way("", pairs, exam),), True, tuple(notes))


def _whole_pictures(
    images: Images,
    owners: Collection[str],
    called: str,
    settings: Settings,
    scale: int,
    most: int | None,
    progress: Progress | None,
) -> tuple[WholeExam, int]:
    """Pictures of these names, `most` of them, and how many are too small."""
    data = settings.data
    with ExitStack() as opened:
        source = opened.enter_context(
            open_source(settings.source, classes=data.classes, labels=data.labels)
        )
        seen = scan(source, progress=progress)
        least = WINDOW + 3 * scale
        named = [place for place, name in enumerate(source.listing.names) if name in owners]
        places = [place for place in named if min(seen.sizes[place]) >= least]
        if not places:
            raise UserError(
                f"None of the {len(named)} pictures of '{settings.source}' has {least}x{least} pixels.",
                "Give larger ones.",
            )
        count = len(places)
        if most is not None and most < count:
            places = sorted(places[row] for row in shuffled_rows(count)[:most])
        found = WholeExam(
            source,
            places,
            [seen.digests[place] for place in places],
            settings,
            images,
            name=called,
            whole=len(places) == count,
            scale=scale,
        )
        opened.pop_all()  # the pictures are read as they are asked
    return found, len(named) - count


# ---- Answers ----


@dataclass(frozen=True)
class Answer:
    """Some questions of one size, what was made of them, and what should have been.

    Attributes:
        family: that answered.
        x: (N, K, h, w), what it took.
        made: (N, C, H, W), in whole levels.
        truth: the same in form; None: nobody knows it.
        size: of the pictures, as `Exam` has it.
        back: of what was made, made again by the way back.
    """

    family: Family[Any]
    x: Tensor
    made: Tensor
    truth: Tensor | None
    size: str
    back: Callable[[], Tensor]

    @property
    def true(self) -> Tensor:
        """The truth, where it is known."""
        assert self.truth is not None
        return self.truth

    @property
    def hole(self) -> Tensor:
        """(N, 1, H, W), 1 where something was missing."""
        return (self.x[:, -1:] > 0.0).float()

    @property
    def border(self) -> int:
        """Pixels at each side that PSNR and SSIM of luma do not look at."""
        return border(self.family)


def border(family: Family[Any]) -> int:
    """As wide as the scale, which is the custom of papers on super-resolution."""
    return family.scale if family.scale > 1 else 0


@torch.no_grad()
def asked(family: Family[Any], device: Device, exam: Exam, row: int, seed: int) -> Any:
    """The question of a row, (1, K, h, w), and its answer or None; what is drawn depends on the row."""
    fields = {name: device.put(pixels) for name, pixels in exam.fields(row).items()}
    draws = BatchDraws(mix(seed, "exam", row), total=1, rows=slice(0, 1), device=device.name)
    return family.exam(Batch(fields, draws, 1))


def answers(
    family: Family[Any],
    device: Device,
    exam: Exam,
    seed: int,
    rows: Sequence[Sequence[int]] | None = None,
) -> Iterator[Answer]:
    """What a family makes of an exam, in blocks of rows of one size."""
    for block in exam.blocks() if rows is None else rows:
        pairs = [asked(family, device, exam, row, seed) for row in block]
        x = torch.cat([question for question, _ in pairs]).float()
        made = _answered(family, device, x, block, seed)
        truth = None if pairs[0][1] is None else torch.cat([one for _, one in pairs]).float().cpu()

        def back(made: Tensor = made, block: Sequence[int] = block) -> Tensor:
            return _answered(family.inverse(), device, made, block, seed)

        yield Answer(family, x.cpu(), made, truth, exam.size, back)


def _answered(
    family: Family[Any], device: Device, x: Tensor, rows: Sequence[int], seed: int
) -> Tensor:
    """Whole levels on the CPU, as `apply` would write them."""
    if len(x) == 1 and x.shape[2] * x.shape[3] > TILE * TILE:
        made = translated(family, device, x, seed=mix(seed, rows[0]))
    else:
        draws = RowDraws([mix(seed, "answer", row) for row in rows], device=device.name)
        with torch.no_grad():
            made = family.apply(x.to(device.name), draws).float().cpu()
    if bool(made.isnan().any()):
        to_uint8(made)  # which refuses them in words
    return rounded(made)


class Made:
    """What a family makes of an exam, as a set of pictures."""

    name, whole = "answers", True
    key = ""
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __init__(self, family: Family[Any], device: Device, exam: PackedExam, seed: int) -> None:
        self._family, self._device, self._exam, self._seed = family, device, exam, seed

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        question, _ = asked(self._family, self._device, self._exam, 0, self._seed)
        scale = self._family.scale
        return scale * question.shape[2], scale * question.shape[3], self._family.gives

    def __len__(self) -> int:
        return len(self._exam)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        block = [int(row) for row in rows]
        parts = [block[start : start + _BATCH] for start in range(0, len(block), _BATCH)]
        found = answers(self._family, self._device, self._exam, self._seed, parts)
        return np.concatenate([to_uint8(answer.made) for answer in found])


class Truth:
    """The true answers of an exam, or the pictures of another, as a set of pictures."""

    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __init__(self, exam: PackedExam, channels: int) -> None:
        self._pictures, self._rows = [*exam.table.values()][-1], exam.rows
        self.name, self.whole = exam.name, exam.whole
        height, width = self._pictures.shape[1:3]
        self.shape = (height, width, channels)
        self.key = digest(exam.key, str(self.shape))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        found = self._pictures[self._rows[np.asarray(rows)]]
        return np.ascontiguousarray(found[..., : self.shape[2]])


def as_sets(
    family: Family[Any], device: Device, way: Way, seed: int
) -> tuple[PictureSet, PictureSet]:
    """What is made, and what it should be like, for metrics of sets."""
    made = Made(family, device, way.sets, seed)
    return made, Truth(way.reals or way.sets, family.gives)
