"""The preflight: read every picture once and say in words what will go wrong, before it does."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.data import duplicates
from faussaire.data.fit import Fit
from faussaire.data.labels import class_order, told_labels
from faussaire.data.parallel import Progress
from faussaire.data.plan import (
    Channels,
    PackOptions,
    as_pair,
    choose_channels,
    choose_resolution,
    tile_grids,
    usable,
)
from faussaire.data.scan import ALPHA, ANIMATED, GREY, Scan, scan
from faussaire.data.source import Source
from faussaire.data.sources import open_source

_MEMORISES = 100
_FEW = 1000
_SHOWN = 10
_ENLARGED = 1.25  # times: from 28 to 32 pixels is no blur to speak of
_LOSS = 0.25  # share of a picture that a crop may cut before it is worth a word
_IMBALANCE = 10


@dataclass(frozen=True, slots=True)
class Warning:
    """One thing to know: a fixed code for programs, a sentence for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """What a set of pictures is like.

    Args:
        path, kind: of the source.
        total: pictures found; usable: those that can be read.
        resolution: (height, width) that would be packed, and why.
        channels: L, RGB or RGBA that would be packed.
        sizes: min, median and max of height and width, and the smallest and largest side.
        common_sizes: {"HxW": count}, the most common ten.
        modes: {Pillow mode: count}.
        aspect: min, median and max of width / height.
        classes: {class: usable pictures}; empty without labels.
        grey, transparent, animated: pictures that are.
        exact_duplicates, near_duplicates: groups of names.
        left_out: [{"name", "kind", "reason"}], kind unreadable, truncated, bomb or unlabelled.
        skipped: {reason or extension: files that were passed over}.
        warnings: in order of weight.
        notes: remarks of the source.
        examples: what a pack would hold: the usable pictures, or the tiles that they are cut into.
    """

    path: str
    kind: str
    total: int
    usable: int
    resolution: tuple[int, int]
    resolution_why: str
    channels: str
    sizes: dict[str, float]
    common_sizes: dict[str, int]
    modes: dict[str, int]
    aspect: dict[str, float]
    classes: dict[str, int]
    grey: int
    transparent: int
    animated: int
    exact_duplicates: list[list[str]]
    near_duplicates: list[list[str]]
    left_out: list[dict[str, str]]
    skipped: dict[str, int]
    warnings: list[Warning] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    examples: int = 0

    @property
    def ok(self) -> bool:
        """Whether training can begin, whatever the warnings."""
        return self.usable > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """The report as plain text."""
        out = [f"{self.path} ({self.kind}): {self.usable:,} of {self.total:,} pictures usable"]
        if self.usable:
            out += self._shape_lines()
        if self.classes:
            shown = [f"{name} {count:,}" for name, count in list(self.classes.items())[:_SHOWN]]
            more = ", ..." if len(self.classes) > _SHOWN else ""
            out.append(f"classes     {len(self.classes)}: {', '.join(shown)}{more}")
        for what, groups in (
            ("identical", self.exact_duplicates),
            ("alike", self.near_duplicates),
        ):
            if groups:
                spare = sum(len(group) - 1 for group in groups)
                out.append(f"{what:<11} {spare:,} to spare, e.g. {' = '.join(groups[0][:3])}")
        if self.skipped:
            seen = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
            out.append(f"passed over {seen}")
        for entry in self.left_out[:_SHOWN]:
            out.append(f"left out    {entry['name']}: {entry['reason']}")
        if len(self.left_out) > _SHOWN:
            out.append(f"left out    ... and {len(self.left_out) - _SHOWN:,} more")
        out += [f"note: {note}" for note in self.notes]
        out += [f"warning: {warning.text}" for warning in self.warnings]
        return out

    def _shape_lines(self) -> list[str]:
        s, a = self.sizes, self.aspect
        modes = ", ".join(f"{mode} {count:,}" for mode, count in self.modes.items())
        height, width = self.resolution
        return [
            f"height      {s['height_min']:g} / {s['height_median']:g} / {s['height_max']:g}"
            " pixels (min / median / max)",
            f"width       {s['width_min']:g} / {s['width_median']:g} / {s['width_max']:g}",
            f"width:height {a['min']:.2f} / {a['median']:.2f} / {a['max']:.2f}",
            f"modes       {modes}",
            f"packed as   {height}x{width} {self.channels} ({self.resolution_why})",
        ]


