"""Which picture belongs to which, by their names alone: never a guess, so never a wrong pair.

Names are compared in order of certainty, and each step takes only what the steps before left:
1. the path without its extension (`x/photo1` on both sides), then relative to the folder that all
   names of a side lie in, as archives wrap their contents in one;
2. the bare stem (`photo1`), unless the folders speak against it (`_strangers`);
3. either of these without a role that all names of a side have at one end: `_A` and `_B`,
   `input-`, `_mask`, `x4`.
Each step compares letters as they are and then without case. A name that two pictures of one side
share pairs with nothing, and the reason is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from faussaire.data.decode import EXTENSIONS

_SEPARATORS = "_-. "
# What a picture is in its pair. Words for kinds of things (horse, day, summer) are missing on
# purpose: `horse_001` and `zebra_001` are both first, but no pair.
_WORDS = """
    a b x y real fake input inputs in target targets out output outputs source src dst
    gt truth groundtruth ground reference ref image images img imgs pic picture photo photos
    mask masks matte alpha label labels labelids labeltrainids instanceids color colour
    seg segm segs segment segments segmentation annotation annotations anno parsing
    edge edges contour contours boundary boundaries sketch sketches drawing drawings
    depth normal normals gray grey bw lr hr sr low high lowres highres
    leftimg8bit gtfine gtcoarse noisy noise clean blur blurred blurry sharp before after
    rain rainy hazy haze degraded original orig x2 x3 x4 x8
"""
_ROLES = frozenset(_WORDS.split())
_SCALE = re.compile(r"(?<=\d)x[2348]$")  # DIV2K: 0001x4.png beside 0001.png


class Match(NamedTuple):
    """Pairs of rows, and why the others have none.

    Args:
        rows_a, rows_b: (K,) int64, aligned, in the order of the first side.
        alone_a, alone_b: row -> reason, a clause such as "no picture on the other side has its
            name".
    """

    rows_a: np.ndarray
    rows_b: np.ndarray
    alone_a: dict[int, str]
    alone_b: dict[int, str]


@dataclass(frozen=True, slots=True)
class Affix:
    """What is left off all stems of a side, in lower case: text before, text after."""

    before: str = ""
    after: str = ""

    def strip(self, stem: str) -> str:
        """The stem, in lower case, without it."""
        return stem.lower()[len(self.before) : len(stem.lower()) - len(self.after)]

    def __str__(self) -> str:
        return self.before or self.after


@dataclass
class _Side:
    """The names of one side, taken apart.

    Attributes:
        folders, stems: of each name, in Unicode's composed form (a Mac writes é as two characters).
        root: how many characters all folders have in common, whole folders.
    """

    names: Sequence[str]
    folders: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    root: int = 0

    def __post_init__(self) -> None:
        parts = [_split(name) for name in self.names]
        self.folders = [folder for folder, _ in parts]
        self.stems = [stem for _, stem in parts]
        self.root = _common(self.folders)


def _split(name: str) -> tuple[str, str]:
    """-> (folder, stem). Only extensions of pictures come off: `v1.5` is a whole stem."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    stem = path.name
    while (end := PurePosixPath(stem).suffix) and end.lower() in EXTENSIONS:
        stem = stem[: -len(end)]  # more than once: masks are often called `photo.jpg.png`
    folder = str(path.parent)
    return "" if folder == "." else folder, stem


def _common(folders: Sequence[str]) -> int:
    """Characters of the deepest folder that all of `folders` are, or lie in."""
    if not folders:
        return 0
    low, high = min(folders).split("/"), max(folders).split("/")
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    # Sorted as text, min and max need not be the outermost as paths, so each is asked.
    root = "/".join(low[:same])
    while root and not all(f == root or f.startswith(root + "/") for f in folders):
        root = root.rpartition("/")[0]
    return len(root)


