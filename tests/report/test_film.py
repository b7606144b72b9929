import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faussaire.core.errors import UserError
from faussaire.report.film import slerp, walk, write_film


def frames(count: int, height: int, width: int, channels: int) -> list[np.ndarray]:
    rows, columns = np.mgrid[0:height, 0:width]
    return [
        np.stack(
            [(rows * 4 + index * 9 + c * 40 + columns) % 256 for c in range(channels)], axis=-1
        ).astype(np.uint8)
        for index in range(count)
    ]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gif_loops_at_the_speed_asked_for(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "film.gif"
    write_film(iter(frames(6, 20, 31, channels)), path, fps=20)
    with Image.open(path) as film:
        assert film.n_frames == 6  # type: ignore[attr-defined]
        assert film.size == (31, 20)
        assert film.info["loop"] == 0
        assert film.info["duration"] == 50
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]


def test_grey_gif_is_exact_and_coloured_one_near(tmp_path: Path) -> None:
    for channels, most in ((1, 0), (3, 40)):
        given = frames(3, 24, 24, channels)
        write_film(given, tmp_path / "film.gif", fps=10)
        with Image.open(tmp_path / "film.gif") as film:
            for index, frame in enumerate(given):
                film.seek(index)
                got = np.asarray(film.convert("RGB")).astype(int)
                assert np.abs(got - frame).mean() <= most


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 48, 3), (33, 47, 1), (32, 32, 4)])
def test_video_plays_in_browsers(
    tmp_path: Path, ending: str, height: int, width: int, channels: int
) -> None:
    av = pytest.importorskip("av")
    given = frames(8, height, width, channels)
    given[0][:] = 255
    path = tmp_path / f"film{ending}"
    write_film(given, path, fps=12.5)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(12.5)
        decoded = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(decoded) == 8
    assert decoded[0].shape == (height + height % 2, width + width % 2, 3)
    assert decoded[0][4:-4, 4:-4].mean() > 245
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"\.gif, \.mp4 or \.webm"):
        write_film(frames(1, 4, 4, 3), tmp_path / "film.avi", fps=10)
    with pytest.raises(UserError, match="at least one frame"):
        write_film([], tmp_path / "film.gif", fps=10)
    with pytest.raises(UserError, match="no speed"):
        write_film(frames(1, 4, 4, 3), tmp_path / "film.gif", fps=0)

    kept = builtins.__import__

    def without_av(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return kept(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(UserError, match=r"faussaire\[video\]"):
        write_film(frames(1, 4, 4, 3), tmp_path / "film.mp4", fps=10)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from frames(2, 8, 8, 3)
        raise RuntimeError("generator failed")

    with pytest.raises(RuntimeError, match="generator failed"):
        write_film(broken(), tmp_path / "film.gif", fps=10)
    assert list(tmp_path.iterdir()) == []


def test_slerp_keeps_ends_and_lengths() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 100))
    b *= np.linalg.norm(a, axis=1, keepdims=True) / np.linalg.norm(b, axis=1, keepdims=True)
    assert slerp(a, b, 0.0) == pytest.approx(a)
    assert slerp(a, b, 1.0) == pytest.approx(b)
    middle = slerp(a, b, 0.5)
    assert np.linalg.norm(middle, axis=1) == pytest.approx(np.linalg.norm(a, axis=1))
    assert slerp(a, b, 0.3) == pytest.approx(slerp(b, a, 0.7))
    assert slerp(a.astype(np.float32), b.astype(np.float32), 0.5).dtype == np.float32


def test_slerp_moves_at_a_constant_angle() -> None:
    a, b = np.eye(2)
    points = slerp(a, b, np.linspace(0, 1, 5)[:, None])
    angles = np.arctan2(points[:, 1], points[:, 0])
    assert np.diff(angles) == pytest.approx(np.full(4, np.pi / 8))


@pytest.mark.parametrize("other", [[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0], [1.0, 2.0]])
def test_slerp_of_parallel_vectors_is_the_straight_line(other: list[float]) -> None:
    a, b = np.array([1.0, 2.0]), np.array(other)
    assert slerp(a, b, 0.25) == pytest.approx(0.75 * a + 0.25 * b)


@pytest.mark.parametrize(("count", "length"), [(1, 5), (2, 8), (5, 60), (7, 60), (3, 2)])
def test_walk_is_closed_and_even(count: int, length: int) -> None:
    latents = np.random.default_rng(1).normal(size=(count, 64)).astype(np.float32)
    path = walk(latents, length)
    assert path.shape == (length, 64)
    assert path.dtype == np.float32
    assert path[0] == pytest.approx(latents[0])
    if length % count == 0:
        assert path[:: length // count] == pytest.approx(latents)
    if length >= 6 * count and count > 1:
        steps = np.linalg.norm(np.roll(path, -1, axis=0) - path, axis=1)
        assert steps.max() < 2 * steps.min()  # the step over the seam is like all others
