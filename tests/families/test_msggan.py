"""MSG-GAN against the paper: shapes by scale, parameters, initial statistics, gradients everywhere."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.config import resolve
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.msggan import MSGGAN, MSGGANConfig

RGB32 = Pictures(channels=3, height=32, width=32)
TINY = {"fmap_base": 64, "fmap_max": 16, "latent": 8}


def tiny(spec: Pictures = RGB32, **settings) -> MSGGAN:
    torch.manual_seed(0)
    return MSGGAN(MSGGANConfig(**{**TINY, **settings}), spec)


def paper(side: int, **settings) -> MSGGAN:
    preset = {name: value for name, value in MSGGAN.presets["paper"].items() if name != "batch"}
    with torch.device("meta"):
        spec = Pictures(channels=3, height=side, width=side)
        return MSGGAN(MSGGANConfig(**{**preset, **settings}), spec)


def batch_of(images: torch.Tensor) -> Batch:
    rows = len(images)
    return Batch({"images": images}, BatchDraws(0, total=rows, rows=slice(0, rows)), rows)


def test_the_papers_networks_at_1024():
    """The generator is ProGAN's, 23,079,115 parameters; the discriminator's layers are table 7's."""
    family = paper(1024)
    generator, discriminator = family.nets.values()
    assert sum(p.numel() for p in generator.parameters()) == 23_079_115
    assert family.scales.channels == (512, 512, 512, 512, 256, 128, 64, 32, 16)
    # Each level's first convolution sees its features, three colours and the batch's deviation; the
    # finest has features of its picture alone, and one fewer convolution is left for the end.
    first = [block[0].weight.shape[1] for block in discriminator.blocks]
    assert first == [516, 516, 516, 260, 132, 68, 36, 17]
    assert discriminator.conclude.weight.shape == (512, 516, 3, 3)
    second = [tuple(block[1].weight.shape[:2]) for block in discriminator.blocks]
    assert second[-3:] == [(128, 64), (64, 32), (32, 16)]
    # ProGAN's discriminator looks at 9 sizes, this one at the finest: 3 C + C less for each other C;
    # and each of the 8 first convolutions has 4 more inputs but the finest, which has 1, and the last 3.
    looks = sum(4 * width for width in family.scales.channels[:-1])
    wider = 9 * (4 * sum(family.scales.channels[1:-1]) + family.scales.channels[-1] + 3 * 512)
    parameters = sum(p.numel() for p in discriminator.parameters())
    assert parameters == 23_087_249 - looks + wider


def test_pictures_at_all_scales():
    family = tiny(Pictures(channels=4, height=64, width=48))
    made = family.nets["generator"](torch.randn(3, 8), scales=True)
    assert [tuple(x.shape) for x in made] == [
        (3, 4, 8, 6),
        (3, 4, 16, 12),
        (3, 4, 32, 24),
        (3, 4, 64, 48),
    ]
    assert family.nets["discriminator"](made).shape == (3,)


@pytest.mark.parametrize(
    ("combine", "entering"), [("simple", 16 + 3), ("lin-cat", 32), ("cat-lin", 16)]
)
def test_the_three_ways_to_join(combine, entering):
    discriminator = tiny(combine=combine).nets["discriminator"]
    join = discriminator.joins[0]
    features, picture = torch.randn(2, 16, 4, 4), torch.randn(2, 3, 4, 4)
    joined = join(features, picture)
    assert joined.shape == (2, entering, 4, 4)
    if combine == "simple":
        assert torch.equal(joined, torch.cat([features, picture], dim=1))
    elif combine == "lin-cat":
        assert torch.equal(joined, torch.cat([features, join.before(picture)], dim=1))
    else:
        assert torch.equal(joined, join.after(torch.cat([features, picture], dim=1)))


def test_the_reals_are_a_pyramid_of_means():
    images = torch.rand(2, 3, 32, 32)
    pyramid = tiny().reals(batch_of(images), Clock())
    assert [x.shape[2] for x in pyramid] == [4, 8, 16, 32]
    assert torch.equal(pyramid[-1], images)
    torch.testing.assert_close(pyramid[0], images.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)))
    for fine, coarse in zip(pyramid[1:], pyramid, strict=False):
        torch.testing.assert_close(F.avg_pool2d(fine, 2), coarse)


def test_gradients_reach_every_level_through_its_own_picture():
    """What the paper is about: the coarsest picture alone moves the first level."""
    family = tiny()
    generator, discriminator = family.nets.values()
    made = generator(torch.randn(4, 8), scales=True)
    for level, picture in enumerate(made):
        shown = [x.detach() for x in made]
        shown[level] = picture
        loss = discriminator(shown).sum()
        (first,) = torch.autograd.grad(loss, generator.blocks[0][0].weight, retain_graph=True)
        assert first.any(), f"none from level {level}"


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (28, 28), (33, 128)])
def test_any_size(size):
    family = tiny(Pictures(channels=1, height=size[0], width=size[1]))
    batch = batch_of(torch.rand(2, 1, *size))
    made, real = family.fakes(batch, Clock()), family.reals(batch, Clock())
    assert [x.shape for x in made] == [x.shape for x in real]
    with torch.no_grad():
        assert family.sample(RowDraws.counted(0, 2)).shape == (2, 1, *size)


