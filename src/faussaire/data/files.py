"""Sources of encoded pictures in files: a folder, a zip, a tar.

Archive members are read by name and never extracted, so a member called `../../etc/passwd` is only
an odd name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from faussaire.core.errors import UserError
from faussaire.data.decode import EXTENSIONS, MAX_BYTES, Fault
from faussaire.data.labels import apply_table, from_folders, from_table
from faussaire.data.source import Listing, Source, digest, file_token

_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


def is_hidden(name: str) -> bool:
    """Hidden, or left behind by an operating system."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in name.split("/"))


class NamedFiles(Source):
    """Pictures under names with folders; classes from folders, or from a table of labels."""

    labels: Path | None

    def __init__(self, path: Path, classes: str, labels: Path | None) -> None:
        super().__init__(str(path), classes)
        self.labels = labels
        self.root = path

    def _label(self, names: list[str]) -> list[str | None]:
        if self.classes == "none":
            return [None] * len(names)
        if self.classes == "folders":
            return from_folders(names, self.path, partial=self.partial)
        if self.labels is not None:
            labels, notes = apply_table(names, from_table(self.labels, self.classes), self.labels)
            self.notes += notes
            return labels
        if self.classes != "auto":
            raise UserError(
                f"classes='{self.classes}' names a column, but '{self.path}' has no table.",
                "Give labels=TABLE.csv, or classes=folders or none.",
            )
        folders = {name.split("/")[0] for name in names if "/" in name}
        if len(folders) > 1:
            self.notes.append(
                f"{len(folders)} sub-folders are read as one set; classes=folders makes them "
                "classes."
            )
        return [None] * len(names)

    def _keep(self, name: str) -> bool:
        """Whether a name is a picture's; counts what is passed over."""
        if is_hidden(name):
            self.skipped["hidden"] += 1
            return False
        extension = PurePosixPath(name).suffix.lower()
        if extension not in EXTENSIONS:
            self.skipped[extension or "no extension"] += 1
            return False
        return True

    def _label_stamp(self) -> str:
        return "" if self.labels is None else f"{self.labels} {file_token(self.labels)}"


class Folder(NamedFiles):
    """A folder of pictures, nested at will. Links are followed, each folder once."""

    kind = "folder"

    def __init__(self, path: Path, classes: str, labels: Path | None) -> None:
        found = path / "labels.csv"
        if labels is None and classes not in ("none", "folders") and found.is_file():
            labels = found
        super().__init__(path, classes, labels)

    @cached_property
    def _walk(self) -> list[tuple[str, str]]:
        """Sorted (name, token) of every picture. The one walk serves stamp and listing."""
        found: list[tuple[str, str]] = []
        seen: set[tuple[int, int]] = set()
        pending = [""]
        while pending:
            prefix = pending.pop()
            folder = self.root / prefix
            state = folder.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue  # a link back to a parent
            seen.add((state.st_dev, state.st_ino))
            try:
                entries = list(os.scandir(folder))
            except PermissionError:
                self.skipped["folder without permission to read"] += 1
                continue
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    if is_hidden(entry.name):
                        self.skipped["hidden"] += 1
                    else:
                        pending.append(name + "/")
                elif not entry.is_file() and not entry.is_symlink():
                    self.skipped["not a regular file"] += 1  # a named pipe would block its reader
                elif self._keep(name):
                    found.append((name, _entry_token(entry)))
        return sorted(found)

    def _list(self) -> Listing:
        names = [name for name, _ in self._walk]
        tokens = [token for _, token in self._walk]
        return Listing(names, self._label(names), tokens, [*names])

    def _stamp(self) -> Iterable[str]:
        lines = "\n".join(f"{name}\t{token}" for name, token in self._walk)
        return (lines, self._label_stamp())

    def _raw(self, place: str) -> bytes:
        return read_bytes(self.root / place)


