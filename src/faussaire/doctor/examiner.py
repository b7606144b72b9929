"""The examination: vital signs of a state in training, from a few dozen examples.

It draws its own reals, unseen reals and latents, the same at every examination, lets the players judge
them without augmentation, and puts everything back (`State.untouched`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faussaire.core.batch import Batch, BatchDraws, mix
from faussaire.core.family import Family, Look
from faussaire.core.state import State
from faussaire.doctor import signs
from faussaire.doctor.signs import Glance
from faussaire.nn import fused

LOOKS = 128
"""Reals and fakes of an examination, where pictures are small."""
VALUES = 1 << 22
"""Numbers in all the reals of an examination, beyond which there are fewer; 16 at least."""
FEWEST = 8
"""Training examples below which nothing can be said of them."""
REMEMBERED = 4096
"""Training examples among which copies are looked for."""
WALK = 6
"""Examinations over which a generator's path is followed."""


class Examiner:
    """Examines the players of one run.

    Args:
        state: in training; it is left as it was.
        table: the data by field name, as the stream has them.
        train: rows that are trained on.
        held_out: rows that are not; may be empty.
        at_once: rows that the players get at once, as in training.
        classes: names of the classes that a conditional family learns; else empty.
        seed: of the choice of rows and latents.
    """

    def __init__(
        self,
        state: State,
        table: Mapping[str, np.ndarray],
        train: np.ndarray,
        held_out: np.ndarray,
        *,
        at_once: int = 64,
        classes: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self._state, self._table, self._classes = state, table, classes
        self._at_once = at_once
        self._seed = mix(seed, "doctor")
        rng = np.random.default_rng(self._seed)
        size = sum(field[0].size for field in table.values())
        looks = max(16, min(LOOKS, VALUES // size))
        self._train = rng.choice(train, min(looks, len(train)), replace=False)
        self._unseen = rng.choice(held_out, min(looks, len(held_out)), replace=False)
        # For copies: of a large set not all, which a generator cannot have learnt by heart either.
        self._known = rng.choice(train, min(REMEMBERED, len(train)), replace=False)
        self._stage = ""
        self._places: list[Tensor] = []

    def __call__(self) -> dict[str, float]:
        """Vital signs by name; empty where the family has no such game."""
        if len(self._train) < FEWEST:
            return {}
        with alone(), self._state.untouched() as family:
            seen = self._look(family, self._train, "train")
            if seen is None:
                return {}
            unseen = self._look(family, self._unseen, "unseen") if len(self._unseen) > 1 else None
            self._enter_stage(seen)
            return {**self._opinions(seen, unseen), **self._forgeries(seen, unseen)}

    def _look(self, family: Family[Any], rows: np.ndarray, purpose: str) -> Look | None:
        """What the players make of these rows, on the CPU; None where there is no such game."""
        looks = []
        for first in range(0, len(rows), self._at_once):
            some = rows[first : first + self._at_once]
            if first and 2 * len(some) < self._at_once:
                break  # batch norm would see too few
            batch = self._batch(some, f"{purpose} {first}")
            look = family.examined(batch, self._state.clock)
            if look is None:
                return None
            looks.append(look)

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(look, name).float().cpu() for look in looks])

        parts = {name: joined(name) for name in ("reals", "fakes", "real_logits", "fake_logits")}
        return Look(**parts, levelled=looks[0].levelled)

    def _batch(self, rows: np.ndarray, purpose: str) -> Batch:
        count = len(rows)
        put = self._state.device.put
        fields = {name: put(np.ascontiguousarray(f[rows])) for name, f in self._table.items()}
        draws = BatchDraws(
            mix(self._seed, purpose),
            total=count,
            rows=slice(0, count),
            device=self._state.device.name,
        )
        return Batch(fields, draws, count)

    def _enter_stage(self, seen: Look) -> None:
        """What is known of the training data is known in the form of this stage."""
        if self._state.clock.stage == self._stage and self._places:
            return
        self._stage, self._places = self._state.clock.stage, []
        self._glance = Glance.of(seen.reals)
        parts = []
        for first in range(0, len(self._known), self._at_once):
            batch = self._batch(self._known[first : first + self._at_once], "known")
            shown = self._state.family.shown(batch, self._state.clock)
            parts.append(self._glance(shown).cpu())
        self._memory = torch.cat(parts)

    def _opinions(self, seen: Look, unseen: Look | None) -> dict[str, float]:
        """What the discriminator thinks."""
        found = {
            "win rate": signs.win_rate(seen.real_logits, seen.fake_logits),
            "margin": signs.margin(seen.real_logits, seen.fake_logits),
            "largest logit": float(torch.cat([seen.real_logits, seen.fake_logits]).abs().max()),
        }
        if seen.levelled:
            found["right on training"] = _share(seen.real_logits > 0)
            found["right on fakes"] = _share(seen.fake_logits < 0)
        if unseen is not None:
            found["overfit"] = signs.win_rate(seen.real_logits, unseen.real_logits)
            if seen.levelled:
                found["right on unseen"] = _share(unseen.real_logits > 0)
        return found

    def _forgeries(self, seen: Look, unseen: Look | None) -> dict[str, float]:
        """What the generator makes."""
        fakes, reals = self._glance(seen.fakes), self._glance(seen.reals)
        found = {
            "diversity": signs.diversity(fakes, reals),
            "pixel diversity": signs.diversity(pixels(seen.fakes), pixels(seen.reals)),
            "duplicates": signs.duplicates(fakes, reals),
            "rank": signs.effective_rank(fakes) / signs.effective_rank(reals),
            "coverage": signs.coverage(fakes, reals),
            "copying": signs.copying(
                fakes, self._memory, None if unseen is None else self._glance(unseen.reals)
            ),
        }
        if seen.fakes.dim() == 4:
            usual = signs.checkerboard(seen.reals[:16])
            found["checkerboard"] = signs.checkerboard(seen.fakes[:16]) / max(usual, 1e-6)
            found["saturation"] = signs.saturation(seen.fakes) - signs.saturation(seen.reals)
        found |= self._by_class(fakes, reals)
        self._places = [*self._places, fakes][-WALK:]
        if len(self._places) == WALK:
            found["path"], found["way"] = signs.path_and_way(self._places)
        return found

    def _by_class(self, fakes: Tensor, reals: Tensor) -> dict[str, float]:
        """Diversity of each class that a conditional family learns, where enough were drawn."""
        if not self._classes:
            return {}
        labels = torch.as_tensor(self._table["labels"][self._train[: len(reals)]])
        found = {}
        for index, name in enumerate(self._classes):
            rows = (labels == index).nonzero().flatten()
            if len(rows) >= 4:
                found[f"diversity of {name}"] = signs.diversity(fakes[rows], reals[rows])
        return found


@contextmanager
def alone() -> Iterator[None]:
    """Within it, batch norm takes the statistics of this process: the others are not asked."""
    kept, fused.reduce_statistics = fused.reduce_statistics, None
    try:
        yield
    finally:
        fused.reduce_statistics = kept


def pixels(examples: Tensor) -> Tensor:
    """Rows (N, D) of the numbers of examples (N, ...); pictures above 64 pixels are averaged down."""
    if examples.dim() == 4:
        height, width = examples.shape[2:]
        examples = F.adaptive_avg_pool2d(examples, (min(64, height), min(64, width)))
    return examples.flatten(1)


def _share(which: Tensor) -> float:
    return float(which.double().mean())
