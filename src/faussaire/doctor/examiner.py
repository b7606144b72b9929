"""The examination: vital signs of a state in training, from a few dozen examples.

It draws its own reals, unseen reals and latents, the same at every examination, lets the players judge
them without augmentation, and puts everything back (`State.untouched`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from faussaire.core.batch import Batch, BatchDraws, mix
from faussaire.core.family import Look
from faussaire.core.state import State
from faussaire.doctor import signs
from faussaire.doctor.signs import Glance
from faussaire.nn import fused

LOOKS = 128
"""Reals and fakes of an examination."""
FEWEST = 8
"""Training examples below which nothing can be said of them."""
REMEMBERED = 4096
"""Training examples among which copies are looked for."""
WALK = 6
"""Examinations over which a generator's path is followed."""
_CHUNK = 256


class Examiner:
    """Examines the players of one run.

    Args:
        state: in training; it is left as it was.
        table: the data by field name, as the stream has them.
        train: rows that are trained on.
        held_out: rows that are not; may be empty.
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
        classes: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self._state, self._table, self._classes = state, table, classes
        self._seed = mix(seed, "doctor")
        rng = np.random.default_rng(self._seed)
        self._train = rng.choice(train, min(LOOKS, len(train)), replace=False)
        self._unseen = rng.choice(held_out, min(LOOKS, len(held_out)), replace=False)
        # For copies: of a large set not all, which a generator cannot have learnt by heart either.
        self._known = rng.choice(train, min(REMEMBERED, len(train)), replace=False)
        self._stage = ""
        self._places: list[Tensor] = []

    def __call__(self) -> dict[str, float]:
        """Vital signs by name; empty where the family has no such game."""
        if len(self._train) < FEWEST:
            return {}
        with alone(), self._state.untouched() as family:
            seen = family.examined(self._batch(self._train, "train"), self._state.clock)
            if seen is None:
                return {}
            unseen = None
            if len(self._unseen) > 1:
                unseen = family.examined(self._batch(self._unseen, "unseen"), self._state.clock)
            self._enter_stage(seen)
            return {**self._opinions(seen, unseen), **self._forgeries(seen, unseen)}

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
        for first in range(0, len(self._known), _CHUNK):
            batch = self._batch(self._known[first : first + _CHUNK], "known")
            parts.append(self._glance(self._state.family.shown(batch, self._state.clock)))
        self._memory = torch.cat(parts)

    def _opinions(self, seen: Look, unseen: Look | None) -> dict[str, float]:
        """What the discriminator thinks."""
        found = {
            "win rate": signs.win_rate(seen.real_logits, seen.fake_logits),
            "margin": signs.margin(seen.real_logits, seen.fake_logits),
            "largest logit": float(
                torch.cat([seen.real_logits, seen.fake_logits]).abs().max().float()
            ),
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
            "pixel diversity": signs.diversity(seen.fakes.flatten(1), seen.reals.flatten(1)),
            "duplicates": signs.duplicates(fakes, reals),
            "rank": signs.effective_rank(fakes) / signs.effective_rank(reals),
            "coverage": signs.coverage(fakes, reals),
            "copying": signs.copying(
                fakes, self._memory, None if unseen is None else self._glance(unseen.reals)
            ),
        }
        if seen.fakes.dim() == 4:
            found["checkerboard"] = signs.checkerboard(seen.fakes) / max(
                signs.checkerboard(seen.reals), 1e-6
            )
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
        labels = torch.as_tensor(self._table["labels"][self._train])
        found = {}
        for index, name in enumerate(self._classes):
            rows = (labels == index).nonzero().flatten().to(fakes.device)
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


def _share(which: Tensor) -> float:
    return float(which.double().mean())
