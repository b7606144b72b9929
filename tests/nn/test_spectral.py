"""Spectral normalisation against singular values, and against autograd through them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.average import Average
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.nn.spectral import converge, spectral

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 7), (5, 12)),
    "wide linear": (lambda: nn.Linear(4, 9, bias=False), (5, 4)),
    "conv": (lambda: nn.Conv2d(6, 8, 3, padding=1), (5, 6, 7, 6)),
    "strided conv": (lambda: nn.Conv2d(3, 8, 4, stride=2, padding=1), (5, 3, 8, 6)),
    "1x1 conv": (lambda: nn.Conv2d(6, 4, 1), (5, 6, 3, 3)),
    "transposed conv": (lambda: nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1), (5, 6, 4, 3)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def build(name: str, *, iterations: int = 1) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return spectral(make(), iterations=iterations), torch.randn(shape)


def matrix(layer: nn.Module, weight: Tensor | None = None) -> Tensor:
    """The weight with a row for each output, as the paper takes it."""
    weight = layer.weight if weight is None else weight
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


def plain(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """What torch's own layer computes with this weight."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, layer.bias)
    if isinstance(layer, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, weight, layer.bias, layer.stride, layer.padding)
    return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding)


@every_layer
@pytest.mark.parametrize("channels_last", [False, True])
def test_sigma_is_the_largest_singular_value(name, channels_last):
    layer, x = build(name)
    if channels_last:
        layer.to(memory_format=torch.channels_last)
    converge(layer, 300)
    wanted = torch.linalg.svdvals(matrix(layer))[0].detach()
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode).sigma().detach(), wanted, rtol=1e-5, atol=0)
        largest = torch.linalg.svdvals(matrix(layer, layer.normalised().detach()))[0]
        assert float(largest) == pytest.approx(1.0)
        expected = plain(layer, layer.weight / wanted, x)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@every_layer
def test_sigma_is_never_above_and_rises_with_iterations(name):
    layer, _ = build(name)
    layer.u.copy_(F.normalize(torch.randn_like(layer.u), dim=0))
    true = float(torch.linalg.svdvals(matrix(layer))[0].detach())
    seen = [float(layer.sigma().detach()) for _ in range(40)]
    # Each step of power iteration raises |W v|, up to rounding.
    assert all(late >= early - 1e-5 for early, late in pairwise(seen))
    assert seen[-1] <= true * (1 + 1e-5)
    assert seen[0] < seen[-1] == pytest.approx(true, rel=0.02)


def test_a_fresh_layer_is_nearly_converged():
    torch.manual_seed(1)
    layer = spectral(nn.Conv2d(128, 256, 3))
    true = float(torch.linalg.svdvals(matrix(layer))[0].detach())
    assert float(layer.sigma().detach()) == pytest.approx(true, rel=0.03)
    nn.init.orthogonal_(layer.weight)
    converge(layer)
    assert float(layer.eval().sigma().detach()) == pytest.approx(1.0, rel=1e-4)


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_through_the_singular_value_decomposition(name, training):
    layer, x = build(name)
    converge(layer, 500)
    layer.train(training)
    weights = [layer.weight, *([] if layer.bias is None else [layer.bias])]
    ours = torch.autograd.grad(layer(x).pow(3).sum(), weights)
    normalised = layer.weight / torch.linalg.svdvals(matrix(layer))[0]
    exact = torch.autograd.grad(plain(layer, normalised, x).pow(3).sum(), weights)
    for one, two in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()))


def test_the_gradient_is_equation_12():
    layer, x = build("linear")
    converge(layer, 500)
    seen = layer(x)
    upstream = torch.randn_like(seen)
    (found,) = torch.autograd.grad(seen, layer.weight, upstream)
    weight, u = layer.weight.detach(), layer.u
    v = F.normalize(torch.mv(weight.t(), u), dim=0)
    sigma = torch.linalg.svdvals(weight)[0]
    at_normalised = upstream.t() @ x  # G
    along = (at_normalised * weight / sigma).sum()
    wanted = (at_normalised - along * torch.outer(u, v)) / sigma
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    # Scale does nothing to W / sigma, so the gradient has no part along W.
    assert abs(float((found * weight).sum())) < 1e-4 * float(found.norm())


def test_layers_are_lipschitz():
    for name, bound in (("linear", 1.0), ("conv", 3.0), ("1x1 conv", 1.0)):
        layer, x = build(name)
        converge(layer, 300)
        for _ in range(20):
            y = x + torch.randn_like(x)
            distance = (layer(x) - layer(y)).flatten(1).norm(dim=1)
            assert (distance <= (1 + 1e-5) * bound * (x - y).flatten(1).norm(dim=1)).all(), name


def test_a_forward_iterates_in_training_alone():
    layer, x = build("conv", iterations=3)
    layer.u.copy_(F.normalize(torch.randn_like(layer.u), dim=0))
    fast, slow = copy.deepcopy(layer), copy.deepcopy(layer)
    slow.iterations = 1
    before = layer.u.clone()
    layer.eval()(x)
    assert torch.equal(layer.u, before)
    with torch.no_grad():
        fast(x)
    assert not torch.equal(fast.u, before)
    for _ in range(3):
        slow(x)
    torch.testing.assert_close(fast.u, slow.u)


