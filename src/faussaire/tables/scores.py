"""What synthetic rows are worth to who learns from them: trained on synthetic, tested on real rows.

The same classifier (or regressor) is trained on real and on synthetic rows and tested on real rows that
neither saw: TRTR and TSTR. Beside them stands what each column drawn by itself gets, which keeps all
marginals and no relation. scikit-learn is an extra, imported when something is scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from faussaire.core.errors import UserError
from faussaire.tables.spec import TableSpec

Learner = Literal["linear", "trees"]

NONE: Any = 0
"""F1 of a class that nobody names; scikit-learn's own hints know only words here."""


def sklearn() -> None:
    """Make sure that scikit-learn is here.

    Raises:
        UserError: it is not.
    """
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            "Measuring tables needs scikit-learn, which is not installed.",
            "Run: pip install 'faussaire[tables]'",
        ) from error


@dataclass(frozen=True)
class Plain:
    """Rows as numbers that mean the same for all sets of rows, not the encoding of any family.

    Attributes:
        numbers: (N, A) float64, NaN where missing.
        codes: (N, D) int64, places of categories.
    """

    numbers: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, spec: TableSpec, alphas: np.ndarray, places: np.ndarray) -> Plain:
        """From alphas (N, A) and places (N, blocks) of one-hot vectors."""
        count = len(spec.numeric)
        numbers = [
            column.numbers(alphas[:, index], places[:, index])
            for index, column in enumerate(spec.numeric)
        ]
        empty = np.zeros((len(places), 0))
        return cls(np.stack(numbers, axis=1) if numbers else empty, places[:, count:].astype(int))

    @classmethod
    def decoded(cls, spec: TableSpec, rows: np.ndarray) -> Plain:
        """From encoded rows (N, width)."""
        return cls.of(spec, rows[:, : spec.alphas], spec.chosen(rows))

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> Plain:
        """These rows."""
        return Plain(self.numbers[rows], self.codes[rows])

    def joined(self, other: Plain) -> Plain:
        """These rows, then the other's."""
        return Plain(
            np.concatenate([self.numbers, other.numbers]), np.concatenate([self.codes, other.codes])
        )

    def shuffled(self, seed: int = 0) -> Plain:
        """Each column in an order of its own: all marginals, no relations."""
        rng = np.random.default_rng(seed)
        return Plain(rng.permuted(self.numbers, axis=0), rng.permuted(self.codes, axis=0))


@dataclass(frozen=True)
class Score:
    """How well something was told.

    Attributes:
        accuracy: share told right; for numbers, R squared.
        f1: of the rarest class where there are two, else the mean over classes; NaN for numbers.
        auc: area under the ROC curve for two classes; NaN otherwise.
    """

    accuracy: float
    f1: float
    auc: float


@dataclass(frozen=True)
class Task:
    """What is to be told from what, in numbers common to all sets of rows.

    Args:
        spec: of the table.
        target: the column to be told.
        reference: real rows, by which inputs are scaled.
    """

    spec: TableSpec
    target: str
    reference: Plain

    @property
    def classes(self) -> bool:
        """Whether classes are told, rather than a number."""
        return any(column.name == self.target for column in self.spec.discrete)

    def _index(self) -> int:
        columns = self.spec.discrete if self.classes else self.spec.numeric
        return [column.name for column in columns].index(self.target)

    def told(self, rows: Plain) -> np.ndarray:
        """(N,) what is to be told."""
        return (rows.codes if self.classes else rows.numbers)[:, self._index()]

    def inputs(self, rows: Plain) -> np.ndarray:
        """(N, K) float32: standardised numbers with marks of what is missing, one-hot categories."""
        parts = []
        for index, column in enumerate(self.spec.numeric):
            if column.name == self.target:
                continue
            base, x = self.reference.numbers[:, index], rows.numbers[:, index]
            known = base[~np.isnan(base)]
            mean = known.mean() if len(known) else 0.0
            spread = (known.std() if len(known) else 0.0) or 1.0
            parts.append(np.nan_to_num((x - mean) / spread)[:, None])
            if column.missing is not None:
                parts.append(np.isnan(x)[:, None])
        for index, column in enumerate(self.spec.discrete):
            if column.name != self.target:
                parts.append(np.eye(column.places, dtype=np.float32)[rows.codes[:, index]])
        return np.concatenate(parts, axis=1).astype(np.float32)

    def score(self, train: Plain, test: Plain, learner: Learner) -> Score:
        """Learn from one set of rows and tell the other's.

        Raises:
            UserError: scikit-learn is not installed.
        """
        sklearn()
        y, truth = self.told(train), self.told(test)
        keep, there = ~np.isnan(y.astype(float)), ~np.isnan(truth.astype(float))
        x, y = self.inputs(train)[keep], y[keep]
        seen, truth = self.inputs(test)[there], truth[there]
        if not self.classes:
            return _regressed(x, y, seen, truth, learner)
        if len(np.unique(y)) < 2:  # nothing but one class was made
            guess = np.full(len(truth), y[0] if len(y) else 0)
            return self._scored(guess, None, truth, np.unique(y))
        model = _classifier(learner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that stops early is a fit
            model.fit(x, y)
        return self._scored(model.predict(seen), model.predict_proba(seen), truth, model.classes_)

    def _scored(
        self, guess: np.ndarray, shares: np.ndarray | None, truth: np.ndarray, known: np.ndarray
    ) -> Score:
        from sklearn.metrics import f1_score, roc_auc_score

        classes, counts = np.unique(self.told(self.reference), return_counts=True)
        accuracy = float((guess == truth).mean())
        if len(classes) != 2:
            f1 = f1_score(truth, guess, average="macro", zero_division=NONE)
            return Score(accuracy, float(f1), float("nan"))
        rare = classes[counts.argmin()]
        f1 = float(f1_score(truth == rare, guess == rare, zero_division=NONE))
        auc = 0.5
        if shares is not None and len(np.unique(truth)) == 2 and rare in known:
            auc = float(roc_auc_score(truth == rare, shares[:, list(known).index(rare)]))
        return Score(accuracy, f1, auc)


def _classifier(learner: Learner) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    if learner == "trees":
        return HistGradientBoostingClassifier(random_state=0)
    return LogisticRegression(max_iter=500)


def _regressed(
    x: np.ndarray, y: np.ndarray, seen: np.ndarray, truth: np.ndarray, learner: Learner
) -> Score:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    model = HistGradientBoostingRegressor(random_state=0) if learner == "trees" else Ridge()
    model.fit(x, y)
    return Score(float(r2_score(truth, model.predict(seen))), float("nan"), float("nan"))


def default_target(spec: TableSpec) -> str:
    """The column to be told where the user names none: the last discrete one, else the last number."""
    columns: Sequence[Any] = spec.discrete or spec.numeric
    return columns[-1].name
