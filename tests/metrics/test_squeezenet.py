"""SqueezeNet against the paper's table, against itself written out plainly, and on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from faussaire.metrics.extractors import Extractor, open_extractor
from faussaire.metrics.squeezenet import CLASSES, FEATURES, SqueezeNet

# The order of layers (table 1 of the paper, and version 1.1), fire modules by number; * marks taps.
ORDER = {
    "1.0": "conv* pool 2 3* 4 pool 5* 6* 7* 8* pool 9*",
    "1.1": "conv* pool 2 3* pool 4 5* pool 6* 7* 8* 9*",
}  # fmt: skip


def random_net(version: str, classes: int = 0) -> SqueezeNet:
    torch.manual_seed(0)
    return SqueezeNet(version, classes).requires_grad_(False)  # type: ignore[arg-type]


def plainly(version: str, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The stages, from the order of layers alone: no module, nothing in place."""

    def conv(name: str, x: Tensor, **how: int) -> Tensor:
        return F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how))

    stages, index = [], 0
    for layer in ORDER[version].split():
        kind = layer.strip("*")
        if kind == "conv":
            x = conv("features.0", x, stride=2)
            index += 1  # its ReLU is a layer of its own
        elif kind == "pool":
            # A window that sticks out by a pixel counts too.
            x = F.pad(x, (0, 1, 0, 1), value=-torch.inf)
            x = x.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
        else:
            fire = f"features.{index}"
            x = conv(f"{fire}.squeeze", x)
            x = torch.cat(
                [conv(f"{fire}.expand1x1", x), conv(f"{fire}.expand3x3", x, padding=1)], 1
            )
        index += 1
        if layer.endswith("*"):
            stages.append(x)
    return stages


@pytest.mark.parametrize(("version", "parameters"), [("1.0", 1_248_424), ("1.1", 1_235_496)])
def test_it_has_as_many_parameters_as_torchvision_publishes(version, parameters):
    net = random_net(version, CLASSES)
    assert sum(value.numel() for value in net.parameters()) == parameters
    assert {"features.0.weight", "features.3.squeeze.bias", "classifier.1.weight"} < set(
        net.state_dict()
    )


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("size", [(96, 64), (37, 52)])
def test_stages_and_features_are_those_of_the_network_written_out(version, size):
    net = random_net(version, 5)
    x = torch.randn(2, 3, *size)
    stages, wanted = net.stages(x), plainly(version, net.state_dict(), x)
    assert [stage.shape for stage in stages] == [stage.shape for stage in wanted]
    for stage, want in zip(stages, wanted, strict=True):
        torch.testing.assert_close(stage, want, rtol=1e-4, atol=1e-6)
    features, logits = net(x)
    torch.testing.assert_close(features, wanted[-1].mean((2, 3)), rtol=1e-4, atol=1e-6)
    head = net.state_dict()["classifier.1.weight"], net.state_dict()["classifier.1.bias"]
    torch.testing.assert_close(logits, F.relu(F.conv2d(wanted[-1], *head)).mean((2, 3)))


def test_the_stages_of_1_1_are_those_that_lpips_has_heads_for():
    stages = random_net("1.1").stages(torch.randn(1, 3, 224, 224))
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (64, 111, 111), (128, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (512, 13, 13),
        (512, 13, 13),
    ]  # fmt: skip


def test_gradients_pass_through_the_stages():
    net = random_net("1.1").double()
    x = torch.randn(1, 3, 40, 40, dtype=torch.float64, requires_grad=True)
    state = net.state_dict()

    def slope(stages: list[Tensor]) -> Tensor:
        return torch.autograd.grad(torch.stack([s.square().mean() for s in stages]).sum(), x)[0]

    mine, plain = slope(net.stages(x)), slope(plainly("1.1", state, x))
    assert float(plain.norm()) > 0
    torch.testing.assert_close(mine, plain)


def test_a_state_tells_whether_there_is_a_classifier():
    whole = random_net("1.0", 7)
    again = SqueezeNet.like("1.0", whole.state_dict())
    again.load_state_dict(whole.state_dict())
    features_only = {k: v for k, v in whole.state_dict().items() if k.startswith("features")}
    bare = SqueezeNet.like("1.0", features_only)
    bare.load_state_dict(features_only)
    x = torch.randn(1, 3, 64, 64)
    (features, logits), (bare_features, none) = again(x), bare(x)
    assert logits.shape == (1, 7)
    assert none is None
    assert torch.equal(features, bare_features)


@pytest.fixture
def photographs(real_data: Path) -> list[Image.Image]:
    """20 photographs of 481x321 or 321x481."""
    files = sorted((real_data / "bsds500" / "test" / "photo").glob("*.jpg"))[:20]
    if not files:
        pytest.skip("no bsds500 in FAUSSAIRE_DATA")
    return [Image.open(file).convert("RGB") for file in files]


@pytest.fixture
def trained(real_data: Path, monkeypatch: pytest.MonkeyPatch):
    """trained(name) opens a SqueezeNet with its real weights."""
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")

    def open_it(name: str) -> Extractor:
        return open_extractor(name, weights=real_data / "weights", device="cpu")

    return open_it


def look(extractor: Extractor, pictures: list[Image.Image]) -> tuple[Tensor, Tensor | None]:
    found = [extractor(np.asarray(picture)[None]) for picture in pictures]
    logits = [one.logits for one in found if one.logits is not None]
    return torch.cat([one.vectors for one in found]), torch.cat(logits) if logits else None


def test_trained_weights_recognise_photographs_and_not_noise(trained, photographs):
    extractor = trained("squeezenet1.0")
    assert (extractor.dimensions, extractor.classes) == (FEATURES, CLASSES)
    _, logits = look(extractor, photographs)
    assert logits is not None
    likely, classes = logits.softmax(1).max(1)
    # Measured on 60: confidence 0.66 in the mean, 52 different classes; noise 0.08, one class.
    assert float(likely.mean()) > 0.5
    assert len(set(classes.tolist())) > 12
    noise = np.random.default_rng(0).integers(0, 256, (4, 321, 481, 3), dtype=np.uint8)
    noisy = extractor(noise).logits
    assert noisy is not None
    assert float(noisy.softmax(1).max(1)[0].mean()) < 0.25


@pytest.mark.parametrize("name", ["squeezenet1.0", "squeezenet1.1"])
def test_the_more_a_photograph_is_blurred_the_further_its_features_move(trained, photographs, name):
    extractor, sharp = trained(name), photographs[:3]
    vectors, _ = look(extractor, sharp)
    moved = []
    for radius in (0.5, 1.5, 4):
        blurred, _ = look(extractor, [p.filter(ImageFilter.GaussianBlur(radius)) for p in sharp])
        moved.append(float(((blurred - vectors).norm(dim=1) / vectors.norm(dim=1)).mean()))
    assert moved == sorted(moved)
    assert moved[0] > 0.01
    assert moved[-1] > 0.4


def test_a_picture_has_the_same_features_in_every_company(trained, photographs):
    extractor = trained("squeezenet1.1")
    pictures = np.stack([np.asarray(p.resize((48, 40))) for p in photographs])
    together = extractor(pictures).vectors
    apart = torch.cat([extractor(pictures[i : i + 5]).vectors for i in range(0, 20, 5)])
    assert float(((together - apart).norm(dim=1) / together.norm(dim=1)).max()) < 1e-5
    assert torch.equal(extractor(pictures).vectors, together)
