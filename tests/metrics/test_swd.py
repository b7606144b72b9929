"""The sliced Wasserstein distance: its parts exactly, and how it moves with known damage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.metrics import swd
from faussaire.metrics.swd import PatchCollector, laplacian_pyramid, sliced_wasserstein

PHOTOGRAPHS = [torch.tensor(photograph) for photograph in load_sample_images().images]


def crops(
    count: int, height: int = 32, width: int = 32, channels: int = 3, seed: int = 0
) -> Tensor:
    """Random pieces of two photographs, uint8 (N, H, W, C): grey, RGB, or with a lightness more."""
    draws = torch.Generator().manual_seed(seed)
    pieces = []
    for number in range(count):
        whole = PHOTOGRAPHS[number % 2]
        room = (side - wanted for side, wanted in zip(whole.shape, (height, width), strict=False))
        top, left = (int(torch.randint(sides, (), generator=draws)) for sides in room)
        pieces.append(whole[top : top + height, left : left + width])
    colours = torch.stack(pieces)
    grey = colours.float().mean(dim=3, keepdim=True).byte()
    return {1: grey, 3: colours, 4: torch.cat([colours, grey], dim=3)}[channels]


def collected(pictures: Tensor, **options: int) -> PatchCollector:
    _, height, width, channels = pictures.shape
    found = PatchCollector((height, width, channels), **options)
    for block in pictures.split(100):
        found.add(block)
    return found


def noisy(pictures: Tensor, amount: float) -> Tensor:
    noise = amount * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(9))
    return (pictures + noise).clamp(0, 255).byte()


def blurred(pictures: Tensor, size: int) -> Tensor:
    planes = pictures.permute(0, 3, 1, 2).float()
    side = size // 2
    padded = F.pad(planes, (side,) * 4, mode="reflect")
    return F.avg_pool2d(padded, size, stride=1).round().byte().permute(0, 2, 3, 1)


# ---- Its parts ----


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((28, 28), ["28x28"]),
        ((7, 40), ["7x40"]),
        ((32, 32), ["32x32", "16x16"]),
        ((31, 100), ["31x100", "16x50"]),
        ((64, 48), ["64x48", "32x24"]),
        ((1024, 1024), [f"{s}x{s}" for s in (1024, 512, 256, 128, 64, 32, 16)]),
    ],
)
def test_levels_reach_down_to_16(size: tuple[int, int], levels: list[str]):
    assert [f"{h}x{w}" for h, w in PatchCollector((*size, 3)).levels] == levels


@pytest.mark.parametrize("size", [(64, 64), (65, 80), (35, 33)])
def test_the_pyramid_is_complete(size: tuple[int, int]):
    """Adding up from the coarsest level gives the picture back."""
    picture = crops(2, *size).permute(0, 3, 1, 2).double()
    pyramid = laplacian_pyramid(picture, 2)
    assert [p.shape[2] for p in pyramid] == [size[0], (size[0] + 1) // 2]
    filled = torch.zeros_like(picture)
    filled[:, :, ::2, ::2] = 4.0 * pyramid[1]
    torch.testing.assert_close(pyramid[0] + swd._blur(filled), picture)


@pytest.mark.parametrize("size", [(32, 32), (33, 40)])
def test_a_flat_picture_has_no_detail(size: tuple[int, int]):
    detail, coarse = laplacian_pyramid(torch.full((1, 1, *size), 77.0), 2)
    assert detail.abs().max() < 1e-4
    assert coarse.sub(77.0).abs().max() < 1e-4


def test_patches_are_pieces_of_the_picture():
    picture = torch.arange(20 * 24.0).view(1, 1, 20, 24)
    places = torch.tensor([[[0.0, 0.0], [0.999999, 0.999999], [0.5, 0.25]]])
    found = swd._cut(picture, places, 7)[0, :, 0]
    assert found[0].equal(picture[0, 0, :7, :7])
    assert found[1].equal(picture[0, 0, 13:, 17:])
    assert found[2].equal(picture[0, 0, 7:14, 4:11])


@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 37), (1, 9), (64, 32), (7, 101)])
def test_one_direction_equals_scipy(n: int, m: int):
    a, b = (
        np.random.default_rng(n).normal(size=(2, n)),
        np.random.default_rng(m).normal(1, 2, (2, m)),
    )
    p, q = (swd._sorted(torch.from_numpy(v).float()) for v in (a, b))
    sums = swd._wasserstein(p, q, swd._matching(n, m, torch.device("cpu")))
    expected = sum(scipy.stats.wasserstein_distance(p, q) for p, q in zip(a, b, strict=True))
    assert sums == pytest.approx(expected, rel=1e-5)


def test_descriptors_are_normalised_by_channel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(swd, "_BLOCK", 100)
    raw = (torch.randn(1_000, 3, 49) * torch.tensor([[1.0], [20.0], [0.5]]) + 30.0).half()
    mean, deviation = swd._mean_and_deviation(raw)
    wide = raw.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, wide.mean(dim=1))
    torch.testing.assert_close(deviation, wide.std(dim=1, correction=0))
    along = F.normalize(torch.randn(5, 147), dim=1)
    normal = (raw.double() - mean[:, None]) / deviation[:, None]
    expected = along.double() @ normal.flatten(1).T
    found = swd._project(raw, along, mean, deviation)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


# ---- The collector ----


def test_blocks_do_not_matter():
    pictures = crops(60, 32, 40)
    for limit in (1_000, 25):  # all are held; a choice is held
        whole, parts = (PatchCollector((32, 40, 3), pictures=limit) for _ in range(2))
        whole.add(pictures.numpy())
        for block in pictures.split([1, 20, 7, 32]):
            parts(block)
        assert len(whole) == len(parts) == min(60, limit)
        for level in (0, 1):
            assert whole.descriptors(level).equal(parts.descriptors(level))
        assert whole.descriptors(0).shape == (128 * min(60, limit), 3, 49)


def test_the_choice_is_uniform():
    """Of 40 pictures 10 are held; each as often as any other."""
    pictures = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 7, 7, 1)
    times = torch.zeros(40)
    for seed in range(400):
        held = PatchCollector((7, 7, 1), pictures=10, patches=1, seed=seed)
        for block in pictures.split(13):
            held.add(block)
        shown = (held.descriptors(0)[:, 0, 0].float() + 127.5).long()
        assert len(shown.unique()) == 10
        times[shown] += 1
    assert float((times - 100.0).square().sum() / 75.0) < 72.0  # chi-squared, 39 degrees: p = 0.001


def test_seeds():
    pictures = crops(20)
    first, same, other = (collected(pictures, seed=s).descriptors(0) for s in (1, 1, 2))
    assert first.equal(same)
    assert not first.equal(other)


# ---- The distance ----


def distance(a: Tensor, b: Tensor, seed: int = 1) -> dict[str, float]:
    return sliced_wasserstein(collected(a), collected(b, seed=seed), directions=32)


def test_equal_sets_are_near_the_floor_of_sampling():
    real, more = crops(400), crops(400, seed=1)
    assert distance(real, real, seed=0) == {"32x32": 0.0, "16x16": 0.0}
    floor, changed = distance(real, more), distance(real, noisy(more, 20.0))
    assert 0.0 < floor["32x32"] < 25.0
    assert changed["32x32"] > 10.0 * floor["32x32"]
    fewer = distance(real[:50], more[:50])
    assert fewer["32x32"] > 2.0 * floor["32x32"]


DAMAGES: list[tuple[Callable[[Tensor, float], Tensor], list[float]]] = [
    (noisy, [0.0, 5.0, 10.0, 20.0, 40.0]),
    (lambda x, size: blurred(x, int(size)), [1, 3, 5, 7]),
]


@pytest.mark.parametrize(("damage", "amounts"), DAMAGES, ids=["noise", "blur"])
def test_grows_with_damage(damage: Callable[[Tensor, float], Tensor], amounts: list[float]):
    real, more = collected(crops(300)), crops(300, seed=1)
    found = [
        sliced_wasserstein(real, collected(damage(more, amount), seed=1), directions=32)
        for amount in amounts
    ]
    finest = [levels["32x32"] for levels in found]
    assert all(b > 1.1 * a for a, b in pairwise(finest))
    # Fine damage shows at the fine level.
    assert finest[-1] - finest[0] > 10.0 * (found[-1]["16x16"] - found[0]["16x16"])


@pytest.mark.parametrize("shape", [(28, 28, 1), (33, 50, 4), (7, 7, 3)])
def test_any_shape_and_unequal_numbers(shape: tuple[int, int, int]):
    real, more = crops(200, *shape), crops(150, *shape, seed=1)
    same, worse = distance(real, more), distance(real, 255 - more.sort(dim=1).values)
    assert list(same) == [f"{h}x{w}" for h, w in PatchCollector(shape).levels]
    assert all(worse[level] > 1.5 * same[level] > 0.0 for level in same)


def test_directions_by_seed():
    real, more = collected(crops(30)), collected(crops(30, seed=1))
    first = sliced_wasserstein(real, more, directions=40)
    assert first == sliced_wasserstein(real, more, directions=40)
    assert first != sliced_wasserstein(real, more, directions=40, seed=1)


def test_black_pictures():
    """A collapsed generator: no detail at all, and no division by zero."""
    real = crops(40)
    black = torch.zeros_like(real)
    found = distance(real, black)
    assert all(100.0 < value < 1000.0 for value in found.values())
    assert distance(black, black) == {"32x32": 0.0, "16x16": 0.0}


def test_what_cannot_be_measured():
    with pytest.raises(UserError, match="6x40 are smaller than a patch of 7x7"):
        PatchCollector((6, 40, 3))
    held = PatchCollector((32, 32, 3))
    with pytest.raises(UserError, match=r"uint8 \(N, 32, 32, 3\), not torch.float32"):
        held.add(torch.zeros(2, 32, 32, 3))
    with pytest.raises(UserError, match=r"not torch.uint8 \(2, 32, 32, 1\)"):
        held.add(torch.zeros(2, 32, 32, 1, dtype=torch.uint8))
    with pytest.raises(UserError, match="no pictures to take patches from"):
        sliced_wasserstein(held, collected(crops(5)))
    with pytest.raises(UserError, match=r"\(28, 28, 1\)"):
        sliced_wasserstein(collected(crops(5)), collected(crops(5, 28, 28, 1)))
