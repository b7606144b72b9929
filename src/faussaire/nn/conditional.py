"""Batch norm whose gain and bias depend on a condition.

Modulating early visual processing by language. Harm de Vries, Florian Strub, Jérémie Mary, Hugo
Larochelle, Olivier Pietquin, Aaron Courville. 2017. arXiv 1707.00683; by classes: Dumoulin et al.
2017, arXiv 1610.07629. In GANs: Miyato and Koyama 2018, arXiv 1802.05637; Brock et al. 2019, arXiv
1809.11096.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from faussaire.nn.fused import BatchNormAct2d, alone

__all__ = ["ConditionalBatchNormAct2d", "standing_statistics"]


class ConditionalBatchNormAct2d(nn.Module):
    """y = relu((x - mean) / sqrt(var + eps) * (1 + A c) + B c), mean and var over the batch.

    x, y: (N, C, H, W); c: (N, K). For a one-hot c the columns of A and B are a gain and a bias for
    each class. A and B begin at 0, so that the layer begins as plain batch norm and ReLU.

    Statistics are those of `BatchNormAct2d`: shared over processes, running averages in evaluation.
    Gain and bias are computed in float32.

    Args:
        channels: C.
        condition_size: K.
    """

    def __init__(self, channels: int, condition_size: int) -> None:
        super().__init__()
        self.norm = _Normalise(channels)
        self.gain = nn.Linear(condition_size, channels, bias=False)
        self.bias = nn.Linear(condition_size, channels, bias=False)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            gain = 1.0 + self.gain(condition.float())
            bias = self.bias(condition.float())
        gain, bias = (part.to(x.dtype)[:, :, None, None] for part in (gain, bias))
        return torch.addcmul(bias, self.norm(x), gain).relu()


class _Normalise(BatchNormAct2d):
    """Batch norm alone: unit gain and no bias, which are neither learnt nor saved; no activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, negative_slope=1.0)
        del self.weight, self.bias
        self.register_buffer("weight", torch.ones(channels), persistent=False)
        self.register_buffer("bias", torch.zeros(channels), persistent=False)


@torch.no_grad()
def standing_statistics(net: nn.Module, run: Callable[[], object], batches: int) -> None:
    """Replace running statistics by averages over `batches` batches, each counted alike.

    Brock et al. 2019, arXiv 1809.11096, appendix C ("standing statistics"). Running averages belong
    to the weights being trained; those of a generator with averaged weights are its own only after
    it has seen some batches itself. Only batch norm is in training mode meanwhile.

    This process works alone: others need not call it.

    Args:
        net: whose `BatchNormAct2d` layers are settled.
        run: runs the net on one batch.
        batches: how often.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, BatchNormAct2d)]
    before = [(layer.training, layer.momentum) for layer in layers]
    try:
        with alone():
            for batch in range(batches):
                for layer in layers:
                    layer.train()
                    layer.momentum = 1.0 / (batch + 1)
                run()
    finally:
        for layer, (training, momentum) in zip(layers, before, strict=True):
            layer.train(training)
            layer.momentum = momentum
