"""R1 and its gradient, three ways: torch's own, ours, and compiled as a whole.

    python benchmarks/compiled_penalty.py [--families stylegan2 r3gan ...] [--rounds 7]
        [--resolution 32] [--batch 32] [--threads 1] [--device auto]

A module that was compiled cannot be differentiated twice, but a function which takes the first
derivative itself (`torch.func.grad`) can be compiled and then differentiated once, which is all that a
penalty needs. The question is whether that pays. The three take turns in one process; the table has
medians of milliseconds for gamma/2 E|grad D(x)|^2 and its gradient in every weight, and the ratio to
torch's own. Compilation happens before, and its seconds are told.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.device import Device
from faussaire.core.family import Pictures
from faussaire.families import load_family

WAYS = ("torch", "ours", "compiled")


def penalty_of(net: nn.Module, device: Device) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """1/2 E|grad D(x)|^2 as a function of parameters and pictures, for one compilation."""
    lowered = device.precision == "bfloat16"

    def total(x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        with torch.autocast(device.kind, dtype=torch.bfloat16, enabled=lowered):
            return torch.func.functional_call(net, parameters, (x,)).float().sum()

    def penalty(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        found = torch.func.grad(total)(x, parameters)
        return 0.5 * found.float().flatten(1).square().sum(dim=1).mean()

    return penalty


def judge(family: str, resolution: int, device: Device) -> nn.Module:
    """This family's discriminator with its default settings, not yet prepared."""
    kind = load_family(family)
    spec = Pictures(channels=3, height=resolution, width=resolution)
    torch.manual_seed(0)
    net = kind(kind.Config(), spec).nets["discriminator"]
    return net.to(device.name, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def ways(family: str, options: argparse.Namespace, device: Device) -> dict[str, Any]:
    """A function for each way, which returns the penalty and its gradients."""
    x = torch.randn(options.batch, 3, options.resolution, options.resolution, device=device.name)
    x = x.contiguous(memory_format=torch.channels_last)
    bare = judge(family, options.resolution, device)
    compiled = torch.compile(penalty_of(bare, device))
    named = dict(bare.named_parameters())
    net = device.prepare(judge(family, options.resolution, device), compile=False)

    def by_function() -> tuple[Tensor, tuple[Tensor | None, ...]]:
        value = compiled(named, x)
        return value, torch.autograd.grad(value, list(named.values()), allow_unused=True)

    def by_loss() -> tuple[Tensor, tuple[Tensor | None, ...]]:
        value = losses.zero_centred_penalty(net, x)
        return value, torch.autograd.grad(value, list(net.parameters()), allow_unused=True)

    def by_torch() -> tuple[Tensor, tuple[Tensor | None, ...]]:
        from faussaire.core import device as engine

        ours, engine.FastSecondDerivatives = engine.FastSecondDerivatives, nullcontext  # type: ignore
        try:
            return by_loss()
        finally:
            engine.FastSecondDerivatives = ours  # type: ignore[misc]

    return {"torch": by_torch, "ours": by_loss, "compiled": by_function}


def measure(family: str, options: argparse.Namespace, device: Device) -> str:
    """A row of the table."""
    calls = ways(family, options, device)
    began = time.perf_counter()
    try:
        results = {name: call() for name, call in calls.items()}
    except Exception as error:  # noqa: BLE001 what a compiler cannot do is a result, too
        reason = str(error).strip().splitlines()[0][:60]
        return f"| {family} | does not compile: {type(error).__name__}: {reason} |"
    warm = time.perf_counter() - began
    values = {name: float(value.detach()) for name, (value, _) in results.items()}
    if any(abs(value / values["torch"] - 1.0) > 0.05 for value in values.values()):
        raise SystemExit(f"{family}: the ways disagree: {values}")
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name in WAYS:
            began = time.perf_counter()
            calls[name]()
            device.synchronise()
            times[name].append(1000.0 * (time.perf_counter() - began))
    usual = {name: statistics.median(some) for name, some in times.items()}
    gain = {
        name: statistics.median(a / b for a, b in zip(times["torch"], times[name], strict=True))
        for name in WAYS
    }
    cells = " | ".join(f"{usual[name]:.1f} ({gain[name]:.2f}x)" for name in WAYS)
    return f"| {family} | {cells} | {warm:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=["progan", "stylegan2", "r3gan"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = Device.choose(options.device)
    print(f"{device.describe()}, torch {torch.__version__}; milliseconds for R1 and its gradient\n")
    print("| family | " + " | ".join(WAYS) + " | compiling |\n|---|---|---|---|---|")
    for family in options.families:
        print(measure(family, options, device), flush=True)


if __name__ == "__main__":
    main()
