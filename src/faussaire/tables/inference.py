"""What the columns of a table are: numbers, dates, categories, constants or IDs."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faussaire.core.errors import UserError, nearest
from faussaire.tables.reading import Cells, Frame
from faussaire.tables.spec import EPOCH, KINDS, MISSING, Column

FEW = 10
"""Different numbers up to which a column of many rows is one of categories: grades, counts of rooms."""
COMMON = 0.1
"""Share of a column's numbers from which on a value is a mode of its own."""
TAIL = 100.0
"""How many times the median a number must be for the tail to be called long."""

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
_PADDED = re.compile(r"[+-]?0\d+")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_BOOLEAN = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"0", "1"})
_NAMED_ID = re.compile(r"(^|[^a-z])(id|uuid|guid|index|key)$", re.IGNORECASE)

FORMS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d-%m-%Y",
    "%d %b %Y",
    "%d-%b-%Y",
)
"""Forms of dates that are known; the first that fits all of a column's is taken."""


@dataclass(frozen=True)
class Found:
    """A column as found, before its modes are fitted.

    Attributes:
        column: without modes.
        numbers: (values,) for numbers and dates, of each different value; NaN where missing.
        notes, warnings: what the user should know of it, as sentences.
    """

    column: Column
    numbers: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def asked_kinds(text: str, names: Sequence[str]) -> dict[str, str]:
    """What `--columns` says: `age=integer,zip=category`; a name may be in quotes.

    Raises:
        UserError: no such column or kind.
    """
    found = {}
    for part in next(csv.reader([text])) if text.strip() else []:
        name, _, kind = (piece.strip() for piece in part.rpartition("="))
        if name not in names:
            raise UserError(
                f"--columns names '{name or part}', and there is no such column."
                f"{nearest(name, names)}",
                f"The columns are: {', '.join(names[:30])}.",
            )
        if kind not in KINDS:
            raise UserError(
                f"--columns: '{name}' cannot be of the kind '{kind}'.{nearest(kind, KINDS)}",
                f"The kinds are: {', '.join(KINDS)}.",
            )
        found[name] = kind
    return found


def infer(frame: Frame, asked: Mapping[str, str], most: int) -> list[Found]:
    """What each column is.

    Args:
        frame: the table.
        asked: kinds by name, where the user has said.
        most: values of a category that get places of their own.

    Raises:
        UserError: a column is not what it was said to be, with the place.
    """
    return [_column(frame, index, asked.get(name), most) for index, name in enumerate(frame.names)]


def _column(frame: Frame, index: int, asked: str | None, most: int) -> Found:
    cells, name = frame.columns[index], frame.names[index]
    present = [code for code, text in enumerate(cells.values) if text.lower() not in MISSING]
    if len(cells.values) == 1 and asked != "id":
        text = cells.values[0]
        column = Column(name=name, kind="constant", values=(text,), shares=(1.0,))
        return Found(column, notes=(f"Column '{name}' is always '{text}': it is not learnt.",))
    if asked == "constant":
        raise UserError(
            f"'{frame.path}', column '{name}': it was said to be constant, and has "
            f"{len(cells.values):,} different values.",
            "Leave it out of --columns.",
        )
    typed = frame.kinds.get(name)
    if asked in ("category", "boolean"):
        return _category(frame, index, asked, most)
    if asked == "id":
        return _id(frame, index)
    if asked is None and (_is_boolean(cells, present) or typed == "boolean"):
        return _category(frame, index, "boolean", most)
    numbers = _numbers(frame, index, present, asked or typed)
    if asked is None and numbers is not None:
        few = len(present) <= FEW and len(cells) >= FEW * len(present) and typed != "date"
        if few and numbers.column.kind != "date":
            return _category(frame, index, "category", most)
        if numbers.column.kind == "integer" and _counts_rows(name, cells, present, numbers.numbers):
            return _id(frame, index)
    if numbers is not None:
        return numbers
    if asked is None and _unlike(cells, present):
        return _id(frame, index)
    return _category(frame, index, "category", most)


def _is_boolean(cells: Cells, present: Sequence[int]) -> bool:
    return {cells.values[code].lower() for code in present} in _BOOLEAN


def _unlike(cells: Cells, present: Sequence[int]) -> bool:
    """Whether text is so different from row to row that it is a name and no category."""
    rows = int(cells.counts[list(present)].sum()) if present else 0
    different = len(present)
    return (different > 0.9 * rows and rows >= 10) or (different > 0.5 * rows and different > 100)


def _counts_rows(
    name: str, cells: Cells, present: Sequence[int], numbers: np.ndarray | None
) -> bool:
    """Whether whole numbers only tell rows apart."""
    if numbers is None or len(present) < len(cells) or len(present) < 20:
        return False
    known = numbers[list(present)]
    consecutive = known.max() - known.min() == len(known) - 1
    return bool(consecutive) or _NAMED_ID.search(name) is not None


def _id(frame: Frame, index: int) -> Found:
    cells, name = frame.columns[index], frame.names[index]
    whole = all(_INTEGER.fullmatch(text) for text in cells.values)
    if whole:
        column = Column(name=name, kind="id", first=min(map(int, cells.values)))
    else:
        word = re.sub(r"\W+", "", name) or "row"
        column = Column(name=name, kind="id", prefix=f"{word}-", width=len(str(len(cells))))
    warning = (
        f"Column '{name}' looks like an ID ({len(cells.values):,} different values in "
        f"{len(cells):,} rows): it is not learnt, and samples get fresh ones. "
        f'--columns "{name}=category" (or integer, real) learns it.'
    )
    return Found(column, warnings=(warning,))


