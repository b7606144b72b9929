"""Sentences as token numbers and back: by word, by character, or by byte pairs.

A `TextSpec` is all that is needed for it, and is made of plain values, so that a checkpoint can keep it.
Tokens 0 and 1 of a text's vocabulary are the end of a sentence, which also fills the row behind it, and
what is not in the vocabulary. Which token comes before the first is the networks' business: they have
a row of their embedding, number `begin`, that stands for nothing else.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from faussaire.core.errors import UserError

Level = Literal["word", "char", "bpe"]

END, UNKNOWN = 0, 1
SPECIAL = ("<end>", "<unk>")
"""How the two are written where a vocabulary is shown."""

GLUE = "##"
"""Begins a word-level token that stands right behind the one before it: `wheel` `##.`"""
# Words may have hyphens and apostrophes inside; every other mark is a token of its own.
_PIECE = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")
BYTES = 256
"""Tokens with which byte pairs begin: with them nothing is unknown."""


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """What a text family is told of its data.

    Attributes:
        level: what a token is: a `word` or mark, a `char`acter, or a piece by `bpe`.
        vocabulary: tokens in the order of their numbers.
        length: tokens in a row, T.
        ends: whether token `END` ends a sentence and `UNKNOWN` stands for what is not in the
            vocabulary, as in all texts; without, every row has `length` tokens that mean nothing more
            (an oracle's).
        merges: for `bpe`, the pairs that were joined, in order.
    """

    level: Level = "word"
    vocabulary: tuple[str, ...]
    length: int
    ends: bool = True
    merges: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TextSpec:
        """From what `dataclasses.asdict` made of it, be it by way of JSON.

        Raises:
            KeyError, TypeError: the record is none.
        """
        merges = tuple((str(one), str(two)) for one, two in record["merges"])
        return cls(**{**record, "vocabulary": tuple(record["vocabulary"]), "merges": merges})

    @property
    def size(self) -> int:
        """Tokens in the vocabulary, V."""
        return len(self.vocabulary)

    @property
    def begin(self) -> int:
        """Number of the input before the first token: one more than any token's."""
        return len(self.vocabulary)

    def encode(self, sentences: Iterable[str]) -> np.ndarray:
        """Rows (N, T) int32: tokens, then `END` to the length. Longer sentences are cut.

        Raises:
            UserError: byte pairs need a package that is not installed.
        """
        numbers = encoder(self)
        rows = [numbers(sentence) for sentence in sentences]
        found = np.full((len(rows), self.length), END, np.int32)
        for row, tokens in enumerate(rows):
            kept = tokens[: self.length]
            found[row, : len(kept)] = kept
        return found

    def decode(self, tokens: Any) -> list[str]:
        """Sentences from rows (N, T) of token numbers, a tensor or an array.

        Each ends before its first `END`. By word and mark, `encode` and `decode` keep all but what is
        unknown and what is cut.
        """
        rows = np.asarray(tokens.cpu() if hasattr(tokens, "cpu") else tokens)
        return [self._joined(row[: self.lengths_of(row[None])[0]].tolist()) for row in rows]

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each sentence without its end, (N,) int64, of rows (N, T)."""
        if not self.ends:
            return np.full(len(rows), rows.shape[1])
        ended = rows == END
        return np.where(ended.any(axis=1), ended.argmax(axis=1), rows.shape[1])

    def _joined(self, tokens: Sequence[int]) -> str:
        words = [self.vocabulary[token] for token in tokens]
        if self.level == "char":
            return "".join(words)
        if self.level == "bpe":
            known = "".join(word for word in words if word not in SPECIAL)
            return bytes(_BYTE_OF[char] for char in known).decode("utf-8", "replace")
        if not self.ends:
            return " ".join(words)
        spaced = (word.removeprefix(GLUE) if _glued(word) else f" {word}" for word in words)
        return "".join(spaced).removeprefix(" ")


def _glued(word: str) -> bool:
    return word.startswith(GLUE) and len(word) > len(GLUE)


# ---- Words, characters ----


def cleaned(sentence: str) -> str:
    """A sentence as all levels take it: composed characters (NFC), single spaces, none at its ends."""
    return " ".join(unicodedata.normalize("NFC", sentence).split())


def words(sentence: str) -> list[str]:
    """Words and marks; those that follow without a space begin with `GLUE`.

    >>> words("don't stop (now).")
    ["don't", 'stop', '(', '##now', '##)', '##.']
    """
    found, last = [], -1
    for match in _PIECE.finditer(sentence):
        found.append(match[0] if match.start() != last else GLUE + match[0])
        last = match.end()
    return found


def encoder(spec: TextSpec) -> Callable[[str], list[int]]:
    """What makes token numbers of a cleaned sentence, uncut and without an end.

    Raises:
        UserError: byte pairs need a package that is not installed.
    """
    if spec.level == "bpe":
        tokenizer = _tokenizer(spec.vocabulary, spec.merges)
        return lambda sentence: [
            number + len(SPECIAL)
            for number in tokenizer.encode(sentence, add_special_tokens=False).ids
        ]
    split: Callable[[str], Iterable[str]] = words if spec.level == "word" else iter
    first = len(SPECIAL) if spec.ends else 0
    numbers = {word: number for number, word in enumerate(spec.vocabulary) if number >= first}
    return lambda sentence: [numbers.get(word, UNKNOWN) for word in split(sentence)]


def count(sentences: Iterable[str], level: Literal["word", "char"]) -> list[tuple[str, int]]:
    """The words or characters of cleaned sentences and how often each occurs, most frequent first."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(words(sentence) if level == "word" else sentence)
    return sorted(counts.items(), key=lambda found: (-found[1], found[0]))


# ---- Byte pairs ----


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, as GPT-2's tokenizer writes them (Radford et al. 2019).

    Printable bytes of Latin-1 stand for themselves, the others for letters from U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTES) if byte not in own]
    return {
        **{byte: chr(byte) for byte in own},
        **{byte: chr(0x100 + place) for place, byte in enumerate(others)},
    }


