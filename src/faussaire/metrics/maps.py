"""Maps of named layers of a frozen network: what losses on content, style and perception look at.

Two networks can be looked through: VGG-19, which the literature uses and whose file of 548 MiB is
downloaded once, and SqueezeNet 1.1, 3 MB, which stands in for it where that cannot be had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    obtain,
    read_tensors,
)

Pool = Literal["max", "average"]
Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is looked through.

    Attributes:
        content: layers and their weights, for the content loss.
        style: for the style loss.
        pool: in place of the network's max poolings.
    """

    content: Mapping[str, float]
    style: Mapping[str, float]
    pool: Pool = "average"

    @property
    def layers(self) -> list[str]:
        """Names of all layers that are looked at."""
        return list(dict.fromkeys([*self.content, *self.style]))


class FeatureMaps(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] to maps of some layers by name, each (N, C, h, w).

    The network is computed no deeper than the deepest of them.

    Args:
        features: the network's layers, in order; they are frozen.
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
        features: Iterable[nn.Module],
        layers: Mapping[str, int],
        wanted: Iterable[str],
        *,
        mean: Colour,
        deviation: Colour,
        pool: Pool = "max",
        name: str = "",
        weights: str = "",
    ) -> None:
        super().__init__()
        self.name, self.weights = name, weights
        places: dict[int, str] = {}
        for one in wanted:
            if one not in layers:
                raise UserError(
                    f"{name or 'The network'} has no layer '{one}'.{nearest(one, layers)}",
                    f"Its layers are {', '.join(layers)}.",
                )
            places[layers[one]] = one
        self._places = places
        kept = [layer for place, layer in enumerate(features) if place <= max(places, default=-1)]
        self.features = nn.Sequential(*(_pooled(layer, pool) for layer in kept))
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers looked at, from shallow to deep."""
        return tuple(name for _, name in sorted(self._places.items()))

    @property
    def fingerprint(self) -> str:
        """Of the weights of the layers that are computed, whatever file they came in: 16 digits."""
        digest = hashlib.sha256()
        for name, value in self.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = ((x + 1.0) / 2.0 - self.mean) / self.deviation
        found = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self._places:
                found[self._places[place]] = x
        return found


def _pooled(layer: nn.Module, pool: Pool) -> nn.Module:
    """The layer, or where it is a max pooling the average over the same windows, if asked for."""
    if pool == "max" or not isinstance(layer, nn.MaxPool2d):
        return layer
    size, stride, padding = (
        side if isinstance(side, int) else tuple(side)
        for side in (layer.kernel_size, layer.stride, layer.padding)
    )
    return nn.AvgPool2d(size, stride, padding, ceil_mode=layer.ceil_mode)  # pyright: ignore


@dataclass(frozen=True)
class Network:
    """A network that can be looked through.

    Attributes:
        file: its weights.
        build: makes it without weights: a module with `features`, and the places of named layers.
        mean, deviation: of its inputs, for RGB in [0, 1].
    """

    file: WeightFile
    build: Callable[[], tuple[nn.Module, dict[str, int]]]
    mean: Colour
    deviation: Colour


def _vgg19() -> tuple[nn.Module, dict[str, int]]:
    net = vgg.VGG19()
    return net, net.layers


def _squeezenet() -> tuple[nn.Module, dict[str, int]]:
    """Layers by `relu1` and `fire2` to `fire9`, as table 1 of the paper counts them."""
    net = squeezenet.SqueezeNet("1.1")
    layers = {"relu1": 1}
    for place, layer in enumerate(net.features):
        if isinstance(layer, squeezenet.Fire):
            layers[f"fire{len(layers) + 1}"] = place
    return net, layers


#: By name, the best first.
NETWORKS = {
    "vgg19": Network(VGG_19, _vgg19, vgg.MEAN, vgg.DEVIATION),
    "squeezenet1.1": Network(SQUEEZENET_1_1, _squeezenet, squeezenet.MEAN, squeezenet.DEVIATION),
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
        name: one of `NETWORKS`, or `auto`: vgg19 where it is here or can be downloaded, else
            squeezenet1.1; with a file given, the one that its name tells.
        weights: a file, or a folder with files by their names.
        note: hears, in a sentence, that one network stands in for another.
        progress: called as progress(what, done, total) during a download.

    Raises:
        UserError: the name is unknown, or the weights cannot be had.
    """
    if name != "auto" and name not in NETWORKS:
        raise UserError(
            f"No network '{name}' can be looked through.{nearest(name, NETWORKS)}",
            f"Choose auto, {' or '.join(NETWORKS)}.",
        )
    if name == "auto" and weights is not None and weights.is_file():
        name = _told(weights)
    if name != "auto":
        return name, _obtain(name, weights, progress)
    best, other = NETWORKS
    try:
        return best, _obtain(best, weights, progress)
    except Unavailable as error:
        try:
            path = _obtain(other, weights, progress)
        except Unavailable:
            raise error from None
        note(f"{other} stands in for {best}: strokes are good, but less rich. {error.cause}")
        return other, path


