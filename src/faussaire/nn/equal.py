"""Layers with equalised learning rates, and the norm and the statistic that came with them.

Progressive Growing of GANs for Improved Quality, Stability, and Variation. Karras, Aila, Laine,
Lehtinen. 2018. arXiv 1710.10196: section 4.1 (equalised rates), 4.2 (pixel norm), 3 (minibatch
standard deviation). Used by the families that descend from it.

Weights are drawn from N(0, 1) and multiplied at run time by He's constant. Adam's steps do not depend
on the size of gradients, so all weights then learn at the same speed relative to their range.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EqualLinear(nn.Module):
    """y = (gain * rate / sqrt(inputs)) W x + rate * b, with W from N(0, 1 / rate^2).

    Args:
        inputs: features of x, (..., inputs).
        outputs: features of y, (..., outputs).
        bias: whether b exists.
        bias_init: what `rate * b` begins with.
        gain: deviation of y at initialisation where x has unit mean square: sqrt(2) before a leaky
            ReLU, 1 at the end of a network.
        rate: learning rate of this layer relative to the optimiser's (StyleGAN's mapping: 0.01). The
            output at initialisation does not depend on it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        bias_init: float = 0.0,
        gain: float = 1.0,
        rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init / rate)) if bias else None
        self.gain, self.rate = gain, rate
        self.scale = gain * rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias
        if bias is not None and self.rate != 1.0:
            bias = bias * self.rate
        return F.linear(x, self.weight * self.scale, bias)

    def extra_repr(self) -> str:
        """Sizes, gain and rate."""
        outputs, inputs = self.weight.shape
        return f"{inputs}, {outputs}, gain={self.gain:.4g}, rate={self.rate:.4g}"


class EqualConv2d(nn.Module):
    """y = (gain / sqrt(inputs * kernel^2)) W * x + b, with W from N(0, 1) and b from 0.

    Args:
        inputs: channels of x, (N, inputs, H, W).
        outputs: channels of y.
        kernel: side of the square kernel.
        bias: whether b exists.
        gain: as in `EqualLinear`.
        stride: step between outputs, in pixels.
        padding: zeros around x in pixels; None: half the kernel, which keeps odd kernels' size.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain, self.stride = gain, stride
        self.padding = kernel // 2 if padding is None else padding
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if weight.shape[2] == 1 and self.stride == 1 and self.padding == 0:
            # A linear map of channels: unlike torch's convolution, it keeps channels_last where x
            # has a single channel, which is in both layouts at once.
            return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        """Sizes, stride, padding and gain."""
        outputs, inputs, kernel, _ = self.weight.shape
        return (
            f"{inputs}, {outputs}, kernel={kernel}, stride={self.stride}, "
            f"padding={self.padding}, gain={self.gain:.4g}"
        )


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x / sqrt(mean_c x_c^2 + eps): each pixel's features at unit mean square. Section 4.2.

    The mean is taken in float32 at least; the output has the dtype of x.

    Args:
        x: (N, C) or (N, C, H, W).
        eps: added to the mean square.
    """
    return _PixelNorm.apply(x, eps)


class _PixelNorm(torch.autograd.Function):
    """The norm with a backward pass that keeps channels_last, which torch's for a mean loses.

    In terms of r = 1 / sqrt(mean_c x_c^2 + eps), dx = r dy - r^3 x mean_c(x_c dy_c).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.eps = eps
        return x * _inverse_root(x, eps).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,), (dy,) = ctx.saved_tensors, gradients
        r = _inverse_root(x, ctx.eps)
        along = (r**3 * _wide(x * dy).mean(dim=1, keepdim=True)).to(x.dtype)
        return dy * r.to(x.dtype) - x * along, None


def _inverse_root(x: Tensor, eps: float) -> Tensor:
    return _wide(x).square().mean(dim=1, keepdim=True).add(eps).rsqrt()


def minibatch_stddev(x: Tensor, group: int = 4, channels: int = 1) -> Tensor:
    """x with `channels` more maps that tell how much the pictures of a group differ. Section 3.

    The deviation over a group of pictures is taken for each feature and position, in float32 at
    least, and averaged over all positions and over each of `channels` equal parts of the features.
    All pictures of the group get it as constant maps.

    A group is `group` neighbouring rows; where these do not divide N, the largest number below that
    does. A process sees its own rows only. As these are neighbours in the whole batch, two processes
    form the groups that one would, if the rows of each divide by `group`.

    Args:
        x: (N, C, H, W); `channels` divides C.
        group: pictures compared with each other.
        channels: maps to add.

    Returns:
        (N, C + channels, H, W).
    """
    rows, features, height, width = x.shape
    group = next(size for size in range(min(group, rows), 0, -1) if rows % size == 0)
    seen = x.permute(0, 2, 3, 1)  # in this order it all stays channels_last, the derivatives too
    parts = _wide(seen).reshape(rows // group, group, height, width, channels, features // channels)
    # torch.var over a dimension that is not the last takes ten times as long on a CPU.
    variance = (parts - parts.mean(dim=1, keepdim=True)).square().mean(dim=1)
    deviation = variance.add(1e-8).sqrt().mean(dim=(1, 2, 4))
    maps = deviation.to(x.dtype).repeat_interleave(group, dim=0)[:, None, None]
    seen = torch.cat([seen, maps.expand(-1, height, width, -1)], dim=3)
    return seen.permute(0, 3, 1, 2)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