def _category(frame: Frame, index: int, kind: str, most: int) -> Found:
    cells, name = frame.columns[index], frame.names[index]
    counts = cells.counts
    order = np.argsort(-counts, kind="stable")
    kept, rare = order[:most], order[most:]
    if len(rare) == 1:
        kept, rare = order, order[:0]
    shares = counts / counts.sum()
    warnings: list[str] = []
    if len(rare):
        known = shares[kept].sum()
        warnings.append(
            f"Column '{name}' has {len(order):,} different values. One-hot encoding them all would make "
            f"the networks as wide, so only the {len(kept):,} commonest are learnt ({known:.0%} of the "
            f"rows); the others are drawn at random. If they are numbers or an ID, say so: "
            f'--columns "{name}=real".'
        )
        rare = rare[:most]  # of a million values not all are kept in each checkpoint
    numbers = [
        code
        for code, text in enumerate(cells.values)
        if _REAL.fullmatch(text) and not _PADDED.fullmatch(text)
    ]
    plain = {*numbers}
    odd = [code for code in range(len(cells.values)) if code not in plain]
    odd = [code for code in odd if cells.values[code].lower() not in MISSING]
    if len(numbers) > 20 and 0 < len(odd) <= len(numbers) // 20:
        warnings.append(
            f"Column '{name}' holds numbers but for '{cells.values[odd[0]]}' "
            f"({frame.where(index, odd[0])}{', and others' if len(odd) > 1 else ''}), so it is taken as "
            "categories. Empty such cells to have it learnt as numbers."
        )
    rest = 1.0 - float(shares[kept].sum())
    beyond = counts[rare].sum()
    column = Column(
        name=name,
        kind="boolean" if kind == "boolean" else "category",
        values=tuple(cells.values[code] for code in kept),
        shares=(*shares[kept].tolist(), *([rest] if len(rare) else [])),
        rare=tuple(cells.values[code] for code in rare),
        rare_shares=tuple((counts[rare] / beyond).tolist()) if len(rare) else (),
    )
    return Found(column, warnings=tuple(warnings))


def _numbers(frame: Frame, index: int, present: Sequence[int], asked: str | None) -> Found | None:
    """The column as numbers or dates; None where it is none.

    Raises:
        UserError: it was said to be, or all but some infinite numbers are.
    """
    cells, name = frame.columns[index], frame.names[index]
    texts = [cells.values[code] for code in present]
    known = {*present}
    gaps = [code for code in range(len(cells.values)) if code not in known]
    missing = None
    if gaps:
        missing = cells.values[max(gaps, key=lambda code: cells.counts[code])]
    base: dict[str, Any] = {"name": name, "missing": missing}
    if not texts:
        return None
    if asked in (None, "date") and (form := _form(texts)) is not None:
        seconds = [(datetime.datetime.strptime(t, form) - EPOCH).total_seconds() for t in texts]
        column = Column(**base, kind="date", form=form)
        return Found(column, _spread(cells, present, seconds))
    if asked == "date":
        raise UserError(
            f"'{frame.path}', column '{name}': its dates (such as '{texts[0]}') are in none of the "
            "known forms, or in more than one.",
            "Write all of them as 2024-12-31, or as 2024-12-31 23:59:59.",
        )
    comma = frame.delimiter == ";" and any("," in text for text in texts)
    pattern = _COMMA if comma else _REAL
    wrong = [code for code in present if not pattern.fullmatch(cells.values[code])]
    endless = [code for code in wrong if _INFINITE.fullmatch(cells.values[code])]
    if endless and len(endless) == len(wrong) < len(present):
        raise UserError(
            f"'{frame.path}', {frame.where(index, endless[0])}: '{cells.values[endless[0]]}' is no "
            "number that can be learnt.",
            "Empty such cells, or write the largest number that can occur.",
        )
    if wrong or (asked is None and any(_PADDED.fullmatch(text) for text in texts)):
        if asked is None:
            return None  # 007 is a code, not a number
        if wrong:
            raise UserError(
                f"'{frame.path}', {frame.where(index, wrong[0])}: '{cells.values[wrong[0]]}' is no "
                f"number, and the column is said to be {asked}.",
                f'Mend or empty that cell, or leave it out: --columns "{name}=category".',
            )
    plain = [text.replace(",", ".") for text in texts] if comma else texts
    numbers = [float(text) for text in plain]
    if all(_INTEGER.fullmatch(text) for text in plain) or asked == "integer":
        if odd := [code for code, x in zip(present, numbers, strict=True) if x != round(x)]:
            raise UserError(
                f"'{frame.path}', {frame.where(index, odd[0])}: '{cells.values[odd[0]]}' is no whole "
                "number.",
                f'Say that it is real: --columns "{name}=real".',
            )
        if asked != "real":
            column = Column(**base, kind="integer")
            return Found(column, _spread(cells, present, numbers))
    digits = [_decimals(text) for text in plain]
    column = Column(
        **base,
        kind="real",
        decimals=max(digits),
        fixed=len({*digits}) == 1 and not any("e" in text.lower() for text in plain),
        comma=comma,
    )
    return Found(column, _spread(cells, present, numbers))


def _spread(cells: Cells, present: Sequence[int], numbers: Sequence[float]) -> np.ndarray:
    out = np.full(len(cells.values), np.nan)
    out[list(present)] = numbers
    return out


def _decimals(text: str) -> int:
    """Digits after the point of a number as text, 15 at most."""
    mantissa, _, exponent = text.lower().partition("e")
    digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return min(15, max(0, digits))


def _form(texts: Sequence[str]) -> str | None:
    """The form of dates that fits all of these texts."""
    for form in FORMS:
        try:
            for text in texts:
                datetime.datetime.strptime(text, form)
        except ValueError:
            continue
        return form
    return None
