"""Which pictures have a label, where not all have, and which of these labels training is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faussaire.core.batch import mix
from faussaire.core.errors import UserError
from faussaire.data.labels import told_labels


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """Labels of pictures of which some have none.

    Attributes:
        labels: (N,) int64 class numbers; -1: nobody knows.
        told: rows whose label training is told, (K,) int64.
        tests: rows with a label that were held out, (M,) int64.
        note: how many they are, in a sentence.
    """

    labels: np.ndarray
    told: np.ndarray
    tests: np.ndarray
    note: str

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        classes: Sequence[str],
        train: np.ndarray,
        held: np.ndarray,
        *,
        only: int | None = None,
        seed: int = 0,
    ) -> Labelling:
        """Choose which labels training is told.

        Args:
            labels: as above.
            classes: their names.
            train, held: rows that are trained on and those held out.
            only: tell training so few labels, as many of each class; None: all that it may know.
            seed: which they are.

        Raises:
            UserError: a class would have no label, or fewer than are asked for.
        """
        known = train[labels[train] >= 0]
        told = known if only is None else _few(labels, classes, known, only, seed)
        counts = np.bincount(labels[told], minlength=len(classes))
        if len(told) and not counts.all():
            name = classes[int(counts.argmin())]
            own = int((labels == classes.index(name)).sum())
            raise UserError(
                f"No picture of the class '{name}' is left to learn from: its "
                f"{own} with a label {'is' if own == 1 else 'are'} held out.",
                "Add --holdout 0, or give more pictures of the class a label.",
            )
        tests = held[labels[held] >= 0]
        note = f"{told_labels(counts.tolist(), len(train), 'pictures to learn from')}."
        if hidden := len(known) - len(told):
            note = f"{note[:-1]}; the labels of {hidden:,} others are hidden."
        if len(held):
            note += f" Of {len(held):,} held out, {len(tests):,} have one."
        if len(told) == len(train):
            note += " Nothing is learnt from pictures without one."
        return cls(labels=labels, told=told, tests=tests, note=note)


def _few(
    labels: np.ndarray, classes: Sequence[str], known: np.ndarray, only: int, seed: int
) -> np.ndarray:
    """`only` of the known rows, as many of each class to within one, in their order."""
    if only < len(classes):
        raise UserError(
            f"--labels-only {only} leaves some of the {len(classes)} classes without a label.",
            f"Give {len(classes)} at least, one for each class.",
        )
    draws = np.random.Philox(key=mix("labels", seed)).random_raw(len(labels))
    order = known[np.argsort(draws[known], kind="stable")]
    chosen = []
    for number, name in enumerate(classes):
        wanted = only // len(classes) + (number < only % len(classes))
        own = order[labels[order] == number]
        if len(own) < wanted:
            raise UserError(
                f"--labels-only {only} asks for {wanted} labels of each class, and '{name}' has "
                f"{len(own)} to learn from.",
                "Ask for fewer, or leave --labels-only out to use them all.",
            )
        chosen.append(own[:wanted])
    return np.sort(np.concatenate(chosen))
