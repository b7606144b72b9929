"""Labelled digits, and an eye that tells them, and tells them from what is none.

A classifier of ten digits alone cannot judge samples: what was taught on MNIST's gives white noise a
probability above .999 of being some digit, and half of all digits upside down one above .9. So the eye
learns one class more: digits spoiled in the ways in which generators fail, and no digits at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import safetensors.torch
from safetensors import SafetensorError

from faussaire.core.batch import mix
from faussaire.core.device import Device, precise
from faussaire.core.errors import UserError
from faussaire.data.cache import cache_dir, remember
from faussaire.data.pack import Images, PackOptions, pack
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.data.sources import open_source
from faussaire.metrics import classifier
from faussaire.metrics.pictures import shuffled_rows

CONFIDENT = 0.5
"""A digit is told with confidence where it is likelier than all else together, being none included.

Of samples of half-trained games, those above .5 are the ones that people read, too, if now and then with
an effort; those above .9 leave out many that are plain.
"""
STEPS = 1000
"""Batches that an eye learns from, at most."""
_WIDTH = 16
_HELD = 5  # every fifth digit is held out
_HELD_MOST = 10_000
_AT_ONCE = 500


class Digits:
    """Labelled pictures of one size, some of which nobody learns from.

    Attributes:
        images: all of them, packed: uint8 (N, H, W, 1).
        labels: (N,) their classes.
        classes: how many there are.
        taught, held: rows to learn from, and rows to be examined by.
    """

    def __init__(self, images: Images) -> None:
        if images.labels is None or len(images.classes) < 2:
            raise UserError(
                "The digits have no labels, and modes are told by a classifier that learns from them.",
                "Add --labels FILE: `.npy` or IDX, such as train-labels-idx1-ubyte.gz.",
            )
        self.images, self.labels = images, images.labels
        self.classes = len(images.classes)
        mixed = shuffled_rows(len(images))
        held = min(_HELD_MOST, len(images) // _HELD)
        if held < self.classes:
            raise UserError(
                f"{len(images)} digits of {self.classes} classes are too few.",
                f"Give {self.classes * _HELD} at least.",
            )
        self.held, self.taught = mixed[:held], mixed[held:]

    @classmethod
    def read(
        cls, source: str, labels: str | None, resolution: int, progress: Progress | None = None
    ) -> Digits:
        """Digits from whatever source of pictures with labels, in grey."""
        with open_source(source, labels=labels) as opened:
            options = PackOptions(resolution=resolution, channels="L")
            return cls(pack(opened, options, progress=progress))


class Eye:
    """A classifier that reads digits, each channel of a picture being one.

    Attributes:
        classes: how many kinds of digits there are.
        accuracy: share of the held-out digits that it tells right.
        fooled: share of spoiled held-out digits that it tells with confidence.
    """

    def __init__(self, net: classifier.SmallResNet, digits: Digits, device: Device) -> None:
        self._net, self._device = net, device
        self.classes = digits.classes
        held, labels = digits.images.pixels[digits.held], digits.labels[digits.held]
        self.accuracy = float((self.tell(held)[0][:, 0] == labels).mean())
        others = spoiled(held, labels, seed=mix("exam"))
        self.fooled = float((self.tell(others)[1] >= CONFIDENT).mean())

    @classmethod
    def taught(cls, digits: Digits, device: Device, progress: Progress | None = None) -> Eye:
        """One that has learned these digits: from the cache, or into it."""
        count = len(digits.taught)
        steps = max(100, min(STEPS, 20 * count // classifier.BATCH))  # 20 times through
        facts = (digits.images.key, count, steps, _WIDTH, device.precision)
        path = cache_dir() / "eyes" / f"{digest('eye 2', *map(str, facts))}.safetensors"
        net = classifier.untaught(1, digits.classes + 1, _WIDTH, device=device).eval()
        try:
            net.load_state_dict(safetensors.torch.load(path.read_bytes()))
        except (OSError, SafetensorError):  # absent, or damaged
            net = classifier.teach(
                Lessons(digits),
                digits.classes + 1,
                steps=steps,
                width=_WIDTH,
                device=device,
                what="a classifier, once",
                progress=progress,
            )
            state = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
            remember(path, safetensors.torch.save(state))
        return cls(net, digits, device)

    def tell(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (N, H, W, k) uint8 -> the likeliest digits (N, k) and their probabilities (N, k)."""
        count, height, width, channels = pictures.shape
        single = pictures.transpose(0, 3, 1, 2).reshape(-1, height, width, 1)
        blocks = (
            self._device.put(np.ascontiguousarray(single[start : start + _AT_ONCE]))
            for start in range(0, len(single), _AT_ONCE)
        )
        with precise():
            chances = classifier.answers(self._net, blocks).softmax(1)
        best = chances[:, : self.classes].max(1)
        shape = (count, channels)
        return best.indices.numpy().reshape(shape), best.values.numpy().reshape(shape)


