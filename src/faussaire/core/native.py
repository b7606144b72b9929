"""C++ sources of the package, compiled by the machine's own compiler, once per machine.

Where there is no compiler nothing is lost but speed: `load` gives None, and the caller has a plain
form. ``FAUSSAIRE_KERNELS=0`` in the environment keeps all of them off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_log = logging.getLogger(__name__)


@functools.cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library built from `source`, or None where it is switched off or cannot be built."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or ""
    if os.environ.get("FAUSSAIRE_KERNELS") == "0" or sys.platform != "linux" or not compiler:
        return None
    try:
        return ctypes.CDLL(str(_build(source, shlex.split(compiler))))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("%s was not built, its plain form runs (%s)", source.name, error)
        return None


def _build(source: Path, compiler: list[str]) -> Path:
    """Path of the compiled library, from the cache if this machine has built it before."""
    from platformdirs import user_cache_dir  # not needed where there is no compiler

    root = Path(os.environ.get("FAUSSAIRE_CACHE") or user_cache_dir("faussaire"))
    name = f"{source.stem}-{_fingerprint(source, compiler)}.so"
    target = root / "kernels" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Built beside its place and moved there: of two processes that start together neither can load
    # the other's half-written file.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / name
        command = [*compiler, *_FLAGS, str(source), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        built.replace(target)
    return target


def _fingerprint(source: Path, compiler: list[str]) -> str:
    """What the library depends on: source, flags, compiler and, for -march=native, the CPU.

    A home folder may be shared by machines with different CPUs.
    """
    version = subprocess.run(
        [*compiler, "--version"], check=True, capture_output=True, timeout=30
    ).stdout
    cpu = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.lower().startswith(("flags", "features"))),
        os.uname().machine,
    )  # fmt: skip
    parts = (source.read_bytes(), " ".join(_FLAGS).encode(), version, cpu.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
