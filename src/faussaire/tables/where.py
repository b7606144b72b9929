"""Conditions on samples, such as `income=>50K, age<30`, and rows that fulfil them."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from faussaire.core.errors import UserError, nearest
from faussaire.tables.spec import EPOCH, MISSING, Column, TableSpec

_OPERATORS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    ">=": np.greater_equal,
    "<=": np.less_equal,
    ">": np.greater,
    "<": np.less,
    "!=": np.not_equal,
    "=": np.equal,
}
_SIGN = re.compile(r"\s*(>=|<=|!=|=|>|<)\s*")


@dataclass(frozen=True)
class Clause:
    """What is asked of one column.

    Attributes:
        column: of the table.
        sign: one of =, !=, <, <=, >, >=; categories have the first two.
        text: as written.
        number: what a number or date is compared with; NaN asks for missing ones.
    """

    column: Column
    sign: str
    text: str
    number: float = float("nan")

    def holds(self, texts: Sequence[str], numbers: np.ndarray | None) -> np.ndarray:
        """(N,) whether rows fulfil it.

        Args:
            texts: the column's cells.
            numbers: (N,) of a number's column, NaN where missing; None for a category.
        """
        if numbers is None:
            same = np.array([text == self.text for text in texts], bool)
            return same if self.sign == "=" else ~same
        if np.isnan(self.number):
            return np.isnan(numbers) if self.sign == "=" else ~np.isnan(numbers)
        with np.errstate(invalid="ignore"):
            return _OPERATORS[self.sign](numbers, self.number) & ~np.isnan(numbers)


def parse_where(text: str, spec: TableSpec) -> list[Clause]:
    """Clauses between commas; one that holds a comma is put in quotes.

    Raises:
        UserError: no such column, sign or value.
    """
    parts = next(csv.reader([text], skipinitialspace=True), [])
    if not parts or not all(part.strip() for part in parts):
        raise UserError(f"--where '{text}' asks for nothing.", 'Write --where "column=value".')
    return [_clause(part.strip(), spec) for part in parts]


def _clause(part: str, spec: TableSpec) -> Clause:
    names = [column.name for column in spec.columns]
    fitting = [n for n in names if part.startswith(n) and _SIGN.match(part, len(n))]
    if not fitting:
        word = _SIGN.split(part, maxsplit=1)[0]
        if word in names:
            raise UserError(
                f"--where '{part}' does not say what '{word}' is to be.",
                'Write --where "column=value", or <, <=, >, >=, != in place of =.',
            )
        raise UserError(
            f"--where '{part}': there is no column '{word}'.{nearest(word, names)}",
            f"The columns are: {', '.join(names[:30])}.",
        )
    name = max(fitting, key=len)
    column = spec.columns[names.index(name)]
    found = _SIGN.match(part, len(name))
    assert found is not None
    sign, value = found[1], part[found.end() :].strip()
    if column.kind in ("constant", "id"):
        what = "an ID" if column.kind == "id" else f"always '{column.values[0]}'"
        raise UserError(
            f"--where '{part}': '{name}' is {what}, so nothing can be asked of it.",
            "Ask something of another column.",
        )
    if column.numeric:
        return _number(column, sign, value, part)
    if sign not in ("=", "!="):
        raise UserError(
            f"--where '{part}': '{name}' is a {column.kind}, which is neither more nor less.",
            'Write --where "column=value", or != in place of =.',
        )
    known = [*column.values, *column.rare]
    if value not in known:
        raise UserError(
            f"--where '{part}': '{name}' is never '{value}'.{nearest(value, known)}",
            f"Its values are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}.",
        )
    return Clause(column, sign, value)


def _number(column: Column, sign: str, value: str, part: str) -> Clause:
    """A clause on numbers or dates.

    Raises:
        UserError: the value is none.
    """
    if value.lower() in MISSING and sign in ("=", "!="):
        if column.missing is None:
            raise UserError(
                f"--where '{part}': '{column.name}' is never missing.", "Ask for a number."
            )
        return Clause(column, sign, value)
    try:
        if column.kind == "date":
            when = datetime.datetime.strptime(value, column.form)
            return Clause(column, sign, value, (when - EPOCH).total_seconds())
        return Clause(column, sign, value, float(value.replace(",", ".")))
    except ValueError as error:
        kind = f"date like {column.form}" if column.kind == "date" else "number"
        low, high = column.written(np.array([column.low, column.high]))
        raise UserError(
            f"--where '{part}': '{value}' is no {kind}.",
            f"'{column.name}' lies between {low} and {high}.",
        ) from error


def asked_of_generator(clauses: Sequence[Clause], spec: TableSpec) -> int | None:
    """Which number of the condition vector is 1: the rarest value that is asked for by =."""
    best: tuple[float, int] | None = None
    for clause in clauses:
        column = clause.column
        if not column.discrete or clause.sign != "=":
            continue
        place = spec.place(column.name, clause.text)
        within = min(
            column.values.index(clause.text) if clause.text in column.values else column.places - 1,
            column.places - 1,
        )
        share = column.shares[within]
        if best is None or share < best[0]:
            best = (share, place)
    return None if best is None else best[1]
