"""The U-Net of pix2pix: what a layer on the way down has seen joins its partner on the way up.

Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", arXiv
1611.07004, section 3.2.1 and appendix 6.1.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faussaire.core.batch import Draws
from faussaire.nn.fused import InstanceNormAct2d, UpConv2d
from faussaire.nn.patch import initialise
from faussaire.nn.sizes import cut, mirrored, multiple_of

NEARLY = 0.97
"""How near to black and white a copied input comes by itself."""


class UNet(nn.Module):
    """Pictures (N, C, H, W) of any size, and noise or none, to pictures (N, K, H, W) in [-1, 1].

    4x4 convolutions of stride 2, C64-C128-C256-C512-C512-... down and the same up again, leaky ReLU of
    slope .2 down, ReLU up, instance normalisation but in the first and the innermost layer: of the
    latter's single pixels it would leave nothing. Sides that `2 ** halvings` does not divide are
    mirrored beyond their edges, and what was added is cut off.

    Args:
        inputs, outputs: channels C and K.
        width: channels of the first layer; they double with each halving, up to eight times.
        halvings: layers on the way down.
        direct: add the input itself to what the last layer says, before its tanh, so that the network
            begins as a copy and learns what to change: atanh of the input, which is given as many
            channels as the output has (grey is repeated, what is beyond is left out). The paper's
            network, without it, first has to learn to copy sharply through layers of half the size.
    """

    DROPPED = 3
    """Layers on the way up, from the innermost, that half of the values are dropped after."""

    def __init__(
        self, inputs: int, outputs: int, width: int, halvings: int, *, direct: bool = False
    ) -> None:
        super().__init__()
        self.halvings, self.direct, self.outputs = halvings, direct, outputs
        widths = [min(2**step, 8) * width for step in range(halvings)]
        self.look = nn.Conv2d(inputs, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList()
        for step in range(1, halvings):
            inmost = step == halvings - 1
            conv = nn.Conv2d(widths[step - 1], widths[step], 4, stride=2, padding=1, bias=inmost)
            norm = nn.Identity() if inmost else InstanceNormAct2d(widths[step], 1.0)
            self.down.append(nn.Sequential(conv, norm))
        self.up = nn.ModuleList()
        for step in reversed(range(1, halvings)):
            wide = widths[step] * (1 if step == halvings - 1 else 2)
            up = UpConv2d(wide, widths[step - 1], bias=False)
            self.up.append(nn.Sequential(up, InstanceNormAct2d(widths[step - 1], 1.0)))
        # Of a network with one halving, the layer down is the innermost.
        self.paint = UpConv2d(widths[0] * (2 if halvings > 1 else 1), outputs)
        self.apply(initialise)

    def noise(self, draws: Draws, height: int, width: int) -> list[Tensor]:
        """What dropout decides by, for pictures of this size: (N, C, h, w) each, uniform in [0, 1)."""
        rows, columns = multiple_of(height, width, 2**self.halvings)
        found = []
        for index, block in enumerate([*self.up][: self.DROPPED]):
            step = self.halvings - 1 - index
            channels = block[0].out_channels  # pyright: ignore[reportIndexIssue]
            found.append(draws.uniform(channels, rows >> step, columns >> step))
        return found

    def forward(self, x: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        size = (x.shape[2], x.shape[3])
        given = x
        x = self.look(mirrored(x, multiple_of(*size, 2**self.halvings)))
        seen = [x]
        for block in self.down:
            seen.append(block(F.leaky_relu(seen[-1], 0.2)))
        x = seen.pop()
        for index, block in enumerate(self.up):
            x = block(F.relu(x))
            if noise is not None and index < len(noise):
                x = x * (2.0 * (noise[index] >= 0.5)).to(x.dtype)  # dropout of one half
            x = torch.cat([x, seen.pop()], dim=1)
        painted = cut(self.paint(F.relu(x)), size)
        return torch.tanh(painted + self._copied(given) if self.direct else painted)

    def _copied(self, x: Tensor) -> Tensor:
        """What tanh makes the input of, short of its ends, where tanh would pass no gradient."""
        if x.shape[1] == 1:
            x = x.expand(-1, self.outputs, -1, -1)
        return torch.atanh(x[:, : self.outputs].clamp(-NEARLY, NEARLY))


def fitting_unet(height: int, width: int) -> int:
    """Halvings that bring the smaller side to one pixel or two; eight at most, as in the paper."""
    return max(1, min(8, min(height, width).bit_length() - 1))
