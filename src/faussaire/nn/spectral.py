"""Spectral normalisation: layers whose largest singular value is one.

Spectral Normalization for Generative Adversarial Networks. Takeru Miyato, Toshiki Kataoka, Masanori
Koyama, Yuichi Yoshida. 2018. arXiv 1802.05957.

A layer's weight is used as W / sigma(W) (equation 8), where sigma is the largest singular value of the
weight as a matrix of one row for each output. Power iteration follows it (algorithm 1):
  v = W^T u / |W^T u|,  u = W v / |W v|,  sigma = u^T W v = |W v|.
With u and v constant, d sigma / dW = u v^T, so that the loss's gradient G at the normalised weight
becomes (G - <G, W / sigma> u v^T) / sigma at W (equation 12).

Where this leaves the algorithm: v is not kept, since the next step makes it anew from u.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["converge", "spectral"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_CONVERGED = 15
"""Iterations from a random u. A random 512x4608 matrix's sigma is then right to about a percent."""


class _Spectral(nn.Module):
    """The part that all spectral layers share.

    `weight` stays the raw parameter W, so that initialisation, averages and checkpoints see what is
    learnt; `u` is the one buffer.
    """

    weight: nn.Parameter
    u: Tensor
    iterations: int
    eps: float

    def rows(self) -> Tensor:
        """W as the matrix whose singular values count, a view where W is in channels_last.

        Convolutions: (out, kh * kw * in). The order of columns does not change singular values.
        """
        weight = self.weight
        return weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight

    def normalised(self) -> Tensor:
        """W / sigma(W), in float32, of W's shape."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight / self.sigma().clamp_min(self.eps)

    def sigma(self) -> Tensor:
        """The estimate of sigma(W), (): a lower bound, differentiable with u and v constant.

        In training each call takes `iterations` steps of power iteration first, with gradients or
        without. In evaluation u stays, and sigma = |W^T u|: for averaged weights, whose u is copied
        from the trained ones, this is half a step better than the u and v of those.
        """
        rows = self.rows()
        if not self.training:
            return torch.linalg.vector_norm(torch.mv(rows.t(), self.u))
        fixed, u = rows.detach(), self.u
        for step in range(self.iterations):
            v = F.normalize(torch.mv(fixed.t(), u), dim=0, eps=self.eps)
            if step + 1 < self.iterations:
                u = F.normalize(torch.mv(fixed, v), dim=0, eps=self.eps)
        image = torch.mv(rows, v)
        sigma = torch.linalg.vector_norm(image)
        with torch.no_grad():  # a weight of zeros has no direction: keep the last
            # A new tensor: a compiled backward may make v again from the u of its own forward.
            self.u = torch.where(sigma > self.eps, image.detach() / sigma.detach(), self.u)
        return sigma


class _SpectralLinear(_Spectral, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalised(), self.bias)


class _SpectralConv2d(_Spectral, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalised(), self.bias)


class _SpectralConvTranspose2d(_Spectral, nn.ConvTranspose2d):
    def rows(self) -> Tensor:
        """(in * kh * kw, out): the transpose of a row for each output, again without a copy."""
        return self.weight.permute(0, 2, 3, 1).flatten(0, 2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None:
            raise NotImplementedError("a spectral ConvTranspose2d has one output size")
        return F.conv_transpose2d(
            input,
            self.normalised(),
            self.bias,
            self.stride,  # pyright: ignore[reportArgumentType]
            self.padding,  # pyright: ignore[reportArgumentType]
            self.output_padding,  # pyright: ignore[reportArgumentType]
            self.groups,
            self.dilation,  # pyright: ignore[reportArgumentType]
        )


_FORMS: dict[type[nn.Module], type[_Spectral]] = {
    nn.Linear: _SpectralLinear,
    nn.Conv2d: _SpectralConv2d,
    nn.ConvTranspose2d: _SpectralConvTranspose2d,
}


def spectral(module: ModuleT, *, iterations: int = 1, eps: float = 1e-12) -> ModuleT:
    """Make a layer use W / sigma(W) from now on; in place, and returned.

    `module.weight` stays W. The layer gains one buffer, `u`, and is deep-copied, moved and saved as
    any other. Linear layers are then 1-Lipschitz up to how well sigma is known. A convolution of
    stride 1 is at most sqrt(kh * kw)-Lipschitz, since overlapping windows see a value kh * kw times.

    sigma and W / sigma are float32 under autocast, too: rounded to bfloat16, power iteration stalls
    at the third digit.

    Call `converge` after the weights are initialised anew.

    Args:
        module: `nn.Linear`, `nn.Conv2d` or `nn.ConvTranspose2d`, of exactly that class.
        iterations: steps of power iteration in each training forward. One is enough, since weights
            move little in a step.
        eps: least sigma. A weight of zeros gives zeros, but its gradient is divided by eps: begin
            elsewhere.

    Raises:
        TypeError: the module is of another class.
    """
    form = _FORMS.get(type(module))
    if form is None:
        raise TypeError(f"spectral normalisation has no form for {type(module).__name__}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    # The class is exchanged in place of wrapping the layer: a wrapper would rename its parameters.
    module.__class__ = form  # pyright: ignore[reportAttributeAccessIssue]
    layer: nn.Module = module
    assert isinstance(layer, _Spectral)
    layer.iterations, layer.eps = iterations, eps
    rows = layer.rows().shape[0]
    start = F.normalize(torch.randn(rows, device=layer.weight.device), dim=0)
    # Of a single row u is 1 or -1 for ever, and sigma exact: nothing to save.
    layer.register_buffer("u", start, persistent=rows > 1)
    converge(layer)
    return module


@torch.no_grad()
def converge(net: nn.Module, iterations: int = _CONVERGED) -> None:
    """Bring the u of every spectral layer in `net` near its weight's first singular vector.

    From a random u a first sigma would be too small, and the layer too strong. Does nothing on the
    meta device.
    """
    for layer in _layers(net):
        if not layer.weight.is_meta:
            rows = layer.rows()
            for _ in range(iterations):
                image = rows @ (rows.t() @ layer.u)
                size = torch.linalg.vector_norm(image)
                layer.u.copy_(torch.where(size > layer.eps, image / size, layer.u))


def _layers(net: nn.Module) -> Iterator[_Spectral]:
    return (layer for layer in net.modules() if isinstance(layer, _Spectral))
