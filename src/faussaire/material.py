"""What a run trains on: one set of pictures, pairs of them, or two sets; packed, and described."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import ImageColor

from faussaire.core.batch import mix
from faussaire.core.config import PartlyLabelledData, PictureData, Settings
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.quantity import format_resolution
from faussaire.data.check import AMOUNT, Check, check
from faussaire.data.fit import centre, enlarged
from faussaire.data.pack import Images, pack
from faussaire.data.pairs import aligned_options, open_pair
from faussaire.data.parallel import Progress
from faussaire.data.plan import PackOptions
from faussaire.data.source import Source, digest
from faussaire.data.sources import open_source
from faussaire.data.stream import Stream
from faussaire.labelling import Labelling

_CHANNELS = {"auto": "auto", "grey": "L", "rgb": "RGB", "rgba": "RGBA"}

_SIDE_BY_SIDE = 512
"""Pictures of two sets that are not pairs that the doctor is shown side by side."""


@dataclass(frozen=True, kw_only=True)
class PictureMaterial:
    """Packed data.

    Attributes:
        images: what is to be made, at the run's resolution.
        inputs: what it is to be made from, or the other set; None: noise, or the pictures themselves.
        paired: whether picture i is to be made from input i.
        wide: both with their margins, of which training sees a part, by field name: uint8 (N, H, W, C).
        report: what the preflight says of `images`; None: it was not asked.
        alone: pictures without a partner: [{"name", "side", "reason"}].
        own_inputs: channels of inputs that the family makes itself; 0: none.
        labelling: for families that learn from pictures with and without a label: who has one, in
            place of `images.labels`.
    """

    images: Images
    inputs: Images | None = None
    paired: bool = False
    wide: Mapping[str, np.ndarray]
    report: Check | None = None
    alone: tuple[Mapping[str, str], ...] = ()
    pair_notes: tuple[str, ...] = ()
    own_inputs: int = 0
    labelling: Labelling | None = None

    @property
    def sets(self) -> dict[str, Images]:
        """Packs by field name."""
        found = {} if self.inputs is None else {"inputs": self.inputs}
        return {**found, "images": self.images}

    @property
    def spec(self) -> Pictures:
        """What the family is told of the data."""
        height, width = self.images.resolution
        return Pictures(
            channels=self.images.channels,
            height=height,
            width=width,
            classes=tuple(self.images.classes),
            input_channels=self.own_inputs if self.inputs is None else self.inputs.channels,
        )

    @property
    def key(self) -> str:
        """Of the contents: the pack's, or that of both."""
        return self.images.key if self.inputs is None else digest(self.inputs.key, self.images.key)

    @property
    def notes(self) -> list[str]:
        """What the user should know of it, as sentences."""
        own = [*self.pair_notes, *([] if self.labelling is None else [self.labelling.note])]
        return [*own, *(note for images in self.sets.values() for note in images.notes)]

    @property
    def tables(self) -> list[dict[str, np.ndarray]]:
        """The data by field name, one table for all that belongs together, without margins."""
        return self._tables({name: images.pixels for name, images in self.sets.items()})

    def _tables(self, fields: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        fields = dict(fields)
        labels = {} if self.images.labels is None else {"labels": self.images.labels}
        if self.inputs is not None and not self.paired:
            return [{"inputs": fields["inputs"]}, {"images": fields["images"], **labels}]
        return [{**fields, **labels}]

    def split(self, holdout: float | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each table the rows that are trained on and those held out, (K,) int64 each, in order.

        Which they are depends on their number alone: runs of different seeds can be compared. Tiles
        of one picture are all on one side.

        Raises:
            UserError: nothing would be left to train on.
        """
        whole = [self.images] if self.inputs is None or self.paired else [*self.sets.values()]
        return [split(len(images), holdout, tile_counts(images)) for images in whole]

    def one_table(
        self, holdout: float | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The data as one table, and its rows that are trained on and held out: for the doctor.

        Of two sets, which have no common rows, some pictures of each stand side by side.
        """
        tables, splits = self.tables, self.split(holdout)
        if len(tables) == 1:
            return tables[0], *splits[0]
        counts = [
            min(_SIDE_BY_SIDE, *(len(rows) for rows in part)) for part in zip(*splits, strict=True)
        ]
        beside: dict[str, np.ndarray] = {}
        for table, parts in zip(tables, splits, strict=True):
            rows = np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])
            beside |= {name: np.ascontiguousarray(field[rows]) for name, field in table.items()}
        order = np.arange(sum(counts))
        return beside, order[: counts[0]], order[counts[0] :]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def warnings(self) -> list[str]:
        """What the preflight found odd, as sentences; nothing where it was not asked."""
        return [] if self.report is None else [warning.text for warning in self.report.warnings]

    def settled(self, data: PictureData) -> PictureData:
        """These settings with what was left to choose filled in."""
        return dataclasses.replace(
            data,
            resolution=self.images.resolution,
            channels={1: "grey", 3: "rgb", 4: "rgba"}[self.images.channels],
            holdout=data.share(len(self.split(data.holdout)[-1][1]), len(self)),
        )

    def stream(self, data: PictureData, *, seed: int, rank: int, world: int) -> Stream:
        """The endless stream of one process."""
        rows = [train if len(unseen) else None for train, unseen in self.split(data.holdout)]
        tables, wide, known = self._tables(self.wide), dict(self.wide), self.labelling
        if known is not None:  # the same pictures once more, those with a label, in their own order
            wide["labelled"] = wide["images"]
            tables.append({"labelled": wide["images"], "labels": known.labels})
            rows.append(known.told)
        names = tuple(wide)
        size = self.images.resolution
        cut = {name: size for name in names if wide[name].shape[1:3] != size}
        return Stream(
            tables,
            rows=rows,
            seed=seed,
            flip=names if data.flip else (),
            crop=cut or None,
            rank=rank,
            world=world,
        )

    def describe(self, source: str, target: str | None) -> dict[str, Any]:
        """What `data.json` holds."""
        assert self.report is not None
        height, width = self.images.resolution
        found = {
            "source": source,
            "kind": self.report.kind,
            "count": len(self.images),
            "resolution": format_resolution(height, width),
            "resolution_why": self.images.meta.get("resolution_why", ""),
            "channels": self.images.channels,
            "classes": self.images.classes,
            "class_counts": dict(self.report.classes),
            "key": self.key,
            "left_out": self.images.left_out,
            "warnings": self.warnings,
            "notes": self.notes,
        }
        if self.inputs is not None:
            found |= {
                "target": target,
                "paired": self.paired,
                "input_count": len(self.inputs),
                "input_channels": self.inputs.channels,
                "alone": [dict(one) for one in self.alone],
            }
        return found

    def facts(self) -> dict[str, Any]:
        """What a rehearsal tells programs of the data."""
        return {
            "pictures": len(self.images),
            "left_out": len(self.images.left_out),
            "resolution": format_resolution(*self.images.resolution),
            "channels": self.images.channels,
            "classes": len(self.images.classes),
        }

    def told(self) -> str:
        """What a rehearsal tells people, in a line."""
        facts = self.facts()
        return (
            f"{facts['pictures']:,} pictures as {facts['resolution']} x {facts['channels']}, "
            f"{facts['left_out']} left out"
        )