def read_bytes(path: Path) -> bytes:
    """A picture file's bytes, or a `Fault` with the reason."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Fault("unreadable", "not a regular file")  # a named pipe would block for ever
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Fault("bomb", f"the file has {size:,} bytes, more than {MAX_BYTES:,}")
            return file.read()
    except OSError as error:
        raise Fault("unreadable", f"cannot be read ({error.strerror})") from error


def _entry_token(entry: os.DirEntry[str]) -> str:
    try:
        state = entry.stat()
    except OSError:
        return "missing"  # a link to nothing: listed, so that the scan names it
    return f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"


class Zip(NamedFiles):
    """A zip of pictures."""

    kind = "zip"

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        try:
            return self._open.enter_context(zipfile.ZipFile(self.root))
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"'{self.path}' is not a whole zip file ({error}).",
                "Download or pack it again.",
            ) from error

    def _list(self) -> Listing:
        # As a dictionary: where a name occurs twice, the later member replaces the earlier.
        by_name = {info.filename: info for info in self._file.infolist() if not info.is_dir()}
        names = sorted(filter(self._keep, by_name))
        members = [by_name[name] for name in names]
        tokens = [f"{info.file_size}-{info.CRC:08x}" for info in members]
        return Listing(names, self._label(names), tokens, members)

    def _stamp(self) -> Iterable[str]:
        return (file_token(self.root), self._label_stamp())

    def _raw(self, place: zipfile.ZipInfo) -> bytes:
        if place.file_size > MAX_BYTES:
            raise Fault("bomb", f"unpacks to {place.file_size:,} bytes; it was not unpacked")
        try:
            return self._file.read(place)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Fault("truncated", f"the zip member is damaged ({error})") from error
        except (RuntimeError, NotImplementedError, OSError) as error:
            raise Fault("unreadable", f"the zip member cannot be read ({error})") from error


class Tar(NamedFiles):
    """A tar of pictures, compressed or not.

    A compressed tar is unpacked once to a nameless temporary file, because it cannot be read in
    any other order than its own.
    """

    kind = "tar"

    @cached_property
    def _file(self) -> BinaryIO:
        try:
            with tarfile.open(self.root, "r:"):
                pass
            return self._open.enter_context(self.root.open("rb"))
        except tarfile.ReadError:
            return self._unpacked()

    def _unpacked(self) -> BinaryIO:
        temporary = cast(BinaryIO, self._open.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
        try:
            with _opener(self.root) as packed:
                shutil.copyfileobj(packed, temporary, 1 << 20)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise UserError(
                f"'{self.path}' cannot be unpacked ({error}).",
                "Download or pack it again, and check that the temporary folder has space.",
            ) from error
        temporary.seek(0)
        return temporary

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    def _list(self) -> Listing:
        try:
            self._file.seek(0)
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                # Names in tars are often written as './a.png'; a later member replaces an earlier.
                by_name = {str(PurePosixPath(m.name)): m for m in archive if m.isfile()}
        except tarfile.TarError as error:
            raise UserError(
                f"'{self.path}' is not a whole tar file ({error}).", "Download or pack it again."
            ) from error
        names = sorted(filter(self._keep, by_name))
        places = [(by_name[name].offset_data, by_name[name].size) for name in names]
        token = digest(file_token(self.root))
        tokens = [f"{token}-{offset}-{size}" for offset, size in places]
        return Listing(names, self._label(names), tokens, places)

    def _stamp(self) -> Iterable[str]:
        return (file_token(self.root), self._label_stamp())

    def _raw(self, place: tuple[int, int]) -> bytes:
        offset, size = place
        if size > MAX_BYTES:
            raise Fault("bomb", f"the tar member has {size:,} bytes, more than {MAX_BYTES:,}")
        with self._lock:
            self._file.seek(offset)
            raw = self._file.read(size)
        if len(raw) < size:
            raise Fault("truncated", f"the tar ends after {len(raw):,} of {size:,} bytes")
        return raw


def _opener(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if magic.startswith(b"BZh"):
        return cast(BinaryIO, bz2.open(path, "rb"))
    if magic.startswith(b"\xfd7zXZ"):
        return cast(BinaryIO, lzma.open(path, "rb"))
    raise OSError("neither a tar nor a compressed tar")
