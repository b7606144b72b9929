"""Path length and perceptual distance on generators whose length is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faussaire.metrics.path_length import path_lengths, slerp, trimmed_mean
from faussaire.metrics.perceptual import PerceptualDistance


class Linear:
    """A 'generator' that shows its latent vector, times `gain`, as a row of pixels."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def latents(self, draws: Any) -> Tensor:
        return draws.normal(16)

    def sample(self, draws: Any, *, labels: Tensor | None = None, latents: Tensor) -> Tensor:
        return self.gain * latents[:, None, None, :]


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).double().square().sum((1, 2, 3))


def test_a_linear_generator_has_the_length_of_the_great_circle():
    """Moving t by eps moves z by about eps * angle * |z|: d / eps^2 = gain^2 (angle^2 |z|^2 + dr^2)."""
    lengths = path_lengths(Linear(0.5), squared, count=400, seed=0, device="cpu")  # type: ignore
    assert lengths.shape == (400,)
    # Two normal vectors in 16 dimensions: angle near pi/2, squared length near 16.
    expected = 0.25 * (torch.pi / 2) ** 2 * 16
    value, error = trimmed_mean(lengths)
    assert value == pytest.approx(expected, rel=0.12)  # the spread of angles and lengths
    assert 0 < error < 0.1 * value
    doubled = path_lengths(Linear(1.0), squared, count=400, seed=0, device="cpu")  # type: ignore
    assert trimmed_mean(doubled)[0] == pytest.approx(4 * value, rel=1e-3)


def test_steps_do_not_depend_on_how_many_are_taken():
    few = path_lengths(Linear(1.0), squared, count=20, seed=3, device="cpu")  # type: ignore
    many = path_lengths(Linear(1.0), squared, count=40, seed=3, device="cpu")  # type: ignore
    assert torch.equal(few, many[:20])


def test_slerp_goes_along_the_sphere_from_end_to_end():
    a, b = torch.eye(3)[:1], torch.eye(3)[1:2]
    assert torch.allclose(slerp(a, b, torch.zeros(1, 1)), a)
    assert torch.allclose(slerp(a, b, torch.ones(1, 1)), b, atol=1e-6)
    middle = slerp(a, b, torch.full((1, 1), 0.5))
    assert torch.allclose(middle, torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]), atol=1e-6)


def test_the_extreme_hundredths_are_left_out():
    lengths = torch.cat([torch.ones(198), torch.tensor([0.0, 1e9])]).double()
    assert trimmed_mean(lengths)[0] == 1.0


class OneStage(nn.Module):
    def stages(self, x: Tensor) -> list[Tensor]:
        return [x]


def test_perceptual_distance_compares_directions_at_each_place():
    distance = PerceptualDistance(OneStage(), "one", "none", (0.0,) * 3, (1.0,) * 3)
    red = torch.full((1, 3, 2, 2), -1.0)
    red[:, 0] = 1.0
    green = torch.full((1, 3, 2, 2), -1.0)
    green[:, 1] = 1.0
    assert distance(red, red).item() == 0.0
    # Orthogonal unit vectors at every place: squared distance 2.
    assert distance(red, green).item() == pytest.approx(2.0)
    half = green.clone()
    half[..., 0] = red[..., 0]
    assert distance(red, half).item() == pytest.approx(1.0)


def test_grey_transparent_and_large_pictures_are_seen():
    distance = PerceptualDistance(OneStage(), "one", "none", (0.5,) * 3, (0.5,) * 3)
    grey = torch.rand(2, 1, 8, 8) * 2 - 1
    assert distance(grey, grey.expand(-1, 3, -1, -1)).max() == 0.0
    clear = torch.rand(1, 4, 8, 8) * 2 - 1
    clear[:, 3] = -1.0  # wholly transparent: white, whatever lies beneath
    assert distance(clear, torch.ones(1, 3, 8, 8)).item() == pytest.approx(0.0, abs=1e-9)
    assert distance(*torch.rand(2, 1, 3, 300, 600)).shape == (1,)
