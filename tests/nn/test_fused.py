"""The layers of `faussaire.nn.fused` against their namesakes in torch."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faussaire.core import native
from faussaire.nn import fused, fused_kernels
from faussaire.nn.fused import BatchNormAct2d, UpConv2d

SLOPES = [0.0, 0.2]
# One rounding to bfloat16, of 8 significant bits, is at most 2^-8 of the value.
ROUNDING = 2.0**-8

needs_kernels = pytest.mark.skipif(fused.kernels() is None, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def picture(*shape: int, offset: float = 0.5) -> Tensor:
    """A bfloat16 (N, C, H, W) in channels_last, with another mean and spread in each channel."""
    x = torch.randn(shape) * torch.linspace(0.5, 2, shape[1]).view(-1, 1, 1) + offset
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


def norm(channels: int, slope: float) -> BatchNormAct2d:
    layer = BatchNormAct2d(channels, slope)
    nn.init.normal_(layer.weight, 1.0, 0.2)
    nn.init.normal_(layer.bias, 0.0, 0.2)
    return layer


def exact(layer: BatchNormAct2d, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running averages of torch's own layers in float64."""
    other = nn.BatchNorm2d(layer.num_features).double()
    other.load_state_dict(layer.state_dict())
    x = x.double().requires_grad_()
    y = F.leaky_relu(other(x), layer.negative_slope)
    y.backward(dy.double())
    return results(y, x, other)


def results(y: Tensor, x: Tensor, layer: nn.BatchNorm2d) -> dict[str, Tensor]:
    return {
        "y": y.detach(),
        "dx": x.grad,
        "dweight": layer.weight.grad,
        "dbias": layer.bias.grad,
        "running_mean": layer.running_mean,
        "running_var": layer.running_var,
    }


def run(layer: BatchNormAct2d, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    layer = copy.deepcopy(layer)
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(dy)
    return results(y, x, layer)


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], relative: float) -> None:
    """Largest difference, over the largest value: gradients are small where they cancel."""
    for name, value in wanted.items():
        error = (found[name].double() - value.double()).abs().max() / value.double().abs().max()
        assert error <= relative, f"{name}: {error:.2e}"


def is_fused(y: Tensor) -> bool:
    return "FusedNormAct" in type(y.grad_fn).__name__


# ---- Batch norm and (leaky) ReLU ----


@pytest.mark.parametrize("slope", SLOPES)
def test_float32_is_torch_bit_for_bit(slope: float) -> None:
    layer, x = norm(6, slope), torch.randn(4, 6, 5, 7)
    other = nn.BatchNorm2d(6)
    other.load_state_dict(layer.state_dict())
    for _ in range(2):
        assert torch.equal(layer(x), F.leaky_relu(other(x), slope))
    other.load_state_dict(layer.state_dict())  # the same names, and none more
    assert torch.equal(layer.eval()(x), F.leaky_relu(other.eval()(x), slope))
    assert int(layer.num_batches_tracked) == 2


@needs_kernels
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("shape", [(8, 16, 16, 16), (3, 48, 5, 7), (64, 64, 1, 1), (5, 32, 31, 9)])
def test_fused_norm_is_exact_to_one_rounding(shape: tuple[int, ...], slope: float) -> None:
    layer, x, dy = norm(shape[1], slope), picture(*shape), picture(*shape)
    assert is_fused(layer(x.clone().requires_grad_()))
    layer.reset_running_stats()
    found, wanted = run(layer, x, dy), exact(layer, x, dy)
    assert found["y"].is_contiguous(memory_format=torch.channels_last)
    # y and dx are float32 results rounded once; all else stays float32, except where a value within
    # float32 rounding of zero falls on the other side of the activation.
    assert_same(found, {k: wanted.pop(k) for k in ("y", "dx")}, ROUNDING)
    assert_same(found, wanted, 1e-5)


@needs_kernels
def test_fused_norm_is_as_good_as_torch_in_bfloat16() -> None:
    layer, x, dy = norm(32, 0.2), picture(8, 32, 12, 12), picture(8, 32, 12, 12)
    wanted = exact(layer, x, dy)
    found = run(layer, x, dy)
    fused.enabled = False
    try:
        plain = run(layer, x, dy)
    finally:
        fused.enabled = True
    for name, value in wanted.items():
        ours, theirs = ((r[name].double() - value).norm() for r in (found, plain))
        assert ours <= 1.1 * theirs + 1e-6 * value.norm(), name


@needs_kernels
def test_fused_norm_far_from_zero() -> None:
    layer, x, dy = norm(16, 0.0), picture(8, 16, 16, 16, offset=30.0), picture(8, 16, 16, 16)
    # 30 to 60 standard deviations: E[x^2] - E[x]^2 keeps three digits or more (see `_moments`).
    assert_same(run(layer, x, dy), exact(layer, x, dy), 5e-3)


