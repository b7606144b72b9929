"""Layers that do the same as their `torch.nn` namesakes with less traffic through memory.

Each has a plain form in ordinary torch operations, which runs everywhere and is the definition, and
a fast one for bfloat16 activations in `channels_last` on a CPU, where convolutions are so fast that
what surrounds them costs as much as they do. The fast form is chosen per call, from what the call
looks like; tests hold it equal to the plain one. Parameters, statistics and running averages are
float32 in both.

Under `torch.compile` the plain form is traced. Double backward works in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faussaire.core.distributed import AllSum
from faussaire.nn.fused_kernels import LANES, kernels

__all__ = [
    "BatchNormAct2d",
    "InstanceNormAct2d",
    "UpConv2d",
    "alone",
    "enabled",
    "reduce_statistics",
]

enabled: bool = True
"""False keeps every layer here on its plain form; for tests and measurements."""

reduce_statistics: Callable[[Tensor], Tensor] | None = None
"""Adds a flat float32 tensor over all processes and returns the sum; None for a single process.

Called with each batch norm's per-channel sums, once in forward and once in backward (more often in
a double backward), in the same order on every process, so that batch statistics are those of the
whole batch. The tensor may be changed in place. Gradients of weight and bias stay those of this
process, to be averaged with all others.
"""


@contextmanager
def alone() -> Iterator[None]:
    """Within it, batch norm takes the statistics of this process: the others are not asked."""
    global reduce_statistics
    kept, reduce_statistics = reduce_statistics, None
    try:
        yield
    finally:
        reduce_statistics = kept


# ---- Batch norm and (leaky) ReLU ----


class BatchNormAct2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, then ReLU (`negative_slope` 0) or leaky ReLU, as one operation.

    y = f((x - mean) / sqrt(var + eps) * weight + bias), x, y: (N, C, H, W).

    Parameters and buffers are those of `nn.BatchNorm2d`. The fast form passes over memory twice
    forward and twice backward, and keeps x alone; batch norm and activation apart take about three
    times as long. It rounds once, after the activation; the plain form rounds in between too.

    Args:
        channels: C. The fast form needs a multiple of 16.
        negative_slope: slope of the activation below zero.
        eps: added to the variance.
        momentum: share of the batch in the running averages.
    """

    # Narrower than in nn.BatchNorm2d, which may go without: here they always exist.
    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: int,
        negative_slope: float = 0.0,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W) of the same dtype and memory format."""
        if not self.training:
            y = F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return _activation(y, self.negative_slope)

        self.num_batches_tracked.add_(1)
        arguments = (input, self.weight, self.bias, self.eps, self.negative_slope)
        if _norm_is_fast(input, self.weight):
            y, mean, var, count = _FusedNormAct.apply(*arguments)
        elif reduce_statistics is not None:
            y, mean, var, count = _shared_norm_act(*arguments, reduce_statistics)
        else:
            y = F.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=True,
                momentum=self.momentum,
                eps=self.eps,
            )
            return _activation(y, self.negative_slope)

        with torch.no_grad():  # as nn.BatchNorm2d: the running variance is the unbiased one
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        return y

    def extra_repr(self) -> str:
        """As `nn.BatchNorm2d`, and the slope."""
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"


class InstanceNormAct2d(nn.Module):
    """Instance normalisation, then ReLU (`negative_slope` 0) or leaky ReLU, as one operation.

    y = f((x - mean) / sqrt(var + eps) * weight + bias) with mean and variance of each picture's own
    channels; x, y: (N, C, H, W). Ulyanov, Vedaldi, Lempitsky 2016, "Instance Normalization", arXiv
    1607.08022, equation 3. The same in training and afterwards, for a picture alone and among others.

    The fast form is that of `BatchNormAct2d`, with the same kernels on a picture at a time.

    Args:
        channels: C. The fast form needs a multiple of 16.
        negative_slope: slope of the activation below zero; 1: no activation.
        eps: added to the variance.
    """

    def __init__(self, channels: int, negative_slope: float = 0.0, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.negative_slope, self.eps = negative_slope, eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W) of the same dtype."""
        if _norm_is_fast(x, self.weight):
            return _FusedInstanceNormAct.apply(
                x, self.weight, self.bias, self.eps, self.negative_slope
            )
        return _plain_instance_norm(x, self.weight, self.bias, self.eps, self.negative_slope)

    def extra_repr(self) -> str:
        """Channels and slope."""
        return f"{len(self.weight)}, negative_slope={self.negative_slope}"


def _plain_instance_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float
) -> Tensor:
    """By hand: `F.instance_norm` refuses pictures of one pixel, and leaves channels_last."""
    centred = x - x.mean((2, 3), keepdim=True, dtype=torch.float32)
    scale = (centred.square().mean((2, 3), keepdim=True) + eps).rsqrt()
    y = (centred * (scale * weight.view(-1, 1, 1)) + bias.view(-1, 1, 1)).to(x.dtype)
    return y if slope == 1.0 else _activation(y, slope)


