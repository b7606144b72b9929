"""Measuring what writes sentences: likelihood, BLEU beside Self-BLEU, copies, and their curve."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.figures import Figure, Provenance, choose_metrics, metrics_of
from faussaire.core.run import Run
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.data.source import digest
from faussaire.measurer import Measurer
from faussaire.measuring import (
    Evaluation,
    Inquiry,
    Options,
    Sheet,
    facts_of,
    place_of,
    require_modality,
)
from faussaire.report.scatter import Axis, Dot, scatter_chart
from faussaire.texts.corpus import Corpus
from faussaire.texts.judge import bleu, copied, corpus_bleu, curve, nll_gen, sampled, self_bleu
from faussaire.texts.tokens import TextSpec

_COUNT = 1_000
_REFERENCES = 2_000
_PAIRS = 300
"""Sentences on each side of sacrebleu, which goes through every pair."""
_TEMPERATURES = (0.6, 0.8, 1.0, 1.2)
_SHOWN = 60


@dataclass(frozen=True)
class Reference:
    """Real sentences that samples are measured by.

    Attributes:
        spec: the model's, by which they are numbered.
        name: `held-out`, `train`, or the name of another source.
        key: of the contents.
        judged: rows (N, T) that figures are measured with.
        known: rows (M, T) that were trained on, in which copies are looked for.
    """

    spec: TextSpec
    name: str
    key: str
    judged: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, holdout: float | None, spec: TextSpec) -> Reference:
        """The held-out sentences of a corpus, or all of them where none are held out."""
        train, unseen = corpus.split(holdout)[0]
        tokens = corpus.tokens if corpus.spec == spec else spec.encode(corpus.sentences)
        name, rows = ("held-out", unseen) if len(unseen) else ("train", train)
        return cls(spec, name, corpus.key, tokens[rows], tokens[train])


def measure(
    family: Any,
    reference: Reference,
    names: Sequence[str],
    *,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Figure, ...]:
    """Figures of a family of texts, in the order of their names.

    Args:
        family: with averaged nets, in evaluation mode.
        reference: real sentences.
        names: of metrics.
        count: sentences that are sampled.
        seed: of the samples.
        progress: called as progress(what, done, total).

    Raises:
        UserError: a metric needs a package that is not installed.
    """
    tell = progress or (lambda what, done, total: None)
    tell("sampling", 0, 1)
    samples = sampled(family, count, seed=seed).numpy() if {*names} - {"nll"} else None
    found = []
    for done, name in enumerate(names):
        tell(f"measuring {name}", done, len(names))
        found.append(_METERS[name](family, reference, samples, count))
    return tuple(found)


def _figure(name: str, reference: Reference, count: int, value: float, **more: Any) -> Figure:
    details = more.pop("details", "")
    of = more.pop("of", len(reference.judged))
    return Figure(
        provenance=Provenance(
            metric=name,
            count=count,
            reference=reference.name,
            reference_count=of,
            reference_key=reference.key,
            whole=of == len(reference.judged),
            details=details,
        ),
        value=value,
        **more,
    )


def _nll(family: Any, reference: Reference, samples: Any, count: int) -> Figure:
    value = nll_gen(family, reference.judged, temperature=1.0)
    return _figure("nll", reference, count, value, details=reference.spec.level)


def _sentences(reference: Reference, rows: np.ndarray) -> list[list[int]]:
    """Token numbers of each sentence, without its end."""
    lengths = reference.spec.lengths_of(rows)
    return [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]


def _bleu(family: Any, reference: Reference, samples: Any, count: int) -> Figure:
    theirs = _sentences(reference, reference.judged[:_REFERENCES])
    value = float(bleu(_sentences(reference, samples), theirs).mean())
    ours = _spread(reference.known, count)
    real = float(bleu(_sentences(reference, ours), theirs).mean()) if _apart(reference) else None
    return _figure(
        "bleu",
        reference,
        count,
        value,
        real=real,
        real_counts="" if real is None else f"{len(ours)}/{len(theirs)}",
        of=len(theirs),
        details=f"4,{reference.spec.level}",
    )


def _apart(reference: Reference) -> bool:
    """Whether real sentences can be compared with other real ones."""
    return reference.name != "train" and len(reference.known) > 1


def _sacrebleu(family: Any, reference: Reference, samples: Any, count: int) -> Figure:
    spec = reference.spec
    theirs = spec.decode(_spread(reference.judged, _PAIRS))
    ours = [sentence for sentence in spec.decode(samples[:_PAIRS]) if sentence] or [""]
    value, signature = corpus_bleu(ours, theirs)
    real = None
    if _apart(reference):
        real, _ = corpus_bleu(spec.decode(_spread(reference.known, len(ours))), theirs)
    return _figure(
        "sacrebleu",
        reference,
        len(ours),
        value,
        real=real,
        real_counts="" if real is None else f"{len(ours)}/{len(theirs)}",
        of=len(theirs),
        details=signature.replace("|", ";"),
    )


def _self_bleu(family: Any, reference: Reference, samples: Any, count: int) -> Figure:
    value = self_bleu(_sentences(reference, samples))
    real = _spread(reference.judged if len(reference.judged) >= count else reference.known, count)
    return _figure(
        "self-bleu",
        reference,
        count,
        value,
        real=self_bleu(_sentences(reference, real)) if len(real) > 1 else None,
        real_counts=str(len(real)),
        details=f"4,{reference.spec.level}",
    )


def _copies(family: Any, reference: Reference, samples: Any, count: int) -> Figure:
    real = copied(reference.judged, reference.known) if _apart(reference) else None
    return _figure(
        "copies",
        reference,
        count,
        copied(samples, reference.known),
        real=real,
        real_counts="" if real is None else str(len(reference.judged)),
    )


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """As many rows as that, from everywhere in the file."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


