"""Captions of pictures, from a table or text files beside them; mistakes are told with their place."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from faussaire.captions.spec import CaptionData, normalised
from faussaire.core.errors import UserError, nearest
from faussaire.data.labels import FILE_COLUMNS, find_column
from faussaire.data.source import Source
from faussaire.texts.corpus import read_text

COLUMNS = ("text", "caption", "captions", "description", "sentence", "title")
"""Names of columns that hold captions, where none is asked for."""


@dataclass(frozen=True)
class Told:
    """A caption and where it was read.

    Attributes:
        file: the picture that it is of, as it was written.
        text: the caption.
        line: of the file that it was read from, from 1.
    """

    file: str
    text: str
    line: int


def read_captions(source: Source, data: CaptionData) -> tuple[list[list[str]], list[str]]:
    """For each picture of a source its captions, none where it has none, and remarks.

    Raises:
        UserError: no captions, an empty one, columns that are not there, files that are not UTF-8, or
            none that belongs to a picture.
    """
    names = source.listing.names
    table = Path(source.path) if data.captions is None and source.kind == "csv" else data.captions
    if table is None:
        return _beside(source)
    rows = read_rows(table, data.caption_columns)
    places = _places(names)
    found: list[list[str]] = [[] for _ in names]
    strangers: list[Told] = []
    for row in rows:
        at = places.get(_posix(row.file), places.get(PurePosixPath(_posix(row.file)).name))
        if at is None:
            strangers.append(row)
        else:
            found[at].append(row.text)
    if not any(found):
        raise UserError(
            f"No file named in '{table}' is among the {len(names)} pictures of '{source.path}': line "
            f"{rows[0].line} names '{rows[0].file}', and the first picture is '{names[0]}'.",
            "Give paths relative to the pictures' folder, or names without folders.",
        )
    notes = []
    if strangers:
        first, more = strangers[0], len(strangers) - 1
        notes.append(
            f"'{table}' has captions without a picture: line {first.line} names '{first.file}'"
            f"{f', and {more} more lines do so' if more else ''}. They are left out."
        )
    return found, [*notes, *_uncaptioned(names, found, f"in '{table}'")]


def read_rows(path: Path, columns: str | None) -> list[Told]:
    """The captions of a table, in its order.

    Args:
        path: comma, semicolon or tab between, UTF-8, with a header.
        columns: those that hold captions, with commas between; None: one of `COLUMNS`.

    Raises:
        UserError: see `read_captions`; with the line.
    """
    text = read_text(path)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    rows: list[Told] = []
    empty: list[Told] = []
    at, chosen, begin = 0, [0], 1
    try:
        for row in reader:
            if not names:
                names = [name.strip() for name in row]
                at, chosen = _columns(names, columns, path)
            elif row:
                if len(row) != len(names):
                    raise UserError(
                        f"Line {begin} of '{path}' has {len(row)} columns, and the header has "
                        f"{len(names)}.",
                        "Put captions with commas in quotes.",
                    )
                if not row[at].strip():
                    raise UserError(
                        f"Line {begin} of '{path}' names no file.",
                        f"Write one in the column '{names[at]}', or remove the line.",
                    )
                told = [Told(row[at].strip(), row[column].strip(), begin) for column in chosen]
                rows += (kept := [one for one in told if normalised(one.text)])
                empty += [] if kept else told[:1]
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"'{path}' is not a table: line {begin}: {error}.", "Mend its quotes."
        ) from error
    if empty:
        more = f", and {len(empty) - 1} more lines have" if len(empty) > 1 else ""
        raise UserError(
            f"Line {empty[0].line} of '{path}' has an empty caption of '{empty[0].file}'{more}.",
            "Write one, or remove the line: its picture is then left out.",
        )
    if not rows:
        raise UserError(f"'{path}' holds no rows below its header.", "Give a header and rows.")
    return rows


def _columns(names: Sequence[str], wanted: str | None, path: Path) -> tuple[int, list[int]]:
    """Which column names files, and which hold captions.

    Raises:
        UserError: there is none.
    """
    listed = ", ".join(names)
    file = find_column(names, FILE_COLUMNS)
    if file is None:
        raise UserError(
            f"'{path}' has no column that names files; its columns are {listed}.",
            "Call one of them file, in a header line.",
        )
    if wanted is None:
        found = find_column(names, COLUMNS)
        if found is None or found == file:
            others = [name for name in names if name != file]
            raise UserError(
                f"'{path}' has no column called text or caption; its columns are {listed}.",
                f"Say which holds captions: --caption-columns {(others or ['text'])[0]}",
            )
        return names.index(file), [names.index(found)]
    chosen = [name.strip() for name in wanted.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in names] or ([] if chosen else [wanted]):
        raise UserError(
            f"'{path}' has no column '{unknown[0]}'.{nearest(unknown[0], names)}",
            f"Its columns are {listed}.",
        )
    return names.index(file), [names.index(name) for name in chosen]


def _beside(source: Source) -> tuple[list[list[str]], list[str]]:
    """Captions from the `.txt` beside each picture, a caption a line.

    Raises:
        UserError: there are none, one is empty, or not UTF-8.
    """
    folder = Path(source.path)
    if source.kind != "folder":
        raise UserError(
            f"'{source.path}' has no captions beside its pictures, for it is no folder.",
            "Name a table of them: --captions captions.csv, with the columns file and text.",
        )
    names = source.listing.names
    found: list[list[str]] = []
    files: set[Path] = set()
    for name in names:
        path = (folder / name).with_suffix(".txt")
        files.add(path)
        if not path.exists():
            found.append([])
            continue
        lines = [line.strip() for line in read_text(path).splitlines()]
        captions = [line for line in lines if normalised(line)]
        if not captions:
            raise UserError(
                f"'{path}' holds no caption.",
                "Write one, or remove the file: its picture is left out.",
            )
        found.append(captions)
    if not any(found):
        raise UserError(
            f"The pictures of '{source.path}' have no captions: there is no "
            f"'{PurePosixPath(names[0]).with_suffix('.txt')}' beside '{names[0]}'.",
            "Name a table of them: --captions captions.csv, with the columns file and text.",
        )
    lonely = sorted({*folder.rglob("*.txt")} - files)
    notes = []
    if lonely:
        more = f", and so have {len(lonely) - 1} more files" if len(lonely) > 1 else ""
        notes.append(f"'{lonely[0]}' has no picture of its name{more}; it is left out.")
    return found, [*notes, *_uncaptioned(names, found, "beside them")]


def _uncaptioned(names: Sequence[str], found: Sequence[list[str]], where: str) -> list[str]:
    """A remark on pictures without captions."""
    without = [name for name, captions in zip(names, found, strict=True) if not captions]
    if not without:
        return []
    return [
        f"{len(without)} of {len(names)} pictures have no caption {where}, '{without[0]}' the first. "
        "They are left out."
    ]


def _places(names: Sequence[str]) -> dict[str, int]:
    """Where each name is in a list, and each name without its folders where only one has it."""
    bases = Counter(PurePosixPath(name).name for name in names)
    lone = {PurePosixPath(name).name: at for at, name in enumerate(names)}
    found = {base: at for base, at in lone.items() if bases[base] == 1}
    return found | {name: at for at, name in enumerate(names)}


def _posix(name: str) -> str:
    return str(PurePosixPath(name.strip().replace("\\", "/")))
