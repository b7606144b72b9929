"""Drawings of real beside synthetic columns, as SVG that takes its colours from the page."""

from __future__ import annotations

from html import escape

import numpy as np

from faussaire.tables.scores import Plain
from faussaire.tables.spec import Column, TableSpec

_WIDE, _HIGH, _ACROSS = 230, 130, 4
_BARS = 12
_REAL, _MADE = "#8a94a6", "#d9662b"


def columns_svg(spec: TableSpec, real: Plain, made: Plain) -> str:
    """A small chart for each learnt column: shares of real rows in grey, of synthetic ones in orange."""
    cells = []
    for index, column in enumerate(spec.numeric):
        cells.append(_numbers(column, real.numbers[:, index], made.numbers[:, index]))
    for index, column in enumerate(spec.discrete):
        cells.append(_categories(column, real.codes[:, index], made.codes[:, index]))
    rows = -(-len(cells) // _ACROSS)
    placed = "".join(
        f'<g transform="translate({at % _ACROSS * _WIDE},{at // _ACROSS * _HIGH})">{cell}</g>'
        for at, cell in enumerate(cells)
    )
    return _svg(_ACROSS * _WIDE, rows * _HIGH, placed)


def associations_svg(spec: TableSpec, real: np.ndarray, made: np.ndarray) -> str:
    """Three squares: how much pairs of columns have to do with each other, really, made, difference."""
    names = [column.name for column in (*spec.numeric, *spec.discrete)]
    size = max(8, min(18, 300 // len(names)))
    side, left, top = size * len(names), 130, 24
    parts = []
    for at, (title, values, colour) in enumerate(
        (("real", real, _REAL), ("synthetic", made, _MADE), ("difference", real - made, "#b3261e"))
    ):
        x0 = left + at * (side + 24)
        parts.append(_text(x0, top - 8, title))
        for i in range(len(names)):
            for j in range(len(names)):
                shade = min(1.0, abs(float(values[i, j])))
                parts.append(
                    f'<rect x="{x0 + j * size}" y="{top + i * size}" width="{size - 1}" '
                    f'height="{size - 1}" fill="{colour}" fill-opacity="{shade:.2f}">'
                    f"<title>{escape(names[i])}, {escape(names[j])}: {values[i, j]:.2f}</title></rect>"
                )
    for i, name in enumerate(names):
        parts.append(_text(left - 6, top + i * size + size - 3, name[:20], "end"))
    return _svg(left + 3 * (side + 24), top + side + 8, "".join(parts))


def _numbers(column: Column, real: np.ndarray, made: np.ndarray) -> str:
    real, made = real[~np.isnan(real)], made[~np.isnan(made)]
    if not len(real):
        return ""
    low, high = np.quantile(real, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1.0, _BARS + 1)
    shares = [
        np.histogram(np.clip(x, low, edges[-1]), edges)[0] / max(1, len(x)) for x in (real, made)
    ]
    first, last = column.written(np.array([low, high]))
    return _bars(column.name, shares, [first] + [""] * (_BARS - 2) + [last])


def _categories(column: Column, real: np.ndarray, made: np.ndarray) -> str:
    places = column.places
    shares = [np.bincount(codes, minlength=places) / max(1, len(codes)) for codes in (real, made)]
    names = [*column.values, *(["others"] if column.rare else [])]
    order = np.argsort(-shares[0], kind="stable")[:_BARS]
    shown = [share[order] for share in shares]
    labels = [names[place] if len(order) <= 3 else "" for place in order]
    if len(order) > 3:
        labels[0] = names[order[0]]
    return _bars(column.name, shown, labels)


def _bars(title: str, shares: list[np.ndarray], labels: list[str]) -> str:
    count, tall, wide = len(labels), _HIGH - 50, _WIDE - 20
    step, most = wide / count, max(1e-9, max(float(one.max()) for one in shares))
    parts = [_text(0, 14, title[:32])]
    for which, colour in enumerate((_REAL, _MADE)):
        for at, share in enumerate(shares[which]):
            height = tall * float(share) / most
            x = at * step + which * step * 0.42
            parts.append(
                f'<rect x="{x:.1f}" y="{22 + tall - height:.1f}" width="{step * 0.4:.1f}" '
                f'height="{height:.1f}" fill="{colour}"><title>{share:.1%}</title></rect>'
            )
    for at, label in enumerate(labels):
        anchor = "end" if at == count - 1 and count > 3 else "start"
        x = wide if anchor == "end" else at * step
        parts.append(_text(x, _HIGH - 14, label[:14], anchor))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="currentColor">{content}</svg>'
    )
