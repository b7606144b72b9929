"""Every image family for the same time on the same pictures: who learns most?

    python benchmarks/family_quality.py --data DATA --out FOLDER [--minutes 20] [--threads 2]
        [--families dcgan stylegan2 ...] [--sets fashion emoji] [--seeds 0 1 2] [--table]

DATA holds `fashion_mnist/train-images-idx3-ubyte.gz` (28x28 grey, trained at 32) and `emoji_noto/`
(72x72, trained at 64 in RGB) and, for the metrics, `weights/squeezenet1_1_features.safetensors`. Each
run is `faussaire train FAMILY SOURCE --for MINUTES` with the family's defaults, without labels, measured
five times on its way (which takes no training time), so that the best checkpoint is known beside the
last. FOLDER keeps the runs, and one line of results for each in results.jsonl; what has a line is not
run again, so the work can be done in pieces, and --table prints what is there.

Figures are FID and KID with SqueezeNet 1.1 (`fid[squeezenet1.1,...]`: not to be compared with FIDs of
other networks), precision and recall, of 2,000 samples against 10,000 pictures (emoji: all 3,833).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SETS = {
    "fashion": ("fashion_mnist/train-images-idx3-ubyte.gz", ["--resolution", "32"]),
    "emoji": ("emoji_noto", ["--resolution", "64", "--channels", "rgb"]),
}
COUNT = "2000"
METRICS = "fid,kid,prdc"


def command(*words: str, threads: int) -> subprocess.CompletedProcess[str]:
    """Run `faussaire ...`; its errors are shown and end everything."""
    done = subprocess.run(
        [sys.executable, "-m", "faussaire", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        raise SystemExit(f"faussaire {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


def train(family: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run, measured."""
    source, how = SETS[name]
    run = options.out / f"{name}-{family}-{seed}"
    weights = str(options.data / "weights")
    measuring = ["--extractor", "squeezenet1.1", "--weights", weights]
    # How many pictures that is depends on the family; a rehearsal tells, and five parts are measured.
    budget = ["--for", f"{options.minutes}m"]
    if options.examples:
        budget = ["--examples", str(options.examples)]
    common = [family, str(options.data / source), *how, *budget]
    common += ["--seed", str(seed), *options.settings]
    plan = json.loads(
        command("train", *common, "--dry-run", "--json", threads=options.threads).stdout
    )
    every = max(1, plan["examples"] // 5)
    command(
        *["train", *common, "--out", str(run), *measuring],
        *["--evaluate-every", str(every), "--evaluate-count", "1000", "--keep", "1"],
        threads=options.threads,
    )
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    last = next(event for event in reversed(events) if event["event"] == "tick")
    found: dict[str, Any] = {
        "set": name,
        "family": family,
        "seed": seed,
        "minutes": options.minutes,
        "threads": options.threads,
        "settings": options.settings,
        "examples": last["examples"],
        "per_second": last["examples"] / last["elapsed"],
        "parameters": plan["parameters"],
        "peak_memory_bytes": last["memory"],
        "faussaire": json.loads((run / "env.json").read_text("utf-8")).get("faussaire"),
    }
    for checkpoint in ("best", "latest"):
        measured = command(
            *["evaluate", str(run), "--checkpoint", checkpoint, "--metrics", METRICS],
            *["--count", COUNT, *measuring, "--json"],
            threads=options.threads,
        )
        record = json.loads(measured.stdout)
        found[checkpoint] = {
            figure["name"].partition("[")[0]: figure["value"] for figure in record["figures"]
        }
        found[checkpoint]["examples"] = record["figures"][0]["examples"]
    return found


def rows(results: list[dict[str, Any]]) -> list[str]:
    """The table, in Markdown: mean over seeds, and their spread where there are several."""
    lines = [
        "| set | family | seeds | images seen | images/s | fid best | fid last | kid x1000 best | "
        "precision | recall |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = sorted({(one["set"], one["family"]) for one in results})
    table = []
    for name, family in keys:
        some = [one for one in results if (one["set"], one["family"]) == (name, family)]

        def mean(*path: str, some: list[dict[str, Any]] = some) -> float:
            return statistics.mean(one[path[0]][path[1]] for one in some)

        fids = [one["best"]["fid"] for one in some]
        spread = f" ({min(fids):.0f} to {max(fids):.0f})" if len(fids) > 1 else ""
        seen = statistics.mean(one["examples"] for one in some)
        speed = statistics.mean(one["per_second"] for one in some)
        table.append(
            (
                name,
                mean("best", "fid"),
                f"| {name} | {family} | {len(some)} | {seen:,.0f} | {speed:,.0f} | "
                f"{mean('best', 'fid'):.1f}{spread} | {mean('latest', 'fid'):.1f} | "
                f"{mean('best', 'kid'):.1f} | {mean('best', 'precision'):.2f} | "
                f"{mean('best', 'recall'):.2f} |",
            )
        )
    return lines + [line for _, _, line in sorted(table)]


def main() -> None:
    from faussaire import families

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FAUSSAIRE_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--examples", type=int, help="so many pictures, however long it takes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    makers = [name for name in families.names() if not families.load_family(name).applies]
    parser.add_argument("--families", nargs="+", default=makers)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[])
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record = options.out / "results.jsonl"
    results = []
    if record.exists():
        results = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    for one in results:
        asked = (options.minutes, options.threads, options.settings)
        if (one["minutes"], one["threads"], one["settings"]) != asked:
            raise SystemExit(f"{record} holds runs of other minutes, threads or settings.")
    done = {(one["set"], one["family"], one["seed"]) for one in results}
    for seed in options.seeds:
        for name in options.sets:
            for family in options.families:
                if options.table or (name, family, seed) in done:
                    continue
                result = train(family, name, seed, options)
                results.append(result)
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                print(rows([result])[-1], flush=True)
    print("\n".join(rows(results)))


if __name__ == "__main__":
    main()
