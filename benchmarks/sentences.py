"""Captions by `lm`, `seqgan` and `relgan`: BLEU against Self-BLEU, at equal time.

    python benchmarks/sentences.py --data DATA --out FOLDER [--for 15m] [--size tiny] [--families ...]
        [--measure-only]

DATA holds `text_coco` (9,999 captions), a fifth of which is held out. Each family trains for as
long; FOLDER keeps the runs. Of each, sentences are made at several temperatures and measured:
BLEU-4 of 500 beside the captions that were held out (quality), Self-BLEU-4 (variety, the less the
better), the share that stands in the training data word for word; NLL, of the held-out captions at
that temperature in nats a token, says what both together are worth. One family is better than
another where it has more BLEU at equal Self-BLEU: single points say nothing (Caccia et al. 2018,
arXiv 1811.02549). The captions of the second file, by which published figures are measured, are of
other pictures and much more alike: they have BLEU-4 .40 among each other, those of the first file
.32, the first beside the second .21.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import faussaire
from faussaire.texts.corpus import Corpus, TextData
from faussaire.texts.evaluation import Reference
from faussaire.texts.judge import bleu, copied, nll_gen, sampled, self_bleu
from faussaire.texts.tokens import TextSpec

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
COUNT = 500


def words(rows: np.ndarray, spec: TextSpec) -> list[list[int]]:
    """Each row's tokens up to its end."""
    return [row[:end].tolist() for row, end in zip(rows, spec.lengths_of(rows), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--for", dest="time", default="15m")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", default=["lm", "seqgan", "relgan"])
    parser.add_argument("--measure-only", action="store_true")
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    source = options.data / "text_coco" / "image_coco.txt"
    print(
        f"faussaire {faussaire.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {torch.get_num_threads()} thread(s), seed {options.seed}"
    )

    for family in options.families:
        run = options.out / family
        command = ["train", family, str(source), "--out", str(run), "--for", options.time]
        command += ["--size", options.size, "--seed", str(options.seed)]
        command += ["--holdout", "0.2", "--doctor", "off", *options.settings]
        if not options.measure_only:
            subprocess.run(
                [sys.executable, "-m", "faussaire", *command], check=True, stdout=subprocess.DEVNULL
            )
        print(f"\nfaussaire {' '.join(command)}")
        model = faussaire.load(run)
        spec = model.spec
        reference = Reference.of(Corpus.read(str(source), TextData(), preflight=False), 0.2, spec)

        def tell(
            name: str, rows: np.ndarray, nll: str = "", reference=reference, spec=spec
        ) -> None:
            sentences = words(rows, spec)
            quality = bleu(sentences, words(reference.judged, spec)).mean()
            copies = copied(rows, reference.known)
            print(
                f"{name:24}{quality:8.3f}{self_bleu(sentences):12.3f}{copies:9.1%}{nll:>8}",
                flush=True,
            )

        print(f"{model.examples:,} examples")
        print(f"{'':24}{'BLEU-4':>8}{'Self-BLEU-4':>12}{'copies':>9}{'NLL':>8}")
        if family == options.families[0]:
            tell("captions trained on", reference.known[:COUNT])
        for heat in TEMPERATURES:
            rows = sampled(model.family, COUNT, seed=options.seed, temperature=heat).numpy()
            nll = nll_gen(model.family, reference.judged, temperature=heat)
            tell(f"{family}, temperature {heat:g}", rows, f"{nll:.3f}")
        for sentence in spec.decode(sampled(model.family, 5, seed=1).numpy()):
            print(f"    {sentence}")


if __name__ == "__main__":
    main()
