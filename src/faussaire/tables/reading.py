"""Tables from CSV and parquet, as text by column; what is wrong with a file is told by line and column.

Every column becomes its different values and, for each row, which of them it has: types are then found
by looking at each different value once. pyarrow is an extra, imported only for parquet.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.errors import UserError

DELIMITERS = ",;\t|"
_SNIFFED = 50
"""Lines by which the delimiter is found."""


@dataclass(frozen=True)
class Cells:
    """A column as text.

    Attributes:
        values: its different values, in the order in which they first appear.
        codes: (rows,) int32: which of them each row has.
    """

    values: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, cells: Iterable[str]) -> Cells:
        """From one text for each row."""
        known: dict[str, int] = {}
        codes = np.fromiter((known.setdefault(cell, len(known)) for cell in cells), np.int32)
        return cls(tuple(known), codes)

    @property
    def counts(self) -> np.ndarray:
        """(values,) int64: rows of each value."""
        return np.bincount(self.codes, minlength=len(self.values))

    def __len__(self) -> int:
        return len(self.codes)

    def text(self) -> list[str]:
        """One text for each row."""
        return [self.values[code] for code in self.codes]

    def take(self, rows: np.ndarray) -> Cells:
        """These rows, with the values that they have."""
        kept, codes = np.unique(self.codes[rows], return_inverse=True)
        return Cells(tuple(self.values[code] for code in kept), codes.astype(np.int32))


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A table as text.

    Attributes:
        path: the file.
        names: of the columns.
        columns: in the same order.
        delimiter: between cells, where it is a CSV.
        spaced: whether a space follows each delimiter.
        lines: (rows,) int64: where each row begins in the file, from 1; in parquet its number.
        kinds: what a typed file says of columns, by name: `integer`, `real`, `boolean`, `date`.
        types: a typed file's own words for its columns' types, by name.
    """

    path: Path
    names: tuple[str, ...]
    columns: tuple[Cells, ...]
    delimiter: str = ","
    spaced: bool = False
    lines: np.ndarray
    kinds: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> Cells:
        """A column by name."""
        return self.columns[self.names.index(name)]

    def take(self, rows: np.ndarray) -> Frame:
        """These rows."""
        return Frame(
            path=self.path,
            names=self.names,
            columns=tuple(column.take(rows) for column in self.columns),
            delimiter=self.delimiter,
            spaced=self.spaced,
            lines=self.lines[rows],
            kinds=self.kinds,
            types=self.types,
        )

    def where(self, column: int, value: int) -> str:
        """The place of a column's value, for a sentence: the first row that has it."""
        row = int(np.argmax(self.columns[column].codes == value))
        what = "row" if self.path.suffix == ".parquet" else "line"
        return f"{what} {self.lines[row]}, column '{self.names[column]}'"


