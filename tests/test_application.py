"""Pictures in, pictures out: tiles, files, what breaks on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.application import Opened, answer, gather, tiled, work
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.families import load_family


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


def test_results_inside_the_folder_of_inputs_are_no_inputs(tmp_path):
    save(tmp_path / "in" / "a.png")
    out = tmp_path / "in" / "made" / "first"
    assert work(gather([tmp_path / "in"], out), lambda opened: opened) == []
    save(tmp_path / "in" / "made" / "b.png")  # beside the results, and no result
    names = [job.source.name for job in gather([tmp_path / "in"], out)]
    assert sorted(names) == ["a.png", "b.png"]
    assert (out / "a.png").exists()


def test_equal_names_of_many_folders_are_kept_apart(tmp_path):
    places = [save(tmp_path / folder / "a.png") for folder in ("x", "y", "z")]
    jobs = gather([*places, places[0]], tmp_path / "out", "jpg")
    assert [job.target.name for job in jobs] == ["a.jpg", "a.png.jpg", "a-2.jpg"]


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_deep_pictures_are_turned_upright_as_others_are(tmp_path, ending, orientation):
    values = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(values).save(path, exif=exif)
    found = np.asarray(Opened.read(path).image())
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    assert found.dtype == np.uint16
    assert np.array_equal(found, np.rot90(values, turns))


def tiny(name: str, **settings) -> Family:
    """A family with nets that nobody has trained."""
    kind = load_family(name)
    config = kind.Config(**settings)
    channels = kind.makes(config, 3) or 3
    family = kind(config, Pictures(channels=3, height=16, width=16, input_channels=channels))
    for net in family.nets.values():
        net.eval()
    return family


FAMILIES = {
    "pix2pix": {"width": 4},
    "cyclegan": {"width": 4, "blocks": 1, "discriminator_width": 4},
    "colorize": {"width": 4},
    "superres": {"width": 4, "blocks": 1, "discriminator_width": 4},
    "inpaint": {"width": 4, "blocks": 1, "discriminator_width": 4},
}
CPU = Device(name="cpu", precision="float32")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """One picture of every odd kind, one that is cut short, and one that is none."""
    folder = tmp_path_factory.mktemp("odd")
    Image.new("RGB", (1, 1), (200, 30, 30)).save(folder / "one.png")
    Image.new("RGB", (1, 40), (200, 30, 30)).save(folder / "thin.png")
    Image.new("LA", (9, 7), (120, 60)).save(folder / "grey and alpha.png")
    save(folder / "palette.png", "P")
    save(folder / "print.jpg", "CMYK")
    deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800
    Image.fromarray(deep).save(folder / "deep.png")
    whole = save(folder / "cut.jpg", size=(64, 64)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_odd_pictures_go_through_every_family(odd, tmp_path, name):
    family = tiny(name, **FAMILIES[name])
    scale = family.scale

    def ask(opened: Opened) -> Opened:
        if family.fills:
            hole = torch.full_like(opened.colour[:, :1], -1.0)
            hole[..., : hole.shape[3] // 2] = 1.0
            opened = replace(opened, hole=hole)
        return answer(family, CPU, opened)

    failed = work(gather([odd], tmp_path), ask)
    reasons = {one.source.name: one.reason for one in failed}
    assert reasons.keys() == {"cut.jpg", "text.png"}
    assert "cut short" in reasons["cut.jpg"]
    for path in tmp_path.iterdir():
        with Image.open(odd / path.name) as asked, Image.open(path) as made:
            assert made.size == (scale * asked.width, scale * asked.height)
            assert ("A" in made.getbands()) == ("A" in asked.getbands())


MEGAPIXELS = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from faussaire.application import answer, gather, work
from test_application import CPU, tiny
torch.set_num_threads(1)
folder = Path(sys.argv[1])
rows = np.linspace(0, 255, 5000).astype(np.uint8)[:, None, None]
Image.fromarray(np.broadcast_to(rows, (5000, 8000, 3)).copy()).save(folder / "in.bmp")
family = tiny("cyclegan", width=2, blocks=0, discriminator_width=4)
sizes, apply = set(), family.apply
def seen(x, draws):
    sizes.add(tuple(x.shape[2:]))
    return apply(x, draws)
family.apply = seen
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
failed = work(gather([folder / "in.bmp"], folder / "out"), lambda o: answer(family, CPU, o))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Image.open(folder / "out" / "in.bmp") as made:
    size = made.size
print(json.dumps([len(failed), sorted(sizes), size, (peak - before) / 2**20]))
"""


@pytest.mark.slow
def test_forty_megapixels_go_through_in_tiles_and_little_memory(tmp_path):
    path = [*sys.path, str(Path(__file__).parent)]
    said = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{MEGAPIXELS}", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    failed, sizes, size, gibibytes = json.loads(said.splitlines()[-1])
    assert failed == 0
    assert sizes == [[1024, 1024]]
    assert size == [8000, 5000]
    # The picture and its result as float32 are .45 GiB each.
    assert gibibytes < 1.8
