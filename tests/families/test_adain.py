"""adain: the paper's decoder, statistics that become the style's, strengths and mixtures, use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import faussaire
from faussaire.cli import main
from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.adain import (
    CHANNELS,
    RECIPES,
    AdaIN,
    AdaINConfig,
    Decoder,
    adaptive_instance_norm,
    moments,
    moments_loss,
)
from faussaire.metrics.maps import NETWORKS, FeatureMaps

SPEC = Pictures(channels=3, height=32, width=32, input_channels=3)
DRAWS = RowDraws.counted(0, 1)


def untrained(name: str) -> nn.Module:
    """A network that has learnt nothing."""
    torch.manual_seed(3)
    net, _ = NETWORKS[name].build()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return net


def made(name: str = "squeezenet1.1", **settings) -> AdaIN:
    _, layers = NETWORKS[name].build()
    family = AdaIN(AdaINConfig(perceptual=name, **{"width": 4, **settings}), SPEC)
    family.maps = FeatureMaps(
        untrained(name).get_submodule("features").children(),
        layers,
        family.recipe.layers,
        mean=(0.5,) * 3,
        deviation=(0.25,) * 3,
        pool=family.recipe.pool,
    )
    family.frozen()
    return family


def pictures(seed: int, count: int = 1, size: tuple[int, int] = (32, 40)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *size, generator=generator) * 2.0 - 1.0


# ---- What the paper says ----


def test_the_decoder_is_as_large_as_the_papers():
    with torch.device("meta"):
        net = Decoder(512, 64)
    assert sum(p.numel() for p in net.parameters()) == 3_505_219
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    # Block for block the encoder's, from the back: relu4_1 has nine convolutions before it.
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (512, 256),
        *[(256, 256)] * 3,
        (256, 128),
        (128, 128),
        (128, 64),
        (64, 64),
        (64, 3),
    ]
    assert {c.padding_mode for c in convolutions} == {"reflect"}
    assert not any("Norm" in type(layer).__name__ for layer in net.modules())
    assert isinstance(list(net.body)[-1], nn.Conv2d)


def test_the_result_has_the_styles_statistics():
    torch.manual_seed(0)
    content, style = torch.randn(2, 8, 12, 9), 3.0 * torch.randn(2, 8, 5, 7) + 2.0
    found = moments(adaptive_instance_norm(content, *moments(style)))
    for one, other in zip(found, moments(style), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    # And where things are stays: each channel is a stretched copy of the content's.
    once = adaptive_instance_norm(content, *moments(style))
    torch.testing.assert_close(
        adaptive_instance_norm(once, *moments(content)), content, atol=1e-4, rtol=0
    )


def test_moments_of_a_flat_channel_have_a_slope():
    flat = torch.ones(1, 2, 3, 3, requires_grad=True)
    mean, deviation = moments(flat)
    (mean.sum() + deviation.sum()).backward()
    assert flat.grad.isfinite().all()


def test_the_style_loss_is_nothing_for_the_style_and_does_not_see_where_things_are():
    maps = {"a": torch.rand(2, 4, 6, 6), "b": torch.rand(2, 3, 4, 4)}
    weights = {"a": 1.0, "b": 2.0}
    assert moments_loss(maps, maps, weights).item() == 0.0
    shuffled = {
        name: m.flatten(2)[..., torch.randperm(m[0, 0].numel())].view_as(m)
        for name, m in maps.items()
    }
    assert moments_loss(shuffled, maps, weights).item() == pytest.approx(0.0, abs=1e-10)
    nothing = {name: torch.zeros_like(m) for name, m in maps.items()}
    assert moments_loss(nothing, maps, weights).item() == pytest.approx(3.0, rel=1e-2)


@pytest.mark.parametrize("name", ["vgg19", "squeezenet1.1"])
def test_maps_are_an_eighth_of_the_picture_and_lie_where_it_shows_the_same(name):
    family = made(name)
    x = torch.zeros(1, 3, 64, 96)
    maps = family.encoded(x)
    assert maps.shape == (1, CHANNELS[name], 8, 12)
    if name == "squeezenet1.1":
        assert [m.shape[2:] for m in family.seen(x).values()][-1] == (8, 12)
    # What a place of the maps sees lies around the middle of its 8x8 pixels.
    x = torch.zeros(1, 3, 128, 128, requires_grad=True)
    grid = family.encoded(x + 0.1 * pictures(0, size=(128, 128)))
    (slope,) = torch.autograd.grad(grid[0, :, 8, 8].square().sum(), x)
    rows = slope.abs().sum((0, 1, 3))
    middle = (rows * torch.arange(128)).sum() / rows.sum()
    assert middle.item() == pytest.approx(8 * 8 + 3.5, abs=2.0)


def test_the_encoder_mirrors_borders():
    family = made("vgg19")
    flat = family.encoded(torch.full((1, 3, 32, 32), 0.3))
    # A flat picture has flat maps; borders of zeros would show.
    torch.testing.assert_close(
        flat, flat.mean((2, 3), keepdim=True).expand_as(flat), atol=1e-4, rtol=1e-3
    )


# ---- Losses ----


def batch(**fields: Tensor) -> Batch:
    count = len(next(iter(fields.values())))
    return Batch(fields, BatchDraws(0, total=count, rows=slice(0, count)), count)


def test_terms_are_those_of_the_decoders_picture_seen_again():
    family = made(style_weight=7.0)
    photos, paintings = pictures(1, 2, (32, 32)), pictures(2, 2, (32, 32))
    terms = family.loss(batch(inputs=photos, images=paintings), Clock())
    styles = family.seen(paintings)
    target = adaptive_instance_norm(family.seen(photos)["fire4"], *moments(styles["fire4"]))
    again = family.seen(family.nets["decoder"](target))
    apart = (again["fire4"] - target).square().sum((1, 2, 3)) / target.square().sum((1, 2, 3))
    torch.testing.assert_close(terms["content"], apart.mean())
    expected = moments_loss(again, styles, RECIPES["squeezenet1.1"].style)
    torch.testing.assert_close(terms["style"], 7.0 * expected)
    moving = list(family.nets["decoder"].parameters())
    for term in terms.values():
        slopes = torch.autograd.grad(term, moving, retain_graph=True)
        assert all(slope.abs().sum() > 0 for slope in slopes)


def test_the_rate_falls_as_the_authors():
    rate = made(lr=1e-4).rate()
    assert rate(Clock(examples=0, total=100)) == 1e-4
    steps = 1000  # of 8 examples, where the program has 1 / (1 + 5e-5 t)
    assert rate(Clock(examples=8 * steps, total=10**6)) == pytest.approx(1e-4 / (1 + 5e-5 * steps))


# ---- Use ----


def test_strength_nothing_is_the_reconstruction_and_all_is_the_style():
    family, x = made(), pictures(1)
    painting = pictures(2, size=(48, 32))
    plain = family.apply(x, DRAWS)
    nothing = family.styled([painting], strength=0.0).apply(x, DRAWS)
    torch.testing.assert_close(nothing, plain, atol=1e-5, rtol=0)
    full = family.styled([painting]).apply(x, DRAWS)
    maps = adaptive_instance_norm(family.encoded(x), *moments(family.encoded(painting)))
    torch.testing.assert_close(full, family.nets["decoder"](maps).clamp(-1, 1), atol=1e-5, rtol=0)
    half = family.styled([painting], strength=0.5).apply(x, DRAWS)
    between = torch.lerp(family.encoded(x), maps, 0.5)
    torch.testing.assert_close(
        half, family.nets["decoder"](between).clamp(-1, 1), atol=1e-5, rtol=0
    )
    assert family.apply(x, DRAWS).equal(plain)  # a view leaves the family as it was


def test_a_mixture_is_that_of_the_results_in_the_encoders_space():
    family, x = made(), pictures(1)
    paintings = [pictures(2), pictures(3, size=(24, 64))]
    mixed = family.styled(paintings, [3.0, 1.0]).apply(x, DRAWS)
    maps = [
        adaptive_instance_norm(family.encoded(x), *moments(family.encoded(one)))
        for one in paintings
    ]
    expected = family.nets["decoder"](0.75 * maps[0] + 0.25 * maps[1]).clamp(-1, 1)
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=0)
    alone = family.styled(paintings, [1.0, 0.0]).apply(x, DRAWS)
    torch.testing.assert_close(
        alone, family.styled(paintings[:1]).apply(x, DRAWS), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (17, 16), (40, 33)])
def test_any_picture_keeps_its_size(size):
    family = made().styled([pictures(2, size=(9, 50))])
    assert family.apply(pictures(1, 2, size), DRAWS).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"strength": 1.5}, "strength of 1.5"),
        ({"shares": [1.0, 2.0]}, "do not fit 1 style"),
        ({"shares": [0.0]}, "do not fit"),
        ({"paintings": []}, "No painting"),
    ],
)
def test_what_does_not_fit_is_said(how, said):
    with pytest.raises(UserError, match=said):
        made().styled(**{"paintings": [pictures(2)], **how})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on two folders, with a weights file that has learnt nothing."""
    folder = tmp_path_factory.mktemp("adain")
    rng = np.random.default_rng(0)
    for name in ("photos", "paintings"):
        (folder / name).mkdir()
        for index in range(6):
            pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
            Image.fromarray(pixels).resize((40, 48)).save(folder / name / f"{index}.png")
    (folder / "weights").mkdir()
    save_file(
        untrained("squeezenet1.1").state_dict(), folder / "weights" / "squeezenet1_1.safetensors"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAUSSAIRE_WEIGHTS", str(folder / "weights"))
        patch.setenv("FAUSSAIRE_OFFLINE", "1")
        settings = {"perceptual": "squeezenet1.1", "width": 4, "resolution": 16, "batch": 4}
        found = faussaire.train(
            "adain",
            folder / "photos",
            target=str(folder / "paintings"),
            out=folder / "run",
            quiet=True,
            config={**settings, "examples": 8, "device": "cpu"},
        )
    return folder, found


def test_a_run_holds_the_decoder_alone_and_paints_like_what_it_is_shown(run, monkeypatch, tmp_path):
    folder, found = run
    names = load_file(found.checkpoints / f"{8:012d}" / "networks.safetensors").keys()
    assert {name.partition(".")[0] for name in names} == {"decoder"}
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(folder / "weights"))
    model = faussaire.load(found.path, device="cpu")
    photo = folder / "photos" / "0.png"
    paintings = [folder / "paintings" / f"{index}.png" for index in (0, 1)]
    one = np.asarray(model.apply(photo, style=paintings[0]))
    assert one.shape == (48, 40, 3)
    assert not np.array_equal(one, np.asarray(model.apply(photo, style=paintings[1])))
    words = ["apply", found.path, photo, "--style", *paintings, "--share", 1, 0, "--out", tmp_path]
    assert main([str(word) for word in words]) == 0
    with Image.open(tmp_path / "0.png") as image:
        assert np.abs(np.asarray(image).astype(int) - one).max() <= 1
    with pytest.raises(UserError, match="--style painting"):
        model.apply(photo)
    with pytest.raises(UserError, match="cannot be read"):
        model.apply(photo, style=folder / "nothing.png")


def test_without_the_encoder_or_with_another_it_says_so(run, monkeypatch, tmp_path):
    folder, found = run
    photo, painting = folder / "photos" / "0.png", folder / "paintings" / "0.png"
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="not in") as caught:
        faussaire.load(found.path, device="cpu").apply(photo, style=painting)
    assert "FAUSSAIRE_WEIGHTS" in caught.value.hint
    assert "--perceptual" not in caught.value.hint  # the decoder was made for this one
    other = {name: value + 1.0 for name, value in untrained("squeezenet1.1").state_dict().items()}
    save_file(other, tmp_path / "squeezenet1_1.safetensors")
    with pytest.raises(UserError, match="not those that this was trained with"):
        faussaire.load(found.path, device="cpu").apply(photo, style=painting)