def check(
    source: Source | str | Path,
    resolution: tuple[int, int] | int | None = None,
    *,
    channels: Channels = "auto",
    fit: Fit = "crop",
    workers: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Check:
    """Look at every picture of a source. Writes nothing but a memory of the scan in the cache.

    Args:
        source: an opened source, or what `open_source` takes.
        resolution, channels, fit: what training will ask for, as in `PackOptions`.
        workers: threads; all cores if None.
        progress: called as progress(what, done, total).
        cache: the cache folder; `FAUSSAIRE_CACHE` or the platform's if None.
    """
    if not isinstance(source, Source):
        with open_source(source) as opened:
            return check(
                opened,
                resolution,
                channels=channels,
                fit=fit,
                workers=workers,
                progress=progress,
                cache=cache,
            )
    seen = scan(source, workers=workers, progress=progress, cache=cache)
    return judge(source, seen, PackOptions(resolution=resolution, channels=channels, fit=fit))


def judge(source: Source, seen: Scan, options: PackOptions) -> Check:
    """Put a scan into words."""
    names, labels = source.listing.names, source.listing.labels
    rows, left_out = usable(source, seen)
    size, why, mode = (0, 0), "there is no usable picture", ""
    if len(rows):
        size, why = choose_resolution(seen, rows, as_pair(options.resolution))
        mode = choose_channels(seen, rows, options.channels)
    examples = len(rows)
    if options.fit == "tiles" and len(rows):
        examples = int(tile_grids(seen, rows, size).prod(1).sum())
        why = f"{why}: {examples:,} tiles of {len(rows):,} pictures"
    counts = Counter(label for r in rows.tolist() if (label := labels[r]) is not None)
    same, alike = _duplicates(seen, rows)
    flags = seen.flags[rows]
    notes = list(source.notes)
    if 0 < sum(counts.values()) < seen.good.sum():
        notes.append(f"{told_labels([*counts.values()], int(seen.good.sum()))}.")
    result = Check(
        path=source.path,
        kind=source.kind,
        total=len(names),
        usable=len(rows),
        resolution=size,
        resolution_why=why,
        channels=mode,
        sizes=_sizes(seen.sizes[rows]),
        common_sizes=_common(seen.sizes[rows]),
        modes=dict(Counter(seen.modes[r] for r in rows.tolist()).most_common()),
        aspect=_aspect(seen.sizes[rows]),
        classes={name: counts[name] for name in class_order(list(counts))},
        grey=int(np.count_nonzero(flags & GREY)),
        transparent=int(np.count_nonzero(flags & ALPHA)),
        animated=int(np.count_nonzero(flags & ANIMATED)),
        exact_duplicates=[[names[r] for r in group] for group in same],
        near_duplicates=[[names[r] for r in group] for group in alike],
        left_out=left_out,
        skipped=dict(source.skipped.most_common()),
        notes=notes,
        examples=examples,
    )
    result.warnings.extend(_warnings(result, seen.sizes[rows], options.fit))
    return result


def _duplicates(seen: Scan, rows: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    kept = set(rows.tolist())
    found = duplicates.exact([d if r in kept else "" for r, d in enumerate(seen.digests)])
    copies = {row for group in found for row in group[1:]}
    unique = np.array([r for r in rows.tolist() if r not in copies], np.int64)
    return found, duplicates.near(seen.thumbs, unique)


def _sizes(sizes: np.ndarray) -> dict[str, float]:
    if len(sizes) == 0:
        return {}
    out: dict[str, float] = {}
    for axis, name in enumerate(("height", "width")):
        column = sizes[:, axis]
        out[f"{name}_min"] = int(column.min())
        out[f"{name}_median"] = float(np.median(column))
        out[f"{name}_max"] = int(column.max())
    return {**out, "smallest_side": int(sizes.min()), "largest_side": int(sizes.max())}


def _common(sizes: np.ndarray) -> dict[str, int]:
    counts = Counter(map(tuple, sizes.tolist()))
    return {f"{h}x{w}": count for (h, w), count in counts.most_common(_SHOWN)}


def _aspect(sizes: np.ndarray) -> dict[str, float]:
    if len(sizes) == 0:
        return {}
    ratio = sizes[:, 1] / sizes[:, 0]
    return {"min": float(ratio.min()), "median": float(np.median(ratio)), "max": float(ratio.max())}


def _warnings(c: Check, sizes: np.ndarray, fit: Fit) -> list[Warning]:
    """Every warning that applies, the gravest first. sizes: (usable, 2)."""
    if c.usable == 0:
        return [Warning("empty", "No picture can be used.")]
    return (
        _amount(c, "tiles" if fit == "tiles" else "pictures")
        + _faults(c)
        + _shapes(c, sizes, fit)
        + _looks(c)
        + _copies(c)
        + _balance(c)
    )


AMOUNT = ("too-few", "few")
"""Warnings that are of discriminators."""


def _amount(c: Check, what: str) -> list[Warning]:
    if c.examples < _MEMORISES:
        text = (
            f"Only {c.examples} {what}: a GAN almost surely memorises them instead of learning. "
            f"Collect at least {_FEW}, better several thousand."
        )
        return [Warning("too-few", text)]
    if c.examples < _FEW:
        text = f"Only {c.examples} {what}: use augmentation, or the discriminator memorises them."
        return [Warning("few", text)]
    return []


def _faults(c: Check) -> list[Warning]:
    out: list[Warning] = []
    kinds = Counter(entry["kind"] for entry in c.left_out)
    words = {
        "unreadable": "cannot be read",
        "truncated": "are cut short (an interrupted download or copy?)",
        "bomb": "declare so many pixels or bytes that they were not opened",
        "unlabelled": "have no label",
    }
    for kind, count in kinds.most_common():
        text = f"{count:,} of {c.total:,} pictures {words[kind]}; they will be left out."
        if kind == "unlabelled":
            text = f"{text[:-1]}, but by families that learn from both (sgan)."
        out.append(Warning(kind, text))
    return out


def _shapes(c: Check, sizes: np.ndarray, fit: Fit) -> list[Warning]:
    out: list[Warning] = []
    height, width = c.resolution
    ratio = (sizes[:, 1] / sizes[:, 0]) / (width / height)
    lost = 1.0 - np.minimum(ratio, 1.0 / ratio)  # share of each picture outside the crop
    cut = int((lost > _LOSS).sum())
    if fit == "crop" and cut > 0.05 * c.usable:
        text = (
            f"Cropping to {height}x{width} cuts more than a quarter off {cut:,} pictures "
            f"(width:height is {c.aspect['min']:.2f} to {c.aspect['max']:.2f}). "
            "Choose a resolution of their shape, or fit=pad."
        )
        out.append(Warning("aspect", text))
    enlarged = np.maximum(height / sizes[:, 0], width / sizes[:, 1])
    small = int((enlarged > _ENLARGED).sum())
    if small > 0:
        text = (
            f"{small:,} pictures are much smaller than {height}x{width}; "
            "they are enlarged and blurry, and the generator will learn the blur."
        )
        out.append(Warning("upscaled", text))
    return out


def _looks(c: Check) -> list[Warning]:
    out: list[Warning] = []
    if c.channels != "L" and 0 < c.grey < c.usable:
        text = f"{c.grey:,} of {c.usable:,} pictures are grey among colour ones."
        out.append(Warning("mixed-modes", text))
    if c.channels == "L" and c.grey < c.usable:
        text = f"{c.usable - c.grey:,} pictures have colours, which channels=L removes."
        out.append(Warning("colours-lost", text))
    if c.transparent and c.channels != "RGBA":
        text = (
            f"{c.transparent:,} pictures have transparent pixels, which will be shown on the "
            f"background colour; channels=RGBA keeps them."
        )
        out.append(Warning("transparent", text))
    if c.animated:
        text = f"Of {c.animated:,} animated pictures only the first frame is used."
        out.append(Warning("animated", text))
    if deep := sum(count for mode, count in c.modes.items() if mode[0] in "IF"):
        text = (
            f"{deep:,} pictures have 16 bits or more and are scaled from 0..65535 to 0..255; "
            "if they look black, stretch their contrast first."
        )
        out.append(Warning("deep", text))
    return out


def _copies(c: Check) -> list[Warning]:
    out: list[Warning] = []
    for code, groups, word in (
        ("duplicates", c.exact_duplicates, "copies of others"),
        ("near-duplicates", c.near_duplicates, "nearly the same as others"),
    ):
        spare = sum(len(group) - 1 for group in groups)
        if spare > 0.01 * c.usable:
            text = (
                f"{spare:,} of {c.usable:,} pictures are {word} "
                f"(for example {' and '.join(groups[0][:2])}); the generator will favour them."
            )
            out.append(Warning(code, text))
    return out


def _balance(c: Check) -> list[Warning]:
    if not c.classes:
        return []
    out: list[Warning] = []
    single = [name for name, count in c.classes.items() if count == 1]
    if single:
        text = (
            f"{len(single):,} of {len(c.classes):,} classes have a single picture "
            f"(for example '{single[0]}'), which a conditional GAN can only memorise."
        )
        out.append(Warning("single-picture-classes", text))
    if len(c.classes) == 1:
        out.append(
            Warning("one-class", f"All pictures have the one class '{next(iter(c.classes))}'.")
        )
    low, high = min(c.classes, key=c.classes.__getitem__), max(c.classes, key=c.classes.__getitem__)
    if c.classes[high] >= _IMBALANCE * c.classes[low]:
        text = (
            f"The classes are uneven: '{high}' has {c.classes[high]:,} pictures, "
            f"'{low}' has {c.classes[low]:,}; rare classes will look poor."
        )
        out.append(Warning("imbalance", text))
    return out
