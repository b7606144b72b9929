"""Resizing by two with a low-pass filter, so that nothing is aliased and nothing becomes blocky.

Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", arXiv 1904.11486; in generators
since Karras et al. 2019, arXiv 1812.04948. The definition is that of signal processing: to grow, put
a zero between all pixels and filter; to shrink, filter and keep every second pixel. Outside the
picture all is zero. `TAPS` are a row of Pascal's triangle, [1, 3, 3, 1].

Filters are separable: `taps` are the same along both sides, symmetric, and even in number, so that
the grid of the large picture lies symmetrically over that of the small one. They are divided by their
sum: a constant picture keeps its value away from the borders. The filter runs in the dtype of what it
filters, under autocast too.

Derivatives are exact to any order and as fast as the functions: a symmetric filter is its own
adjoint, and growing is the adjoint of shrinking. How these are computed was chosen by time on a CPU:
one thread with AMX, bf16, channels_last, 32 x 128 x 16 x 16 on the larger side, forward and backward
in ms.

    shrinking   depthwise convolution of stride 2, torch's backward           29.5
                sums of shifted slices                                         6.9
                three average pools                                            8.2
                depthwise convolution of stride 2, `_Grow` as backward         2.0
    growing     depthwise transposed convolution of stride 2                  29.7
                zeros between, depthwise convolution, `_Shrink` as backward    2.1
    growing with a 3x3 convolution, 128 -> 128 channels
                one transposed convolution of the two kernels' product, 6x6   20.4
                the same as four 3x3 convolutions and a pixel shuffle         19.0
                transposed convolution of stride 2, then the filter            9.3
    shrinking with a 3x3 convolution
                one convolution of stride 2, 6x6                              17.2
                pixel unshuffle and a 3x3 convolution                         19.5
                the filter, then a convolution of stride 2                     7.0

Kernels multiplied into one save passes over memory but need four times the products, and gradients of
a weight four times as large. Second derivatives in float32 of the last of each kind take half as long
as torch's own: 45 ms against 98 and 89.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)


def blur(x: Tensor, taps: Sequence[float] = TAPS, *, padding: int = 0, gain: float = 1.0) -> Tensor:
    """The filter at every position: (N, C, H, W) to (N, C, H + 2p + 1 - k, W + 2p + 1 - k).

    Before a k x k convolution of stride 2 without padding, `padding=len(taps) // 2 - 1 + k // 2`
    makes both together equal to filtering the endless plane, convolving it, and keeping every second
    pixel: floor(H / 2) of them.

    Args:
        x: pictures or features.
        taps: k numbers.
        padding: p, zeros on each side of x in pixels.
        gain: factor on the result.
    """
    return _filter(_Blur, x, taps, padding, gain)


def upsample(x: Tensor, taps: Sequence[float] = TAPS) -> Tensor:
    """Twice the height and width: (N, C, H, W) to (N, C, 2H, 2W)."""
    size = (2 * x.shape[2], 2 * x.shape[3])
    return _filter(_Grow, x, taps, size, 4.0)


def downsample(x: Tensor, taps: Sequence[float] = TAPS) -> Tensor:
    """Half the height and width: (N, C, H, W) to (N, C, floor(H / 2), floor(W / 2))."""
    return _filter(_Shrink, x, taps, 1.0)


def upsample_conv(x: Tensor, weight: Tensor, taps: Sequence[float] = TAPS) -> Tensor:
    """Twice the height and width, with a convolution: (N, in, H, W) to (N, out, 2H, 2W).

    Equal to zeros between all pixels, the filter over the endless plane, and
    y(p) = sum_t weight(t) u(p - t), t counted from the kernel's centre.

    Args:
        x: features.
        weight: (in, out, k, k), k odd, as `F.conv_transpose2d` takes it.
        taps: of the filter.
    """
    spread = F.conv_transpose2d(x, weight, stride=2)
    return blur(spread, taps, padding=len(taps) // 2 - weight.shape[-1] // 2, gain=4.0)


def _filter(form: type[torch.autograd.Function], x: Tensor, taps: Sequence[float], *how: Any):
    # A filter is no product of activations and weights: autocast would only round its input.
    with torch.autocast(x.device.type, enabled=False):
        return form.apply(x, tuple(taps), *how)


def _kernel(
    taps: tuple[float, ...], gain: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(1, 1, k, k)."""
    if len(taps) % 2 or taps != taps[::-1]:
        raise ValueError(f"taps must be symmetric and even in number, not {taps}")
    with torch.inference_mode(False):  # it outlives the mode that asks for it first
        row = torch.tensor(taps, dtype=torch.float64, device="cpu") / sum(taps)
        return (gain * torch.outer(row, row)[None, None]).to(device, dtype)


_kept_kernel = cache(_kernel)


def _depthwise(
    x: Tensor, taps: tuple[float, ...], gain: float, *, padding: int, stride: int = 1
) -> Tensor:
    channels = x.shape[1]
    # A compiler makes a constant of it, and complains of the cache.
    make = _kernel if torch.compiler.is_compiling() else _kept_kernel
    kernel = make(taps, gain, x.device, x.dtype).expand(channels, 1, -1, -1)
    return F.conv2d(x, kernel, padding=padding, stride=stride, groups=channels)


class _Blur(torch.autograd.Function):
    """The filter at stride 1; its adjoint is itself, with the rest of the full padding."""

    @staticmethod
    def forward(ctx, x: Tensor, taps: tuple[float, ...], padding: int, gain: float) -> Tensor:
        ctx.arguments = (taps, len(taps) - 1 - padding, gain)
        return _depthwise(x, taps, gain, padding=padding)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Blur.apply(gradient, *ctx.arguments), None, None, None


class _Shrink(torch.autograd.Function):
    """The filter at every second position."""

    @staticmethod
    def forward(ctx, x: Tensor, taps: tuple[float, ...], gain: float) -> Tensor:
        ctx.arguments = (taps, tuple(x.shape[2:]), gain)
        return _depthwise(x, taps, gain, padding=len(taps) // 2 - 1, stride=2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Grow.apply(gradient, *ctx.arguments), None, None


class _Grow(torch.autograd.Function):
    """Zeros between all pixels, and the filter: to `size`, twice the input's or one more."""

    @staticmethod
    def forward(
        ctx, x: Tensor, taps: tuple[float, ...], size: tuple[int, int], gain: float
    ) -> Tensor:
        ctx.arguments = (taps, gain)
        # One less than `size`: the padding of the filter, even on both sides, gives the last zero.
        spread = torch.empty(
            (*x.shape[:2], size[0] - 1, size[1] - 1),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        ).zero_()
        spread[:, :, ::2, ::2] = x
        return _depthwise(spread, taps, gain, padding=len(taps) // 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Shrink.apply(gradient, *ctx.arguments), None, None, None