_BYTE_OF = {letter: byte for byte, letter in _byte_letters().items()}


def learn_pairs(
    sentences: Iterable[str], size: int
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """A vocabulary of byte pairs and the pairs that were joined for it.

    Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword Units",
    arXiv 1508.07909, on bytes; pairs do not reach over the borders of words.

    Args:
        sentences: cleaned.
        size: of the vocabulary, the two special tokens among it, at most.

    Raises:
        UserError: the package is not installed, or the vocabulary is too small for the bytes.
    """
    least = BYTES + len(SPECIAL)
    if size < least:
        raise UserError(
            f"--vocabulary {size} is too small for byte pairs, which begin with {least} tokens.",
            f"Ask for {least} or more, or --level char.",
        )
    tokenizers = _package()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        initial_alphabet=sorted(_BYTE_OF),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    model = _json(tokenizer)["model"]
    ordered = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return (*SPECIAL, *ordered), tuple((one, two) for one, two in model["merges"])


@functools.lru_cache(maxsize=4)
def _tokenizer(vocabulary: tuple[str, ...], merges: tuple[tuple[str, str], ...]) -> Any:
    """The package's tokenizer with this vocabulary, the special tokens left out."""
    tokenizers = _package()
    numbers = {token: number for number, token in enumerate(vocabulary[len(SPECIAL) :])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=list(merges)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _json(tokenizer: Any) -> dict[str, Any]:
    import json

    return json.loads(tokenizer.to_str())


def _package() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError as error:
        raise UserError(
            "Byte pairs need the package tokenizers, which is not installed.",
            "Run: pip install 'faussaire[texts]', or take --level word or char.",
        ) from error
    return tokenizers
