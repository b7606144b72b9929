"""Which pictures are held out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from faussaire.core.config import resolve
from faussaire.core.errors import UserError
from faussaire.data.pack import Images
from faussaire.families import load_family
from faussaire.material import PictureMaterial, read_material, split, tile_counts


def cut(counts: dict[str, int]) -> Images:
    names = [f"{name}#0,{place}" for name, count in counts.items() for place in range(count)]
    pixels = np.zeros((len(names), 4, 4, 3), np.uint8)
    return Images(pixels, None, [], names, "key", {"pictures": len(counts)})


def test_tiles_of_a_picture_are_all_on_one_side():
    images = cut({f"p{i}#x": 1 + i % 5 for i in range(400)})
    material = PictureMaterial(images=images, wide={"images": images.pixels})
    assert tile_counts(images).tolist() == [1 + i % 5 for i in range(400)]
    for holdout in (None, 0.1, 0.5):
        ((train, unseen),) = material.split(holdout)
        assert sorted([*train, *unseen]) == list(range(len(images)))
        sides = [{images.names[row].rpartition("#")[0] for row in rows} for rows in (train, unseen)]
        assert not sides[0] & sides[1]
        share = 0.02 if holdout is None else holdout
        assert len(unseen) == pytest.approx(share * len(images), abs=5)


def test_one_large_picture_is_trained_on():
    assert len(split(5000, None, np.array([5000]))[1]) == 0
    with pytest.raises(UserError, match="leaves none"):
        split(5000, 0.1, np.array([5000]))


def test_whole_pictures_are_chosen_by_their_number_alone():
    one, two = split(2000, None), split(2000, None, np.ones(2000, np.int64))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert len(one[1]) == 40


@pytest.mark.parametrize("family", ["pix2pix", "cyclegan"])
def test_pictures_that_are_too_small_are_enlarged_unless_a_size_is_asked_for(tmp_path, family):
    for side in ("in", "out"):
        (tmp_path / side).mkdir()
        for index in range(3):
            colour = (40 * index, 20 * len(side), 90)
            Image.new("RGB", (12, 10), colour).save(tmp_path / side / f"{index}.png")
    kind = load_family(family)
    how = {"target": str(tmp_path / "out")}
    settings = resolve(family, str(tmp_path / "in"), kind.Config, kind.training, how)
    material = read_material(settings, kind)
    assert material.images.resolution == material.inputs.resolution == (20, 24)
    asked = resolve(family, str(tmp_path / "in"), kind.Config, how, {"resolution": 12})
    assert read_material(asked, kind).images.resolution == (12, 12)


def test_few_pictures_are_no_danger_where_no_discriminator_learns(tmp_path):
    for index in range(3):
        colour = (40 * index, 20, 90)
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{index}.png")
    said = {}
    for family, given in (("dcgan", {}), ("faststyle", {"style": tmp_path / "0.png"})):
        kind = load_family(family)
        settings = resolve(family, str(tmp_path), kind.Config, kind.training, given)
        report = read_material(settings, kind).report
        assert report is not None
        said[family] = {warning.code for warning in report.warnings}
    assert said["dcgan"] - said["faststyle"] == {"too-few"}