class _FusedInstanceNormAct(torch.autograd.Function):
    """The fast form of `_plain_instance_norm`: `_FusedNormAct` for each picture, its sums together."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        library, shape = kernels(), _shape(x[:1])
        assert library is not None  # `_norm_is_fast` has asked
        sums = torch.empty(len(x), 2, x.size(1))
        for row, found in zip(_rows(x), _rows(sums), strict=True):
            library.faussaire_norm_sums(row, found, *shape)
        mean, square = (part.contiguous() for part in (sums / shape[0]).unbind(1))  # (N, C) each
        rstd = ((square - mean * mean).clamp_min(0.0) + eps).rsqrt()
        scale = weight * rstd
        shift = bias - mean * scale
        y = torch.empty_like(x)
        for row, factor, offset, out in zip(*map(_rows, (x, scale, shift, y)), strict=True):
            library.faussaire_norm_apply(row, factor, offset, slope, out, *shape)
        ctx.eps, ctx.slope = eps, slope
        ctx.save_for_backward(x, weight, bias, mean, rstd, scale, shift)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd, scale, shift = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the kernels cannot be differentiated again
            needed = ctx.needs_input_grad[:3]
            wanted = [t for t, needs in zip((x, weight, bias), needed, strict=True) if needs]
            y = _plain_instance_norm(x, weight, bias, ctx.eps, ctx.slope)
            found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
            return *(next(found) if needs else None for needs in needed), None, None

        library, shape = kernels(), _shape(x[:1])
        assert library is not None
        dy = dy.contiguous(memory_format=torch.channels_last)
        sums = torch.empty(len(x), 2, x.size(1))  # of g, and of g * (x - mean)
        for *pointers, found in zip(*map(_rows, (dy, x, scale, shift, mean, sums)), strict=True):
            library.faussaire_norm_backward_sums(*pointers, ctx.slope, found, *shape)
        all_g, product = sums.unbind(1)
        dweight, dbias = (product * rstd).sum(0), all_g.sum(0)
        if not ctx.needs_input_grad[0]:
            return None, dweight, dbias, None, None
        along = -scale * rstd * rstd * product / shape[0]
        offset = -scale * all_g / shape[0] - mean * along
        dx = torch.empty_like(x)
        parts = (dy, x, scale, shift, along, offset, dx)
        for *pointers, out in zip(*map(_rows, parts), strict=True):
            library.faussaire_norm_backward_apply(*pointers, ctx.slope, out, *shape)
        return dx, dweight, dbias, None, None


def _rows(x: Tensor) -> list[int]:
    """Where each of its rows begins in memory, which must be dense from the first to the last."""
    assert x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    step = x.element_size() * (x.numel() // len(x))
    return [x.data_ptr() + row * step for row in range(len(x))]


def _activation(y: Tensor, negative_slope: float) -> Tensor:
    return F.leaky_relu(y, negative_slope) if negative_slope else F.relu(y)


def _norm_is_fast(x: Tensor, weight: Tensor) -> bool:
    """Whether the fused form can run, and is known to be the faster."""
    return (
        not torch.compiler.is_compiling()
        and enabled
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and weight.dtype == torch.float32
        and x.dim() == 4
        and x.size(1) % LANES == 0
        and x.numel() > x.size(1)  # of a single value the plain form says what is wrong
        and x.is_contiguous(memory_format=torch.channels_last)
        and kernels() is not None
    )


def _moments(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C), biased variance (C) and count () from [sum x, sum x^2, count], a (2C + 1) tensor.

    The difference of E[x^2] and E[x]^2 loses (mean / std)^2 units of float32 rounding: 1e-4 of the
    variance at a mean of 30 standard deviations, where a bfloat16 x has lost an eighth itself.
    """
    count = sums[-1]
    mean, square = (sums[:-1] / count).chunk(2)
    return mean, (square - mean * mean).clamp_min(0.0), count


