"""What a table is, as plain values: its columns, how they are encoded, and the way back to text.

A row is encoded as in CTGAN (Xu et al. 2019, arXiv 1907.00503, section 4.2):

    [ alphas | modes of numbers, one-hot for each | categories, one-hot for each ]

A number belongs to one of its column's modes; alpha says where in it. Besides the Gaussian modes of
the paper there are points (a value so common that it is a mode of its own, such as a capital gain of 0,
as in CTAB-GAN, Zhao et al. 2021, arXiv 2102.08369) and "missing".
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

Kind = Literal["integer", "real", "date", "category", "boolean", "constant", "id"]
KINDS = ("integer", "real", "date", "category", "boolean", "constant", "id")
NUMERIC = ("integer", "real", "date")
DISCRETE = ("category", "boolean")

MISSING = frozenset(
    {"", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-", "nat", "missing", "<na>"}
)
"""What stands for a missing number or date, in small letters. Categories keep such words as values."""

WITHIN = 4.0
"""Deviations of a mode that alpha reaches from its mean; the paper's (x - mean) / (4 deviations)."""
EPOCH = datetime.datetime(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: as in the header.
        kind: numbers and dates have modes; categories and booleans have values; a constant is
            written again; an ID is not learnt but given out anew.
        values: of categories, the different texts, commonest first; of a constant, its one.
        shares: (values,) of the rows, the last being that of `rare` together, where there are any.
        rare: texts that share one place after `values`, because there are too many.
        rare_shares: (rare,) of the rows that have any of them.
        means, deviations: of the Gaussian modes, in the scale that `scaled` gives.
        weights: of the Gaussian modes.
        points: values that are modes of their own.
        missing: what is written where a number is missing; None: none is.
        low, high: the range seen; dates are seconds since 1970.
        decimals: digits after the point, at most.
        fixed: whether all numbers have as many decimals.
        comma: whether the decimal point is a comma.
        squeeze: scale of the squeezing of long tails, sign(x) log(1 + |x| / squeeze); 0: none.
        form: of dates, for strftime.
        prefix, width, first: an ID is written as the prefix and a number of so many digits.
        type: its type in a typed file, in that file's words; empty in a CSV.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    rare: tuple[str, ...] = ()
    rare_shares: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    missing: str | None = None
    low: float = 0.0
    high: float = 0.0
    decimals: int = 0
    fixed: bool = True
    comma: bool = False
    squeeze: float = 0.0
    form: str = ""
    prefix: str = ""
    width: int = 0
    first: int = 1
    type: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it has modes."""
        return self.kind in NUMERIC

    @property
    def discrete(self) -> bool:
        """Whether it has categories, and so can be a condition."""
        return self.kind in DISCRETE

    @property
    def places(self) -> int:
        """Length of its one-hot vector."""
        if self.numeric:
            return len(self.means) + len(self.points) + (self.missing is not None)
        return len(self.values) + bool(self.rare) if self.discrete else 0

    @property
    def step(self) -> int:
        """Seconds between two neighbouring dates that the form can tell apart."""
        if "%S" in self.form:
            return 1
        return 60 if "%M" in self.form else 86_400

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Numbers as modes see them, with long tails squeezed."""
        return np.sign(x) * np.log1p(np.abs(x) / self.squeeze) if self.squeeze else x

    def unscaled(self, y: np.ndarray) -> np.ndarray:
        """The way back from `scaled`."""
        if not self.squeeze:
            return y
        bound = np.log1p(max(abs(self.low), abs(self.high)) / self.squeeze)
        return np.sign(y) * np.expm1(np.minimum(np.abs(y), bound)) * self.squeeze

    def numbers(self, alphas: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The way back from (rows,) alphas and modes to numbers within the range seen.

        Rounded as the column is; NaN where missing.
        """
        gaussian, marked = len(self.means), len(self.points)
        x = np.full(len(places), np.nan)
        inside = places < gaussian
        if gaussian:
            mode = places[inside]
            mean, deviation = np.array(self.means)[mode], np.array(self.deviations)[mode]
            y = self.unscaled(mean + WITHIN * deviation * np.clip(alphas[inside], -1.0, 1.0))
            if self.kind == "date":  # float32 is coarser than a second: to whole days or minutes
                y = np.round(y / self.step) * self.step
            x[inside] = np.round(np.clip(y, self.low, self.high), self.decimals)
        point = (places >= gaussian) & (places < gaussian + marked)
        if marked:
            x[point] = np.array(self.points)[places[point] - gaussian]
        return x

    def read(self, text: str) -> float:
        """A cell as a number; NaN where missing.

        Raises:
            ValueError: it is neither.
        """
        if text.lower() in MISSING:
            return float("nan")
        if self.kind == "date":
            return (datetime.datetime.strptime(text, self.form) - EPOCH).total_seconds()
        return float(text.replace(",", ".") if self.comma else text)

    def written(self, numbers: np.ndarray) -> list[str]:
        """Numbers as the column writes them."""
        missing = self.missing or ""
        if self.kind == "date":
            return [missing if x != x else self._date(x) for x in numbers.tolist()]
        if self.kind == "integer":
            return [missing if x != x else f"{x:.0f}" for x in numbers.tolist()]
        texts = [missing if x != x else self._real(x) for x in numbers.tolist()]
        return [text.replace(".", ",") for text in texts] if self.comma else texts

    def _real(self, x: float) -> str:
        return f"{x:.{self.decimals}f}" if self.fixed else repr(x)

    def _date(self, seconds: float) -> str:
        return (EPOCH + datetime.timedelta(seconds=round(seconds))).strftime(self.form)

    def described(self) -> str:
        """The column in a few words."""
        if self.kind == "constant":
            return f"{self.name}: always '{self.values[0]}'"
        if self.kind == "id":
            return f"{self.name}: ID"
        if self.discrete:
            return f"{self.name}: {self.kind} of {len(self.values) + len(self.rare)}"
        low, high = self.written(np.array([self.low, self.high]))
        gaps = ", some missing" if self.missing is not None else ""
        return f"{self.name}: {self.kind}, {low} to {high}{gaps}"


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """What a family is told of a table.

    Attributes:
        columns: in the file's order.
        delimiter, spaced: how a CSV of it is written.
        rows: of the table.
    """

    columns: tuple[Column, ...]
    delimiter: str = ","
    spaced: bool = False
    rows: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TableSpec:
        """From what `dataclasses.asdict` made of one, perhaps by way of JSON.

        Raises:
            KeyError, TypeError: the record is none.
        """
        columns = tuple(
            Column(**{key: _frozen(value) for key, value in column.items()})
            for column in record["columns"]
        )
        rest = {field.name: record[field.name] for field in fields(cls) if field.name != "columns"}
        return cls(columns=columns, **rest)

    @cached_property
    def numeric(self) -> tuple[Column, ...]:
        """Columns with modes: their alphas and one-hot vectors come first, in this order."""
        return tuple(column for column in self.columns if column.numeric)

    @cached_property
    def discrete(self) -> tuple[Column, ...]:
        """Columns with categories: their one-hot vectors come last, in this order."""
        return tuple(column for column in self.columns if column.discrete)

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Lengths of all one-hot vectors."""
        return tuple(column.places for column in (*self.numeric, *self.discrete))

    @property
    def alphas(self) -> int:
        """Numbers of a row besides its one-hot vectors."""
        return len(self.numeric)

    @property
    def width(self) -> int:
        """Numbers in an encoded row."""
        return self.alphas + sum(self.blocks)

    @property
    def condition(self) -> int:
        """Numbers in a condition: one for each value of each category."""
        return sum(column.places for column in self.discrete)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each one-hot vector begins among them all."""
        return tuple(int(start) for start in np.cumsum([0, *self.blocks[:-1]]))

    def place(self, name: str, value: str) -> int:
        """Which number of a condition stands for a column's value.

        Raises:
            KeyError: there is none.
        """
        start = 0
        for column in self.discrete:
            if column.name == name:
                if value in column.rare:
                    return start + len(column.values)
                if value not in column.values:
                    raise KeyError(value)
                return start + column.values.index(value)
            start += column.places
        raise KeyError(name)

    def decode(self, rows: np.ndarray, *, seed: int = 0, first: int = 0) -> list[list[str]]:
        """Encoded rows (N, width) as text, a list for each column.

        Args:
            rows: of each one-hot vector the largest number counts.
            seed: of what is drawn among rare values.
            first: number of the first row, from which IDs and draws follow.
        """
        places = self.chosen(rows)
        at = {column.name: index for index, column in enumerate((*self.numeric, *self.discrete))}
        out = []
        for index, column in enumerate(self.columns):
            where = at.get(column.name)
            if column.kind == "constant":
                out.append([column.values[0]] * len(rows))
            elif where is None:
                numbers = range(column.first + first, column.first + first + len(rows))
                out.append([f"{column.prefix}{number:0{column.width}d}" for number in numbers])
            elif column.numeric:
                out.append(column.written(column.numbers(rows[:, where], places[:, where])))
            else:
                texts = np.array([*column.values, ""], object)[places[:, where]].tolist()
                lost = np.flatnonzero(places[:, where] >= len(column.values))
                if len(lost):
                    draws = uniform(seed, index, first + lost)
                    picks = np.searchsorted(np.cumsum(column.rare_shares), draws)
                    for row, pick in zip(lost.tolist(), picks.tolist(), strict=True):
                        texts[row] = column.rare[min(pick, len(column.rare) - 1)]
                out.append(texts)
        return out

    def chosen(self, rows: np.ndarray) -> np.ndarray:
        """(N, blocks) int64: of each one-hot vector of encoded rows, where its largest number is."""
        parts = [
            rows[:, self.alphas + start : self.alphas + start + length].argmax(1)
            for start, length in zip(self.starts, self.blocks, strict=True)
        ]
        return np.stack(parts, axis=1)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_STEP = np.uint64(0x9E3779B97F4A7C15)
_ONE, _TWO = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mixed(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): 64 bits from 64 bits, all of which count."""
    x = (x ^ (x >> np.uint64(30))) * _ONE
    x = (x ^ (x >> np.uint64(27))) * _TWO
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, purpose: int, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """(N,) numbers uniform in [0, 1), each a function of seed, purpose and its own position."""
    with np.errstate(over="ignore"):
        start = _mixed(np.array([seed & (2**64 - 1)], np.uint64) + _STEP)
        start = _mixed(start + np.uint64(purpose + 1) * _STEP)
        bits = _mixed(start + (np.asarray(positions).astype(np.uint64) + np.uint64(1)) * _STEP)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
