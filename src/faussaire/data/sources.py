"""`open_source`: whatever the user points at becomes one kind of `Source`."""

from __future__ import annotations

import difflib
from pathlib import Path

from faussaire.core.errors import UserError
from faussaire.data.arrays import Digits, Idx, Npy, Npz, is_idx
from faussaire.data.decode import EXTENSIONS
from faussaire.data.files import Folder, Tar, Zip, is_hidden
from faussaire.data.labels import AUTO
from faussaire.data.source import Item, Source
from faussaire.data.tables import Csv, Hub, Parquet

__all__ = ["Item", "Source", "open_source"]

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_source(
    source: str | Path,
    *,
    classes: str = "auto",
    labels: str | Path | None = None,
    partial: bool = False,
) -> Source:
    """Open a set of pictures.

    Args:
        source: a folder, a zip or tar, an `.npy`, `.npz`, IDX, CSV or parquet file,
            `hf:owner/name[:split]`, or the built-in `digits`.
        classes: "auto" takes the labels that the source states (a `labels.csv`, a label column,
            the labels of an array), "folders" makes sub-folders classes, "none" wants none, and
            any other word is the name of a column in the table.
        labels: a CSV (file, label) for a folder or archive; an `.npy` or IDX file for an array.
        partial: keep pictures without a label beside those with one.

    Raises:
        UserError: if there is nothing at `source`, or it is none of these.
    """
    text = str(source)
    if text.startswith("hf:"):
        _no_labels(labels, text)
        return _partly(Hub(text, classes), partial)
    path = Path(text).expanduser()
    if text == "digits" and not path.exists():
        _no_labels(labels, text)
        return _partly(Digits(text, classes), partial)
    if not path.exists():
        raise missing(path)
    table = None if labels is None else Path(labels).expanduser()
    if table is not None and not table.is_file():
        raise missing(table)
    if table is not None and classes in ("folders", "none"):
        raise UserError(
            f"labels='{table}' and classes={classes} contradict each other.",
            "Give one of them; or classes=COLUMN to choose a column of the table.",
        )
    opened = Folder(path, classes, table) if path.is_dir() else _open(path, classes, table)
    _partly(opened, partial)
    if isinstance(opened, Folder):
        _require_pictures(opened, path)
    if len(classes) == 0:
        raise UserError("classes is empty.", f"Give one of {', '.join(AUTO)}, or a column's name.")
    return opened


def _partly(source: Source, partial: bool) -> Source:
    source.partial = partial
    return source


def _open(path: Path, classes: str, labels: Path | None) -> Source:
    name = path.name.lower()
    if name.endswith(".zip"):
        return Zip(path, classes, labels)
    if name.endswith(_TARS):
        return Tar(path, classes, labels)
    if name.endswith(".npy"):
        return Npy(str(path), classes, labels)
    if name.endswith(".npz"):
        return Npz(str(path), classes, labels)
    if name.endswith((".csv", ".tsv")):
        _no_labels(labels, path)
        return Csv(str(path), classes)
    if name.endswith(".parquet"):
        _no_labels(labels, path)
        return Parquet(str(path), classes)
    if is_idx(path):
        return Idx(str(path), classes, labels)
    if path.suffix.lower() in EXTENSIONS:
        raise UserError(
            f"'{path}' is one picture, and a set of pictures is needed.",
            f"Give its folder: '{path.parent}'.",
        )
    raise UserError(
        f"'{path}' is not a set of pictures that can be read.",
        "Give a folder, .zip, .tar, .npy, .npz, IDX, .csv or .parquet file.",
    )


def _require_pictures(folder: Folder, path: Path) -> None:
    if len(folder) == 0:
        raise UserError(f"'{path}' holds no pictures{_what_else(folder)}.", _hint(path))


def _what_else(folder: Folder) -> str:
    if not folder.skipped:
        return "; it is empty"
    seen = ", ".join(f"{count} {reason}" for reason, count in folder.skipped.most_common(4))
    return f" (passed over: {seen})"


def _hint(path: Path) -> str:
    """A folder without pictures often holds the file that was meant."""
    ends = (".zip", ".npz", ".npy", ".parquet", *_TARS)
    for child in sorted(path.iterdir(), key=lambda c: ("train" not in c.name, c.name)):
        if child.is_file() and not is_hidden(child.name):
            images = "images" in child.name and is_idx(child)
            if images or child.name.lower().endswith(ends):
                return f"Did you mean '{child}'?"
    return "Give a folder with PNG, JPEG or WebP files."


def missing(path: Path) -> UserError:
    """What to say of a path that leads nowhere: the nearest name in the last folder that exists."""
    parent, child = path.absolute().parent, path.name
    while not parent.is_dir():
        parent, child = parent.parent, parent.name
    close = difflib.get_close_matches(child, [p.name for p in parent.iterdir()], n=1, cutoff=0.5)
    hint = f"Did you mean '{parent / close[0]}'?" if close else f"Nothing like it is in '{parent}'."
    return UserError(f"There is nothing at '{path}'.", hint)


def _no_labels(labels: str | Path | None, source: object) -> None:
    if labels is not None:
        raise UserError(
            f"labels='{labels}' does not apply to '{source}', which has labels of its own.",
            "Leave it out; classes=COLUMN chooses a column.",
        )
