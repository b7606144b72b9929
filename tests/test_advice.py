"""The rules of `faussaire advise`: each is a sentence that can be wrong."""

from __future__ import annotations

import dataclasses

import pytest

from faussaire.advice import Facts, advise
from faussaire.core.config import resolve
from faussaire.families import load_family
from faussaire.training import layers

LAPTOP = Facts(
    count=20_000,
    side=500,
    resolution=(64, 64),
    classes={},
    device="cpu",
    memory=8 * 2**30,
    seconds=3600.0,
)
GPU = dataclasses.replace(LAPTOP, device="cuda", memory=24 * 2**30, seconds=8 * 3600.0)


def test_few_pictures_get_the_family_that_was_made_for_them():
    for facts in (LAPTOP, GPU):
        found = advise(dataclasses.replace(facts, count=300))
        assert found.family == "fastgan"
        assert "300 pictures are few" in found.reasons[0]
    assert any(
        "variations" in reason for reason in advise(dataclasses.replace(LAPTOP, count=40)).reasons
    )


def test_a_cpu_keeps_the_resolution_that_training_chooses_and_says_so():
    found = advise(LAPTOP)
    assert found.resolution is None
    assert "--resolution" not in found.flags()
    assert any("500" in reason and "--resolution" in reason for reason in found.reasons)
    asked = dataclasses.replace(LAPTOP, resolution=(96, 96), fixed_resolution=True)
    assert advise(asked).resolution == (96, 96)


@pytest.mark.parametrize(
    ("hours", "side", "expected"), [(8, 500, 256), (1, 500, 128), (8, 100, 64), (8, 200, 128)]
)
def test_a_gpu_takes_the_resolution_that_data_and_time_allow(hours, side, expected):
    facts = dataclasses.replace(GPU, seconds=hours * 3600.0, side=side)
    assert advise(facts).resolution == (expected, expected)


def test_shapes_keep_their_aspect_on_a_gpu():
    assert advise(dataclasses.replace(GPU, resolution=(48, 64))).resolution == (192, 256)


def test_classes_are_learnt_where_each_has_enough():
    enough = dataclasses.replace(LAPTOP, classes={"cats": 9000, "dogs": 11_000})
    assert advise(enough).conditional
    assert "--conditional" in advise(enough).flags()
    scarce = dataclasses.replace(LAPTOP, classes={"cats": 19_990, "dogs": 10})
    assert not advise(scarce).conditional
    assert any("'dogs'" in reason for reason in advise(scarce).reasons)


@pytest.mark.parametrize("facts", [LAPTOP, GPU], ids=["laptop", "gpu"])
@pytest.mark.parametrize("count", [50, 500, 5_000, 500_000])
@pytest.mark.parametrize("seconds", [600.0, 1e4, 1e6])
def test_what_is_advised_can_be_trained(facts, count, seconds):
    found = advise(dataclasses.replace(facts, count=count, seconds=seconds))
    below = layers(found.family, {}, size=found.size)
    resolve(found.family, "photos", load_family(found.family).Config, *below, found.settings())
    for other, _ in found.others:
        load_family(other)
