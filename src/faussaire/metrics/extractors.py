"""Feature extractors by name: pictures in, vectors out, with what a figure's provenance needs.

Metrics take any object that is an `Extractor`. `open_extractor` opens the known ones;
`NetworkExtractor` makes one of any network. What is fixed for all of them: grey pictures become three
equal channels, transparent ones are laid on white, networks run in float32 (no TF32, no autocast)
and in eval mode, so a vector does not depend on the other pictures of its block beyond rounding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from faussaire.core.device import Device
from faussaire.core.errors import UserError, nearest
from faussaire.data.parallel import Progress
from faussaire.metrics import hub, pixels, squeezenet
from faussaire.metrics.inception import SIZE as INCEPTION_SIZE
from faussaire.metrics.inception import Inception2015
from faussaire.metrics.inception_fast import fast
from faussaire.metrics.precision import full_precision
from faussaire.metrics.resize import How, resize
from faussaire.metrics.weights import (
    INCEPTION_2015,
    SQUEEZENET_1_0,
    SQUEEZENET_1_1,
    Unavailable,
    WeightFile,
    checksum,
    fill,
    obtain,
    read_tensors,
)

Network = Callable[[Tensor], "Tensor | tuple[Tensor, Tensor | None]"]
"""(N, 3, h, w) float32 -> features (N, D), or these and logits (N, K)."""


@dataclass(frozen=True)
class Features:
    """Of one block of pictures, on the CPU.

    Attributes:
        vectors: (N, D) float32.
        logits: (N, K) float32, where the network classifies.
    """

    vectors: Tensor
    logits: Tensor | None


@runtime_checkable
class Extractor(Protocol):
    """What metrics ask of a feature extractor; anything with these members is one.

    Attributes:
        name: `inception-2015`.
        weights: the first 16 hexadecimal digits of the weight file's SHA-256, `none` without one.
        resize: how pictures are brought to its size: `clean`, `legacy` or `pytorch`.
        dimensions: D, the length of a vector.
        classes: K, the number of logits; None where the network does not classify.
        batch: how many pictures a call likes.
    """

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def resize(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def batch(self) -> int: ...

    def __call__(self, pictures: np.ndarray | Tensor) -> Features:
        """Features of pictures, uint8 (N, H, W, C) with C 1, 3 or 4."""
        ...


class NetworkExtractor:
    """An extractor made of a network.

    Args:
        net: takes RGB pictures (N, 3, h, w), gives features (N, D), or a pair of features and logits
            (N, K). A module is moved to the device and put in eval mode.
        name: for the provenance of figures.
        size: the sides that `net` takes, in pixels: one number, or (h, w).
        mean, std: of its input, by channel: it gets (picture in [0, 1] - mean) / std. The default
            gives [-1, 1].
        resize: `clean`, `legacy` or `pytorch`.
        weights: what tells this extractor from others of its name; if not given, made of the module's
            values and of size, mean and std. A plain function has no values to tell it by: its
            figures then compare with nothing outside this object.
        device: where it runs.
        batch: pictures a call; larger blocks are cut.

    Raises:
        UserError: the network's output has another form, or the resizing or the device is unknown.
    """

    def __init__(
        self,
        net: Network,
        *,
        name: str,
        size: int | tuple[int, int],
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        resize: How = "clean",
        weights: str | None = None,
        device: str = "auto",
        batch: int | None = None,
    ) -> None:
        self._device = device_name(device)
        self._kind = torch.device(self._device).type
        if isinstance(net, nn.Module):
            net.to(self._device).eval()
            net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._net = net
        self._size = (size, size) if isinstance(size, int) else size
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float64).mul(255.0).float().view(1, 3, 1, 1)
            for values in (mean, std)
        )
        self.name = name
        self.resize: How = resize
        self.weights = weights or _told_apart(net, self._size, mean, std)
        self.batch = batch or (128 if self._kind == "cuda" else 32)
        self.dimensions, self.classes = self._probe()

    def __call__(self, pictures: np.ndarray | Tensor) -> Features:
        """Features of pictures, uint8 (N, H, W, C) with C 1, 3 or 4.

        Raises:
            UserError: the pictures are of another type or shape.
        """
        if not isinstance(pictures, Tensor):
            # torch takes neither read-only arrays, such as a memory map's, nor mirrored ones.
            pictures = torch.from_numpy(np.require(pictures, requirements=["C", "W"]))
        tensor = pictures
        if tensor.dtype != torch.uint8 or tensor.dim() != 4 or tensor.shape[3] not in (1, 3, 4):
            raise UserError(
                f"An extractor was given {str(tensor.dtype).removeprefix('torch.')} pictures of shape "
                f"{tuple(tensor.shape)}.",
                "Give uint8 pictures (N, H, W, C) with 1, 3 or 4 channels, values 0 to 255.",
            )
        looked = [self._look(block) for block in tensor.split(self.batch) if len(block)]
        vectors = torch.cat([torch.empty(0, self.dimensions), *(one.vectors for one in looked)])
        if self.classes is None:
            return Features(vectors, None)
        logits = (one.logits for one in looked if one.logits is not None)
        return Features(vectors, torch.cat([torch.empty(0, self.classes), *logits]))

    def _look(self, block: Tensor) -> Features:
        """Of one block (n, H, W, C)."""
        with torch.no_grad(), full_precision(self._kind):
            found = self._net(self._input(block.to(self._device)))
        vectors, logits = found if isinstance(found, tuple) else (found, None)
        return Features(vectors.float().cpu(), None if logits is None else logits.float().cpu())

    def _input(self, block: Tensor) -> Tensor:
        """uint8 (n, H, W, C) -> (n, 3, h, w) as the network was trained."""
        x = on_white(block) if block.shape[3] == 4 else block
        # Resizing comes first: grey pictures are then one channel's work.
        x = resize(x.permute(0, 3, 1, 2), self._size, self.resize)
        x = (x - self._mean.to(x.device)) / self._std.to(x.device)
        return x.contiguous(memory_format=torch.channels_last)

    def _probe(self) -> tuple[int, int | None]:
        """D and K, from a look at two grey pictures."""
        seen = self._look(torch.full((2, *self._size, 1), 128, dtype=torch.uint8))
        shapes = [tuple(part.shape) for part in (seen.vectors, seen.logits) if part is not None]
        if any(len(shape) != 2 or shape[0] != 2 for shape in shapes):
            raise UserError(
                f"Of 2 pictures the network '{self.name}' makes tensors of shape "
                f"{' and '.join(map(str, shapes))}.",
                "An extractor's network gives one vector a picture, (N, D), and logits (N, K) or none.",
            )
        return shapes[0][1], shapes[1][1] if len(shapes) == 2 else None


def device_name(device: str) -> str:
    """`auto`, `cpu`, `cuda` or `mps` -> the device to take; one with a number stays as it is.

    Raises:
        UserError: it is unknown or not here.
    """
    if ":" in device:
        return device
    known = ("auto", "cpu", "cuda", "mps")
    if device not in known:
        raise UserError(
            f"The device '{device}' is unknown.{nearest(device, known)}",
            f"Choose {', '.join(known)}.",
        )
    return Device.choose(device, "float32").name


def _told_apart(net: Network, *inputs: Any) -> str:
    """What stands for the weights of a network whose file is not known."""
    if not isinstance(net, nn.Module):
        return f"unknown-{os.urandom(6).hex()}"
    whole = f"{state_digest(net)} {[[float(v) for v in values] for values in inputs]}"
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def on_white(pictures: Tensor) -> Tensor:
    """uint8 RGBA (N, H, W, 4) -> float32 RGB (N, H, W, 3) in whole numbers 0..255, as if saved."""
    alpha = pictures[..., 3:].float() / 255.0
    return (pictures[..., :3] * alpha + 255.0 * (1.0 - alpha)).round()


def state_digest(net: nn.Module) -> str:
    """16 hexadecimal digits that tell a network's weights from others, names and shapes included."""
    digest = hashlib.sha256()
    for key, value in sorted(net.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]


