"""What is missing of pictures: by files, by colour, by transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire import holes
from faussaire.application import Job, Opened, answer, work
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.data.decode import Fault
from faussaire.families import load_family
from faussaire.holes import with_hole


def write(path: Path, pixels: np.ndarray) -> Job:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return Job(path, path.parent.parent / "out" / path.name)


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    rng = np.random.default_rng(0)
    return [
        write(tmp_path / "photos" / name, rng.integers(0, 200, (6, 8, 3), np.uint8))
        for name in ("a.png", "b.png", "c.png")
    ]


def mask(rows: int = 6, columns: int = 8) -> np.ndarray:
    found = np.zeros((rows, columns), np.uint8)
    found[2:4, 1:5] = 255
    return found


def missing(opened: Opened) -> np.ndarray:
    assert opened.hole is not None
    return opened.hole[0, 0].numpy() > 0


def test_masks_are_found_by_name(jobs, tmp_path):
    write(tmp_path / "masks" / "a_mask.png", mask())
    write(tmp_path / "masks" / "b_mask.png", np.dstack([mask()] * 3))
    find = holes.by_files(jobs, tmp_path / "masks")
    for job in jobs[:2]:
        assert np.array_equal(missing(find(job, Opened.read(job.source))), mask() > 0)
    with pytest.raises(Fault, match="no mask in"):
        find(jobs[2], Opened.read(jobs[2].source))


def test_one_mask_for_all(jobs, tmp_path):
    write(tmp_path / "masks" / "logo.png", mask())
    find = holes.by_files(jobs, tmp_path / "masks" / "logo.png")
    assert all(missing(find(job, Opened.read(job.source))).sum() == 8 for job in jobs)


def test_what_does_not_fit_is_told_and_the_others_are_made(jobs, tmp_path):
    write(tmp_path / "masks" / "a.png", mask())
    write(tmp_path / "masks" / "b.png", mask(5, 9))
    find = holes.by_files(jobs, tmp_path / "masks")
    failed = work(jobs, lambda opened: opened, find=find)
    reasons = {one.source.name: one.reason for one in failed}
    assert "b.png has 9x5 pixels, and the picture 8x6" in reasons["b.png"]
    assert "no mask" in reasons["c.png"]
    assert jobs[0].target.exists()
    with pytest.raises(UserError, match="belongs to any"):
        holes.by_files(jobs[2:], tmp_path / "masks")


def test_holes_of_a_colour(tmp_path):
    pixels = np.full((6, 8, 3), 90, np.uint8)
    pixels[2:4, 1:5] = (250, 4, 255)
    job = write(tmp_path / "photos" / "a.png", pixels)
    opened = Opened.read(job.source)
    assert np.array_equal(missing(holes.by_colour("#ff00ff", 8)(job, opened)), mask() > 0)
    with pytest.raises(Fault, match="--mask-tolerance"):
        holes.by_colour("magenta", 3)(job, opened)
    with pytest.raises(UserError, match="not a colour"):
        holes.by_colour("pinkish", 3)
    with pytest.raises(UserError, match="0 to 255"):
        holes.by_colour("magenta", 300)


def test_holes_of_transparency(tmp_path):
    pixels = np.full((6, 8, 4), 255, np.uint8)
    pixels[..., 3] -= mask()
    job = write(tmp_path / "photos" / "a.png", pixels)
    found = holes.by_alpha(job, Opened.read(job.source))
    assert np.array_equal(missing(found), mask() > 0)
    assert found.alpha is None
    plain = write(tmp_path / "photos" / "b.png", pixels[..., :3])
    with pytest.raises(Fault, match="no transparency"):
        holes.by_alpha(plain, Opened.read(plain.source))


def test_masks_that_say_nothing_or_everything(tmp_path):
    """Nothing missing: the picture stays as it is. Everything: there is nothing to go by."""
    family = _untrained()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
    opened = Opened.of(picture)
    none = with_hole(opened, torch.full((1, 1, 20, 24), -1.0), "black.png")
    made = answer(family, Device(name="cpu", precision="float32"), none)
    assert np.array_equal(np.asarray(made.image()), np.asarray(picture))
    with pytest.raises(Fault, match=r"all of it is missing.*inverted"):
        with_hole(opened, torch.ones(1, 1, 20, 24), "white.png")
    with pytest.raises(Fault, match=r"white.png has 8x20 pixels, and the picture 24x20"):
        with_hole(opened, torch.ones(1, 1, 20, 8), "white.png")


def _untrained():
    kind = load_family("inpaint")
    config = kind.Config(width=4, blocks=1, discriminator_width=4)
    family = kind(config, Pictures(channels=3, height=16, width=16, input_channels=4))
    for net in family.nets.values():
        net.eval()
    return family
