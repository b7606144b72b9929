"""Sources that are tables: CSV and parquet that list files or hold bytes, and the Hugging Face Hub.

pyarrow and datasets are extras, imported only when such a source is opened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from faussaire.core.errors import UserError
from faussaire.data.decode import MAX_BYTES, Fault
from faussaire.data.files import read_bytes
from faussaire.data.labels import FILE_COLUMNS, file_column, label_column, read_table
from faussaire.data.source import Listing, Source, file_token


def _path_token(path: Path) -> str:
    try:
        return file_token(path)
    except OSError:
        return "missing"


class Csv(Source):
    """A CSV that lists picture files, relative to itself, with an optional label column."""

    kind = "csv"

    def _list(self) -> Listing:
        table = read_table(Path(self.path))
        files = [name.strip() for name in table.column(file_column(table.columns, self.path))]
        column = label_column(table.columns, self.classes, self.path)
        labels: list[str | None] = [None] * len(files)
        if column is not None:
            labels = [label.strip() or None for label in table.column(column)]
        return _listed_files(Path(self.path).parent, files, labels, self)

    def _stamp(self) -> Iterable[str]:
        return (file_token(Path(self.path)), "\n".join(self.listing.tokens))

    def _raw(self, place: Path) -> bytes:
        return read_bytes(place)


def _listed_files(
    base: Path, files: list[str], labels: list[str | None], source: Source
) -> Listing:
    """Rows -> a listing; a file that is listed twice counts once."""
    rows = {name.replace("\\", "/"): label for name, label in zip(files, labels, strict=True)}
    if len(rows) < len(files):
        source.skipped["listed twice"] += len(files) - len(rows)
    places = [base / name for name in rows]
    tokens = [_path_token(path) for path in places]
    if all(token == "missing" for token in tokens):
        raise UserError(
            f"None of the {len(rows)} files that '{source.path}' lists exists "
            f"(the first would be '{places[0]}').",
            "Give paths relative to the table's own folder.",
        )
    return Listing(list(rows), list(rows.values()), tokens, places)


class Parquet(Source):
    """Parquet with pictures as bytes (binary, or Hugging Face's {bytes, path}) or as paths."""

    kind = "parquet"

    @cached_property
    def _file(self) -> Any:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            raise UserError(
                f"Reading '{self.path}' needs pyarrow, which is not installed.",
                "Run: pip install 'faussaire[parquet]'",
            ) from error
        try:
            return self._open.enter_context(pq.ParquetFile(self.path))
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"'{self.path}' is not a whole parquet file ({error}).", "Download it again."
            ) from error

    @cached_property
    def _column(self) -> tuple[str, str]:
        """The picture column and what it holds: "bytes", "struct" or "path"."""
        import pyarrow as pa

        schema = self._file.schema_arrow
        for field in schema:
            if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
                return field.name, "struct"
        for field in schema:
            if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
                return field.name, "bytes"
        if not any(name.lower() in FILE_COLUMNS for name in schema.names):
            raise UserError(
                f"'{self.path}' has no column of pictures; its columns are "
                f"{', '.join(schema.names)}.",
                "Give a column 'image' of bytes or of file paths.",
            )
        return file_column(schema.names, self.path), "path"

    def _list(self) -> Listing:
        schema = self._file.schema_arrow  # first, because it is what may miss pyarrow
        name, holds = self._column
        column = label_column(schema.names, self.classes, self.path)
        labels = [None] * self._file.metadata.num_rows if column is None else self._labels(column)
        if holds == "path":
            files = self._file.read(columns=[name]).column(name).to_pylist()
            return _listed_files(Path(self.path).parent, [str(f) for f in files], labels, self)
        rows = [
            (group, row)
            for group in range(self._file.metadata.num_row_groups)
            for row in range(self._file.metadata.row_group(group).num_rows)
        ]
        token = file_token(Path(self.path))
        width = len(str(len(rows)))
        names = [f"{i:0{width}d}" for i in range(len(rows))]
        return Listing(names, labels, [token] * len(rows), rows)

    def _labels(self, column: str) -> list[str | None]:
        values = self._file.read(columns=[column]).column(column).to_pylist()
        names = _class_names(self._file.schema_arrow.metadata, column)
        return [
            names[v] if isinstance(v, int) and 0 <= v < len(names) else _text(v) for v in values
        ]

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    @cached_property
    def _group(self) -> Any:
        # Pictures are read in order, so a few row groups in memory serve all threads.
        name, _ = self._column
        return lru_cache(maxsize=3)(
            lambda group: self._file.read_row_group(group, columns=[name]).column(name)
        )

    def _raw(self, place: Path | tuple[int, int]) -> bytes:
        if isinstance(place, Path):
            return read_bytes(place)
        with self._lock:
            column = self._group(place[0])
        return picture_bytes(column[place[1]].as_py())

    def _stamp(self) -> Iterable[str]:
        listed = "\n".join(self.listing.tokens) if self._column[1] == "path" else ""
        return (file_token(Path(self.path)), listed)


