"""Which kind of data lies at a source: for commands that are told nothing else, no family either.

Told by the endings of files, and of a table by its columns. Whoever trains names a family, which
knows what it reads (`Family.modality`); here a guess is enough, and pictures are the last one.
"""

from __future__ import annotations

import csv
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from faussaire.advice import OTHERS
from faussaire.core.errors import UserError
from faussaire.data.decode import EXTENSIONS as IMAGES
from faussaire.data.labels import FILE_COLUMNS, find_column
from faussaire.music.notes import JSON, MIDI
from faussaire.sound.waves import EXTENSIONS as SOUND

_ENOUGH = 10_000
"""Files of a folder that are looked at."""
_TABLES = (".csv", ".tsv")
_NOUNS = {"tables": "a table", "texts": "text", "music": "music", "sound": "recordings"}


def kind_of(source: str) -> str:
    """`pictures`, `tables`, `texts`, `music` or `sound`, as `Family.modality` has them.

    Args:
        source: a file, a folder, or the name of a set of pictures.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    ending = path.suffix.lower()
    if ending in _TABLES and path.is_file():
        return _table(path)
    if ending == ".parquet" and path.is_file():
        return "pictures" if find_column(_columns(path), FILE_COLUMNS) else "tables"
    if ending == ".txt":
        return "texts"
    return _by_ending(ending)


def for_pictures(source: str, kind: str, flags: Sequence[str]) -> None:
    """Refuse flags that speak of pictures where there are none.

    Raises:
        UserError: `flags` holds one.
    """
    if flags:
        raise UserError(
            f"{flags[0]} is for pictures, and '{source}' is {_NOUNS[kind]}.",
            "Leave it out; `faussaire train FAMILY --help` lists what can be said of such data.",
        )


def another_kind(error: UserError, source: str, modality: str) -> UserError:
    """What to train instead, where data could not be read because they are of another kind.

    Args:
        error: of reading.
        source: what was read.
        modality: of the family that was to be trained.
    """
    kind = kind_of(source)
    if kind in ("pictures", modality) or type(error) is not UserError:  # pictures are a guess
        return error
    told = f"Is it {_NOUNS[kind]}? `faussaire train {OTHERS[kind].family} {shlex.quote(source)}`."
    return UserError(error.cause, f"{error.hint} {told}".lstrip())


def _by_ending(ending: str) -> str:
    if ending in (*MIDI, *JSON):
        return "music"
    return "sound" if ending in SOUND else "pictures"


def _folder(path: Path) -> str:
    """What most of its files are that are any of these."""
    names = (name for _, _, names in os.walk(path) for name in names)
    endings = Counter(Path(name).suffix.lower() for name in islice(names, _ENOUGH))
    known = (*IMAGES, *MIDI, *JSON, *SOUND)
    kinds: Counter[str] = Counter()
    for ending, count in endings.items():
        if ending in known:
            kinds[_by_ending(ending)] += count
    # A piano roll may be of JSON, and a folder of pictures may hold such a file, too.
    return max(kinds, key=lambda kind: kinds[kind], default="pictures")


def _columns(path: Path) -> list[str]:
    """Of a parquet file; none where it cannot be read: its reader knows what to say of it."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return []
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return []


def _table(path: Path) -> str:
    """Rows of pictures' names, of one column of sentences, or a table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            delimiter = max(",;\t", key=head.count)
            rows = [*islice(csv.reader([head, *islice(file, 20)], delimiter=delimiter), 20)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return "tables"  # as above
    columns = [name.strip() for name in rows[0]] if rows else []
    named = find_column(columns, FILE_COLUMNS)
    if named is not None and _are_files(rows[1:], columns.index(named)):
        return "pictures"
    return "texts" if len(columns) == 1 and _are_sentences(rows[1:]) else "tables"


def _are_files(rows: Sequence[Sequence[str]], at: int) -> bool:
    """Whether a column holds names with an ending, not those of people."""
    cells = [row[at] for row in rows if len(row) > at and row[at]]
    return bool(cells) and all(Path(cell).suffix.lower() in IMAGES for cell in cells)


def _are_sentences(rows: Sequence[Sequence[str]]) -> bool:
    cells = [row[0] for row in rows if row]
    return bool(cells) and 2 * sum(" " in cell.strip() for cell in cells) > len(cells)