class _Pairing:
    """Pairs found so far, and the steps that find more."""

    def __init__(self, a: _Side, b: _Side) -> None:
        self.a, self.b = a, b
        self.found: dict[int, int] = {}
        self.taken: set[int] = set()
        self._folders: tuple[set[str], set[str]] = set(), set()

    def by(self, key: Callable[[_Side, int], str], *, anywhere: bool) -> None:
        """Pair rows of equal keys, where the key is unique on both sides, as it is and lowered.

        Args:
            key: of a row of a side.
            anywhere: whether the two may lie in different folders, if `_strangers` does not object.
        """
        keys_a = [key(self.a, row) for row in range(len(self.a.names))]
        keys_b = [key(self.b, row) for row in range(len(self.b.names))]
        strangers = self._strangers(keys_a, keys_b) if anywhere else None
        for turn in (str, str.lower):  # not casefold: it makes ß and ss the same
            here, there = _unique(map(turn, keys_a)), _unique(map(turn, keys_b))
            for text, row in here.items():
                other = there.get(text)
                if other is None or row in self.found or other in self.taken:
                    continue
                folder_a, folder_b = self.a.folders[row], self.b.folders[other]
                if strangers is not None and strangers(folder_a, folder_b):
                    continue
                self.found[row] = other
                self.taken.add(other)
                self._folders[0].add(folder_a)
                self._folders[1].add(folder_b)

    def _strangers(
        self, keys_a: Sequence[str], keys_b: Sequence[str]
    ) -> Callable[[str, str], bool]:
        """Whether equal names in two folders, one of each side, are likely a coincidence.

        So they are where pictures of either folder were paired before, because its partners lie in
        a known place; where the other side has a folder of the same name, as train and val; and
        where names begin anew in both folders, as numbers do: the fifth picture of one and the
        fifth of another are merely both fifth.
        """
        known_a, known_b = (set(folders) for folders in self._folders)
        anew_a, anew_b = _anew(self.a.folders, keys_a), _anew(self.b.folders, keys_b)
        called_a = {_last(folder) for folder in self.a.folders}
        called_b = {_last(folder) for folder in self.b.folders}

        def judge(folder_a: str, folder_b: str) -> bool:
            if folder_a in known_a or folder_b in known_b:
                return True
            if folder_a in anew_a and folder_b in anew_b:
                return True
            last_a, last_b = _last(folder_a), _last(folder_b)
            return last_a != last_b and (last_a in called_b or last_b in called_a)

        return judge

    def names(self, strip_a: Callable[[str], str], strip_b: Callable[[str], str]) -> None:
        """The first two steps, over stems that were stripped."""

        def stem(side: _Side, row: int) -> str:
            return (strip_a if side is self.a else strip_b)(side.stems[row])

        def path(side: _Side, row: int) -> str:
            return f"{side.folders[row]}/{stem(side, row)}"

        def inside(side: _Side, row: int) -> str:
            return f"{side.folders[row][side.root :].lstrip('/')}/{stem(side, row)}"

        self.by(path, anywhere=False)
        self.by(inside, anywhere=True)
        self.by(stem, anywhere=True)

    def copy(self) -> _Pairing:
        other = _Pairing(self.a, self.b)
        other.found, other.taken = dict(self.found), set(self.taken)
        other._folders = set(self._folders[0]), set(self._folders[1])
        return other


def _unique(keys: map[str]) -> dict[str, int]:
    """key -> row, of the keys that occur once."""
    rows: dict[str, int] = {}
    twice: set[str] = set()
    for row, key in enumerate(keys):
        if key in rows:
            twice.add(key)
        rows[key] = row
    return {key: row for key, row in rows.items() if key not in twice}


def _last(folder: str) -> str:
    """The name of a folder without those it lies in."""
    return folder.rpartition("/")[2].lower()


