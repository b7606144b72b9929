"""Maps of frozen networks: VGG-19's shapes, layers by name, and which network is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from faussaire.core.errors import UserError
from faussaire.metrics import maps, vgg
from faussaire.metrics.maps import FeatureMaps, choose, open_maps
from faussaire.metrics.squeezenet import SqueezeNet
from faussaire.metrics.weights import Unavailable


@pytest.fixture(scope="module")
def net() -> vgg.VGG19:
    torch.manual_seed(0)
    return vgg.VGG19()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and no weights anywhere."""
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("FAUSSAIRE_WEIGHTS", raising=False)


def squeezenet_file(folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "squeezenet1_1_features.safetensors"
    save_file(SqueezeNet("1.1").state_dict(), path)
    return path


def test_vgg19_has_the_parameters_and_names_of_torchvisions(net):
    assert sum(value.numel() for value in net.parameters()) == vgg.PARAMETERS == 20_024_384
    # torchvision's places of convolutions, and those of the rectifiers that the paper looks at.
    places = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    kinds = ("weight", "bias")
    assert list(net.state_dict()) == [f"features.{n}.{kind}" for n in places for kind in kinds]
    wanted = {
        "relu1_1": 1,
        "relu2_1": 6,
        "relu3_1": 11,
        "relu4_1": 20,
        "relu4_2": 22,
        "relu5_1": 29,
    }
    assert {name: net.layers[name] for name in wanted} == wanted
    assert len(net.features) == 37


@pytest.mark.parametrize("pool", ["max", "average"])
def test_vgg19s_maps_halve_and_widen(net, pool):
    found = FeatureMaps(
        net.features, net.layers, ["relu5_1", "relu1_1", "relu3_1"],
        mean=vgg.MEAN, deviation=vgg.DEVIATION, pool=pool,
    )  # fmt: skip
    assert found.names == ("relu1_1", "relu3_1", "relu5_1")
    assert len(found.features) == 30  # and no deeper
    assert not any(p.requires_grad for p in found.parameters())
    with torch.no_grad():
        seen = found(torch.rand(1, 3, 64, 48) * 2 - 1)
    shapes = {name: tuple(value.shape) for name, value in seen.items()}
    assert shapes == {
        "relu1_1": (1, 64, 64, 48),
        "relu3_1": (1, 256, 16, 12),
        "relu5_1": (1, 512, 4, 3),
    }
    assert all(value.min() >= 0 for value in seen.values())


def test_pooling_is_replaced_window_by_window():
    layers = [nn.MaxPool2d(3, stride=2, ceil_mode=True)]
    how = {"mean": (0.0,) * 3, "deviation": (1.0,) * 3}
    x = torch.rand(1, 3, 10, 10)
    high = FeatureMaps(layers, {"pool": 0}, ["pool"], **how)(2 * x - 1)["pool"]  # type: ignore[arg-type]
    mean = FeatureMaps(layers, {"pool": 0}, ["pool"], pool="average", **how)(2 * x - 1)["pool"]  # type: ignore[arg-type]
    assert high.shape == mean.shape == (1, 3, 5, 5)
    torch.testing.assert_close(mean[0, :, 0, 0], x[0, :, :3, :3].mean((1, 2)))
    torch.testing.assert_close(high[0, :, 1, 1], x[0, :, 2:5, 2:5].amax((1, 2)))


def test_inputs_are_normalised_as_the_network_was_trained():
    found = FeatureMaps([nn.Identity()], {"in": 0}, ["in"], mean=vgg.MEAN, deviation=vgg.DEVIATION)(
        torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    )["in"].flatten()
    expected = (torch.tensor([0.0, 0.5, 1.0]) - torch.tensor(vgg.MEAN)) / torch.tensor(
        vgg.DEVIATION
    )
    torch.testing.assert_close(found, expected)


def test_squeezenet_stands_in_and_says_so(alone, tmp_path):
    squeezenet_file(tmp_path)
    heard: list[str] = []
    name, path = choose(weights=tmp_path, note=heard.append)
    assert name == "squeezenet1.1"
    assert "stands in for vgg19" in heard[0]
    assert "vgg19-dcbb9e9d.pth" in heard[0]
    found = open_maps(name, path, ["fire9", "relu1"])
    with torch.no_grad():
        seen = found(torch.zeros(1, 3, 64, 64))
    assert {key: value.shape[1] for key, value in seen.items()} == {"relu1": 64, "fire9": 512}
    assert choose(weights=path, note=heard.append)[0] == "squeezenet1.1"
    assert len(heard) == 1  # what was asked for needs no note


def test_a_whole_network_is_read_for_its_convolutions(alone, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "squeezenet1_1.safetensors"
    save_file(SqueezeNet("1.1", classes=10).state_dict(), path)
    assert open_maps("squeezenet1.1", path, ["fire2"]).names == ("fire2",)


def test_what_cannot_be_had_is_a_sentence_with_the_address(alone, tmp_path):
    for name in ("auto", "vgg19"):
        with pytest.raises(Unavailable) as caught:
            choose(name, note=print)
        assert "download.pytorch.org/models/vgg19-dcbb9e9d.pth" in caught.value.hint
        assert "FAUSSAIRE_OFFLINE" in caught.value.cause
        assert "pixels" not in caught.value.hint  # the extractor of metrics, which is none here
    other = tmp_path / "mine.pth"
    other.write_bytes(b"")
    with pytest.raises(UserError, match="does not tell its network"):
        choose(weights=other, note=print)
    with pytest.raises(UserError, match="No network 'vgg'"):
        choose("vgg", note=print)
    path = squeezenet_file(tmp_path)
    with pytest.raises(UserError, match="no layer 'fire10'") as wrong:
        open_maps("squeezenet1.1", path, ["fire10"])
    assert "relu1, fire2" in wrong.value.hint
    with pytest.raises(UserError, match="does not fit VGG19"):
        open_maps("vgg19", path, ["relu1_1"])
    assert tuple(maps.NETWORKS) == ("vgg19", "squeezenet1.1")
