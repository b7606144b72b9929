"""Loads ``fused_kernels.cpp``, built with the machine's own compiler (``core.native``).

Why a C++ file and not ``torch.compile``: the kernels are equally fast, but one build of a second
serves every shape, where the first use of inductor costs 15 to 25 seconds and each further shape
one more; and these sums do not depend on the number of threads. Where there is no compiler nothing
is lost but speed: `kernels()` is None, and the layers run in plain torch.

``FAUSSAIRE_KERNELS=0`` in the environment keeps the kernels off.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from faussaire.core import native

__all__ = ["LANES", "kernels"]

LANES = 16  # channels come in multiples of this, as in the source

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
    library = native.load(Path(__file__).with_suffix(".cpp"))
    if library is not None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    return library
