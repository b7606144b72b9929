import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from faussaire.report.curves import (
    POINTS,
    Chart,
    format_tick,
    format_value,
    line_chart,
    nice_step,
    nice_ticks,
)
from faussaire.report.history import Series


def series(values: np.ndarray | list[float], name: str = "loss") -> Series:
    values = np.asarray(values, dtype=np.float64)
    x = np.arange(1, len(values) + 1) * 100.0
    return Series(name, x, x / 50, values)


def chart(*lines: Series, **how: object) -> Chart:
    made = line_chart(lines, title="Title", description="How to read it.", **how)  # type: ignore[arg-type]
    assert made is not None
    return made


def paths(made: Chart, kind: str) -> list[str]:
    tree = ET.fromstring(str(made.svg))
    return [path.attrib["d"] for path in tree.iter("path") if path.attrib["class"] == kind]


def test_ticks_are_round_numbers_within_the_limits() -> None:
    assert nice_ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(0, 450_000, 6) == [0, 100_000, 200_000, 300_000, 400_000]
    assert nice_ticks(-0.3, 2.1, 5) == [0, 0.5, 1.0, 1.5, 2.0]
    assert len(nice_ticks(3, 3, 5)) > 1
    assert nice_step(0.11) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(10_000, 10_000, "10k"), (2500, 500, "2.5k"), (1500, 100, "1500"), (1.5e6, 5e5, "1.5M"),
     (0.25, 0.05, "0.25"), (0, 0.2, "0.0"), (-0.4, 0.2, "-0.4"), (0, 10_000, "0")],
)  # fmt: skip
def test_axis_labels(value: float, step: float, text: str) -> None:
    assert format_tick(value, step) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4821, "0.482"), (1.25, "1.25"), (317.2, "317"), (12_840, "12.8k"), (0, "0"),
     (0.0002, "0.0002"), (-0.5, "-0.500"), (2.5e6, "2.5M"), (float("nan"), "nan")],
)  # fmt: skip
def test_values(value: float, text: str) -> None:
    assert format_value(value) == text


def test_a_long_noisy_series_is_thinned_and_smoothed_and_keeps_its_peaks() -> None:
    generator = np.random.default_rng(0)
    values = 1 + 0.1 * generator.normal(size=100_000)
    values[54_321] = 1.9
    made = chart(series(values))
    (raw,), (line,) = paths(made, "raw"), paths(made, "line")
    assert len(re.findall("[ML]", raw)) <= POINTS
    assert len(re.findall("[ML]", line)) <= POINTS
    heights = [float(point.split()[1]) for point in re.findall(r"[ML]([^ML]+)", line)]
    raw_heights = [float(point.split()[1]) for point in re.findall(r"[ML]([^ML]+)", raw)]
    assert np.ptp(heights) < 0.2 * np.ptp(raw_heights)
    assert len(str(made.svg)) < 40_000


def test_wild_points_are_cut_off_and_said_so() -> None:
    values = np.ones(500)
    values[::2] = 1.2
    values[250] = 1e6
    made = chart(series(values))
    assert "1M" in made.note
    low, high = (
        float(re.search(rf'data-{name}="([^"]+)"', str(made.svg))[1])  # type: ignore[index]
        for name in ("low", "high")
    )
    assert high < 2
    assert low <= 1
    assert not chart(series([1.0, 2.0, 3.0])).note


def test_values_that_are_not_finite_leave_gaps() -> None:
    made = chart(series([1.0, float("nan"), 2.0, 3.0, float("inf"), 1.0]))
    (line,) = paths(made, "line")
    assert line.count("M") == 3
    nothing = line_chart([series([float("nan")])], title="", description="")
    assert nothing is None
    assert line_chart([], title="", description="") is None


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [-3.0, -3.0], [1e-9, 2e-9], [-1e12, 1e12]])
def test_odd_ranges_draw(values: list[float]) -> None:
    made = chart(series(values))
    assert "nan" not in str(made.svg)
    assert len(made.keys) == 1


def test_reference_marks_and_many_lines() -> None:
    lines = [series(np.linspace(index, index + 1, 30), f"line {index}") for index in range(8)]
    made = chart(*lines, reference=(0.5, "balance"), marks=[(1500, "second stage")])
    text = str(made.svg)
    assert "balance" in text
    assert "second stage" in text
    assert len({(key.colour, key.dash) for key in made.keys}) == 8


def test_names_are_escaped_and_the_drawing_is_described() -> None:
    made = line_chart(
        [series([1.0, 2.0], "<b>")],
        title='"><script>',
        description="a & b",
        marks=[(150, "<i>stage</i>")],
    )
    assert made is not None
    tree = ET.fromstring(str(made.svg))  # well-formed, so nothing broke out
    assert not list(tree.iter("script"))
    assert tree.attrib["aria-label"].startswith('"><script>')
    assert tree.attrib["role"] == "img"
    assert next(iter(tree.iter("desc"))).text == "a & b"