@needs_kernels
def test_fused_norm_keeps_nan_and_infinity() -> None:
    x = picture(2, 16, 4, 4)
    x[0, 3, 0, 0] = float("nan")
    x[0, 5, 0, 0] = float("inf")
    y = norm(16, 0.2)(x)
    assert y[:, 3].isnan().all()
    assert y[0, 5].isnan().any()
    assert y[:, [0, 1, 2, 4]].isfinite().all()


@needs_kernels
def test_fused_norm_gives_only_the_gradients_asked_for() -> None:
    layer, x, dy = norm(16, 0.2), picture(4, 16, 8, 8), picture(4, 16, 8, 8)
    all_of_them = run(layer, x, dy)
    frozen = copy.deepcopy(layer).requires_grad_(False)
    given = x.clone().requires_grad_()
    frozen(given).backward(dy)
    assert torch.equal(given.grad, all_of_them["dx"])
    assert frozen.weight.grad is None
    learning = copy.deepcopy(layer)
    learning(x).backward(dy)
    assert torch.equal(learning.weight.grad, all_of_them["dweight"])
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(layer)(x), all_of_them["y"])


@needs_kernels
def test_fused_norm_takes_a_gradient_in_any_layout() -> None:
    layer, x, dy = norm(16, 0.2), picture(4, 16, 8, 8), picture(4, 16, 8, 8)
    assert_same(run(layer, x, dy.contiguous()), run(layer, x, dy), 0.0)


@needs_kernels
@pytest.mark.parametrize("frozen", [False, True])
def test_fused_norm_differentiates_twice(frozen: bool) -> None:
    """A gradient penalty through the fused form is the one through torch's layers."""
    layer = norm(16, 0.2).requires_grad_(not frozen)
    x, v = picture(4, 16, 6, 6).requires_grad_(), torch.randn(4, 16, 6, 6)

    def penalty(f, x: Tensor) -> Tensor:
        y = f(x)
        (dx,) = torch.autograd.grad((y.float() * v).sum(), x, create_graph=True)
        return dx.float().square().sum()

    ours = penalty(layer, x)
    wide = x.detach().double().requires_grad_()
    other = nn.BatchNorm2d(16).double()
    other.load_state_dict(layer.state_dict())
    v = v.double()
    theirs = penalty(lambda z: F.leaky_relu(other(z.double()), 0.2), wide)
    ours.backward()
    theirs.backward()
    # Rounded to bfloat16 after each of some six steps.
    pairs = [(ours, theirs), (x.grad, wide.grad)]
    pairs += [] if frozen else [(layer.weight.grad, other.weight.grad)]
    for a, b in pairs:
        assert (a.double() - b).norm() <= 6 * ROUNDING * b.norm()


def test_other_inputs_take_the_plain_form() -> None:
    x = picture(4, 16, 6, 6).requires_grad_()
    assert not is_fused(norm(16, 0.2)(x.float()))
    assert not is_fused(norm(16, 0.2)(x.contiguous()))
    assert not is_fused(norm(12, 0.2)(picture(4, 12, 6, 6).requires_grad_()))
    assert not is_fused(norm(16, 0.2).eval()(x))
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(16, 0.2)(picture(1, 16, 1, 1))


def test_without_a_compiler_the_plain_form_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = picture(4, 16, 6, 6).requires_grad_()
    monkeypatch.setenv("CXX", "/nowhere/g++")
    fused_kernels.kernels.cache_clear()
    native.load.cache_clear()
    try:
        assert fused.kernels() is None
        assert not is_fused(norm(16, 0.2)(x))
    finally:
        monkeypatch.undo()
        fused_kernels.kernels.cache_clear()
        native.load.cache_clear()


@needs_kernels
def test_compiled_the_plain_form_is_traced() -> None:
    net = nn.Sequential(UpConv2d(16, 16), norm(16, 0.2))
    x = picture(2, 16, 4, 4)
    compiled = torch.compile(copy.deepcopy(net), backend="eager", fullgraph=True)
    fused.enabled = False
    try:
        with torch.autocast("cpu", torch.bfloat16):
            plain = net(x)
    finally:
        fused.enabled = True
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), plain)


@needs_kernels
def test_fused_norm_is_the_same_for_any_number_of_threads() -> None:
    layer, x, dy = norm(32, 0.2), picture(8, 32, 20, 20), picture(8, 32, 20, 20)
    once = run(layer, x, dy)
    torch.set_num_threads(3)
    assert_same(run(layer, x, dy), once, 0.0)


# ---- Several processes ----


