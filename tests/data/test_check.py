"""The preflight names what is wrong, by file and in words, and touches nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.drawing import draw
from data.test_decode import bomb
from faussaire.core.errors import UserError
from faussaire.data import duplicates
from faussaire.data.check import check
from faussaire.data.scan import scan
from faussaire.data.sources import open_source


def codes(found: object) -> set[str]:
    return {warning.code for warning in found.warnings}  # type: ignore[attr-defined]


def test_a_folder_with_everything_wrong(pictures: Path) -> None:
    for i in range(6):
        draw(i, 40, 50).save(pictures / f"ok{i}.png")
    (pictures / "copy.png").write_bytes((pictures / "ok0.png").read_bytes())
    draw(1, 40, 50).save(pictures / "again.jpg", quality=90)
    draw(7, 40, 300).save(pictures / "wide.png")
    draw(8, 40, 50, "L").save(pictures / "grey.png")
    draw(9, 8, 8, "RGBA").save(pictures / "tiny.png")
    draw(10, 90, 90).save(pictures / "cut.jpg")
    raw = (pictures / "cut.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(raw[: len(raw) // 2])
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "void.png").write_bytes(b"")
    (pictures / "bomb.png").write_bytes(bomb())
    before = {p: p.stat().st_mtime_ns for p in pictures.iterdir()}
    calls: list[tuple[str, int, int]] = []
    seen = check(pictures, 32, progress=lambda *call: calls.append(call))
    assert (seen.total, seen.usable) == (15, 11)
    assert {e["name"]: e["kind"] for e in seen.left_out} == {
        "bomb.png": "bomb",
        "cut.jpg": "truncated",
        "text.jpg": "unreadable",
        "void.png": "truncated",
    }
    assert seen.exact_duplicates == [["copy.png", "ok0.png"]]
    assert seen.near_duplicates == [["again.jpg", "ok1.png"]]
    assert codes(seen) == {
        *("too-few", "unreadable", "truncated", "bomb", "aspect", "upscaled", "mixed-modes"),
        *("transparent", "duplicates", "near-duplicates"),
    }
    assert "aspect" not in codes(check(pictures, 32, fit="pad"))
    assert seen.sizes["smallest_side"] == 8
    assert seen.sizes["width_max"] == 300
    assert seen.modes == {"RGB": 9, "L": 1, "RGBA": 1}
    assert calls[-1] == ("reading", 15, 15)
    assert {p: p.stat().st_mtime_ns for p in pictures.iterdir()} == before
    report = "\n".join(seen.lines())
    for words in ("cut.jpg", "memorises", "11 of 15", "not decoded"):
        assert words in report
    assert json.loads(json.dumps(seen.to_dict()))["warnings"][0]["code"] == "too-few"
    assert seen.ok


def test_tiles_are_not_resized(pictures: Path) -> None:
    for i in range(12):
        draw(i, 80, 300).save(pictures / f"{i}.png")
    assert "aspect" in codes(check(pictures, 16))
    seen = check(pictures, 16, fit="tiles")
    assert codes(seen) == set()
    assert seen.examples == 12 * 5 * 18
    seen = check(pictures, 64, fit="tiles")
    assert codes(seen) == {"too-few"}
    assert "Only 48 tiles" in seen.warnings[0].text
    assert any("(as asked: 48 tiles of 12 pictures)" in line for line in seen.lines())
    draw(20, 30, 300).save(pictures / "low.png")
    assert codes(check(pictures, 64, fit="tiles")) == {"too-few", "upscaled"}
    with pytest.raises(UserError, match="without the size"):
        check(pictures, fit="tiles")


def test_nothing_usable(pictures: Path) -> None:
    (pictures / "a.png").write_bytes(b"")
    seen = check(pictures)
    assert not seen.ok
    assert codes(seen) == {"empty"}
    assert "0 of 1" in seen.lines()[0]
    json.dumps(seen.to_dict())


def test_clean_sets_draw_no_warning() -> None:
    pytest.importorskip("sklearn")
    seen = check("digits")
    assert seen.usable == 1797
    assert seen.channels == "L"
    assert seen.resolution == (8, 8)
    assert codes(seen) <= {"near-duplicates"}
    assert list(seen.classes) == list("0123456789")


def test_classes(pictures: Path) -> None:
    for name, count in (("many", 20), ("few", 2), ("one", 1)):
        (pictures / name).mkdir()
        for i in range(count):
            draw(hash_of(name) + i).save(pictures / name / f"{i}.png")
    with open_source(pictures, classes="folders") as source:
        seen = check(source)
    assert seen.classes == {"few": 2, "many": 20, "one": 1}
    assert {"imbalance", "single-picture-classes"} <= codes(seen)
    assert "'one' has 1" in "\n".join(seen.lines())


def hash_of(name: str) -> int:
    return sum(map(ord, name)) * 100


def test_few_and_colours_lost(many: Callable[..., Path]) -> None:
    seen = check(many(101, 8, 8), channels="L")
    assert codes(seen) == {"few", "colours-lost"}


def test_a_second_scan_reads_only_what_is_new(
    many: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = many(30)
    (folder / "bad.png").write_bytes(b"")
    first = scan(open_source(folder))
    looked: list[int] = []
    from faussaire.data import scan as module

    real = module._look_at_file
    monkeypatch.setattr(
        module, "_look_at_file", lambda s, row, r: (looked.append(row), real(s, row, r))
    )
    again = scan(open_source(folder))
    assert looked == []
    assert again.digests == first.digests
    assert again.faults == first.faults == {30: ("truncated", "the file is empty (0 bytes)")}
    np.testing.assert_array_equal(again.thumbs, first.thumbs)
    draw(99).save(folder / "005.png")
    draw(98).save(folder / "0000.png")
    third = scan(open_source(folder))
    assert sorted(looked) == [1, 6]
    assert third.digests[0] == first.digests[0]
    assert third.digests[6] != first.digests[5]
    assert third.faults.keys() == {31}


def test_a_damaged_memory_is_forgotten(many: Callable[..., Path], cache: Path) -> None:
    folder = many(3)
    first = scan(open_source(folder))
    (store,) = (cache / "scans").iterdir()
    store.write_bytes(store.read_bytes()[:-50])
    assert scan(open_source(folder)).digests == first.digests


def test_check_needs_no_cache(many: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check(many(3), cache=tmp_path / "file" / "under").usable == 3


def test_arrays_and_files_look_the_same(many: Callable[..., Path], tmp_path: Path) -> None:
    folder = many(5, 24, 27)  # 3x3 pixels a cell: Pillow's box filter takes no part of a pixel
    np.save(tmp_path / "a.npy", np.stack([np.asarray(draw(i, 24, 27)) for i in range(5)]))
    files, array = scan(open_source(folder)), scan(open_source(tmp_path / "a.npy"))
    np.testing.assert_array_equal(files.sizes, array.sizes)
    np.testing.assert_array_equal(files.flags, array.flags)
    assert np.abs(files.thumbs.astype(int) - array.thumbs).max() <= 1


def test_near_duplicates_are_all_found() -> None:
    """Every pair within two bits, against all pairs."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 200, dtype=np.uint64)
    one = np.uint64(1)
    near = [base]
    for bits in (1, 2, 3):
        flipped = base.copy()
        for bit in range(bits):
            flipped ^= one << np.uint64(7 * bit + 3)
        near.append(flipped)
    hashes = np.concatenate(near)
    left, right = duplicates._candidates(hashes)
    got = {(min(a, b), max(a, b)) for a, b in zip(left.tolist(), right.tolist(), strict=True)}
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    want = {(a, b) for a, b in np.argwhere(distance <= 2).tolist() if a < b}
    assert got == want


def test_near_duplicates_are_grouped_and_not_blown_up() -> None:
    thumbs = np.zeros((20_000, 75), np.uint8)  # all alike: 200 million pairs, one group
    assert len(duplicates.near(thumbs, np.arange(20_000))) == 1
    thumbs[:, 74] = np.arange(20_000) % 40 * 6
    assert len(duplicates.near(thumbs, np.arange(400))) <= 40


def test_real_emoji(real_data: Path) -> None:
    folder = real_data / "emoji_noto"
    with open_source(folder, labels=folder / "captions.csv", classes="group") as source:
        seen = check(source, channels="RGBA")
    assert seen.total == 3833
    assert 3700 < seen.usable <= 3833
    assert len(seen.classes) > 5
    assert "transparent" not in codes(seen)
    assert isinstance(Image.MAX_IMAGE_PIXELS, int)  # the guard is Pillow's and stays on
