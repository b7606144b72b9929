"""What a run trains on: pictures that have captions, packed, and their captions as numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from faussaire.captions.reading import read_captions
from faussaire.captions.ready import open_ready
from faussaire.captions.spec import REMEMBERED, CaptionData, Captioned, learn_text, normalised
from faussaire.captions.stream import CaptionStream
from faussaire.core.batch import mix
from faussaire.core.config import Settings
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.data.pairs import Subset
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.data.sources import open_source
from faussaire.material import PictureMaterial, pack_options, read_one, split
from faussaire.texts.tokens import UNKNOWN, TextSpec


@dataclass(frozen=True, kw_only=True)
class CaptionMaterial(PictureMaterial):
    """Packed pictures with their captions.

    Attributes:
        captions: different captions, as they were written first.
        which: (N, K) int64: which of them are of each picture; -1 behind the last.
        texts: of each, (M, T) int32 tokens, or (M, E) float32 vectors of a ready encoder.
        text: how captions become tokens.
        encoder: who makes numbers of captions.
        known: some that are trained on.
        caption_notes: what the user should know of them, as sentences.
    """

    captions: tuple[str, ...]
    which: np.ndarray
    texts: np.ndarray
    text: TextSpec
    encoder: str = "own"
    known: tuple[str, ...] = ()
    caption_notes: tuple[str, ...] = ()

    @property
    def spec(self) -> Captioned:
        embedding = self.texts.shape[1] if self.texts.dtype == np.float32 else 0
        return Captioned(
            **vars(super().spec),
            text=self.text,
            encoder=self.encoder,
            embedding=embedding,
            known=self.known,
        )

    @property
    def key(self) -> str:
        return digest(super().key, "\n".join(self.captions), self.which.tobytes(), self.encoder)

    @property
    def notes(self) -> list[str]:
        return [*self.caption_notes, *super().notes]

    def of(self, picture: int) -> list[str]:
        """The captions of a picture."""
        return [self.captions[one] for one in self.which[picture] if one >= 0]

    def _tables(self, fields: Any) -> list[dict[str, np.ndarray]]:
        """With the first caption of each picture."""
        (table,) = super()._tables(fields)
        return [{**table, "captions": self.texts[self.which[:, 0]]}]

    def stream(self, data: CaptionData, *, seed: int, rank: int, world: int) -> CaptionStream:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The endless stream of one process: `images`, `captions` and `mismatched`."""
        pictures = super().stream(data, seed=seed, rank=rank, world=world)
        return CaptionStream(
            pictures,
            self.texts,
            self.which,
            rows=self.split(data.holdout)[0][0],
            seed=mix(seed, "captions"),
        )

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        return {**super().describe(source, target), **self._words()}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **self._words()}

    def _words(self) -> dict[str, Any]:
        return {
            "captions": int((self.which >= 0).sum()),
            "different_captions": len(self.captions),
            "vocabulary": self.text.size,
            "length": self.text.length,
            "encoder": self.encoder,
        }

    def told(self) -> str:
        return f"{super().told()}, {len(self.captions):,} captions of {self.text.size:,} words"


def read_captioned(
    settings: Settings,
    kind: type[Family[Any]],
    *,
    progress: Progress | None = None,
    preflight: bool = True,
    trained: Captioned | None = None,
) -> CaptionMaterial:
    """The pictures and captions that a run's settings name.

    The vocabulary is that of the captions that are trained on.

    Args:
        settings: of the run.
        kind: its family.
        progress: called as progress(what, done, total).
        preflight: whether to look for what is odd about the pictures.
        trained: what a model was told, whose words and encoder are taken over.

    Raises:
        UserError: nothing usable, captions that are damaged, or an option that does not fit.
    """
    data = settings.data
    with open_source(settings.source, classes="none", labels=None) as source:
        found, notes = read_captions(source, data)
        rows = [row for row, captions in enumerate(found) if captions]
        by_name = {source.listing.names[row]: found[row] for row in rows}
        some = source if len(rows) == len(found) else Subset(source, rows)
        pictures = read_one(some, settings, kind, pack_options(settings), progress, preflight)
    per_picture = [by_name[name] for name in pictures.images.names]
    captions, which = _numbered(per_picture)
    if len(captions) < 2:
        raise UserError(
            f"All {len(per_picture)} pictures have the caption '{captions[0]}', so words tell nothing.",
            "Give captions that differ, or train a family without words, such as dcgan.",
        )
    used, held = split(len(per_picture), data.holdout)
    taught = _of(which, used)
    if len(taught) < 2:
        raise UserError(
            f"The {len(used)} pictures that are trained on have one caption, '{captions[taught[0]]}'.",
            "Give captions that differ, or hold out fewer pictures.",
        )
    text = learn_text([captions[one] for one in taught], data) if trained is None else trained.text
    chosen = np.linspace(0, len(taught) - 1, min(REMEMBERED, len(taught))).astype(int)
    tokens = text.encode([normalised(caption) for caption in captions])
    if len(held):
        new = np.setdiff1d(_of(which, held), taught)
        strange = int((tokens[new] == UNKNOWN).any(axis=1).sum())
        notes.append(
            f"{len(held):,} pictures are held out, {len(new):,} of whose captions no trained picture "
            f"has; {strange:,} of these have words that are not trained on."
        )
    encoder = data.encoder if trained is None else trained.encoder
    if encoder == "own":
        texts = tokens
    else:
        texts = open_ready(encoder).vectors(captions, progress=progress)
    return CaptionMaterial(
        **{field.name: getattr(pictures, field.name) for field in dataclasses.fields(pictures)},
        captions=captions,
        which=which,
        texts=texts,
        text=text,
        encoder=encoder,
        known=tuple(captions[taught[at]] for at in chosen),
        caption_notes=tuple(notes),
    )


def _of(which: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The different captions of these pictures, in order."""
    found = np.unique(which[rows])
    return found[found >= 0]


def _numbered(per_picture: list[list[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Different captions, and which are of each picture, (N, K), -1 behind the last.

    Captions are the same that are read alike.
    """
    numbers: dict[str, int] = {}
    written: list[str] = []
    rows: list[list[int]] = []
    for captions in per_picture:
        row: dict[int, None] = {}
        for caption in captions:
            number = numbers.setdefault(normalised(caption), len(written))
            if number == len(written):
                written.append(caption)
            row[number] = None
        rows.append([*row])
    which = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for at, row in enumerate(rows):
        which[at, : len(row)] = row
    return tuple(written), which