def two_ranks(layer: BatchNormAct2d, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """`run` with one half of the batch on each of two threads, which add up their sums."""
    barrier, slots, found = threading.Barrier(2), {}, {}
    rank = threading.local()

    def add(sums: Tensor) -> Tensor:
        assert sums.dtype == torch.float32
        assert sums.dim() == 1
        slots[rank.index] = sums
        barrier.wait(30)
        total = slots[0] + slots[1]
        barrier.wait(30)
        return total

    def work(index: int) -> None:
        rank.index = index
        found[index] = run(layer, x.chunk(2)[index], dy.chunk(2)[index])

    fused.reduce_statistics = add
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        fused.reduce_statistics = None
    a, b = found[0], found[1]
    for name in ("running_mean", "running_var"):
        assert torch.equal(a[name], b[name])
    joined = {k: torch.cat([a[k], b[k]]) for k in ("y", "dx")}
    summed = {k: a[k] + b[k] for k in ("dweight", "dbias")}
    return joined | summed | {k: a[k] for k in ("running_mean", "running_var")}


@pytest.mark.parametrize("slope", SLOPES)
def test_two_ranks_equal_one_in_float32(slope: float) -> None:
    layer, x, dy = norm(6, slope), torch.randn(8, 6, 5, 7), torch.randn(8, 6, 5, 7)
    assert_same(two_ranks(layer, x, dy), exact(layer, x, dy), 1e-5)


@needs_kernels
@pytest.mark.parametrize("slope", SLOPES)
def test_two_ranks_equal_one_fused(slope: float) -> None:
    layer, x, dy = norm(16, slope), picture(8, 16, 12, 12), picture(8, 16, 12, 12)
    found, wanted = two_ranks(layer, x, dy), run(layer, x, dy)
    # Statistics may differ in the last bit of float32, and so y and dx by one rounding.
    assert_same(found, {k: wanted.pop(k) for k in ("y", "dx")}, 2 * ROUNDING)
    assert_same(found, wanted, 1e-5)


def test_shared_statistics_differentiate_twice() -> None:
    """With a reduction over one process, a gradient penalty is that of torch's batch norm."""

    def penalty(layer: BatchNormAct2d) -> Tensor:
        layer, x = copy.deepcopy(layer), given.clone().requires_grad_()
        (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        dx.square().sum().backward()
        return torch.cat([x.grad.flatten(), layer.weight.grad])

    layer, given = norm(3, 0.2), torch.randn(4, 3, 5, 5)
    alone = penalty(layer)
    fused.reduce_statistics = torch.clone
    try:
        shared = penalty(layer)
    finally:
        fused.reduce_statistics = None
    assert (shared - alone).norm() <= 1e-4 * alone.norm()


# ---- Transposed convolution ----


def up_run(layer: UpConv2d, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    layer, x = copy.deepcopy(layer), x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.backward(dy)
    bias = {} if layer.bias is None else {"dbias": layer.bias.grad}
    return {"y": y.detach(), "dx": x.grad, "dweight": layer.weight.grad} | bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [(4, 2, 1), (3, 1, 1), (2, 2, 0)])
def test_up_convolution_is_torchs(kernel: tuple[int, int, int], bias: bool) -> None:
    layer, x = UpConv2d(16, 24, *kernel, bias=bias), picture(4, 16, 6, 5)
    other = nn.ConvTranspose2d(16, 24, *kernel, bias=bias)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x.float()), other(x.float()))
    dy = picture(*other(x.float()).shape)
    found, wanted = up_run(layer, x, dy), up_run(other, x, dy)
    # The same kernels, but for the bias: a sum, rounded to bfloat16, in another order.
    assert_same(found, {"dbias": wanted.pop("dbias")} if bias else {}, 2 * ROUNDING)
    assert_same(found, wanted, 0.0)


def test_up_convolution_keeps_the_dtype_of_its_parameters() -> None:
    layer = UpConv2d(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, 8, 4, 4, requires_grad=True))
    assert y.dtype == torch.bfloat16
    assert "_UpConv" in type(y.grad_fn).__name__
    y.sum().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {torch.float32}


def test_up_convolution_differentiates_twice() -> None:
    x = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    f = lambda *inputs: fused._UpConv.apply(*inputs, (2, 2), (1, 1))  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, weight, bias))
    assert torch.autograd.gradgradcheck(f, (x, weight, bias))


# ---- Determinism ----

_PROGRAM = """
import hashlib, torch
from torch import nn
from faussaire.nn.fused import BatchNormAct2d, UpConv2d
torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(UpConv2d(16, 32), BatchNormAct2d(32), UpConv2d(32, 16), BatchNormAct2d(16, 0.2))
net.to(memory_format=torch.channels_last)
adam = torch.optim.Adam(net.parameters(), fused=True)
for _ in range(3):
    with torch.autocast("cpu", torch.bfloat16):
        y = net(torch.randn(4, 16, 4, 4).to(memory_format=torch.channels_last))
    adam.zero_grad()
    y.float().square().mean().backward()
    adam.step()
state = b"".join(t.detach().numpy().tobytes() for t in net.state_dict().values())
print(hashlib.sha256(state).hexdigest())
"""


def test_two_processes_train_to_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as other:
        exec(_PROGRAM, {})
        theirs = other.communicate(timeout=120)[0]
    assert len(theirs.strip()) == 64
    assert theirs == capsys.readouterr().out
