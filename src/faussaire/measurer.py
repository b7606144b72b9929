"""What measuring a run in training is for data of any kind: when to, what is known, which is best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.family import Family
from faussaire.core.figures import Figure, append_figures, read_figures
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.model import load


class GivenUp(Exception):
    """The user wants the run to end, in the middle of a measurement."""


class Measurer(ABC):
    """Measures a run while it trains, and marks its best checkpoint.

    Args:
        state: what is trained.
        run: where figures go.
        checkpoints: of which the best is marked.
        stop_asked: tells whether training should end, which a measurement does not outlast.
    """

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        stop_asked: Callable[[], str] = lambda: "",
    ) -> None:
        self._state, self._run, self._checkpoints = state, run, checkpoints
        self._stop_asked = stop_asked

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """What is measured, the metric that decides first."""

    @property
    def metrics(self) -> str:
        """`names` as settings have them."""
        return ",".join(self.names)

    @property
    def extractor(self) -> str:
        """Name of the network that it looks through; empty where none is needed."""
        return ""

    @abstractmethod
    def count(self, name: str) -> int | None:
        """How many examples the figure of this metric is of."""

    @abstractmethod
    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
        """The figures of a model, in the order of `names`.

        Args:
            family: with averaged nets, settled.
            examples: that it has seen.
            progress: called as progress(what, done, total), often; it may end the measurement.

        Raises:
            UserError: it cannot be measured.
        """

    def __call__(self) -> dict[str, Any] | None:
        """Figures of the newest checkpoint, and whether it is the best.

        None where it was measured before, or where the user wants the run to end meanwhile.

        Raises:
            UserError: it cannot be measured.
        """
        examples = self._state.clock.examples
        if self._measured(examples):
            return None
        try:
            with self._state.sampling(settle=True) as family:
                figures = self.measure(family, examples, self._stopping)
            best = self._is_best(figures[0])
        except GivenUp:
            return None
        append_figures(self._run.path / "metrics.jsonl", figures)
        if best:
            self._checkpoints.mark(self._checkpoints.find(str(examples)), "best")
        return {"figures": {one.name: one.value for one in figures}, "best": best}

    def _stopping(self, what: str, done: int, total: int) -> None:
        if self._stop_asked():
            raise GivenUp

    def _measured(self, examples: int) -> bool:
        """Whether these figures are known already, as in a run that is resumed at its end."""
        return {(name, self.count(name)) for name in self.names} <= {
            (known.provenance.metric, known.provenance.count)
            for known in read_figures(self._run.path / "metrics.jsonl")
            if known.examples == examples
            and (known.metric.of == "pairs" or known.provenance.extractor in ("", self.extractor))
        }

    def _is_best(self, figure: Figure) -> bool:
        """Whether no earlier checkpoint was better, the one that is marked so above all.

        Where the marked one was measured in another way (with fewer samples, say), it is measured
        anew in this way: a mark must not pass to a worse checkpoint because the ruler has changed.
        """
        earlier = [
            known
            for known in read_figures(self._run.path / "metrics.jsonl")
            if known.provenance == figure.provenance
            and known.examples is not None
            and known.examples < (figure.examples or 0)
        ]
        marked = self._checkpoints.marks().get("best")
        holder = next((path for path in self._checkpoints.all() if path.name == marked), None)
        if holder is not None and int(holder.name) not in {known.examples for known in earlier}:
            device = self._state.device.kind
            model = load(holder, device=device)  # pyright: ignore[reportArgumentType]
            anew = self.measure(model.family, model.examples, self._stopping)
            append_figures(self._run.path / "metrics.jsonl", anew)
            earlier.append(anew[0])
        return not any(known.better_than(figure) for known in earlier)
