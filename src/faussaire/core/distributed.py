"""Several processes as one: gradients averaged, decisions shared, rank 0 alone writes.

Processes are started by `torchrun` or by `faussaire train --processes N`; both set the environment
that `World.join` reads. With one process every method is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from faussaire.core.errors import Interrupted, UserError

# A process that died is noticed at once, by its broken connection; this is for one that hangs, and
# must outlast every honest pause, such as the first packing of millions of pictures.
#: Bytes of a text that is told to all processes, at most.
_LETTER = 4096
_TIMEOUT = timedelta(hours=6)


@contextmanager
def _peers_alive() -> Iterator[None]:
    """Turns a broken connection into a sentence: a dead peer is the one cause in practice."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        text = str(error)
        signs = ("closed by peer", "reset by peer", "NCCL", "Timed out", "timeout", "Broken pipe")
        if not isinstance(error, dist.DistError) and not any(sign in text for sign in signs):
            raise
        raise Interrupted(
            "Another process of this run ended, so this one cannot go on.",
            "See that process's own message; then run `faussaire resume RUN`.",
        ) from error


class World:
    """The processes of a run, seen from one of them."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._control: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, *, cuda: bool = False) -> World:
        """The world that the environment describes: alone unless WORLD_SIZE is above 1."""
        try:
            size = int(os.environ.get("WORLD_SIZE", "1"))
            if size == 1:
                return cls()
            world = cls(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
        except (KeyError, ValueError) as error:
            raise UserError(
                f"WORLD_SIZE is set, but the environment is not torchrun's ({error}).",
                "Start with torchrun or --processes, or unset WORLD_SIZE.",
            ) from error
        try:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=_TIMEOUT)
            # Decisions travel by gloo on the CPU even beside NCCL, so that the GPU is never waited for.
            if cuda:
                group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
                world._control = group if isinstance(group, dist.ProcessGroup) else None
        except (dist.DistError, RuntimeError) as error:
            raise UserError(
                f"The {size} processes of this run could not find each other: {error}",
                "Check MASTER_ADDR and MASTER_PORT, and that every process was started.",
            ) from error
        return world

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This process's share of a batch of `total` rows.

        Raises:
            UserError: the batch does not divide.
        """
        if total % self.size:
            raise UserError(
                f"A batch of {total} cannot be shared equally by {self.size} processes.",
                f"Choose a batch that is a multiple of {self.size}.",
            )
        share = total // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place, by one flat all-reduce."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        with _peers_alive():
            dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, as a new tensor."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        with _peers_alive():
            dist.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes in order of rank: (N, ...) -> (size * N, ...)."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        with _peers_alive():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process raised it. Every process gets the same answer."""
        if self.size == 1:
            return flags
        votes = torch.tensor([int(flag) for flag in flags])
        with _peers_alive():
            dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._control)
        return tuple(bool(vote) for vote in votes.tolist())

    def tell(self, text: str) -> str:
        """The leading process's text, on every process; 4 kB at most."""
        if self.size == 1:
            return text
        written = text.encode() if self.leads else b""
        if len(written) > _LETTER:
            raise ValueError(f"a text of {len(written)} bytes cannot be told; {_LETTER} at most")
        letter = torch.zeros(_LETTER, dtype=torch.uint8)
        letter[: len(written)] = torch.tensor(list(written), dtype=torch.uint8)
        with _peers_alive():
            dist.broadcast(letter, src=0, group=self._control)
        return bytes(letter.tolist()).rstrip(b"\0").decode()

    def agrees(self, number: int) -> bool:
        """Whether every process has the same number, below 2**62."""
        if self.size == 1:
            return True
        ends = torch.tensor([number, -number])
        with _peers_alive():
            dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=self._control)
        return int(ends[0]) == -int(ends[1])

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    def leave(self) -> None:
        """Close the connections."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class AllSum(torch.autograd.Function):
    """A sum over processes, differentiable: every process's input acts on every process's output.

    `AllSum.apply(tensor, reduce)`, where reduce is `World.sum`.
    """

    @staticmethod
    def forward(ctx, tensor: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.reduce = reduce
        return reduce(tensor.clone())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return AllSum.apply(gradient, ctx.reduce), None