def picture_bytes(value: object) -> bytes:
    """A cell of a table -> the encoded picture."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return read_bytes(Path(value))
    if not isinstance(value, bytes):
        raise Fault("unreadable", "the row holds no picture")
    if len(value) > MAX_BYTES:
        raise Fault("bomb", f"the row holds {len(value):,} bytes, more than {MAX_BYTES:,}")
    return value


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str]:
    """Names that Hugging Face's `ClassLabel` leaves in a parquet schema, or none."""
    blob = (metadata or {}).get(b"huggingface")
    if blob is None:
        return []
    feature = json.loads(blob).get("info", {}).get("features", {}).get(column, {})
    return list(feature.get("names", []))


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


class Hub(Source):
    """`hf:owner/name[:split]`, through the `datasets` library."""

    kind = "hf"

    @cached_property
    def _rows(self) -> Any:
        try:
            import datasets  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise UserError(
                f"'{self.path}' needs the datasets library, which is not installed.",
                "Run: pip install 'faussaire[datasets]'",
            ) from error
        name, _, split = self.path.removeprefix("hf:").partition(":")
        try:
            rows = datasets.load_dataset(name, split=split or "train")
        except Exception as error:
            # The library fails in its own, httpx's, and fsspec's exceptions; all of them mean the
            # same to the user, who gets the library's own words.
            words = (str(error) or type(error).__name__).split("\n")[0]
            raise UserError(
                f"'{self.path}' could not be fetched from the Hugging Face Hub ({words}).",
                "Check the name, the split and the network connection; offline, "
                "download the set elsewhere and give its folder or parquet file.",
            ) from error
        pictures = [k for k, f in rows.features.items() if isinstance(f, datasets.Image)]
        if not pictures:
            raise UserError(
                f"'{self.path}' has no picture column; its columns are {', '.join(rows.features)}.",
                "Choose a data set of pictures.",
            )
        self._picture = pictures[0]
        return rows.cast_column(pictures[0], datasets.Image(decode=False))

    def _list(self) -> Listing:
        rows = self._rows
        column = label_column(list(rows.features), self.classes, self.path)
        labels: list[str | None] = [None] * len(rows)
        if column is not None:
            names = getattr(rows.features[column], "names", None)
            labels = [
                names[v] if names and isinstance(v, int) and v >= 0 else _text(v)
                for v in rows[column]
            ]
        width = len(str(len(rows)))
        token = str(rows._fingerprint)
        names = [f"{i:0{width}d}" for i in range(len(rows))]
        return Listing(names, labels, [token] * len(rows), list(range(len(rows))))

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    def _raw(self, place: int) -> bytes:
        with self._lock:
            value = self._rows[place][self._picture]
        return picture_bytes(value)

    def _stamp(self) -> Iterable[str]:
        return (str(self._rows._fingerprint),)
