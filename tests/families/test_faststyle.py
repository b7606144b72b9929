"""faststyle: Johnson's network, its losses through a frozen one, a painting learnt from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import faussaire
from faussaire import losses
from faussaire.application import Opened, answer
from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.state import State
from faussaire.families import faststyle
from faussaire.families.faststyle import RECIPES, FastStyle, FastStyleConfig, TransformNet
from faussaire.metrics.maps import NETWORKS, open_maps
from faussaire.nn.fused import InstanceNormAct2d
from faussaire.originals import no_larger

CPU = Device(name="cpu", precision="float32")
SPEC = Pictures(channels=3, height=32, width=32, input_channels=3)
SMALL = {"width": 4, "blocks": 1, "perceptual": "squeezenet1.1"}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of SqueezeNet that has learnt nothing, where weights are looked for."""
    file = tmp_path / "weights" / "squeezenet1_1_features.safetensors"
    untrained(file, seed=0)
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(file.parent))
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    return file


def untrained(file: Path, seed: int) -> None:
    torch.manual_seed(seed)
    net, _ = NETWORKS["squeezenet1.1"].build()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    file.parent.mkdir(exist_ok=True)
    save_file(net.state_dict(), file)


def paint(file: Path, size: tuple[int, int] = (40, 36)) -> Path:
    """Stripes of red and blue."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[::4, :, 0] = pixels[1::4, :, 0] = 230
    pixels[2::4, :, 2] = pixels[3::4, :, 2] = 230
    Image.fromarray(pixels).save(file)
    return file


def photographs(folder: Path, count: int = 8) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 32)).save(folder / f"{index}.png")
    return folder


def batch(x: torch.Tensor) -> Batch:
    return Batch({"images": x}, BatchDraws(0, total=len(x), rows=slice(0, len(x))), len(x))


# ---- The network ----


def test_the_network_is_as_large_as_the_papers():
    with torch.device("meta"):
        net = TransformNet(32, 5)
    # The paper's layers have 1,679,235 numbers; 1,600 of them are biases that a normalisation undoes.
    assert sum(p.numel() for p in net.parameters()) == 1_679_235 - 1_600


def test_its_layers_are_those_of_the_supplementary_material():
    net = TransformNet(32, 5)
    seen: list[tuple[int, ...]] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.padding_mode == "reflect"
            layer.register_forward_hook(
                lambda conv, _, out: seen.append((*conv.kernel_size, *out.shape[1:]))
            )
    net(torch.rand(1, 3, 32, 48))
    assert seen == [
        (9, 9, 32, 32, 48),
        (3, 3, 64, 16, 24),
        (3, 3, 128, 8, 12),
        *[(3, 3, 128, 8, 12)] * 10,
        (3, 3, 64, 16, 24),
        (3, 3, 32, 32, 48),
        (9, 9, 3, 32, 48),
    ]
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in net.modules())
    # No rectifier after a residual block's sum, and one after every other normalisation.
    slopes = [
        layer.negative_slope for layer in net.modules() if isinstance(layer, InstanceNormAct2d)
    ]
    assert slopes == [0.0] * 3 + [0.0, 1.0] * 5 + [0.0] * 2


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (33, 18), (16, 64)])
def test_any_picture_keeps_its_size(size):
    y = TransformNet(4, 1)(torch.rand(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert y.abs().max() <= 1.0


def test_contrast_and_brightness_do_not_matter_to_the_style():
    """What instance normalisation is for (Ulyanov et al. 2016, section 2)."""
    torch.manual_seed(0)
    net, x = TransformNet(8, 2), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(net(0.5 * x + 0.2), net(x), atol=2e-3, rtol=0)


# ---- The losses ----


def made(**settings) -> FastStyle:
    torch.manual_seed(0)
    config = FastStyleConfig(**{"style": Path("painting.png"), **SMALL, **settings})
    return FastStyle(config, SPEC)


def test_a_picture_that_is_the_painting_has_its_style_and_one_that_is_the_photograph_its_content(
    weights, monkeypatch
):
    monkeypatch.setattr(faststyle, "SHIFT", 0)
    family = made(content_weight=2.0, style_weight=3.0, tv_weight=4.0)
    family.frozen()
    torch.manual_seed(1)
    painting, photo = torch.rand(2, 1, 3, 32, 32) * 2.0 - 1.0
    family.learn(painting)
    family.nets["transformer"] = nn.Identity()
    terms = family.loss(batch(painting), Clock())
    assert terms["style"].item() == pytest.approx(0.0, abs=1e-8)
    assert terms["content"].item() == 0.0
    torch.testing.assert_close(terms["tv"], 4.0 * losses.total_variation(painting))
    assert family.loss(batch(photo), Clock())["style"].item() > 1e-3

    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return painting.expand(len(x), -1, -1, -1)

    family.nets["transformer"] = Other()
    terms = family.loss(batch(photo), Clock())
    assert terms["style"].item() == pytest.approx(0.0, abs=1e-8)
    maps = open_maps("squeezenet1.1", weights, ["fire4"], pool="average")
    expected = losses.content_loss(maps(painting), maps(photo), {"fire4": 1.0})
    torch.testing.assert_close(terms["content"], 2.0 * expected, rtol=1e-4, atol=1e-6)


def test_a_shifted_window_sees_other_maps_of_the_same_size(weights):
    family = made()
    family.frozen()
    x = torch.rand(1, 3, 40, 40)
    straight = family.seen(x)["fire2"]
    assert not torch.allclose(family.seen(x, 1, 2)["fire2"], straight)
    assert family.seen(x, 3, 3)["fire2"].shape == straight.shape


def test_weights_of_nothing_leave_terms_out(weights):
    family = made(content_weight=0.0, tv_weight=0.0)
    family.frozen()
    family.learn(torch.rand(1, 3, 32, 32))
    assert family.loss(batch(torch.rand(2, 3, 32, 32)), Clock()).keys() == {"style"}


def test_recipes_name_layers_of_their_networks():
    for name, recipe in RECIPES.items():
        with torch.device("meta"):
            _, layers = NETWORKS[name].build()
        assert set(recipe.layers) <= layers.keys()


def test_paintings_are_shrunk_to_what_is_trained_at_and_never_enlarged():
    assert no_larger(torch.rand(1, 3, 100, 50), 25).shape == (1, 3, 50, 25)
    assert no_larger(torch.rand(1, 3, 20, 50), 25).shape == (1, 3, 20, 50)


# ---- Training ----


@pytest.fixture
def trained(tmp_path: Path, weights: Path):
    """Trains on a few pictures, by default up to 24 of them, into a folder of this name."""
    photos, painting = photographs(tmp_path / "photos"), paint(tmp_path / "painting.png")

    def train(name: str, **settings):
        return faussaire.train(
            "faststyle",
            photos,
            out=tmp_path / name,
            quiet=True,
            config={**SMALL, "style": str(painting), "resolution": 32, "batch": 4, "device": "cpu"},
            **{"examples": 24, "preview_every": 12, **settings},
        )

    return train


def test_a_run_goes_on_bit_for_bit_although_the_painting_is_gone(trained, tmp_path):
    straight = trained("straight")
    trained("parts", examples=12)
    (tmp_path / "painting.png").unlink()
    resumed = trained("parts", allow_changes=True)
    ends = [run.checkpoints / f"{24:012d}" for run in (straight, resumed)]
    for file in ("networks", "averaged", "training"):
        one, two = (load_file(end / f"{file}.safetensors") for end in ends)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), file
    # What is needed to apply it is the network alone.
    names = load_file(ends[0] / "averaged.safetensors").keys()
    assert {name.partition(".")[0] for name in names} == {"transformer"}
    assert not any("fire" in name for name in load_file(ends[0] / "networks.safetensors"))
    config = resumed.config()
    assert config["style"] == str(tmp_path / "painting.png")
    assert len(config["perceptual_weights"]) == 16
    with Image.open(sorted(resumed.samples.glob("0*.png"))[-1]) as preview:
        assert preview.width >= 2 * 32
    # And it is applied with neither painting nor frozen network.
    (tmp_path / "weights" / "squeezenet1_1_features.safetensors").unlink()
    picture = faussaire.load(resumed.path, device="cpu").apply(Image.new("L", (21, 35), 90))
    assert (picture.mode, picture.size) == ("RGB", (21, 35))


def test_weights_other_than_those_of_the_run_are_refused(trained, weights):
    trained("run", examples=4)
    untrained(weights, seed=1)
    with pytest.raises(UserError, match="not those that this was trained with"):
        trained("run", examples=8, allow_changes=True)


def test_another_painting_is_learnt_where_it_is_asked_for(trained, tmp_path):
    trained("run", examples=4)
    other = tmp_path / "other.png"
    Image.new("RGB", (40, 40), (10, 200, 30)).save(other)
    run = trained("run", examples=8, style=other, allow_changes=True)
    ends = [run.checkpoints / f"{count:012d}" / "training.safetensors" for count in (4, 8)]
    one, two = (load_file(end) for end in ends)
    assert not torch.equal(one["extra/gram.fire2"], two["extra/gram.fire2"])


def test_what_is_missing_is_told_before_anything_is_written(trained, tmp_path, weights):
    with pytest.raises(UserError, match=r"--style painting\.jpg"):
        trained("run", style=None)
    with pytest.raises(UserError, match=r"nowhere\.png' cannot be read"):
        trained("run", style=tmp_path / "nowhere.png")
    weights.unlink()
    with pytest.raises(UserError, match="FAUSSAIRE_WEIGHTS, or train with --perceptual vgg19"):
        trained("run")
    assert not list(tmp_path.glob("run/config.yaml"))


def test_the_best_network_that_is_here_is_taken(trained, tmp_path):
    run = trained("run", examples=4, perceptual="auto")
    assert run.config()["perceptual"] == "squeezenet1.1"
    state = json.loads((run.checkpoints / f"{4:012d}" / "state.json").read_text())
    assert state["model"]["perceptual"] == "squeezenet1.1"


# ---- Use ----


def test_pictures_are_seen_whole_and_keep_their_transparency(weights):
    family = made()
    state = State(family, CPU, total=10)
    sizes: list[torch.Size] = []
    family.nets["transformer"].register_forward_hook(lambda _, x, out: sizes.append(x[0].shape))
    with torch.no_grad():
        rgba = torch.rand(1, 3, 30, 1100)
        found = answer(state.family, CPU, Opened(rgba, rgba[:, :1], False))
    assert sizes == [rgba.shape]
    assert torch.equal(found.alpha, rgba[:, :1])
    grey = state.family.apply(torch.zeros(1, 3, 9, 9), RowDraws.counted(0, 1))
    assert grey.shape == (1, 3, 9, 9)