_METERS: dict[str, Callable[[Any, Reference, Any, int], Figure]] = {
    "nll": _nll,
    "bleu": _bleu,
    "sacrebleu": _sacrebleu,
    "self-bleu": _self_bleu,
    "copies": _copies,
}
assert {*_METERS} == {*metrics_of("texts")}


class TextMeasurer(Measurer):
    """Measures a run of texts while it trains; the likelihood decides where nobody says otherwise."""

    def __init__(
        self,
        state: State,
        run: Run,
        checkpoints: Checkpoints,
        material: Corpus,
        settings: Settings,
        stop_asked: Callable[[], str],
    ) -> None:
        super().__init__(state, run, checkpoints, stop_asked)
        training = settings.training
        auto = training.evaluate_metrics == "auto"
        self._names = ("nll",) if auto else choose_metrics(training.evaluate_metrics)
        require_modality(self._names, "texts", "sentences")
        self._count = min(training.evaluate_count, _COUNT)
        self._reference = Reference.of(material, settings.data.holdout, state.family.spec)
        self._facts = {"key": material.key, "seed": training.seed}

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def count(self, name: str) -> int:
        return min(self._count, _PAIRS) if name == "sacrebleu" else self._count

    def measure(
        self, family: Family[Any], examples: int, progress: Callable[[str, int, int], None]
    ) -> tuple[Figure, ...]:
        began = time.monotonic()
        figures = measure(
            family, self._reference, self._names, count=self._count, seed=0, progress=progress
        )
        place = place_of(self._run, examples, self._facts["key"])
        facts = facts_of(place, Options(), time.monotonic() - began, self._state.device)
        return tuple(dataclasses.replace(one, circumstances=facts) for one in figures)


