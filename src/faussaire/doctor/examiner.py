"""The examination: vital signs of a state in training, from a few dozen examples.

It draws its own reals, unseen reals and latents, the same at every examination, lets the players judge
them without augmentation, and puts everything back (`State.untouched`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from faussaire.nn.fused import alone

LOOKS = 128
"""Reals and fakes of an examination, where pictures are small."""
VALUES = 1 << 22
"""Numbers in all the reals of an examination, beyond which there are fewer; 16 at least."""
LEAST = 48
"""Reals and fakes of an examination in a run so short that more would leave it too few."""
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
        at_once: tells how many rows the players get at once now, in training.
        flip: whether training mirrors pictures, so that copies may be mirrored.
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
        at_once: Callable[[], int] = lambda: 64,
        flip: bool = False,
        classes: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self._state, self._table, self._classes = state, table, classes
        self._at_once, self._flip = at_once, flip
        self._seed = mix(seed, "doctor")
        rng = np.random.default_rng(self._seed)
        size = sum(field[0].size for field in table.values())
        looks = max(16, min(LOOKS, VALUES // size))
        self._train = rng.choice(train, min(looks, len(train)), replace=False)
        self._unseen = rng.choice(held_out, min(looks, len(held_out)), replace=False)
        # For copies: of a large set not all, which a generator cannot have learnt by heart either.
        known = max(256, min(REMEMBERED, 16 * VALUES // size))
        self._known = rng.choice(train, min(known, len(train)), replace=False)
        self._form: Tensor | None = None
        self._places: list[Tensor] = []

    def __call__(self) -> dict[str, float]:
        """Vital signs by name; empty where the family has no such game."""
        if len(self._train) < FEWEST:
            return {}
        with alone(), self._state.untouched() as family:
            seen = self._look(family)
            if seen is None:
                return {}
            unseen = None
            if len(self._unseen) > 1:
                batches = self._batches(self._unseen, "unseen")
                opinions = [family.judged(batch, self._state.clock) for batch in batches]
                unseen = torch.cat(opinions).float().cpu()
            found = self._opinions(seen, unseen)
            if not seen.fakes.isfinite().all():
                return found  # of NaN nothing else can be said
            self._remember(seen)
            return {**found, **self._forgeries(seen)}

    def hurry(self) -> None:
        """Look at half as many examples from now on, `LEAST` at least."""
        least = min(LEAST, len(self._train))
        if len(self._train) == least:
            return  # and the walk of the same latents goes on
        self._train = self._train[: max(least, len(self._train) // 2)]
        self._unseen = self._unseen[: max(least, len(self._unseen) // 2)]
        self._places = []  # other latents than before

    def _look(self, family: Family[Any]) -> Look | None:
        """What the players make of training examples, on the CPU; None where there is no game."""
        looks = []
        for batch in self._batches(self._train, "train"):
            look = family.examined(batch, self._state.clock)
            if look is None:
                return None
            looks.append(look)

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(look, name).float().cpu() for look in looks])

        parts = {name: joined(name) for name in ("reals", "fakes", "real_logits", "fake_logits")}
        return Look(**parts, levelled=looks[0].levelled)

    def _batches(self, rows: np.ndarray, purpose: str) -> Iterator[Batch]:
        """These rows as batches of the size that training has."""
        step = self._at_once()
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            if first and 2 * len(some) < step:
                return  # batch norm would see too few
            yield self._batch(some, f"{purpose} {first}")

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

    def _remember(self, seen: Look) -> None:
        """Know the training data in the form in which they are shown now: ProGAN's grow and fade."""
        form = seen.reals[:4]
        if self._form is not None and torch.equal(form, self._form):
            return
        if self._form is not None and form.shape != self._form.shape:
            self._places = []
        self._form, self._glance = form, Glance.of(seen.reals)
        known, mirrored = [], []
        for shown in self._shown(self._known, "known"):
            known.append(self._glance(shown))
            if self._flip and shown.dim() == 4:
                mirrored.append(self._glance(shown.flip(3)))
        self._memory = torch.cat([*known, *mirrored])
        if self._classes:
            self._learn_classes(torch.cat(known))
        if len(self._unseen) > 1:
            unseen = torch.cat([*map(self._glance, self._shown(self._unseen, "unseen"))])
            self._usual = signs.nearest(unseen, self._memory)
        else:
            self._usual = signs.nearest(self._memory, count=512)

    def _shown(self, rows: np.ndarray, purpose: str) -> Iterator[Tensor]:
        """These rows as the discriminator gets them, on the CPU, a part at a time."""
        step = self._at_once()
        for first in range(0, len(rows), step):
            batch = self._batch(rows[first : first + step], purpose)
            yield self._state.family.shown(batch, self._state.clock).float().cpu()

    def _learn_classes(self, rows: Tensor) -> None:
        """Know classes by one half of the known examples, and how well the other half tells them."""
        labels = torch.as_tensor(self._table["labels"][self._known])
        self._centroids = signs.Centroids.of(rows[::2], labels[::2], len(self._classes))
        self._told = self._centroids.right(rows[1::2], labels[1::2])

    def _opinions(self, seen: Look, unseen: Tensor | None) -> dict[str, float]:
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
            found["overfit"] = signs.win_rate(seen.real_logits, unseen)
            if seen.levelled:
                found["right on unseen"] = _share(unseen > 0)
        return found

    def _forgeries(self, seen: Look) -> dict[str, float]:
        """What the generator makes."""
        fakes, reals = self._glance(seen.fakes), self._glance(seen.reals)
        found = {
            "distance": signs.distance(fakes, reals),
            "diversity": signs.diversity(fakes, reals),
            "pixel diversity": signs.diversity(pixels(seen.fakes), pixels(seen.reals)),
            "duplicates": signs.duplicates(fakes, reals),
            "rank": signs.effective_rank(fakes) / signs.effective_rank(reals),
            "coverage": signs.coverage(fakes, reals),
            "copying": signs.copying(fakes, self._memory, self._usual),
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
        """For conditional families: whether classes are kept, and the diversity of those with enough."""
        if not self._classes:
            return {}
        labels = torch.as_tensor(self._table["labels"][self._train[: len(reals)]])
        found = {"labels told": self._told, "labels kept": self._centroids.right(fakes, labels)}
        for index, name in enumerate(self._classes):
            rows = (labels == index).nonzero().flatten()
            if len(rows) >= 4:
                found[f"diversity of {name}"] = signs.diversity(fakes[rows], reals[rows])
        return found


def pixels(examples: Tensor) -> Tensor:
    """Rows (N, D) of the numbers of examples (N, ...); pictures above 64 pixels are averaged down."""
    if examples.dim() == 4:
        height, width = examples.shape[2:]
        examples = F.adaptive_avg_pool2d(examples, (min(64, height), min(64, width)))
    return examples.flatten(1)


def _share(which: Tensor) -> float:
    return float(which.double().mean())
