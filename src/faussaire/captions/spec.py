"""How pictures with captions are read, and what families that make pictures of words are told."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.config import Count, PictureData, check_range
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.texts.tokens import SPECIAL, UNKNOWN, Level, TextSpec, count, encoder, learn_pairs

LONGEST = {"word": 48, "char": 128, "bpe": 64}
"""Tokens of a caption that are read at most, where no length is asked for."""
REMEMBERED = 64
"""Captions that a model remembers, to make pictures of where it is asked for none."""
_PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class CaptionData(PictureData):
    """How pictures with captions are read.

    Attributes:
        captions: a CSV file with the columns file and text; several rows of one file are several
            captions of it. None: the source itself where it is a table, else the `.txt` beside each
            picture, a caption a line.
        caption_columns: the columns that hold captions, with commas between, such as `name,tags`. None:
            the first called text, caption, captions, description, sentence or title.
        level: what a token of a caption is: a `word` or mark, a `char`acter (for scripts without
            spaces), or a piece of a word by `bpe`.
        vocabulary: different tokens at most; the most frequent ones are kept.
        length: tokens of a caption that are read; None: as many as the longest has, 48 words, 64 pieces
            or 128 characters at most.
        encoder: who turns captions into numbers: `own`, a small network that learns from these pictures;
            or a ready one, `clip` or `sentence-transformers`, with a model's name behind a colon if it
            is to be another than the usual.
    """

    captions: Path | None = None
    caption_columns: str | None = None
    level: Level = "word"
    vocabulary: Count = 8192
    length: Count | None = None
    encoder: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, vocabulary=(len(SPECIAL) + 1, 1_000_000))
        if self.length is not None:
            check_range(self, length=(1, 10_000))
        if self.fit == "tiles":
            raise UserError(
                "--fit tiles cuts pictures into pieces, and a caption tells of the whole picture.",
                "Take --fit crop, pad or squash.",
            )


@dataclass(frozen=True, kw_only=True)
class Captioned(Pictures):
    """Pictures with captions, as a family is told of them.

    Attributes:
        text: how captions become tokens.
        encoder: as in `CaptionData`.
        embedding: numbers that a ready encoder makes of a caption; 0: captions are rows of tokens.
        known: some captions that were trained on.
    """

    text: TextSpec
    encoder: str = "own"
    embedding: int = 0
    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Captioned:
        """From what `dataclasses.asdict` made of it, be it by way of JSON.

        Raises:
            KeyError, TypeError: the record is none.
        """
        plain = {name: tuple(record[name]) for name in ("classes", "known")}
        return cls(**{**record, **plain, "text": TextSpec.of(record["text"])})

    def encode(self, captions: Iterable[str]) -> np.ndarray:
        """Rows of tokens (N, T) int32."""
        return self.text.encode([normalised(caption) for caption in captions])

    def unknown(self, caption: str) -> list[str]:
        """The words (or characters) of a caption that training never met, in their order."""
        numbers = encoder(self.text)
        words = iter(caption.split()) if self.text.level != "char" else iter(caption)
        return [word for word in words if UNKNOWN in numbers(normalised(word))]

    def strange(self, caption: str) -> bool:
        """Whether nothing of a caption is known."""
        return all(token == UNKNOWN for token in encoder(self.text)(normalised(caption)))


def normalised(caption: str) -> str:
    """A caption as it is read: composed characters, small letters, words and marks with spaces between.

    >>> normalised("L\u2019\u00c9toile d'or:  n\u00b01")
    "l ' \u00e9toile d ' or : n \u00b0 1"
    """
    text = unicodedata.normalize("NFC", caption).replace("\u2019", "'").lower()
    return " ".join(_PIECE.findall(text))


def learn_text(captions: Sequence[str], data: CaptionData) -> TextSpec:
    """The vocabulary and the length of captions.

    Raises:
        UserError: byte pairs need a package, or the vocabulary is too small for them.
    """
    texts = [normalised(caption) for caption in captions]
    merges: tuple[tuple[str, str], ...] = ()
    if data.level == "bpe":
        vocabulary, merges = learn_pairs(texts, data.vocabulary)
    else:
        found = count(texts, data.level)
        kept = [word for word, _ in found[: data.vocabulary - len(SPECIAL)]]
        vocabulary = (*SPECIAL, *kept)
    spec = TextSpec(level=data.level, vocabulary=vocabulary, length=0, merges=merges)
    numbers = encoder(spec)
    longest = max(len(numbers(text)) for text in texts)
    return dataclasses.replace(spec, length=data.length or min(longest, LONGEST[data.level]))
