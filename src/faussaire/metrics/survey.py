"""One pass over a set of pictures, and all that the metrics need of it.

Features of real pictures are kept in the cache under the content key of their pack:
```
<cache>/features/<digest>/vectors.npy   float32 (n, D), of the first pictures in a fixed random order
                          moments.npz   count, mean and covariance of all pictures, float64
                          meta.json     what was measured, and the Inception Score of the pictures
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.core.figures import REVISION
from faussaire.data.cache import (
    cache_dir,
    locked,
    need_space,
    new_folder,
    read_json,
    sweep,
    writable,
)
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.metrics.extractors import Extractor
from faussaire.metrics.frechet import Moments, MomentsSum
from faussaire.metrics.inception_score import inception_score
from faussaire.metrics.pictures import PictureSet, Samples, shuffled_rows

KEEP = 50_000
"""Pictures whose vectors are kept, for kernels and neighbours; moments are of all."""

Watcher = Callable[[np.ndarray], None]
"""Receives each block of pictures, uint8 (n, H, W, C)."""


@dataclass(frozen=True)
class Survey:
    """What a pass over pictures leaves.

    Attributes:
        moments: of the features of all pictures.
        vectors: (n, D) float32 features of the pictures `rows`, n <= KEEP.
        rows: (n,) which pictures these are.
        score: Inception Score, its deviation over splits, and the number of pictures; None where
            the extractor does not classify.
    """

    moments: Moments
    vectors: Tensor
    rows: np.ndarray
    score: tuple[float, float, int] | None

    def __len__(self) -> int:
        return self.moments.count


def look(
    pictures: PictureSet,
    rows: np.ndarray,
    watchers: Sequence[Watcher],
    *,
    batch: int,
    what: str,
    progress: Progress | None = None,
) -> None:
    """Read `rows` in blocks of `batch` and show each block to every watcher."""
    for start in range(0, len(rows), batch):
        block = pictures.read(rows[start : start + batch])
        for watcher in watchers:
            watcher(block)
        if progress is not None:
            progress(what, min(start + batch, len(rows)), len(rows))


class FeatureWatcher:
    """Collects the features of what it is shown."""

    def __init__(self, extractor: Extractor, count: int) -> None:
        self._extractor, self._count = extractor, count
        self._vectors = torch.empty(min(count, KEEP), extractor.dimensions)
        self._sum = MomentsSum()
        self._logits: list[Tensor] = []
        self._seen = 0

    def __call__(self, block: np.ndarray) -> None:
        found = self._extractor(block)
        if not bool(found.vectors.isfinite().all()):
            raise UserError(
                f"The extractor {self._extractor.name} gives features that are not numbers.",
                "Its weight file may be damaged: fetch it anew, or choose another --extractor.",
            )
        self._sum.add(found.vectors)
        room = self._vectors[self._seen : self._seen + len(block)]
        room.copy_(found.vectors[: len(room)])
        if found.logits is not None and self._seen < KEEP:
            self._logits.append(found.logits[: len(room)])
        self._seen += len(block)

    def survey(self, rows: np.ndarray) -> Survey:
        """What was collected of the pictures `rows`, which were shown in this order."""
        score = None
        if self._logits and len(self._vectors) >= 10:
            logits = torch.cat(self._logits)
            score = (*inception_score(logits), len(logits))
        return Survey(self._sum.moments(), self._vectors, rows[: len(self._vectors)], score)


def survey_samples(
    pictures: PictureSet,
    extractor: Extractor | None,
    watchers: Sequence[Watcher] = (),
    *,
    progress: Progress | None = None,
) -> Survey | None:
    """One pass over the pictures that are judged, for features and for `watchers`.

    In a random order, for pairs and splits are taken of neighbours: samples have one by themselves,
    the files of a folder lie class by class.
    """
    count = len(pictures)
    rows = np.arange(count) if isinstance(pictures, Samples) else shuffled_rows(count, seed=1)
    features = None if extractor is None else FeatureWatcher(extractor, len(rows))
    everyone = [*watchers] if features is None else [features, *watchers]
    batch = 64 if extractor is None else extractor.batch
    look(pictures, rows, everyone, batch=batch, what="samples", progress=progress)
    return None if features is None else features.survey(rows)


def survey_reals(
    pictures: PictureSet,
    extractor: Extractor,
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Survey:
    """The features of real pictures, from the cache or into it.

    Raises:
        UserError: the cache cannot be written, or the disk is full.
    """
    folder = features_folder(pictures, extractor, cache)
    found = _load(folder)
    if found is None:
        writable(folder.parent)
        with locked(folder.parent / f"{folder.name}.lock", progress):
            found = _load(folder)  # another process may have measured meanwhile
            if found is None:
                sweep(folder.parent, folder.name)
                rows = shuffled_rows(len(pictures))
                watcher = FeatureWatcher(extractor, len(rows))
                need_space(folder.parent, _bytes(len(rows), extractor.dimensions))
                what = "real pictures, once"
                look(pictures, rows, [watcher], batch=extractor.batch, what=what, progress=progress)
                found = watcher.survey(rows)
                _store(folder, found, f"{pictures.name}, {extractor.name}, {extractor.resize}")
    return found


def features_folder(
    pictures: PictureSet, extractor: Extractor | None, cache: Path | None = None
) -> Path:
    """Where the features of these pictures are, or would be, kept; or figures that need none."""
    facts: tuple[object, ...] = (pictures.key, len(pictures))
    if extractor is not None:
        facts += (extractor.name, extractor.weights, extractor.resize)
    return (cache or cache_dir()) / "features" / digest(json.dumps([REVISION, KEEP, *facts]))


def divided(whole: Survey, first: int) -> tuple[Survey, Survey]:
    """Surveys of the first pictures kept and of the others; they lie in random order."""
    parts = []
    for part in (slice(0, first), slice(first, None)):
        vectors = whole.vectors[part]
        parts.append(Survey(Moments.of(vectors), vectors, whole.rows[part], None))
    return parts[0], parts[1]


def _bytes(count: int, dimensions: int) -> int:
    return 4 * min(count, KEEP) * dimensions + 8 * dimensions * (dimensions + 1)


def _store(folder: Path, found: Survey, what: str) -> None:
    count, dimensions = found.vectors.shape
    with new_folder(folder, _bytes(count, dimensions)) as temporary:
        np.save(temporary / "vectors.npy", found.vectors.numpy(), allow_pickle=False)
        np.savez(
            temporary / "moments.npz",
            count=np.array(found.moments.count),
            mean=found.moments.mean.numpy(),
            covariance=found.moments.covariance.numpy(),
            rows=found.rows,
        )
        score = None if found.score is None else list(found.score)
        (temporary / "meta.json").write_text(json.dumps({"what": what, "score": score}))


def _load(folder: Path) -> Survey | None:
    """Features from the cache; None where there are none, or not whole."""
    meta = read_json(folder / "meta.json")
    if meta is None:
        return None
    try:
        # Mapped, not read: a metric of moments alone touches no vector.
        vectors = np.load(folder / "vectors.npy", mmap_mode="c", allow_pickle=False)
        with np.load(folder / "moments.npz", allow_pickle=False) as kept:
            moments = Moments(
                count=int(kept["count"]),
                mean=torch.from_numpy(kept["mean"]),
                covariance=torch.from_numpy(kept["covariance"]),
            )
            rows = kept["rows"]
        score = meta["score"]
    except (OSError, ValueError, EOFError, KeyError):
        return None
    if len(rows) != len(vectors) or not math.isfinite(float(moments.mean.sum())):
        return None
    return Survey(moments, torch.from_numpy(vectors), rows, None if score is None else tuple(score))
