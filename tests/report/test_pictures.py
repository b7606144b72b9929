import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.report.pictures import GAP, grid, save_each, save_png, to_uint8


def random_pictures(count: int, height: int, width: int, channels: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def test_to_uint8_inverts_the_scaling_of_data() -> None:
    levels = np.arange(256, dtype=np.uint8)
    images = (levels.astype(np.float32) / 127.5 - 1).reshape(1, 1, 16, 16)
    assert (to_uint8(images).ravel() == levels).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_to_uint8_takes_tensors_of_any_precision_and_clips(dtype: torch.dtype) -> None:
    images = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=dtype, requires_grad=True)
    got = to_uint8(images.view(1, 1, 2, 2))
    assert got.shape == (1, 2, 2, 1)
    assert got.ravel().tolist() == [0, 0, 255, 255]


def test_to_uint8_moves_channels_last() -> None:
    images = np.zeros((2, 3, 5, 7), np.float32)
    images[:, 1] = 1.0
    got = to_uint8(images)
    assert got.shape == (2, 5, 7, 3)
    assert got[0, 0, 0].tolist() == [128, 255, 128]


def test_to_uint8_does_not_hide_divergence() -> None:
    with pytest.raises(UserError, match="diverged"):
        to_uint8(np.full((1, 1, 2, 2), np.nan, np.float32))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("size", [(16, 16), (28, 28), (20, 50), (128, 96)])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_grid_of_any_mode_and_shape(
    channels: int, mode: str, size: tuple[int, int], count: int
) -> None:
    whole = grid(random_pictures(count, *size, channels))
    assert whole.mode == mode
    assert max(whole.size) <= 2000
    cells = {1: 1, 2: 2, 7: 8, 64: 64}[count]
    assert whole.width * whole.height >= min(cells * 60 * 60, 60 * 60 * count)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grid_places_pictures_row_by_row_with_sharp_pixels(channels: int) -> None:
    images = random_pictures(5, 3, 4, channels)
    pixels = np.asarray(grid(images, columns=3, scale=2)).reshape(2 * 6 + GAP, 3 * 8 + 2 * GAP, -1)
    fifth = pixels[6 + GAP : 12 + GAP, 8 + GAP : 16 + GAP]
    assert (fifth[::2, ::2] == images[4]).all()
    assert (fifth[1::2, 1::2] == images[4]).all()


def test_grid_of_transparent_pictures_has_transparent_gaps() -> None:
    pixels = np.asarray(grid(np.full((3, 8, 8, 4), 255, np.uint8), columns=2, scale=1))
    assert pixels[0, 8, 3] == 0
    assert pixels[12, 12, 3] == 0  # the empty place
    assert pixels[0, 0, 3] == 255


def test_grid_of_large_pictures_shrinks_unless_told() -> None:
    images = random_pictures(9, 800, 1000, 3)
    assert max(grid(images).size) <= 2000
    assert grid(images, columns=3, scale=1).size == (3004, 2404)


def test_save_png_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "grid.png"
    save_png(Image.new("L", (4, 4)), path)

    def full(self: Image.Image, target: Path, format: str) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="full"):
        save_png(Image.new("L", (8, 8)), path)
    monkeypatch.undo()
    with Image.open(path) as kept:
        assert kept.size == (4, 4)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_save_each_never_overwrites_unless_told(tmp_path: Path) -> None:
    images = random_pictures(3, 4, 4, 3)
    paths = save_each(images, tmp_path, seed=7, start=10)
    names = ["seed7-00010.png", "seed7-00011.png", "seed7-00012.png"]
    assert [path.name for path in paths] == names
    with Image.open(paths[2]) as image:
        assert (np.asarray(image) == images[2]).all()
    with pytest.raises(UserError, match="exists already"):
        save_each(255 - images, tmp_path, seed=7, start=8)
    assert not (tmp_path / "seed7-00008.png").exists()
    save_each(255 - images, tmp_path, seed=7, start=10, overwrite=True)
    with Image.open(paths[0]) as image:
        assert (np.asarray(image) == 255 - images[0]).all()


def test_no_module_of_the_report_imports_torch() -> None:
    names = "pictures history curves page film tensorboard files"
    code = "import sys\n" + "\n".join(f"import faussaire.report.{name}" for name in names.split())
    code += "\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
