"""Helpers: real commands in real processes, on real pictures."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from cli.nursery import Nursery, early

#: A dcgan so small that a step takes milliseconds.
TINY = ["--width", "4", "--latent", "8", "--batch", "16", "--resolution", "16"]


def environment() -> dict[str, str]:
    """One thread, and this very source tree."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "error",
        "NO_COLOR": "1",
    }


def free_port() -> int:
    """A port on this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(
    *words: object, env: dict[str, str] | None = None, **how: object
) -> subprocess.Popen[str]:
    """`python -m faussaire words...`, output captured."""
    return subprocess.Popen(
        [sys.executable, "-m", "faussaire", *map(str, words)],
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,  # type: ignore[call-overload]
    )


@cache
def nursery() -> Nursery:
    """One for all tests of this process."""
    return Nursery(environment())


def faussaire(
    *words: object, expect: int = 0, timeout: float = 120, cwd: Path | None = None
) -> tuple[str, str]:
    """Run a command to its end; returns what it said on standard output and standard error."""
    env = environment()
    if early(env) == nursery().early:
        code, out, err = nursery().run(
            [*map(str, words)], env, (cwd or Path.cwd()).resolve(), timeout
        )
    else:
        process = start(*words, cwd=cwd)
        out, err = process.communicate(timeout=timeout)
        code = process.returncode
    assert code == expect, f"exit code {code}\n{out}\n{err}"
    if expect == 2:
        assert "Traceback" not in err, err
        assert err.startswith("faussaire: ") or "Parsing error" in err or "rror" in err, err
    return out, err


def make_pictures(folder: Path, count: int = 48, classes: bool = False) -> Path:
    """A folder of small colour pictures; every third is a JPEG."""
    rng = np.random.default_rng(0)
    for index in range(count):
        colour = rng.integers(0, 255, 3)
        pixels = np.zeros((20, 24, 3), np.uint8)
        pixels[4:16, 4 + index % 8 : 16 + index % 8] = colour
        place = folder / ("red" if index % 2 else "blue") if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        ending = "jpg" if index % 3 == 0 else "png"
        Image.fromarray(pixels).save(place / f"picture {index}.{ending}")
    return folder


def weights(run: Path) -> dict[str, bytes]:
    """The last checkpoint's tensors, as the bytes on disk."""
    last = max((run / "checkpoints").glob("[0-9]*"))
    return {path.name: path.read_bytes() for path in sorted(last.glob("*.safetensors"))}
