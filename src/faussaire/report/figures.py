"""Measured figures in words and charts, for pages and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faussaire.core.figures import METRICS, Figure, Provenance
from faussaire.report.curves import Chart, line_chart
from faussaire.report.history import Series

_GIVEN = {
    "pictures": "of the inputs, enlarged or with their holes filled by a mean",
    "classes": "of always telling the most frequent class",
    "pretext": "of guessing",
    "tables": "of columns that were each shuffled by themselves",
}


def given(figures: Iterable[Figure]) -> str:
    """What "as given" is of in these figures, in words: what no skill gets; empty: nothing has it."""
    metric = next((figure.metric for figure in figures if figure.given is not None), None)
    return (
        "" if metric is None else _GIVEN["classes" if metric.of == "classes" else metric.modality]
    )


BETTER = {"lower": "lower", "higher": "higher", "real": "as for real ones"}


@dataclass(frozen=True)
class Curve:
    """A chart and the sentence that says how to read it."""

    chart: Chart
    reading: str


@dataclass(frozen=True)
class Measured:
    """One figure in the table of a run: its newest measurement, in words.

    Attributes:
        title: of the metric.
        name: with the provenance.
        value: with its standard error, where there is one.
        given: the same for pictures as they were given, or an empty string.
        real: the same for real pictures, or an empty string.
        better: what better means.
        at: examples seen when it was measured.
        reading: what the metric says; empty where a row above has said it.
    """

    title: str
    name: str
    value: str
    given: str
    real: str
    better: str
    at: str
    reading: str


def figure_rows(figures: Sequence[Figure]) -> list[Measured]:
    """The newest measurement of each figure, in the order in which metrics are listed."""
    rows: list[Measured] = []
    for name, metric in METRICS.items():
        newest = {one.provenance: one for one in figures if one.provenance.metric == name}
        for index, figure in enumerate(newest.values()):
            at = examples_of(figure)
            rows.append(
                Measured(
                    title=metric.title,
                    name=figure.name,
                    value=format_measured(figure),
                    given="" if figure.given is None else format_figure(figure.given),
                    real="" if figure.real is None else format_figure(figure.real),
                    better=BETTER[metric.better],
                    at="" if at is None else f"{at:,} examples",
                    reading="" if index else metric.reading,
                )
            )
    return rows


def figure_curves(figures: Sequence[Figure], marks: Sequence[tuple[float, str]]) -> list[Curve]:
    """A chart for each figure measured at two checkpoints or more, with the best one in words.

    Figures of one metric that mean different things have charts of their own: on one scale, one of
    them would look better.
    """
    curves: list[Curve] = []
    provenances = sorted(
        dict.fromkeys(figure.provenance for figure in figures),
        key=lambda provenance: list(METRICS).index(provenance.metric),
    )
    for provenance in provenances:
        course = course_of(figures, provenance)
        if len(course) < 2:
            continue
        metric = METRICS[provenance.metric]
        series = as_series(provenance.name, course)
        chart = line_chart(
            [series],
            title=metric.title,
            description=f"{provenance.name} over examples seen.",
            limits=limits_of(course.values()),
            reference=real_line(course),
            marks=marks,
            smooth=False,
        )
        if chart is not None:
            curves.append(Curve(chart, _best(course)))
    return curves


def _best(course: Mapping[int, Figure]) -> str:
    """`Lower is better; best: 12.3 at 150,000 examples.`"""
    better = next(iter(course.values())).metric.better
    sentence = {
        "lower": "Lower is better",
        "higher": "Higher is better",
        "real": "As for real pictures is best",
    }[better]
    ranked = {at: one for at, one in course.items() if can_rank(one)}
    if not ranked:
        return f"{sentence}."
    at, best = min(ranked.items(), key=lambda item: item[1].distance())
    return f"{sentence}; best: {format_figure(best.value)} at {at:,} examples."


def examples_of(figure: Figure) -> int | None:
    """Examples seen when a figure was measured; None where that is not on record."""
    # A file from elsewhere may hold anything in its circumstances.
    at = figure.examples
    return at if isinstance(at, int) and at >= 0 else None


def course_of(figures: Iterable[Figure], provenance: Provenance) -> dict[int, Figure]:
    """One figure by examples seen, rising; of several at one point (seeds), the newest."""
    found: dict[int, Figure] = {}
    for figure in figures:
        at = examples_of(figure)
        if figure.provenance == provenance and at is not None:
            found[at] = figure
    return dict(sorted(found.items()))


def as_series(name: str, course: Mapping[int, Figure]) -> Series:
    """A figure's course as a line of a chart."""
    return Series(
        name,
        np.asarray(list(course), np.float64),
        np.zeros(len(course)),
        np.asarray([figure.value for figure in course.values()], np.float64),
    )


def real_line(course: Mapping[int, Figure]) -> tuple[float, str] | None:
    """The value for real pictures, or else for pictures as given, as a chart's reference."""
    for known, name in (
        ([one.real for one in course.values() if one.real is not None], "real pictures"),
        ([one.given for one in course.values() if one.given is not None], "as given"),
    ):
        if known and math.isfinite(known[-1]):
            return known[-1], name
    return None


def limits_of(figures: Iterable[Figure]) -> tuple[float, float]:
    """An axis from zero, or the lowest value, that shows every value and what it is held against."""
    figures = list(figures)
    shown = [one.value for one in figures]
    beside = [value for one in figures for value in (one.real, one.given)]
    shown += [value for value in beside if value is not None and math.isfinite(value)]
    low, high = min(0.0, *shown), max(0.0, *shown)
    return low, high + 0.06 * (high - low)


def can_rank(figure: Figure) -> bool:
    """Whether it is known what better means: a figure to be as for real pictures needs theirs."""
    return figure.metric.better != "real" or figure.real is not None


def format_figure(value: float) -> str:
    """A measured value in four significant digits."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def format_measured(figure: Figure) -> str:
    """A value with its standard error in two digits: `12.3 ± 0.21`."""
    error = "" if figure.error is None else f" ± {figure.error:.2g}"
    return format_figure(figure.value) + error
