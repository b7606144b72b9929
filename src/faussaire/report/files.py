"""Files that an encoder writes, and that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faussaire.core.files import write_error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` if the block succeeds.

    The temporary name keeps the ending, by which encoders choose a format.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise write_error(error, path.parent, f"'{path.name}' could not be written") from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be no folder
            temporary.unlink(missing_ok=True)
