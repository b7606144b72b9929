"""Convolutions whose second derivatives cost what convolutions cost, and kinks that have none.

A penalty on a critic's gradient differentiates twice. A convolution y = c(x, w) is linear in both of
its arguments, so its derivatives are its two adjoints, and the derivatives of these are again it and
the adjoints:

    dx = a(dy, w),   dw = b(x, dy)
    of a:  d/d dy = c(ddx, w),   d/d w  = b(ddx, dy)
    of b:  d/d x  = a(dy, ddw),  d/d dy = c(x, ddw)

torch's own second derivative transposes and reorders tensors to call a general convolution, group by
group. Stating the above instead takes the gradient of a penalty over three convolutions with leaky
ReLUs (one thread with AMX, bf16, 32 pictures) from 94 to 42 ms for 3x3 on 128x16x16, from 163 to 79 ms
for 24 groups on 384x16x16, from 128 to 40 ms for 1x1 on 256x16x16; in float32, about half as well.

A ReLU, leaky or not, is straight but for its kink: its second derivative is 0. torch says so with a
tensor of zeros, which then goes back through the whole network as if it were a gradient: products with
zeros, as many as a backward pass has. Saying it with nothing takes the gradient of WGAN-GP's penalty
over the critic of CTGAN (one thread, float32) from 11.4 to 8.3 ms, over one of four convolutions, whose
own second derivatives are torch's, from 54 to 39 ms.

`FastSecondDerivatives` is a context in which `torch.nn.functional`'s `conv2d`, `conv_transpose2d`,
`leaky_relu` and `relu`, whoever calls them, are computed so. Values and first derivatives are torch's
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FastSecondDerivatives(TorchFunctionMode):
    """Within it, two-dimensional convolutions and ReLUs differentiate twice at no needless cost."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.conv2d or func is F.conv_transpose2d:
            call = _arguments(func is F.conv_transpose2d, *args, **kwargs)
            if call is not None:
                return _convolve(*call)
        if func in _KINKS and not kwargs.get("inplace"):
            slope = _KINKS[func](*args, **kwargs)
            if slope is not None:
                return _Kink.apply(args[0], slope)
        return func(*args, **kwargs)


def _leaky_slope(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> float | None:
    return None if inplace else negative_slope


def _no_slope(x: Tensor, inplace: bool = False) -> float | None:
    return None if inplace else 0.0


_KINKS: dict[Callable[..., Any], Callable[..., float | None]] = {
    F.leaky_relu: _leaky_slope,
    F.relu: _no_slope,
    torch.relu: _no_slope,
    Tensor.relu: _no_slope,
}
"""Functions with a kink, and their slope below it in a call with the samples first; None: leave it."""


class _Kink(torch.autograd.Function):
    """x above 0, slope x below."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return _OfKink.apply(dy, x.detach(), ctx.slope), None


class _OfKink(torch.autograd.Function):
    """dy above 0, slope dy below: linear in dy, and x matters by its sign alone."""

    @staticmethod
    def forward(ctx, dy: Tensor, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        if not slope:
            return torch.ops.aten.threshold_backward(dy, x, 0.0)
        return torch.ops.aten.leaky_relu_backward(dy, x, slope, False)

    @staticmethod
    def backward(ctx, ddx: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return _OfKink.apply(ddx, x, ctx.slope), None, None


@dataclass(frozen=True)
class _How:
    """All but the tensors of a convolution, as aten's operations take it."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    transposed: bool
    output_padding: tuple[int, int]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """c(x, w) + bias."""
        return torch.ops.aten.convolution(
            x,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )

    def backward(self, dy: Tensor, x: Tensor, weight: Tensor, *, of_x: bool) -> Tensor:
        """a(dy, w), or b(x, dy); of the argument that is sought only the shape matters."""
        found = torch.ops.aten.convolution_backward(
            dy,
            x,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
            (of_x, not of_x, False),
        )
        return found[0 if of_x else 1]


def _arguments(
    transposed: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *rest: Any,
    **more: Any,
) -> tuple[Tensor, Tensor, Tensor | None, _How] | None:
    """The call of a torch function in our form; None for what is left to torch (words as padding)."""
    names = ("stride", "padding", "dilation", "groups")
    if transposed:
        names = ("stride", "padding", "output_padding", "groups", "dilation")
    given = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
    given |= dict(zip(names, rest, strict=False)) | more
    groups = given.pop("groups")
    if any(isinstance(value, str) for value in given.values()) or input.dim() != 4:
        return None
    pairs = {name: _pair(value) for name, value in given.items()}
    return input, weight, bias, _How(transposed=transposed, groups=groups, **pairs)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
    kind = x.device.type
    if torch.is_autocast_enabled(kind):  # a Function of our own is not on autocast's lists
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _Convolution.apply(x, weight, bias, how)


inputs_only: bool = False
"""Whether a backward now running wants gradients of inputs alone.

What a Function must compute is fixed when it is called, not when it is differentiated: without this, a
critic's gradient at its samples would compute those of all weights, too, and throw them away. A plain
global, since CUDA differentiates on threads of its own; set by `of_inputs_only`.
"""


@contextmanager
def of_inputs_only() -> Iterator[None]:
    """Within it, `torch.autograd.grad` may ask for no weight of a convolution called in our form."""
    global inputs_only
    before, inputs_only = inputs_only, True
    try:
        yield
    finally:
        inputs_only = before


class _Convolution(torch.autograd.Function):
    """c."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return how.forward(x, weight, bias)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        if inputs_only:
            for_weight = for_bias = False
        return (
            _OfInput.apply(dy, weight, x, ctx.how) if for_x else None,
            _OfWeight.apply(x, dy, weight, ctx.how) if for_weight else None,
            dy.sum(dim=(0, 2, 3)) if for_bias else None,
            None,
        )


class _OfInput(torch.autograd.Function):
    """a; `like` has the shape of x."""

    @staticmethod
    def forward(ctx, dy: Tensor, weight: Tensor, like: Tensor, how: _How) -> Tensor:
        ctx.save_for_backward(dy, weight)
        ctx.how = how
        return how.backward(dy, like, weight, of_x=True)

    @staticmethod
    def backward(ctx, ddx: Tensor) -> tuple[Tensor | None, ...]:
        dy, weight = ctx.saved_tensors
        for_dy, for_weight = ctx.needs_input_grad[:2]
        return (
            _Convolution.apply(ddx, weight, None, ctx.how) if for_dy else None,
            _OfWeight.apply(ddx, dy, weight, ctx.how) if for_weight else None,
            None,
            None,
        )


class _OfWeight(torch.autograd.Function):
    """b; `like` has the shape of w."""

    @staticmethod
    def forward(ctx, x: Tensor, dy: Tensor, like: Tensor, how: _How) -> Tensor:
        ctx.save_for_backward(x, dy)
        ctx.how = how
        return how.backward(dy, x, like, of_x=False)

    @staticmethod
    def backward(ctx, ddw: Tensor) -> tuple[Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        for_x, for_dy = ctx.needs_input_grad[:2]
        return (
            _OfInput.apply(dy, ddw, x, ctx.how) if for_x else None,
            _Convolution.apply(x, ddw, None, ctx.how) if for_dy else None,
            None,
            None,
        )
