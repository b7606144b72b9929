"""Corpora: sentences read from a text file or a column of a table, as rows of tokens to train on."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.config import Count, DataConfig, check_range
from faussaire.core.errors import UserError, nearest
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.data.stream import Stream
from faussaire.material import split
from faussaire.texts.tokens import (
    SPECIAL,
    UNKNOWN,
    Level,
    TextSpec,
    cleaned,
    count,
    encoder,
    learn_pairs,
)

TABLES = (".csv", ".tsv")
COLUMNS = ("text", "sentence", "caption", "review", "content", "title")
"""Names of columns that hold sentences, where none is asked for and there are several."""
LONGEST = {"word": 64, "char": 256, "bpe": 96}
"""Tokens in a row at most, where no length is asked for."""
_SHORT = 40
"""Characters of a sentence that are quoted in a message."""


@dataclass(frozen=True, kw_only=True)
class TextData(DataConfig):
    """How texts are read.

    Attributes:
        level: what a token is: a `word` or a mark, a `char`acter, or a piece of a word found by byte
            pairs (`bpe`), to which nothing is unknown.
        vocabulary: different tokens at most, the end of a sentence and "unknown" among them; the most
            frequent ones are kept.
        length: tokens in a sentence at most, its end included; longer ones are cut. None: as many as
            the longest has, up to 64 words, 96 pieces or 256 characters.
        column: of a table, where the sentences are. None: its only one, or one named text, sentence
            or caption.
    """

    level: Level = "word"
    vocabulary: Count = 5000
    length: Count | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, vocabulary=(len(SPECIAL) + 1, 1_000_000))
        if self.length is not None:
            check_range(self, length=(2, 10_000))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Sentences, read and numbered: the material of families of texts.

    Attributes:
        sentences: as they were read, cleaned; () for rows that an oracle wrote.
        tokens: (N, T) int32.
        spec: what the family is told of them.
        groups: (N,) int64, equal for equal sentences: those are trained on, or held out, together.
        key: of the contents.
        kind: `txt`, `csv` or `tokens`.
        column: of a table, that they were read from.
        cut: sentences with no room for their end.
        unknown: share of the tokens that are not in the vocabulary.
        notes, warnings: what the user should know, and what is odd, as sentences.
    """

    sentences: tuple[str, ...] = ()
    tokens: np.ndarray
    spec: TextSpec
    groups: np.ndarray
    key: str
    kind: str
    column: str | None = None
    cut: int = 0
    unknown: float = 0.0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        source: str | Path,
        data: TextData | None = None,
        *,
        progress: Progress | None = None,
        preflight: bool = True,
    ) -> Corpus:
        """The corpus in a file.

        Args:
            source: a text file (UTF-8, a sentence a line) or a table (.csv, .tsv) with a header.
            data: how to read it.
            progress: called as progress(what, done, total).
            preflight: whether to look for what is odd about it.

        Raises:
            UserError: there is no such file, it is not UTF-8, it holds no sentences, its rows are
                ragged, or an option does not fit.
        """
        data = data or TextData()
        progress = progress or (lambda what, done, total: None)
        path = Path(source)
        progress("reading", 0, 1)
        kind = "csv" if path.suffix.lower() in TABLES else "txt"
        column, notes = None, []
        if kind == "csv":
            column, lines = _table(path, data.column)
        else:
            if data.column is not None:
                raise UserError(
                    f"--column {data.column} names a column of a table, and '{path}' is read as text, "
                    "a sentence a line.",
                    f"Leave it out, or give a file that ends in {' or '.join(TABLES)}.",
                )
            lines = _lines(path)
        sentences = tuple(sentence for line in lines if (sentence := cleaned(line)))
        if not sentences:
            what = "rows with text" if kind == "csv" else "lines with text"
            raise UserError(f"'{path}' has no {what}.", "Give a file with a sentence a line.")
        if blank := len(lines) - len(sentences):
            notes.append(f"{blank:,} empty {'rows' if kind == 'csv' else 'lines'} are left out.")
        progress("numbering", 0, 1)
        spec = _spec(sentences, data)
        numbers_of = encoder(spec)
        numbered = [numbers_of(sentence) for sentence in sentences]
        longest = max(map(len, numbered)) + 1
        length = data.length or min(longest, LONGEST[data.level])
        spec = dataclasses.replace(spec, length=length)
        tokens = np.zeros((len(sentences), length), np.int32)
        for row, numbers in enumerate(numbered):
            kept = numbers[:length]
            tokens[row, : len(kept)] = kept
        total = sum(map(len, numbered))
        unknown = sum(numbers.count(UNKNOWN) for numbers in numbered) / total if total else 0.0
        cut = sum(len(numbers) >= length for numbers in numbered)
        names = {"word": "words", "char": "characters", "bpe": "pieces"}[data.level]
        if cut:
            notes.append(
                f"{cut:,} of {len(sentences):,} sentences have no room for their end in {length} "
                f"{names} and are cut; the longest needs {longest}."
            )
        order = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
        groups = np.array([order[sentence] for sentence in sentences], np.int64)
        progress("numbering", 1, 1)
        return cls(
            sentences=sentences,
            tokens=tokens,
            spec=spec,
            groups=groups,
            key=_key(tokens, spec),
            kind=kind,
            column=column,
            cut=cut,
            unknown=unknown,
            notes=tuple(notes),
            warnings=_odd(sentences, len(order), spec, unknown, data) if preflight else (),
        )

    @classmethod
    def of_tokens(cls, tokens: np.ndarray, spec: TextSpec) -> Corpus:
        """A corpus of rows (N, T) that are numbers already: an oracle's.

        Raises:
            ValueError: the rows do not fit the spec.
        """
        rows = np.ascontiguousarray(tokens, np.int32)
        if rows.ndim != 2 or rows.shape[1] != spec.length or not len(rows):
            raise ValueError(f"rows of {spec.length} tokens are needed, not {rows.shape}")
        if rows.min() < 0 or rows.max() >= spec.size:
            raise ValueError(f"tokens must be in 0..{spec.size - 1}")
        groups = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        return cls(
            tokens=rows,
            spec=spec,
            groups=groups.astype(np.int64),
            key=_key(rows, spec),
            kind="tokens",
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def tables(self) -> list[dict[str, np.ndarray]]:
        """The data by field name."""
        return [{"tokens": self.tokens}]

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows that are trained on and those held out, (K,) int64 each, in order.

        The share is of different sentences: copies of one are all on one side. Which they are depends
        on their number alone: runs of different seeds can be compared.

        Raises:
            UserError: nothing would be left to train on.
        """
        _, unseen = split(int(self.groups.max()) + 1, holdout)
        held = np.isin(self.groups, unseen)
        return [(np.flatnonzero(~held), np.flatnonzero(held))]

    def one_table(
        self, holdout: float | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The data by field name, and rows that are trained on and held out."""
        return self.tables[0], *self.split(holdout)[0]

    def stream(self, data: TextData, *, seed: int, rank: int, world: int) -> Stream:
        """The endless stream of one process; a batch holds `tokens`, (N, T) int32."""
        train, unseen = self.split(data.holdout)[0]
        rows = [train] if len(unseen) else None
        return Stream(self.tables, rows=rows, seed=seed, rank=rank, world=world)

    def settled(self, data: TextData) -> TextData:
        """These settings with what was left to choose filled in."""
        different = int(self.groups.max()) + 1
        unseen = len(np.unique(self.groups[self.split(data.holdout)[0][1]]))
        return dataclasses.replace(
            data,
            length=self.spec.length,
            column=self.column,
            holdout=data.share(unseen, different),
        )

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds."""
        return {
            "source": source,
            "kind": self.kind,
            "count": len(self),
            "different": int(self.groups.max()) + 1,
            "level": self.spec.level,
            "vocabulary": self.spec.size,
            "length": self.spec.length,
            "column": self.column,
            "cut": self.cut,
            "unknown": self.unknown,
            "key": self.key,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        return {
            "sentences": len(self),
            "level": self.spec.level,
            "vocabulary": self.spec.size,
            "length": self.spec.length,
            "unknown": self.unknown,
            "cut": self.cut,
        }

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        what = {"word": "words", "char": "characters", "bpe": "pieces of words"}[self.spec.level]
        return (
            f"{len(self):,} sentences of up to {self.spec.length} out of {self.spec.size:,} {what}, "
            f"{self.unknown:.1%} of them unknown"
        )


# ---- Reading ----


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        UserError: it cannot be read or is not UTF-8; the message names the line.
    """
    if path.is_dir():
        raise UserError(
            f"'{path}' is a folder, and texts are read from a file.",
            "Name a text file with a sentence a line, or a table.",
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    if not raw.strip():
        raise UserError(f"'{path}' is empty.", "Give a file with a sentence a line.")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"'{path}' is UTF-16, not UTF-8.", "Save it as UTF-8.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"'{path}' is not UTF-8: line {line} has the byte 0x{raw[error.start]:02x}.",
            "Save it as UTF-8.",
        ) from error
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise UserError(
            f"'{path}' is no text: line {line} has a character of number 0.",
            "Give a text file with a sentence a line.",
        )
    return text


def _lines(path: Path) -> list[str]:
    """The lines of a text file."""
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n")


def _table(path: Path, wanted: str | None) -> tuple[str, list[str]]:
    """A column's name, and its cells.

    Raises:
        UserError: no such column, or rows that are ragged; the message names the line.
    """
    text = read_text(path)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    cells: list[str] = []
    at = 0
    begin = 1
    try:
        for row in reader:
            if not names:
                names = [name.strip() for name in row]
                at = _column(names, wanted, path)
            elif row:
                if len(row) != len(names):
                    raise UserError(
                        f"'{path}' is ragged: line {begin} has {len(row)} columns, and the header "
                        f"{len(names)}.",
                        "Put sentences with commas in quotes, or give a text file with a sentence a "
                        "line.",
                    )
                cells.append(row[at])
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"'{path}' is not a table: line {begin}: {error}.", "Mend its quotes."
        ) from error
    if not cells:
        raise UserError(f"'{path}' holds no rows below its header.", "Give a header and rows.")
    return names[at], cells


