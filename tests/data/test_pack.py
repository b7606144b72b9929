"""Packing: the right pixels, once, whole or not at all, whoever is killed or gets in the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data.drawing import draw
from faussaire.core.errors import UserError
from faussaire.data import pack as pack_module
from faussaire.data.cache import cache_dir
from faussaire.data.pack import PackOptions, pack
from faussaire.data.sources import open_source


def packs(cache: Path) -> list[str]:
    folder = cache / "packs"
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.exists() else []


def test_pixels_are_those_of_the_pictures(many: Callable[..., Path]) -> None:
    images = pack(many(40, 128, 96))
    assert images.pixels.shape == (40, 128, 96, 3)
    assert images.pixels.dtype == np.uint8
    assert images.resolution == (128, 96)
    assert (images.channels, images.mode, len(images)) == (3, "RGB", 40)
    assert isinstance(images.pixels, np.memmap)
    assert not images.pixels.flags.writeable
    assert images.labels is None
    for i in range(40):
        np.testing.assert_array_equal(images.pixels[i], draw(i, 128, 96))
    assert images.names[7] == "007.png"
    assert images.meta["resolution_why"] == "all pictures have 128x96 pixels"


def test_labels_and_left_out(many: Callable[..., Path]) -> None:
    folder = many(6)
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:200])
    rows = "".join(f"{i:03d}.png,{label}\n" for i, label in enumerate([10, 9, 10, 2, 2]))
    (folder / "labels.csv").write_text("file,label\n" + rows)
    images = pack(folder)
    assert images.classes == ["2", "9", "10"]
    assert images.labels is not None
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [2, 1, 2, 0]
    assert images.names == ["000.png", "001.png", "002.png", "004.png"]
    assert [(e["name"], e["kind"]) for e in images.left_out] == [
        ("003.png", "truncated"),
        ("005.png", "unlabelled"),
    ]
    assert images.meta["class_counts"] == [1, 1, 2]
    assert "2 pictures were left out" in images.notes[0]
    again = pack(folder)
    assert again.labels is not None
    assert again.left_out == images.left_out


@pytest.mark.parametrize(
    ("modes", "asked", "mode"),
    [
        (["L", "L"], "auto", "L"),
        (["L", "RGB"], "auto", "RGB"),
        (["L", "RGBA"], "auto", "RGB"),
        (["1", "LA"], "auto", "L"),
        (["L", "CMYK"], "RGBA", "RGBA"),
        (["RGB", "RGBA"], "L", "L"),
    ],
)
def test_channels(pictures: Path, modes: list[str], asked: str, mode: str) -> None:
    for i, kind in enumerate(modes):
        end = "tif" if kind == "CMYK" else "png"
        picture = draw(i, 16, 16, "L") if kind == "LA" else draw(i, 16, 16, kind)
        picture.convert(kind).save(pictures / f"{i}.{end}")
    images = pack(pictures, PackOptions(channels=asked))  # type: ignore[arg-type]
    assert images.mode == mode
    assert images.pixels.shape == (2, 16, 16, len(mode))
    if mode == "RGBA":
        assert images.pixels[..., 3].min() == 255


def test_transparency_shows_the_background_unless_kept(pictures: Path) -> None:
    picture = Image.new("RGBA", (9, 9), (0, 255, 0, 0))
    picture.paste((200, 30, 40, 255), (0, 0, 4, 9))
    picture.save(pictures / "a.png")
    images = pack(pictures)
    assert images.pixels[0, 0, 8].tolist() == [255, 255, 255]
    assert images.pixels[0, 0, 0].tolist() == [200, 30, 40]
    assert "transparent" in images.notes[0]
    blue = pack(pictures, PackOptions(background=(0, 0, 9)))
    assert blue.pixels[0, 0, 8].tolist() == [0, 0, 9]
    assert blue.key != images.key
    kept = pack(pictures, PackOptions(channels="RGBA"))
    assert kept.pixels[0, 0, 8].tolist() == [0, 255, 0, 0]
    assert kept.notes == []


def test_resolution_is_chosen_and_explained(pictures: Path) -> None:
    draw(0, 300, 400).save(pictures / "a.png")
    assert pack(pictures).resolution == (64, 64)
    assert "large" in pack(pictures).meta["resolution_why"]
    draw(1, 20, 30).save(pictures / "b.png")
    assert "2 different sizes" in pack(pictures).meta["resolution_why"]
    assert pack(pictures, PackOptions(resolution=(48, 32))).resolution == (48, 32)
    assert pack(pictures, PackOptions(resolution=16)).resolution == (16, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": "RBG"}, "Did you mean 'RGB'"),
        ({"fit": "corp"}, "Did you mean 'crop'"),
        ({"resolution": 0}, "outside"),
        ({"resolution": (32, 9000)}, "32x9000"),
        ({"background": (0, 0, 256)}, "not a colour"),
        ({"fit": "tiles"}, "without the size of the tiles.*Give a resolution"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PackOptions(**options)  # type: ignore[arg-type]


def test_all_bad_is_an_error(pictures: Path) -> None:
    (pictures / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the 1 pictures.*'a\.png': the file is empty"):
        pack(pictures)


def test_tiles_are_cuts_at_the_pictures_own_resolution(pictures: Path) -> None:
    draw(0, 50, 70).save(pictures / "a.png")
    draw(1, 20, 16).save(pictures / "b.png")
    draw(2, 47, 33, "L").save(pictures / "c.png")
    images = pack(pictures, PackOptions(resolution=(20, 16), fit="tiles"))
    assert images.pixels.shape == (8 + 1 + 4, 20, 16, 3)
    assert isinstance(images.pixels, np.memmap)
    a, c = np.asarray(draw(0, 50, 70)), np.asarray(draw(2, 47, 33, "L").convert("RGB"))
    for k in range(8):  # 2 rows of 4 columns; 10 rows and 6 columns of pixels are left over
        top, left = 5 + 20 * (k // 4), 3 + 16 * (k % 4)
        np.testing.assert_array_equal(images.pixels[k], a[top : top + 20, left : left + 16])
    np.testing.assert_array_equal(images.pixels[8], draw(1, 20, 16))
    np.testing.assert_array_equal(images.pixels[12], c[23:43, 16:32])
    assert images.names[:5] == ["a.png#0,0", "a.png#0,1", "a.png#0,2", "a.png#0,3", "a.png#1,0"]
    assert images.names[8:10] == ["b.png#0,0", "c.png#0,0"]
    assert images.notes == ["13 tiles of 20x16 were cut of 3 pictures."]
    assert images.meta["pictures"] == 3
    assert images.meta["class_counts"] == []
    again = pack(pictures, PackOptions(resolution=(20, 16), fit="tiles"))
    assert (again.key, again.names) == (images.key, images.names)
    assert pack(pictures, PackOptions(resolution=(20, 16))).key != images.key


@pytest.mark.parametrize(("height", "width"), [(10, 90), (90, 10), (15, 15), (19, 20)])
def test_pictures_smaller_than_a_tile_are_enlarged_to_one(
    pictures: Path, height: int, width: int
) -> None:
    draw(0, 40, 40).save(pictures / "a.png")
    draw(1, height, width).save(pictures / "b.png")
    images = pack(pictures, PackOptions(resolution=20, fit="tiles"))
    assert images.names[4:] == ["b.png#0,0"]
    assert "1 pictures are smaller than a tile" in images.notes[1]
    cropped = pack(pictures, PackOptions(resolution=20, fit="crop"))
    np.testing.assert_array_equal(images.pixels[4], cropped.pixels[1])


def test_labels_of_tiles_repeat(pictures: Path) -> None:
    for i, name in enumerate(("x", "y", "z")):
        draw(i, 16, 8 * (i + 1)).save(pictures / f"{i}.png")
        (pictures / name).mkdir()
        (pictures / f"{i}.png").rename(pictures / name / f"{i}.png")
    with open_source(pictures, classes="folders") as source:
        images = pack(source, PackOptions(resolution=8, fit="tiles"))
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 2 + [1] * 4 + [2] * 6
    assert images.meta["class_counts"] == [2, 4, 6]
    assert images.names[2] == "y/1.png#0,0"


@pytest.mark.parametrize("channels", ["L", "RGBA"])
def test_tiles_of_arrays_and_in_any_channels(tmp_path: Path, channels: str) -> None:
    stack = np.stack([np.asarray(draw(i, 20, 25, "RGBA")) for i in range(70)])
    np.save(tmp_path / "a.npy", stack)
    asked = PackOptions(resolution=(10, 12), fit="tiles", channels=channels)  # type: ignore[arg-type]
    images = pack(tmp_path / "a.npy", asked)
    assert images.pixels.shape == (280, 10, 12, len(channels))
    if channels == "RGBA":
        np.testing.assert_array_equal(images.pixels[4 * 69 + 3], stack[69, 10:, 12:24])
        same = pack(
            tmp_path / "a.npy", PackOptions(resolution=(20, 25), fit="tiles", channels="RGBA")
        )
        np.testing.assert_array_equal(same.pixels, stack)
        assert same.names[3] == "03#0,0"


def test_tiles_of_a_large_picture_wait_in_little_memory(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        draw(i, 80, 90).save(pictures / f"{i}.png")
    asked: list[int | None] = []
    real = pack_module.ordered

    def count(work: Callable[..., object], total: int, chunk: int, workers: int | None) -> object:
        asked.append(workers)
        return real(work, total, chunk, workers)

    monkeypatch.setattr(pack_module, "ordered", count)
    monkeypatch.setattr(pack_module, "_TILES_BYTES", 100_000)
    assert len(pack(pictures, PackOptions(resolution=8, fit="tiles"))) == 5 * 110
    assert asked == [1]


def test_arrays_at_another_size(tmp_path: Path) -> None:
    stack = np.stack([np.asarray(draw(i, 20, 20, "L")) for i in range(70)])
    np.savez(tmp_path / "a.npz", x=stack, y=np.arange(70) % 3)
    same = pack(tmp_path / "a.npz")
    np.testing.assert_array_equal(same.pixels[..., 0], stack)
    other = pack(tmp_path / "a.npz", PackOptions(resolution=(10, 12), channels="RGB"))
    assert other.pixels.shape == (70, 10, 12, 3)
    np.testing.assert_array_equal(
        other.pixels[5, ..., 1],
        draw(5, 20, 20, "L").resize((12, 10), Image.Resampling.LANCZOS, (0, 1.6667, 20, 18.3333)),
    )
    np.save(tmp_path / "f.npy", stack / 255.0)
    floats = pack(tmp_path / "f.npy")
    np.testing.assert_array_equal(floats.pixels, same.pixels)
    assert "float64 in 0..1" in floats.notes[0]


def test_the_second_start_reads_nothing(
    many: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = many(5)
    first = pack(folder)
    monkeypatch.setattr(pack_module, "scan", lambda *a, **k: pytest.fail("it was scanned"))
    assert pack(folder).key == first.key


def test_a_change_is_noticed(many: Callable[..., Path]) -> None:
    folder = many(5)
    keys = [pack(folder).key]
    draw(77).save(folder / "002.png")
    images = pack(folder)
    keys.append(images.key)
    np.testing.assert_array_equal(images.pixels[2], draw(77))
    draw(78).save(folder / "005.png")
    keys.append(pack(folder).key)
    (folder / "000.png").unlink()
    images = pack(folder)
    keys.append(images.key)
    assert images.names[0] == "001.png"
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"00{i}.png,a\n" for i in range(6)))
    keys.append(pack(folder).key)
    assert len(set(keys)) == 5


def test_a_folder_that_moves_or_is_touched_is_not_packed_again(
    many: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = many(5)
    first = pack(folder)
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved" / "001.png").touch()
    monkeypatch.setattr(pack_module, "_build", lambda *a, **k: pytest.fail("it was packed again"))
    assert pack(tmp_path / "moved").key == first.key


@pytest.mark.parametrize("damage", ["short", "gone", "meta", "shape", "labels"])
def test_a_damaged_pack_is_rebuilt(many: Callable[..., Path], cache: Path, damage: str) -> None:
    folder = many(4)
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"00{i}.png,a\n" for i in range(4)))
    images = pack(folder)
    wanted = np.array(images.pixels)
    where = cache / "packs" / images.key
    del images
    file = where / "pixels.npy"
    if damage == "short":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "gone":
        file.unlink()
    elif damage == "meta":
        (where / "meta.json").write_text("{")
    elif damage == "shape":
        np.save(file, np.zeros((1, 2, 3, 3), np.uint8))
    else:
        (where / "labels.npy").write_bytes(b"")
    np.testing.assert_array_equal(pack(folder).pixels, wanted)
    assert packs(cache) == [where.name]


def test_a_file_that_changes_meanwhile_is_an_error(
    many: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = many(3)
    real = pack_module.scan

    def scan_then_change(*arguments: object, **options: object) -> object:
        seen = real(*arguments, **options)  # type: ignore[arg-type]
        draw(50).save(folder / "001.png")
        return seen

    monkeypatch.setattr(pack_module, "scan", scan_then_change)
    with pytest.raises(UserError, match=r"'001\.png' changed while"):
        pack(folder)
    assert packs(cache) == []


PACK = """
import sys, time
from faussaire.data.cache import cache_dir
from faussaire.data.pack import pack, _one
from faussaire.data import pack as module
slow = float(sys.argv[2])
module._one = lambda *a: (time.sleep(slow), _one(*a))[1]
module.cores = 1
print("ready", flush=True)
said = []
images = pack(sys.argv[1], workers=1, progress=lambda *a: said.append(a[0]))
built = "packing" in said
print(images.key, len(images), built, int(images.pixels.sum()))
"""


def start(folder: Path, slow: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PACK, str(folder), str(slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 45
    while not condition():
        assert time.monotonic() < end, "waited 45 s in vain"
        time.sleep(0.01)


def test_two_processes_at_once_pack_once(many: Callable[..., Path], cache: Path) -> None:
    folder = many(60)
    running = [start(folder, 0.03) for _ in range(2)]
    answers = []
    for process in running:
        out, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
        answers.append(out.split()[1:])
    assert answers[0][0] == answers[1][0]
    assert answers[0][3] == answers[1][3]
    assert sorted(answer[2] for answer in answers) == ["False", "True"]
    assert packs(cache) == [answers[0][0]]


def test_killed_half_way_leaves_nothing_that_is_believed(
    many: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    folder = many(80)
    process = start(folder, 0.05)
    wait_for(lambda: any(name.startswith(".tmp-") for name in packs(cache)))
    wait_for(lambda: any(p.stat().st_size > 0 for p in cache.glob("packs/.tmp-*/pixels.npy")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [name[:5] for name in packs(cache)] == [".tmp-"]
    (tmp_path / "other").mkdir()
    draw(900).save(tmp_path / "other" / "a.png")
    other = pack(tmp_path / "other")
    assert packs(cache) == [other.key]  # whoever packs next cleans up, whatever it packs
    images = pack(folder)
    assert packs(cache) == sorted([other.key, images.key])
    for i in range(80):
        np.testing.assert_array_equal(images.pixels[i], draw(i))


def test_a_living_process_keeps_its_temporaries(
    many: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    slow, other = many(80), tmp_path / "other"
    other.mkdir()
    draw(900).save(other / "a.png")
    process = start(slow, 0.02)
    wait_for(lambda: any(name.startswith(".tmp-") for name in packs(cache)))
    pack(other)
    out, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors
    assert out.split()[2] == "80"
    assert len(packs(cache)) == 2


def test_a_nearly_full_disk_is_seen_beforehand(
    many: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = many(3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12_345))
    with pytest.raises(UserError, match=r"need 6,936 bytes.*has 12,345 bytes free"):
        pack(folder)
    assert packs(cache) == []


def test_a_disk_that_fills_meanwhile(
    many: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pack_module, "write_pixels", fill)
    with pytest.raises(UserError, match="need 6,936 bytes") as caught:
        pack(many(3))
    assert "FAUSSAIRE_CACHE" in caught.value.hint
    assert packs(cache) == []


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """mount(options) gives a small file system of its own."""
    made: list[Path] = []

    def build(options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.name == "nt" or os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("needs the right to mount a file system")
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this system refuses to mount a file system")
        made.append(folder)
        return folder

    yield build
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_that_is_full(
    many: Callable[..., Path],
    mount: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = mount("size=200k")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(small))
    monkeypatch.setattr(pack_module, "need_space", lambda *_: None)  # as if it filled meanwhile
    with pytest.raises(UserError, match=r"need 289,000 bytes.* bytes free"):
        pack(many(125))
    assert packs(small) == []


def test_a_read_only_cache(
    many: Callable[..., Path],
    mount: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, disk = many(3), mount("size=64m")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(disk))
    first = pack(folder).key
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert pack(folder).key == first  # what is there is served
    (folder / "000.png").touch()
    assert pack(folder).key == first  # even when the stamp is stale
    with pytest.raises(UserError, match=r"cannot be written.*Read-only") as caught:
        pack(folder, PackOptions(resolution=8))
    assert "FAUSSAIRE_CACHE" in caught.value.hint


def test_a_cache_that_cannot_be(
    many: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be written"):
        pack(many(3))


def test_the_cache_is_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAUSSAIRE_CACHE")
    assert cache_dir().name == "faussaire"
    monkeypatch.setenv("FAUSSAIRE_CACHE", "~/here")
    assert cache_dir() == Path.home() / "here"


def test_progress_and_meta_are_plain(many: Callable[..., Path], cache: Path) -> None:
    said: list[tuple[str, int, int]] = []
    images = pack(many(40), progress=lambda *call: said.append(call))
    assert said[-1] == ("packing", 40, 40)
    assert ("reading", 40, 40) in said
    text = (cache / "packs" / images.key / "meta.json").read_text()
    assert json.loads(text) == images.meta
    assert images.meta["source"]["kind"] == "folder"


def test_closing_a_source_twice_is_fine(many: Callable[..., Path]) -> None:
    source = open_source(many(1))
    source.close()
    source.close()


def test_fashion_mnist(real_data: Path) -> None:
    path = real_data / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"
    images = pack(path)
    assert images.pixels.shape == (10_000, 28, 28, 1)
    assert images.labels is not None
    assert np.bincount(images.labels).tolist() == [1000] * 10
    with open_source(path) as source:
        np.testing.assert_array_equal(images.pixels[1234], source[1234].read())