def _shared_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    slope: float,
    reduce: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The plain form over several processes: y (N, C, H, W), mean (C), variance (C), count ()."""
    values = x.float()
    rows = values.new_tensor([values.numel() // values.size(1)])
    sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), rows])
    if reduce is not None:
        sums = AllSum.apply(sums, reduce)
    mean, var, count = _moments(sums)
    scale = weight * (var + eps).rsqrt()
    y = values * scale.view(-1, 1, 1) + (bias - mean * scale).view(-1, 1, 1)
    return _activation(y.to(x.dtype), slope), mean, var, count


class _FusedNormAct(torch.autograd.Function):
    """The fast form of `_shared_norm_act`, for one process or several.

    With xhat = (x - mean) * rstd, g = dL/d(weight * xhat + bias) and n values per channel,
      dL/dbias = sum g,  dL/dweight = sum g * xhat,
      dL/dx = weight * rstd * (g - dL/dbias / n - xhat * dL/dweight / n)
    (Ioffe and Szegedy 2015, arXiv:1502.03167, section 3).
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        library, shape = kernels(), _shape(x)
        assert library is not None  # `_norm_is_fast` has asked
        sums = torch.empty(2 * x.size(1) + 1)
        library.faussaire_norm_sums(x.data_ptr(), sums.data_ptr(), *shape)
        sums[-1] = shape[0]
        if reduce_statistics is not None:
            sums = reduce_statistics(sums)
        mean, var, count = _moments(sums)
        rstd = (var + eps).rsqrt()
        scale = weight * rstd
        shift = bias - mean * scale
        y = torch.empty_like(x)
        library.faussaire_norm_apply(
            x.data_ptr(), scale.data_ptr(), shift.data_ptr(), slope, y.data_ptr(), *shape
        )
        ctx.eps, ctx.slope, ctx.reduce = eps, slope, reduce_statistics
        ctx.save_for_backward(x, weight, bias, mean, rstd, scale, shift, count)
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    def backward(ctx, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd, scale, shift, count = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the kernels cannot be differentiated again
            needed = ctx.needs_input_grad[:3]
            wanted = [t for t, needs in zip((x, weight, bias), needed, strict=True) if needs]
            y = _shared_norm_act(x, weight, bias, ctx.eps, ctx.slope, ctx.reduce)[0]
            found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
            return *(next(found) if needs else None for needs in needed), None, None

        library, shape = kernels(), _shape(x)
        assert library is not None
        dy = dy.contiguous(memory_format=torch.channels_last)
        sums = torch.empty(2 * x.size(1))  # of g, and of g * (x - mean)
        library.faussaire_norm_backward_sums(
            *(t.data_ptr() for t in (dy, x, scale, shift, mean)), ctx.slope, sums.data_ptr(), *shape
        )
        dbias, product = sums.clone().chunk(2)
        dweight = product * rstd
        if not ctx.needs_input_grad[0]:
            return None, dweight, dbias, None, None
        if ctx.reduce is not None:
            sums = ctx.reduce(sums)
        # dL/dx = g * scale + x * along + offset: one multiply and add per value and term.
        all_g, all_product = (sums / count).chunk(2)
        along = -scale * rstd * rstd * all_product
        offset = -scale * all_g - mean * along
        dx = torch.empty_like(x)
        library.faussaire_norm_backward_apply(
            *(t.data_ptr() for t in (dy, x, scale, shift, along, offset)),
            ctx.slope,
            dx.data_ptr(),
            *shape,
        )
        return dx, dweight, dbias, None, None


def _shape(x: Tensor) -> tuple[int, int, int]:
    """Rows (N * H * W), channels and threads, as the kernels take them."""
    return x.numel() // x.size(1), x.size(1), torch.get_num_threads()


# ---- Transposed convolution ----


class UpConv2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, by default doubling height and width, with a faster backward.

    x: (N, in, H, W) to y: (N, out, 2H, 2W); weight (in, out, 4, 4).

    oneDNN's bfloat16 weight gradient of a transposed convolution adds the bias gradient by a slow
    loop, dearer than both other gradients together. The fast form asks for it separately, as a
    matrix product. Before a batch norm leave the bias out: its gradient is zero.

    Args:
        in_channels: channels of x.
        out_channels: channels of y.
        kernel_size: side of the kernel, in pixels of y.
        stride: by how much height and width grow.
        padding: cut from each side of y, in pixels.
        bias: whether a constant per channel is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 4,
        stride: int = 2,
        padding: int = 1,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in, H, W) to (N, out, stride * H, stride * W)."""
        if self.bias is None or output_size is not None or not _up_is_fast(input, self.weight):
            return super().forward(input, output_size)
        half = (t.to(torch.bfloat16) for t in (input, self.weight, self.bias))
        return _UpConv.apply(*half, self.stride, self.padding)


def _up_is_fast(x: Tensor, weight: Tensor) -> bool:
    """Whether autocast, or the tensors, ask for bfloat16 on a CPU."""
    if torch.compiler.is_compiling() or not enabled or x.device.type != "cpu" or x.dim() != 4:
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == weight.dtype == torch.bfloat16


class _UpConv(torch.autograd.Function):
    """`F.conv_transpose2d`; backward is made of differentiable operations."""

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple, padding: tuple
    ) -> Tensor:
        ctx.stride, ctx.padding = stride, padding
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            dy,
            x,
            weight,
            None,
            ctx.stride,
            ctx.padding,
            (1, 1),
            True,
            (0, 0),
            1,
            (needs_x, needs_weight, False),
        )
        dbias = None
        if needs_bias:
            rows = dy.permute(0, 2, 3, 1).reshape(-1, dy.size(1))
            dbias = (rows.new_ones(1, len(rows)) @ rows).squeeze(0)
        return dx, dweight, dbias, None, None
