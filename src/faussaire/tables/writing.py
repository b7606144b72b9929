"""Tables to files: CSV as the training table was written, or parquet with its types."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faussaire.core.errors import UserError
from faussaire.core.files import replace_file
from faussaire.tables.reading import arrow
from faussaire.tables.spec import MISSING, Column, TableSpec


def write_table(spec: TableSpec, columns: Sequence[Sequence[str]], path: Path) -> None:
    """Write columns of text, in the order of the spec's.

    Args:
        spec: of the table.
        columns: a list of text for each column.
        path: `.parquet`, or anything else for CSV.

    Raises:
        UserError: it cannot be written, or pyarrow is not installed.
    """
    try:
        if path.suffix.lower() == ".parquet":
            pa, pq = arrow()
            arrays = [_array(pa, *pair) for pair in zip(spec.columns, columns, strict=True)]
            table = pa.table(arrays, names=[column.name for column in spec.columns])
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            replace_file(path, buffer.getvalue())
        else:
            replace_file(path, csv_text(spec, columns).encode())
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be written: {error.strerror}.", "Name another file."
        ) from error


def csv_text(spec: TableSpec, columns: Sequence[Sequence[str]]) -> str:
    """Columns of text as a CSV with a header, delimited as the training table is."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=spec.delimiter, lineterminator="\n")
    writer.writerow([column.name for column in spec.columns])
    if not spec.spaced:
        writer.writerows(zip(*columns, strict=True))
        return out.getvalue()
    writer.writerows(
        (first, *(f" {cell}" for cell in rest)) for first, *rest in zip(*columns, strict=True)
    )
    return out.getvalue()


def _array(pa: Any, column: Column, texts: Sequence[str]) -> Any:
    """A column as an Arrow array of the training table's type, or of what its kind asks for."""
    kinds = {"integer": "int64", "real": "double", "date": "timestamp[s]"}
    name = column.type or kinds.get(column.kind, "string")
    numbers = name.startswith(("int", "uint", "float", "double", "half", "decimal"))
    dates = name.startswith(("timestamp", "date"))
    if not (numbers or dates or name == "bool"):
        gaps = {"null"} if name == "null" else {""} if column.type else set()
        return pa.array([None if text in gaps else text for text in texts], pa.string())
    known: dict[str, Any] = {}
    for text in {*texts}:
        if text.lower() in MISSING:
            known[text] = None
        elif name == "bool":
            known[text] = text.lower() in ("true", "1", "yes", "t", "y")
        elif dates:
            known[text] = datetime.datetime.strptime(text, column.form or _iso(text))
        else:
            number = float(text.replace(",", ".")) if column.comma else float(text)
            known[text] = int(number) if "int" in name else number
    values = [known[text] for text in texts]
    if name == "bool":
        return pa.array(values, pa.bool_())
    if name.startswith("decimal"):
        name = "double"
    if name.startswith("date"):
        return pa.array(values, pa.timestamp("s")).cast(pa.date32())
    if dates:
        return pa.array(values, pa.type_for_alias(name.partition(",")[0].rstrip("]") + "]"))
    return pa.array(values, pa.type_for_alias(name))


def _iso(text: str) -> str:
    """The form of a date that a category or constant holds as text."""
    return "%Y-%m-%d %H:%M:%S" if " " in text else "%Y-%m-%d"
