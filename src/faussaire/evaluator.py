"""Measuring pictures while a model trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from faussaire.asking import answers, divide, questions
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import Figure, choose_metrics
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.evaluation import samples_like
from faussaire.examination import Examination, prepare
from faussaire.marking import choose_tools, examine
from faussaire.material import PictureMaterial
from faussaire.measurer import Measurer
from faussaire.measuring import Options, find_extractor, measure, place_of
from faussaire.metrics.bench import FEATURE_METRICS, Bench
from faussaire.metrics.perceptual import open_perceptual
from faussaire.metrics.pictures import Packed, Samples


class Evaluator(Measurer):
    """Measures pictures of a run while it trains, and marks its best checkpoint.

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
        super().__init__(state, run, checkpoints, stop_asked)
        self._key = material.key
        self._examination: Examination | None = None
        if state.family.applies:
            self._examine(material, settings, options, progress, note)
            return
        usual = type(state.family).judged_by(state.family.config)[:1]
        names = choose_metrics(usual if options.metrics in (None, "auto") else options.metrics)
        wanted = divide(state.family, names)
        if wanted.pairs:
            raise UserError(
                f"{wanted.pairs[0]} of rebuilt pictures is measured by faussaire evaluate, not in "
                "training.",
                "Leave it out of --evaluate-metrics; elbo tells how a vae gets on.",
            )
        self._sets = tuple(wanted.sets or ())
        self._questions = questions(
            state.family, material, settings, wanted, other=None, seed=options.seed
        )
        self._reals = Packed(material.images, "train", options.reference(state.device))
        needed = FEATURE_METRICS & {*names}
        extractor = find_extractor(options, state.device, note, progress) if needed else None
        self._options = dataclasses.replace(
            options, metrics=names, count=options.count or 5_000, extractor=extractor or "auto"
        )
        if not self._sets:
            return
        with state.sampling() as family:
            bench = Bench(
                self._samples(family),
                self._reals,
                extractor,
                device=state.device,
                perceptual=lambda: open_perceptual(options.weights, state.device.name),
                progress=progress,
            )
            bench.refuse(self._sets)
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
    def names(self) -> Sequence[str]:
        return self._options.metrics or ()

    def count(self, name: str) -> int | None:
        if self._examination is not None:
            return len(self._examination.main.pairs)
        asked = next((one for one in self._questions if name in one.names), None)
        return self._options.count if asked is None else len(asked)

    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
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
        device = self._state.device
        told = answers(
            self._questions,
            family,
            device,
            self._options,
            circumstances=place,
            progress=progress,
        )
        figures = [*told.figures]
        if self._sets:
            figures += measure(
                self._samples(family),
                self._reals,
                dataclasses.replace(self._options, metrics=self._sets),
                device=device,
                circumstances=place,
                progress=progress,
            ).figures
        return tuple(sorted(figures, key=lambda one: self.names.index(one.provenance.metric)))
