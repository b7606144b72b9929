"""Builds and loads ``fused_kernels.cpp`` with the machine's own compiler, once per machine.

Why a C++ file and not ``torch.compile``: the kernels are equally fast, but one build of a second
serves every shape, where the first use of inductor costs 15 to 25 seconds and each further shape
one more; and these sums do not depend on the number of threads. Where there is no compiler nothing
is lost but speed: `kernels()` is None, and the layers run in plain torch.

``FAUSSAIRE_KERNELS=0`` in the environment keeps the kernels off.
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

__all__ = ["LANES", "kernels"]

LANES = 16  # channels come in multiples of this, as in the source

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
_log = logging.getLogger(__name__)

_POINTER, _LONG, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "faussaire_norm_sums": [_POINTER] * 2 + [_LONG, _LONG, _INT],
    "faussaire_norm_apply": [_POINTER] * 3 + [_FLOAT, _POINTER, _LONG, _LONG, _INT],
    "faussaire_norm_backward_sums": [_POINTER] * 5 + [_FLOAT, _POINTER, _LONG, _LONG, _INT],
    "faussaire_norm_backward_apply": [_POINTER] * 6 + [_FLOAT, _POINTER, _LONG, _LONG, _INT],
}


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The loaded library, or None where it is switched off or cannot be built."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or ""
    if os.environ.get("FAUSSAIRE_KERNELS") == "0" or sys.platform != "linux" or not compiler:
        return None
    try:
        library = ctypes.CDLL(str(_build(shlex.split(compiler))))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("batch norm runs in plain torch: the fused kernels were not built (%s)", error)
        return None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def _build(compiler: list[str]) -> Path:
    """Path of the compiled library, from the cache if this machine has built it before."""
    from platformdirs import user_cache_dir  # not needed where there is no compiler

    root = Path(os.environ.get("FAUSSAIRE_CACHE") or user_cache_dir("faussaire"))
    name = f"fused-{_fingerprint(compiler)}.so"
    target = root / "kernels" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Built beside its place and moved there: of two processes that start together neither can load
    # the other's half-written file.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / name
        command = [*compiler, *_FLAGS, str(_SOURCE), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        built.replace(target)
    return target


def _fingerprint(compiler: list[str]) -> str:
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
    parts = (_SOURCE.read_bytes(), " ".join(_FLAGS).encode(), version, cpu.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
