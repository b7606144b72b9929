"""Conditions, samples, and what is written: columns, types and ranges are the table's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.families import load_family
from faussaire.tables.material import encode_frame
from faussaire.tables.measures import associations, copies, kolmogorov, privacy, shapes
from faussaire.tables.model import TableModel
from faussaire.tables.modes import Mixture
from faussaire.tables.reading import read_frame
from faussaire.tables.scores import Plain, Task
from faussaire.tables.spec import TableSpec, uniform
from faussaire.tables.stream import ConditionStream
from faussaire.tables.where import asked_of_generator, parse_where
from tables.people import NAMES, write


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return encode_frame(read_frame(write(tmp_path_factory.mktemp("t") / "people.csv", 400)))


@pytest.fixture(params=["ctgan", "tvae"])
def model(request, material) -> TableModel:
    torch.manual_seed(0)
    kind = load_family(request.param)
    family = kind(kind.Config(latent=8, width=16), material.spec)
    for net in family.nets.values():
        net.eval()
    return TableModel(family, material.spec, 0, Device(name="cpu", precision="float32"))


def test_samples_have_the_columns_types_and_ranges_of_the_table(model, material, tmp_path):
    rows = model.sample(300, seed=1)
    assert rows.names == list(NAMES)
    rows.write(tmp_path / "made.csv")
    again = read_frame(tmp_path / "made.csv")
    assert again.names == NAMES
    for column in material.spec.columns:
        cells, real = again.column(column.name).values, material.frame.column(column.name).values
        if column.discrete or column.kind == "constant":
            assert {*cells} <= {*real}
        elif column.numeric:
            numbers = [column.read(cell) for cell in cells]
            known = [number for number in numbers if number == number]
            assert column.low <= min(known) <= max(known) <= column.high
    assert all(
        "." in cell and len(cell.split(".")[1]) == 1 for cell in rows.column("height") if cell
    )
    assert len({*rows.column("id")}) == 300


def test_a_row_depends_on_seed_and_place_alone(model):
    few, many = model.sample(20, seed=3), model.sample(60, seed=3)
    assert few.texts[1] == many.texts[1][:20]
    assert model.sample(20, seed=3, start=40).texts[1] == many.texts[1][40:]
    assert model.sample(20, seed=4).texts[1] != few.texts[1]


def test_conditions_hold_and_give_up_in_time(model):
    rows = model.sample(30, where="member=yes, age<60")
    assert {*rows.column("member")} == {"yes"}
    assert max(map(int, rows.column("age"))) < 60
    assert {*model.sample(5, where="height=?").column("height")} == {""}
    assert min(model.sample(5, where="joined>=2021-01-01").column("joined")) >= "2021-01-01"
    with pytest.raises(UserError, match="Of 20,000 rows that were drawn, 0 fulfil"):
        model.sample(5, where="age<18")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jub=judge", "no column 'jub'. Did you mean 'job'"),
        ("job=jugde", "never 'jugde'. Did you mean 'judge'"),
        ("job>judge", "neither more nor less"),
        ("age=old", "'old' is no number. 'age' lies between"),
        ("joined>now", "no date like"),
        ("country=FR", "always 'FR'"),
        ("id=P1", "is an ID"),
        ("age", "does not say what"),
        (" ", "asks for nothing"),
    ],
)
def test_conditions_that_mean_nothing_are_told(material, text, words):
    with pytest.raises(UserError, match=words):
        parse_where(text, material.spec)


def test_the_rarest_value_is_asked_of_the_generator(material):
    spec = material.spec
    place = asked_of_generator(parse_where("member=yes, job=judge, age>20", spec), spec)
    assert place == spec.place("job", "judge")
    assert asked_of_generator(parse_where("age>20, job!=judge", spec), spec) is None
    (clause,) = parse_where('"job=judge"', spec)
    assert (clause.sign, clause.text) == ("=", "judge")


def test_the_spec_survives_json(material):
    record = json.loads(json.dumps(dataclasses.asdict(material.spec)))
    assert TableSpec.of(record) == material.spec


def test_parquet_keeps_types(model, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    model.sample(50).write(tmp_path / "made.parquet")
    table = pq.read_table(tmp_path / "made.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert list(types) == list(NAMES)
    assert (types["age"], types["height"]) == ("int64", "double")
    assert types["joined"].startswith("timestamp")  # parquet has no seconds: milliseconds
    assert types["job"] == "string"


def test_the_stream_draws_rows_that_fulfil_conditions_by_log_frequency(material):
    spec = material.spec
    stream = ConditionStream(spec, material.alphas, material.places, seed=1)
    batch = stream.read(0, 20_000)
    condition, places = batch["condition"], batch["places"]
    offset = sum(spec.blocks) - spec.condition
    own = places[:, len(spec.numeric) :] + np.array(spec.starts[len(spec.numeric) :]) - offset
    assert (own == condition[:, None]).any(1).all()
    known = {row.tobytes() for row in np.ascontiguousarray(material.places)}
    assert all(row.tobytes() in known for row in np.ascontiguousarray(places[:500]))
    job = spec.discrete.index(next(c for c in spec.discrete if c.name == "job"))
    start = spec.starts[len(spec.numeric) + job] - offset
    drawn = np.bincount(condition, minlength=spec.condition)[start : start + 3]
    counts = np.bincount(material.places[:, len(spec.numeric) + job], minlength=3)
    wanted = np.log1p(counts) / np.log1p(counts).sum()
    np.testing.assert_allclose(drawn / drawn.sum(), wanted, atol=0.03)
    np.testing.assert_allclose(drawn.sum() / 20_000, 1 / len(spec.discrete), atol=0.02)


def test_the_stream_is_a_function_of_the_position(material):
    spec, fields = material.spec, (material.alphas, material.places)
    one = ConditionStream(spec, *fields, seed=1)
    halves = [ConditionStream(spec, *fields, seed=1, rank=rank, world=2) for rank in range(2)]
    whole = one.read(64, 32)
    for name, field in whole.items():
        parts = [half.read(64, 32)[name] for half in halves]
        np.testing.assert_array_equal(np.concatenate(parts), field)
        np.testing.assert_array_equal(one.read(80, 16)[name], field[16:])
    assert not np.array_equal(
        whole["condition"], ConditionStream(spec, *fields, seed=2).read(64, 32)["condition"]
    )


def test_draws_are_uniform_and_apart():
    one, two = uniform(1, 0, np.arange(20_000)), uniform(1, 1, np.arange(20_000))
    assert 0.0 <= one.min() < one.max() < 1.0
    assert abs(one.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03


def test_the_mixture_finds_modes():
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(-1.5, 0.1, 3000), rng.normal(1.0, 0.3, 6000)])
    y = np.sort((y - y.mean()) / y.std())
    found = Mixture.fit(y, np.ones(len(y)), 10)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-6)
    low = found.weights[found.means < -0.5].sum()
    assert low == pytest.approx(1 / 3, abs=0.02)


def test_measures_tell_alike_from_unlike(material):
    spec = material.spec
    every = Plain.of(spec, material.alphas, material.places)
    one, two = every.take(np.arange(0, 200)), every.take(np.arange(200, 400))
    alike = np.mean([shape.value for shape in shapes(spec, one, two)])
    moved = Plain(two.numbers + 50.0, np.zeros_like(two.codes))
    assert alike < 0.2 < np.mean([shape.value for shape in shapes(spec, one, moved)])
    assert kolmogorov(np.arange(5.0), np.arange(5.0)) == 0.0
    assert kolmogorov(np.zeros(3), np.ones(3)) == 1.0
    assert copies(one, every) == 1.0
    assert copies(moved, every) == 0.0
    by_heart = privacy(spec, one, two, one)
    assert by_heart.trained == 0.0
    assert by_heart.nearer > 0.9
    assert privacy(spec, one, two, one.shuffled()).nearer < 0.7
    apart = associations(spec, every.shuffled())
    assert np.abs(associations(spec, every)).mean() > np.abs(apart).mean()


def test_scores_of_real_rows_are_above_those_of_shuffled_ones(tmp_path):
    pytest.importorskip("sklearn")
    lines = ["x,y"] + [f"{i % 97 / 10},{'big' if i % 97 > 60 else 'small'}" for i in range(600)]
    path = Path(tmp_path / "t.csv")
    path.write_text("\n".join(lines))
    material = encode_frame(read_frame(path))
    every = Plain.of(material.spec, material.alphas, material.places)
    train, test = every.take(np.arange(400)), every.take(np.arange(400, 600))
    task = Task(material.spec, "y", train)
    real = task.score(train, test, "linear")
    assert real.f1 > 0.9
    assert real.auc > 0.99
    assert task.score(train.shuffled(), test, "linear").f1 < 0.7
    number = Task(material.spec, "x", train)
    assert number.score(train, test, "linear").accuracy > 0.4