def test_a_saved_layer_goes_on_bit_for_bit():
    def net() -> nn.Sequential:
        return nn.Sequential(spectral(nn.Conv2d(3, 8, 3)), spectral(nn.Conv2d(8, 4, 3)))

    def step(some: nn.Sequential, seed: int) -> None:
        torch.manual_seed(seed)
        gradients = torch.autograd.grad(some(torch.randn(2, 3, 8, 8)).sum(), [*some.parameters()])
        with torch.no_grad():
            for parameter, gradient in zip(some.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient

    torch.manual_seed(0)
    one, two = net(), net()
    step(one, 1)
    two.load_state_dict(one.state_dict())
    twin = copy.deepcopy(one)
    for some in (one, two, twin):
        step(some, 2)
        step(some, 3)
    assert sorted(one.state_dict()) == sorted(
        f"{i}.{name}" for i in "01" for name in ("weight", "bias", "u")
    )
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
        assert torch.equal(value, twin.state_dict()[name]), name


def test_averaged_weights_have_a_sigma_of_their_own():
    torch.manual_seed(0)
    net = spectral(nn.Linear(30, 20))
    average = Average({"net": net}, half_life=100.0, ramp=1.0)
    for step in range(1, 40):
        with torch.no_grad():
            net.weight += 0.02 * torch.randn_like(net.weight)
        net(torch.randn(4, 30))
        average.update(Clock(examples=10 * step), 10)
    twin = average.nets["net"]
    assert not torch.equal(twin.weight, net.weight)
    assert torch.equal(twin.u, net.u)
    largest = torch.linalg.svdvals(twin.normalised().detach())[0]
    assert 1.0 - 1e-5 <= float(largest) < 1.05


def test_autocast_leaves_sigma_in_float32():
    layer, x = build("conv")
    converge(layer, 300)
    exact = layer.eval().sigma().detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.normalised().dtype == layer.sigma().dtype == torch.float32
        assert torch.equal(layer.sigma().detach(), exact)
        assert layer(x).dtype == torch.bfloat16
    assert layer.u.dtype == torch.float32


def test_gradient_penalties_differentiate_through_it():
    """R1 of f(x) = <w / |w|, x>: |grad f|^2 is 1 whatever w is, so its own gradient vanishes."""
    torch.manual_seed(0)
    critic = Device(name="cpu", precision="float32").prepare(spectral(nn.Linear(6, 1, bias=False)))
    found = losses.zero_centred_penalty(lambda x: critic(x).flatten(), torch.randn(4, 6))
    assert float(found.detach()) == pytest.approx(0.5, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, critic.weight)
    assert float(gradient.abs().max()) < 1e-6

    net = nn.Sequential(
        spectral(nn.Conv2d(2, 3, 3, padding=1)), nn.Softplus(), spectral(nn.Conv2d(3, 1, 4))
    ).double()
    converge(net, 500)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    weight = net[0].weight

    def penalty() -> Tensor:
        return losses.zero_centred_penalty(lambda at: net(at).flatten(), x)

    (ours,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn_like(weight)
    step = 1e-5
    ends = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            weight += sign * step * direction
        converge(net, 500)
        ends.append(penalty().detach())
        with torch.no_grad():
            weight -= sign * step * direction
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close((ours * direction).sum(), slope, rtol=1e-4, atol=1e-7)


def test_two_forwards_in_one_graph():
    """The second moves u in place; the first's gradient must not have kept it."""
    layer, x = build("conv")
    loss = layer(x).sum() + layer(2 * x).square().sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, [*layer.parameters()]))


def test_a_single_row_is_exact_and_has_nothing_to_save():
    layer = spectral(nn.Linear(9, 1))
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    for mode in (True, False):
        sigma = layer.train(mode).sigma().detach()
        assert float(sigma) == pytest.approx(float(layer.weight.detach().norm()), rel=1e-6)


def test_zeros_stay_zeros():
    layer = spectral(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        layer.weight.zero_()
    for mode in (True, False):
        assert torch.equal(layer.train(mode)(torch.ones(1, 3)), torch.zeros(1, 2))
    converge(layer)
    nn.init.orthogonal_(layer.weight)  # u has kept a direction, and finds the way from there
    assert float(layer.sigma().detach()) == pytest.approx(1.0, rel=1e-5)


def test_it_builds_on_the_meta_device_and_refuses_what_it_has_no_form_for():
    with torch.device("meta"):
        layer = spectral(nn.Conv2d(3, 4, 3))
    assert layer.u.is_meta
    assert layer.u.shape == (4,)
    with pytest.raises(TypeError, match="BatchNorm2d"):
        spectral(nn.BatchNorm2d(4))
    with pytest.raises(TypeError, match="SpectralConv2d"):
        spectral(spectral(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match="at least 1"):
        spectral(nn.Linear(3, 4), iterations=0)
