"""pix2pix and CycleGAN on pairs whose truth is known, each beside what it must beat.

    python benchmarks/translation.py pix2pix|cyclegan|digits --data DATA --out FOLDER [--examples N]
        [--set KEY=VALUE ...]

DATA holds `bsds500/`, `emoji_noto/`, `emoji_twemoji/` and `mnist_t10k/`.

- `pix2pix`: segments to photographs at 128, 200 pairs, mirrored and cut at random, tested on 200 others;
  beside the mean colour of each segment (which is the input), and beside the same network with L1 alone.
- `cyclegan`: Noto to Twemoji at 32, disjoint halves of the emoji that both have, so that no pair is
  trained on; L1 to the true partner on 347 others, beside doing nothing, and beside the same
  generator taught by pairs.
- `digits`: digits to inverted digits of others, where the right answer is known exactly.

Leaves `FOLDER/WHAT.png` to look at: input, output, truth. --set changes settings of what is trained.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import faussaire
from faussaire.families.cyclegan import Generator
from faussaire.metrics import paired
from faussaire.nn.fused import enabled
from faussaire.report.pictures import beside


def read(paths: list[Path], side: int) -> Tensor:
    """Pictures on white, cut to squares and shrunk: (N, 3, side, side) in [-1, 1]."""
    rows = []
    for path in paths:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
        white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        short = min(white.size)
        left, top = (white.width - short) // 2, (white.height - short) // 2
        square = white.crop((left, top, left + short, top + short))
        rows.append(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)))
    return torch.tensor(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def translated(run: Path, x: Tensor, **how: Any) -> Tensor:
    """What a run makes of pictures, one after the other."""
    model = faussaire.load(run, device="cpu")
    rows = [model.apply((row[None] + 1.0) / 2.0, **how) for row in x]
    return torch.cat(rows) * 2.0 - 1.0


def show(name: str, out: Path, *parts: Tensor) -> None:
    rows = torch.linspace(0, len(parts[0]) - 1, 12).long()
    beside([part[rows] for part in parts]).save(out / f"{name}.png")


def line(name: str, x: Tensor, truth: Tensor) -> None:
    detail = paired.gradient_energy(x).mean() / paired.gradient_energy(truth).mean()
    l1, psnr = paired.l1(x, truth).mean(), paired.psnr(x, truth).mean()
    print(f"| {name} | {l1:.4f} | {psnr:.2f} | {detail:.2f} |", flush=True)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What --set says; a switch is true or false."""
    words = dict(word.split("=", 1) for word in options.set)
    return {key: {"true": True, "false": False}.get(word, word) for key, word in words.items()}


def head(what: str) -> None:
    print(f"| {what} | L1 | PSNR | detail over the real's |\n|---|---|---|---|")


def pix2pix(options: argparse.Namespace) -> None:
    data, out = options.data / "bsds500", options.out
    how = {"resolution": 128, "flip": True, "seed": options.seed, "quiet": True}
    how |= {"size": options.size, "examples": options.examples or 12_000, "holdout": 0.0}
    how |= settings(options)
    for name, weight in (("pix2pix", {}), ("l1", {"lambda_gan": 0.0})):
        faussaire.train(
            "pix2pix",
            data / "train/segments",
            target=str(data / "train/photo"),
            out=out / name,
            **{**how, **weight},
        )
    stems = sorted(path.stem for path in (data / "test/photo").glob("*.jpg"))
    x = read([data / f"test/segments/{stem}.png" for stem in stems], 128)
    truth = read([data / f"test/photo/{stem}.jpg" for stem in stems], 128)
    made, plain = translated(out / "pix2pix", x, seed=1), translated(out / "l1", x, seed=1)
    head("BSDS segments to photographs, 200 test pairs")
    line("mean colour of each segment", x, truth)
    line("L1 alone", plain, truth)
    line("pix2pix", made, truth)
    show("pix2pix", out, x, plain, made, truth)


