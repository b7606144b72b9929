"""Batches of pictures, each with one of its captions, and with one that is not its own."""

from __future__ import annotations

import numpy as np

from faussaire.data.stream import Stream
from faussaire.tables.spec import uniform

_OWN, _OTHER = range(2)
_TRIES = 32


class CaptionStream:
    """A stream of pictures, to which captions are added; example p is a function of (seed, p) alone.

    `captions` of an example is one of its picture's, each as likely; `mismatched` is a caption of
    another picture, drawn anew as long as it is one of this picture's, too.

    Args:
        stream: of the pictures, whose first table they are.
        texts: (M, T) int32 tokens or (M, E) float32 vectors of the different captions.
        which: (N, K) int64: which of `texts` are of each picture; -1 behind the last.
        rows: the pictures that mismatched captions are of, (L,); not all may have the same caption.
        seed: of the draws.
    """

    def __init__(
        self,
        stream: Stream,
        texts: np.ndarray,
        which: np.ndarray,
        *,
        rows: np.ndarray,
        seed: int,
    ) -> None:
        self._stream, self._texts, self._which = stream, texts, which
        self._counts = (which >= 0).sum(axis=1)
        self._rows, self._seed = rows, seed

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        """This rank's share of examples position..position+count-1.

        Returns:
            The pictures' fields, `captions` and `mismatched`, (count / world, T) int32 or (.., E)
            float32.
        """
        fields = self._stream.read(position, count)
        share = count // self._stream.world
        at = position + self._stream.rank * share + np.arange(share)
        pictures = self._stream.rows(0, int(at[0]), share)
        own = self._one(pictures, uniform(self._seed, _OWN, at))
        fields["captions"] = self._texts[own]
        fields["mismatched"] = self._texts[self._others(pictures, at)]
        return fields

    def _one(self, pictures: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """One caption of each picture, (N,)."""
        return self._which[pictures, (chances * self._counts[pictures]).astype(np.int64)]

    def _others(self, pictures: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Captions that are none of these pictures' own, (N,)."""
        own = self._which[pictures]
        found = np.full(len(pictures), -1)
        left = np.arange(len(pictures))
        for attempt in range(_TRIES):
            chances = uniform(self._seed, _OTHER + 2 * attempt, at[left])
            others = self._rows[(chances * len(self._rows)).astype(np.int64)]
            which = uniform(self._seed, _OTHER + 2 * attempt + 1, at[left])
            found[left] = self._one(others, which)
            left = left[(own[left] == found[left, None]).any(axis=1)]
            if len(left) == 0:
                return found
        for row in left:  # nearly all pictures share a caption: the first that is another's
            candidates = self._which[self._rows]
            foreign = candidates[(candidates >= 0) & ~np.isin(candidates, own[row])]
            if len(foreign):
                found[row] = foreign[0]
        return found
