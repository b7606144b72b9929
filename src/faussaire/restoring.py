"""A family with its weights, from a checkpoint on disk: for models, and for families that borrow one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faussaire.core.checkpoint import Checkpoints, load_checkpoint
from faussaire.core.config import resolve
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.run import Run
from faussaire.core.state import load_nets
from faussaire.families import load_family
from faussaire.modality import load_modality


@dataclass(frozen=True)
class Restored:
    """What a checkpoint held.

    Attributes:
        family: with the averaged weights in place of the raw ones; on the CPU, in training mode.
        spec: what its data look like.
        examples: how many it had seen.
    """

    family: Family[Any]
    spec: Any
    examples: int


def restore(path: str | Path, checkpoint: str = "latest") -> Restored:
    """A family from a run folder, or from one checkpoint folder.

    Args:
        path: `RUN` or `RUN/checkpoints/000012800`.
        checkpoint: of a run: `latest`, a mark, or a number of examples seen.

    Raises:
        UserError: nothing to load there, or it is damaged.
    """
    folder = Path(path)
    if not (folder / "state.json").exists():
        folder = Checkpoints(Run.find(folder).checkpoints).find(checkpoint)
    groups, record = load_checkpoint(folder, only=("networks", "averaged"))
    try:
        kind = load_family(record["family"])
        settings = resolve(record["family"], "", kind.Config, record["model"])
        spec = load_modality(kind).spec(record["spec"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"'{folder}' does not say which networks it holds ({error}).", "Use another checkpoint."
        ) from error
    family = kind(settings.model, spec)
    load_nets(family.nets, groups["networks"])
    load_nets({name: family.nets[name] for name in family.averaged}, groups["averaged"])
    return Restored(family, spec, int(record["examples"]))


def fingerprint(nets: Mapping[str, nn.Module]) -> str:
    """Of all weights of some nets, 16 digits; statistics, which settling changes, do not count."""
    digest = hashlib.sha256()
    for name, net in sorted(nets.items()):
        for key, value in net.named_parameters():
            digest.update(f"{name}.{key} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
