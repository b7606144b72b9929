"""Style transfer: its losses against their definitions, and a picture painted by a random network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import faussaire
from faussaire import losses
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.families.styletransfer import (
    Bounded,
    Originals,
    StyleTransfer,
    StyleTransferConfig,
    scales,
    shifted,
)
from faussaire.metrics.maps import FeatureMaps
from faussaire.stylisation import Moment, _Nothing, paint, read_picture, recoloured

CPU = Device(name="cpu", precision="float32")


def random_maps() -> FeatureMaps:
    """Two layers of random convolutions, a pooling between them."""
    torch.manual_seed(7)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3)]
    return FeatureMaps(
        [*layers, nn.ReLU()],
        {"fine": 1, "coarse": 4},
        ["fine", "coarse"],
        mean=(0.5,) * 3,
        deviation=(0.25,) * 3,
    )


def pictures() -> tuple[Image.Image, Image.Image]:
    """A dark disc on a light ground, wide; and red and blue stripes."""
    y, x = np.mgrid[:48, :64]
    disc = np.where(np.hypot(y - 24, x - 32) < 14, 60, 200).astype(np.uint8)
    stripes = np.zeros((64, 48, 3), np.uint8)
    stripes[::4, :, 0] = stripes[1::4, :, 0] = 230
    stripes[2::4, :, 2] = stripes[3::4, :, 2] = 230
    return Image.fromarray(disc), Image.fromarray(stripes)


LAYERS = {"content_layers": {"coarse": 1.0}, "style_layers": {"fine": 1.0, "coarse": 1.0}}
SMALL: dict[str, Any] = {**LAYERS, "size": 64, "smallest": 44, "steps": 20, "tv_weight": 0.1}


def transferred(**settings: Any) -> Image.Image:
    content, style = pictures()
    if "extractor" not in settings:
        settings["extractor"] = random_maps()
    return faussaire.transfer(content, style, **{**SMALL, **settings})


def family(**settings: Any) -> StyleTransfer:
    content, style = (read_picture(picture).tensor for picture in pictures())
    spec = Originals(content=content, styles=(style,), shares=(1.0,), maps=random_maps())
    wanted = {"smallest": 44, "steps": 12, "start": "noise", **LAYERS, **settings}
    torch.manual_seed(0)
    return StyleTransfer(StyleTransferConfig(**wanted), spec)


def test_gram_matrices_are_means_over_places_of_products_of_channels():
    maps = torch.randn(2, 3, 4, 5).double()
    expected = torch.zeros(2, 3, 3).double()
    for n in range(2):
        for i in range(3):
            for j in range(3):
                expected[n, i, j] = (maps[n, i] * maps[n, j]).sum() / 20
    torch.testing.assert_close(losses.gram(maps), expected)


def test_style_is_nothing_where_grams_agree_and_one_where_nothing_is_seen():
    target = {"a": losses.gram(torch.randn(1, 4, 6, 6)), "b": losses.gram(torch.randn(1, 2, 3, 3))}
    weights = {"a": 0.75, "b": 0.25}
    nothing = {name: torch.zeros_like(matrix) for name, matrix in target.items()}
    assert losses.style_loss(target, target, weights).item() == 0.0
    assert losses.style_loss(nothing, target, weights).item() == pytest.approx(1.0)
    twice = {name: 3 * matrix for name, matrix in target.items()}
    assert losses.style_loss(twice, target, {"a": 2.0}).item() == pytest.approx(8.0)
    # The mean over the batch, not the sum.
    both = {name: torch.cat([target[name], nothing[name]]) for name in target}
    assert losses.style_loss(both, target, weights).item() == pytest.approx(0.5)


def test_content_and_perception_are_squared_distances():
    target, found = {"a": torch.tensor([[[[3.0, 4.0]]]])}, {"a": torch.tensor([[[[3.0, 1.0]]]])}
    assert losses.content_loss(found, target, {"a": 1.0}).item() == pytest.approx(9 / 25)
    assert losses.perceptual_loss(found, target, {"a": 2.0}).item() == pytest.approx(2 * 9 / 2)
    empty = {"a": torch.zeros(1, 1, 1, 2)}
    assert torch.isfinite(losses.content_loss(empty, empty, {"a": 1.0}))


def test_feature_matching_sums_mean_distances_and_leaves_the_reals_alone():
    fake, real = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    loss = losses.feature_matching([fake, 2 * fake], [real, real])
    assert loss.item() == pytest.approx(3.0)
    loss.backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, torch.full((2, 3), 0.5))


def test_total_variation_is_the_mean_slope():
    x = torch.randn(2, 3, 4, 5).double()
    terms = []
    for row in range(3):
        for column in range(4):
            here = x[:, :, row, column]
            down, right = x[:, :, row + 1, column] - here, x[:, :, row, column + 1] - here
            terms.append(down**2 + right**2)
    steep = torch.stack(terms)
    torch.testing.assert_close(losses.total_variation(x), steep.mean())
    torch.testing.assert_close(losses.total_variation(x, beta=1.0), steep.sqrt().mean())
    assert losses.total_variation(torch.ones(1, 3, 4, 4)).item() == 0.0


def test_gradients_of_the_losses():
    torch.manual_seed(0)
    maps = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    grams = {"a": losses.gram(torch.randn(1, 3, 5, 5, dtype=torch.float64))}
    content = {"a": torch.randn(1, 3, 4, 4, dtype=torch.float64)}
    weights = {"a": 0.7}

    def check(loss: Any) -> None:
        assert torch.autograd.gradcheck(loss, (maps,))

    check(losses.gram)
    check(lambda x: losses.style_loss({"a": losses.gram(x)}, grams, weights))
    check(lambda x: losses.content_loss({"a": x}, content, weights))
    check(losses.total_variation)
    check(lambda x: losses.total_variation(x, beta=1.0))


def test_the_picture_stays_in_range_and_finds_back():
    x = torch.tensor([-2.0, -2.0, 0.5, 3.0, 3.0], requires_grad=True)
    found = Bounded.apply(x)
    assert isinstance(found, Tensor)
    assert found.tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]
    found.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, -1.0, 1.0, 1.0, 0.0]


def test_scales_grow_evenly_to_the_size_asked_for():
    found = scales(384, 512, 128, 2**0.5)
    assert found == [(96, 128), (136, 181), (192, 256), (272, 362), (384, 512)]
    assert scales(50, 60, 128, 1.5) == [(50, 60)]
    narrow = scales(100, 800, 64, 2.0)
    assert narrow[0] == (32, 256)  # shorter sides are of no use to networks
    assert narrow[-1] == (100, 800)


def test_the_window_shifts_and_mirrors():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(shifted(x, 2, 2, 2), x)
    moved = shifted(x, 3, 2, 2)
    torch.testing.assert_close(moved[..., :3, :], x[..., 1:, :])
    torch.testing.assert_close(moved[..., 3, :], x[..., 2, :])
    assert shifted(x, 0, 0, 0) is x


def test_recoloured_has_the_mean_and_covariance_of_the_photograph():
    torch.manual_seed(0)
    style = 0.2 * torch.randn(1, 3, 40, 40) + torch.tensor([0.3, -0.2, 0.1])[:, None, None]
    mixed = torch.einsum(
        "ij,njhw->nihw", torch.tensor([[1.0, 0.5, 0.0], [0, 1, 0.3], [0, 0, 1]]), style
    )
    content = 0.15 * torch.randn(1, 3, 30, 30)
    found = recoloured(mixed, content).flatten(2)[0]
    torch.testing.assert_close(found.mean(1), content.mean((0, 2, 3)), atol=2e-3, rtol=0)
    torch.testing.assert_close(
        torch.cov(found), torch.cov(content.flatten(2)[0]), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_from_noise_the_losses_fall(optimiser):
    moments: list[Moment] = []
    transferred(
        start="noise",
        optimiser=optimiser,
        steps=40,
        smallest=64,
        watch=moments.append,
        preview_every=10,
    )
    first, last = (sum(moments[index].losses.values()) for index in (0, -1))
    assert last < 0.5 * first
    assert moments[-1].progress == 1.0
    assert moments[-1].remaining == 0.0
    assert all(moment.picture is not None for moment in moments if moment.step % 10 == 0)


def test_the_style_is_nearer_than_it_was_in_the_photograph():
    maps = random_maps()
    content, style = (read_picture(picture).tensor for picture in pictures())
    result = read_picture(transferred(content_weight=0.1)).tensor
    with torch.no_grad():
        grams = [
            {name: losses.gram(one) for name, one in maps(picture).items()}
            for picture in (content, style, result)
        ]
    before, after = (
        losses.style_loss(found, grams[1], LAYERS["style_layers"]) for found in (grams[0], grams[2])
    )
    assert after < 0.5 * before


def test_total_variation_smoothes():
    rough, smooth = (
        losses.total_variation(read_picture(transferred(tv_weight=weight, steps=8)).tensor)
        for weight in (0.0, 50.0)
    )
    assert smooth < 0.8 * rough


def test_a_seed_gives_the_same_picture_and_leaves_the_numbers_of_others_alone():
    maps = random_maps()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = transferred(start="noise", steps=4, seed=1, extractor=maps)
    torch.manual_seed(3)
    two = transferred(start="noise", steps=4, seed=1, extractor=maps)
    assert torch.equal(torch.rand(1), expected)
    other = transferred(start="noise", steps=4, seed=2, extractor=maps)
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_styles_are_mixed_by_their_shares():
    content, style = pictures()
    green = Image.new("RGB", (48, 48), (20, 220, 20))
    common = {**SMALL, "extractor": random_maps(), "content_weight": 0.1, "steps": 6}
    greens = []
    for shares in ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        found = faussaire.transfer(content, [style, green], shares=shares, **common)
        greens.append(np.asarray(found)[..., 1].mean())
    assert greens[0] < greens[1] < greens[2]
    alone = faussaire.transfer(content, style, **common)
    both = faussaire.transfer(content, [style, green], shares=(2.0, 0.0), **common)
    assert alone.tobytes() == both.tobytes()


def test_the_result_has_the_contents_shape_and_transparency():
    content, style = pictures()
    common = {**SMALL, "extractor": random_maps(), "steps": 1}
    assert transferred(steps=1, size=80).size == (80, 60)
    turned = faussaire.transfer(content.transpose(Image.Transpose.ROTATE_90), style, **common)
    assert turned.size == (48, 64)
    clear = content.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    found = faussaire.transfer(clear, style, **common)
    assert found.mode == "RGBA"
    assert found.getchannel("A").getextrema()[0] < 10
    for mode in ("P", "CMYK", "L", "1", "LA", "I;16"):
        odd = (
            content.convert(mode)
            if mode != "I;16"
            else Image.fromarray(np.full((40, 40), 9000, "u2"))
        )
        assert faussaire.transfer(odd, style, **common).mode in ("RGB", "RGBA")


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_a_resumed_painting_goes_on_exactly(optimiser):
    """The engine's promise: all that painting changes is in the state's tensors."""

    def begun() -> tuple[State, Rounds]:
        preset = StyleTransfer.presets.get(optimiser, {})
        state = State(family(**preset), CPU, total=60, half_life=5.0)
        return state, Rounds(state, _Nothing(), Plan(batch=1, seed=2), World())

    whole, rounds = begun()
    for _ in range(5):
        rounds.play()
    groups = {
        group: {name: value.detach().clone() for name, value in tensors.items()}
        for group, tensors in whole.tensors().items()
    }
    later, others = begun()
    with torch.no_grad():
        for net in later.family.nets.values():
            for parameter in net.parameters():
                parameter.add_(1.0)
    later.load(groups, whole.record())
    for each in (rounds, others):
        for _ in range(3):
            each.play()
    assert later.clock == whole.clock
    for group, tensors in whole.tensors().items():
        for name, value in tensors.items():
            torch.testing.assert_close(later.tensors()[group][name], value, rtol=0, atol=0)


def test_what_is_no_number_is_told_with_a_next_step():
    for optimiser, hint in (("lbfgs", "--optimiser adam"), ("adam", "--lr")):
        broken = family(**StyleTransfer.presets.get(optimiser, {}))
        broken.spec = replace(broken.spec, content=broken.spec.content * float("nan"))
        with pytest.raises(UserError, match="NaN") as caught:
            paint(broken, CPU)
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 8}, "size cannot be 8"),
        ({"shares": (1.0, 2.0)}, "do not fit 1 styles"),
        ({"style_weigth": 3.0}, "Did you mean 'style_weight'"),
        ({"optimiser": "sgd"}, "optimiser cannot be 'sgd'"),
        ({"steps": 0}, "steps cannot be 0"),
        ({"style_layers": {"medium": 1.0}}, "the layer 'medium'"),
        ({"style_layers": {"fine": -1.0}}, "style_layers cannot be"),
        ({"content_weight": 0.0, "style_weight": 0.0, "tv_weight": 0.0}, "All weights are 0"),
        ({"extractor": "vgg16"}, "No network 'vgg16'"),
        ({"preview_every": -1}, "preview_every cannot be -1"),
    ],
)
def test_mistakes_are_sentences(settings, words):
    with pytest.raises(UserError) as caught:
        transferred(**settings)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_picture_that_is_too_narrow_is_refused():
    _, style = pictures()
    with pytest.raises(UserError, match="shorter side"):
        faussaire.transfer(Image.new("RGB", (400, 12)), style, **SMALL, extractor=random_maps())
