"""The stream's state is one integer, and nothing else decides what comes."""

from __future__ import annotations

import numpy as np
import pytest

from faussaire.data.fit import centre, enlarged
from faussaire.data.stream import Stream


def table(count: int = 10, name: str = "pixels") -> dict[str, np.ndarray]:
    """Pictures of 3x4 whose every pixel tells its column, and rows to know them by."""
    pixels = np.zeros((count, 3, 4, 3), np.uint8)
    pixels += np.arange(4, dtype=np.uint8)[None, None, :, None]
    return {name: pixels, f"{name}_row": np.arange(count)}


def test_every_example_once_an_epoch_in_new_orders() -> None:
    stream = Stream([table(50)], seed=3)
    epochs = [stream.read(50 * e, 50)["pixels_row"] for e in range(4)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = Stream([table(50)], seed=4).read(0, 50)["pixels_row"]
    assert (other != epochs[0]).any()


def test_any_portions_give_the_same_sequence() -> None:
    def new() -> Stream:
        return Stream([table(7), table(11, "other")], seed=1, flip=["pixels", "other"])

    whole = new().read(0, 120)
    rng = np.random.default_rng(0)
    for _ in range(30):
        start = int(rng.integers(0, 100))
        count = int(rng.integers(1, 120 - start))
        part = new().read(start, count)  # a fresh stream: an exact resume
        for name, field in whole.items():
            np.testing.assert_array_equal(part[name], field[start : start + count])


def test_backwards_and_far_away() -> None:
    stream = Stream([table(7)], seed=1)
    far = 10**12
    ahead = stream.read(far, 5)["pixels_row"]
    for start in (0, 70, 35, 7 * 9, far):
        stream.read(start, 9)
    np.testing.assert_array_equal(stream.read(far, 5)["pixels_row"], ahead)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_shares_concatenate_to_the_whole(world: int) -> None:
    tables = [table(7), table(13, "other")]
    whole = Stream(tables, seed=5, flip=["other"]).read(36, 24)
    shares = [
        Stream(tables, seed=5, flip=["other"], rank=r, world=world).read(36, 24)
        for r in range(world)
    ]
    for name, field in whole.items():
        np.testing.assert_array_equal(np.concatenate([s[name] for s in shares]), field)


def test_flips_are_half_and_depend_on_the_position_alone() -> None:
    stream = Stream([table(1)], seed=9, flip=["pixels"])
    mirrored = stream.read(0, 4000)["pixels"][:, 0, 0, 0] == 3
    assert 0.46 < mirrored.mean() < 0.54
    # No memory from one position to the next.
    assert abs(np.corrcoef(mirrored[:-1], mirrored[1:])[0, 1]) < 0.06
    one_by_one = [stream.read(p, 1)["pixels"][0, 0, 0, 0] == 3 for p in range(64)]
    np.testing.assert_array_equal(one_by_one, mirrored[:64])
    other = Stream([table(1)], seed=10, flip=["pixels"]).read(0, 4000)["pixels"][:, 0, 0, 0] == 3
    assert 0.4 < (other == mirrored).mean() < 0.6


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_flips_mirror_the_width(channels: int, kind: type) -> None:
    shape = (6, 3, 5, channels) if channels else (6, 3, 5)
    field = np.random.default_rng(0).integers(0, 250, shape).astype(kind)
    plain = Stream([{"x": field}], seed=2).read(0, 40)["x"]
    flipped = Stream([{"x": field}], seed=2, flip=["x"]).read(0, 40)["x"]
    same = [np.array_equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    mirror = [np.array_equal(a[:, ::-1], b) for a, b in zip(plain, flipped, strict=True)]
    assert 0 < sum(same) < 40
    np.testing.assert_array_equal(mirror, np.logical_not(same))


def test_fields_of_a_table_are_mirrored_together_and_tables_apart() -> None:
    pair = {**table(9, "photo"), **table(9, "mask")}
    batch = Stream([pair, table(9, "b")], seed=0, flip=["photo", "mask", "b"]).read(0, 200)
    np.testing.assert_array_equal(batch["photo"], batch["mask"])
    np.testing.assert_array_equal(batch["photo_row"], batch["mask_row"])
    assert (batch["b"] != batch["photo"]).any()
    assert (batch["b_row"] != batch["photo_row"]).any()


def test_what_it_gives_can_become_tensors() -> None:
    tables = [table(9)]
    before = tables[0]["pixels"].copy()
    for field in tables[0].values():
        field.flags.writeable = False  # as a memory map is
    batch = Stream(tables, seed=0, flip=["pixels"]).read(3, 8)
    for field in batch.values():
        assert field.flags.c_contiguous
        assert field.flags.writeable
        assert field.flags.owndata
    batch["pixels"][:] = 77
    np.testing.assert_array_equal(tables[0]["pixels"], before)


def test_the_order_never_changes_between_versions() -> None:
    """A resumed run must see what it would have seen: these numbers are part of the format."""
    stream = Stream([table(10)], seed=2026, flip=["pixels"])
    batch = stream.read(0, 20)
    assert batch["pixels_row"].tolist() == ORDER
    assert "".join(str(int(p[0, 0, 0] == 3)) for p in batch["pixels"]) == FLIPS


ORDER = [2, 6, 9, 1, 7, 0, 4, 8, 5, 3, 1, 4, 3, 7, 8, 0, 2, 5, 6, 9]
FLIPS = "10100001110010000001"
PLACES = [[2, 12], [6, 21], [9, 22], [8, 9], [2, 7], [2, 3]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tables": [{"x": np.zeros(3), "y": np.zeros(4)}]}, "equal length"),
        ({"tables": [{"x": np.zeros(0)}]}, "above 0"),
        ({"tables": [{"x": np.zeros(3)}, {"x": np.zeros(3)}]}, "differ"),
        ({"tables": []}, "present"),
        ({"tables": [{"x": np.zeros(3)}], "flip": ["z"]}, "flip names"),
        ({"tables": [{"x": np.zeros(3)}], "flip": ["x"]}, "no width"),
        ({"tables": [{"x": np.zeros(3)}], "rank": 2, "world": 2}, "rank 2"),
        ({"tables": [{"x": np.zeros(3)}], "seed": -1}, "seed -1"),
        ({"tables": [{"x": np.zeros(3)}], "crop": {"z": (1, 1)}}, "crop names"),
        ({"tables": [{"x": np.zeros(3)}], "crop": {"x": (1, 1)}}, "no height"),
        ({"tables": [{"x": np.zeros((3, 8, 9))}], "crop": {"x": (9, 9)}}, "8x9 cannot be cut"),
        ({"tables": [{"x": np.zeros((3, 8, 9))}], "crop": {"x": (0, 9)}}, "cut to 0x9"),
    ],
)
def test_wrong_use(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Stream(**{"seed": 0, **arguments})  # type: ignore[arg-type]


def test_wrong_reads() -> None:
    stream = Stream([table()], seed=0, world=2)
    for position, count, words in ((0, 3, "shared equally"), (-1, 2, "cannot"), (0, 0, "cannot")):
        with pytest.raises(ValueError, match=words):
            stream.read(position, count)


def grid(
    count: int, height: int, width: int, name: str = "pixels", times: int = 1
) -> dict[str, np.ndarray]:
    """Pictures whose every pixel tells its (row, column), enlarged `times` times; their numbers."""
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    pixels = np.repeat(places[None].astype(np.uint8), count, 0)
    pixels = pixels.repeat(times, 1).repeat(times, 2)
    numbers = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], pixels.shape)
    return {name: np.concatenate([pixels, numbers[..., :1]], 3), f"{name}_row": np.arange(count)}


