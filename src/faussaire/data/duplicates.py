"""Pictures that are there twice: exactly, or nearly (saved again, scaled, slightly cropped).

Near duplicates are found by a 64-bit difference hash (dHash) within 2 bits, then confirmed by their
thumbnails, because simple pictures share hashes by chance. No pair of pictures is compared twice
over: each hash lists itself and its 64 one-bit neighbours, and two hashes within 2 bits always
share an entry, so one sort of 65 N numbers brings all candidates together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MARGIN = 2  # a step must be this high to count, or noise in flat areas decides the bits
_WINDOW = 8  # each candidate is confirmed against so many that follow it
_LIMIT = 300_000  # hashes above which only equal hashes are candidates: 65 N would fill the memory
# Of 255 levels. Saving 100 photographs again at quality 60 moved no cell by more than 6 and colours
# by 1; with a limit on the mean alone, 916 of MNIST's 10,000 were "alike".
_CELL_LEVELS = 12
_COLOUR_LEVELS = 4


def exact(digests: Sequence[str]) -> list[list[int]]:
    """Groups of rows with the same content, in order; "" is no content."""
    groups: dict[str, list[int]] = {}
    for row, value in enumerate(digests):
        if value:
            groups.setdefault(value, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def dhash(thumbs: np.ndarray) -> np.ndarray:
    """thumbs: (N, 75) uint8, of `Scan` -> (N,) uint64: is each cell darker than the next?"""
    cells = thumbs[:, :72].reshape(-1, 8, 9).astype(np.int16)
    bits = cells[:, :, 1:] - cells[:, :, :-1] >= _MARGIN
    return np.packbits(bits.reshape(-1, 64), axis=1).view(np.uint64)[:, 0]


def near(thumbs: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """Groups of `rows` that look alike, each in order; exact duplicates should be left out.

    Args:
        thumbs: (N, 75) uint8.
        rows: which of them to compare.
    """
    if len(rows) < 2:
        return []
    picked = thumbs[rows].astype(np.int16)
    left, right = _candidates(dhash(thumbs[rows]))
    grey = np.abs(picked[left, :72] - picked[right, :72]).max(1)
    colour = np.abs(picked[left, 72:] - picked[right, 72:]).max(1)
    same = (grey <= _CELL_LEVELS) & (colour <= _COLOUR_LEVELS)
    parent = list(range(len(rows)))
    for a, b in zip(left[same].tolist(), right[same].tolist(), strict=True):
        a, b = _root(parent, a), _root(parent, b)
        parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(rows)):
        groups.setdefault(_root(parent, i), []).append(int(rows[i]))
    return [group for group in groups.values() if len(group) > 1]


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _candidates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (left, right) of indices whose hashes differ in at most 2 bits."""
    count = len(hashes)
    masks = np.zeros(1, np.uint64)
    if count <= _LIMIT:
        ones = np.uint64(1) << np.arange(64, dtype=np.uint64)
        masks = np.concatenate([masks, ones])
    entries = (hashes[:, None] ^ masks[None, :]).reshape(-1)
    owners = np.repeat(np.arange(count), len(masks))
    order = np.argsort(entries)
    entries, owners = entries[order], owners[order]
    # Most entries are alone; only the others are worth a stable order and a closer look.
    equal = entries[1:] == entries[:-1]
    shared = np.concatenate([equal, [False]]) | np.concatenate([[False], equal])
    entries, owners = entries[shared], owners[shared]
    order = np.lexsort((owners, entries))
    entries, owners = entries[order], owners[order]
    found = [np.zeros(0, np.int64)]
    for step in range(1, _WINDOW + 1):
        same = entries[:-step] == entries[step:]
        if not same.any():
            break
        found.append(np.unique(owners[:-step][same] * count + owners[step:][same]))
    pairs = np.unique(np.concatenate(found))
    return pairs // count, pairs % count
