"""From two sets of pictures to figures: each picture is looked at once, whatever is measured.

A meter is a function from the bench to a figure. What several meters need (features, neighbours) the
bench computes when it is first asked for.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faussaire.core.batch import RowDraws
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.figures import OF_SETS, Figure, Provenance
from faussaire.data.cache import read_json, remember
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.metrics import classifier, path_length
from faussaire.metrics.extractors import Extractor
from faussaire.metrics.frechet import Moments, frechet_distance
from faussaire.metrics.kernel import KernelDistance, cmmd, kid
from faussaire.metrics.ms_ssim import MsSsimPairs
from faussaire.metrics.neighbours import knn_radii, nearest, prdc, reaches
from faussaire.metrics.perceptual import PerceptualDistance
from faussaire.metrics.pictures import PictureSet, Samples, require_alike, shuffled_rows
from faussaire.metrics.squeezenet import LEAST_SIDE
from faussaire.metrics.survey import (
    Survey,
    Watcher,
    divided,
    features_folder,
    look,
    survey_reals,
    survey_samples,
)
from faussaire.metrics.swd import PatchCollector, sliced_wasserstein

#: Fewer pictures than this give no figure at all: their distances are chance.
LEAST = 10
_PATCHED, _PATCHED_CPU = (
    16_384,
    4_096,
)  # pictures that patches are taken of; the first is the paper's
_PAIRS = 5_000
_PATHS = 10_000
_SUBSET = 1_000
_SCORED = 100
_KID_SUBSETS = 100
_PRECISION_K, _DENSITY_K = 3, 5


@dataclass(frozen=True)
class Value:
    """A figure before it is named.

    Attributes:
        value, error, parts: as in `Figure`.
    """

    value: float
    error: float | None = None
    parts: Mapping[str, float] | None = None


class Bench:
    """Samples and real pictures, ready to be measured.

    Args:
        fakes: what is judged.
        reals: what it should be like.
        extractor: of features; None where only metrics without features are asked for.
        perceptual: opens the distance that the path length is measured with.
        device: for classifiers and generators.
        seed: of whatever is drawn while measuring.
        progress: called as progress(what, done, total).
        cache: the cache folder; None: the user's.

    Raises:
        UserError: too few pictures, or of different sizes.
    """

    def __init__(
        self,
        fakes: PictureSet,
        reals: PictureSet,
        extractor: Extractor | None,
        *,
        device: Device,
        perceptual: Callable[[], PerceptualDistance] | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cache: Path | None = None,
    ) -> None:
        require_alike(fakes, reals)
        # The real pictures are divided, for what real ones get against real ones.
        for what, least in ((fakes, LEAST), (reals, 2 * LEAST)):
            if len(what) < least:
                raise UserError(
                    f"{len(what)} pictures ({what.name}) are too few to measure anything.",
                    f"Give at least {least}; figures begin to mean something at some hundreds, and "
                    "papers use 50,000.",
                )
        self.fakes, self.reals, self._extractor = fakes, reals, extractor
        self.device, self.seed, self.progress, self.cache = device, seed, progress, cache
        self._open_perceptual = perceptual
        self.notes: list[str] = []
        self._fake: Survey | None = None

    # ---- What several meters need ----

    @property
    def extractor(self) -> Extractor:
        """The extractor, which meters of features need."""
        assert self._extractor is not None
        return self._extractor

    @cached_property
    def real(self) -> Survey:
        """Features of the real pictures."""
        return survey_reals(self.reals, self.extractor, progress=self.progress, cache=self.cache)

    def counts_of_parts(self, reals: int) -> tuple[int, int]:
        """How `reals` real pictures are divided: as many as there are samples, and the rest.

        The first part stands for the samples; where there are too few pictures, it is a half.
        """
        first = min(len(self.fakes), reals // 2)
        return first, reals - first

    @cached_property
    def real_parts(self) -> tuple[Survey, Survey]:
        """Features of two parts of the real pictures, the first in the place of samples."""
        return divided(self.real, self.counts_of_parts(len(self.real.vectors))[0])

    @property
    def parted(self) -> str:
        """The counts of `real_parts`, in words."""
        return "{}/{}".format(*self.counts_of_parts(len(self.real.vectors)))

    @cached_property
    def perceptual(self) -> PerceptualDistance:
        """The distance that the path length is measured with."""
        assert self._open_perceptual is not None
        return self._open_perceptual()

    @property
    def fake(self) -> Survey:
        """Features of the samples, after `look_at_samples`."""
        assert self._fake is not None
        return self._fake

    def refuse(self, metrics: Sequence[str]) -> None:
        """Say no to what would mean nothing before any time is spent on it.

        Raises:
            UserError: a metric does not fit the samples, the pictures or the extractor.
        """
        for metric in metrics:
            _REFUSALS.get(metric, lambda bench: None)(self)

    def fits(self, metric: str) -> bool:
        """Whether a metric would not be refused."""
        try:
            self.refuse([metric])
        except UserError:
            return False
        return True

    def look_at_samples(self, metrics: Sequence[str]) -> None:
        """The one pass over the samples, for whatever these metrics need."""
        watchers: list[Watcher] = []
        if "swd" in metrics:
            watchers.append(self.fake_patches)
        if "ms-ssim" in metrics:
            watchers.append(self.fake_pairs)
        extractor = self._extractor if FEATURE_METRICS & {*metrics} else None
        if watchers or extractor is not None:
            self._fake = survey_samples(self.fakes, extractor, watchers, progress=self.progress)

    @cached_property
    def fake_patches(self) -> PatchCollector:
        """Patches of the samples."""
        return PatchCollector(self.fakes.shape, pictures=self.patched, seed=self.seed)

    @property
    def patched(self) -> int:
        """Pictures that patches are taken of."""
        return _PATCHED_CPU if self.device.kind == "cpu" else _PATCHED

    @cached_property
    def fake_pairs(self) -> MsSsimPairs:
        """Likeness of pairs of samples."""
        return MsSsimPairs(self.fakes.shape, pairs=_PAIRS)

    def real_rows(self, most: int) -> np.ndarray:
        """Real pictures in a fixed random order, `most` of them."""
        return shuffled_rows(len(self.reals))[:most]

    def look_at_reals(self, rows: np.ndarray, watcher: Watcher) -> None:
        """A pass over real pictures that needs no network."""
        look(self.reals, rows, [watcher], batch=64, what="real pictures", progress=self.progress)

    @cached_property
    def neighbourhood(self) -> dict[str, float]:
        """Precision, recall, density and coverage."""
        return self._prdc(self.real.vectors, self.fake.vectors, self.real_reaches)

    @cached_property
    def real_neighbourhood(self) -> dict[str, float]:
        """The same between the parts of the real pictures."""
        samples, reals = self.real_parts
        return self._prdc(reals.vectors, samples.vectors)

    @cached_property
    def real_reaches(self) -> Tensor:
        """Squared distances of the real pictures to their nearest others, (n, 5), kept in the cache."""
        path = features_folder(self.reals, self.extractor, self.cache) / "real" / "reaches.npy"
        count = len(self.real.vectors)
        try:
            known = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            known = np.empty(0)
        if known.shape == (count, _DENSITY_K) and bool(np.isfinite(known).all()):
            return torch.from_numpy(known)
        vectors = self.real.vectors.to(self.device.name)
        found = reaches(vectors, _DENSITY_K, progress=self._told("real neighbours, once")).cpu()
        content = io.BytesIO()
        np.save(content, found.numpy(), allow_pickle=False)
        remember(path, content.getvalue())
        return found

    def _prdc(
        self, real: Tensor, fake: Tensor, real_reaches: Tensor | None = None
    ) -> dict[str, float]:
        return prdc(
            real.to(self.device.name),
            fake.to(self.device.name),
            precision_k=_PRECISION_K,
            density_k=_DENSITY_K,
            real_reaches=real_reaches,
            progress=self._told("neighbours"),
        )

    @cached_property
    def nearest_reals(self) -> tuple[Tensor, Tensor]:
        """For each sample the distances to its three nearest real pictures and their rows, (n, 3)."""
        found = nearest(
            self.fake.vectors.to(self.device.name),
            self.real.vectors.to(self.device.name),
            k=min(3, len(self.real.vectors)),
            progress=self._told("nearest pictures"),
        )
        return found[0].cpu(), torch.from_numpy(self.real.rows)[found[1].cpu()]

    def _told(self, what: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, total: progress(what, done, total)

    # ---- Naming ----

    def provenance(self, metric: str, **facts: object) -> Provenance:
        """What a figure of this bench means; `facts` over what is usual for it."""
        height, width, channels = self.fakes.shape
        known: dict[str, object] = {
            "metric": metric,
            "count": len(self.fakes),
            "pictures": f"{height}x{width}x{channels}",
        }
        if metric in FEATURE_METRICS:
            known["extractor"] = self.extractor.name
            known["weights"] = self.extractor.weights
            known["resize"] = self.extractor.resize
        if metric in COMPARING:
            known["reference"] = self.reals.name
            known["reference_key"] = self.reals.key
            known["reference_count"] = len(self.reals)
            known["whole"] = self.reals.whole
        return Provenance(**{**known, **facts})  # pyright: ignore[reportArgumentType]

    def kept(self) -> dict[str, object]:
        """Counts of a metric that looks at kept vectors, not at moments of everything."""
        count = len(self.real.vectors)
        return {
            "count": len(self.fake.vectors),
            "reference_count": count,
            "whole": self.reals.whole and count == len(self.reals),
        }

    def remembered(self, metric: str, how: str, make: Callable[[], Value]) -> Value:
        """A figure of the real pictures alone, from the cache or into it.

        Args:
            metric: its name.
            how: all that it depends on besides pictures and extractor: counts, parameters.
            make: measures it.
        """
        extractor = self._extractor if metric in FEATURE_METRICS else None
        folder = features_folder(self.reals, extractor, self.cache)
        path = folder / "real" / f"{metric}-{digest(how)[:12]}.json"
        known = read_json(path)
        if known is not None and isinstance(known.get("value"), float):
            return Value(known["value"], known.get("error"), known.get("parts"))
        found = make()
        facts = {"value": found.value, "error": found.error, "parts": found.parts}
        remember(path, json.dumps(facts).encode())
        return found


# ---- Meters ----


def _fid(bench: Bench) -> Figure:
    found = bench.remembered(
        "fid",
        bench.parted,
        lambda: Value(frechet_distance(*(part.moments for part in bench.real_parts))),
    )
    few = min(len(bench.fake), len(bench.real))
    if few <= bench.extractor.dimensions:
        bench.notes.append(
            f"The Fréchet distance is of {few:,} pictures and {bench.extractor.dimensions:,} "
            "dimensions: it is biased upwards. Compare it only with figures of equal counts; kid is "
            "unbiased."
        )
    return Figure(
        provenance=bench.provenance("fid"),
        value=frechet_distance(bench.fake.moments, bench.real.moments),
        real=found.value,
        real_counts=bench.parted,
    )


def _kid(bench: Bench) -> Figure:
    def measure(a: Survey, b: Survey, seed: int = 0) -> KernelDistance:
        return kid(a.vectors, b.vectors, subsets=_KID_SUBSETS, size=_SUBSET, seed=seed)

    found = measure(bench.fake, bench.real, bench.seed)
    real = bench.remembered(
        "kid",
        f"{bench.parted} {_KID_SUBSETS}x{_SUBSET}",
        lambda: Value(measure(*bench.real_parts).value),
    )
    return Figure(
        provenance=bench.provenance("kid", **bench.kept(), details=f"{found.subsets}x{found.size}"),
        value=found.value,
        error=found.error,
        real=real.value,
        real_counts=bench.parted,
    )


def _cmmd(bench: Bench) -> Figure:
    def measure(a: Survey, b: Survey) -> Value:
        device = bench.device.name
        return Value(float(cmmd(a.vectors.to(device), b.vectors.to(device))))

    return Figure(
        provenance=bench.provenance("cmmd", **bench.kept(), details="sigma=10"),
        value=measure(bench.fake, bench.real).value,
        real=bench.remembered("cmmd", bench.parted, lambda: measure(*bench.real_parts)).value,
        real_counts=bench.parted,
    )


def _inception_score(bench: Bench) -> Figure:
    assert bench.fake.score is not None  # refused before, where there is none
    value, deviation, count = bench.fake.score
    real = bench.real.score
    return Figure(
        provenance=bench.provenance("is", count=count, details="10-splits"),
        value=value,
        error=deviation,
        real=None if real is None else real[0],
        real_counts="" if real is None else str(real[2]),
    )


def _neighbourhood(metric: str) -> Callable[[Bench], Figure]:
    details = f"k={_PRECISION_K if metric in ('precision', 'recall') else _DENSITY_K}"

    def meter(bench: Bench) -> Figure:
        real = bench.remembered(
            metric, f"{bench.parted} {details}", lambda: Value(bench.real_neighbourhood[metric])
        )
        return Figure(
            provenance=bench.provenance(metric, **bench.kept(), details=details),
            value=bench.neighbourhood[metric],
            real=real.value,
            real_counts=bench.parted,
        )

    return meter


def _authenticity(bench: Bench) -> Figure:
    def measure(distances: Tensor, rows: Tensor, radii: Tensor) -> Value:
        return Value(float((distances > radii[rows]).double().mean()))

    def half() -> Value:
        other, train = (part.vectors.to(bench.device.name) for part in bench.real_parts)
        distances, rows = nearest(other, train, k=1)
        return measure(distances[:, 0], rows[:, 0], knn_radii(train, 1))

    radii = torch.full((len(bench.reals),), math.nan)
    radii[torch.from_numpy(bench.real.rows)] = bench.real_reaches[:, 0].sqrt().float()
    distances, rows = bench.nearest_reals
    return Figure(
        provenance=bench.provenance("authenticity", **bench.kept()),
        value=measure(distances[:, 0], rows[:, 0], radii).value,
        real=bench.remembered("authenticity", bench.parted, half).value,
        real_counts=bench.parted,
    )


def _swd(bench: Bench) -> Figure:
    def collect(rows: np.ndarray) -> PatchCollector:
        patches = PatchCollector(bench.reals.shape, pictures=bench.patched)
        bench.look_at_reals(rows, patches)
        return patches

    def half() -> Value:
        real = sliced_wasserstein(collect(rows[:first]), collect(rows[first:]))
        return Value(float(np.mean(list(real.values()))))

    rows = bench.real_rows(bench.patched)
    first, rest = bench.counts_of_parts(len(rows))
    found = sliced_wasserstein(bench.fake_patches, collect(rows))
    return Figure(
        provenance=bench.provenance(
            "swd",
            count=min(bench.patched, len(bench.fakes)),
            reference_count=len(rows),
            whole=bench.reals.whole and len(rows) == len(bench.reals),
            details="7x7",
        ),
        value=float(np.mean(list(found.values()))),
        real=bench.remembered("swd", f"{first}/{rest}", half).value,
        real_counts=f"{first}/{rest}",
        parts={str(level): value for level, value in found.items()},
    )


def _ms_ssim(bench: Bench) -> Figure:
    def likeness() -> Value:
        real = MsSsimPairs(bench.reals.shape, pairs=_PAIRS)
        bench.look_at_reals(bench.real_rows(2 * _PAIRS), real)
        return Value(real.mean, real.error)

    fake = bench.fake_pairs
    return Figure(
        provenance=bench.provenance(
            "ms-ssim", count=fake.count, details=f"pairs,{fake.scales}-scales"
        ),
        value=fake.mean,
        error=fake.error,
        real=bench.remembered("ms-ssim", str(_PAIRS), likeness).value,
        real_counts=str(min(_PAIRS, len(bench.reals) // 2)),
    )


def _path_length(bench: Bench) -> Figure:
    assert isinstance(bench.fakes, Samples)
    count = min(_PATHS, len(bench.fakes))
    labels = bench.fakes.labels
    lengths = path_length.path_lengths(
        bench.fakes.family,
        bench.perceptual,
        count=count,
        seed=bench.seed,
        device=bench.device.name,
        labels=None if labels is None else torch.from_numpy(labels[:count]),
        progress=bench.progress,
    )
    value, error = path_length.trimmed_mean(lengths)
    return Figure(
        provenance=bench.provenance(
            "ppl",
            extractor=bench.perceptual.name,
            weights=bench.perceptual.weights,
            count=count,
            details="z,full,eps=1e-4",
        ),
        value=value,
        error=error,
    )


def _class_fid(bench: Bench) -> Figure:
    def by_class(a: tuple[Survey, np.ndarray], b: tuple[Survey, np.ndarray]) -> Value:
        parts = {}
        for number, name in enumerate(bench.reals.classes):
            both = [survey.vectors[labels == number] for survey, labels in (a, b)]
            parts[name] = frechet_distance(*map(Moments.of, both))
        return Value(float(np.mean(list(parts.values()))), parts=parts)

    fake_labels, real_labels = bench.fakes.labels, bench.reals.labels
    assert fake_labels is not None
    assert real_labels is not None
    fake = (bench.fake, fake_labels[bench.fake.rows])
    real = (bench.real, real_labels[bench.real.rows])
    found = by_class(fake, real)
    samples, reals = ((part, real_labels[part.rows]) for part in bench.real_parts)
    enough = min(rarest(part[1], len(bench.reals.classes)) for part in (samples, reals)) >= LEAST
    floor = None
    if enough:
        floor = bench.remembered("class-fid", bench.parted, lambda: by_class(samples, reals)).value
    fewest = min(rarest(labels, len(bench.reals.classes)) for _, labels in (fake, real))
    if fewest <= bench.extractor.dimensions:
        bench.notes.append(
            f"The rarest class has {fewest:,} pictures to compare, in {bench.extractor.dimensions:,} "
            "dimensions: class-fid is biased upwards. Compare it only with figures of equal counts."
        )
    return Figure(
        provenance=bench.provenance("class-fid", **bench.kept()),
        value=found.value,
        real=floor,
        real_counts=bench.parted if enough else "",
        parts=found.parts or {},
    )


def rarest(labels: np.ndarray, classes: int) -> int:
    """Pictures of the class that has fewest."""
    return int(np.bincount(labels, minlength=classes).min())


def _classification(bench: Bench) -> Figure:
    def study(lessons: PictureSet, taught: np.ndarray | None, asked: np.ndarray | None, what: str):
        return classifier.accuracy(
            lessons,
            bench.reals,
            taught=taught,
            asked=asked,
            device=bench.device,
            seed=bench.seed,
            what=what,
            progress=bench.progress,
        )

    def half() -> Value:
        value, parts, _ = study(
            bench.reals, rows[:middle], rows[middle:], "taught by real pictures"
        )
        return Value(value, parts=parts)

    rows = bench.real_rows(len(bench.reals))
    middle = len(rows) // 2
    value, parts, asked = study(bench.fakes, None, None, "taught by samples")
    return Figure(
        provenance=bench.provenance(
            "cas",
            reference_count=asked,
            whole=bench.reals.whole and asked == len(bench.reals),
            details=f"resnet8,{classifier.STEPS}-steps",
        ),
        value=value,
        real=bench.remembered("cas", f"{middle} {classifier.STEPS} {bench.seed}", half).value,
        real_counts=f"{middle}/{len(rows) - middle}",
        parts=parts,
    )


METERS: dict[str, Callable[[Bench], Figure]] = {
    "fid": _fid,
    "kid": _kid,
    "cmmd": _cmmd,
    "is": _inception_score,
    "precision": _neighbourhood("precision"),
    "recall": _neighbourhood("recall"),
    "density": _neighbourhood("density"),
    "coverage": _neighbourhood("coverage"),
    "authenticity": _authenticity,
    "swd": _swd,
    "ms-ssim": _ms_ssim,
    "ppl": _path_length,
    "class-fid": _class_fid,
    "cas": _classification,
}
assert METERS.keys() == {*OF_SETS}


# ---- Refusals ----


def _needs_classifier(bench: Bench) -> None:
    if bench.extractor.classes is None:
        raise UserError(
            f"The Inception Score needs a classifier, and {bench.extractor.name} is none.",
            "Leave is out of --metrics, or choose --extractor inception-2015 or squeezenet1.0.",
        )
    if len(bench.fakes) < _SCORED:
        raise UserError(
            f"{len(bench.fakes)} samples are too few for the ten splits of the Inception Score.",
            f"Ask for {_SCORED} at least, with --count.",
        )


def _needs_generator(bench: Bench) -> None:
    if not isinstance(bench.fakes, Samples):
        raise UserError(
            "The path length needs a generator, not pictures.", "Give a run, or leave out ppl."
        )
    if bench.fakes.family.latents(RowDraws([0])) is None:
        raise UserError(
            "The path length needs a latent space, and this family has none.",
            "Leave ppl out of --metrics.",
        )
    height, width, _ = bench.fakes.shape
    if min(height, width) < LEAST_SIDE:
        raise UserError(
            "The path length looks at pictures through SqueezeNet, which sees nothing in "
            f"{width}x{height} pixels.",
            f"Leave ppl out of --metrics; from {LEAST_SIDE} pixels a side on it can be measured.",
        )
    bench.perceptual  # noqa: B018  (a missing weight file is told now)


def _needs_classes(bench: Bench) -> None:
    for pictures in (bench.fakes, bench.reals):
        if pictures.labels is None:
            raise UserError(
                f"class-fid and cas need classes, and {pictures.name} have none.",
                "Leave them out of --metrics, or give pictures with classes (--classes folders).",
            )
    if bench.fakes.classes != bench.reals.classes:
        raise UserError(
            f"The classes differ: {', '.join(bench.fakes.classes[:8])} and "
            f"{', '.join(bench.reals.classes[:8])}.",
            "Leave class-fid and cas out of --metrics, or give pictures of the same classes.",
        )


def _needs_enough_of_each_class(bench: Bench) -> None:
    _needs_classes(bench)
    for pictures in (bench.fakes, bench.reals):
        assert pictures.labels is not None
        fewest = rarest(pictures.labels, len(pictures.classes))
        if fewest < LEAST:
            raise UserError(
                f"The rarest class has {fewest} pictures in {pictures.name}, which is too few for a "
                "Fréchet distance.",
                "Raise --count and --reference-count, or leave class-fid out of --metrics.",
            )


def _needs_patches(bench: Bench) -> None:
    PatchCollector(bench.fakes.shape)  # refuses pictures that are smaller than a patch


def _needs_scales(bench: Bench) -> None:
    MsSsimPairs(bench.fakes.shape)  # refuses pictures that are smaller than its window


_REFUSALS: dict[str, Callable[[Bench], None]] = {
    "is": _needs_classifier,
    "ppl": _needs_generator,
    "class-fid": _needs_enough_of_each_class,
    "swd": _needs_patches,
    "ms-ssim": _needs_scales,
    "cas": _needs_classes,
}

FEATURE_METRICS = frozenset(OF_SETS) - {"swd", "ms-ssim", "cas", "ppl"}
COMPARING = frozenset(OF_SETS) - {"is", "ms-ssim", "ppl"}
