"""ProGAN against the paper: parameters, shapes, initial statistics, and growing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from cases import _family, build, content, differing, train

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families.progan import (
    Levels,
    ProGAN,
    ProGANConfig,
    batch_table,
    cut,
    filled,
    widths,
)

RGB32 = Pictures(channels=3, height=32, width=32)
TINY = {"fmap_base": 64, "fmap_max": 16, "latent": 8}


def paper(side: int) -> ProGAN:
    settings = {k: v for k, v in ProGAN.presets["paper"].items() if k != "batch"}
    with torch.device("meta"):
        return ProGAN(ProGANConfig(**settings), Pictures(channels=3, height=side, width=side))


def tiny(spec: Pictures = RGB32, **settings) -> ProGAN:
    torch.manual_seed(0)
    return ProGAN(ProGANConfig(**{**TINY, **settings}), spec)


def batch_of(images: torch.Tensor) -> Batch:
    rows = len(images)
    return Batch({"images": images}, BatchDraws(0, total=rows, rows=slice(0, rows)), rows)


def test_the_papers_networks_at_1024_have_23_million_parameters_each():
    """Table 2: 23.1 M and 23.1 M; the authors' code counts 23,079,115 and 23,087,249."""
    family = paper(1024)
    # Theirs hold the layers of all levels, as ours do.
    counts = [sum(p.numel() for p in net.parameters()) for net in family.nets.values()]
    assert counts == [23_079_115, 23_087_249]
    assert widths(family.config, family.plan) == [512, 512, 512, 512, 256, 128, 64, 32, 16]


def test_shapes_by_level():
    family = tiny(Pictures(channels=3, height=64, width=64))
    generator, discriminator = family.nets.values()
    with torch.no_grad():
        for level in range(5):
            made = generator(torch.randn(4, 8), None, level)
            assert made.shape == (4, 3, 4 * 2**level, 4 * 2**level)
            assert discriminator(made).shape == (4,)
        assert generator(torch.randn(2, 8)).shape == (2, 3, 64, 64)


def test_the_paper_preset_is_a_run_of_the_papers():
    training, model = ProGAN.presets["paper"], paper(1024).config
    assert training["batch"] == 16
    assert (model.lr, model.beta1, model.beta2, model.eps) == (1e-3, 0.0, 0.99, 1e-8)
    assert (model.loss, model.gradient_penalty, model.drift) == ("wasserstein", 10.0, 0.001)
    stages = paper(1024).stages(12_000_000)
    assert [stage.name for stage in stages[:4]] == ["4x4", "8x8 fade", "8x8", "16x16 fade"]
    assert [stages[-2].name, stages[-1].name] == ["1024x1024 fade", "1024x1024"]
    assert {b.until - a.until for a, b in pairwise(stages[:-1])} == {600_000}
    assert {stage.name: stage.batch for stage in stages if stage.batch} == {
        "256x256 fade": 14,
        "256x256": 14,
        "512x512 fade": 6,
        "512x512": 6,
        "1024x1024 fade": 3,
        "1024x1024": 3,
    }
    assert 0.5 ** (16 / ProGAN.half_life) == pytest.approx(0.999, abs=1e-5)


def test_initial_statistics():
    """Unit activations everywhere in the generator, by pixel norm; none of He's gain is lost."""
    torch.manual_seed(0)
    family = ProGAN(ProGANConfig(fmap_base=2048), RGB32)
    generator, discriminator = family.nets.values()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        if name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(1.0, rel=0.15), name
        else:
            assert not parameter.any(), name
    with torch.no_grad():
        # Pixel norm has unit mean squares, and painting has gain 1: only alpha is left.
        generator.grown.fill_(3.0)
        made = generator(torch.randn(64, 128), None, 3)
    assert made.square().mean().sqrt().item() == pytest.approx(1.0, rel=0.25)