class Lessons:
    """What an eye learns from: the digits that are taught, and as many spoiled ones as a class more.

    Half of both are roughened, so that neither specks nor ragged strokes are what tells them.
    """

    name: str = "lessons"
    key: str = ""
    whole: bool = True

    def __init__(self, digits: Digits) -> None:
        pixels, labels = digits.images.pixels[digits.taught], digits.labels[digits.taught]
        clean = np.concatenate([pixels, spoiled(pixels, labels, seed=mix("lessons"))])
        self._pixels = np.concatenate([clean, roughened(clean, seed=mix("lessons"))])
        self.labels = np.tile(np.concatenate([labels, np.full(len(labels), digits.classes)]), 2)
        height, width = digits.images.resolution
        self.shape = (height, width, 1)
        self.classes = (*digits.images.classes, "none")

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return self._pixels[np.asarray(rows)]


# ---- Spoiling ----


def roughened(pixels: np.ndarray, *, seed: int) -> np.ndarray:
    """Pictures (N, H, W, 1) uint8 with specks, ragged strokes and less contrast, still to be read."""
    rng = np.random.default_rng(seed)
    one = pixels[..., 0].astype(np.float32)
    each = (len(one), 1, 1)
    ragged = 1.0 + rng.uniform(0.0, 0.4, each) * _smooth_noise(one.shape, rng)
    specks = rng.uniform(0.0, 30.0, each) * _smooth_noise(one.shape, rng)
    out = rng.uniform(0.8, 1.0, each) * one * ragged + specks
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)[..., None]


_Spoil = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def spoiled(pixels: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """As many pictures that are no digits, uint8 (N, H, W, 1), made of the digits (N, H, W, 1)."""
    rng = np.random.default_rng(seed)
    # Beside each digit one of another class, for those that are made of two.
    order = rng.permutation(len(labels))
    for _ in range(100):
        same = np.flatnonzero(labels[order] == labels)
        if len(same) == 0:
            break
        order[same] = rng.integers(len(labels), size=len(same))
    one, other = (some[..., 0].astype(np.float32) for some in (pixels, pixels[order]))
    out = np.empty_like(one)
    for kind, spoil in enumerate(_SPOILS):
        rows = slice(kind, None, len(_SPOILS))
        out[rows] = spoil(one[rows], other[rows], rng)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)[..., None]


def _blobs(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise, white to smooth, with the digits' mean and deviation."""
    noise = _smooth_noise(one.shape, rng)
    return one.mean() + one.std() * rng.uniform(0.5, 2.0, (len(one), 1, 1)) * noise


def _flat(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nothing but a level, and some noise."""
    level = 255.0 * rng.uniform(size=(len(one), 1, 1)) ** 3
    return level + rng.uniform(0.0, 20.0, (len(one), 1, 1)) * rng.normal(size=one.shape)


def _overlaid(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two digits in one place."""
    return np.maximum(one, other * rng.uniform(0.6, 1.0, (len(one), 1, 1)))


def _patched(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Parts of two digits, along a line that winds."""
    return np.where(_smooth_noise(one.shape, rng, least=5) > 0.0, one, other)


def _halved(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of a digit: the rest is empty."""
    return np.where(_smooth_noise(one.shape, rng, least=5) > 0.0, one, one.min())


def _shuffled(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A digit cut into quarters, which change places."""
    top, left = one.shape[1] // 2, one.shape[2] // 2
    return np.roll(one, (top, left), axis=(1, 2))


_SPOILS: tuple[_Spoil, ...] = (_blobs, _flat, _overlaid, _patched, _halved, _shuffled)


def _smooth_noise(shape: tuple[int, ...], rng: np.random.Generator, least: int = 1) -> np.ndarray:
    """(N, H, W) of mean 0 and deviation 1, each picture smoothed over `least` to 11 pixels."""
    noise = rng.normal(size=shape)
    widths = rng.integers(least, 12, len(noise))
    for width in range(2, 12):
        rows = widths >= width  # a sum of neighbours, once more for each pixel of width
        part = noise[rows]
        part = part + np.roll(part, 1, axis=1)
        noise[rows] = part + np.roll(part, 1, axis=2)
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    return noise / noise.std(axis=(1, 2), keepdims=True)
