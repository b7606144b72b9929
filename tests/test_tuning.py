"""The search for settings, on a trainer that takes milliseconds; the real one is in tests/cli."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.commands import environment
from faussaire import families
from faussaire.core.config import Settings, resolve
from faussaire.core.errors import UserError
from faussaire.core.figures import Figure, Provenance
from faussaire.core.quantity import format_plain
from faussaire.families import load_family
from faussaire.tuning import Found, Plan, require_optuna, tune
from faussaire.tuning.space import Dimension, Space, parse_space, usual_space
from faussaire.tuning.training import Lines, _verdict

TRAINER = Path(__file__).with_name("tuning_trainer.py")
TRIAL = {"examples": 1000, "extractor": "pixels"}


def trainer(run: Path, config: Path) -> list[str]:
    return [sys.executable, str(TRAINER), str(run), str(config)]


def settings(family: str = "dcgan", **given: Any) -> Settings:
    kind = load_family(family)
    return resolve(family, "digits", kind.Config, kind.training, given)


def make_plan(out: Path, *words: str, trials: int = 4, **how: Any) -> Plan:
    mine = settings(**{**TRIAL, **how.pop("given", {})})
    return Plan(settings=mine, space=parse_space(words, mine), out=out, trials=trials, **how)


def search(out: Path, *words: str, **how: Any) -> tuple[Found, list[str]]:
    told: list[str] = []
    return tune(make_plan(out, *words, **how), told=told.append, command=trainer), told


def rows(found: Found) -> dict[int, Any]:
    return {row.number: row for row in found.rows}


# ---- The space ----


def test_the_space_is_read_as_it_is_written() -> None:
    words = [
        *("lr=1e-5..1e-2", "beta2=0.9..0.99", "batch=16,32,64", "width=8..64", "half-life=1k,10k"),
        *("discriminator_lr/lr=0.25..4", "loss=hinge,nonsaturating", "flip=true,false"),
    ]
    space = parse_space(words, settings())
    found = {one.name: one for one in space.dimensions}
    assert found["lr"] == Dimension(name="lr", low=1e-5, high=1e-2)
    assert found["lr"].log
    assert not found["beta2"].log, "ends less than 10 times apart"
    assert found["batch"].choices == (16, 32, 64)
    assert found["width"].whole
    assert found["half_life"].choices == (1000, 10_000)
    assert found["loss"].choices == ("hinge", "nonsaturating")
    assert found["flip"].choices == (True, False)
    written = [f"{name}={text}" for name, text in space.text().items()]
    assert parse_space(written, settings()) == space


def test_ratios_become_settings() -> None:
    space = parse_space(["lr=1e-4..1e-2", "discriminator_lr/lr=0.25..4"], settings())
    flat = settings().flat()
    assert space.start(flat) == {"lr": 2e-4, "discriminator_lr/lr": 1.0}
    found = space.settings({"lr": 1.23456e-3, "discriminator_lr/lr": 2.0}, flat)
    assert found == {"lr": 1.235e-3, "discriminator_lr": 2.469e-3}
    alone = parse_space(["discriminator_lr/lr=0.25..4"], settings())
    assert alone.settings({"discriminator_lr/lr": 2.0}, flat) == {"discriminator_lr": 4e-4}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("lr", "cannot read 'lr'.* Write it as lr="),
        ("lr=", "cannot read 'lr='"),
        ("learning_rat=1e-5..1e-2", "no setting 'learning_rat' for dcgan"),
        ("bata1=0,0.5", "Did you mean 'beta1'"),
        ("loss=a..b", "loss is no number, so it has no range"),
        ("loss=hinge,hunge", "loss cannot be 'hunge'. Did you mean 'hinge'"),
        ("augment_policy=color,cutout", "neither a number nor one of a few words"),
        ("lr=1e-2..1e-5", "cannot go from 1e-2 to 1e-5"),
        ("lr=..1e-5", "lr cannot be ''"),
        ("lr=1e-4", "one value only.*--lr 1e-4"),
        ("lr=1e-4,x", "lr cannot be 'x'"),
        ("batch=16.5,32", "batch cannot be '16.5'"),
        ("beta1=0.1..2", "beta1 cannot be 2"),
        ("examples=1k,2k", "examples cannot be searched"),
        ("resolution=32,64", "resolution cannot be searched"),
        ("evaluate_count=1k,2k", "Trials must agree"),
        ("batch/lr=1..2", "no ratio of two rates"),
        ("lr/beta1/beta2=1..2", "no ratio"),
    ],
)
def test_what_cannot_be_searched_is_told(word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_space([word], settings())


def test_a_setting_is_searched_once() -> None:
    with pytest.raises(UserError, match="names discriminator_lr twice"):
        parse_space(["discriminator_lr=1e-5..1e-3", "discriminator_lr/lr=1..4"], settings())


@pytest.mark.parametrize("family", families.names())
def test_every_family_has_a_space_that_begins_at_its_own_settings(family: str) -> None:
    mine = settings(family)
    flat = mine.flat()
    space = usual_space(mine, (), pictures=60_000)
    names = [one.name for one in space.dimensions]
    assert {"lr", "batch"} <= {*names}
    assert ("beta1" in names) == ("beta1" in flat)
    assert "augment" not in names, "there are enough pictures"
    assert space.outside(flat) == []
    begun = space.settings(space.start(flat), flat)
    meant = {**flat, "discriminator_lr": flat.get("discriminator_lr") or flat["lr"]}
    assert begun == {name: meant[name] for name in begun}
    rate = next(one for one in space.dimensions if one.name == "lr")
    assert rate.log
    assert rate.high / rate.low == pytest.approx(64, rel=0.02)


def test_the_space_is_what_the_game_plays_with() -> None:
    def names(
        family: str, given: tuple[str, ...] = (), pictures: int = 9999, **own: Any
    ) -> set[str]:
        space = usual_space(settings(family, **own), given, pictures)
        return {one.name for one in space.dimensions}

    assert "r1" in names("stylegan2")
    assert "r1" not in names("dcgan")
    assert "r1" in names("dcgan", r1=1.0)
    assert {"gamma_factor", "lr_end/lr"} <= names("r3gan")
    assert "gradient_penalty" in names("dcgan", loss="wasserstein", gradient_penalty=10.0)
    assert "critic_steps" in names("dcgan", critic_steps=5)
    assert "critic_steps" not in names("dcgan")
    assert "augment" in names("dcgan", pictures=4999)
    assert {"lr", "batch"}.isdisjoint(names("dcgan", given=("lr", "batch")))
    with pytest.raises(UserError, match="Nothing is left to search"):
        names("classic", given=("lr", "beta1", "batch"))


def test_the_ends_of_a_range() -> None:
    rate = Dimension(name="lr", low=2.5e-5, high=1.6e-3)
    assert [rate.edge(value) for value in (2.6e-5, 2e-4, 1.43e-3)] == [True, False, True]
    assert not Dimension(name="batch", choices=(16, 32)).edge(16)


def test_the_nearest_value() -> None:
    assert Dimension(name="lr", low=1e-3, high=1e-2).nearest(2e-4) == 1e-3
    assert Dimension(name="lr", low=1e-4, high=1e-2).nearest(None) == pytest.approx(1e-3)
    assert Dimension(name="batch", choices=(16, 32)).nearest(64) == 32
    assert Dimension(name="loss", choices=("hinge", "minimax")).nearest("wasserstein") == "hinge"
    assert Dimension(name="width", low=8, high=64, whole=True).nearest(None) == 36


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((2e-4, "2e-4"), (2.4999e-5, "2.5e-5"), (0.5, "0.5"), (0.99, "0.99"), (64, "64")),
        *((1.0, "1"), (0.0, "0"), (None, "none"), (True, "true"), ("hinge", "hinge")),
        *((123_456.0, "123456"), (-3e-7, "-3e-7")),
    ],
)
def test_values_read_well(value: object, text: str) -> None:
    assert format_plain(value) == text


# ---- The plan ----


def test_measurements_serve_the_comparison_that_they_are_near_to(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "lr=1e-4..1e-2")
    assert [plan.rung(examples, 0.0) for examples in (100, 180, 200, 560, 900, 1000)] == [
        *(0, 1, 1, 3, 4, 5)
    ]
    timed = dataclasses.replace(
        plan.settings,
        training=dataclasses.replace(plan.settings.training, examples=None, duration=20),
    )
    plan = dataclasses.replace(plan, settings=timed)
    assert plan.share(10, 5.0) == 0.25
    assert plan.interval(per_second=100.0) == 400


def test_the_direction_is_the_metric_s(tmp_path: Path) -> None:
    def objective(metric: str, value: float) -> tuple[str, float]:
        plan = make_plan(tmp_path, "lr=1e-4..1e-2", given={"evaluate_metrics": metric})
        figure = Figure(provenance=Provenance(metric=metric), value=value, real=0.5)
        return plan.direction, plan.objective(figure)

    assert objective("fid", 12.0) == ("minimize", 12.0)
    assert objective("recall", 0.3) == ("maximize", 0.3)
    assert objective("authenticity", 0.3) == ("minimize", pytest.approx(0.2))


# ---- What the doctor says ----


@pytest.mark.parametrize(
    ("name", "ill", "confidence", "ends"),
    [
        *(("collapse", True, 0.9, True), ("diverging", True, 0.95, True)),
        *(
            ("discriminator too weak", True, 1.0, True),
            ("discriminator-too-strong", True, 1.0, True),
        ),
        *(("collapse", True, 0.89, False), ("collapse", False, 0.99, False)),
        *(("overfitting", True, 0.99, False), ("collapse", True, None, False)),
    ],
)
def test_which_verdicts_end_a_trial(name: str, ill: bool, confidence: Any, ends: bool) -> None:
    event = {"event": "diagnosed", "name": name, "ill": ill, "confidence": confidence}
    assert bool(_verdict(event)) == ends


def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = Lines(path)
    assert lines.read() == []
    path.write_bytes(b'{"event": "a"}\nnonsense\n{"eve')
    assert lines.read() == [{"event": "a"}]
    with path.open("ab") as file:
        file.write(b'nt": "b"}\n[1]\n')
    assert lines.read() == [{"event": "b"}]
    assert lines.read() == []


# ---- The search ----

optuna = pytest.importorskip("optuna")


def test_a_search_begins_with_what_it_is_measured_against(tmp_path: Path) -> None:
    found, told = search(tmp_path / "s", "lr=1e-5..1e-1", "batch=32,64", trials=4)
    first = yaml.safe_load((tmp_path / "s/trials/0000.yaml").read_text())
    assert (first["lr"], first["batch"]) == (2e-4, 64)
    assert first["seed"] == 0
    assert first["evaluate_every"] == 200
    assert found.start is rows(found)[0]
    assert [row.state for row in found.rows] == ["complete"] * 4
    values = [row.value or 0.0 for row in found.rows]
    assert values == sorted(values)
    assert found.figure == "fid[pixels,100/train]"
    assert found.rows[0].course[-1][0] == 1.0
    assert "without a search" in told[0]
    again, _ = search(tmp_path / "t", "lr=1e-5..1e-1", "batch=32,64", trials=4)
    assert [row.point for row in again.rows] == [row.point for row in found.rows], "seeded"
    best = yaml.safe_load((tmp_path / "s/best.yaml").read_text())
    assert found.best is not None
    assert best["lr"] == found.best.settings["lr"]
    assert "examples" not in best
    assert "evaluate_metrics" not in best


def test_what_lies_behind_is_pruned(tmp_path: Path) -> None:
    found, _ = search(tmp_path / "s", "lr=1e-9..1e-3", trials=12)
    states = [row.state for row in found.rows]
    assert states.count("pruned") >= 2
    for row in found.rows:
        if row.state == "pruned":
            assert "of its budget, where the median of" in row.reason
            assert "after 20%" not in row.reason, "too early to compare"
    assert found.start is not None
    assert found.start.state == "complete"
    assert found.importances == {}, "one dimension"


@pytest.mark.parametrize(
    ("batch", "state", "reason"),
    [
        (11, "pruned", "the doctor: collapse (95% sure)"),
        (13, "pruned", "diverged: The loss became nan"),
        (14, "failed", "The memory is full. Lower --batch."),
        (16, "failed", "It was not measured at its end."),
    ],
)
def test_a_lost_trial_is_no_end_of_the_search(
    tmp_path: Path, batch: int, state: str, reason: str
) -> None:
    words = ["lr=1e-4..1e-2", f"batch=12,{batch}"]
    found, told = search(tmp_path / "s", *words, trials=2, given={"batch": 12})
    lost = rows(found)[1]
    assert lost.point["batch"] == batch, "the seed draws it"
    assert (lost.state, lost.reason) == (state, reason)
    assert told[-1] == f"  {state}: {reason}"
    assert found.best is not None
    assert found.best.start
    events = Lines(Path(lost.run) / "events.jsonl").read()
    if batch == 11:
        assert events[-1]["outcome"] == "interrupted", "it was asked to save and end"


def test_the_first_trial_is_never_pruned(tmp_path: Path) -> None:
    found, _ = search(tmp_path / "s", "lr=1e-4..1e-2", trials=1, given={"batch": 11})
    assert found.start is not None
    assert found.start.state == "complete"


def test_where_nothing_can_be_trained_the_search_ends_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="begins with cannot be trained: The memory is full"):
        search(tmp_path / "s", "lr=1e-4..1e-2", given={"batch": 14})
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's' / 'study.db'}")
    assert study.trials[-1].user_attrs["start"], "it is tried again"
    assert study.trials[-1].state == optuna.trial.TrialState.WAITING


@pytest.mark.long
def test_a_search_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    out = tmp_path / "s"
    words = ["lr=1e-4..1e-2", "batch=12,15"]
    script = (
        "import sys; from pathlib import Path; from test_tuning import search\n"
        f"search(Path({str(out)!r}), *{words!r}, trials=3, given={{'batch': 15}})"
    )
    env = environment()
    env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", script], env=env)
    patience = time.monotonic() + 200
    while not (out / "trials/0000/hanging").exists():
        assert time.monotonic() < patience
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Lines(out / "trials/0000/events.jsonl").read()[-1]["event"] != "finished":
        assert time.monotonic() < patience, "the trial's process outlived the search's"
        time.sleep(0.02)
    (out / "trials/go").touch()
    found, told = search(out, *words, trials=3, given={"batch": 15})
    assert any("left by a process that died" in line for line in told)
    assert "goes on" in next(line for line in told if line.startswith("trial 0000,"))
    assert (out / "trials/0000/begun").read_text().split() == ["0", "600"], "it was not begun anew"
    start = found.start
    assert start is not None
    assert (start.number, start.name, start.state) == (1, "0000", "complete")
    assert [share for share, _ in start.course] == pytest.approx([0.2, 0.4, 0.8, 1.0])
    assert len(found.rows) == 3
    assert 0 not in rows(found), "the trial that was left is not shown"
    before = len(list((out / "trials").glob("*.yaml")))
    more, _ = search(out, *words, trials=3, given={"batch": 15})
    assert more.rows == found.rows, "nothing is left to do"
    assert len(list((out / "trials").glob("*.yaml"))) == before


def test_trials_of_other_machines_are_left_alone_until_they_fall_silent(tmp_path: Path) -> None:
    out = tmp_path / "s"
    search(out, "lr=1e-4..1e-2", trials=1)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{out / 'study.db'}")
    distributions = {"lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)}
    for sign in (time.time(), time.time() - 3600):
        trial = study.ask(distributions)
        trial.set_user_attr("host", "elsewhere")
        trial.set_user_attr("sign", sign)
    found, told = search(out, "lr=1e-4..1e-2", trials=3)
    assert {number: row.state for number, row in rows(found).items()} == {
        **{0: "complete", 1: "running", 3: "complete"}
    }
    assert rows(found)[3].point["lr"] == study.trials[2].params["lr"]
    assert any("Trials that other processes still train: 0001" in note for note in found.notes)
    assert sum("left by a process" in line for line in told) == 1


@pytest.mark.long
def test_processes_share_a_search(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from test_tuning import search\n"
        f"search(Path({str(tmp_path / 's')!r}), 'lr=1e-4..1e-2', trials=6)"
    )
    env = environment()
    env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    both = [subprocess.Popen([sys.executable, "-c", script], env=env) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    found, told = search(tmp_path / "s", "lr=1e-4..1e-2", trials=6)
    assert told == []
    assert 6 <= len(found.rows) <= 7, "each may begin the last one"
    assert len({row.point["lr"] for row in found.rows}) == len(found.rows)
    assert sum(row.start for row in found.rows) == 1


def test_machines_share_a_storage(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    words = "lr=1e-4..1e-2"
    search(tmp_path / "one/s", words, trials=2, storage=storage)
    found, _ = search(tmp_path / "two/s", words, trials=3, storage=storage)
    assert {Path(row.run).parent.parent.parent.name for row in found.rows} == {"one", "two"}
    assert [row.state for row in found.rows] == ["complete"] * 3
    assert not (tmp_path / "two/s/study.db").exists()
    with pytest.raises(UserError, match="The study 's' was begun with other settings: width"):
        search(tmp_path / "three/s", words, storage=storage, given={"width": 8})


def test_other_settings_are_another_search(tmp_path: Path) -> None:
    out = tmp_path / "s"
    search(out, "lr=1e-4..1e-2", "batch=12,32", trials=1)
    with pytest.raises(UserError, match=r"lr is 1e-4..0.01, not 1e-4..0.1.*--allow-changes"):
        search(out, "lr=1e-4..1e-1", "batch=12,32", trials=2)
    with pytest.raises(UserError, match="width is 64, not 32"):
        search(out, "lr=1e-4..1e-2", "batch=12,32", trials=2, given={"width": 32})
    found, _ = search(out, "lr=1e-4..1e-1", "batch=12,32", trials=2, allow_changes=True)
    assert len(found.rows) == 2
    with pytest.raises(UserError, match="batch was searched in another kind of space"):
        search(out, "lr=1e-4..1e-1", "batch=12,64", trials=3, allow_changes=True)
    with pytest.raises(UserError, match=r"extractor is pixels, not other.*cannot be ranked"):
        search(
            out,
            *("lr=1e-4..1e-1", "batch=12,32"),
            trials=3,
            allow_changes=True,
            given={"extractor": "other"},
        )


def test_settings_outside_of_the_space_are_told(tmp_path: Path) -> None:
    found, _ = search(tmp_path / "s", "lr=1e-3..1e-2", trials=1)
    assert found.rows[0].point == {"lr": 1e-3}
    assert "may end worse" in found.notes[0]


def test_storage_that_cannot_be_opened_is_told_without_its_password(tmp_path: Path) -> None:
    for storage in ("nonsense", "nosuch://user:secret@host/database"):
        with pytest.raises(UserError, match="The study in --storage cannot be opened") as caught:
            search(tmp_path / "s", "lr=1e-4..1e-2", storage=storage)
        assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="need a driver"):  # which no extra brings
        search(tmp_path / "s", "lr=1e-4..1e-2", storage="oracle://user@host/database")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/study.db").write_text("no database, but text " * 99)
    with pytest.raises(UserError, match=r"study.db' cannot be opened"):
        search(tmp_path / "t", "lr=1e-4..1e-2")


def test_a_folder_of_any_name(tmp_path: Path) -> None:
    found, _ = search(tmp_path / "a b?c%20d#é", "lr=1e-4..1e-2", trials=1)
    assert found.best is not None
    assert (tmp_path / "a b?c%20d#é/study.db").exists()


def test_a_missing_optuna_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"faussaire\[tune\]"):
        require_optuna()


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_importances_need_no_forest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    from faussaire.tuning.search import Search

    monkeypatch.setitem(sys.modules, "sklearn", None)
    metric = "fid" if better == "lower" else "recall"
    plan = make_plan(
        *(tmp_path / "s", "lr=1e-4..1e-2", "beta1=0..0.9"), given={"evaluate_metrics": metric}
    )
    (tmp_path / "s").mkdir()
    mine = Search(plan, lambda sentence: None, trainer)
    mine.study = mine._open()
    for _ in range(20):
        trial = mine.study.ask(mine.distributions)
        rate = trial.params["lr"]
        mine.study.tell(trial, -rate if better == "higher" else rate)
    found = mine._importances()
    mine._close()
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["lr"] > 0.8


def test_json_has_everything(tmp_path: Path) -> None:
    found, _ = search(tmp_path / "s", "lr=1e-4..1e-2", trials=2)
    record = json.loads(json.dumps(found.record()))
    assert record["space"] == {"lr": "1e-4..0.01"}
    assert [row["state"] for row in record["found"]] == ["complete", "complete"]
    assert record["found"][0]["course"][0] == [
        0.2,
        pytest.approx(record["found"][0]["value"] * 1.8, rel=1e-3),
    ]


def test_space_of_nothing() -> None:
    assert Space(()).start({}) == {}
