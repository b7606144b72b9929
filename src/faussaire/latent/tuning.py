"""Pivotal tuning: the generator itself is moved a little, until it makes the picture.

Pivotal Tuning for Latent-based Editing of Real Images. Roich, Mokady, Bermano, Cohen-Or. 2021. arXiv
2106.05744. A photograph that no code of a generator gives is first projected to W, where editing works
best; then the generator's weights are lowered along (equation 2)

    L_pt = L_LPIPS(x, G(w_p; theta)) + lambda_L2 L_2(x, G(w_p; theta))

w_p, the pivot, standing still. Codes elsewhere should give what they gave (equations 3 and 4): with w_z
a random sample's and w_r = w_p + alpha (w_z - w_p) / |w_z - w_p|,

    L_R = L_LPIPS(G(w_r; theta*), G(w_r; theta)) + lambda_R L_2(G(w_r; theta*), G(w_r; theta))

Adam at 3e-4, at most 350 steps, and an end where the perceptual distance is below a threshold. Several
photographs given together are pivots of one generator. The run's own files are not touched: the moved
nets are a file of their own.

What differs: the perceptual distance is that of `likeness.py`, so the threshold, 0.06 of LPIPS for its
authors, is a setting and off; alpha, 30 for theirs, is in units of sigma, the root mean square distance
from the mean, and so fits spaces of all sizes; L_R is on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from faussaire.core.batch import mix
from faussaire.core.config import check_range
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.latent.likeness import Likeness, pixels
from faussaire.latent.projection import Found, Telling, Watcher
from faussaire.latent.space import Space
from faussaire.report.files import whole

FORMAT = "faussaire tuned generator 1"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a generator is moved.

    Attributes:
        steps: at most.
        rate: of Adam.
        pixel_weight: lambda_L2, of the mean squared difference of pixels in [-1, 1].
        enough: perceptual distance below which it ends; 0: never before the last step.
        locality: weight of L_R, for codes near the pivots; 0: left out.
        alpha: how far from a pivot those codes are, in sigmas.
        locality_pixels: lambda_R.
        batch: pivots in a step.
    """

    steps: int = 350
    rate: float = 3e-4
    pixel_weight: float = 1.0
    enough: float = 0.0
    locality: float = 0.1
    alpha: float = 1.0
    locality_pixels: float = 1.0
    batch: int = 4

    def __post_init__(self) -> None:
        check_range(
            self,
            steps=(1, 1_000_000),
            rate=(0, None),
            pixel_weight=(0, None),
            enough=(0, None),
            locality=(0, None),
            alpha=(0, None),
            locality_pixels=(0, None),
            batch=(1, 4096),
        )


def tune(
    space: Space,
    found: Found,
    targets: Tensor,
    likeness: Likeness,
    tuning: Tuning | None = None,
    *,
    place: Device,
    seed: int = 0,
    watch: Watcher | None = None,
) -> Family[Any]:
    """A view of the family whose generator makes the pictures of their codes.

    Args:
        space: where the codes are; its family stays as it is.
        found: pivots.
        targets: (N, C, H, W) in [-1, 1].
        likeness: the perceptual distance.
        tuning: how.
        place: where nets run.
        seed: of the codes near the pivots.
        watch: sees how it goes.
    """
    tuning = tuning or Tuning()
    family = space.family
    moved = {name: _copy(family.nets[name], place) for name in family.averaged}
    view = family.with_nets(moved)
    here = copy.copy(space)
    here.family = view
    parameters = [p for net in moved.values() for p in net.parameters()]
    for parameter in parameters:
        parameter.requires_grad_()
    codes, goal = found.codes.to(space.device), targets.to(space.device)
    noise = None if found.noise is None else found.noise.to(space.device)
    labels = None if found.labels is None else found.labels.to(space.device)
    with torch.no_grad():
        wanted = likeness.seen(goal)
    near = space.draw(tuning.steps, mix(seed, "near"))
    optimiser = torch.optim.Adam(parameters, lr=tuning.rate)
    telling = Telling(watch, "tune", tuning.steps)
    count = len(codes)
    for step in range(tuning.steps):
        first = step * min(tuning.batch, count)
        rows = torch.arange(first, first + min(tuning.batch, count)) % count
        some = [one[rows] for one in wanted]
        made = here.render(codes[rows], _rows(noise, rows), _rows(labels, rows))
        distance = likeness.perceptual(likeness.seen(made), some).mean()
        terms = {
            "perceptual": distance,
            "pixels": tuning.pixel_weight * pixels(made, goal[rows]).mean(),
        }
        if tuning.locality:
            pivot = codes[rows[:1]]
            way = near[step : step + 1] - pivot
            length = way.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-8)
            off = pivot + tuning.alpha * space.spread.sigma * way / length
            label, one = _rows(labels, rows[:1]), _rows(noise, rows[:1])
            with torch.no_grad():
                before = space.render(off, one, label)
                known = likeness.seen(before)
            after = here.render(off, one, label)
            apart = likeness.perceptual(likeness.seen(after), known).mean()
            apart = apart + tuning.locality_pixels * pixels(after, before).mean()
            terms["locality"] = tuning.locality * apart
        loss = torch.stack([*terms.values()]).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        telling({name: term.detach() for name, term in terms.items()})
        if count <= tuning.batch and tuning.enough and float(distance) < tuning.enough:
            break
    for parameter in parameters:
        parameter.grad = None
        parameter.requires_grad_(False)
    return view


def _copy(net: nn.Module, place: Device) -> nn.Module:
    """A net of its own weights, ready to run, in evaluation mode."""
    return place.prepare(copy.deepcopy(net), compile=False).eval()


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def save_tuned(path: Path, family: Family[Any], facts: Mapping[str, Any]) -> None:
    """Write the moved nets.

    Args:
        path: ends in .safetensors.
        family: what `tune` gave.
        facts: JSON-ready, kept beside.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name in family.averaged
        for key, value in family.nets[name].state_dict().items()
    }
    metadata = {"format": FORMAT, "facts": json.dumps(dict(facts))}
    with whole(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)


def load_tuned(path: Path, family: Family[Any], place: Device) -> Family[Any]:
    """A view of a family with the nets of a file that `save_tuned` wrote.

    Raises:
        UserError: it is missing, damaged, or another model's.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The tuned generator '{path}' cannot be read ({error}).",
            "Project the picture again with --tune.",
        ) from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"'{path}' is no tuned generator.", "Give what --tune wrote.")
    moved = {}
    for name in family.averaged:
        net = _copy(family.nets[name], place)
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith(f"{name}.")
        }
        try:
            net.load_state_dict(own)
        except RuntimeError as error:
            raise UserError(
                f"'{path}' was tuned from another model than this.",
                "Give the run that it was projected with.",
            ) from error
        moved[name] = net.requires_grad_(False)
    return family.with_nets(moved)