def read_frame(path: str | Path, encoding: str = "utf-8") -> Frame:
    """The table in a CSV or parquet file.

    Args:
        path: `.parquet` is read as such, everything else as text in columns, with a header.
        encoding: of the text.

    Raises:
        UserError: not a file, empty, in another encoding, ragged or otherwise damaged; with the place.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"'{path}' is a folder.", "Name one CSV or parquet file.")
    if not path.exists():
        raise UserError(f"'{path}' does not exist.", "Check the path.")
    return _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path, encoding)


def _csv(path: Path, encoding: str) -> Frame:
    text = _text(path, encoding)
    if not text.strip():
        raise UserError(f"'{path}' is empty.", "Give a CSV with a header line and rows below it.")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    begin = 1
    try:
        for row in reader:
            if not names:
                names = [name.strip() for name in row]
            elif row or len(names) == 1:  # a blank line is nothing, but for a single column
                if len(row) != len(names) and not (len(names) == 1 and not row):
                    raise UserError(
                        f"'{path}', line {begin}: {len(row)} cells, and the header has {len(names)}.",
                        "Mend that line; text that holds the delimiter must be in quotes.",
                    )
                rows.append(row or [""])
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"'{path}', line {begin}: it is not CSV ({error}).",
            "Mend that line; a quote that is opened must be closed.",
        ) from error
    _check_names(path, names)
    if not rows:
        raise UserError(
            f"'{path}' has a header and no rows below it.", "Give some rows to learn from."
        )
    columns = list(zip(*rows, strict=True))
    spaced = len(names) > 1 and all(cell[:1] == " " for column in columns[1:] for cell in column)
    stripped = (Cells.of(cell.strip() for cell in column) for column in columns)
    return Frame(
        path=path,
        names=tuple(names),
        columns=tuple(stripped),
        delimiter=delimiter,
        spaced=spaced,
        lines=np.array(lines),
    )


def _text(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    name = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    try:
        text = content.decode(name)
    except LookupError as error:
        raise UserError(
            f"There is no encoding '{encoding}'.", "Usual ones are utf-8, latin-1, cp1252, utf-16."
        ) from error
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        line = content[:at].count(b"\n") + 1
        likely = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise UserError(
            f"'{path}', line {line}: byte {content[at]:#04x} is not {encoding}.",
            f"Save the table as UTF-8, or name its encoding: --encoding {likely}.",
        ) from error
    if (at := text.find("\0")) >= 0:
        raise UserError(
            f"'{path}', line {text[:at].count(chr(10)) + 1}: a zero byte, so this is no table.",
            "Give a CSV, or a parquet file named *.parquet.",
        )
    return text


def _delimiter(text: str) -> str:
    """The one that is as often in the first lines as in the header; else the commonest there."""
    head = [line for line in text.splitlines()[:_SNIFFED] if line.strip()]

    def score(mark: str) -> tuple[float, int]:
        there = head[0].count(mark)
        same = sum(line.count(mark) == there for line in head) / len(head)
        return (same if there else 0.0, there)

    return max(DELIMITERS, key=score)


def _check_names(path: Path, names: Sequence[str]) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise UserError(
            f"'{path}', line 1: two columns are named '{doubled[0]}'.", "Give each its own name."
        )
    if all(_is_number(name) for name in names):
        raise UserError(
            f"'{path}', line 1: the header holds numbers ({', '.join(names[:4])}), so it seems to be "
            "missing.",
            "Write the columns' names into the first line.",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def arrow() -> tuple[Any, Any]:
    """pyarrow and its parquet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise UserError(
            "Parquet files need pyarrow, which is not installed.",
            "Run: pip install 'faussaire[tables]'",
        ) from error
    return pa, pq


def _parquet(path: Path) -> Frame:
    pa, pq = arrow()
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"'{path}' is not a whole parquet file ({str(error).splitlines()[0]}).",
            "Write or download it again.",
        ) from error
    if not table.num_rows or not table.num_columns:
        raise UserError(
            f"'{path}' has {table.num_rows} rows and {table.num_columns} columns.",
            "Give some rows to learn from.",
        )
    _check_names(path, table.column_names)
    kinds, columns = {}, []
    for entry in table.schema:
        kind = _kind(pa, entry.type)
        if kind is None:
            raise UserError(
                f"'{path}', column '{entry.name}': {entry.type} is no number, text or date.",
                "Leave that column out of the file.",
            )
        if kind:
            kinds[entry.name] = kind
        column = table.column(entry.name)
        if pa.types.is_dictionary(entry.type):
            column = column.cast(entry.type.value_type)
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        written = [_written(value) for value in encoded.dictionary.to_pylist()]
        whole = Cells.of(written)  # two values may be written alike
        codes = whole.codes[encoded.indices.to_numpy(zero_copy_only=False)]
        columns.append(Cells(whole.values, codes.astype(np.int32)))
    return Frame(
        path=path,
        names=tuple(table.column_names),
        columns=tuple(columns),
        lines=np.arange(1, table.num_rows + 1),
        kinds=kinds,
        types={entry.name: str(entry.type) for entry in table.schema},
    )


def _kind(pa: Any, of: Any) -> str | None:
    """What an Arrow type is here: `` for text, None for what no table can hold."""
    types = pa.types
    if types.is_dictionary(of):
        return _kind(pa, of.value_type)
    if types.is_boolean(of):
        return "boolean"
    if types.is_integer(of):
        return "integer"
    if types.is_floating(of) or types.is_decimal(of):
        return "real"
    if types.is_timestamp(of) or types.is_date(of):
        return "date"
    text = types.is_string(of) or types.is_large_string(of) or types.is_null(of)
    return "" if text else None


def _written(value: object) -> str:
    """A value of a typed file as text."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    return str(value).strip()