def _told(file: Path) -> str:
    """The network that a weight file's name tells."""
    for name, network in NETWORKS.items():
        if file.name in network.file.names:
            return name
    raise UserError(
        f"The name of '{file}' does not tell its network.",
        f"Name the extractor too: {' or '.join(NETWORKS)}.",
    )


def _obtain(name: str, weights: Path | None, progress: Progress | None) -> Path:
    file = NETWORKS[name].file
    try:
        return obtain(file, weights, progress)
    except Unavailable as error:
        others = " or ".join(other for other in NETWORKS if other != name)
        raise Unavailable(
            error.cause,
            f"Fetch {file.url} by hand and give its path as weights, or take the extractor {others}.",
        ) from error


def settled(
    name: str, known: str | None, recipes: Mapping[str, Recipe], progress: Progress | None = None
) -> tuple[str, str]:
    """Which network a run that begins looks through, and the fingerprint of its weights.

    Args:
        name: one of `NETWORKS`, or `auto` as in `choose`.
        known: the fingerprint, where the run has begun already, with its network.
        recipes: how each network is looked through, by name.
        progress: called as progress(what, done, total) during a download.

    Raises:
        UserError: the weights cannot be had.
    """
    if known is not None and name != "auto":
        return name, known
    with _for_training(name, None):
        found, path = choose(name, note=lambda sentence: None, progress=progress)
    recipe = recipes[found]
    return found, open_maps(found, path, recipe.layers, pool=recipe.pool).fingerprint


def proved(name: str, known: str | None, recipe: Recipe) -> FeatureMaps:
    """The maps of the network that something was trained with, and of no other.

    Args:
        name: one of `NETWORKS`.
        known: the fingerprint of before; None: any will do.
        recipe: how it is looked through.

    Raises:
        UserError: the weights cannot be had, or are others.
    """
    with _for_training(name, known):
        path = _obtain(name, None, None)
    maps = open_maps(name, path, recipe.layers, pool=recipe.pool)
    if known is not None and maps.fingerprint != known:
        raise UserError(
            f"The weights of {name} in '{path}' are not those that this was trained with: their "
            f"fingerprint is {maps.fingerprint}, not {known}.",
            "Name the file that it was trained with by FAUSSAIRE_WEIGHTS.",
        )
    return maps


@contextmanager
def _for_training(name: str, known: str | None) -> Iterator[None]:
    """Says what to do where weights are missing, as `faussaire train` and `apply` have it."""
    try:
        yield
    except Unavailable as error:
        urls = {other: network.file.url for other, network in NETWORKS.items()}
        which = urls.get(name, " or ".join(urls.values()))
        hint = f"Fetch {which} by hand and name its path by FAUSSAIRE_WEIGHTS"
        others = [other for other in urls if other != name]
        if known is None and name in urls:
            hint += f", or train with --perceptual {' or '.join(others)}"
        raise Unavailable(error.cause, f"{hint}.") from error


def open_maps(name: str, path: Path, wanted: Iterable[str], *, pool: Pool = "max") -> FeatureMaps:
    """The maps of some layers, with the weights in a file, of which the classifier is left aside.

    Args:
        name: one of `NETWORKS`.
        path: the file, as `choose` found it.
        wanted: names of layers.
        pool: see `FeatureMaps`.

    Raises:
        UserError: the file is damaged or another network's, or a layer is not the network's.
    """
    network = NETWORKS[name]
    net, layers = network.build()
    state = read_tensors(path)
    convolutions = {key: v for key, v in state.items() if key.startswith("features.")}
    fill(net, convolutions, path, f"Give the weights of {name}: {network.file.url}.")
    return FeatureMaps(
        net.get_submodule("features").children(),
        layers,
        wanted,
        mean=network.mean,
        deviation=network.deviation,
        pool=pool,
        name=name,
        weights=checksum(path)[:16],
    )
