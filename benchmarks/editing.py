"""Latent spaces: are pictures found again, do directions do what they are named after, and nothing else?

    python benchmarks/editing.py planted --out runs/planted --for 15m
    python benchmarks/editing.py faces --data FOLDER --run runs/faces
    python benchmarks/editing.py encoder --data FOLDER --run runs/faces --encoder runs/encoder

`planted` trains a small StyleGAN2 on discs of known place, size and colour on grounds of known lightness
(or takes the run that is in --out), and measures attributes in pictures themselves, which no part of the
method does: linear boundaries between them, what an edit flips and what else it moves, SeFa's first
direction against random ones, principal components, and inversion of the model's own samples and of
held-out pictures (in W, in W+, tuned). `faces` takes a run on FOLDER/train, which has smile/ and
no_smile/ in it, as FOLDER/held has: a classifier that had no part in the labelling judges the edits.
`encoder` takes an e4e run on FOLDER/train for it: what that makes of all of FOLDER/held at once, beside
the mean face; and of some of them, improved by a search and beside a search that begins at the mean.

Recorded: benchmarks/editing.txt.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import faussaire
from faussaire.latent import directions as ways
from faussaire.latent.editor import Editor
from faussaire.latent.labels import Lessons, scored
from faussaire.latent.projection import Search, project
from faussaire.latent.tuning import Tuning, tune
from faussaire.metrics.classifier import teach
from faussaire.report.pictures import grid, save_png, to_uint8

SIDE = 32
ATTRIBUTES = ("across", "down", "size", "warm", "light")


def planted(count: int, seed: int = 0) -> np.ndarray:
    """Discs on grounds, (N, 32, 32, 3) uint8; five attributes, each uniform and independent."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for row in range(count):
        across, down = rng.uniform(0.3, 0.7, 2)
        size, warm, light = rng.uniform(0.12, 0.26), rng.uniform(), rng.uniform()
        away = np.hypot(x - across * SIDE, y - down * SIDE)
        inside = np.clip(0.5 + size * SIDE - away, 0, 1)[..., None]
        disc = np.array([40 + 200 * warm, 60, 240 - 200 * warm])
        pictures[row] = np.rint(inside * disc + (1 - inside) * (20 + 200 * light))
    return pictures


def measured(pictures: Tensor) -> np.ndarray:
    """The five attributes of pictures (N, 3, 32, 32) in [-1, 1], (N, 5), by their pixels alone.

    A disc is where colours are; the ground is grey.
    """
    levels = to_uint8(pictures).astype(np.float64)
    colour = np.clip(levels.max(3) - levels.min(3) - 30.0, 0.0, None)
    total = colour.sum((1, 2)) + 1e-6
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    ground = (colour == 0).astype(np.float64)
    return np.stack(
        [
            (colour * x).sum((1, 2)) / total,
            (colour * y).sum((1, 2)) / total,
            np.sqrt((colour > 0).mean((1, 2))),
            (colour * (levels[..., 0] - levels[..., 2])).sum((1, 2)) / total,
            (ground * levels.mean(3)).sum((1, 2)) / (ground.sum((1, 2)) + 1e-6),
        ],
        axis=1,
    )


def as_tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def told(psnr: Tensor) -> str:
    return f"psnr mean {psnr.mean():.1f}, least {psnr.min():.1f} dB"


def inversion(
    editor: Editor, targets: Tensor, what: str, steps: int, spaces: tuple[str, ...]
) -> None:
    for name in spaces:
        began = time.process_time()
        found = project(editor.space(name), targets, editor.likeness(), Search(steps=steps))
        spent = time.process_time() - began
        print(
            f"{what} in {name}: {told(found.psnr)} ({len(targets)} at {steps} steps, {spent:.0f} s)"
        )


def boundaries(editor: Editor, count: int, edited: int) -> None:
    """Boundaries between measured attributes, and edits along them."""
    space = editor.space("w")
    codes = space.draw(count, 1)
    facts = measured(space.show(codes))
    low, middle, high = np.quantile(facts, [0.05, 0.5, 0.95], axis=0)
    span = high - low
    print(
        f"ranges of {count} samples (5 to 95 %): "
        + ", ".join(
            f"{name} {a:.3g} to {b:.3g}" for name, a, b in zip(ATTRIBUTES, low, high, strict=True)
        )
    )
    found = []
    for place, name in enumerate(ATTRIBUTES):
        top, bottom = ways.ends(facts[:, place], 0.1)
        rows = np.concatenate([top, bottom])
        yes = np.repeat([True, False], [len(top), len(bottom)])
        found.append(ways.separating(space, name, codes[torch.from_numpy(rows)], yes))
    base = space.draw(4 * edited, 2)
    before = measured(space.show(base))
    for place, one in enumerate(found):
        others = [way for way in found if way is not one]
        for way, label in (
            (one, ""),
            (ways.without(one, others, space), ", others projected away"),
        ):
            # Those on the one side, to the other.
            rows = np.flatnonzero(before[:, place] < middle[place])[:edited]
            for strength in (2.0, 3.0):
                moved = ways.moved(base[torch.from_numpy(rows)], "w", [(way, strength)])
                after = measured(space.show(moved))
                flipped = (after[:, place] > middle[place]).mean()
                shift = np.abs(after - before[rows]).mean(0) / span
                beside = np.delete(shift, place)
                print(
                    f"{one.name}{label}: svm {one.facts['accuracy']:.1%} of held-out ends, "
                    f"strength {strength:g} flips {flipped:.0%}, "
                    f"moves others {beside.mean():.1%} (at most {beside.max():.1%}) of their range"
                )


