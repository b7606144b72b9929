"""Many files of different lengths -> one memory-mapped array, and windows of equal length into it.

For what is read along time: music, sound. A source is read once; from then on an example is a slice.

```
<cache>/pieces/<stamp>/values.bin   all pieces one after the other
                       meta.json    where each begins, names, labels, what was left out and why
```
The stamp says which files, of which sizes and times, were read with which options: a source that was not
touched is not read again. The key, which runs remember, is a hash of the contents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.errors import UserError
from faussaire.data.cache import (
    cache_dir,
    locked,
    need_space,
    new_folder,
    read_json,
    sweep,
    writable,
)
from faussaire.data.parallel import Progress
from faussaire.data.source import digest, file_token
from faussaire.data.stream import Stream

_FORMAT = 1
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


class Unusable(Exception):
    """A file that cannot be used; the message says why, without its name."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one file (or one part of it) holds.

    Attributes:
        name: unique within the source.
        values: along time, (T, ...), T > 0; all pieces are of one type and one shape behind T.
        label: its class, or None.
    """

    name: str
    values: np.ndarray
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A source as it was read.

    Attributes:
        pieces: in order; gone through once.
        facts: of the whole, as JSON has them.
        left_out: what cannot be used: [{"name", "reason"}].
    """

    pieces: Iterable[Piece]
    facts: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Packed pieces.

    Attributes:
        values: all of them along time, (T, ...), read-only and memory-mapped.
        starts: where each piece begins, and where the last ends, (K + 1,) int64.
        names: of the pieces.
        labels: their classes; None each where there are none.
        facts: of the whole.
        left_out: [{"name", "reason"}].
        key: of all of that.
    """

    values: np.ndarray
    starts: np.ndarray
    names: list[str]
    labels: list[str | None]
    facts: dict[str, Any]
    left_out: list[dict[str, str]]
    key: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> np.ndarray:
        """(K,) int64."""
        return np.diff(self.starts)

    def missed(self) -> str:
        """How many files were left out, to end a line with; empty where none was."""
        return f", {len(self.left_out):,} left out" if self.left_out else ""


def find_files(source: str, extensions: Sequence[str], what: str) -> list[tuple[str, Path]]:
    """The files of these kinds in a folder, nested at will, sorted; or the one file that is named.

    Args:
        source: a folder or a file.
        extensions: `.mid`, in small letters.
        what: in sentences: `MIDI files`.

    Returns:
        (name within the source, path) of each.

    Raises:
        UserError: no such place, or nothing there.
    """
    root = Path(source).expanduser()
    if root.is_file():
        if root.suffix.lower() not in extensions:
            raise UserError(
                f"'{source}' is none of the {what} that can be read ({', '.join(extensions)}).",
                "Give a folder, or a file of these kinds.",
            )
        return [(root.name, root)]
    if not root.is_dir():
        raise UserError(f"There is no '{source}'.", f"Give a folder of {what}.")
    found, others = [], 0
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        parts = name.split("/")
        if any(part.startswith(".") or part.lower() in _LITTER for part in parts):
            continue
        if not path.is_file():
            continue
        if path.suffix.lower() in extensions:
            found.append((name, path))
        else:
            others += 1
    if not found:
        there = f"only {others:,} files of other kinds" if others else "no files at all"
        raise UserError(
            f"The folder '{source}' has no {what} ({', '.join(extensions)}): {there}.",
            f"Give a folder of {what}.",
        )
    return found


def stamp_of(files: Sequence[tuple[str, Path]], *options: str) -> str:
    """Changes when a file may have changed, or an option has; reads no contents."""
    tokens = (f"{path.absolute()} {file_token(path)}" for _, path in files)
    return digest(str(_FORMAT), *options, *tokens)


def pack_pieces(
    stamp: str,
    read: Callable[[], Contents],
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Packed:
    """Pack what `read` gives, or find it packed.

    Args:
        stamp: see `stamp_of`.
        read: reads the source; it may raise UserError.
        progress: called as progress(what, done, total).
        cache: the cache folder; None: the usual one.

    Raises:
        UserError: as `read`; the disk is full, or the cache cannot be written.
    """
    folder = (cache or cache_dir()) / "pieces" / stamp
    found = _load(folder)
    if found is not None:
        return found
    writable(folder.parent)
    with locked(folder.parent / f"{stamp}.lock", progress):
        found = _load(folder)  # another process may have built it meanwhile
        if found is None:
            sweep(folder.parent, stamp)
            _build(folder, read())
            found = _load(folder)
    if found is None:
        raise UserError(
            f"The pack '{folder}' was written but cannot be read back.",
            "Check the disk, or set FAUSSAIRE_CACHE to another folder.",
        )
    return found


def _build(folder: Path, contents: Contents) -> None:
    """Write a pack; hold its lock."""
    state = hashlib.blake2b(digest_size=16)
    names: list[str] = []
    labels: list[str | None] = []
    starts = [0]
    form: tuple[str, list[int]] | None = None
    with new_folder(folder, 0) as temporary:
        # Written as a plain file: on a full disk a memory map would die of SIGBUS, not raise.
        with (temporary / "values.bin").open("wb") as file:
            for piece in contents.pieces:
                values = np.ascontiguousarray(piece.values)
                own = (values.dtype.str, list(values.shape[1:]))
                form = form or own
                if form != own or not len(values):
                    raise ValueError(f"piece {piece.name} is {own} of {len(values)}, not {form}")
                if not len(names) % 64:
                    need_space(folder.parent, values.nbytes)
                data = values.tobytes()
                state.update(data)
                file.write(data)
                names.append(piece.name)
                labels.append(piece.label)
                starts.append(starts[-1] + len(values))
        if form is None:
            raise ValueError("a source without pieces; whoever reads it says so")
        meta = {
            "format": _FORMAT,
            "dtype": form[0],
            "shape": [starts[-1], *form[1]],
            "starts": starts,
            "names": names,
            "labels": labels,
            "facts": dict(contents.facts),
            "left_out": [dict(one) for one in contents.left_out],
        }
        text = json.dumps(meta)
        state.update(text.encode())
        (temporary / "meta.json").write_text(
            json.dumps({**meta, "key": state.hexdigest()}), encoding="ascii"
        )


def _load(folder: Path) -> Packed | None:
    """Open a pack; None if it is absent or damaged."""
    meta = read_json(folder / "meta.json")
    if meta is None or meta.get("format") != _FORMAT:
        return None
    try:
        dtype, shape = np.dtype(meta["dtype"]), tuple(meta["shape"])
        file = folder / "values.bin"
        if file.stat().st_size != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            return None
        return Packed(
            values=np.memmap(file, dtype, mode="r", shape=shape),
            starts=np.array(meta["starts"], np.int64),
            names=meta["names"],
            labels=meta["labels"],
            facts=meta["facts"],
            left_out=meta["left_out"],
            key=meta["key"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Windows:
    """Windows of equal length into packed values, as if they were one array (N, *shape).

    Args:
        values: along time, (T, ...).
        begins, ends: (N,) int64: where each begins, and where what it may show ends. A window that
            reaches further has zeros there.
        length: of each, along time.
        shape: of an example; None: (length, ...) as the values have it.
    """

    def __init__(
        self,
        values: np.ndarray,
        begins: np.ndarray,
        ends: np.ndarray,
        length: int,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self._values = np.asarray(values)  # a plain view: indexing memmaps costs Python code
        self._begins, self._ends = begins, np.minimum(ends, begins + length)
        self._length = length
        self._shape = shape or (length, *values.shape[1:])

    def __len__(self) -> int:
        return len(self._begins)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return len(self), *self._shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(K, ...) of these rows, (K,) int64, as a new array."""
        out = np.zeros((len(rows), self._length, *self._values.shape[1:]), self._values.dtype)
        begins, ends = self._begins[rows].tolist(), self._ends[rows].tolist()
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            out[row, : end - begin] = self._values[begin:end]
        return out.reshape(len(rows), *self._shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """One example for a number, several for an array of numbers or a slice."""
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        if np.ndim(rows) == 0:
            return self.take(np.array([rows]))[0]
        return self.take(np.asarray(rows))


class WindowStream:
    """The endless stream of windows and their labels: `Stream`'s order of rows, read here.

    Args:
        fields: windows, or arrays of as many rows, by name.
        rows: those that are drawn, (K,) int64.
        seed: of the order.
        rank, world: this process and their number.
    """

    def __init__(
        self,
        fields: Mapping[str, Windows | np.ndarray],
        *,
        rows: np.ndarray,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._fields = fields
        self._order = Stream([{"rows": rows}], seed=seed, rank=rank, world=world)

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        """This rank's share of examples position..position+count-1, as new arrays."""
        rows = self._order.read(position, count)["rows"]
        return {name: field[rows] for name, field in self._fields.items()}


def told_left_out(left_out: Sequence[Mapping[str, str]], what: str) -> list[str]:
    """A sentence on what was left out, naming the first few; none where nothing was.

    Args:
        left_out: [{"name", "reason"}].
        what: `files`.
    """
    if not left_out:
        return []
    first = "; ".join(f"'{one['name']}' {one['reason']}" for one in left_out[:3])
    more = f"; and {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
    return [f"{len(left_out):,} {what} are left out: {first}{more}."]


def nothing_usable(source: str, left_out: Sequence[Mapping[str, str]], what: str) -> UserError:
    """What to say where every file was left out."""
    first = left_out[0]
    if len(left_out) == 1:
        cause = f"'{first['name']}' in '{source}' {first['reason']}, and there is nothing else."
    else:
        cause = (
            f"None of the {len(left_out):,} {what} of '{source}' can be used: '{first['name']}' "
            f"{first['reason']}."
        )
    return UserError(cause, "Mend it, or give another source.")