def test_crops_are_cuts_of_the_same_examples() -> None:
    pictures = grid(9, 12, 17)
    whole = Stream([pictures], seed=4).read(5, 300)
    cut = Stream([pictures], seed=4, crop={"pixels": (8, 10)}).read(5, 300)
    np.testing.assert_array_equal(cut["pixels_row"], whole["pixels_row"])
    assert cut["pixels"].shape == (300, 8, 10, 3)
    corners = cut["pixels"][:, 0, 0, :2].astype(int)
    for i, (top, left) in enumerate(corners):
        np.testing.assert_array_equal(
            cut["pixels"][i], whole["pixels"][i, top : top + 8, left : left + 10]
        )
    # Every place occurs, down and across independently.
    assert set(corners[:, 0]) == set(range(5))
    assert set(corners[:, 1]) == set(range(8))
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.2


def test_places_of_crops_are_uniform_and_free_of_the_mirroring() -> None:
    cut = Stream([grid(1, 4, 6)], seed=11, crop={"pixels": (3, 4)}, flip=["pixels"])
    first = cut.read(0, 12_000)["pixels"][:, 0, :, 1]
    mirrored = first[:, 0] > first[:, -1]
    left = np.where(mirrored, first[:, -1], first[:, 0])
    top = cut.read(0, 12_000)["pixels"][:, 0, 0, 0]
    counts = np.histogram2d(top, left, bins=[2, 3])[0].ravel()
    assert (np.abs(counts - 2000) < 5 * np.sqrt(2000)).all()
    assert abs(np.corrcoef(left, mirrored)[0, 1]) < 0.05
    assert abs(np.corrcoef(left[:-1], left[1:])[0, 1]) < 0.05


