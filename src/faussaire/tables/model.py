"""A trained model of a table, loaded again: rows, as many as are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faussaire.core.batch import RowDraws, mix
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.tables.spec import TableSpec
from faussaire.tables.where import Clause, asked_of_generator, parse_where
from faussaire.tables.writing import csv_text, write_table

_AT_ONCE = 1000
"""Rows that are drawn together."""
TRIES = 100
"""Rows that are drawn for each that is asked for, at most, where not all fulfil a condition."""
LEAST_TRIES = 20_000
"""Rows that are drawn before giving up, however few are asked for."""


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        spec: of the table.
        encoded: (N, width) float32, as the networks have them.
        texts: a list of text for each column, in the training table's order.
    """

    spec: TableSpec
    encoded: np.ndarray
    texts: list[list[str]]

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column.name for column in self.spec.columns]

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        return self.texts[self.names.index(name)]

    def text(self) -> str:
        """All as CSV, with a header."""
        return csv_text(self.spec, self.texts)

    def write(self, path: str | Path) -> None:
        """To a CSV or parquet file.

        Raises:
            UserError: it cannot be written.
        """
        write_table(self.spec, self.texts, Path(path))


class TableModel:
    """A family with trained, averaged weights.

    Attributes:
        family: the family, its nets in evaluation mode.
        spec: of the table that it learnt.
        examples: how many rows it had seen.
        device: where it runs.
    """

    def __init__(self, family: Family[Any], spec: TableSpec, examples: int, device: Device) -> None:
        self.family, self.spec, self.examples, self.device = family, spec, examples, device

    def sample(
        self, count: int = 1000, *, seed: int = 0, where: str | None = None, start: int = 0
    ) -> Rows:
        """Rows, with the training table's columns, types and ranges.

        Row i depends on (seed, start + i) alone: 1,000 rows begin with the 100 of sampling 100. With a
        condition, the generator is asked for it, if it has conditions, and rows that do not fulfil it
        are left out; so it is for (seed, where) alone.

        Args:
            count: how many.
            seed: names an endless sequence of rows.
            where: what they must fulfil, such as `income=>50K, age<30`.
            start: where in the sequence to begin.

        Raises:
            UserError: no such column or value, or too few rows fulfil the condition.
        """
        if count < 1:
            raise UserError(f"--count {count} makes no row.", "Ask for at least one.")
        clauses = [] if where is None else parse_where(where, self.spec)
        place = asked_of_generator(clauses, self.spec) if clauses else None
        if not getattr(self.family, "conditions", False):
            place = None
        found: list[np.ndarray] = []
        texts: list[list[str]] = [[] for _ in self.spec.columns]
        kept = drawn = 0
        most = count if not clauses else max(TRIES * count, LEAST_TRIES)
        while kept < count and drawn < most:
            some = min(_AT_ONCE, most - drawn) if clauses else min(_AT_ONCE, count - kept)
            encoded = self._draw(seed, start + drawn, some, place)
            cells = self.spec.decode(encoded, seed=mix(seed, "rare") >> 1, first=start + drawn)
            drawn += some
            if clauses:
                rows = np.flatnonzero(self._holds(clauses, encoded, cells))[: count - kept]
                encoded = encoded[rows]
                cells = [[column[row] for row in rows] for column in cells]
            kept += len(encoded)
            found.append(encoded)
            for whole, part in zip(texts, cells, strict=True):
                whole.extend(part)
        if kept < count:
            raise UserError(
                f"Of {drawn:,} rows that were drawn, {kept:,} fulfil '{where}', and {count:,} were "
                "asked for.",
                f"Ask for fewer (--count {kept}), or for less."
                if kept
                else "Ask for something that is commoner in the table, or train longer.",
            )
        encoded = np.concatenate(found)
        if clauses:  # IDs count the rows that are kept
            plain = self.spec.decode(encoded, first=start)
            for index, column in enumerate(self.spec.columns):
                if column.kind == "id":
                    texts[index] = plain[index]
        return Rows(self.spec, encoded, texts)

    @torch.no_grad()
    def _draw(self, seed: int, first: int, count: int, place: int | None) -> np.ndarray:
        """Encoded rows `first` to `first + count - 1` of the seed's sequence."""
        draws = RowDraws.counted(seed, count, start=first, device=self.device.name)
        labels = None
        if place is not None:
            labels = torch.zeros(count, self.spec.condition, device=self.device.name)
            labels[:, place] = 1.0
        return self.family.sample(draws, labels=labels).float().cpu().numpy()

    def _holds(
        self, clauses: Sequence[Clause], encoded: np.ndarray, cells: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """(N,) which rows fulfil all clauses."""
        names = [column.name for column in self.spec.columns]
        places = self.spec.chosen(encoded)
        holds = np.ones(len(encoded), bool)
        for clause in clauses:
            numbers = None
            if clause.column.numeric:
                at = self.spec.numeric.index(clause.column)
                numbers = clause.column.numbers(encoded[:, at], places[:, at])
            holds &= clause.holds(cells[names.index(clause.column.name)], numbers)
        return holds