def test_growing_is_a_pure_function_of_the_examples():
    levels = Levels.of(RGB32)
    assert (levels.steps, levels.base) == (3, (4, 4))
    assert levels.span(0.6, 1000) == 100
    at = lambda examples: levels.at(0.6, Clock(examples=examples, total=1000))  # noqa: E731
    assert [at(n) for n in (0, 99, 100, 150, 199)] == [
        (0, 1.0),
        (0, 1.0),
        (1, 0.0),
        (1, 0.5),
        (1, 0.99),
    ]
    assert [at(n) for n in (200, 299, 300, 525, 600, 999, 5000)] == [
        (1, 1.0),
        (1, 1.0),
        (2, 0.0),
        (3, 0.25),
        (3, 1.0),
        (3, 1.0),
        (3, 1.0),
    ]
    assert Levels.of(RGB32).at(0.0, Clock(examples=0, total=1000)) == (3, 1.0)


def test_stages_agree_with_growing():
    family = tiny(Pictures(channels=1, height=24, width=16), growth=0.7)
    stages = family.stages(997)
    assert [stage.name for stage in stages] == ["4x6", "8x12 fade", "8x12", "16x24 fade", "16x24"]
    begin = 0
    for stage in stages:
        for examples in (begin, (stage.until or 997) - 1):
            level, alpha = family.plan.at(0.7, Clock(examples=examples, total=997))
            height, width = family.plan.size(level)
            assert stage.name.startswith(f"{width}x{height}")
            assert (alpha < 1.0) == stage.name.endswith("fade")
        begin = stage.until or 997
    assert [stage.name for stage in tiny(growth=0.0).stages(997)] == ["32x32"]
    assert [stage.name for stage in tiny().stages(5)] == ["32x32"], "too short to grow"


