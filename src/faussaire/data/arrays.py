"""Sources that are arrays already: `.npy`, `.npz`, MNIST's IDX, and the built-in digits."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from faussaire.core.errors import UserError
from faussaire.data.source import Listing, Source, file_token

_PICTURE_KEYS = ("x", "images", "data", "arr_0")
_LABEL_KEYS = ("y", "labels", "label", "targets", "arr_1")


NO_LABEL = ("-1", "")
"""How arrays write that a picture has no label, where that may be."""


class Pictures(Source):
    """An array of pictures of one size; the pixels are read when first needed."""

    def __init__(self, path: str, classes: str, labels: Path | None = None) -> None:
        super().__init__(path, classes)
        if classes not in ("auto", "none"):
            raise UserError(
                f"classes='{classes}' does not apply to '{path}', which has no folders or columns.",
                "Give classes=auto or none; classes of an array come from its own labels.",
            )
        self.labels = labels

    @abstractmethod
    def _count(self) -> int:
        """Number of pictures, from the header alone."""

    @abstractmethod
    def _load(self) -> np.ndarray:
        """The array as stored."""

    def _own_labels(self) -> np.ndarray | None:
        return None

    def _list(self) -> Listing:
        count = self._count()
        if count == 0:
            raise UserError(f"'{self.path}' holds no pictures.", "Give an array with some.")
        values = None
        if self.classes != "none":
            values = self._own_labels() if self.labels is None else label_file(self.labels)
        labels: list[str | None] = [None] * count
        if values is not None:
            labels = [*label_names(values, count, self.path)]
        if self.partial:
            labels = [None if label in NO_LABEL else label for label in labels]
        width = len(str(count - 1))
        names = [f"{i:0{width}d}" for i in range(count)]
        return Listing(names, labels, [self._token] * count, list(range(count)))

    @property
    def _token(self) -> str:
        return file_token(Path(self.path))

    def _stamp(self) -> Iterable[str]:
        return (self._token, "" if self.labels is None else file_token(self.labels))

    @cached_property
    def _stored(self) -> tuple[np.ndarray, str]:
        """The array as (N, H, W, C), still in its own type, and how its values are read."""
        array = as_nhwc(self._load(), self.path)
        reading = value_range(array, self.path)
        if array.dtype != np.uint8:
            self.notes.append(f"Values are {array.dtype} in {reading}, read as 0..255.")
        return array, reading

    def block(self, start: int, stop: int) -> np.ndarray:
        """Pictures start..stop-1 as uint8 (n, H, W, C)."""
        array, reading = self._stored
        return to_uint8(array[start:stop], reading)

    def _raw(self, place: int) -> np.ndarray:
        return self.block(place, place + 1)[0]


def as_nhwc(array: np.ndarray, path: str) -> np.ndarray:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) -> a view (N, H, W, C) with C in 1, 3, 4."""
    shape = array.shape
    if array.ndim == 3 and min(shape[1:]) > 4:
        return array[..., None]
    if array.ndim == 4 and shape[3] in (1, 3, 4):
        return array
    if array.ndim == 4 and shape[1] in (1, 3, 4):
        return array.transpose(0, 2, 3, 1)
    raise UserError(
        f"'{path}' has shape {shape}, which is not a stack of pictures.",
        "Give (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4.",
    )


def value_range(array: np.ndarray, path: str) -> str:
    """How the values become 0..255: "0..255", "0..1" or "-1..1"; anything else is an error."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return "0..255"
    if kind == "b":
        return "0..1"
    if kind not in "iuf":
        raise UserError(
            f"'{path}' holds values of type {array.dtype}, which are not pixels.",
            "Give uint8, or float in 0..1 or -1..1.",
        )
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"'{path}' holds NaN or infinite values.", "Remove those pictures.")
    if kind == "f" and low >= 0 and high <= 1:
        return "0..1"
    if kind == "f" and low >= -1 and high <= 1:
        return "-1..1"
    if low >= 0 and high <= 255:
        return "0..255"
    raise UserError(
        f"'{path}' holds {array.dtype} values in {low:g}..{high:g}.",
        "Give uint8, or float in 0..1 or -1..1.",
    )


def to_uint8(array: np.ndarray, reading: str) -> np.ndarray:
    """Values read by `value_range` -> contiguous uint8."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    values = array.astype(np.float32)
    if reading == "0..1":
        values *= 255.0
    elif reading == "-1..1":
        values = values * 127.5 + 127.5
    return np.ascontiguousarray(np.rint(values).astype(np.uint8))


def label_names(values: np.ndarray, count: int, path: object) -> list[str]:
    """(N,) or (N, 1) whole numbers or text -> N class names."""
    flat = values.reshape(-1) if values.size == len(values) else values
    if flat.shape != (count,):
        raise UserError(
            f"'{path}' has {count} pictures but labels of shape {values.shape}.",
            "Give one label a picture, or classes=none.",
        )
    if flat.dtype.kind not in "iubUS" and not (flat.dtype.kind == "f" and (flat % 1 == 0).all()):
        raise UserError(
            f"The labels of '{path}' are {flat.dtype} values, not classes.",
            "Give whole numbers or text, or classes=none.",
        )
    if flat.dtype.kind in "bf":
        flat = flat.astype(np.int64)
    return [v.decode() if isinstance(v, bytes) else str(v) for v in flat.tolist()]


def label_file(path: Path) -> np.ndarray:
    """Labels of an array in a file of their own: `.npy` or IDX."""
    return _npy(path) if path.suffix == ".npy" else read_idx(path)