def _column(names: Sequence[str], wanted: str | None, path: Path) -> int:
    """Which of these columns holds the sentences.

    Raises:
        UserError: there is none of this name, or it cannot be told.
    """
    listed = ", ".join(names)
    if wanted is not None:
        if wanted not in names:
            raise UserError(
                f"'{path}' has no column '{wanted}'.{nearest(wanted, names)}",
                f"Its columns are {listed}.",
            )
        return names.index(wanted)
    lower = [name.lower() for name in names]
    found = [lower.index(name) for name in COLUMNS if name in lower]
    if len(names) == 1 or found:
        return found[0] if found else 0
    raise UserError(
        f"'{path}' has several columns ({listed}), and none is named text, sentence or caption.",
        f"Say which holds the sentences: --column {names[0]}.",
    )


# ---- Numbering ----


def _spec(sentences: Sequence[str], data: TextData) -> TextSpec:
    """The vocabulary of sentences; the length is yet to be found."""
    if data.level == "bpe":
        vocabulary, merges = learn_pairs(sentences, data.vocabulary)
        return TextSpec(level="bpe", vocabulary=vocabulary, length=0, merges=merges)
    found = count(sentences, data.level)
    kept = [word for word, _ in found[: data.vocabulary - len(SPECIAL)]]
    return TextSpec(level=data.level, vocabulary=(*SPECIAL, *kept), length=0)


