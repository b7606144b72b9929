"""Frozen features: what a trained network sees in pictures, as rows for a classifier of one's own."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from faussaire.core.device import Device, DeviceName
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.run import Run
from faussaire.data.decode import Fault, decode, decoding, normalise
from faussaire.data.fit import fit, to_array, to_channels
from faussaire.data.pack import pack
from faussaire.data.parallel import Progress
from faussaire.data.plan import PackOptions
from faussaire.data.sources import open_source
from faussaire.report.files import whole

Given = Tensor | np.ndarray | Sequence[Image.Image | str | Path]
"""Pictures as float (N, C, H, W) in [0, 1], as uint8 (N, H, W) or (N, H, W, C), as files or Pillow's."""

_BATCH = 64
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
ENDINGS = (".npz", ".csv", ".parquet")


def features_of(family: Family[Any], device: Device, images: Given) -> Tensor:
    """What a family sees in pictures, float32 (N, K) on the CPU.

    Args:
        family: with its nets in evaluation mode.
        device: where it runs.
        images: arrays and tensors have the size and the channels of the training pictures; files and
            Pillow's pictures are brought to them, the middle of those of other proportions.

    Raises:
        UserError: the family shows no features, the form does not fit, or a file cannot be read.
    """
    x = as_trained(images, family.spec)
    parts = []
    with torch.no_grad():
        for first in range(0, len(x), _BATCH):
            parts.append(family.features(x[first : first + _BATCH].to(device.name)).float().cpu())
    return torch.cat(parts)


def as_trained(images: Given, spec: Pictures) -> Tensor:
    """Pictures as a family was trained on: float32 (N, C, H, W) in [-1, 1].

    Raises:
        UserError: none, another form, or a file that cannot be read.
    """
    if len(images) == 0:
        raise UserError("No pictures were given.", "Give at least one.")
    if isinstance(images, Tensor):
        x = images.float() * 2.0 - 1.0
    else:
        rows = (
            images if isinstance(images, np.ndarray) else np.stack([_row(i, spec) for i in images])
        )
        rows = rows[..., None] if rows.ndim == 3 else rows
        if rows.dtype != np.uint8 or rows.ndim != 4:
            raise UserError(
                f"An array of {rows.dtype} {rows.shape} is no set of pictures.",
                "Give uint8 (N, H, W, C), or a float tensor (N, C, H, W) in [0, 1].",
            )
        x = torch.tensor(rows).permute(0, 3, 1, 2) / 127.5 - 1.0
    if x.ndim != 4 or tuple(x.shape[1:]) != spec.shape:
        channels, height, width = spec.shape
        raise UserError(
            f"The pictures have the form {tuple(x.shape)}, and the run learnt from pictures of "
            f"{width}x{height} with {channels} channels.",
            f"Bring them to (N, {channels}, {height}, {width}), or give files, which are.",
        )
    return x


def _row(image: Image.Image | str | Path, spec: Pictures) -> np.ndarray:
    """One picture as uint8 (H, W, C) of the run's form."""
    white = (255, 255, 255)
    try:
        if not isinstance(image, Image.Image):
            with decoding():
                image = decode(Path(image).read_bytes()).image
        upright = to_channels(normalise(image), _MODES[spec.channels], white)
    except (Fault, OSError) as error:
        raise UserError(f"'{image}' cannot be read: {error}.", "Give another.") from error
    return to_array(fit(upright, (spec.height, spec.width), "crop", white))


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a source's pictures.

    Attributes:
        names: of the pictures within their source, (N,).
        values: float32 (N, K).
        labels: class numbers, (N,) int64, where the source has classes; else None.
        classes: their names.
        left_out: what could not be read: [{"name", "kind", "reason"}].
    """

    names: Sequence[str]
    values: np.ndarray
    labels: np.ndarray | None
    classes: Sequence[str]
    left_out: Sequence[Mapping[str, str]]

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write a table by file name.

        `.npz` holds `names`, `features`, and where there are classes `labels` and `classes`; it opens
        without pickle. `.csv` and `.parquet` have the columns `file`, `label` and `f0`, `f1`, ...

        Raises:
            UserError: another ending, a file that exists, a missing package, or a full disk.
        """
        expect_target(path, overwrite=overwrite)
        write = {".npz": self._npz, ".csv": self._csv, ".parquet": self._parquet}
        with whole(path) as temporary:
            write[path.suffix.lower()](temporary)

    def _npz(self, path: Path) -> None:
        found: dict[str, np.ndarray] = {"names": np.array(self.names), "features": self.values}
        if self.labels is not None:
            found |= {"labels": self.labels, "classes": np.array(self.classes)}
        with path.open("wb") as file:  # savez would add an ending to a name
            np.savez(file, **found)  # pyright: ignore[reportArgumentType]

    def _columns(self) -> dict[str, Any]:
        words = {} if self.labels is None else {"label": [self.classes[i] for i in self.labels]}
        numbers = {f"f{place}": self.values[:, place] for place in range(self.values.shape[1])}
        return {"file": self.names, **words, **numbers}

    def _csv(self, path: Path) -> None:
        columns = self._columns()
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    def _parquet(self, path: Path) -> None:
        import pyarrow as arrow
        from pyarrow import parquet

        parquet.write_table(arrow.table(dict(self._columns())), path)


def expect_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that could not be written, before hours are spent on what it would hold.

    Raises:
        UserError: another ending, a file that exists, or a missing package.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(
            f"'{path}' has none of the endings that features are written with.",
            f"Name a file ending in {', '.join(ENDINGS)}.",
        )
    if path.exists() and not overwrite:
        raise UserError(f"'{path}' exists already.", "Add --overwrite, or name another file.")
    if ending == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UserError(
                "Parquet files need pyarrow, which is not installed.",
                'Install it: pip install "faussaire[parquet]"; or write .npz or .csv.',
            ) from error


def extract(
    path: Path,
    source: str,
    *,
    classes: str = "auto",
    checkpoint: str = "latest",
    device: DeviceName = "auto",
    progress: Progress | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Features of a source's pictures, prepared as the run's training pictures were.

    Args:
        path: a run, or one of its checkpoints.
        source: a folder, an archive, an array, a table ...
        classes: where class names come from, as in training.
        checkpoint: `latest`, a mark, or a number of examples.
        device: where to run.
        progress: of reading, called as progress(what, done, total).
        told: called as told(pictures done, in all).

    Raises:
        UserError: no run, one that shows no features, or no pictures.
    """
    from faussaire.model import load

    model = load(path, checkpoint=checkpoint, device=device)
    family, spec = model.family, model.spec
    if not isinstance(spec, Pictures):
        family.features(torch.empty(0))  # which says what to take instead
    how = Run.around(path).config()
    wanted = str(how.get("fit", "crop"))
    options = PackOptions(
        resolution=(spec.height, spec.width),
        channels=_MODES[spec.channels],  # pyright: ignore[reportArgumentType]
        fit="crop" if wanted == "tiles" else wanted,  # pyright: ignore[reportArgumentType]
        background=ImageColor.getrgb(str(how.get("background", "white")))[:3],  # pyright: ignore
    )
    with open_source(source, classes=classes) as opened:
        images = pack(opened, options, progress=progress)
    parts = []
    for first in range(0, len(images), 1024):
        some = np.asarray(images.pixels[first : first + 1024])
        parts.append(features_of(family, model.device, some).numpy())
        told(min(first + 1024, len(images)), len(images))
    return Features(
        names=images.names,
        values=np.concatenate(parts),
        labels=images.labels,
        classes=images.classes,
        left_out=images.left_out,
    )
