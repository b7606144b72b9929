"""Does style transfer do what it should, and how long does it take?

    python benchmarks/style_transfer.py --data DATA [--size 256] [--steps 60] [--timed 512] [--seed 0]
        [--threads 2]

DATA holds `style_pictures/` (tubingen.jpg, starry_night_google.jpg) and
`weights/squeezenet1_1_features.safetensors`. What must hold, with SqueezeNet 1.1:

1. from noise, the weighted losses fall by at least 90 %;
2. the Gram distance of the result to the style ends below that of the photograph;
3. without its term, the total variation is higher.

The distance is `losses.style_loss` in float32 over the default layers: 0 for the style itself, 1 for a
picture of which the network sees nothing. Times are seconds of
processors, which do not depend on what else the machine does; with --timed, that of the defaults at
that size follows.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from pathlib import Path

import torch

import faussaire
from faussaire import losses
from faussaire.core.device import Device
from faussaire.families.styletransfer import RECIPES, fitted, resized
from faussaire.metrics.maps import open_maps
from faussaire.stylisation import Moment, read_picture

RECIPE = RECIPES["squeezenet1.1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--timed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    content = options.data / "style_pictures" / "tubingen.jpg"
    style = options.data / "style_pictures" / "starry_night_google.jpg"
    weights = options.data / "weights" / "squeezenet1_1_features.safetensors"
    words = [word if word != str(options.data) else "DATA" for word in sys.argv[1:]]
    print(f"python benchmarks/style_transfer.py {shlex.join(words)}")
    device = Device.choose()
    print(
        f"faussaire {faussaire.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}; {device.describe()}; seed {options.seed}"
    )
    maps = open_maps("squeezenet1.1", weights, RECIPE.style, pool=RECIPE.pool)

    def seen(path_or_picture) -> torch.Tensor:
        picture = read_picture(path_or_picture).tensor
        return resized(picture, fitted(picture, options.size)).clamp(-1.0, 1.0)

    def grams(picture: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {name: losses.gram(one) for name, one in maps(picture).items()}

    target = grams(seen(style))

    def distance(picture: torch.Tensor) -> float:
        return losses.style_loss(grams(picture), target, RECIPE.style).item()

    print(f"\nthe photograph, {options.size} pixels: Gram distance {distance(seen(content)):.4f}")
    failed = []
    variations = {}
    for name, settings in (
        ("from noise", {"start": "noise"}),
        ("from noise, L-BFGS", {"start": "noise", "optimiser": "lbfgs"}),
        ("from the photograph", {}),
        ("from the photograph, TV weight 0", {"tv_weight": 0.0}),
    ):
        moments: list[Moment] = []
        began = time.process_time()
        picture = faussaire.transfer(
            content, style, size=options.size, steps=options.steps, seed=options.seed,
            extractor="squeezenet1.1", weights=weights, preview_every=1, watch=moments.append,
            **settings,
        )  # fmt: skip
        taken = time.process_time() - began
        first, last = (sum(moments[at].losses.values()) for at in (0, -1))
        result = seen(picture)
        variations[name] = losses.total_variation(result).item()
        print(
            f"{name}: losses {first:.3f} -> {last:.3f} (-{1 - last / first:.1%}), Gram distance "
            f"{distance(result):.4f}, total variation {variations[name]:.4f}, {taken:.0f} s"
        )
        if "noise" in name and last > 0.1 * first:
            failed.append(f"{name}: the losses fell by less than 90 %")
        if distance(result) >= distance(seen(content)):
            failed.append(f"{name}: the style is no nearer than in the photograph")
    if variations["from the photograph, TV weight 0"] <= variations["from the photograph"]:
        failed.append("without its term the total variation is no higher")
    if options.timed:
        began, wall = time.process_time(), time.monotonic()
        faussaire.transfer(
            content, style, size=options.timed, seed=options.seed,
            extractor="squeezenet1.1", weights=weights,
        )  # fmt: skip
        print(
            f"\nthe defaults at {options.timed} pixels: {time.process_time() - began:.0f} s of "
            f"processors, {time.monotonic() - wall:.0f} s by the clock"
        )
    print("\n".join(failed) or "\nall holds")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