def _key(tokens: np.ndarray, spec: TextSpec) -> str:
    return digest(repr(dataclasses.asdict(spec)), repr(tokens.shape), tokens.tobytes())


def _odd(
    sentences: Sequence[str], different: int, spec: TextSpec, unknown: float, data: TextData
) -> tuple[str, ...]:
    """What is odd about a corpus, as sentences."""
    found = []
    if len(sentences) < 1000:
        found.append(
            f"{len(sentences):,} sentences are few: a network learns them by heart. Some thousands are "
            "needed for new ones."
        )
    if different < 0.8 * len(sentences):
        found.append(
            f"Of {len(sentences):,} sentences only {different:,} differ: the others are copies, which "
            "will be learnt the better."
        )
    if unknown > 0.1:
        found.append(
            f"{unknown:.0%} of the tokens are not in the vocabulary of {spec.size:,}, and samples "
            f"will say {SPECIAL[1]} as often. Raise --vocabulary, or take --level bpe."
        )
    if data.level == "word" and len(sentences) > 100:
        single = sum(len(sentence.split()) == 1 for sentence in sentences) / len(sentences)
        if single > 0.9:
            sample = sentences[0][:_SHORT]
            found.append(
                f"{single:.0%} of the lines are one word ('{sample}'): take --level char, for names "
                "and for scripts without spaces."
            )
    return tuple(found)
