"""Classes of pictures: from sub-folders, from a `labels.csv`, or from a column of a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from faussaire.core.errors import UserError, nearest

FILE_COLUMNS = [
    "file",
    "path",
    "image",
    "filename",
    "file_name",
    "filepath",
    "image_path",
    "img",
    "name",
    "picture",
]
LABEL_COLUMNS = ["label", "class", "category", "target", "y"]
AUTO = ("auto", "folders", "none")
UNLABELLED = ("unlabelled", "unlabeled")
"""Folders of pictures without a class, where there may be such."""


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV read whole: column names and rows of text."""

    path: Path
    columns: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """One column from top to bottom."""
        at = self.columns.index(name)
        return [row[at] if at < len(row) else "" for row in self.rows]


def read_table(path: Path) -> Table:
    """Read a CSV (comma, semicolon or tab; UTF-8) with a header."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{path}' is not UTF-8 text (byte {error.start}).", "Save the table as UTF-8 CSV."
        ) from error
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if len(rows) < 2:
        raise UserError(f"'{path}' holds no rows below its header.", "Give a header and rows.")
    return Table(path, [name.strip() for name in rows[0]], rows[1:])


def find_column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of `known` that is among the columns, whatever its case."""
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in known if name in lower), None)


def file_column(columns: Sequence[str], path: object) -> str:
    """The column that names files."""
    found = find_column(columns, FILE_COLUMNS)
    if found is None:
        raise UserError(
            f"'{path}' has no column that names files; its columns are {_listed(columns)}.",
            f"Name one of them {_listed(FILE_COLUMNS[:4])}, in a header line.",
        )
    return found


def label_column(columns: Sequence[str], classes: str, path: object) -> str | None:
    """The column that holds classes, or None where the table has none or none is wanted."""
    if classes == "none":
        return None
    if classes == "auto":
        return find_column(columns, LABEL_COLUMNS)
    if classes == "folders":
        raise UserError(
            f"'{path}' is a table, so its classes cannot come from sub-folders.",
            "Use classes=auto, none, or the name of a column.",
        )
    if classes not in columns:
        raise UserError(
            f"'{path}' has no column '{classes}'.{nearest(classes, columns)}",
            f"Its columns are {_listed(columns)}.",
        )
    return classes


def from_table(path: Path, classes: str) -> dict[str, str]:
    """{file name as in the table, with forward slashes: label}; blank labels are left out."""
    table = read_table(path)
    files = table.column(file_column(table.columns, path))
    column = label_column(table.columns, classes, path)
    if column is None:
        raise UserError(
            f"'{path}' has no label column; its columns are {_listed(table.columns)}.",
            "Name one of them 'label', or give classes=COLUMN.",
        )
    labels = table.column(column)
    pairs = zip(files, labels, strict=True)
    return {_posix(file): label.strip() for file, label in pairs if label.strip()}


def apply_table(
    names: Sequence[str], table: dict[str, str], path: Path
) -> tuple[list[str | None], list[str]]:
    """Labels for `names`, and remarks. Names match by relative path, else by unique file name."""
    labels: list[str | None] = [table.get(name) for name in names]
    if not any(labels):
        by_base = {PurePosixPath(name).name: label for name, label in table.items()}
        bases = Counter(PurePosixPath(name).name for name in names)
        labels = [
            by_base.get(base) if bases[base] == 1 else None
            for base in (PurePosixPath(name).name for name in names)
        ]
    if names and not any(labels):
        example = next(iter(table), "nothing")
        raise UserError(
            f"No file named in '{path}' is among the {len(names)} pictures "
            f"(it names '{example}', the first picture is '{names[0]}').",
            "Give paths relative to the pictures' folder, or give classes=none.",
        )
    notes: list[str] = []
    missing = len(table) - sum(label is not None for label in labels)
    if missing > 0:
        notes.append(f"{missing} files named in '{path.name}' are not among the pictures.")
    return labels, notes


def from_folders(names: Sequence[str], where: str, *, partial: bool = False) -> list[str | None]:
    """The first folder of each name that tells pictures apart is its class.

    Args:
        names: with forward slashes.
        where: they lie, in errors.
        partial: pictures in no folder, or in one of `UNLABELLED`, have no class; else the former are
            refused, and the latter are a class.

    Raises:
        UserError: a picture lies in no folder.
    """
    parts = [PurePosixPath(name).parts for name in names]
    depth = 0
    # An archive usually wraps everything in one folder, which is no class.
    while any(len(p) > depth + 2 for p in parts) and all(
        len(p) > depth + 1 and p[depth] == parts[0][depth] for p in parts
    ):
        depth += 1
    loose = [name for name, p in zip(names, parts, strict=True) if len(p) < depth + 2]
    if partial:
        return [
            p[depth] if len(p) > depth + 1 and p[depth].lower() not in UNLABELLED else None
            for p in parts
        ]
    if loose:
        raise UserError(
            f"{len(loose)} pictures of '{where}' lie in no sub-folder, so they have no class "
            f"(for example '{loose[0]}').",
            "Move them into a folder per class, or give classes=none.",
        )
    return [p[depth] for p in parts]


def told_labels(counts: Sequence[int], total: int, noun: str = "pictures") -> str:
    """`100 of 9,000 pictures have a label: 10 a class`, from how many each class has."""
    labelled = sum(counts)
    if not labelled:
        return f"None of {total:,} {noun} has a label"
    low, high = min(counts), max(counts)
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{labelled:,} of {total:,} {noun} have a label: {each} a class"


def class_order(labels: Sequence[str]) -> list[str]:
    """Distinct classes: by number if all are whole numbers, else by text."""
    distinct = set(labels)
    if all(name.lstrip("-").isdecimal() for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def _posix(name: str) -> str:
    return str(PurePosixPath(name.strip().replace("\\", "/")))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
