"""Figures: names, provenance, files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from faussaire.core.errors import UserError
from faussaire.core.figures import (
    METRICS,
    Figure,
    Provenance,
    append_figures,
    choose_metrics,
    explain_differences,
    read_figures,
)

INCEPTION = Provenance(
    metric="fid",
    extractor="inception-2015",
    weights="6726825d0af5f729",
    resize="clean",
    count=50_000,
    reference="train",
    reference_count=60_000,
    reference_key="abc",
    pictures="32x32x3",
)


def figure(value: float = 12.5, examples: int = 1000, **changes: object) -> Figure:
    return Figure(
        provenance=dataclasses.replace(INCEPTION, **changes),  # pyright: ignore[reportArgumentType]
        value=value,
        real=2.0,
        real_counts="25000/25000",
        circumstances={"examples": examples, "seed": 0, "checkpoint": f"{examples:012d}"},
    )


def test_names_say_what_was_measured_and_how() -> None:
    assert INCEPTION.name == "fid[inception-2015,50000/train,clean]"
    part = dataclasses.replace(INCEPTION, metric="kid", whole=False, details="100x1000")
    assert part.name == "kid[inception-2015,50000/train:60000,clean,100x1000]"
    assert Provenance(metric="ms-ssim", count=10, details="2-scales").name == "ms-ssim[10,2-scales]"


def test_every_metric_explains_itself() -> None:
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.better in ("lower", "higher", "real")
        assert metric.reading.endswith(".")
        # Some measures of tables, music and sound are plain statistics that no paper has brought up.
        known = "arXiv" in metric.source or "doi" in metric.source
        assert known if metric.modality in ("pictures", "texts") else metric.source


def test_figures_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = dataclasses.replace(figure(), error=0.5, parts={"shoe": 3.0})
    append_figures(path, [first, figure(11.0, examples=2000)])
    append_figures(path, [figure(10.0, examples=3000)])
    assert read_figures(path) == [first, figure(11.0, examples=2000), figure(10.0, examples=3000)]
    assert json.loads(path.read_text().split("\n")[0])["name"] == first.name


def test_torn_lines_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_figures(path, [figure()])
    with path.open("a") as file:
        file.write('{"name": "fid[incep')  # killed while writing
    append_figures(path, [figure(11.0, examples=2000)])
    assert [one.value for one in read_figures(path)] == [12.5, 11.0]
    path.write_text(path.read_text() + "[]\nnull\n{}\n" + '{"metric": "fid"}\n')
    odd = figure(9.0).record() | {"extractor": ["a", "list"], "count": "many"}
    path.write_text(path.read_text() + json.dumps(odd) + "\n")
    assert len(read_figures(path)) == 2


def test_what_is_measured_again_replaces_what_was(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_figures(path, [figure(12.0), figure(13.0, examples=2000), figure(11.5)])
    assert [(one.examples, one.value) for one in read_figures(path)] == [(2000, 13.0), (1000, 11.5)]
    assert read_figures(tmp_path / "none.jsonl") == []


def test_infinite_figures_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_figures(tmp_path / "metrics.jsonl", [figure(float("nan"))])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_equal_provenance_compares_and_different_is_refused() -> None:
    assert figure(3.0).better_than(figure(4.0))
    with pytest.raises(UserError, match=r"the number of samples is 50000 and 10000\.") as caught:
        figure(3.0).better_than(figure(4.0, count=10_000))
    assert "fid[inception-2015,10000/train,clean]" in caught.value.cause
    other = dataclasses.replace(INCEPTION, weights="", reference_key="def")
    words = explain_differences(INCEPTION, other)
    assert words == (
        "the extractor's weights are 6726825d0af5f729 and none; "
        "the content of the reference is abc and def"
    )


@pytest.mark.parametrize(
    ("metric", "good", "bad"), [("kid", 0.1, 0.2), ("recall", 0.9, 0.2), ("ms-ssim", 2.1, 4.0)]
)
def test_better_is_told_by_the_metric(metric: str, good: float, bad: float) -> None:
    assert figure(good, metric=metric).better_than(figure(bad, metric=metric))


def test_metrics_are_chosen_by_name() -> None:
    assert choose_metrics(" FID, prdc,fid") == ("fid", "precision", "recall", "density", "coverage")
    assert choose_metrics("all") == tuple(METRICS)
    assert choose_metrics(["kid"]) == ("kid",)
    with pytest.raises(UserError, match=r"no metric .coverge.\. Did you mean .coverage."):
        choose_metrics("coverge")
    with pytest.raises(UserError, match="No metric was named"):
        choose_metrics(",")
