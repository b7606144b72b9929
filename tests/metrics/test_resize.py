"""Each convention of resizing against its definition: Pillow, torch, and sums done by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from faussaire.core.errors import UserError
from faussaire.metrics.resize import How, resize

ALL: list[How] = ["clean", "legacy", "pytorch"]
SIZES = [
    ((28, 28), (299, 299)),
    ((300, 420), (64, 75)),
    ((17, 40), (40, 17)),  # one side grows, the other shrinks
    ((30, 31), (30, 62)),  # one side stays
    ((5, 300), (2, 299)),
]


def pictures(height: int, width: int, count: int = 2) -> Tensor:
    """uint8 noise (count, 3, height, width), the hardest case for an interpolation."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def pillow(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, h, w) float32, each channel a float picture; not clipped."""
    planes = [
        Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        for plane in picture.numpy().astype(np.float32)
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


@pytest.mark.parametrize(("before", "size"), SIZES)
def test_clean_is_pillows_float_bicubic(before: tuple[int, int], size: tuple[int, int]) -> None:
    noise = pictures(*before)
    found = resize(noise, size, "clean")
    for picture, ours in zip(noise, found, strict=True):
        torch.testing.assert_close(ours, pillow(picture, size).clamp(0, 255), rtol=0, atol=1e-3)


def test_clean_stays_in_range_where_bicubic_overshoots() -> None:
    board = (torch.arange(16).view(-1, 1) + torch.arange(16)).remainder(2).mul(255)
    board = board.expand(1, 3, 16, 16).to(torch.uint8)
    raw = pillow(board[0], (50, 50))
    assert raw.min() < -10
    assert raw.max() > 265
    found = resize(board, (50, 50), "clean")
    assert found.min() == 0.0
    assert found.max() == 255.0


@pytest.mark.parametrize(("before", "size"), SIZES)
def test_pytorch_is_torchs_bilinear(before: tuple[int, int], size: tuple[int, int]) -> None:
    noise = pictures(*before)
    expected = F.interpolate(noise.float(), size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(noise, size, "pytorch"), expected, rtol=0, atol=2e-3)


def test_legacy_by_hand() -> None:
    """Output i reads input i * in / out, and past the last pixel the last."""
    row = torch.tensor([0.0, 100.0, 40.0]).view(1, 1, 1, 3)
    up = resize(row, (1, 6), "legacy")
    assert up.flatten().tolist() == pytest.approx([0, 50, 100, 70, 40, 40])
    four = torch.tensor([10.0, 20.0, 30.0, 40.0]).view(1, 1, 4, 1)
    assert resize(four, (2, 1), "legacy").flatten().tolist() == pytest.approx([10, 30])
    square = torch.tensor([[0.0, 8.0], [16.0, 32.0]]).view(1, 1, 2, 2)
    assert resize(square, (4, 4), "legacy")[0, 0].tolist() == [
        [0, 4, 8, 8],
        [8, 14, 20, 20],
        [16, 24, 32, 32],
        [16, 24, 32, 32],
    ]


def test_conventions_by_hand_differ() -> None:
    """2 to 4 pixels: with half-pixel centres the outputs lie at -1/4, 1/4, 3/4, 5/4."""
    row = torch.tensor([0.0, 100.0]).view(1, 1, 1, 2)
    assert resize(row, (1, 4), "pytorch").flatten().tolist() == pytest.approx([0, 25, 75, 100])
    assert resize(row, (1, 4), "legacy").flatten().tolist() == pytest.approx([0, 50, 100, 100])


@pytest.mark.parametrize("how", ALL)
def test_whatever_the_memory(how: How) -> None:
    noise = pictures(20, 31)
    expected = resize(noise, (40, 15), how)
    assert expected.dtype == torch.float32
    last = noise.to(memory_format=torch.channels_last)
    alone = torch.cat([resize(one[None], (40, 15), how) for one in noise])
    for other in (resize(last, (40, 15), how), resize(noise.float(), (40, 15), how), alone):
        torch.testing.assert_close(other, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("how", ALL)
def test_flat_pictures_stay_flat(how: How) -> None:
    flat = torch.full((1, 3, 12, 9), 200, dtype=torch.uint8)
    torch.testing.assert_close(
        resize(flat, (31, 4), how), torch.full((1, 3, 31, 4), 200.0), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("how", ALL)
def test_the_same_size_changes_nothing(how: How) -> None:
    noise = pictures(9, 7)
    assert torch.equal(resize(noise, (9, 7), how), noise.float())


@pytest.fixture
def coarse() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("coarse")
def test_training_settings_do_not_round_pictures() -> None:
    noise = pictures(64, 64)
    expected = pillow(noise[0], (128, 128)).clamp(0, 255)
    with torch.autocast("cpu", torch.bfloat16):
        found = resize(noise, (128, 128), "clean")
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-3)


def test_weights_first_made_in_inference_mode_serve_gradients() -> None:
    with torch.inference_mode():
        resize(pictures(11, 11), (23, 23), "clean")
    x = pictures(11, 11).float().requires_grad_()
    resize(x, (23, 23), "pytorch").sum().backward()
    resize(x, (23, 23), "clean").sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_an_unknown_convention_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'legasy' is unknown\. Did you mean 'legacy'") as raised:
        resize(pictures(4, 4), (2, 2), "legasy")  # pyright: ignore[reportArgumentType]
    assert "clean, legacy, pytorch" in raised.value.hint
