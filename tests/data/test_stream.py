"""The stream's state is one integer, and nothing else decides what comes."""

from __future__ import annotations

import numpy as np
import pytest

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
