"""Line charts as inline SVG, drawn with nothing but text.

A chart is complete without JavaScript: axes, lines, and a legend with the latest values. The page's
script only adds a read-out under the pointer. Colours come from CSS variables (`--line-0` ...) with
colours of Okabe and Ito behind them, which colour-blind people can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from faussaire.report.history import Series

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#8a6d00", "#3a9ad9")
POINTS = 400  # a chart is some 600 pixels wide: more points cannot be seen

# The drawing in its own units; a page scales it. Margins leave room for the larger letters that a
# narrow screen needs.
WIDTH, HEIGHT = 600.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 16.0, 38.0
_DASHES = ("", "7 3", "2 3")


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the line's name, colour number, and latest value as text."""

    name: str
    colour: int
    value: str
    dash: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart ready for a page.

    Attributes:
        title: what is drawn.
        svg: the drawing.
        keys: the legend, in the order of the lines.
        note: a remark on the drawing itself, or an empty string.
    """

    title: str
    svg: Markup
    keys: tuple[Key, ...]
    note: str = ""


@dataclass(frozen=True)
class _Line:
    """A series as drawn: (P,) arrays with P <= POINTS."""

    raw_x: np.ndarray
    raw_y: np.ndarray
    x: np.ndarray
    y: np.ndarray
    smoothed: bool


@dataclass(frozen=True)
class Scale:
    """Data to drawing units.

    Attributes:
        low, high: ends of the axis.
        start, end: where they are drawn.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        share = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    limits: tuple[float | None, float | None] = (None, None),
    reference: tuple[float, str] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    smooth: bool = True,
) -> Chart | None:
    """Lines over examples seen.

    Args:
        series: what to draw, at most a handful.
        title, description: for people, and for programs that read pages aloud.
        limits: lowest and highest value of the vertical axis; None: as the values need, where a few
            peaks may be cut off (a note then says so).
        reference: a horizontal line at this value, with this word.
        marks: vertical lines at these examples, with these words.
        smooth: draw a smoothed line over the faint raw one where there are enough points.

    Returns:
        The chart, or None where no series has a finite value.
    """
    drawn = [(one, _line(one, smooth)) for one in series if np.isfinite(one.values).any()]
    if not drawn:
        return None
    lines = [line for _, line in drawn]
    low, high, cut = _limits(lines, limits, reference)
    begin = 0.0
    end = max(float(line.raw_x[-1]) for line in lines)
    steps_x, steps_y = nice_ticks(begin, max(end, 1.0), 6), nice_ticks(low, high, 5)
    low, high = min(low, steps_y[0]), max(high, steps_y[-1])
    x = Scale(begin, max(end, 1.0), LEFT, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [grid(_labelled(steps_x), _labelled(steps_y), x, y)]
    parts += [_mark(at, word, x) for at, word in marks if begin < at < end]
    if reference is not None and low <= reference[0] <= high:
        parts.append(_reference(reference, y))
    keys = []
    faint, strong = [], []
    for index, (one, line) in enumerate(drawn):
        colour, dash = index % len(COLOURS), _DASHES[index // len(COLOURS) % len(_DASHES)]
        stroke = f"stroke:var(--line-{colour},{COLOURS[colour]})"
        if line.smoothed:
            faint.append(
                f'<path class="raw" d="{_path(line.raw_x, line.raw_y, x, y)}" style="{stroke}"/>'
            )
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        strong.append(
            f'<path class="line" d="{_path(line.x, line.y, x, y)}" style="{stroke}"{dashes}/>'
        )
        if np.isfinite(line.y).sum() == 1:  # a single point has no length to be seen by
            at = np.flatnonzero(np.isfinite(line.y))[0]
            place = f'cx="{float(x(line.x[at])):.1f}" cy="{float(y(line.y[at])):.1f}"'
            strong.append(f'<circle {place} r="3.5" style="{stroke.replace("stroke", "fill")}"/>')
        finite = one.values[np.isfinite(one.values)]
        keys.append(Key(one.name, colour, format_value(float(finite[-1])), dash))
    frame = f'x="{LEFT}" y="0" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - BOTTOM + 1}"'
    # A nested <svg> clips without an id, of which a page with many charts would need many.
    body = (
        f'<svg {frame} viewBox="{LEFT} 0 {WIDTH - LEFT - RIGHT} {HEIGHT - BOTTOM + 1}">'
        f"{''.join(faint)}{''.join(strong)}</svg>"
    )
    data = (
        f'data-left="{LEFT}" data-right="{WIDTH - RIGHT}" data-top="{TOP}" '
        f'data-bottom="{HEIGHT - BOTTOM}" data-end="{max(end, 1.0):.10g}" '
        f'data-low="{low:.10g}" data-high="{high:.10g}"'
    )
    label = escape(f"{title}. {description}")
    # Not <title>: browsers show it as a tooltip over the read-out.
    svg = (
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" '
        f"{data}><desc>{escape(description)}</desc>{''.join(parts)}{body}"
        f'<line class="pointer" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
    )
    note = f"Peaks up to {format_value(cut)} are cut off." if cut is not None else ""
    return Chart(title, Markup(svg), tuple(keys), note)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (steps of 1, 2 or 5) that cover about `count` places within [low, high].

    Both ends of the list lie within the limits, or one step beyond at most.
    """
    span = high - low
    if not span > 0:
        low, span = low - 0.5, 1.0
    step = nice_step(span / count)
    first, last = math.ceil(low / step - 1e-9), math.floor((low + span) / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def nice_step(least: float) -> float:
    """The smallest of ..., 0.5, 1, 2, 5, 10, ... that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def format_value(value: float) -> str:
    """A value in three significant digits: `0.482`, `1.25`, `317`, `12.8k`."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    for limit, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= limit:
            return f"{value / divisor:.3g}{suffix}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 1e-3 or size == 0:
        decimals = 2 - math.floor(math.log10(size)) if size else 0
        return (
            f"{value:.{decimals}f}".rstrip("0").rstrip(".")
            if decimals > 3
            else (f"{value:.{decimals}f}")
        )
    return f"{value:.2g}"


def format_tick(value: float, step: float) -> str:
    """An axis label with as many decimals as the step needs: `0.25`, `10k`, `1.5M`."""
    for limit, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e3, "k")):
        # Below 10,000 in steps finer than thousands, plain digits read better.
        if abs(value) >= limit and (limit > 1e3 or abs(value) >= 1e4 or step >= 500):
            return f"{value / divisor:.10g}{suffix}"
    if step < 1e-4:
        return "0" if value == 0 else f"{value:.0e}"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}"


def _line(series: Series, smooth: bool) -> _Line:
    """At most POINTS points: the raw line keeps its peaks, the strong one is smoothed."""
    x, y = series.examples, series.values
    raw_x, raw_y = _peaks(x, y)
    if not smooth or len(x) < 24:
        mean_x, mean_y = _means(x, y)
        return _Line(raw_x, raw_y, mean_x, mean_y, smoothed=len(x) > POINTS)
    mean_x, mean_y = _means(x, y)
    return _Line(raw_x, raw_y, mean_x, _smoothed(mean_y), smoothed=True)


def _means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of equal shares of the points, not counting what is not finite."""
    if len(x) <= POINTS:
        return x, np.where(np.isfinite(y), y, np.nan)
    edges = np.linspace(0, len(x), POINTS + 1).astype(np.int64)[:-1]
    good = np.isfinite(y)
    counts = np.add.reduceat(good.astype(np.float64), edges)
    sums = np.add.reduceat(np.where(good, y, 0.0), edges)
    means = np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
    places = np.add.reduceat(x, edges) / np.diff(np.append(edges, len(x)))
    places[-1] = x[-1]
    return places, means


def _peaks(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest point of equal shares, in the order in which they came."""
    if len(x) <= POINTS:
        return x, np.where(np.isfinite(y), y, np.nan)
    chosen: list[int] = []
    for part in np.array_split(np.arange(len(x)), POINTS // 2):
        good = part[np.isfinite(y[part])]
        if len(good):
            chosen += sorted({int(good[y[good].argmin()]), int(good[y[good].argmax()])})
        else:
            chosen.append(int(part[0]))
    return x[chosen], np.where(np.isfinite(y[chosen]), y[chosen], np.nan)


def _smoothed(y: np.ndarray) -> np.ndarray:
    """A centred Gaussian mean over about a twentieth of the points; gaps stay gaps."""
    # A lone wild point must not bend the trend: each point first is the median of five around it.
    around = np.lib.stride_tricks.sliding_window_view(np.pad(y, 2, mode="edge"), 5)
    good = np.isfinite(y)
    y = np.where(good & np.isfinite(around).all(axis=1), np.median(around, axis=1), y)
    width = max(1.0, len(y) / 50)
    reach = math.ceil(3 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    # Dividing by the weights present keeps the ends from sagging towards zero.
    sums = np.convolve(np.where(good, y, 0.0), kernel)[reach : reach + len(y)]
    weights = np.convolve(good.astype(np.float64), kernel)[reach : reach + len(y)]
    return np.where(good, sums / np.maximum(weights, 1e-12), np.nan)


def _limits(
    lines: Sequence[_Line],
    wanted: tuple[float | None, float | None],
    reference: tuple[float, str] | None,
) -> tuple[float, float, float | None]:
    """Lowest and highest value of the axis, and the highest peak that is cut off, if any is."""
    raw = np.concatenate([line.raw_y[np.isfinite(line.raw_y)] for line in lines])
    main = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    bottom, top = float(raw.min()), float(raw.max())
    # A few wild points must not flatten everything else; the usual range is always shown.
    usual_low, usual_high = np.quantile(raw, (0.01, 0.99))
    low = min(float(main.min()), float(usual_low))
    high = max(float(main.max()), float(usual_high))
    if reference is not None:
        low, high = min(low, reference[0]), max(high, reference[0])
    room = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    near = 0.35 * (high - low)
    low = bottom if low - bottom <= near else low - room
    high = top if top - high <= near else high + room
    if wanted[0] is None and 0 <= low < 0.25 * high:
        low = 0.0  # an axis that nearly reaches zero had better show it
    low = low if wanted[0] is None else wanted[0]
    high = high if wanted[1] is None else wanted[1]
    if not high > low:
        low, high = low - room, high + room
    extremes = [value for value in (bottom, top) if not low <= value <= high]
    cut = max(extremes, key=abs) if extremes else None
    return low, high, cut


def _path(xs: np.ndarray, ys: np.ndarray, x: Scale, y: Scale) -> str:
    """SVG path data, broken where values are missing."""
    pieces: list[str] = []
    pen = "M"
    for at, value in zip(x(xs).tolist(), y(ys).tolist(), strict=True):
        if math.isfinite(value):
            # Far outside the frame, coordinates only need to be outside.
            pieces.append(f"{pen}{at:.1f} {min(max(value, -9999.0), 9999.0):.2f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(pieces)


def _labelled(steps: Sequence[float]) -> list[tuple[float, str]]:
    """Round numbers with their labels."""
    step = steps[1] - steps[0] if len(steps) > 1 else 1.0
    return [(value, format_tick(value, step)) for value in steps]


def grid(
    labels_x: Sequence[tuple[float, str]],
    labels_y: Sequence[tuple[float, str]],
    x: Scale,
    y: Scale,
) -> str:
    """Horizontal lines, and the labels of both axes.

    Args:
        labels_x, labels_y: places, as the scales have them, and their labels.
        x, y: the axes.
    """
    parts = []
    for value, label in labels_y:
        at = float(y(value))
        parts.append(
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{LEFT - 8}" y="{at:.1f}" dy="0.34em" text-anchor="end">'
            f"{escape(label)}</text>"
        )
    base = HEIGHT - BOTTOM
    for index, (value, label) in enumerate(labels_x):
        at = float(x(value))
        # Every second label can be hidden on a narrow screen.
        parts.append(
            f'<text class="tick{" odd" if index % 2 else ""}" x="{at:.1f}" y="{base + 12:.1f}" '
            f'dy="0.7em" text-anchor="{_anchor(at)}">{escape(label)}</text>'
        )
    return "".join(parts)


def _anchor(at: float) -> str:
    """Labels at the right edge end there, so that none is cut."""
    return "end" if at > WIDTH - RIGHT - 8 else "middle"


def _mark(at: float, word: str, x: Scale) -> str:
    place = float(x(at))
    left = place < 0.75 * WIDTH
    return (
        f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" '
        f'y2="{HEIGHT - BOTTOM}"/><text class="word" x="{place + (5 if left else -5):.1f}" '
        f'y="{TOP + 2}" dy="0.5em" text-anchor="{"start" if left else "end"}">'
        f"{escape(word)}</text>"
    )


def _reference(reference: tuple[float, str], y: Scale) -> str:
    at = float(y(reference[0]))
    return (
        f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" '
        f'y2="{at:.1f}"/><text class="word" x="{WIDTH - RIGHT - 4}" y="{at - 6:.1f}" '
        f'text-anchor="end">{escape(reference[1])}</text>'
    )