def closed_form(editor: Editor) -> None:
    space = editor.space("w")
    base = space.draw(64, 3)
    still = space.show(base)

    def change(way: ways.Direction) -> float:
        # Of equal length, as SeFa asks: what its eigenvalues speak of.
        length = space.spread.sigma / space.width**0.5
        step = way.vector[None, None] * 2.0 * length
        return float((space.show(base + step) - still).abs().mean())

    sefa = [change(one) for one in ways.closed_form(space, 3)]
    chance = [change(one) for one in ways.chance(space, 20)]
    print(
        f"sefa 1 to 3 move pixels by {', '.join(f'{one:.4f}' for one in sefa)}; 20 random directions "
        f"by {np.mean(chance):.4f} (at most {max(chance):.4f})"
    )
    components = ways.principal(space, 5)
    print("pca: variance " + ", ".join(f"{one.facts['variance']:.1%}" for one in components))
    moved = [float((space.show(ways.moved(base, "w", [(one, 1.0)])) - still).abs().mean())
             for one in components[:3]]  # fmt: skip
    print("pca 1 to 3 move pixels by " + ", ".join(f"{one:.4f}" for one in moved) + " a deviation")


def tuned(editor: Editor, targets: Tensor, steps: int, tune_steps: int) -> None:
    space = editor.space("w")
    found = project(space, targets, editor.likeness(), Search(steps=steps))
    view = tune(
        space,
        found,
        targets,
        editor.likeness(),
        Tuning(steps=tune_steps),
        place=editor.model.device,
    )
    made = type(space)(view, "w").show(found.codes)
    error = 10.0 * torch.log10(4.0 / (made - targets).square().mean((1, 2, 3)))
    print(
        f"held-out pictures in w, tuned {tune_steps} steps: {told(error)} (before: {told(found.psnr)})"
    )


def planted_benchmark(options: argparse.Namespace) -> None:
    out = options.out
    if not (out / "config.yaml").exists():
        source = out.with_name(f"{out.name}-pictures.npy")
        np.save(source, planted(20_000))
        faussaire.train(
            "stylegan2",
            source,
            out=out,
            size="tiny",
            resolution=SIDE,
            augment="none",
            duration=options.duration,
        )
    editor = Editor.open(out)
    print(f"stylegan2 tiny on planted discs, {editor.model.examples:,} pictures seen")
    pictures = as_tensor(planted(1000, seed=9))
    real = measured(pictures)
    print(
        "the measure on real discs, ranges: "
        + ", ".join(
            f"{name} {a:.3g} to {b:.3g}"
            for name, a, b in zip(ATTRIBUTES, *np.quantile(real, [0.05, 0.95], axis=0), strict=True)
        )
    )
    boundaries(editor, options.count, 100)
    closed_form(editor)
    space = editor.space("w")
    own = space.show(space.draw(options.inverted, 4))
    inversion(editor, own, "own samples", options.steps, ("w", "w+"))
    held = pictures[: options.inverted]
    inversion(editor, held, "held-out pictures", options.steps, ("w+",))
    tuned(editor, held, options.steps, options.tune_steps)
    picture(editor, options.picture)


def picture(editor: Editor, path: Path | None) -> None:
    """A row of strengths for each attribute, for the documentation."""
    if path is None:
        return
    space = editor.space("w")
    codes = space.draw(4000, 1)
    facts = measured(space.show(codes))
    latent = editor.samples([3])[0]
    rows = []
    for place, name in enumerate(ATTRIBUTES):
        top, bottom = ways.ends(facts[:, place], 0.1)
        chosen = torch.from_numpy(np.concatenate([top, bottom]))
        yes = np.repeat([True, False], [len(top), len(bottom)])
        editor._known[name] = ways.separating(space, name, codes[chosen], yes)
        rows += editor.strip(latent, name)
    save_png(editor.grid(rows, columns=7), path)


# ---- Faces ----