def tile_counts(images: Images) -> np.ndarray | None:
    """How many rows of a pack each of its pictures became, (pictures,), in order; None: one each."""
    if "pictures" not in images.meta:
        return None
    owners = [name.rpartition("#")[0] for name in images.names]
    starts = [row for row in range(len(owners)) if row == 0 or owners[row] != owners[row - 1]]
    return np.diff([*starts, len(owners)])


def split(
    count: int, holdout: float | None, tiles: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` rows those to train on and those to hold out; see `PictureMaterial.split`.

    Args:
        count: rows.
        holdout: the share to hold out; None: 2 %, 500 at most, of 1,000 rows or more.
        tiles: how many rows in succession belong to one picture, (pictures,); None: one each.

    Raises:
        UserError: nothing would be left to train on.
    """
    if holdout is None:
        unseen = min(500, count // 50) if count >= 1000 else 0
    else:
        unseen = round(holdout * count)
    sizes = np.ones(count, np.int64) if tiles is None else tiles
    draws = np.random.Philox(key=mix("held out")).random_raw(len(sizes))
    order = np.argsort(draws, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = order[before < unseen]  # whole pictures, until there are rows enough
    if holdout is None and 2 * sizes[chosen].sum() > count:
        chosen = chosen[:0]  # a picture of very many tiles among few: rather train on it
    held = np.repeat(np.isin(np.arange(len(sizes)), chosen), sizes)
    if held.all():
        what = "pictures" if tiles is None else f"tiles of {len(sizes)} pictures"
        raise UserError(
            f"--holdout {holdout or 0:g} of {count} {what} leaves none to train on.",
            "Give a smaller share, or 0.",
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def read_material(
    settings: Settings,
    kind: type[Family[Any]],
    *,
    progress: Progress | None = None,
    preflight: bool = True,
    needs: Literal["one", "pair", "two"] | None = None,
) -> PictureMaterial:
    """The pictures that a run's settings name, packed.

    Args:
        settings: of the run.
        kind: its family.
        progress: called as progress(what, done, total).
        preflight: whether to look for what is odd about them.
        needs: how the sources belong together; None: as the family has it.

    Raises:
        UserError: nothing usable, no pairs, or an option that does not fit.
    """
    data, needs = settings.data, needs or kind.needs(settings.model)
    target = getattr(data, "target", None)
    halves = getattr(data, "halves", False)
    _expect(settings, needs, target, halves)
    options = pack_options(settings)
    with ExitStack() as open_sources:
        if needs == "one":
            source = open_sources.enter_context(
                open_source(
                    settings.source,
                    classes=data.classes,
                    labels=data.labels,
                    partial=kind.partly_labelled,
                )
            )
            return read_one(source, settings, kind, options, progress, preflight)
        alone, notes = (), ()
        if needs == "pair":
            pair = open_sources.enter_context(open_pair(settings.source, target, halves=halves))
            first, second = pair.inputs, pair.targets
            alone, notes = tuple(pair.alone), tuple(pair.notes)
            if getattr(data, "backward", False):
                first, second = second, first
            settled = aligned_options(pair, options)[0]
        else:
            first = open_sources.enter_context(open_source(settings.source, classes="none"))
            second = open_sources.enter_context(open_source(str(target), classes="none"))
            settled = options
        if options.resolution is None and settled.resolution is not None:
            # The pairs' own size, which is nobody's wish: enlarged where it is too small.
            assert isinstance(settled.resolution, tuple)
            asked = _large_enough(settled.resolution, kind)
        else:
            asked = _size(options, second, kind, progress)
        wide_options = dataclasses.replace(options, resolution=enlarged(asked, data.margin))
        packs = {
            name: pack(source, wide_options, progress=progress)
            for name, source in (("inputs", first), ("images", second))
        }
        report = _report(second, kind, options, asked, progress) if preflight else None
        return PictureMaterial(
            images=_middle(packs["images"], asked),
            inputs=_middle(packs["inputs"], asked),
            paired=needs == "pair",
            wide={name: images.pixels for name, images in packs.items()},
            report=report,
            alone=alone,
            pair_notes=notes,
        )


def pack_options(settings: Settings) -> PackOptions:
    """How the settings want pictures packed.

    Raises:
        UserError: the background is no colour.
    """
    data = settings.data
    try:
        background = ImageColor.getrgb(data.background)[:3]
    except ValueError as error:
        raise UserError(
            f"'{data.background}' is not a colour.", "Write white, black or #rrggbb."
        ) from error
    return PackOptions(
        resolution=data.resolution,
        channels=_CHANNELS[data.channels],  # pyright: ignore[reportArgumentType]
        fit=data.fit,
        background=background,  # pyright: ignore[reportArgumentType]
    )


def _expect(settings: Settings, needs: str, target: str | None, halves: bool) -> None:
    """Refuse sources that do not fit the family.

    Raises:
        UserError: one is missing, or one too many is given.
    """
    family = settings.family
    if needs == "one" and (target is not None or halves):
        raise UserError(
            f"{family} makes its inputs itself with these settings, and "
            f"{'--halves' if halves else f'a second source ({target})'} was given, too.",
            "Leave out one of them.",
        )
    if needs == "pair" and target is None and not halves:
        raise UserError(
            f"{family} learns from pairs, and only '{settings.source}' was given.",
            f"Name the folder of what its pictures are to become: faussaire train {family} "
            f"{settings.source} TARGETS/; or add --halves where pairs lie side by side, or --make "
            "edges (grey, mask, small) to have inputs made of the pictures.",
        )
    if needs == "two" and target is None:
        raise UserError(
            f"{family} learns between two sets of pictures, and only '{settings.source}' was given.",
            f"Name the second right after it: faussaire train {family} {settings.source} OTHERS/",
        )


def read_one(
    source: Source,
    settings: Settings,
    kind: type[Family[Any]],
    options: PackOptions,
    progress: Progress | None,
    preflight: bool,
) -> PictureMaterial:
    """Pictures of one source, packed, that nothing is beside of.

    Args:
        source: opened.
        settings: of the run.
        kind: its family.
        options: of `pack_options`.
        progress: called as progress(what, done, total).
        preflight: whether to look for what is odd about them.

    Raises:
        UserError: no picture is usable.
    """
    asked = _size(options, source, kind, progress)
    images = pack(source, options, progress=progress)
    wide = enlarged(asked, settings.data.margin)
    if images.resolution != wide:
        images = pack(source, dataclasses.replace(options, resolution=wide), progress=progress)
    report = None
    if preflight:
        report = _report(source, kind, options, settings.data.resolution, progress)
    return PictureMaterial(
        images=_middle(
            dataclasses.replace(images, labels=None) if kind.partly_labelled else images, asked
        ),
        wide={"images": images.pixels},
        report=report,
        own_inputs=kind.makes(settings.model, images.channels),
        labelling=_labelling(images, settings.data) if kind.partly_labelled else None,
    )


def _labelling(images: Images, data: PictureData) -> Labelling | None:
    """Who has a label; None where nobody has.

    Raises:
        UserError: a class would have no label to learn from.
    """
    if images.labels is None:
        return None
    train, held = split(len(images), data.holdout, tile_counts(images))
    assert isinstance(data, PartlyLabelledData)
    return Labelling.of(
        images.labels,
        images.classes,
        train,
        held,
        only=data.labels_only,
        seed=data.labels_seed,
    )


def _report(
    source: Source,
    kind: type[Family[Any]],
    options: PackOptions,
    resolution: tuple[int, int] | int | None,
    progress: Progress | None,
) -> Check:
    """What the pictures are like, for this family."""
    found = check(source, resolution, channels=options.channels, fit=options.fit, progress=progress)
    if kind.adversarial:
        return found
    spared = [one for one in found.warnings if one.code not in AMOUNT]
    return dataclasses.replace(found, warnings=spared)


def _size(
    options: PackOptions, source: Source, kind: type[Family[Any]], progress: Progress | None
) -> tuple[int, int]:
    """(height, width) to train at: as asked, else the pictures' own, enlarged where too small."""
    if options.resolution is not None:
        assert isinstance(options.resolution, tuple)
        return options.resolution
    return _large_enough(pack(source, options, progress=progress).resolution, kind)


def _large_enough(size: tuple[int, int], kind: type[Family[Any]]) -> tuple[int, int]:
    """(height, width), as many times as large as the family needs."""
    times = math.ceil(kind.least_side / min(size))
    return size[0] * times, size[1] * times


def _middle(images: Images, size: tuple[int, int]) -> Images:
    """The same without their margins."""
    if images.resolution == size:
        return images
    return dataclasses.replace(images, pixels=centre(images.pixels, size))
