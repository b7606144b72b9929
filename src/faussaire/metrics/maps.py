"""Maps of named layers of a frozen network: what losses on content, style and perception look at.

Two networks can be looked through: VGG-19, which the literature uses and whose file of 548 MiB is
downloaded once, and SqueezeNet 1.1, 3 MB, which stands in for it where that cannot be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from faussaire.core.errors import UserError, nearest
from faussaire.data.parallel import Progress
from faussaire.metrics import squeezenet, vgg
from faussaire.metrics.weights import (
    SQUEEZENET_1_1,
    VGG_19,
    Unavailable,
    WeightFile,
    checksum,
    fill,
    locate,
    obtain,
    read_tensors,
)

Pool = Literal["max", "average"]

NAMES = ("vgg19", "squeezenet1.1")


class FeatureMaps(nn.Module):
    """Maps of some layers, computed no deeper than the deepest of them.

    Args:
        features: the network's layers, in order.
        layers: the place of each layer that has a name.
        wanted: names of the layers to look at.
        mean, deviation: of the network's inputs, by channel, for pictures in [0, 1].
        pool: `max`, as the networks were trained, or `average`, which Gatys et al. 2016 (section 2)
            found to give slightly more appealing pictures.
        name, weights: for provenance.

    Raises:
        UserError: a name is not one of `layers`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: nn.Sequential,
        layers: Mapping[str, int],
        wanted: Iterable[str],
        *,
        mean: tuple[float, float, float],
        deviation: tuple[float, float, float],
        pool: Pool = "max",
        name: str = "",
        weights: str = "",
    ) -> None:
        super().__init__()
        self.name, self.weights = name, weights
        self.wanted = tuple(dict.fromkeys(wanted))
        for one in self.wanted:
            if one not in layers:
                raise UserError(
                    f"{name or 'The network'} has no layer '{one}'.{nearest(one, layers)}",
                    f"Its layers are {', '.join(layers)}.",
                )
        self._places = {layers[one]: one for one in self.wanted}
        kept = list(features)[: max(self._places, default=-1) + 1]
        self.features = nn.Sequential(*(_pooled(layer, pool) for layer in kept))
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The maps by name, each (N, C, h, w).

        Args:
            x: pictures (N, 3, H, W) in [-1, 1].
        """
        x = ((x + 1.0) / 2.0 - self.mean) / self.deviation
        found = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self._places:
                found[self._places[place]] = x
        return {name: found[name] for name in self.wanted}


def _pooled(layer: nn.Module, pool: Pool) -> nn.Module:
    """The layer, or where it is a max pooling the average over the same windows, if asked for."""
    if pool == "max" or not isinstance(layer, nn.MaxPool2d):
        return layer
    return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)  # pyright: ignore


def of_vgg19(net: vgg.VGG19, wanted: Iterable[str], *, pool: Pool = "max", weights: str = ""):
    """Maps of VGG-19, by `relu1_1` to `relu5_4`."""
    return FeatureMaps(
        net.features, net.layers, wanted, mean=vgg.MEAN, deviation=vgg.DEVIATION,
        pool=pool, name="vgg19", weights=weights,
    )  # fmt: skip


def of_squeezenet(
    net: squeezenet.SqueezeNet, wanted: Iterable[str], *, pool: Pool = "max", weights: str = ""
) -> FeatureMaps:
    """Maps of SqueezeNet, by `relu1` and `fire2` to `fire9`."""
    layers = {"relu1": 1}
    for place, layer in enumerate(net.features):
        if isinstance(layer, squeezenet.Fire):
            layers[f"fire{len(layers) + 1}"] = place
    return FeatureMaps(
        net.features, layers, wanted, mean=squeezenet.MEAN, deviation=squeezenet.DEVIATION,
        pool=pool, name="squeezenet1.1", weights=weights,
    )  # fmt: skip


@dataclass(frozen=True)
class _Network:
    """How a network's maps are opened.

    Attributes:
        file: its weights.
        open: builds the maps from a state dict with the convolutions alone.
    """

    file: WeightFile
    open: Callable[..., FeatureMaps]


def _open_vgg19(path: Path, wanted: Iterable[str], pool: Pool) -> FeatureMaps:
    net = vgg.VGG19()
    _fill(net, path, f"Give torchvision's weights of VGG-19: {VGG_19.url}.")
    return of_vgg19(net, wanted, pool=pool, weights=checksum(path)[:16])


def _open_squeezenet(path: Path, wanted: Iterable[str], pool: Pool) -> FeatureMaps:
    net = squeezenet.SqueezeNet("1.1")
    _fill(net, path, f"Give the weights of SqueezeNet 1.1: {SQUEEZENET_1_1.url}.")
    return of_squeezenet(net, wanted, pool=pool, weights=checksum(path)[:16])


def _fill(net: nn.Module, path: Path, hint: str) -> None:
    state = read_tensors(path)
    fill(net, {name: v for name, v in state.items() if name.startswith("features.")}, path, hint)


_NETWORKS = {
    "vgg19": _Network(VGG_19, _open_vgg19),
    "squeezenet1.1": _Network(SQUEEZENET_1_1, _open_squeezenet),
}


def choose(
    name: str = "auto",
    *,
    weights: Path | None = None,
    note: Callable[[str], None],
    progress: Progress | None = None,
) -> tuple[str, Path]:
    """Which network is looked through, and its file.

    Args:
        name: one of `NAMES`, or `auto`: vgg19 where it is here or can be downloaded, else
            squeezenet1.1; with a file given, the one that its name tells.
        weights: a file, or a folder with files by their names.
        note: hears, in a sentence, that one network stands in for another.
        progress: called as progress(what, done, total) during a download.

    Raises:
        UserError: the name is unknown, or the weights cannot be had.
    """
    if name not in ("auto", *_NETWORKS):
        raise UserError(
            f"No network '{name}' can be looked through.{nearest(name, _NETWORKS)}",
            f"Choose auto, {' or '.join(_NETWORKS)}.",
        )
    if name != "auto":
        return name, obtain(_NETWORKS[name].file, weights, progress)
    if weights is not None and weights.is_file():
        for told, network in _NETWORKS.items():
            if weights.name in network.file.names:
                return told, obtain(network.file, weights, progress)
        raise UserError(
            f"The name of '{weights}' does not tell its network.",
            f"Name the extractor too: {' or '.join(_NETWORKS)}.",
        )
    try:
        return "vgg19", obtain(VGG_19, weights, progress)
    except Unavailable as error:
        try:
            path = obtain(SQUEEZENET_1_1, weights, progress)
        except Unavailable:
            raise error from None
        note(f"squeezenet1.1 stands in for vgg19. {error.cause}")
        return "squeezenet1.1", path


def open_maps(name: str, path: Path, wanted: Iterable[str], *, pool: Pool = "max") -> FeatureMaps:
    """The maps of some layers, with the weights in a file.

    Args:
        name: one of `NAMES`.
        path: the file, as `choose` found it.
        wanted: names of layers.
        pool: see `FeatureMaps`.

    Raises:
        UserError: the file is damaged or another network's, or a layer is not the network's.
    """
    return _NETWORKS[name].open(path, wanted, pool)
