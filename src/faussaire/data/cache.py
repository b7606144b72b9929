"""The cache folder: where it is, and how things get into it whole or not at all.

Everything is written to a hidden sibling and renamed, so a reader sees the old state or the new
one, whatever is killed when. A lock is held while a pack is built; the operating system drops it
with its process, so whoever gets a lock knows that what lies under its name is dead.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from faussaire.core.errors import UserError
from faussaire.core.files import flush_folder
from faussaire.data.parallel import Progress

SLACK = 16 << 20
"""Bytes to leave free, for the labels, names and whatever else the machine writes meanwhile."""


def cache_dir() -> Path:
    """`FAUSSAIRE_CACHE`, else the user's cache folder of this platform. Not created here."""
    chosen = os.environ.get("FAUSSAIRE_CACHE", "")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("faussaire"))


def writable(folder: Path) -> Path:
    """Create a folder of the cache and prove that it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(folder, SLACK) from error
        raise not_writable(folder, error) from error
    return folder


def not_writable(folder: Path, error: OSError) -> UserError:
    """What to say of a cache that is read-only, missing or broken."""
    return UserError(
        f"The cache folder '{folder}' cannot be written ({error.strerror or error}).",
        "Set the environment variable FAUSSAIRE_CACHE to a folder that can.",
    )


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder that may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def need_space(folder: Path, needed: int) -> None:
    """Raise before the work begins if the disk cannot hold its result."""
    if free_bytes(folder) < needed + SLACK:
        raise no_space(folder, needed)


def no_space(folder: Path, needed: int) -> UserError:
    """What to say when the disk is, or would be, full."""
    return UserError(
        f"The packed data need {needed:,} bytes, and the disk of the cache folder '{folder}' "
        f"has {free_bytes(folder):,} bytes free.",
        "Free some space, lower the resolution, or set FAUSSAIRE_CACHE to a larger disk.",
    )


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from the cache; None if it is absent or damaged, as if never written."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def remember(path: Path, data: bytes) -> bool:
    """Write a small file that only saves time. False where the cache cannot be written:

    nothing is lost but that time, and whatever must be written says so itself.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock at `path`, saying so where another process has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        if progress is not None:
            progress("waiting for another process that packs the same pictures", 0, 0)
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_folder(path: Path, needed: int) -> Iterator[Path]:
    """Fill a temporary folder that becomes `path` when the block ends well. Hold its lock.

    Args:
        path: the folder to make; one that is there already is damaged, and is replaced.
        needed: bytes that will be written, for the words when the disk fills.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            # Windows flushes only what is open for writing.
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())
        flush_folder(temporary)
        if path.exists():
            path.replace(path.with_name(f"{temporary.name}-damaged"))
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(temporary, ignore_errors=True)  # first, so that the figure is true
            raise no_space(path.parent, needed) from error
        raise not_writable(path.parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(path.with_name(f"{temporary.name}-damaged"), ignore_errors=True)


def sweep(folder: Path, held: str) -> None:
    """Remove what killed processes left: temporaries under the held key, or whose lock is free."""
    for leftover in folder.glob(".tmp-*"):
        key = leftover.name.removeprefix(".tmp-").split("-")[0]
        if key == held:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        lock = FileLock(folder / f"{key}.lock")
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)
        except Timeout:
            continue  # its builder is alive


def npz_bytes(**arrays: Any) -> bytes:
    """Named arrays -> the bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
