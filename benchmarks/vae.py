"""How well vae knows digits in nats, and whether vaegan is sharper at an equal budget.

    python benchmarks/vae.py bound --data DATA [--set mnist|fashion] [--epochs 10 50] [--seed 0]
        [--with KEY=VALUE ...]
    python benchmarks/vae.py sharp --data DATA --family vae|vaegan|both [--set fashion]
        [--seconds 60 120] [--count 2000] [--extractor squeezenet1.1] [--out FOLDER]
        [--with KEY=VALUE ...]

DATA holds `mnist_t10k` (10,000 digits, of which 9,000 are trained on; the literature has 60,000) and
`fashion_mnist` (60,000, and 10,000 to test on).

`bound` trains the perceptron 784-400-20 with Adam 1e-3 and batches of 128, and tells -ELBO in nats of
pictures that were not trained on, in its two parts, and how many of the 20 latents are in use: by the
variance of their means, and by their divergence.

`sharp` gives a family seconds of the processor, one thread, and looks at --count samples and at 1,000
unseen pictures rebuilt: the variance of their Laplacian (the more, the sharper; noise has much, too)
beside that of real pictures, and FID and the sliced Wasserstein distance of the samples. Pictures to
look at go to --out.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import RowDraws, mix
from faussaire.core.config import Settings, resolve
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.family import Pictures
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.data.pack import pack
from faussaire.data.plan import PackOptions
from faussaire.data.sources import open_source
from faussaire.data.stream import Stream
from faussaire.evaluation import samples_like
from faussaire.families import load_family
from faussaire.measuring import Options, measure
from faussaire.metrics.pictures import Packed
from faussaire.rebuilding import Known, latent_figures
from faussaire.report.pictures import beside, grid, save_png, to_uint8
from faussaire.training import layers

SETS = {
    "mnist": ("mnist_t10k/t10k-images-idx3-ubyte.gz", None),
    "fashion": (
        "fashion_mnist/train-images-idx3-ubyte.gz",
        "fashion_mnist/t10k-images-idx3-ubyte.gz",
    ),
}


def packed(path: Path):
    """All pictures of a file."""
    with open_source(str(path), classes="none") as source:
        return pack(source, PackOptions())


def read(data: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to train on and to test on, (N, 28, 28, 1)."""
    first, second = SETS[name]
    pixels = np.array(packed(data / first).pixels)
    if second is None:
        return pixels[1000:], pixels[:1000]
    return pixels, np.array(packed(data / second).pixels)


def begun(family: str, words: list[str], preset: str | None, seed: int, total: int, device: str):
    """Settings and a fresh state."""
    kind = load_family(family)
    given = dict(word.split("=", 1) for word in words)
    below = layers(family, {}, preset=preset)
    settings: Settings = resolve(family, "", kind.Config, *below, {"seed": seed}, given)
    spec = Pictures(channels=1, height=28, width=28)
    torch.manual_seed(mix(seed, "weights"))
    state = State(
        kind(settings.model, spec),
        Device.choose(device, settings.training.precision),  # pyright: ignore[reportArgumentType]
        total=total,
        half_life=settings.training.half_life,
    )
    return settings, state


def playing(state: State, settings: Settings, pixels: np.ndarray) -> Rounds:
    seed = settings.training.seed
    stream = Stream([{"images": pixels}], seed=mix(seed, "order"))
    return Rounds(state, stream, Plan(batch=settings.training.batch, seed=seed), World())