def cropped(rank: int = 0, world: int = 1) -> Stream:
    tables = [{**grid(7, 9, 9), **grid(7, 9, 9, "high", 3)}, grid(11, 6, 8, "other")]
    return Stream(
        tables,
        seed=1,
        flip=["pixels", "high", "other"],
        crop={"pixels": (5, 6), "high": (15, 18), "other": (6, 7)},
        rank=rank,
        world=world,
    )


def test_crops_do_not_depend_on_portions_or_processes() -> None:
    whole = cropped().read(0, 120)
    rng = np.random.default_rng(0)
    for _ in range(20):
        start = int(rng.integers(0, 100))
        count = int(rng.integers(1, 120 - start))
        part = cropped().read(start, count)
        for name, field in whole.items():
            np.testing.assert_array_equal(part[name], field[start : start + count])
    for world in (2, 3, 4):
        shares = [cropped(rank, world).read(0, 120) for rank in range(world)]
        for name, field in whole.items():
            np.testing.assert_array_equal(np.concatenate([s[name] for s in shares]), field)


def test_fields_of_a_table_are_cut_at_one_place_and_multiples_at_multiples() -> None:
    batch = cropped().read(0, 200)
    np.testing.assert_array_equal(batch["high"][:, ::3, ::3], batch["pixels"])
    np.testing.assert_array_equal(batch["high"][:, 2::3, 1::3], batch["pixels"])
    pair = {**grid(9, 8, 8, "photo"), **grid(9, 8, 8, "mask")}
    crop = {"photo": (5, 5), "mask": (5, 5), "b": (5, 5)}
    batch = Stream([pair, grid(9, 8, 8, "b")], seed=0, crop=crop).read(0, 200)
    np.testing.assert_array_equal(batch["photo"], batch["mask"])
    assert (batch["b"][..., :2] != batch["photo"][..., :2]).any()
    alone = Stream([pair], seed=0, crop={"photo": (5, 5)}).read(0, 200)
    np.testing.assert_array_equal(alone["photo"], batch["photo"])
    assert alone["mask"].shape[1:3] == (8, 8)


def test_a_crop_of_the_whole_changes_nothing() -> None:
    pictures = grid(5, 6, 7)
    plain = Stream([pictures], seed=3, flip=["pixels"]).read(0, 40)
    cut = Stream([pictures], seed=3, flip=["pixels"], crop={"pixels": (6, 7)}).read(0, 40)
    np.testing.assert_array_equal(plain["pixels"], cut["pixels"])


@pytest.mark.parametrize("shape", [(6, 9, 9), (6, 9, 9, 1), (6, 9, 9, 4)])
def test_crops_can_become_tensors(shape: tuple[int, ...]) -> None:
    field = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    field.flags.writeable = False
    out = Stream([{"x": field}], seed=3, crop={"x": (4, 5)}, flip=["x"]).read(0, 8)["x"]
    assert out.shape == (8, 4, 5, *shape[3:])
    assert out.flags.c_contiguous
    assert out.flags.writeable
    assert out.dtype == np.float32


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [
        (((8, 8), (9, 8)), {"x": (4, 4), "y": (4, 4)}),
        (((8, 8), (16, 24)), {"x": (4, 4), "y": (8, 12)}),
        (((8, 8), (16, 16)), {"x": (4, 4), "y": (8, 9)}),
        (((8, 8), (8, 8)), {"x": (4, 4), "y": (5, 4)}),
    ],
)
def test_crops_that_cannot_be_at_one_place(
    sizes: tuple[tuple[int, int], ...], crop: dict[str, tuple[int, int]]
) -> None:
    fields = {n: np.zeros((3, *s, 1), np.uint8) for n, s in zip("xy", sizes, strict=True)}
    with pytest.raises(ValueError, match="cut at one place"):
        Stream([fields], seed=0, crop=crop)


def test_the_places_of_crops_never_change_between_versions() -> None:
    batch = Stream([grid(10, 20, 30)], seed=2026, crop={"pixels": (8, 8)}).read(0, 6)
    assert batch["pixels"][:, 0, 0, :2].tolist() == PLACES


def test_margins_and_middles() -> None:
    assert enlarged((256, 256), 0.12) == (287, 287)
    assert enlarged((256, 256), 30 / 256) == (286, 286)
    assert enlarged((64, 96), 0.0) == (64, 96)
    assert enlarged((64, 96), 0.5) == (96, 144)
    pixels = np.arange(2 * 7 * 9 * 3, dtype=np.uint8).reshape(2, 7, 9, 3)
    middle = centre(pixels, (4, 5))
    assert np.shares_memory(middle, pixels)
    np.testing.assert_array_equal(middle, pixels[:, 1:5, 2:7])
    np.testing.assert_array_equal(centre(pixels, (7, 9)), pixels)
    for size in ((8, 9), (7, 10), (0, 1)):
        with pytest.raises(ValueError, match="no middle"):
            centre(pixels, size)
