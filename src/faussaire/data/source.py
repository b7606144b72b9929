"""What every source of pictures is: a sized sequence of items, and a cheap stamp."""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from faussaire.data.decode import decode, decoding


def digest(*parts: bytes | str) -> str:
    """128-bit BLAKE2b in hex over length-prefixed parts: ("ab", "c") differs from ("a", "bc")."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def content_digest(raw: bytes | np.ndarray) -> str:
    """The content hash of an item: its encoded bytes, or its pixels with their shape."""
    if isinstance(raw, bytes):
        return digest(raw)
    pixels = np.ascontiguousarray(raw)
    return digest(repr(pixels.shape), pixels.tobytes())


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a source.

    Args:
        name: unique within the source and stable when the source moves.
        label: its class, or None.
        token: changes when the item may have changed; cheap, no reading.
        raw: reads the encoded bytes, or the pixels as uint8 (H, W, C). Raises `Fault`; call it
            inside `decoding()`, because pixels may be cut from a picture.
    """

    name: str
    label: str | None
    token: str
    raw: Callable[[], bytes | np.ndarray]

    def read(self) -> Image.Image | np.ndarray:
        """The upright picture in mode L, RGB or RGBA, or an array of uint8 (H, W, C)."""
        with decoding():
            raw = self.raw()
            return raw if isinstance(raw, np.ndarray) else decode(raw).image

    def digest(self) -> str:
        """Hash of the content, whatever the name."""
        with decoding():
            return content_digest(self.raw())


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds, without any pixel: four equally long columns.

    Args:
        names, labels, tokens: as in `Item`.
        places: where a source finds each item; its own business (a path, an offset, a row).
    """

    names: list[str]
    labels: list[str | None]
    tokens: list[str]
    places: list[Any]


class Closing:
    """What is closed at the end of a `with` block."""

    __slots__ = ()

    def close(self) -> None:
        """Close files that are open."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Source(Closing, ABC):
    """A sized sequence of `Item`; list and pixels are read only when asked for.

    Attributes:
        kind: folder, zip, tar, npy, npz, idx, csv, parquet, hf or digits.
        path: as the user gave it.
        classes: "auto", "folders", "none" or the name of a column.
        notes: remarks for the user, as sentences (filled by `listing`).
        skipped: what was passed over and how often, by reason or extension.
        complete: its rows were chosen one by one, to stay aligned with others, so that `pack` must
            not leave any of them out.
        partial: pictures without a label are wanted beside those with one. To be set before anything is
            asked of it.
    """

    kind: str
    complete: bool = False
    partial: bool = False

    def __init__(self, path: str, classes: str) -> None:
        self.path = path
        self.classes = classes
        self.notes: list[str] = []
        self.skipped: Counter[str] = Counter()
        # Open archives close with the source, or when it is collected: never by an interpreter's
        # ResourceWarning.
        self._open = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, self._open.close)

    @abstractmethod
    def _list(self) -> Listing: ...

    @abstractmethod
    def _raw(self, place: Any) -> bytes | np.ndarray: ...

    @abstractmethod
    def _stamp(self) -> Iterable[str]:
        """Names, sizes and times of whatever the source reads; no contents."""

    @cached_property
    def listing(self) -> Listing:
        """What the source holds; found once."""
        return self._list()

    @property
    def identity(self) -> str:
        """The same for the same place on this machine: where remembered scans are filed."""
        return digest(self.kind, _absolute(self.path))

    @property
    def scanned_as(self) -> tuple[str, ...]:
        """Identities under which scans of these very items may be remembered besides its own."""
        return ()

    def stamp(self) -> str:
        """Changes when anything in the source may have changed, or its labels."""
        how = ("partial",) if self.partial else ()
        return digest(self.identity, self.classes, *how, *self._stamp())

    def block(self, start: int, stop: int) -> np.ndarray | None:
        """Items start..stop-1 as uint8 (n, H, W, C) if they lie in one array, else None."""
        del start, stop
        return None

    def __len__(self) -> int:
        return len(self.listing.names)

    def __getitem__(self, index: int) -> Item:
        rows = self.listing
        place = rows.places[index]
        return Item(
            rows.names[index], rows.labels[index], rows.tokens[index], lambda: self._raw(place)
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))

    def close(self) -> None:
        self._finalizer()


def file_token(path: Path) -> str:
    """Size and times of a file; the change time catches edits that restore the other two."""
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"


def _absolute(path: str) -> str:
    return path if path == "digits" or path.startswith("hf:") else str(Path(path).absolute())