def bound(options: argparse.Namespace) -> None:
    train, test = read(options.data, options.set)
    total = max(options.epochs) * len(train)
    settings, state = begun("vae", options.with_, "mlp", options.seed, total, options.device)
    rounds = playing(state, settings, train)
    sizes = {
        name: sum(p.numel() for p in net.parameters()) for name, net in state.family.nets.items()
    }
    print(f"{options.set}: {len(train):,} to train on, {len(test):,} to test; parameters {sizes}")
    used = 0.0
    for epoch in sorted({1, *options.epochs}):
        began = time.process_time()
        while state.clock.examples < epoch * len(train):
            rounds.play()
        used += time.process_time() - began
        told = []
        for name, pixels in (("test", test), ("train", train[: len(test)])):
            known = Known(pixels, None, name, name, True)
            with state.sampling() as family:
                elbo, units = latent_figures(
                    family, state.device, known, ("elbo", "active-units"), seed=0
                )
            parts = elbo.parts
            told.append(
                f"{name} {elbo.value:.1f} +- {elbo.error:.1f} "
                f"({parts['reconstruction']:.1f} + {parts['divergence']:.1f})"
            )
        units_ = (
            f"{units.value:.0f} of 20 by variance, {units.parts['by divergence']:.0f} by divergence"
        )
        print(f"epoch {epoch:3}: {', '.join(told)}; in use {units_}; {used:.0f} s", flush=True)


def laplacian(pixels: np.ndarray) -> Tensor:
    """Variance of the Laplacian of each picture (N, H, W, 1) in grey levels, (N,)."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    return F.conv2d(x, kernel).flatten(1).var(1)


def sharp(options: argparse.Namespace) -> None:
    train, test = read(options.data, options.set)
    test = test[:1000]
    reals = Packed(packed(options.data / SETS[options.set][0]), "train", 5 * options.count)
    print(f"real pictures: variance of the Laplacian {laplacian(test).mean():.0f}", flush=True)
    for name in ("vae", "vaegan") if options.family == "both" else (options.family,):
        settings, state = begun(name, options.with_, None, 0, 10**9, options.device)
        rounds = playing(state, settings, train)
        used = 0.0
        for until in sorted(options.seconds):
            began = time.process_time()
            while used + time.process_time() - began < until:
                rounds.play()
            used += time.process_time() - began
            means = {**rounds.means.take(World())["losses"]}
            losses = ", ".join(f"{key} {value:.3g}" for key, value in means.items())
            print(f"{name} after {until:g} s, {state.clock.examples:,} pictures seen; {losses}")
            look_at(name, f"{name}-{until:g}", state, reals, test, options)


def look_at(
    name: str, file: str, state: State, reals: Packed, test: np.ndarray, options: argparse.Namespace
) -> None:
    """Tell the figures of one moment, and save pictures."""
    x = state.device.put(np.ascontiguousarray(test))
    with state.sampling(settle=True) as family:
        samples = samples_like(family, state.device, reals, options.count, 0)
        rebuilt = torch.cat(
            [
                family.apply(x[first : first + 100], RowDraws.counted(0, 100)).float().cpu()
                for first in range(0, len(x), 100)
            ]
        )
        made = samples.read(range(options.count))
        if options.out:
            save_png(grid(made[:64], columns=8), options.out / f"{file}-samples.png")
            pairs = beside([x[:24].float().cpu(), rebuilt[:24]])
            save_png(pairs, options.out / f"{file}-rebuilt.png")
        found = measure(
            samples,
            reals,
            Options(metrics="fid,swd,precision,recall", extractor=options.extractor),
            device=state.device,
            circumstances={},
        )
    error = float((rebuilt - x.cpu()).abs().mean()) * 127.5
    print(
        f"    variance of the Laplacian: samples {laplacian(made).mean():.0f}, rebuilt pictures "
        f"{laplacian(to_uint8(rebuilt)).mean():.0f}; rebuilt to within {error:.1f} levels"
    )
    for one in found.figures:
        real = "" if one.real is None else f" (real pictures {one.real:.4g})"
        print(f"    {one.name} {one.value:.4g}{real}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["bound", "sharp"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=[*SETS], default="mnist")
    parser.add_argument("--epochs", type=int, nargs="+", default=[10])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", default="both")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 120.0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--extractor", default="squeezenet1.1")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--with", dest="with_", nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"bound": bound, "sharp": sharp}[options.what](options)


if __name__ == "__main__":
    main()
