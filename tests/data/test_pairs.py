"""Both sides of a pair stay aligned, whatever is missing or broken on either."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.drawing import draw
from faussaire.core.errors import UserError
from faussaire.data import pack as pack_module
from faussaire.data import scan as scan_module
from faussaire.data.check import check
from faussaire.data.fit import to_array
from faussaire.data.pack import PackOptions, pack
from faussaire.data.pairs import Halves, Pair, Subset, aligned_options, open_pair
from faussaire.data.scan import scan
from faussaire.data.sources import open_source

Sides = tuple[Path, Path]


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """Six photos and their masks: JPEG beside PNG, one size, equal seeds for partners."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for i in range(6):
        draw(i, 20, 30).save(photos / f"{i}.bmp")
        draw(i, 20, 30).convert("L").save(masks / f"{i}.png")
    return photos, masks


def names(pair: Pair) -> list[tuple[str, str]]:
    return list(zip(pair.inputs.listing.names, pair.targets.listing.names, strict=True))


def test_both_sides_pack_to_aligned_arrays(sides: Sides) -> None:
    with open_pair(*sides) as pair:
        assert len(pair) == 6
        assert names(pair)[2] == ("2.bmp", "2.png")
        assert pair.alone == []
        assert pair.notes == []
        options = aligned_options(pair, PackOptions())
        inputs, targets = pack(pair.inputs, options[0]), pack(pair.targets, options[1])
    assert inputs.pixels.shape == (6, 20, 30, 3)
    assert targets.pixels.shape == (6, 20, 30, 1)
    for i in range(6):
        np.testing.assert_array_equal(inputs.pixels[i], draw(i, 20, 30))
        np.testing.assert_array_equal(targets.pixels[i, ..., 0], draw(i, 20, 30).convert("L"))
    assert (inputs.names[3], targets.names[3]) == ("3.bmp", "3.png")


def test_what_is_broken_or_missing_on_one_side_drops_the_pair(sides: Sides) -> None:
    photos, masks = sides
    (masks / "1.png").write_bytes((masks / "1.png").read_bytes()[:60])
    (photos / "2.bmp").write_bytes(b"")
    (photos / "4.bmp").unlink()
    draw(9).save(photos / "extra.png")
    with open_pair(photos, masks) as pair:
        assert names(pair) == [("0.bmp", "0.png"), ("3.bmp", "3.png"), ("5.bmp", "5.png")]
        alone = {(e["name"], e["side"]): e["reason"] for e in pair.alone}
        assert set(alone) == {
            ("extra.png", "input"),
            ("4.png", "target"),
            ("1.bmp", "input"),
            ("1.png", "target"),
            ("2.bmp", "input"),
            ("2.png", "target"),
        }
        assert alone["extra.png", "input"] == "no picture on the other side has its name"
        assert alone["1.bmp", "input"] == "its partner '1.png' cannot be used"
        assert "cut short" in alone["1.png", "target"]
        assert "empty" in alone["2.bmp", "input"]
        assert "2 pictures have no partner" in pair.notes[0]
        assert "2 pairs were left out" in pair.notes[1]
        inputs, targets = pack(pair.inputs), pack(pair.targets)
    assert len(inputs) == len(targets) == 3
    assert inputs.left_out == targets.left_out == []
    np.testing.assert_array_equal(inputs.pixels[1], draw(3, 20, 30))
    np.testing.assert_array_equal(targets.pixels[1, ..., 0], draw(3, 20, 30).convert("L"))


