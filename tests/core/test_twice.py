"""Second derivatives of convolutions and kinks, against torch's own and against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from faussaire.core.twice import FastSecondDerivatives

CALLS = {
    "3x3": (F.conv2d, (4, 2, 3, 3), {"padding": 1}),
    "stride": (F.conv2d, (4, 2, 4, 4), {"stride": 2, "padding": (1, 2)}),
    "dilated": (F.conv2d, (4, 2, 3, 3), {"dilation": 2}),
    "groups": (F.conv2d, (4, 1, 3, 3), {"padding": 1, "groups": 2}),
    "transposed": (F.conv_transpose2d, (2, 3, 4, 4), {"stride": 2, "padding": 1}),
    "transposed groups": (
        F.conv_transpose2d,
        (2, 3, 3, 3),
        {"stride": 2, "output_padding": 1, "groups": 2},
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bias", [False, True])
def test_all_derivatives_are_exact(name, bias):
    function, shape, how = CALLS[name]
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    channels = function(x, weight, **how).shape[1]
    extra = [torch.randn(channels, dtype=torch.float64, requires_grad=True)] if bias else []

    def ours(*tensors):
        with FastSecondDerivatives():
            return function(*tensors, **how)

    assert torch.equal(ours(x, weight, *extra), function(x, weight, *extra, **how))
    assert torch.autograd.gradcheck(ours, (x, weight, *extra))
    assert torch.autograd.gradgradcheck(ours, (x, weight, *extra))


@pytest.mark.parametrize("name", CALLS)
def test_a_penalty_has_torchs_gradient_under_autocast(name):
    function, shape, how = CALLS[name]
    torch.manual_seed(0)
    x = torch.randn(2, 2, 8, 8, requires_grad=True)
    weight = torch.randn(shape, requires_grad=True)

    def gradient():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = function(x, weight, **how)
        assert y.dtype == torch.bfloat16
        (slope,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    plain = gradient()
    with FastSecondDerivatives():
        ours = gradient()
    # bf16 has 8 bits; the two add in another order.
    assert (plain - ours).norm() < 0.01 * plain.norm()


def test_what_it_cannot_say_is_left_to_torch():
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(2, 2, 3, 3)
    with FastSecondDerivatives():
        assert F.conv2d(x, weight, padding="same").shape == x.shape
        assert F.conv2d(x[0], weight).shape == (2, 3, 3)


KINKS = {
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "leaky module": torch.nn.LeakyReLU(0.1),
    "relu": F.relu,
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_have_torchs_values_and_derivatives(name):
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def ours(x):
        with FastSecondDerivatives():
            return KINKS[name](x)

    assert torch.equal(ours(x), KINKS[name](x))
    assert torch.autograd.gradcheck(ours, (x,))
    assert torch.autograd.gradgradcheck(ours, (x,))
    odd = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan")])
    assert torch.equal(ours(odd).nan_to_num(7.0), KINKS[name](odd).nan_to_num(7.0))


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_a_penalty_sends_no_zeros_through_the_network(slope):
    """Its gradient is torch's to the bit, and nothing of it comes from the first forward pass."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.LeakyReLU(slope), torch.nn.Linear(8, 1, bias=False)
    )
    x = torch.randn(4, 5, requires_grad=True)

    def gradients():
        (slopes,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        penalty = (slopes.norm(dim=1) - 1.0).square().mean()
        return torch.autograd.grad(penalty, [x, *net.parameters()], allow_unused=True)

    plain = gradients()
    with FastSecondDerivatives():
        ours = gradients()
    assert not plain[0].any()
    assert ours[0] is None
    assert ours[2] is None  # the first bias
    for one, other in zip(plain[1::2], ours[1::2], strict=True):
        assert torch.equal(one, other)


def test_what_is_changed_in_place_is_left_to_torch():
    x = torch.tensor([-1.0, 1.0])
    with FastSecondDerivatives():
        F.leaky_relu(x, 0.2, inplace=True)
    assert x[0] == -torch.tensor(0.2)