def ignore(sentence: str) -> None:
    """Hear a note and do nothing."""


@dataclass(frozen=True)
class _Request:
    """What `open_extractor` was asked, past the name."""

    weights: Path | None
    resize: How
    device: str
    progress: Progress | None


def _inception(name: str, request: _Request) -> Extractor:
    path = obtain(INCEPTION_2015, request.weights, request.progress)
    # As to_input of inception.py: (x - 128) / 128, but x / 127.5 - 1 with pytorch-fid's resizing.
    middle = 0.5 if request.resize == "pytorch" else 128 / 255
    net = fast(Inception2015.from_file(path), device_name(request.device))
    return NetworkExtractor(
        net, name=name, size=INCEPTION_SIZE, mean=(middle,) * 3, std=(middle,) * 3,
        resize=request.resize, weights=checksum(path)[:16], device=request.device,
    )  # fmt: skip


def _squeezenet(name: str, request: _Request) -> Extractor:
    version, file = _SQUEEZENETS[name]
    path = obtain(file, request.weights, request.progress)
    state = read_tensors(path)
    net = squeezenet.SqueezeNet.like(version, state)
    fill(net, state, path, f"Give the weights of SqueezeNet {version}: {file.url}.")
    return NetworkExtractor(
        net, name=name, size=squeezenet.SIZE, mean=squeezenet.MEAN, std=squeezenet.DEVIATION,
        resize=request.resize, weights=checksum(path)[:16], device=request.device,
    )  # fmt: skip