def test_opening_reads_each_picture_once(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_pair(*sides) as pair:
        monkeypatch.setattr(scan_module, "_read", lambda *_: pytest.fail("it was read again"))
        assert len(pack(pair.inputs)) == len(pack(pair.targets)) == 6
    with open_pair(*sides) as pair:
        monkeypatch.setattr(pack_module, "scan", lambda *a, **k: pytest.fail("it was scanned"))
        assert len(pack(pair.inputs)) == 6


@pytest.mark.parametrize("forget", [False, True])
def test_a_picture_that_breaks_later_is_an_error_not_a_shift(
    sides: Sides, cache: Path, forget: bool
) -> None:
    with open_pair(*sides) as pair:
        (sides[1] / "3.png").write_bytes(b"")
        if forget:  # as with a cache that cannot be written: the pictures are read anew
            for file in (cache / "scans").iterdir():
                file.unlink()
        pack(pair.inputs)
        with pytest.raises(UserError, match=r"'3\.png'.*content changed"):
            pack(pair.targets)
    with open_pair(*sides) as pair:
        assert len(pair) == len(pack(pair.targets)) == 5


def test_a_changed_set_is_packed_anew(sides: Sides) -> None:
    with open_pair(*sides) as pair:
        first = pack(pair.inputs).key
    (sides[1] / "0.png").unlink()
    with open_pair(*sides) as pair:
        images = pack(pair.inputs)
        assert images.key != first
        assert images.names == [f"{i}.bmp" for i in range(1, 6)]
    assert len(pack(sides[0])) == 6  # the whole is not confused with its part


def test_a_zip_and_a_folder_pair(sides: Sides, tmp_path: Path) -> None:
    packed = tmp_path / "masks.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(sides[1].iterdir(), reverse=True):
            archive.write(file, f"set/Masks/{file.stem}_mask.png")
    with open_pair(sides[0], packed) as pair:
        assert names(pair)[5] == ("5.bmp", "set/Masks/5_mask.png")
        assert "leaving off '_mask' at the end of the targets" in pair.notes[0]
        targets = pack(pair.targets)
    for i in range(6):
        np.testing.assert_array_equal(targets.pixels[i, ..., 0], draw(i, 20, 30).convert("L"))


def test_arrays_pair_by_number(tmp_path: Path) -> None:
    stack = np.stack([np.asarray(draw(i, 12, 12)) for i in range(30)])
    np.save(tmp_path / "a.npy", stack)
    np.save(tmp_path / "b.npy", stack[:20, ..., :1] / np.float32(255))
    with open_pair(tmp_path / "a.npy", tmp_path / "b.npy") as pair:
        assert len(pair) == 20
        inputs, targets = pack(pair.inputs), pack(pair.targets)
    np.testing.assert_array_equal(inputs.pixels, stack[:20])
    np.testing.assert_array_equal(targets.pixels, stack[:20, ..., :1])


def test_classes_are_the_inputs(sides: Sides) -> None:
    rows = "".join(f"{i}.bmp,{('even', 'odd')[i % 2]}\n" for i in range(5))
    (sides[0] / "labels.csv").write_text("file,label\n" + rows)
    with open_pair(*sides, classes="auto") as pair:
        inputs, targets = pack(pair.inputs), pack(pair.targets)
        assert {"name": "5.bmp", "side": "input", "reason": "has no label"} in pair.alone
    assert inputs.labels is not None
    assert inputs.labels.tolist() == [0, 1, 0, 1, 0]
    assert len(targets) == 5
    assert targets.labels is None
    with open_pair(*sides) as pair:
        assert len(pair) == 6


def test_targets_in_a_folder_of_the_inputs_are_no_inputs(sides: Sides) -> None:
    photos, masks = sides
    masks.rename(photos / "masks")
    with open_pair(photos, photos / "masks") as pair:
        assert names(pair) == [(f"{i}.bmp", f"{i}.png") for i in range(6)]
        assert pair.alone == []
        assert len(pack(pair.inputs)) == 6
    with open_pair(photos / "masks", photos) as pair:
        assert names(pair) == [(f"{i}.png", f"{i}.bmp") for i in range(6)]


def test_no_pairs(tmp_path: Path, many: Callable[..., Path]) -> None:
    folder = many(3)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        open_pair(folder, other)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(UserError, match=r"empty\.zip' holds no pictures"):
        open_pair(folder, tmp_path / "empty.zip")
    for name in ("horse.png", "zebra.png", "ass.png"):
        draw(1).save(other / name)
    with pytest.raises(
        UserError, match=r"inputs are called '000\.png' and '001\.png', the targets 'ass\.png'"
    ):
        open_pair(folder, other)
    for name in ("000.png", "000.jpg", "x.png"):
        draw(1).save(other / name)
    with pytest.raises(UserError, match=r"could both be its partner"):
        open_pair(folder, other)
    with pytest.raises(UserError, match="There is nothing at"):
        open_pair(folder, tmp_path / "nothing")


def test_only_broken_pairs(sides: Sides) -> None:
    for file in sides[1].iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the 6 pairs.*'0\.png': the file is empty"):
        open_pair(*sides)


def test_one_set_twice(sides: Sides, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(sides[0])
    for twin in (sides[0], f"{sides[0]}/../photos/", tmp_path / "link"):
        with pytest.raises(UserError, match="as inputs and as targets"):
            open_pair(sides[0], twin)
    with pytest.raises(UserError, match="as inputs and as targets"):
        open_pair("digits", "digits")
    with pytest.raises(UserError, match="without targets"):
        open_pair(sides[0])
    with pytest.raises(UserError, match="Both targets and halves"):
        open_pair(*sides, halves=True)


def test_odd_pairs_are_noted(sides: Sides) -> None:
    draw(0, 40, 30).save(sides[1] / "0.png")
    with open_pair(*sides) as pair:
        assert "In 1 of 6 pairs the two pictures differ in shape" in pair.notes[0]
        assert "'0.bmp' 30x20 and '0.png' 30x40" in pair.notes[0]
    for i in range(6):
        (sides[1] / f"{i}.png").write_bytes((sides[0] / f"{i}.bmp").read_bytes())
    with open_pair(*sides) as pair:
        assert "the same pictures" in pair.notes[0]


def test_one_resolution_for_both_sides(sides: Sides) -> None:
    with open_pair(*sides) as pair:
        assert [o.resolution for o in aligned_options(pair, PackOptions())] == [(20, 30)] * 2
        asked = PackOptions(resolution=16, fit="pad", channels="RGB")
        assert [(o.resolution, o.fit, o.channels) for o in aligned_options(pair, asked)] == [
            ((16, 16), "pad", "RGB")
        ] * 2
    draw(0, 40, 60).save(sides[0] / "0.bmp")
    with open_pair(*sides) as pair:  # the targets decide
        assert aligned_options(pair, PackOptions())[0].resolution == (20, 30)
    draw(0, 40, 60).save(sides[1] / "0.png")
    with open_pair(*sides) as pair:
        options = aligned_options(pair, PackOptions())
        assert options[1].resolution == (64, 64)
        assert pack(pair.inputs, options[0]).resolution == (64, 64)


def test_tiles_of_partners_show_the_same_places(sides: Sides) -> None:
    asked = PackOptions(resolution=8, fit="tiles")
    draw(1, 31, 17).save(sides[0] / "1.bmp")
    draw(1, 31, 17).convert("L").save(sides[1] / "1.png")
    with open_pair(*sides) as pair:
        options = aligned_options(pair, asked)
        inputs, targets = pack(pair.inputs, options[0]), pack(pair.targets, options[1])
    assert len(inputs) == len(targets) == 5 * 6 + 3 * 2
    for colour, grey in zip(inputs.pixels, targets.pixels, strict=True):
        np.testing.assert_array_equal(Image.fromarray(colour).convert("L"), grey[..., 0])
    draw(1, 32, 17).convert("L").save(sides[1] / "1.png")
    with (
        open_pair(*sides) as pair,
        pytest.raises(UserError, match=r"1 of 6 pairs have two: '1\.bmp' 17x31 and '1\.png' 17x32"),
    ):
        aligned_options(pair, asked)


# ---- Pictures side by side ----


@pytest.fixture
def doubles(tmp_path: Path) -> Path:
    folder = tmp_path / "doubles"
    folder.mkdir()
    for i in range(4):
        draw(i, 16, 32 + i % 2).save(folder / f"{i}.png")
    return folder


def test_halves_of_pictures(doubles: Path) -> None:
    with open_pair(doubles, halves=True) as pair:
        assert pair.notes == []
        assert names(pair) == [(f"{i}.png", f"{i}.png") for i in range(4)]
        options = aligned_options(pair, PackOptions())
        assert options[0].resolution == (16, 16)
        inputs, targets = pack(pair.inputs, options[0]), pack(pair.targets, options[1])
        assert inputs.key != targets.key
        for i in range(4):
            whole = to_array(draw(i, 16, 32 + i % 2))
            np.testing.assert_array_equal(inputs.pixels[i], whole[:, :16])
            np.testing.assert_array_equal(targets.pixels[i], whole[:, -16:])
            np.testing.assert_array_equal(pair.inputs[i].read(), whole[:, :16])
        assert check(pair.targets).common_sizes == {"16x16": 4}


def test_halves_of_arrays_and_of_grey_and_turned_pictures(tmp_path: Path) -> None:
    stack = np.stack([np.asarray(draw(i, 8, 17)) for i in range(5)])
    np.save(tmp_path / "a.npy", stack)
    with open_pair(tmp_path / "a.npy", halves=True) as pair:
        np.testing.assert_array_equal(pack(pair.inputs).pixels, stack[:, :, :8])
        np.testing.assert_array_equal(pack(pair.targets).pixels, stack[:, :, 9:])
    folder = tmp_path / "grey"
    folder.mkdir()
    turned = draw(1, 8, 16, "L").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    turned.save(folder / "a.png", exif=exif)
    with open_pair(folder, halves=True) as pair:
        images = pack(pair.targets)
    np.testing.assert_array_equal(images.pixels[0, ..., 0], np.asarray(draw(1, 8, 16, "L"))[:, 8:])


def test_halves_drop_what_is_broken(doubles: Path) -> None:
    (doubles / "1.png").write_bytes(b"")
    draw(0, 1, 1).save(doubles / "2.png")
    with open_pair(doubles, halves=True) as pair:
        assert names(pair) == [("0.png", "0.png"), ("3.png", "3.png")]
        assert [(e["name"], e["side"]) for e in pair.alone] == [
            ("1.png", "input"),
            ("1.png", "target"),
            ("2.png", "input"),
            ("2.png", "target"),
        ]
        assert "2 pictures were left out" in pair.notes[0]
        assert len(pack(pair.inputs)) == len(pack(pair.targets)) == 2
    for file in doubles.iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the 4 pictures"):
        open_pair(doubles, halves=True)


def test_pictures_that_hardly_lie_side_by_side(doubles: Path, many: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"3 of 3 .*'000\.png', 32x24 pixels.* hardly show"):
        open_pair(many(3), halves=True)
    draw(0, 16, 50).save(doubles / "2.png")
    with open_pair(doubles, halves=True) as pair:
        assert "1 of 4 pictures" in pair.notes[0]
        assert "'2.png', 50x16 pixels" in pair.notes[0]


def test_a_half_that_changes_is_an_error(doubles: Path) -> None:
    with open_pair(doubles, halves=True) as pair:
        pack(pair.inputs)
        draw(50, 16, 32).save(doubles / "0.png")
        with pytest.raises(UserError, match=r"'0\.png'.*content changed"):
            pack(pair.targets)


# ---- Parts of a source ----


def test_a_subset_is_rows_in_the_order_given(many: Callable[..., Path]) -> None:
    whole = open_source(many(8))
    part = Subset(whole, [5, 2, 7])
    assert [item.name for item in part] == ["005.png", "002.png", "007.png"]
    assert part.kind == "folder"
    images = pack(part)
    assert images.names == ["005.png", "002.png", "007.png"]
    np.testing.assert_array_equal(images.pixels[1], draw(2))
    everything = pack(whole)
    assert len(everything) == 8
    assert everything.key != images.key
    keys = {s.stamp() for s in (whole, part, Subset(whole, [5, 7, 2]), Subset(part, [0]))}
    assert len(keys) == 4
    assert len({s.identity for s in (whole, part, Subset(whole, [5, 7, 2]))}) == 3
    assert pack(Subset(part, [2, 0])).names == ["007.png", "005.png"]
    assert check(part).usable == 3
    for rows in ([1, 1], [8], [-1]):
        with pytest.raises(ValueError, match=r"twice|of 8 items"):
            Subset(whole, rows)


def test_a_subset_takes_what_is_known_of_the_whole_and_leaves_it(
    many: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_source(many(8))
    part = Subset(whole, [3, 1])
    alone = scan(part)
    assert alone.digests == [part[0].digest(), part[1].digest()]
    seen = scan(whole)
    monkeypatch.setattr(scan_module, "_read", lambda *_: pytest.fail("it was read again"))
    assert scan(Subset(whole, [6, 4])).digests == [seen.digests[6], seen.digests[4]]
    assert scan(whole).digests == seen.digests


def test_a_subset_of_an_array_is_read_in_runs(tmp_path: Path) -> None:
    stack = np.stack([np.asarray(draw(i, 10, 10)) for i in range(50)])
    np.savez(tmp_path / "a.npz", x=stack, y=np.arange(50) % 5)
    rows = np.random.default_rng(0).permutation(50)[:33]
    rows[:5] = np.sort(rows[:5])
    part = Subset(open_source(tmp_path / "a.npz"), rows)
    images = pack(part)
    np.testing.assert_array_equal(images.pixels, stack[rows])
    assert images.labels is not None
    np.testing.assert_array_equal(images.labels, rows % 5)
    assert Subset(part, []).block(0, 1) is None


def test_closing_a_part_closes_the_whole(tmp_path: Path, many: Callable[..., Path]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(many(1, 8, 16) / "000.png", "000.png")
    for kind in (lambda s: Subset(s, [0]), lambda s: Halves(s, "left")):
        source = open_source(tmp_path / "a.zip")
        part = kind(source)
        part[0].read()
        part.close()
        with pytest.raises(ValueError, match="closed"):
            source[0].raw()


def test_errors_leave_nothing_open(tmp_path: Path, many: Callable[..., Path]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(many(1) / "000.png", "other.png")
    source = open_source(tmp_path / "a.zip")
    with pytest.raises(UserError, match="has a partner"):
        open_pair(many(2), source)
    with pytest.raises(ValueError, match="closed"):
        source[0].raw()


def test_photographs_and_their_segments(real_data: Path) -> None:
    folder = real_data / "bsds500" / "val"
    with open_pair(folder / "photo", folder / "segments") as pair:
        assert len(pair) == 100
        assert pair.alone == []
        assert pair.notes == []
        options = aligned_options(pair, PackOptions())
        inputs, targets = pack(pair.inputs, options[0]), pack(pair.targets, options[1])
    assert len(inputs) == len(targets) == 100
    assert [Path(n).stem for n in inputs.names] == [Path(n).stem for n in targets.names]
    assert inputs.resolution == targets.resolution == (64, 64)
