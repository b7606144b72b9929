"""The one place that decides device, precision, memory format and compilation.

A family calls its nets and gets float32 back; it never mentions CUDA, bf16 or layouts.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from faussaire.core.errors import UserError
from faussaire.core.twice import FastSecondDerivatives

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bfloat16", "float32"]

_precise: ContextVar[bool] = ContextVar("precise", default=False)
_eager: ContextVar[bool] = ContextVar("eager", default=False)


@contextmanager
def _within(flag: ContextVar[bool]) -> Iterator[None]:
    token = flag.set(True)
    try:
        yield
    finally:
        flag.reset(token)


def precise() -> AbstractContextManager[None]:
    """Within it, prepared nets run in eager float32: for measurements finer than bf16's 8 bits."""
    return _within(_precise)


def eagerly() -> AbstractContextManager[None]:
    """Within it, prepared nets run as they are, uncompiled: for calls of sizes that come once."""
    return _within(_eager)


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Within it, prepared nets run eagerly in the run's precision: for penalties on gradients.

    A compiled net has no second derivative, and torch's own of convolutions are slow.
    """
    with eagerly(), FastSecondDerivatives():
        yield


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AMX or AVX512-BF16)."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def has_compiler() -> bool:
    """Whether torch.compile can build CPU kernels here."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)


@cache
def keep_memory() -> None:
    """Have glibc reuse large blocks in place of asking the system for each tensor afresh.

    A fresh block costs a page fault every 4 KiB: cloning 33 MB took 9.3 ms, and 2.3 ms reused. It
    holds for the whole process, which keeps its peak of memory: for training, not for serving. Does
    nothing where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back at the top
        mallopt(-2, 1 << 28)  # M_TOP_PAD: grow in steps of 256 MiB


def compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `forward` anew for each shape it meets.

    Training meets one shape, or one for each size of a growing network. Kernels for any shape are
    slower, and for pictures that double in size torch 2.13 fails to build them.
    """
    limit = 32  # a network that grows to 1024 pixels has 17 stages; torch gives up after 8
    torch._dynamo.config.recompile_limit = max(limit, torch._dynamo.config.recompile_limit)
    return torch.compile(forward, dynamic=False)


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where and how networks run.

    Attributes:
        name: `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bfloat16` (products and activations; weights, sums, losses and penalties stay
            float32) or `float32`.
        compile: whether networks go through torch.compile.
    """

    name: str
    precision: Literal["bfloat16", "float32"]
    compile: bool = False

    @classmethod
    def choose(
        cls,
        name: DeviceName = "auto",
        precision: Precision = "auto",
        *,
        compile: bool = False,
        local_rank: int = 0,
    ) -> Device:
        """The fastest safe settings of this machine, where `auto` leaves the choice.

        Raises:
            UserError: the device or the precision asked for is not here.
        """
        if name == "auto":
            name = "cpu"
            if torch.cuda.is_available():
                name = "cuda"
            elif torch.backends.mps.is_available():
                name = "mps"
        if name == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "--device cuda was asked for, but torch finds no CUDA GPU here.",
                "Use --device cpu, or install a CUDA build of torch (see the README).",
            )
        if name == "mps" and not torch.backends.mps.is_available():
            raise UserError(
                "--device mps was asked for, but this machine has no Apple GPU that torch can use.",
                "Use --device cpu.",
            )
        if precision == "auto":
            capable = {
                "cpu": cpu_has_bfloat16,
                "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
                "mps": lambda: torch.backends.mps.is_macos_or_newer(14, 0),
            }[name]()
            precision = "bfloat16" if capable else "float32"
        if name == "cuda":
            count = torch.cuda.device_count()
            if local_rank >= count:
                raise UserError(
                    f"Process {local_rank} has no GPU of its own: this machine has {count}.",
                    f"Start at most {count} processes a machine.",
                )
            torch.cuda.set_device(local_rank)
            return cls(name=f"cuda:{local_rank}", precision=precision, compile=compile)
        return cls(name=name, precision=precision, compile=compile)

    @property
    def kind(self) -> str:
        """`cpu`, `cuda` or `mps`."""
        return self.name.partition(":")[0]

    def prepare(self, net: nn.Module, *, compile: bool | None = None) -> nn.Module:
        """Move `net` here and make its calls run in this precision and layout; in place.

        Calls keep their meaning: float32 (or integer) in, float32 out.
        """
        net.to(self.name)
        # 4-D weights in channels_last keep convolutions from reordering them at every call.
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        plain = type(net).forward
        use_compiled = self.compile if compile is None else compile
        fast = compiled(plain) if use_compiled else plain
        lowered = self.precision == "bfloat16"

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if _precise.get():
                with torch.autocast(self.kind, enabled=False):
                    return plain(module, *args, **kwargs)
            run = plain if _eager.get() else fast
            with torch.autocast(self.kind, dtype=torch.bfloat16, enabled=lowered):
                out = run(module, *args, **kwargs)
            return pytree.tree_map_only(Tensor, _to_float32, out)

        # A bound method, not a closure over the net: a deep copy of the net then runs its own weights.
        net.forward = MethodType(forward, net)
        return net

    def put(self, array: Any) -> Tensor:
        """A NumPy array as a tensor here; uint8 pictures (N, H, W, C) become float32 (N, C, H, W).

        Pictures are scaled from 0..255 to [-1, 1] and are channels_last without a copy.
        """
        tensor = torch.from_numpy(array)
        if self.kind == "cuda":
            tensor = tensor.pin_memory()
        tensor = tensor.to(self.name, non_blocking=True)
        if tensor.dtype == torch.uint8 and tensor.dim() == 4:
            tensor = tensor.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0)
        return tensor

    def peak_memory(self) -> int:
        """Highest memory use so far in bytes: the GPU's where there is one, else the process's."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated(self.name)
        if self.kind == "mps":
            return torch.mps.driver_allocated_memory()
        status = Path("/proc/self/status")
        if status.exists():  # Linux, whose ru_maxrss begins at what the parent process had
            found = status.read_text("ascii", errors="replace").partition("VmHWM:")[2].split()
            return 1024 * int(found[0]) if found else 0
        try:
            import resource
        except ImportError:  # Windows has no such module
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if os.uname().sysname == "Darwin" else peak * 1024

    def synchronise(self) -> None:
        """Wait for queued work, before a clock is read."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.name)
        elif self.kind == "mps":
            torch.mps.synchronize()

    def describe(self) -> str:
        """One phrase for people: `cpu (2 threads), bfloat16, eager`."""
        if self.kind == "cuda":
            where = f"{self.name} ({torch.cuda.get_device_name(self.name)})"
        elif self.kind == "cpu":
            where = f"cpu ({torch.get_num_threads()} threads)"
        else:
            where = self.name
        return f"{where}, {self.precision}, {'compiled' if self.compile else 'eager'}"


def _to_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