def _anew(folders: Sequence[str], keys: Sequence[str]) -> set[str]:
    """The folders that share a key with another folder."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for folder, key in zip(folders, keys, strict=True):
        places[key.lower()].add(folder)
    return set().union(*(found for found in places.values() if len(found) > 1))


def affixes(stems: Sequence[str]) -> list[Affix]:
    """Every role, at either end, that all stems have. Not the empty one."""
    if not stems:
        return []
    lower = [stem.lower() for stem in stems]
    first = lower[0]
    found: list[Affix] = []
    for at, letter in enumerate(first):
        if letter not in _SEPARATORS:
            continue
        before, after = first[: at + 1], first[at:]
        if _is_role(before) and all(s.startswith(before) and len(s) > len(before) for s in lower):
            found.append(Affix(before=before))
        if _is_role(after) and all(s.endswith(after) and len(s) > len(after) for s in lower):
            found.append(Affix(after=after))
    scale = _SCALE.search(first)
    if scale and all(s.endswith(scale[0]) and _SCALE.search(s) for s in lower):
        found.append(Affix(after=scale[0]))
    return found


def _is_role(text: str) -> bool:
    words = [word for word in re.split(f"[{re.escape(_SEPARATORS)}]", text) if word]
    return bool(words) and all(word in _ROLES for word in words)


def match(names_a: Sequence[str], names_b: Sequence[str]) -> Match:
    """Pair two lists of item names; see the module for how.

    Args:
        names_a, names_b: relative paths with forward slashes, each unique in its list.
    """
    return match_and_say(names_a, names_b)[0]


def match_and_say(names_a: Sequence[str], names_b: Sequence[str]) -> tuple[Match, list[str]]:
    """`match`, and remarks on how the pairs were found, as sentences."""
    a, b = _Side(names_a), _Side(names_b)
    pairing = _Pairing(a, b)
    pairing.names(str, str)
    notes: list[str] = []
    off_a, off_b = Affix(), Affix()
    if len(pairing.found) < len(a.names) and len(pairing.taken) < len(b.names):
        pairing, off_a, off_b, notes = _by_role(pairing)
    rows_a = np.array(sorted(pairing.found), np.int64)
    rows_b = np.array([pairing.found[row] for row in rows_a.tolist()], np.int64)
    alone_a, alone_b = _reasons(pairing, off_a, off_b)
    return Match(rows_a, rows_b, alone_a, alone_b), notes


def _by_role(base: _Pairing) -> tuple[_Pairing, Affix, Affix, list[str]]:
    """The third step: the roles whose removal gives the most pairs, if they are certain."""
    best: list[tuple[_Pairing, Affix, Affix]] = []
    for off_a in (Affix(), *affixes(base.a.stems)):
        for off_b in (Affix(), *affixes(base.b.stems)):
            if off_a == off_b:
                continue
            trial = base.copy()
            trial.names(off_a.strip, off_b.strip)
            most = len(best[0][0].found) if best else len(base.found)
            if len(trial.found) > most:
                best = []
            if len(trial.found) > len(base.found) and len(trial.found) >= most:
                best.append((trial, off_a, off_b))
    if not best:
        return base, Affix(), Affix(), []
    pairing, off_a, off_b = best[0]
    if any(trial.found != pairing.found for trial, _, _ in best):
        note = (
            f"The names of the two sides fit together in more than one way (without '{off_a}' and "
            f"'{off_b}', or without '{best[1][1]}' and '{best[1][2]}'), so none was chosen."
        )
        return base, Affix(), Affix(), [note]
    left = [
        f"'{off}' {where} of the {side}"
        for off, side in ((off_a, "inputs"), (off_b, "targets"))
        if (where := "at the beginning" if off.before else "at the end" if off.after else "")
    ]
    count = len(pairing.found) - len(base.found)
    return pairing, off_a, off_b, [f"{count:,} pairs were found by leaving off {', '.join(left)}."]


def _reasons(
    pairing: _Pairing, off_a: Affix, off_b: Affix
) -> tuple[dict[int, str], dict[int, str]]:
    """For the rows of each side that have no partner: why."""
    rows: list[defaultdict[str, list[int]]] = []
    sides = (pairing.a, pairing.b)
    used: tuple[set[int], set[int]] = set(pairing.found), pairing.taken
    for side, off in zip(sides, (off_a, off_b), strict=True):
        by_stem: defaultdict[str, list[int]] = defaultdict(list)
        for row, stem in enumerate(side.stems):
            by_stem[off.strip(stem)].append(row)
        rows.append(by_stem)
    told: tuple[dict[int, str], dict[int, str]] = {}, {}
    for own, other in ((0, 1), (1, 0)):
        for stem, group in rows[own].items():
            free = [row for row in group if row not in used[own]]
            there = [row for row in rows[other].get(stem, []) if row not in used[other]]
            for row in free:
                told[own][row] = _reason(sides, own, free, there)
    return told


def _reason(sides: tuple[_Side, _Side], own: int, free: list[int], there: list[int]) -> str:
    """Why rows of one name, free on their own side, have no partner among those of the other."""
    if not there:
        return "no picture on the other side has its name"
    if len(free) > 1:
        first, second = (sides[own].names[row] for row in free[:2])
        return f"'{first}' and '{second}' share the name, so neither was paired"
    other = sides[1 - own]
    first = other.names[there[0]]
    if len(there) > 1:
        return f"'{first}' and '{other.names[there[1]]}' could both be its partner"
    return f"'{first}' has the same name, but lies in another folder than a partner would"


def examples(names: Sequence[str]) -> str:
    """The first two names, quoted, for an error."""
    return " and ".join(f"'{name}'" for name in names[:2])