def test_initial_statistics():
    torch.manual_seed(0)
    family = MSGGAN(MSGGANConfig(fmap_base=2048), RGB32)
    for net in family.nets.values():
        for name, parameter in net.named_parameters():
            if name.endswith("weight"):
                assert parameter.std().item() == pytest.approx(1.0, rel=0.15), name
            else:
                assert not parameter.any(), name
    with torch.no_grad():
        for picture in family.nets["generator"](torch.randn(64, 128), scales=True):
            assert picture.square().mean().sqrt().item() == pytest.approx(1.0, rel=0.25)


def test_the_players_settings_are_the_papers():
    config, preset = MSGGANConfig(), paper(64).config
    assert (config.lr, config.beta1, config.beta2) == (0.003, 0.0, 0.99)
    assert config.loss == "relativistic-average-hinge"
    assert (preset.loss, preset.gradient_penalty, preset.latent) == ("wasserstein", 10.0, 512)
    assert 0.5 ** (16 / MSGGAN.half_life) == pytest.approx(0.999, abs=1e-5)


def test_only_differences_count_for_a_relativistic_loss():
    assert tiny().nets["discriminator"].classify.bias is None
    assert tiny(loss="hinge").nets["discriminator"].classify.bias is not None


def test_conditions_reach_both_players():
    spec = Pictures(channels=3, height=16, width=16, classes=("a", "b", "c"))
    family = tiny(spec, conditional=True, stddev_group=1)
    generator, discriminator = family.nets.values()
    made = generator(torch.randn(1, 8).expand(3, -1), torch.eye(3), scales=True)
    assert not torch.allclose(made[-1][0], made[-1][1])
    same = tuple(x[:1].detach().expand(3, -1, -1, -1) for x in made)
    assert len(set(discriminator(same, torch.eye(3)).tolist())) == 3


def test_small_pictures_are_refused():
    with pytest.raises(UserError, match="at least 16x16, not 20x12"):
        tiny(Pictures(channels=1, height=12, width=20))


@pytest.mark.parametrize(
    ("augment", "policy"),
    [
        ("diffaugment", "translation"),
        ("diffaugment", "color,translation,cutout"),
        ("ada", "color,translation,cutout"),
    ],
)
def test_scales_that_agree_still_do_when_augmented(augment, policy):
    """Of pictures of large pixels, each scale is the mean of the finest, before and after."""
    family = tiny(augment=augment, augment_policy=policy, loss="hinge")
    family.ada.p = torch.tensor(0.9)
    coarse = torch.rand(16, 3, 4, 4) * 2 - 1
    shown = tuple(F.interpolate(coarse, scale_factor=float(2**k)) for k in range(4))
    draws = BatchDraws(0, total=16, rows=slice(0, 16))
    seen = family.augmented(shown, draws, Clock())
    assert [x.shape for x in seen] == [x.shape for x in shown]
    for k, (x, before) in enumerate(zip(seen, shown, strict=True)):
        torch.testing.assert_close(x, F.avg_pool2d(seen[-1], 2 ** (3 - k)))
        changed = (x - before).abs().amax((1, 2, 3)) > 1e-3
        assert changed.float().mean() > 0.7, f"{x.shape[2]} pixels hardly move"


def test_a_moved_picture_is_moved_as_far_at_all_scales():
    """A bright square's centre, in shares of the picture's side."""
    family = tiny(augment="diffaugment", augment_policy="translation")
    finest = torch.zeros(32, 3, 32, 32)
    finest[:, :, 12:20, 12:20] = 1.0
    reals = family.reals(batch_of(finest), Clock())
    seen = family.augmented(reals, BatchDraws(0, total=32, rows=slice(0, 32)), Clock())
    centres = []
    for x in seen:
        side = x.shape[2]
        places = (torch.arange(side) + 0.5) / side
        centres.append((x[:, 0].sum(dim=2) * places).sum(dim=1) / x[:, 0].sum(dim=(1, 2)))
    assert centres[-1].std() > 0.03
    for centre in centres:
        torch.testing.assert_close(centre, centres[-1])


def test_its_own_loss_can_be_written_in_a_file():
    for loss in ("relativistic-average-hinge", "hinge"):
        assert resolve("msggan", "photos", MSGGANConfig, {"loss": loss}).model.loss == loss


def test_truncation_is_refused_since_the_length_of_z_means_nothing():
    family = tiny()
    z = RowDraws.counted(0, 2).normal(8)
    with torch.no_grad():
        whole, halved = (family.sample(RowDraws.counted(1, 2), latents=x) for x in (z, 0.5 * z))
        torch.testing.assert_close(whole, halved)
        with pytest.raises(UserError, match="msggan normalises z"):
            family.sample(RowDraws.counted(1, 2), truncation=0.5)