def emoji(options: argparse.Namespace) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
    """Noto and Twemoji to train on, without common emoji, and pairs to test on."""
    with (options.data / "emoji_twemoji/noto_twemoji_pairs.csv").open(encoding="utf-8") as file:
        rows = [
            (options.data / row["noto"], options.data / row["twemoji"])
            for row in csv.DictReader(file)
        ]
    order = np.random.default_rng(0).permutation(len(rows))
    test, first, second = order[:347], order[347::2], order[348::2]
    return (
        [rows[i][0] for i in first],
        [rows[i][1] for i in second],
        [rows[i][0] for i in test],
        [rows[i][1] for i in test],
    )


def pack(path: Path, pictures: Tensor) -> str:
    """As an array that faussaire reads."""
    pixels = ((pictures + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    np.save(path, pixels.permute(0, 2, 3, 1).numpy())
    return str(path)


def cyclegan(options: argparse.Namespace) -> None:
    out = options.out
    noto, twemoji, test_noto, test_twemoji = emoji(options)
    x, truth = read(test_noto, 32), read(test_twemoji, 32)
    run = faussaire.train(
        "cyclegan",
        pack(out / "noto.npy", read(noto, 32)),
        target=pack(out / "twemoji.npy", read(twemoji, 32)),
        out=out / "cyclegan",
        size=options.size,
        channels="rgb",
        seed=options.seed,
        examples=options.examples or 20_000,
        quiet=True,
        **settings(options),
    )
    made = translated(run.path, x)
    width = faussaire.load(run.path, device="cpu").family.config
    taught = supervised(
        read(noto, 32), partners(options, noto), x, width.width, width.blocks or 6, options
    )
    head("Noto to Twemoji, 347 emoji that neither half has")
    line("doing nothing", x, truth)
    line("cyclegan, unpaired", made, truth)
    line("the same generator, taught by pairs", taught, truth)
    back = translated(run.path, made, inverse=True)
    print(f"there and back: L1 {paired.l1(back, x).mean():.4f}")
    show("cyclegan", out, x, made, taught, truth)


def partners(options: argparse.Namespace, noto: list[Path]) -> Tensor:
    """The Twemoji of these Noto emoji."""
    with (options.data / "emoji_twemoji/noto_twemoji_pairs.csv").open(encoding="utf-8") as file:
        known = {str(options.data / row["noto"]): row["twemoji"] for row in csv.DictReader(file)}
    return read([options.data / known[str(path)] for path in noto], 32)


def supervised(
    x: Tensor, y: Tensor, test: Tensor, width: int, blocks: int, options: argparse.Namespace
) -> Tensor:
    """CycleGAN's generator, taught the same number of pictures by L1 on pairs."""
    torch.manual_seed(options.seed)
    net = Generator(3, 3, width, blocks)
    optimiser = torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999))
    steps = (options.examples or 20_000) // 16
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 8e-4 * min(1.0, 2.0 - 2.0 * step / steps)
        rows = torch.randint(len(x), (16,))
        loss = (net(x[rows]) - y[rows]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return net(test)


def digits(options: argparse.Namespace) -> None:
    out = options.out
    with gzip.open(options.data / "mnist_t10k/t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    rows = torch.nn.functional.pad(torch.tensor(pixels.copy())[:, None], (2, 2, 2, 2))
    rows = rows.float() / 127.5 - 1.0
    test = rows[:300]
    run = faussaire.train(
        "cyclegan",
        pack(out / "digits.npy", rows[300:5000]),
        target=pack(out / "inverted.npy", -rows[5000:]),
        out=out / "digits",
        size=options.size,
        seed=options.seed,
        examples=options.examples or 10_000,
        quiet=True,
        **{"lambda_identity": 0.0, **settings(options)},
    )
    made = translated(run.path, test)
    head("digits to inverted digits, 300 others")
    line("doing nothing", test, -test)
    line("cyclegan, unpaired", made, -test)
    show("digits", out, test, made, -test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pix2pix", "cyclegan", "digits"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int)
    parser.add_argument("--size", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        f"faussaire {faussaire.__version__}, torch {torch.__version__}, python "
        f"{platform.python_version()}, {torch.get_num_threads()} threads, size {options.size}, seed "
        f"{options.seed}, kernels {enabled} {' '.join(options.set)}",
        flush=True,
    )
    {"pix2pix": pix2pix, "cyclegan": cyclegan, "digits": digits}[options.what](options)


if __name__ == "__main__":
    main()
