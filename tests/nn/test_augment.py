"""Augmentation: exact where it can be, as probable as said, differentiable twice, and the controller."""

from __future__ import annotations

import time

import pytest
import torch

from faussaire import losses
from faussaire.core.batch import BatchDraws
from faussaire.core.errors import UserError
from faussaire.nn.augment import AdaController, ada_augment, diff_augment

NEVER, ALWAYS = torch.tensor(0.0), torch.tensor(1.0)
EVERY_SHAPE = pytest.mark.parametrize(
    "shape", [(1, 16, 16), (3, 16, 24), (4, 25, 16), (3, 17, 17)], ids=str
)


def draws(count: int, seed: int = 0, rows: slice | None = None) -> BatchDraws:
    return BatchDraws(seed, total=count, rows=rows or slice(0, count))


def some(count: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (
        torch.rand(count, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1
    )


def smooth(count: int, side: int) -> torch.Tensor:
    """Pictures of a few low frequencies, (N, 3, side, side)."""
    coarse = some(count, 3, 4, 4)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(N,): which pictures differ at all."""
    return (before != after).flatten(1).any(dim=1)


@EVERY_SHAPE
def test_p_of_zero_returns_the_very_bits(shape):
    images = some(8, *shape)
    assert torch.equal(ada_augment(images, draws(8), NEVER, cutout=1.0), images)
    assert torch.equal(diff_augment(images, draws(8), ""), images)


@EVERY_SHAPE
def test_any_shape_goes_through_and_keeps_it(shape):
    images = some(8, *shape)
    for made in (
        ada_augment(images, draws(8), ALWAYS, cutout=1.0),
        diff_augment(images, draws(8)),
    ):
        assert made.shape == images.shape
        assert made.dtype == images.dtype
        assert made.isfinite().all()
        assert changed(images, made).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_transformations_hit_with_their_probability(p):
    """Each of k independent transformations hits with p, so a picture is spared with (1 - p)^k."""
    images = some(4000, 3, 4, 4)
    for groups, spared in (
        # Half of the mirrorings, a quarter of the turns and the shift by (0, 0) change nothing; at
        # 4 pixels an eighth is rounded to nothing by every draw, so shifts never show.
        ({"geometry": 0, "color": 0}, (1 - p / 2) * (1 - p * 3 / 4)),
        ({"blit": 0, "color": 0}, (1 - p) ** 4),  # both rotations together are one of the four
        ({"blit": 0, "geometry": 0}, (1 - p) ** 4 * (1 - p / 2)),
        ({"blit": 0, "geometry": 0, "color": 0, "cutout": 1.0}, 1 - p),
    ):
        made = ada_augment(images, draws(4000), torch.tensor(p), **groups)
        share = 1.0 - changed_visibly(images, made).float().mean().item()
        # Mirroring and a half turn may undo each other, 1/8 p^2 of the time.
        slack = p * p / 8 if groups.get("geometry") == 0 and "blit" not in groups else 0.0
        error = 4 * (spared * (1 - spared) / 4000) ** 0.5 + 0.005
        assert spared - error < share < spared + slack + error, groups


def changed_visibly(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return ((before - after).abs() > 1e-4).flatten(1).any(dim=1)


def test_blits_are_pixel_exact():
    """Every result is one of the eight symmetries, moved by whole pixels with mirrored borders."""
    side, count = 16, 40
    images = some(count, 1, side, side)
    made = ada_augment(images, draws(count), ALWAYS, geometry=0.0, color=0.0)
    seen = set()
    for before, after in zip(images, made, strict=True):
        found = None
        for turns in range(4):
            for mirrored in (False, True):
                x = before.flip(2) if mirrored else before
                x = torch.rot90(x, turns, (1, 2))
                padded = torch.nn.functional.pad(x[None], (1, 1, 1, 1), mode="replicate")[0]
                big = reflect(x, 3)
                assert torch.equal(padded, big[:, 2:-2, 2:-2])
                for down in range(7):
                    for across in range(7):
                        window = big[:, down : down + side, across : across + side]
                        if torch.allclose(window, after, atol=1e-4):
                            found = (turns, mirrored, down, across)
        assert found is not None
        seen.add(found)
    assert len({which[:2] for which in seen}) == 8
    assert {which[2] for which in seen} >= {1, 2, 3, 4, 5}


def reflect(x: torch.Tensor, by: int) -> torch.Tensor:
    """(C, H, W) with mirrored borders in which the border pixel is repeated."""
    x = torch.cat([x[:, :by].flip(1), x, x[:, -by:].flip(1)], 1)
    return torch.cat([x[:, :, :by].flip(2), x, x[:, :, -by:].flip(2)], 2)


def test_pictures_that_are_not_square_turn_by_half_circles_alone():
    images = some(30, 1, 16, 8)
    made = ada_augment(images, draws(30), ALWAYS, geometry=0.0, color=0.0)
    kinds = set()
    for before, after in zip(images, made, strict=True):
        for name, x in {
            "same": before,
            "mirrored": before.flip(2),
            "turned": before.flip(1, 2),
            "upside down": before.flip(1),
        }.items():
            big = reflect(x, 2)
            windows = (big[:, d : d + 16, a : a + 8] for d in range(5) for a in range(5))
            if any(torch.allclose(window, after, atol=1e-4) for window in windows):
                kinds.add(name)
    assert kinds == {"same", "mirrored", "turned", "upside down"}


def test_geometry_keeps_what_a_picture_shows():
    """Means move little, and a picture of one colour stays as it is."""
    flat = torch.full((16, 3, 32, 32), 0.3)
    torch.testing.assert_close(ada_augment(flat, draws(16), ALWAYS, color=0.0), flat)
    images = smooth(64, 32)
    made = ada_augment(images, draws(64), ALWAYS, color=0.0)
    assert (made.mean() - images.mean()).abs() < 0.05
    assert made.abs().max() < 1.2  # the filter's overshoot


def test_interpolation_is_sharp():
    """Half a pixel aside, where bilinear sampling blurs most, a wave of 5 pixels keeps its height."""
    from faussaire.nn.augment import _finer, _Sample

    side = 64
    y, x = torch.meshgrid(*[torch.arange(side) + 0.5] * 2, indexing="ij")
    wave = torch.cos(2 * torch.pi * (0.2 * x + 0.1 * y))[None, None]
    theta = torch.tensor([[[1.0, 0.0, 1.0 / side], [0.0, 1.0, 1.0 / side]]])  # half a pixel
    grid = torch.nn.functional.affine_grid(theta, [1, 1, side, side], align_corners=False)
    truth = torch.cos(2 * torch.pi * (0.2 * (x + 0.5) + 0.1 * (y + 0.5)))[None, None]
    fine = _finer(side, wave.device, wave.dtype) @ wave @ _finer(side, wave.device, wave.dtype).T
    plain = torch.nn.functional.grid_sample(wave, grid, align_corners=False)
    inner = (..., slice(8, -8), slice(8, -8))
    ours = (_Sample.apply(fine, grid) - truth)[inner].abs().max()
    bilinear = (plain - truth)[inner].abs().max()
    assert ours < 0.02
    assert bilinear > 0.2


def test_colours_leave_alpha_and_places_alone():
    images = some(32, 4, 16, 16)
    for made in (
        ada_augment(images, draws(32), ALWAYS, blit=0.0, geometry=0.0),
        diff_augment(images, draws(32), "color"),
    ):
        assert torch.equal(made[:, 3], images[:, 3])
        assert changed(images[:, :3], made[:, :3]).all()
    # One affine map for all pixels of a picture: halfway between two colours stays halfway.
    two = images.clone()
    two[:, :3, 0, 0] = (images[:, :3, 0, 1] + images[:, :3, 0, 2]) / 2
    made = ada_augment(two, draws(32), ALWAYS, blit=0.0, geometry=0.0)[:, :3]
    torch.testing.assert_close(made[..., 0, 0], (made[..., 0, 1] + made[..., 0, 2]) / 2)


def test_grey_is_treated_as_a_colour_picture_without_colour():
    """A grey picture and its RGB copy get the same, where nothing tints the copy."""
    grey = some(64, 1, 8, 8)
    alone = ada_augment(grey, draws(64), ALWAYS, blit=0.0, geometry=0.0)
    copied = ada_augment(grey.expand(-1, 3, -1, -1), draws(64), ALWAYS, blit=0.0, geometry=0.0)
    torch.testing.assert_close(copied.mean(1, keepdim=True), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(copied, alone.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-5)
    alone = diff_augment(grey, draws(64), "color")
    copied = diff_augment(grey.expand(-1, 3, -1, -1), draws(64), "color")
    torch.testing.assert_close(copied, alone.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-5)


def test_the_colour_transformations_are_the_papers():
    """Brightness, contrast and saturation one after the other, as DiffAugment defines them."""
    images = some(16, 3, 8, 8)
    u = draws(16).uniform(3)[:, :, None, None, None]
    x = images + (u[:, 0] - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * 2 * u[:, 1]
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (u[:, 2] + 0.5)
    torch.testing.assert_close(diff_augment(images, draws(16), "color"), x)


def test_translation_moves_whole_pixels_and_lets_zeros_in():
    images = some(200, 1, 16, 24) + 2.0  # never zero
    made = diff_augment(images, draws(200), "translation")
    offsets = set()
    for before, after in zip(images, made, strict=True):
        padded = torch.nn.functional.pad(before, (3, 3, 2, 2))
        offsets |= {
            (down, across)
            for down in range(5)
            for across in range(7)
            if torch.equal(padded[:, down : down + 16, across : across + 24], after)
        }
    assert len(offsets) == 5 * 7  # all of -2..2 times -3..3 occur in 200 draws, and nothing else


def test_every_picture_is_translated_to_where_it_belongs():
    images = some(50, 2, 16, 16) + 2.0
    made = diff_augment(images, draws(50), "translation")
    sums = (made > 0).float().mean((1, 2, 3))
    assert sums.min() >= (14 / 16) ** 2
    assert changed(images, made).float().mean() > 0.8  # 24 of 25 offsets move


def test_cutout_clears_half_of_each_side():
    images = torch.ones(400, 3, 16, 24)
    for made in (
        diff_augment(images, draws(400), "cutout"),
        ada_augment(images, draws(400), ALWAYS, blit=0, geometry=0, color=0, cutout=1.0),
    ):
        hidden = (made == 0).all(1)
        assert ((made == 0) | (made == 1)).all()
        assert hidden.sum((1, 2)).max() == 8 * 12
        # Centred anywhere: a quarter of each side falls outside at the corners, 9/64 on average.
        assert hidden.float().mean().item() == pytest.approx((0.5 * 7 / 8) ** 2, abs=0.01)


def test_an_unknown_policy_is_told():
    with pytest.raises(UserError, match="no part 'colour'") as caught:
        diff_augment(some(1, 3, 8, 8), draws(1), "colour,cutout")
    assert "'color'" in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 1, 4, 4), (2, 4, 4, 5)], ids=str)
def test_derivatives_of_any_order(shape):
    """Against finite differences, once and twice, through a critic that is not linear."""
    images = some(*shape, dtype=torch.float64).requires_grad_(True)

    def ada(x):
        return ada_augment(x, draws(2), ALWAYS.double(), cutout=1.0).sin()

    def diff(x):
        return diff_augment(x, draws(2)).sin()

    for function in (ada, diff):
        assert torch.autograd.gradcheck(function, images)
        assert torch.autograd.gradgradcheck(function, images)


def test_a_penalty_passes_through():
    """R1 of a linear critic behind the pipeline is the norm of what the pipeline's adjoint gives."""
    images = some(3, 3, 8, 8, dtype=torch.float64)
    weight = some(1, 3, 8, 8, dtype=torch.float64).requires_grad_(True)

    def critic(x):
        return (ada_augment(x, draws(3), ALWAYS) * weight).sum((1, 2, 3))

    penalty = losses.zero_centred_penalty(critic, images)
    (gradient,) = torch.autograd.grad(penalty, weight)
    # The penalty is a quadratic form of the weight, so <gradient, weight> is twice its value.
    torch.testing.assert_close((gradient * weight).sum(), 2 * penalty)
    assert penalty > 0


def test_two_halves_of_a_batch_are_augmented_as_the_whole():
    images, p = some(6, 3, 16, 16), torch.tensor(0.7)
    for augment in (lambda x, d: ada_augment(x, d, p), diff_augment):
        whole = augment(images, draws(6))
        halves = [augment(images[r], draws(6, rows=r)) for r in (slice(0, 2), slice(2, 6))]
        torch.testing.assert_close(torch.cat(halves), whole, atol=1e-6, rtol=1e-6)


# ---- The controller ----


def simulate(controller: AdaController, sureness, rounds: int, batch: int = 64) -> list[float]:
    """p after each round, where reals are judged positive with probability (1 + sureness(p)) / 2."""
    generator = torch.Generator().manual_seed(0)
    path = []
    for _ in range(rounds):
        positive = (1.0 + sureness(controller.p.item())) / 2.0
        signs = (torch.rand(batch, generator=generator) < positive).float() * 2 - 1
        controller.update(signs, batch)
        path.append(controller.p.item())
    return path


def test_p_settles_where_the_target_is_met():
    """A critic whose sureness falls from .95 to .25 as p rises meets .6 at p = .5."""
    path = simulate(AdaController(span=20_000), lambda p: 0.95 - 0.7 * p, 1500)
    late = torch.tensor(path[-500:])
    assert late.mean().item() == pytest.approx(0.5, abs=0.05)
    assert late.std() < 0.06


@pytest.mark.parametrize(("sureness", "end"), [(1.0, 1.0), (-1.0, 0.0)])
def test_p_never_leaves_its_range(sureness, end):
    path = simulate(AdaController(span=1000, start=0.5), lambda p: sureness, 200)
    assert all(0.0 <= p <= 1.0 for p in path)
    assert path[-1] == end


def test_p_takes_the_span_from_one_end_to_the_other():
    path = simulate(AdaController(span=6400, interval=4), lambda p: 1.0, 101)
    assert path[3] == pytest.approx(4 * 64 / 6400)
    assert path[98] < 1.0
    assert path[99] == pytest.approx(1.0)
    assert path[:3] == [0.0] * 3


def test_the_controller_resumes_in_the_middle_of_an_interval():
    straight, first, second = (AdaController(span=2000) for _ in range(3))
    signs = some(10, 16)
    for row in signs:
        straight.update(row, 16)
    for row in signs[:6]:
        first.update(row, 16)
    second.load({name: value.clone() for name, value in first.state().items()})
    for row in signs[6:]:
        second.update(row, 16)
    assert straight.state().keys() == second.state().keys()
    assert all(torch.equal(value, second.state()[name]) for name, value in straight.state().items())


@pytest.mark.slow
def test_the_cost_is_milliseconds():
    images = some(64, 3, 64, 64)
    for augment in (
        lambda: ada_augment(images, draws(64), ALWAYS),
        lambda: diff_augment(images, draws(64)),
    ):
        times = []
        for _ in range(9):
            began = time.perf_counter()
            augment()
            times.append(time.perf_counter() - began)
        assert sorted(times)[4] < 0.2  # 13 ms and 4 ms where this was written