def read_faces(folder: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures (N, side, side, 1) uint8, and whether they smile."""
    files = [(path, int(kind == "smile")) for kind in ("no_smile", "smile")
             for path in sorted((folder / kind).iterdir())]  # fmt: skip
    rows = []
    for path, _ in files:
        with Image.open(path) as image:
            rows.append(
                np.asarray(image.convert("L").resize((side, side), Image.Resampling.LANCZOS))
            )
    return np.stack(rows)[..., None], np.array([label for _, label in files])


def faces_benchmark(options: argparse.Namespace) -> None:
    editor = Editor.open(options.run)
    side = editor.model.spec.height
    print(f"stylegan2 on faces at {side} pixels, {editor.model.examples:,} pictures seen")
    held, smiles = read_faces(options.data / "held", side)
    pictures, labels = read_faces(options.data / "train", side)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    # Two classifiers of disjoint halves: one labels samples, the other judges edits.
    nets = [
        teach(
            Lessons(pictures, labels), 2, rows=rows, steps=options.lessons, width=24,
            device=editor.model.device, seed=seed,
        )
        for seed, rows in enumerate(np.array_split(order, 2))
    ]  # fmt: skip
    exam = as_tensor(held)
    right = [((scored(net, exam) > 0) == (smiles == 1)).mean() for net in nets]
    print(f"smile classifiers on {len(held)} held-out faces: {right[0]:.1%} and {right[1]:.1%}")
    space = editor.space("w")
    codes = space.draw(options.count, 1)
    scores = scored(nets[0], space.show(codes))
    top, bottom = ways.ends(scores, 0.1)
    rows = torch.from_numpy(np.concatenate([top, bottom]))
    yes = np.repeat([True, False], [len(top), len(bottom)])
    way = ways.separating(space, "smile", codes[rows], yes)
    base = space.draw(400, 2)
    judged = scored(nets[1], space.show(base))
    serious = base[torch.from_numpy(np.flatnonzero(judged < 0)[:100])]
    still = space.show(serious)
    likeness = editor.likeness()
    seen = likeness.seen(still)
    apart = likeness.perceptual(seen, [one.roll(1, 0) for one in seen]).mean()
    needed, least = np.full(len(serious), np.inf), np.zeros(len(serious))
    for strength in np.arange(0.5, 6.01, 0.5):
        shown = space.show(ways.moved(serious, "w", [(way, float(strength))]))
        smiles_now = scored(nets[1], shown) > 0
        moved = (likeness.perceptual(likeness.seen(shown), seen) / apart).numpy()
        first = smiles_now & np.isinf(needed)
        needed[first], least[first] = strength, moved[first]
        if strength in (1.0, 2.0, 3.0, 4.0):
            print(
                f"smile: svm {way.facts['accuracy']:.1%}, strength {strength:g} flips "
                f"{smiles_now.mean():.0%} of {len(serious)}, features move {moved.mean():.0%} of the "
                "way to another face"
            )
    flipped = np.isfinite(needed)
    print(
        f"smile, each face moved as far as it needs, by 6 at most: flips {flipped.mean():.0%}, at "
        f"strength {needed[flipped].mean():.1f} on average, features move {least[flipped].mean():.0%}"
    )
    inversion(editor, exam[: options.inverted], "held-out faces", options.steps, ("w", "w+"))
    tuned(editor, exam[: options.inverted], options.steps, options.tune_steps)


def encoder_benchmark(options: argparse.Namespace) -> None:
    editor = Editor.open(options.run)
    encoder = editor.encoder(options.encoder)
    space, likeness = editor.space(encoder.space), editor.likeness()
    pictures, _ = read_faces(options.data / "held", editor.model.spec.height)
    exam = as_tensor(pictures)
    began = time.process_time()
    codes = editor.encoded(encoder, exam)
    spent = time.process_time() - began

    def error(made: Tensor) -> Tensor:
        return 10.0 * torch.log10(4.0 / (made - exam).square().mean((1, 2, 3)))

    mean = space.mean.expand(len(exam), -1, -1)
    shown = space.show(codes)
    print(f"{len(exam)} held-out faces, the mean face for each: {told(error(space.show(mean)))}")
    print(
        f"{len(exam)} held-out faces, encoded: {told(error(shown))} "
        f"({spent / len(exam) * 1e3:.1f} ms a picture)"
    )
    few = exam[: options.inverted]
    inversion(editor, few, "of these a few", options.steps, (encoder.space,))
    for steps in (50, 200):
        search = Search(steps=steps)
        found = project(space, few, likeness, search, start=codes[: options.inverted])
        print(f"encoded, then {steps} steps: {told(found.psnr)}")
    if options.picture:
        rows = torch.cat([exam[:12], shown[:12]])
        save_png(grid(to_uint8(rows), 12), options.picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["planted", "faces", "encoder"])
    parser.add_argument("--out", type=Path, default=Path("runs/planted"))
    parser.add_argument("--for", dest="duration", default="15m")
    parser.add_argument("--run", type=Path, default=Path("runs/faces"))
    parser.add_argument("--encoder", type=Path, default=Path("runs/encoder"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tune-steps", type=int, default=350)
    parser.add_argument("--inverted", type=int, default=16)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--lessons", type=int, default=200)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    what = {
        "planted": planted_benchmark,
        "faces": faces_benchmark,
        "encoder": encoder_benchmark,
    }
    what[options.what](options)


if __name__ == "__main__":
    main()