class Npy(Pictures):
    """One array, memory-mapped, so that it may be larger than memory."""

    kind = "npy"

    @cached_property
    def _array(self) -> np.ndarray:
        return _npy(Path(self.path))

    def _count(self) -> int:
        return len(self._array) if self._array.ndim else 0

    def _load(self) -> np.ndarray:
        return self._array


def _npy(path: Path) -> np.ndarray:
    """Memory-mapped, and never through pickle, which can run code."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _bad_array(path, error) from error


def _bad_array(path: object, error: Exception) -> UserError:
    return UserError(
        f"'{path}' cannot be read as an array ({error}).",
        "Save a plain numeric array with numpy.save or numpy.savez; pickled objects are refused.",
    )


class Npz(Pictures):
    """Arrays x (or images) and, if there are labels, y (or labels)."""

    kind = "npz"

    def _read(self, keys: tuple[str, ...]) -> np.ndarray | None:
        try:
            # Opened here, because `np.load` leaves a damaged file open.
            with (
                Path(self.path).open("rb") as file,
                closing(np.load(file, allow_pickle=False)) as archive,
            ):
                found = next((key for key in keys if key in archive.files), None)
                if found is None and keys is _PICTURE_KEYS:
                    raise UserError(
                        f"'{self.path}' holds no array called x or images; it holds "
                        f"{', '.join(archive.files) or 'nothing'}.",
                        "Save the pictures as x=... and the labels as y=...",
                    )
                return None if found is None else archive[found]
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise _bad_array(self.path, error) from error

    @cached_property
    def _array(self) -> np.ndarray:
        return cast(np.ndarray, self._read(_PICTURE_KEYS))

    def _count(self) -> int:
        return len(self._array) if self._array.ndim else 0

    def _load(self) -> np.ndarray:
        return self._array

    def _own_labels(self) -> np.ndarray | None:
        return self._read(_LABEL_KEYS)


class Idx(Pictures):
    """MNIST's format; `train-images-idx3-ubyte.gz` finds `train-labels-idx1-ubyte.gz` beside it."""

    kind = "idx"

    def __init__(self, path: str, classes: str, labels: Path | None = None) -> None:
        super().__init__(path, classes, labels or idx_sibling(Path(path)))

    def _count(self) -> int:
        shape = read_idx_shape(Path(self.path))
        if len(shape) not in (3, 4):
            raise UserError(
                f"'{self.path}' holds values of shape {shape}, not pictures.",
                "Give the images file, such as train-images-idx3-ubyte.gz.",
            )
        return shape[0]

    def _load(self) -> np.ndarray:
        return read_idx(Path(self.path))


def idx_sibling(images: Path) -> Path | None:
    """The labels that belong to an IDX images file, if they lie beside it."""
    name = images.name
    if "images" not in name:
        return None
    bare = name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    found = (images.with_name(bare + end) for end in (".gz", ""))
    return next((path for path in found if path.is_file()), None)


def is_idx(path: Path) -> bool:
    """By name (`-idx3-ubyte`, `.idx3-ubyte`, either gzipped) or, without suffix, by its magic."""
    if "idx" in path.name and path.name.removesuffix(".gz").endswith("ubyte"):
        return True
    if path.suffix not in ("", ".idx"):
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"\0\0\x08\x03", b"\0\0\x08\x04")


def _open_idx(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def _idx_shape(file: BinaryIO, path: Path) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
        raise UserError(
            f"'{path}' is not an IDX file of bytes (it begins with {magic.hex(' ')}).",
            "An IDX file of pictures begins with 00 00 08 03.",
        )
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise _short_idx(path)
    return tuple(int(n) for n in np.frombuffer(sizes, ">u4"))


def _short_idx(path: Path, detail: object = "it ends too early") -> UserError:
    return UserError(f"'{path}' is cut short or damaged ({detail}).", "Download it again.")


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """The shape in an IDX file's header; reads a few bytes."""
    try:
        with _open_idx(path) as file:
            return _idx_shape(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise _short_idx(path, error) from error


def read_idx(path: Path) -> np.ndarray:
    """A whole IDX file of bytes. Reads what the header declares, never more."""
    try:
        with _open_idx(path) as file:
            shape = _idx_shape(file, path)
            data = file.read(math.prod(shape))
            file.read(1)  # lets gzip see its checksum
    except (OSError, EOFError, zlib.error) as error:
        raise _short_idx(path, error) from error
    if len(data) < math.prod(shape):
        raise _short_idx(path, f"{len(data):,} of {math.prod(shape):,} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape)


class Digits(Pictures):
    """1,797 handwritten digits of 8x8 (UCI's optical recognition set), from scikit-learn."""

    kind = "digits"

    @cached_property
    def _bunch(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as error:
            raise UserError(
                "The built-in pictures 'digits' need scikit-learn, which is not installed.",
                "Run: pip install 'faussaire[demo]'",
            ) from error
        pixels, labels = load_digits(return_X_y=True)
        scaled = np.rint(np.asarray(pixels) * (255.0 / 16.0)).astype(np.uint8)  # stored as 0..16
        return scaled.reshape(-1, 8, 8), np.asarray(labels)

    def _count(self) -> int:
        return len(self._bunch[0])

    def _load(self) -> np.ndarray:
        return self._bunch[0]

    def _own_labels(self) -> np.ndarray:
        return self._bunch[1]

    @property
    def _token(self) -> str:
        return "uci-optdigits-1797"
