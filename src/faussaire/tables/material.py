"""What a run trains on: a table, typed and encoded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from faussaire.core.batch import mix
from faussaire.core.config import Settings
from faussaire.core.errors import UserError, nearest
from faussaire.core.family import Family
from faussaire.core.loop import Stream as AnyStream
from faussaire.data.parallel import Progress
from faussaire.data.stream import Stream
from faussaire.tables.data import TableData
from faussaire.tables.inference import Found, asked_kinds, infer
from faussaire.tables.modes import encode_categories, encode_numbers, fit_modes
from faussaire.tables.reading import Frame, read_frame
from faussaire.tables.scores import Plain
from faussaire.tables.spec import Column, TableSpec
from faussaire.tables.stream import ConditionStream


@dataclass(frozen=True, kw_only=True)
class TableMaterial:
    """A table, read and encoded.

    Attributes:
        frame: as text.
        spec: what the family is told.
        alphas: (rows, A) float32.
        places: (rows, blocks) int32: where the 1 of each one-hot vector is.
        key: of the contents, and of how they are read.
        conditional: whether the family is trained on drawn conditions.
        notes, warnings: what the user should know.
    """

    frame: Frame
    spec: TableSpec
    alphas: np.ndarray
    places: np.ndarray
    key: str
    conditional: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows that are trained on and those held out, as `split_rows` has them."""
        return [split_rows(len(self), holdout)]

    def one_table(
        self, holdout: float | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The encoded rows by field name, and which are trained on and held out."""
        return {"alphas": self.alphas, "places": self.places}, *self.split(holdout)[0]

    def stream(self, data: TableData, *, seed: int, rank: int, world: int) -> AnyStream:
        """The endless stream of one process."""
        train, unseen = self.split(data.holdout)[0]
        if self.conditional and self.spec.discrete:
            return ConditionStream(
                self.spec, self.alphas, self.places, seed=seed, rows=train, rank=rank, world=world
            )
        table, rows = {"alphas": self.alphas, "places": self.places}, train if len(unseen) else None
        return Stream([table], rows=[rows], seed=seed, rank=rank, world=world)

    def settled(self, data: TableData) -> TableData:
        """These settings with what was left to choose filled in."""
        unseen = len(self.split(data.holdout)[0][1])
        return dataclasses.replace(data, holdout=data.share(unseen, len(self)))

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds."""
        return {
            "source": source,
            "kind": "table",
            "count": len(self),
            "columns": {column.name: column.described() for column in self.spec.columns},
            "encoded": self.spec.width,
            "key": self.key,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        return {
            "rows": len(self),
            "columns": {column.name: column.kind for column in self.spec.columns},
            "encoded": self.spec.width,
        }

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        return (
            f"{len(self):,} rows of {len(self.spec.columns)} columns, encoded as {self.spec.width} "
            "numbers"
        )


def split_rows(count: int, holdout: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` rows those to train on and those to hold out, (K,) int64 each, in order.

    Which they are depends on the number alone, so that runs of different seeds can be compared.

    Args:
        count: rows.
        holdout: the share to hold out; None: 2 %, 500 at most, of 1,000 rows or more.

    Raises:
        UserError: nothing would be left to train on.
    """
    if holdout is None:
        unseen = min(500, count // 50) if count >= 1000 else 0
    else:
        unseen = round(holdout * count)
    if unseen >= count:
        raise UserError(
            f"--holdout {holdout or 0:g} of {count} rows leaves none to train on.",
            "Give a smaller share, or 0.",
        )
    order = np.argsort(np.random.Philox(key=mix("held out")).random_raw(count), kind="stable")
    return np.sort(order[unseen:]), np.sort(order[:unseen])


def read_material(
    settings: Settings,
    kind: type[Family[Any]],
    *,
    progress: Progress | None = None,
    preflight: bool = True,
) -> TableMaterial:
    """The table that a run's settings name.

    Raises:
        UserError: it cannot be read or learnt, with the place.
    """
    data: TableData = settings.data
    frame = read_frame(settings.source, data.encoding)
    train, _ = split_rows(len(frame), data.holdout)
    material = encode_frame(
        frame,
        columns=data.columns,
        most=data.most_categories,
        fit=train,
        progress=progress,
        conditional=bool(getattr(kind, "conditions", False)),
    )
    return material if preflight else dataclasses.replace(material, warnings=())


def encode_frame(
    frame: Frame,
    *,
    columns: str = "",
    most: int = 500,
    fit: np.ndarray | None = None,
    progress: Progress | None = None,
    conditional: bool = True,
) -> TableMaterial:
    """A table typed and encoded.

    Args:
        frame: as text.
        columns: kinds that the user asks for.
        most: values of a category that are learnt.
        fit: rows that modes and shares are found from; None: all. Kinds, values and ranges are all
            rows', so that every row can be encoded.
        progress: told of the columns.
        conditional: whether conditions are to be drawn.

    Raises:
        UserError: a column is not what it was said to be, or none is left to learn.
    """
    found = infer(frame, asked_kinds(columns, frame.names), most)
    specs: list[Column] = []
    alphas, modes, categories = [], [], []
    for index, (each, cells) in enumerate(zip(found, frame.columns, strict=True)):
        column = each.column
        rows = np.arange(len(frame)) if fit is None else fit
        if each.numbers is not None:
            column = _whole_range(fit_modes(each, cells.codes[rows]), each)
            x = each.numbers[cells.codes]
            if not column.points and not column.means:
                x = np.full(len(frame), np.nan)
            one, places = encode_numbers(column, x, seed=mix("modes", column.name))
            alphas.append(one)
            modes.append(places)
        elif column.discrete:
            places = encode_categories(column, cells.values, cells.codes)
            categories.append(places)
            counts = np.bincount(places[rows], minlength=column.places)
            column = dataclasses.replace(column, shares=tuple((counts / counts.sum()).tolist()))
        specs.append(dataclasses.replace(column, type=frame.types.get(column.name, "")))
        if progress is not None:
            progress("encoding columns", index + 1, len(found))
    spec = TableSpec(
        columns=tuple(specs), delimiter=frame.delimiter, spaced=frame.spaced, rows=len(frame)
    )
    if not spec.width:
        raise UserError(
            f"'{frame.path}' has no column to learn: {'; '.join(c.described() for c in specs)}.",
            'Add columns that vary, or say what they are: --columns "name=category".',
        )
    learnt = ", ".join(column.described() for column in specs)
    empty = np.zeros((len(frame), 0), np.float32)
    return TableMaterial(
        frame=frame,
        spec=spec,
        alphas=np.stack(alphas, axis=1) if alphas else empty,
        places=np.stack([*modes, *categories], axis=1),
        key=_key(frame, spec),
        conditional=conditional,
        notes=(f"Columns: {learnt}.", *(note for each in found for note in each.notes)),
        warnings=tuple(warning for each in found for warning in each.warnings),
    )


def encode_as(spec: TableSpec, frame: Frame) -> tuple[Plain, str]:
    """A table's rows in the terms of a spec that was made of another, or of it, and a key of them.

    Raises:
        UserError: a column is missing, or a cell is nothing that the spec knows, with the place.
    """
    numbers, codes = [], []
    for column in (*spec.numeric, *spec.discrete):
        if column.name not in frame.names:
            raise UserError(
                f"'{frame.path}' has no column '{column.name}'.{nearest(column.name, frame.names)}",
                "Give a table with the columns that were trained on.",
            )
        index = frame.names.index(column.name)
        cells = frame.columns[index]
        if column.numeric:
            values = np.full(len(cells.values), np.nan)
            for code, text in enumerate(cells.values):
                try:
                    values[code] = column.read(text)
                except ValueError as error:
                    raise UserError(
                        f"'{frame.path}', {frame.where(index, code)}: '{text}' is no {column.kind}.",
                        "Mend or empty that cell.",
                    ) from error
            numbers.append(values[cells.codes])
            continue
        known = {*column.values, *column.rare}
        if not column.rare and (new := [v for v in cells.values if v not in known]):
            raise UserError(
                f"'{frame.path}', {frame.where(index, cells.values.index(new[0]))}: '{new[0]}' was not "
                "among the values that were trained on.",
                "Leave such rows out.",
            )
        codes.append(encode_categories(column, cells.values, cells.codes).astype(int))
    rows = len(frame)
    plain = Plain(
        np.stack(numbers, axis=1) if numbers else np.zeros((rows, 0)),
        np.stack(codes, axis=1) if codes else np.zeros((rows, 0), int),
    )
    return plain, _key(frame, spec)


def _whole_range(column: Column, found: Found) -> Column:
    """The column with the range of all rows, not only of those that modes were fitted to."""
    assert found.numbers is not None
    return dataclasses.replace(
        column, low=float(np.nanmin(found.numbers)), high=float(np.nanmax(found.numbers))
    )


def _key(frame: Frame, spec: TableSpec) -> str:
    """Of the cells and of what was made of them."""
    digest = hashlib.blake2b(digest_size=16)
    kinds = {column.name: (column.kind, column.places) for column in spec.columns}
    digest.update(json.dumps([frame.names, kinds]).encode())
    for cells in frame.columns:
        digest.update(json.dumps(cells.values).encode())
        digest.update(np.ascontiguousarray(cells.codes).tobytes())
    return digest.hexdigest()
