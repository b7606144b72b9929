"""Conditional batch norm against its definition, alone and over two processes."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire.nn import fused
from faussaire.nn.conditional import ConditionalBatchNormAct2d, standing_statistics
from faussaire.nn.fused import BatchNormAct2d


def build(channels: int = 16, size: int = 3) -> ConditionalBatchNormAct2d:
    torch.manual_seed(0)
    layer = ConditionalBatchNormAct2d(channels, size)
    nn.init.normal_(layer.gain.weight, 0.0, 0.3)
    nn.init.normal_(layer.bias.weight, 0.0, 0.3)
    return layer


def one_hot(count: int, size: int = 3) -> Tensor:
    return F.one_hot(torch.arange(count) % size, size).float()


def definition(layer: ConditionalBatchNormAct2d, x: Tensor, condition: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    gain = 1.0 + condition @ layer.gain.weight.t()
    bias = condition @ layer.bias.weight.t()
    return F.relu((x - mean) / (var + 1e-5).sqrt() * gain[..., None, None] + bias[..., None, None])


def gradients(y: Tensor, x: Tensor, layer: nn.Module, dy: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y, [x, *layer.parameters()], dy))


def test_it_is_its_definition_with_its_gradients():
    layer, condition = build(), one_hot(6)
    x = (2 * torch.randn(6, 16, 5, 4) + 1).requires_grad_()
    dy = torch.randn(6, 16, 5, 4)
    found, wanted = layer(x, condition), definition(layer, x, condition)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    for one, two in zip(
        gradients(found, x, layer, dy), gradients(wanted, x, layer, dy), strict=True
    ):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_it_begins_as_batch_norm_and_relu_and_saves_no_constants():
    layer, plain = ConditionalBatchNormAct2d(8, 3), BatchNormAct2d(8)
    x = torch.randn(4, 8, 5, 5)
    torch.testing.assert_close(layer(x, one_hot(4)), plain(x))
    torch.testing.assert_close(layer.eval()(x, one_hot(4)), plain.eval()(x))
    assert sorted(layer.state_dict()) == [
        "bias.weight",
        "gain.weight",
        *(f"norm.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")),
    ]
    assert copy.deepcopy(layer)(x, one_hot(4)).shape == x.shape


def test_bfloat16_rounds_and_no_more():
    layer, condition = build(), one_hot(6)
    x = torch.randn(6, 16, 8, 8).contiguous(memory_format=torch.channels_last).bfloat16()
    exact = definition(layer, x.float(), condition).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x, condition)
    assert found.dtype == torch.bfloat16
    # xhat, gain, bias and the result are each rounded to 8 bits.
    assert float((found.detach().float() - exact).abs().max()) < 4 * 2**-8 * float(exact.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_processes_normalise_as_one(dtype):
    layer, condition = build(), one_hot(8)
    x = torch.randn(8, 16, 6, 6).contiguous(memory_format=torch.channels_last).to(dtype)
    dy = torch.randn(8, 16, 6, 6).to(dtype)
    barrier, slots, rank = threading.Barrier(2), {}, threading.local()
    found: dict[int, list[Tensor]] = {}

    def add(sums: Tensor) -> Tensor:
        slots[rank.index] = sums
        barrier.wait(30)
        total = slots[0] + slots[1]
        barrier.wait(30)
        return total

    def run(rows: slice) -> list[Tensor]:
        mine, some = copy.deepcopy(layer), x[rows].clone().requires_grad_()
        y = mine(some, condition[rows])
        return [y.detach(), *gradients(y, some, mine, dy[rows]), mine.norm.running_var]

    def work(index: int) -> None:
        rank.index = index
        found[index] = run(slice(4 * index, 4 * index + 4))

    alone = run(slice(0, 8))
    fused.reduce_statistics = add
    try:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        fused.reduce_statistics = None
    tolerance = 1e-4 if dtype == torch.float32 else 0.02
    joined = [
        *(torch.cat([found[0][i], found[1][i]]) for i in range(2)),
        *(found[0][i] + found[1][i] for i in (2, 3)),
        found[0][4],
    ]
    for one, two in zip(joined, alone, strict=True):
        assert (one - two).norm() <= tolerance * two.norm()


def test_standing_statistics_count_every_batch_alike_and_put_all_back():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(0.5), BatchNormAct2d(4)).eval()
    batches = [torch.randn(8, 4, 3, 3) + shift for shift in (0.0, 1.0, 5.0)]
    left = iter(batches)
    fused.reduce_statistics = lambda sums: pytest.fail("other processes were asked")
    try:
        standing_statistics(net, lambda: net(next(left)), 3)
    finally:
        fused.reduce_statistics = None
    norm = net[1]
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    var = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert norm.momentum == 0.1
    assert not any(layer.training for layer in net.modules())