def evaluate(inquiry: Inquiry) -> Evaluation:
    """Measure a run of texts against sentences that were held out, or another file's.

    Raises:
        UserError: no sentences, or what is asked for belongs to other data.
    """
    inquiry.refuse_pictures("sentences")
    began = time.monotonic()
    run, model, settings, options = inquiry.run, inquiry.model, inquiry.settings, inquiry.options
    notes, tell = inquiry.teller()

    source = inquiry.against or settings.source
    own = Corpus.read(source, settings.data, progress=inquiry.progress, preflight=False)
    if inquiry.against is None:
        trained_on = run.read("data.json").get("key")
        if trained_on not in (None, own.key):
            tell(
                f"The sentences in '{source}' have changed since the run was trained, and they are "
                "measured as they are now."
            )
        reference = Reference.of(own, settings.data.holdout, model.spec)
    else:
        rows = model.spec.encode(own.sentences)
        reference = Reference(
            model.spec, Path(source).stem, digest(repr(rows.tobytes())), rows, rows
        )
    if reference.name == "train":
        tell(
            "No sentences were held out, so these figures are of those that were trained on: learning "
            "by heart looks good in them. Train with --holdout 0.1."
        )
    if options.metrics in (None, "all"):
        names = metrics_of("texts")
    else:
        names = choose_metrics(options.metrics)
        require_modality(names, "texts", "sentences")
    if options.metrics is None and not _installed():
        names = tuple(name for name in names if name != "sacrebleu")
        tell("sacrebleu is left out, for it is not installed: pip install 'faussaire[texts]'")
    count = options.count or _COUNT
    if count < 2:
        raise UserError(f"{count} sentence cannot be measured.", "Ask for some hundred.")
    figures = measure(
        model.family, reference, names, count=count, seed=options.seed, progress=inquiry.progress
    )
    sheets = [_samples_sheet(model, reference, options.seed)]
    if {"bleu", "self-bleu"} <= {*names}:
        sheets.append(_curve_sheet(model.family, reference, count, options.seed, figures))
    seconds = time.monotonic() - began
    facts = facts_of(place_of(run, model.examples, own.key), options, seconds, model.device)
    return Evaluation(
        title=f"{run.path} at {model.examples:,} examples, {count:,} sentences, seed {options.seed}",
        against=f"{len(reference.judged):,} sentences ({reference.name})",
        figures=tuple(dataclasses.replace(one, circumstances=facts) for one in figures),
        notes=tuple(notes),
        sheets=tuple(sheets),
        run=run.path,
        seconds=seconds,
    )


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("sacrebleu") is not None


def _samples_sheet(model: Any, reference: Reference, seed: int) -> Sheet:
    """Sentences as they come, those that were trained on with a mark."""
    tokens = sampled(model.family, _SHOWN, seed=seed).numpy()
    known = {row.tobytes() for row in np.ascontiguousarray(reference.known, np.int64)}
    marks = ["= " if row.tobytes() in known else "  " for row in np.ascontiguousarray(tokens)]
    lines = [mark + text for mark, text in zip(marks, model.spec.decode(tokens), strict=True)]
    return Sheet(
        name="sentences.txt",
        content=("\n".join(lines) + "\n").encode(),
        caption="sentences as they come; those with = are in the training data word for word",
    )


def _curve_sheet(
    family: Any, reference: Reference, count: int, seed: int, figures: Sequence[Figure]
) -> Sheet:
    """BLEU against Self-BLEU at several temperatures, and of real sentences."""
    theirs = _sentences(reference, reference.judged[:_REFERENCES])
    some = min(count, 500)
    points = curve(
        family,
        _TEMPERATURES,
        lambda tokens: float(bleu(_sentences(reference, tokens.numpy()), theirs).mean()),
        lambda tokens, temperature: self_bleu(_sentences(reference, tokens.numpy())),
        count=some,
        seed=seed,
    )
    dots = [
        Dot(
            point.variety,
            point.quality,
            f"temperature {point.temperature:g}: BLEU {point.quality:.3f}, Self-BLEU "
            f"{point.variety:.3f}",
        )
        for point in points
    ]
    by_name = {one.provenance.metric: one for one in figures}
    quality, variety = by_name["bleu"].real, by_name["self-bleu"].real
    if quality is not None and variety is not None:
        dots.append(
            Dot(variety, quality, f"real: BLEU {quality:.3f}, Self-BLEU {variety:.3f}", 1, True)
        )
    spoken = ", ".join(f"{point.temperature:g}" for point in points)
    chart = scatter_chart(
        dots,
        title="BLEU against Self-BLEU",
        description=f"Temperatures {spoken}: high is good, left is varied; the ring is real.",
        x=Axis.around([dot.x for dot in dots]),
        y=Axis.around([dot.y for dot in dots]),
    )
    assert chart is not None
    return Sheet(
        name="curve.svg",
        content=str(chart.svg).encode(),
        caption="BLEU (upwards: like real sentences) against Self-BLEU (to the right: like each other) "
        f"at temperatures {spoken}, of {some} sentences each; the ring is of real ones",
    )
