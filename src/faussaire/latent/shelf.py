"""Directions and latents on disk: safetensors with their facts as JSON, from which nothing can run.

RUN/directions/smile.safetensors    a direction, beside the run that it is of
found/photo.safetensors             the latent of a photograph, wherever it was projected to
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from faussaire.core.errors import UserError, nearest
from faussaire.latent.directions import Direction
from faussaire.report.files import whole

_DIRECTION = "faussaire direction 1"
_LATENT = "faussaire latent 1"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The code of one picture.

    Attributes:
        space: `z`, `w` or `w+`.
        code: (1, layers, numbers).
        noise: (1, numbers of all noise planes), or None.
        label: of a conditional model, or None.
        examples: how many examples the model had seen.
        source: the photograph's name, or the seed.
        tuned: path of the generator that was tuned to it, or None.
        psnr: decibels between what the model makes of it and the photograph; None: it is a sample.
    """

    space: str
    code: Tensor
    noise: Tensor | None = None
    label: int | None = None
    examples: int = 0
    source: str = ""
    tuned: Path | None = None
    psnr: float | None = None

    def save(self, path: Path) -> None:
        """Write it; the tuned generator is found again if both move together.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        tensors = {"code": self.code} | ({} if self.noise is None else {"noise": self.noise})
        facts = {
            "space": self.space,
            "label": self.label,
            "examples": self.examples,
            "source": self.source,
            "tuned": None if self.tuned is None else self.tuned.name,
            "psnr": self.psnr,
        }
        _write(path, tensors, _LATENT, facts)

    @classmethod
    def load(cls, path: Path) -> Latent:
        """Read it.

        Raises:
            UserError: it is missing, damaged, or no latent.
        """
        tensors, facts = _read(path, _LATENT, "latent", "Give what `faussaire project` wrote.")
        tuned = facts.pop("tuned", None)
        return cls(
            code=tensors["code"],
            noise=tensors.get("noise"),
            tuned=None if tuned is None else path.parent / tuned,
            **facts,
        )


class Shelf:
    """The directions of a run.

    Args:
        folder: `RUN/directions`; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """In order."""
        return sorted(path.stem for path in self.folder.glob("*.safetensors"))

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def save(self, direction: Direction, *, overwrite: bool = False) -> Path:
        """Keep a direction.

        Raises:
            UserError: its name is none or taken, or the folder cannot be written.
        """
        check_name(direction.name)
        path = self.folder / f"{direction.name}.safetensors"
        if path.exists() and not overwrite:
            raise UserError(
                f"The run has a direction '{direction.name}' already.",
                "Add --overwrite, or choose another name.",
            )
        facts = {
            field.name: getattr(direction, field.name)
            for field in dataclasses.fields(direction)
            if field.name not in ("name", "vector")
        }
        _write(path, {"vector": direction.vector}, _DIRECTION, facts)
        return path

    def load(self, name: str) -> Direction:
        """A direction by its name.

        Raises:
            UserError: there is none, or it is damaged.
        """
        known = self.names()
        if name not in known:
            has = f"The run has {', '.join(known)}." if known else "The run has none yet."
            raise UserError(
                f"The run has no direction '{name}'.{nearest(name, known)}",
                f"{has} Find some with --find pca, --find sefa or --learn NAME.",
            )
        path = self.folder / f"{name}.safetensors"
        tensors, facts = _read(path, _DIRECTION, "direction", "Delete it, and find it again.")
        layers = facts.pop("layers", None)
        return Direction(
            name=name,
            vector=tensors["vector"],
            layers=None if layers is None else (int(layers[0]), int(layers[1])),
            **facts,
        )

    def all(self) -> list[Direction]:
        """Every direction, by name."""
        return [self.load(name) for name in self.names()]


def check_name(name: str) -> None:
    """Refuse what cannot name a direction.

    Raises:
        UserError: with what can.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{name}' cannot name a direction.",
            "Write small letters, digits, - and _, such as smile or head-turned.",
        )


def _write(path: Path, tensors: dict[str, Tensor], kind: str, facts: dict[str, Any]) -> None:
    metadata = {"format": kind, "facts": json.dumps(facts)}
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with whole(path) as temporary:
        safetensors.torch.save_file(ready, temporary, metadata=metadata)


def _read(path: Path, kind: str, noun: str, hint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
        facts = json.loads(metadata.get("facts", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"The {noun} '{path}' cannot be read ({error}).", hint) from error
    if metadata.get("format") != kind:
        raise UserError(f"'{path}' is no {noun}.", hint)
    return tensors, facts
