"""Dots as inline SVG: one quantity against another, of which either may be drawn by factors (log)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from faussaire.report.curves import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Scale,
    format_tick,
    grid,
    nice_ticks,
)


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low, high: its ends.
        log: equal distances are equal factors.
        words: names of the places 0, 1, 2 ...; the ends are then not used.
    """

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    words: tuple[str, ...] = ()

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """An axis that shows all of these, by factors where they differ more than tenfold."""
        low, high = min(values), max(values)
        if low > 0 and high > 10 * low:
            return cls(low / 1.15, high * 1.15, log=True)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
        return cls(0.0 if 0 <= low < 0.25 * high else low - room, high + room)

    def place(self, value: float) -> float:
        """Where a value lies, as `scale` counts."""
        return math.log10(value) if self.log else value

    def scale(self, start: float, end: float) -> Scale:
        """Places to drawing units."""
        if self.words:
            return Scale(-0.5, len(self.words) - 0.5, start, end)
        return Scale(self.place(self.low), self.place(self.high), start, end)

    def labels(self, count: int) -> list[tuple[float, str]]:
        """About `count` places and their labels."""
        if self.words:
            return [(float(place), word) for place, word in enumerate(self.words)]
        if self.log:
            return [(math.log10(value), _short(value)) for value in self._factors(count)]
        steps = nice_ticks(self.low, self.high, count)
        inside = [value for value in steps if self.low <= value <= self.high]
        step = steps[1] - steps[0] if len(steps) > 1 else 1.0
        return [(value, format_tick(value, step)) for value in inside]

    def _factors(self, count: int) -> list[float]:
        """1, 2 and 5 times powers of ten within the axis; powers alone where these are enough."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found: list[float] = []
        for mantissas in ((1,), (1, 3), (1, 2, 5)):
            every = [m * 10.0**power for power in range(first, last + 1) for m in mantissas]
            more = [v for v in every if self.low * 0.999 <= v <= self.high * 1.001]
            if found and len(more) > count + 1:
                break
            found = more
        return found


def _short(value: float) -> str:
    """`2e-5`, `0.03`, `500`."""
    return f"{value:.0e}".replace("e-0", "e-") if value < 1e-2 else f"{value:g}"


@dataclass(frozen=True)
class Dot:
    """One thing in a chart.

    Attributes:
        x, y: its values; x is a number of a word where the axis has words.
        words: what the reader is told who points at it.
        colour: its number.
        hollow: a ring in place of a disc.
    """

    x: float
    y: float
    words: str = ""
    colour: int = 0
    hollow: bool = False


def scatter_chart(
    dots: Sequence[Dot],
    *,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    steps: Sequence[tuple[float, float]] = (),
) -> Chart | None:
    """Dots over two axes.

    Args:
        dots: drawn in their order, the last on top.
        title, description: for people, and for programs that read pages aloud.
        x, y: the axes.
        steps: a line through these points that stays until it jumps.

    Returns:
        The chart, or None without dots.
    """
    if not dots:
        return None
    across, up = x.scale(LEFT + 8, WIDTH - RIGHT - 8), y.scale(HEIGHT - BOTTOM, TOP)
    parts = [grid(x.labels(6), y.labels(5), across, up)]
    if steps:
        path = ""
        for at, value in steps:
            place, height = float(across(x.place(at))), float(up(y.place(value)))
            path += f"H{place:.1f}V{height:.2f}" if path else f"M{place:.1f} {height:.2f}"
        parts.append(f'<path class="line" d="{path}" style="{_paint("stroke", 1)}"/>')
    for index, dot in enumerate(dots):
        # Dots over one word would hide each other.
        aside = 0.5 * ((0.618 * index) % 1.0 - 0.5) if x.words else 0.0
        place, height = float(across(x.place(dot.x) + aside)), float(up(y.place(dot.y)))
        paint = f"{_paint('stroke', dot.colour)};stroke-width:1.8;fill:var(--card,#fff)"
        if not dot.hollow:
            paint = f"{_paint('fill', dot.colour)};stroke:var(--card,#fff);stroke-width:1"
        parts.append(
            f'<circle cx="{place:.1f}" cy="{height:.1f}" r="5" style="{paint}">'
            f"<title>{escape(dot.words)}</title></circle>"
        )
    label = escape(f"{title}. {description}")
    svg = (
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}">'
        f"<desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
    return Chart(title, Markup(svg), ())


def _paint(what: str, colour: int) -> str:
    colour %= len(COLOURS)
    return f"{what}:var(--line-{colour},{COLOURS[colour]})"
