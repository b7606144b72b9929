"""Tiny models in memory, of random weights: what latents do does not depend on training."""

from __future__ import annotations

import pytest
import torch

from faussaire.core.device import Device
from faussaire.core.family import Family, Pictures
from faussaire.families import load_family
from faussaire.latent.editor import Editor
from faussaire.latent.likeness import Likeness
from faussaire.model import Model

PLACE = Device(name="cpu", precision="float32")
SETTINGS = {
    "stylegan2": {"latent": 8, "style": 8, "width": 16, "max_width": 16, "lr": 1e-3},
    "noisy": {"latent": 8, "style": 8, "width": 16, "max_width": 16, "noise": True},
    "dcgan": {"latent": 8, "width": 8, "max_width": 16},
}


def louder(family: Family) -> None:
    """Weights with which an untrained dcgan's pictures differ to the eye."""
    for module in family.nets["generator"].modules():
        if (
            isinstance(weight := getattr(module, "weight", None), torch.Tensor)
            and weight.dim() == 4
        ):
            weight.data.mul_(8.0)


def tiny(name: str, seed: int = 0, channels: int = 3, **spec: object) -> Family:
    """A family as it is loaded: prepared, in evaluation mode."""
    torch.manual_seed(seed)
    kind = load_family({"noisy": "stylegan2"}.get(name, name))
    told = Pictures(channels=channels, height=16, width=16, **spec)  # type: ignore[arg-type]
    conditional = {"conditional": True} if told.classes else {}
    family = kind(kind.Config(**SETTINGS[name], **conditional), told)
    for net in family.nets.values():
        PLACE.prepare(net.eval())
    if name == "dcgan":
        louder(family)
    else:  # within [-1, 1], where a picture ends
        for layer in family.nets["synthesis"].to_rgb:
            layer.convolution.weight.data.mul_(0.25)
    if name == "noisy":
        for layer in family.nets["synthesis"].layers:
            torch.nn.init.constant_(layer.strength, 0.3)
    return family


@pytest.fixture(scope="session")
def stylegan2() -> Family:
    return tiny("stylegan2")


@pytest.fixture(scope="session")
def dcgan() -> Family:
    return tiny("dcgan")


@pytest.fixture
def pixels_only() -> Likeness:
    return Likeness(None)


@pytest.fixture
def editor(stylegan2) -> Editor:
    made = Editor(Model(stylegan2, stylegan2.spec, 0, PLACE))
    made._likeness = Likeness(None)
    return made
