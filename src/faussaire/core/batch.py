"""What a loss sees: rows of data, random numbers, and a place to leave what it observed.

Random numbers are functions of (seed, position in the data), drawn for the batch as a whole and then
cut to this process's rows. So they need no state in a checkpoint, and two processes draw together
what one process would have drawn alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from faussaire.core.distributed import AllSum


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and words, equal on every machine."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


class Draws(Protocol):
    """A source of random numbers for `size` rows, in each process its own rows."""

    size: int

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (size, *shape)."""
        ...

    def uniform(self, *shape: int) -> Tensor:
        """Numbers uniform in [0, 1), (size, *shape)."""
        ...

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers uniform in [0, high), (size, *shape), int64."""
        ...


class BatchDraws:
    """Draws for a batch spread over processes: all of it is drawn, this process's rows are kept."""

    def __init__(
        self, seed: int, *, total: int, rows: slice, device: torch.device | str = "cpu"
    ) -> None:
        self.size = rows.stop - rows.start
        self._total, self.rows = total, rows
        self._device = torch.device(device)
        self._generator = torch.Generator(self._device).manual_seed(seed)

    def mark(self) -> Tensor:
        """Where the sequence stands, for `rewind`."""
        return self._generator.get_state()

    def rewind(self, mark: Tensor) -> None:
        """Go to where the sequence stood at `mark`."""
        self._generator.set_state(mark)

    def _cut(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        whole = draw((self._total, *shape), generator=self._generator, device=self._device)
        return whole[self.rows]

    def normal(self, *shape: int) -> Tensor:
        return self._cut(torch.randn, *shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._cut(torch.rand, *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._cut(lambda size, **how: torch.randint(high, size, **how), *shape)

    def permutation(self) -> Tensor:
        """A random order of this process's own rows, (size,), int64."""
        return torch.argsort(self.uniform())


class RowDraws:
    """Draws in which every row has a seed of its own, so that row 7 is the same among 8 and 64.

    Numbers come from the CPU's generator: a seed gives the same latent vector on every device.
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.size = len(seeds)
        self._device = device
        self._generators = [torch.Generator().manual_seed(mix("row", seed)) for seed in seeds]

    @classmethod
    def counted(
        cls, seed: int, count: int, *, start: int = 0, device: torch.device | str = "cpu"
    ) -> RowDraws:
        """Rows `start` to `start + count - 1` of the endless sequence that `seed` names."""
        return cls([mix(seed, index) for index in range(start, start + count)], device=device)

    def _rows(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        rows = [draw(shape, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self._device)

    def normal(self, *shape: int) -> Tensor:
        return self._rows(torch.randn, *shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._rows(torch.rand, *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._rows(lambda size, **how: torch.randint(high, size, **how), *shape)


Ledger = dict[str, list[tuple[int, Tensor]]]
"""By name, the rows that the parts of a batch have collected, each with the rows of its part."""


class Batch:
    """One draw from the data, as tensors on the training device.

    Args:
        fields: this process's rows by field name. Pictures are float32 (N, C, H, W) in [-1, 1].
        draws: random numbers for these rows.
        total: rows over all processes.
        thaw: context in which no net is frozen, for `shared`.
        gather: joins the rows of all processes, for `gather`.
        own: which rows of `gather` are this process's; None: those of `draws`.
        sum: adds tensors of all processes, for `mean`.
        whole: rows of the batch that this is a part of; None: it is the whole.
        ledger: what the parts of one batch have collected so far; they share it.
    """

    def __init__(
        self,
        fields: dict[str, Tensor],
        draws: BatchDraws,
        total: int,
        thaw: Callable[[], AbstractContextManager[Any]] = nullcontext,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
        own: slice | None = None,
        sum: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        whole: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._fields = fields
        self._thaw = thaw
        self._gather = gather
        self._sum = sum
        self._own = draws.rows if own is None else own
        self._ledger: Ledger = {} if ledger is None else ledger
        self._remaking = False
        self._shared: dict[str, Any] = {}
        self._marks: dict[str, Tensor] = {}
        self.draws = draws
        self.total = total
        self.whole = total if whole is None else whole
        self.observed: dict[str, Tensor] = {}

    @property
    def size(self) -> int:
        """Rows of this process."""
        return self.draws.size

    def __getitem__(self, field: str) -> Tensor:
        return self._fields[field]

    def get(self, field: str) -> Tensor | None:
        """The field, or None where the data has none (labels, say)."""
        return self._fields.get(field)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (N, *shape)."""
        return self.draws.normal(*shape)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers uniform in [0, 1), (N, *shape)."""
        return self.draws.uniform(*shape)

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """`make()`, computed once a batch however many phases ask.

        Every net is differentiable inside, whichever phase asks first: so the discriminator's phase
        can use the fakes of `shared("fakes", ...)` detached, and the generator's phase can then
        differentiate the very same ones. The nets that `make` runs must not have moved in between.
        """
        if name not in self._shared:
            now = self.draws.mark()
            first = self._marks.setdefault(name, now)
            self._remaking = first is not now
            if self._remaking:  # forgotten: made again from the same random numbers
                self.draws.rewind(first)
            with self._thaw():
                self._shared[name] = make()
            if self._remaking:
                self.draws.rewind(now)
            self._remaking = False
        return self._shared[name]

    def forget(self) -> None:
        """Let go of what is shared; who asks again has it computed anew, from the same numbers.

        So a batch that is gone through in parts holds the graph of one part at a time.
        """
        self._shared.clear()

    def mark(self) -> Callable[[], None]:
        """Remembers where the random numbers stand; what it returns goes back there.

        Whoever then looks at the batch again draws the same numbers, and what is shared is computed
        anew, as after `forget`.
        """
        draws, marks = self.draws.mark(), dict(self._marks)

        def back() -> None:
            self.draws.rewind(draws)
            self._marks = dict(marks)
            self.forget()

        return back

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in order and without gradient: (N, ...) -> (total, ...).

        What a family keeps between batches (an image pool) is fed with these, so that it is the same
        on every process and a checkpoint needs it once.
        """
        return self._gather(rows.detach())

    def collect(self, name: str, rows: Tensor) -> Tensor | None:
        """`gather` over the parts of a batch: what its last part gets is (whole, ...), others None.

        State that moves once a batch (a controller, a running mean) is moved where this returns rows,
        so that going through a batch in parts changes nothing. What is made a second time from the
        same random numbers (`forget`) is not collected again.
        """
        if self._remaking:
            return None
        rows = self.gather(rows)
        if self.total == self.whole:
            return rows
        kept = self._ledger.setdefault(name, [])
        kept.append((self.total, rows))
        if sum(total for total, _ in kept) < self.whole:
            return None
        return torch.cat([some for _, some in self._ledger.pop(name)])

    def mean(self, values: Tensor) -> Tensor:
        """The mean of (N, ...) values over the rows of all processes, (), differentiable.

        A part of a batch has the mean of its own rows: the others have not been seen, or are gone.
        """
        sums = AllSum.apply(values.sum(), self._sum)
        return sums * (self.size / (self.total * values.numel()))

    def mean_row(self, rows: Tensor) -> Tensor:
        """The mean of rows (N, ...) over those of all processes, (...), differentiable.

        Of a part of a batch, as `mean`.
        """
        return AllSum.apply(rows.sum(dim=0), self._sum) / self.total

    def own(self, rows: Tensor) -> Tensor:
        """This process's share of rows over all processes: (total, ...) -> (N, ...)."""
        return rows[self._own]

    def observe(self, signs: Mapping[str, Tensor]) -> None:
        """Report quantities that are watched but not lowered; their means reach console and plots."""
        for name, value in signs.items():
            self.observed[name] = value.detach().float().mean()
