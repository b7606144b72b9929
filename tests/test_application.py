"""Pictures in, pictures out: tiles, files, what breaks on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.application import Opened, gather, tiled, work
from faussaire.core.errors import UserError


@pytest.mark.parametrize("size", [(64, 64), (200, 130), (129, 300)])
@pytest.mark.parametrize("scale", [1, 2])
def test_tiles_of_what_looks_nowhere_else_are_the_whole(size, scale):
    x = torch.rand(1, 3, *size)

    def enlarge(part, at):
        return part.repeat_interleave(scale, 2).repeat_interleave(scale, 3) * 2.0

    whole = enlarge(x, (0, 0))
    torch.testing.assert_close(tiled(enlarge, x, 128, overlap=16), whole, atol=1e-5, rtol=1e-5)


def test_tiles_fade_into_each_other_without_a_seam():
    """Tiles that differ by a constant meet in a ramp, not in a step."""
    x = torch.zeros(1, 1, 64, 224)
    values = iter([0.0, 1.0, 0.0, 1.0])
    y = tiled(lambda part, at: part + next(values), x, 128, overlap=32)
    steps = y[0, 0, 32].diff().abs()
    assert y.max() == 1.0
    assert y.min() == 0.0
    assert steps.max() < 1.5 / 32


def test_too_small_tiles_are_refused():
    with pytest.raises(UserError, match="128 pixels or more"):
        tiled(lambda part, at: part, torch.zeros(1, 1, 64, 64), 64, overlap=32)


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (20, 12), **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode).save(
        path, **how
    )
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_every_kind_of_file_keeps_its_name_and_what_breaks_is_listed(tmp_path):
    folder = tmp_path / "in"
    save(folder / "colour.png")
    save(folder / "deep" / "grey.jpg", "L")
    save(folder / "palette.gif", "P")
    save(folder / "print.jpg", "CMYK")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(folder / "turned.jpg", exif=turned)
    clear = Image.new("RGBA", (9, 5), (10, 20, 30, 40))
    clear.save(folder / "clear.png")
    many = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    many.save(folder / "sixteen.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "notes.txt").write_text("no picture")
    jobs = gather([folder], tmp_path / "out")
    failed = work(jobs, lambda opened: opened)
    assert [one.source.name for one in failed] == ["broken.png"]
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert made == {
        "colour.png", "deep/grey.jpg", "palette.png", "print.jpg", "turned.jpg", "clear.png",
        "sixteen.png",
    }  # fmt: skip
    out = tmp_path / "out"
    assert np.array_equal(pixels(out / "colour.png"), pixels(folder / "colour.png"))
    assert np.array_equal(pixels(out / "sixteen.png"), pixels(folder / "sixteen.png"))
    assert pixels(out / "turned.jpg").shape == (20, 12, 3)
    assert pixels(out / "clear.png")[0, 0].tolist() == [10, 20, 30, 40]


def test_nothing_is_overwritten_unasked_and_nothing_half_done(tmp_path):
    one, two = save(tmp_path / "in" / "a.png"), save(tmp_path / "in" / "b.png")
    out = tmp_path / "out"
    work(gather([one], out), lambda opened: opened)
    before = (out / "a.png").stat().st_mtime_ns
    with pytest.raises(UserError, match="would be overwritten"):
        work(gather([one, two], out), lambda opened: opened)
    assert not (out / "b.png").exists()
    assert (out / "a.png").stat().st_mtime_ns == before
    work(gather([one, two], out), lambda opened: opened, overwrite=True)
    assert (out / "b.png").exists()


def test_names_that_would_meet_are_kept_apart(tmp_path):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "a.gif", "P")
    targets = [job.target.name for job in gather([tmp_path / "in"], tmp_path / "out")]
    assert sorted(targets) == ["a.png", "a.png.png"] or sorted(targets) == ["a.gif.png", "a.png"]
    assert len(set(targets)) == 2


def test_patterns_and_wrong_names(tmp_path):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.jpg")
    found = gather([tmp_path / "in" / "*.jpg"], tmp_path / "out")
    assert [job.source.name for job in found] == ["b.jpg"]
    with pytest.raises(UserError, match="nothing at"):
        gather([tmp_path / "in" / "c.png"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        gather([tmp_path / "empty"], tmp_path / "out")


def test_a_picture_as_numbers_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4), np.uint8)
    for image in (
        Image.fromarray(pixels),
        Image.fromarray(pixels[..., :3]),
        Image.fromarray(pixels[..., 0]),
    ):
        assert np.array_equal(Opened.of(image).image(), image)