def test_a_fade_begins_where_the_level_below_ended():
    """At alpha 0 both players are those of the level below, enlarged; at 1 only the new one counts."""
    family = tiny()
    generator, discriminator = family.nets.values()
    z, x = torch.randn(4, 8), torch.randn(4, 3, 16, 16)

    def looks(grown: float, level: int):
        generator.grown.fill_(grown)
        discriminator.grown.fill_(grown)
        side = 4 * 2**level
        with torch.no_grad():
            seen = discriminator(torch.nn.functional.adaptive_avg_pool2d(x, side))
            return generator(z, None, level), seen

    small, judged = looks(1.0, 1)
    begun, judged_begun = looks(1.0, 2)
    ended, judged_ended = looks(2.0, 2)
    middle, _ = looks(1.5, 2)
    enlarged = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(begun, enlarged)
    torch.testing.assert_close(judged_begun, judged)
    torch.testing.assert_close(middle, (begun + ended) / 2)
    assert not torch.allclose(judged_ended, judged_begun)
    # A picture that training is over with is that of its level at full size.
    generator.grown.fill_(1.5)
    finished = generator(z).detach()
    torch.testing.assert_close(finished, middle.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_reals_are_faded_as_the_generator_is():
    family = tiny(growth=0.6)
    images = torch.rand(2, 3, 32, 32)
    whole = lambda n: family.reals(batch_of(images), Clock(examples=n, total=1000))  # noqa: E731
    pool = torch.nn.functional.avg_pool2d
    torch.testing.assert_close(whole(0), pool(images, 8))
    torch.testing.assert_close(whole(999), images)
    sharp = pool(images, 4)
    blurred = pool(sharp, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(whole(125), 0.75 * blurred + 0.25 * sharp)


@pytest.mark.parametrize(
    ("size", "base"),
    [((16, 16), (4, 4)), ((24, 16), (6, 4)), ((28, 28), (7, 7)), ((33, 128), (5, 16))],
)
def test_any_size(size, base):
    spec = Pictures(channels=1, height=size[0], width=size[1])
    family = tiny(spec)
    assert family.plan.base == base
    images = torch.rand(2, 1, *size)
    whole = filled(images, family.plan.size(family.plan.steps))
    assert whole.shape[2:] == family.plan.size(family.plan.steps)
    assert torch.equal(cut(whole, size), images)
    for examples in (0, 500, 999):
        clock = Clock(examples=examples, total=1000)
        batch = batch_of(images)
        assert family.fakes(batch, clock).shape == family.reals(batch, clock).shape
        with torch.no_grad():
            assert family.sample(RowDraws.counted(0, 2)).shape == (2, 1, *size)


def growing_case(**settings):
    """The contract's case in which levels grow, and batches with them."""
    return _family("progan", **TINY, stddev_group=2, **settings)


def test_a_run_killed_in_the_middle_of_a_fade_goes_on_exactly(tmp_path):
    case = growing_case(batches="8:8,16:4", growth=0.9)
    straight = build(case)
    train(case, straight, 3200)

    killed = build(case)
    checkpoints = Checkpoints(tmp_path)
    train(case, killed, 1100, checkpoints=checkpoints)
    family = killed.family
    level, alpha = family.plan.at(0.9, killed.clock)
    assert killed.clock.stage == "8x8 fade"
    assert (level, 0.0 < alpha < 1.0) == (1, True)

    resumed = build(case, seed=99)
    groups, record, _ = checkpoints.load_latest()
    resumed.load(groups, record)
    assert resumed.family.plan.at(0.9, resumed.clock) == (level, alpha)
    for net in ("generator", "discriminator"):
        assert resumed.family.nets[net].grown == family.nets[net].grown
    assert resumed.average.nets["generator"].grown == family.nets["generator"].grown
    with killed.sampling() as one, resumed.sampling() as two:
        assert torch.equal(one.sample(RowDraws.counted(1, 4)), two.sample(RowDraws.counted(1, 4)))
    train(case, resumed, 3200)
    assert not differing(content(straight), content(resumed))


def test_samples_of_a_growing_run_are_coarse_at_full_size():
    case = growing_case(growth=0.9)
    state = build(case)
    train(case, state, 600)
    assert state.clock.stage == "4x4"
    with state.sampling() as family:
        pictures = family.sample(RowDraws.counted(0, 3))
    assert pictures.shape == (3, 3, 16, 16)
    tiles = pictures.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
    torch.testing.assert_close(tiles, tiles[..., :1].expand_as(tiles))


def test_conditions_reach_both_players():
    spec = Pictures(channels=3, height=16, width=16, classes=("a", "b", "c"))
    family = tiny(spec, conditional=True, stddev_group=1)
    generator, discriminator = family.nets.values()
    generator.grown.fill_(2.0)
    made = generator(torch.randn(1, 8).expand(3, -1), torch.eye(3))
    assert not torch.allclose(made[0], made[1])
    judged = discriminator(torch.randn(1, 3, 16, 16).expand(3, -1, -1, -1), torch.eye(3))
    assert len(set(judged.tolist())) == 3


def test_the_batch_table():
    assert batch_table("1024:3, 256:14") == {256: 14, 1024: 3}
    assert batch_table("") == {}
    family = tiny(batches="8:32,32:12")
    assert [family.batch(side) for side in (4, 8, 16, 32, 64)] == [None, 32, 32, 12, 12]
    for wrong in ("256", "256:0", "a:b", "1:2:3"):
        with pytest.raises(UserError, match="batches cannot be"):
            ProGANConfig(batches=wrong)


def test_small_pictures_are_refused():
    with pytest.raises(UserError, match="at least 16x16, not 20x12"):
        tiny(Pictures(channels=1, height=12, width=20))


def test_a_lazy_penalty_is_in_every_stage():
    family = tiny(r1=0.5, penalty_every=16)
    for stage in family.stages(1000):
        assert [phase.name for phase in stage.phases] == ["discriminator", "penalty", "generator"]
    batch = batch_of(torch.rand(4, 3, 32, 32))
    terms = family.penalty_loss(batch, Clock(examples=300, total=1000))
    assert terms.keys() == {"r1"}
    assert terms["r1"] > 0


def test_truncation_is_refused_since_the_length_of_z_means_nothing():
    family = tiny()
    z = RowDraws.counted(0, 2).normal(8)
    with torch.no_grad():
        whole, halved = (family.sample(RowDraws.counted(1, 2), latents=x) for x in (z, 0.5 * z))
        torch.testing.assert_close(whole, halved)
        with pytest.raises(UserError, match="progan normalises z"):
            family.sample(RowDraws.counted(1, 2), truncation=0.5)
