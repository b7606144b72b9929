"""Measuring a model while it trains, and knowing its best checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import Figure, append_figures, choose_metrics, read_figures
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.evaluation import samples_like
from faussaire.examination import Examination, prepare
from faussaire.marking import choose_tools, examine
from faussaire.material import PictureMaterial
from faussaire.measuring import Options, find_extractor, measure, place_of
from faussaire.metrics.bench import FEATURE_METRICS, Bench
from faussaire.metrics.perceptual import open_perceptual
from faussaire.metrics.pictures import Packed, Samples
from faussaire.model import load


class Evaluator:
    """Measures a run while it trains, and marks its best checkpoint.

    Extractors are opened and the real pictures are measured at once, so that whatever is wrong
    with them is told before training begins.

    Args:
        state: what is trained.
        run: where figures go.
        checkpoints: of which the best is marked.
        material: the training data.
        settings: of the run.
        options: what to measure; the first metric decides which checkpoint is best. `auto` are those
            that the family names.
        stop_asked: tells whether training should end, which a measurement does not outlast.
        progress: called as progress(what, done, total), at first.
        note: called with sentences, at first.

    Raises:
        UserError: an unknown metric or extractor, or real pictures that cannot be measured.
    """

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: PictureMaterial,
        settings: Settings,
        options: Options,
        *,
        stop_asked: Callable[[], str] = lambda: "",
        progress: Progress | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._state, self._run, self._checkpoints = state, run, checkpoints
        self._stop_asked = stop_asked
        self._key = material.key
        self._examination: Examination | None = None
        if state.family.applies:
            self._examine(material, settings, options, progress, note)
            return
        asked = "fid" if options.metrics in (None, "auto") else options.metrics
        names = choose_metrics(asked)
        self._reals = Packed(material.images, "train", options.reference(state.device))
        needed = FEATURE_METRICS & {*names}
        extractor = find_extractor(options, state.device, note, progress) if needed else None
        self._options = dataclasses.replace(
            options, metrics=names, count=options.count or 5_000, extractor=extractor or "auto"
        )
        with state.sampling() as family:
            bench = Bench(
                self._samples(family),
                self._reals,
                extractor,
                device=state.device,
                perceptual=lambda: open_perceptual(options.weights, state.device.name),
                progress=progress,
            )
            bench.refuse(names)
            if extractor is not None:
                bench.real  # noqa: B018  (measured now, and kept in the cache)

    def _examine(
        self,
        material: PictureMaterial,
        settings: Settings,
        options: Options,
        progress: Progress | None,
        note: Callable[[str], None],
    ) -> None:
        """Choose what a family that makes pictures from pictures is asked, and its metrics."""
        family, device = self._state.family, self._state.device
        kind, config = type(family), family.config
        self._examination = prepare(
            material,
            settings,
            kind,
            scale=family.scale,
            count=options.count,
            progress=progress,
        )
        for remark in self._examination.notes:
            note(remark)
        asked = None if options.metrics == "auto" else options.metrics
        must, judges = asked is not None, kind.judged_by(config)
        names = (*judges, *kind.compares(config)) if asked is None else choose_metrics(asked)
        with self._state.sampling() as answering:
            tools = choose_tools(
                answering,
                device,
                self._examination,
                options,
                tuple(dict.fromkeys(names)),
                must=must,
                tell=note,
                progress=progress,
            )
        if not must:
            judge = next((name for name in judges if name in tools.names), None)
            if judge is None:
                raise UserError(
                    f"Which checkpoint is best would be told by {judges[0]}, which cannot be measured.",
                    "Give --weights FOLDER, or choose what decides, such as --evaluate-metrics psnr.",
                )
            rest = (name for name in kind.compares(config) if name in tools.names and name != judge)
            tools = dataclasses.replace(tools, names=(judge, *rest))
        self._tools = tools
        self._options = dataclasses.replace(
            options, metrics=tools.names, extractor=tools.extractor or "auto"
        )

    @property
    def extractor(self) -> str:
        """Name of the extractor that `auto` became; empty where none is needed."""
        chosen = self._options.extractor
        return "" if isinstance(chosen, str) else chosen.name

    def _samples(self, family: Family[Any]) -> Samples:
        count = self._options.count
        assert count is not None
        return samples_like(family, self._state.device, self._reals, count, self._options.seed)

    @property
    def metrics(self) -> str:
        """What is measured, as settings have it, the metric that decides first."""
        return ",".join(self._options.metrics or ())

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
                figures = self._measure(family, examples)
            best = self._is_best(figures[0])
        except _GivenUp:
            return None
        append_figures(self._run.path / "metrics.jsonl", figures)
        if best:
            self._checkpoints.mark(self._checkpoints.find(str(examples)), "best")
        return {"figures": {one.name: one.value for one in figures}, "best": best}

    def _measure(self, family: Family[Any], examples: int) -> tuple[Figure, ...]:
        def progress(what: str, done: int, total: int) -> None:
            if self._stop_asked():
                raise _GivenUp

        place = place_of(self._run, examples, self._key)
        if self._examination is not None:
            return examine(
                family,
                self._state.device,
                self._examination,
                self._tools,
                self._options,
                circumstances=place,
                progress=progress,
            ).figures
        found = measure(
            self._samples(family),
            self._reals,
            self._options,
            device=self._state.device,
            circumstances=place,
            progress=progress,
        )
        return found.figures

    def _measured(self, examples: int) -> bool:
        """Whether these figures are known already, as in a run that is resumed at its end."""
        count = self._options.count
        if self._examination is not None:
            count = len(self._examination.main.pairs)
        names = self._options.metrics or ()
        return {(name, count) for name in names} <= {
            (known.provenance.metric, known.provenance.count)
            for known in read_figures(self._run.path / "metrics.jsonl")
            if known.examples == examples
            and (known.metric.pairs or known.provenance.extractor in ("", self.extractor))
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
            anew = self._measure(model.family, model.examples)
            append_figures(self._run.path / "metrics.jsonl", anew)
            earlier.append(anew[0])
        return not any(known.better_than(figure) for known in earlier)


class _GivenUp(Exception):
    """The user wants the run to end, in the middle of a measurement."""
