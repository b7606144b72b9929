"""Quantities, settings, schedules: what people write and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from faussaire.core.clock import Clock
from faussaire.core.config import read_yaml, resolve, sections, write_yaml
from faussaire.core.errors import UserError
from faussaire.core.quantity import (
    format_count,
    format_duration,
    format_resolution,
    parse_count,
    parse_duration,
    parse_resolution,
)
from faussaire.core.run import Run
from faussaire.core.schedule import constant, cosine, linear
from faussaire.families import describe, load_family, names


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("640", 640),
        ("200k", 200_000),
        ("1.5M", 1_500_000),
        ("1_000", 1000),
        (64, 64),
        (" 2 k", 2000),
    ],
)
def test_counts(text, value):
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "k", "-5", "0", "1.5.2k", "ten", "5 kk"])
def test_no_counts(text):
    with pytest.raises(UserError, match="not a number of examples"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), (5, 5)],
)
def test_durations(text, value):
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "0", "-3m", "10 parsecs", "m"])
def test_no_durations(text):
    with pytest.raises(UserError, match="not a length of time"):
        parse_duration(text)


def test_resolutions_are_width_by_height_in_text_and_height_first_inside():
    assert parse_resolution("128x96") == (96, 128)
    assert parse_resolution("64") == (64, 64)
    assert parse_resolution(format_resolution(96, 128)) == (96, 128)
    for wrong in ("0", "64x", "axb", "-4"):
        with pytest.raises(UserError, match="not a resolution"):
            parse_resolution(wrong)


def test_formats():
    assert [format_count(n) for n in (7, 640, 12_800, 1_500_000)] == ["7", "640", "12.8k", "1.5M"]
    assert [format_duration(s) for s in (4.25, 75, 7900, 2e5)] == [
        "4.2s",
        "1m15s",
        "2h11m",
        "2d07h",
    ]


@dataclass(frozen=True, kw_only=True)
class Model:
    lr: float = 2e-4
    width: int = 64
    loss: Literal["soft", "hard"] = "soft"


def settings(*layers):
    return resolve("dcgan", "photos", Model, *layers)


def test_later_layers_win_and_values_take_their_type():
    found = settings({"batch": 32, "lr": "3e-4"}, {"batch": 16, "resolution": "128x96"})
    assert found.training.batch == 16
    assert found.model.lr == 3e-4
    assert found.data.resolution == (96, 128)
    assert settings({"compile": True}).training.compile == "on"  # YAML's `on`
    assert settings({"labels": "x.csv"}).data.labels == Path("x.csv")


def test_a_budget_on_top_replaces_the_other_kind_below():
    found = settings({"examples": "200k"}, {"for": "10m"})
    assert (found.training.examples, found.training.duration) == (None, 600.0)
    found = settings({"for": "10m"}, {"examples": 5000, "for": None})
    assert (found.training.examples, found.training.duration) == (5000, None)
    with pytest.raises(UserError, match="Both"):
        settings({"examples": "200k", "for": "10m"})


def test_flat_values_survive_yaml(tmp_path):
    found = settings({"for": "10m", "resolution": "32x16", "half-life": "10k", "labels": "l.csv"})
    flat = found.flat()
    (tmp_path / "c.yaml").write_text(write_yaml(flat))
    read = read_yaml(tmp_path / "c.yaml")
    assert resolve(read["family"], read["source"], Model, read) == found


def test_a_run_gives_its_settings_only_to_its_own_family(tmp_path):
    run = Run(tmp_path)
    assert run.config_of("dcgan") == {}
    run.write_config({"family": "classic", "batch": 16})
    assert run.config_of("classic")["batch"] == 16
    with pytest.raises(UserError, match="trains classic, not dcgan"):
        run.config_of("dcgan")


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"bacth": 3}, "Did you mean 'batch'"),
        ({"batch": "many"}, "batch cannot be"),
        ({"batch": 1.5}, "batch cannot be"),
        ({"batch": 0}, "at least 1"),
        ({"loss": "sotf"}, "Did you mean 'soft'"),
        ({"flip": "yes"}, "flip cannot be"),
        ({"batch": None}, "batch cannot be"),
        ({"lr": [1]}, "lr cannot be"),
        ({"margin": 1.5}, "margin cannot be 1.5"),
        ({"margin": -0.1}, "margin cannot be -0.1"),
    ],
)
def test_wrong_settings_are_sentences(layer, says):
    with pytest.raises(UserError, match=says):
        settings(layer)


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "3: 4", "just words"])
def test_wrong_files_are_sentences(content, tmp_path):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserError, match=r"c\.yaml"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", names())
def test_families_share_one_namespace_without_clashes(name):
    keys = [key for kind in sections(load_family(name).Config).values() for key in fields(kind)]
    assert len(keys) == len(set(keys)), "a setting of the family shadows one of the engine"
    assert set(describe(name).fields) == set(fields(load_family(name).Config))
    for preset in load_family(name).presets.values():
        resolve(name, "photos", load_family(name).Config, preset)


def fields(kind: type) -> list[str]:
    return list(kind.__dataclass_fields__)


def test_schedules_are_functions_of_the_clock_alone():
    def at(examples: int) -> Clock:
        return Clock(examples=examples, total=1000)

    assert constant(3.0)(at(0)) == constant(3.0)(at(999)) == 3.0
    decay = linear(1.0, 0.0, begin=0.5)
    assert [decay(at(n)) for n in (0, 500, 750, 1000, 2000)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    warm = cosine(2.0, 1.0, examples=100)
    assert warm(at(0)) == 2.0
    assert warm(at(50)) == pytest.approx(1.5)
    assert warm(at(100)) == warm(at(900)) == 1.0


def test_quantities_are_written_as_people_write_them():
    flat = settings({"for": "10m", "resolution": "128x96", "examples": None}).flat()
    assert flat["for"] == "600s"
    assert flat["resolution"] == "128x96"
    assert flat["save_every"] == "120s"