def _pixels(name: str, request: _Request) -> Extractor:
    return NetworkExtractor(
        pixels.Projection(), name=name, size=pixels.SIZE, mean=(0.0,) * 3, std=(1.0,) * 3,
        resize=request.resize, weights="none", device=request.device, batch=256,
    )  # fmt: skip


def _hub(name: str, request: _Request) -> Extractor:
    spec = hub.MODELS[name]
    net, path = hub.open_model(name, request.weights)
    return NetworkExtractor(
        net, name=name, size=spec.size, mean=spec.mean, std=spec.std,
        resize=request.resize, weights=checksum(path)[:16], device=request.device,
    )  # fmt: skip


_SQUEEZENETS: dict[str, tuple[squeezenet.Version, WeightFile]] = {
    "squeezenet1.1": ("1.1", SQUEEZENET_1_1),
    "squeezenet1.0": ("1.0", SQUEEZENET_1_0),
}
_OPENERS: dict[str, Callable[[str, _Request], Extractor]] = {
    "inception-2015": _inception,
    "squeezenet1.1": _squeezenet,
    "squeezenet1.0": _squeezenet,
    "pixels": _pixels,
    **dict.fromkeys(hub.MODELS, _hub),
}
_BEST = ("inception-2015", "squeezenet1.1", "pixels")
_FILES = {
    "inception-2015": INCEPTION_2015,
    **{name: file for name, (_, file) in _SQUEEZENETS.items()},
}


def names() -> tuple[str, ...]:
    """All names that `open_extractor` knows, `auto` aside."""
    return tuple(_OPENERS)


def open_extractor(
    name: str | Extractor = "auto",
    *,
    weights: Path | None = None,
    resize: How = "clean",
    device: str = "auto",
    note: Callable[[str], None] = ignore,
    progress: Progress | None = None,
) -> Extractor:
    """A feature extractor, ready to be called.

    Args:
        name: one of `names()`, or `auto`: the first of inception-2015, squeezenet1.1 and pixels whose
            weights are here or can be downloaded. An object that is an extractor passes through.
        weights: a file, or a folder with files or models by their names.
        resize: `clean`, `legacy` or `pytorch` (`metrics/resize.py`).
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        note: hears, in a sentence, each step that `auto` takes down.
        progress: called as progress(what, done, total) during a download.

    Raises:
        UserError: the name is unknown; the weights cannot be had, or are damaged or another
            network's.
    """
    if not isinstance(name, str):
        if isinstance(name, Extractor):
            return name
        raise UserError(
            f"An object of type {type(name).__name__} is no extractor.",
            "Give a name, or wrap a network in faussaire.metrics.extractors.NetworkExtractor.",
        )
    request = _Request(Path(weights) if weights else None, resize, device, progress)
    if name == "auto":
        return _best(request, note)
    if name not in _OPENERS:
        raise UserError(
            f"The extractor '{name}' is unknown.{nearest(name, names())}",
            f"Choose auto, {', '.join(names())}.",
        )
    return _OPENERS[name](name, request)


def _best(request: _Request, note: Callable[[str], None]) -> Extractor:
    """The first of `_BEST` that can be had; the one that a weight file's name tells, if one is given."""
    if request.weights is not None and request.weights.is_file():
        told = [name for name, file in _FILES.items() if request.weights.name in file.names]
        if not told:
            raise UserError(
                f"The name of '{request.weights}' does not tell its network.",
                f"Name the extractor too: {', '.join(_FILES)}.",
            )
        return _OPENERS[told[0]](told[0], request)
    for name, following in pairwise(_BEST):
        try:
            return _OPENERS[name](name, request)
        except Unavailable as error:
            note(
                f"{following} stands in for {name}, and its figures compare only with its own: "
                f"{error.cause}"
            )
    return _OPENERS[_BEST[-1]](_BEST[-1], request)
