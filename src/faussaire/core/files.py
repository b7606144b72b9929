"""Writing files so that a crash or a full disk leaves the old or the new content, never half of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from faussaire.core.errors import UserError
from faussaire.core.quantity import format_bytes


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a small file so that readers see the old or the new content, never half of it.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_flushed(temporary, content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be no folder
            temporary.unlink(missing_ok=True)
        raise write_error(error, path.parent, f"'{path.name}' could not be written") from error


def require_folder(path: Path) -> None:
    """Make a folder, and prove that it can be written, before the work whose results go there.

    Raises:
        UserError: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path.parent, f"'{path.name}' could not be made") from error
    probe = path / ".probe"
    replace_file(probe, "")
    probe.unlink()


def end_last_line(file: BinaryIO) -> None:
    """End a line that a killed process left half written, so that what is appended stays whole.

    Args:
        file: open for reading and appending, unbuffered.
    """
    if file.seek(0, os.SEEK_END) > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def write_error(error: OSError, folder: Path, what: str) -> UserError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = format_bytes(shutil.disk_usage(_existing(folder)).free)
        return UserError(
            f"{what}: the disk that holds '{folder}' is full ({free} free).",
            "What was saved before is intact. Free some space, then run `faussaire resume RUN`.",
        )
    return UserError(
        f"{what} in '{folder}': {error.strerror or error}.",
        "Check that the folder exists and that you may write there.",
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.resolve().parents) if folder.exists())


def write_flushed(path: Path, content: bytes) -> str:
    """Write and flush; returns the SHA-256 of the content."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def flush_folder(path: Path) -> None:
    """Make a rename in `path` durable; some systems cannot open folders and need not."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
