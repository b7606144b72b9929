"""Verdicts on charts whose illness is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from faussaire.core.events import Examined, Measured
from faussaire.doctor.chart import Chart, Entry
from faussaire.doctor.remedies import advice
from faussaire.doctor.verdicts import (
    ILL,
    MEANINGS,
    Diagnostician,
    Verdict,
    diagnose,
    diagnose_run,
)
from faussaire.doctor.watch import Watch

LOOKS = 20
WELL = {
    "win rate": 0.8,
    "margin": 1.2,
    "overfit": 0.5,
    "largest logit": 3.0,
    "diversity": 0.95,
    "rank": 0.95,
    "duplicates": 0.0,
    "coverage": 0.7,
    "copying": 1.4,
    "distance": 0.02,
}


def course(looks: int = LOOKS, **signs: float | list[float]) -> list[Entry]:
    """Looks at even distances over a run: those signs, healthy ones else. Lists are stretched."""
    entries = []
    for index in range(looks):
        at = index / (looks - 1)
        now = dict(WELL)
        for name, values in signs.items():
            given = values if isinstance(values, list) else [values]
            places = np.linspace(0.0, 1.0, len(given))
            now[name.replace("_", " ")] = float(np.interp(at, places, given))
        entries.append(
            Entry(examples=round(10_000 * at), rounds=round(1_000 * at), progress=at, signs=now)
        )
    return entries


def names(entries: list[Entry]) -> list[str]:
    return [verdict.title for verdict in diagnose(entries)]


def test_a_run_that_learns_is_healthy():
    entries = course(distance=[1.0, 0.2, 0.05, 0.03])
    assert names(entries[:2]) == ["warming up"]
    assert names(entries) == ["healthy"]


def test_far_but_falling_is_healthy():
    assert names(course(distance=[2.0, 1.0, 0.5])) == ["healthy"]


@pytest.mark.parametrize(
    ("expected", "signs"),
    [
        ("collapse", {"diversity": [0.9, 0.1, 0.05]}),
        ("collapse", {"duplicates": [0.0, 0.9, 1.0]}),
        ("partial collapse", {"diversity": [0.9, 0.5, 0.45]}),
        ("partial collapse", {"rank": [0.9, 0.4, 0.4]}),
        ("discriminator too weak", {"win_rate": 0.1, "distance": 0.6}),
        ("discriminator too strong", {"win_rate": 1.0, "margin": 9.0, "distance": 0.6}),
        ("oscillating", {"distance": [0.2, 0.9] * 10}),
        ("stalled", {"distance": 0.4}),
        ("memorising", {"copying": [1.5, 0.3, 0.1]}),
        ("memorising", {"overfit": [0.5, 0.9, 1.0]}),
        ("labels ignored", {"labels_told": 0.6, "labels_kept": 0.05}),
        ("labels unfit", {"labels_told": 0.02, "labels_kept": 0.02}),
        ("diverging", {"largest_logit": [3.0, 3.0, 3.0, 5e3, 5e4]}),
        ("diverging", {"distance": [0.5, 4.0, 20.0]}),
    ],
)
def test_each_illness_is_named_with_evidence_and_advice(expected, signs):
    verdict = diagnose(course(**signs))[0]
    assert verdict.name == expected
    assert verdict.ill
    assert verdict.evidence
    assert verdict.confidence > 0.9
    settings = {"lr": 2e-4, "loss": "hinge", "r1": 0.0, "augment": "none", "flip": False}
    assert advice(verdict, settings)


def test_a_class_that_collapses_is_named():
    signs = {"diversity of 3": 0.9, "diversity of 7": 0.1}
    assert names(course(**signs)) == ["collapse of class 7"]


def test_labels_that_samples_follow_are_no_illness():
    assert names(course(labels_told=0.6, labels_kept=0.5)) == ["healthy"]


def test_one_strange_look_is_no_verdict():
    entries = course()
    strange = {**WELL, "diversity": 0.05, "distance": 9.0, "duplicates": 1.0}
    entries[10] = dataclasses.replace(entries[10], signs=strange)
    doctor = Diagnostician()
    said = [doctor.see(entry).name for entry in entries]
    assert not set(said) & set(ILL)


def test_since_is_where_it_began_and_confidence_grows():
    entries = course(diversity=[0.95, 0.95, 0.05, 0.05, 0.05])
    early, late = diagnose(entries[:14])[0], diagnose(entries)[0]
    assert early.name == late.name == "collapse"
    assert early.since == late.since
    assert 4_000 < late.since < 7_000
    assert early.confidence < late.confidence


def test_recovery_is_seen():
    assert names(course(diversity=[0.9, 0.05, 0.9, 0.95, 0.95])) == ["healthy"]


def test_signs_that_could_not_be_taken_prove_nothing():
    entries = [
        Entry(examples=i, rounds=100 * i, progress=i / 20, signs={"win rate": 0.8, "margin": 1.0})
        for i in range(20)
    ]
    assert names(entries) == ["warming up"]
    assert names([]) == ["warming up"]


def test_a_run_that_broke_down_diverged_whatever_the_last_look_saw():
    assert [v.name for v in diagnose_run(course(), "diverged")] == ["diverging"]
    assert [v.name for v in diagnose_run([], "diverged")] == ["diverging"]
    assert [v.name for v in diagnose_run(course(), "complete")] == ["healthy"]


def test_a_chart_forgets_what_a_resumed_run_never_did():
    chart = Chart()
    for entry in course():
        chart.add(entry)
    chart.cut(5_000)
    assert chart.entries[-1].examples <= 5_000
    assert len(chart) == 10


def test_every_verdict_has_a_meaning_and_every_illness_advice():
    settings = {
        "lr": 1e-5,
        "discriminator_lr": 1e-4,
        "loss": "wasserstein",
        "critic_steps": 5,
        "r1": 1.0,
        "gradient_penalty": 0.0,
        "clip": 0.0,
        "augment": "none",
        "flip": False,
        "latent": 2,
        "batch": 8,
        "beta1": 0.9,
        "lr_decay": "none",
    }
    for name in ILL:
        verdict = Verdict(name=name)
        assert MEANINGS[name]
        assert advice(verdict, settings)
        assert advice(verdict, {})  # of a family without any of these settings
    assert advice(Verdict(name="healthy"), settings) == []


def test_advice_names_values_that_are_not_those_of_the_run():
    strong = " ".join(
        advice(
            Verdict(name="discriminator too strong"),
            {"lr": 2e-4, "discriminator_lr": None, "critic_steps": 5, "r1": 0.0},
        )
    )
    assert "--critic-steps 1" in strong
    assert "--discriminator-lr 5e-05" in strong
    assert "--r1 1" in strong


# ---- The watch ----


def shown(watch: Watch, entries: list[Entry]) -> list[str]:
    said = []
    for entry in entries:
        look = Examined(
            examples=entry.examples,
            elapsed=0.0,
            rounds=entry.rounds,
            stage="s",
            progress=entry.progress,
            signs=entry.signs,
            seconds=0.0,
        )
        if (news := watch.diagnose(look)) is not None:
            said.append(news.verdict)
    return said


def test_only_news_is_told():
    watch = Watch(dict, {})
    entries = course(diversity=[0.95, 0.95, 0.05, 0.05, 0.05])
    assert shown(watch, entries) == [
        "warming up",
        "healthy",
        "partial collapse",
        "collapse",
        "collapse",  # certain now
    ]
    assert watch.order == "go on"


def test_a_watch_that_goes_on_from_the_past_says_nothing_twice():
    entries = course(diversity=[0.95, 0.95, 0.05, 0.05, 0.05])
    assert shown(Watch(dict, {}, past=entries[:16]), entries[16:]) == []
    assert shown(Watch(dict, {}, past=entries[:12]), entries[12:]) == ["collapse"]  # certain now


def test_a_collapsed_run_is_stopped_where_that_was_asked_for_and_is_certain():
    entries = course(diversity=[0.95, 0.95, 0.05, 0.05, 0.05])
    watch = Watch(dict, {}, "collapsed")
    shown(watch, entries[:12])
    assert watch.order == "go on"
    shown(watch, entries[12:])
    assert watch.order == "stop"


def test_only_measurements_say_that_a_run_has_finished():
    assert names(course()) == ["healthy"]
    assert names(course(unbeaten=[0, 1, 2, 3, 4, 5, 6])) == ["finished"]
    assert names(course(unbeaten=[0, 1, 2, 3, 4, 0, 1])) == ["healthy"]
    watch = Watch(dict, {}, "finished")
    entries = course()
    shown(watch, entries[:10])
    for best in (True, False, False, False, False, False):
        watch.see(Measured(examples=1, elapsed=0.0, figures={"fid": 9.0}, best=best, seconds=1.0))
    assert shown(watch, entries[10:12]) == ["finished"]
    assert watch.order == "go on"
    shown(watch, entries[12:])
    assert watch.order == "finish"


def test_a_stalled_run_is_finished_where_that_was_asked_for():
    watch = Watch(dict, {}, "finished")
    shown(watch, course(distance=0.4))
    assert watch.order == "finish"
    watch = Watch(dict, {}, "collapsed")
    shown(watch, course(distance=0.4))
    assert watch.order == "go on"
