"""Videos in, videos out: times, sound, rotation, sizes, what cannot be read."""

from __future__ import annotations

import dataclasses
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from faussaire.application import Opened, answer, gather, work
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.families import load_family

NTSC = Fraction(30000, 1001)


def video(
    path: Path,
    *,
    size: tuple[int, int] = (48, 32),
    frames: int = 9,
    sound: bool = True,
    turn: int = 0,
) -> Path:
    """Red above, blue below, ever lighter; a tone of the same length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
        stream = container.add_stream(codec, rate=NTSC)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        tone = None
        if sound:
            tone = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
            tone.layout = "mono"
        for index in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[: size[1] // 2, :, 0] = 100 + 15 * index
            pixels[size[1] // 2 :, :, 2] = 200
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            frame.time_base = 1 / NTSC
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(14400) / 20).astype(np.float32)[None] / 4
            for start in range(0, 14400, 960):
                part = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(wave[:, start : start + 960]), format="fltp", layout="mono"
                )
                part.sample_rate, part.pts, part.time_base = 48000, start, Fraction(1, 48000)
                container.mux(tone.encode(part))
            container.mux(tone.encode(None))
    return path


def seen(path: Path) -> tuple[list[np.ndarray], list[float], Fraction, list[bytes]]:
    """Frames, their times, the rate, and packets of sound."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [(f.to_ndarray(format="rgb24"), f.time) for f in container.decode(video=0)]
    sounds = []
    with av.open(str(path)) as container:
        if container.streams.audio:
            sounds = [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]
    return [f for f, _ in frames], [t for _, t in frames], rate, sounds


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_frames_keep_their_times_and_the_sound_is_the_very_same(tmp_path, ending):
    source = video(tmp_path / "in" / f"film.{ending}")
    told = []
    jobs = gather([source], tmp_path / "out")
    failed = work(
        jobs,
        lambda opened: dataclasses.replace(opened, colour=-opened.colour),
        told=lambda job, done, total: told.append((done, total)),
    )
    assert failed == []
    before, after = seen(source), seen(tmp_path / "out" / f"film.{ending}")
    assert len(after[0]) == len(before[0]) == 9
    assert after[1] == pytest.approx(before[1], abs=0.0015)
    assert float(after[2]) == pytest.approx(float(before[2]), rel=1e-3)
    if ending in ("mp4", "mov"):
        assert after[2] == NTSC
    assert after[3] == before[3] != []
    for one, other in zip(before[0], after[0], strict=True):
        assert np.abs(255.0 - one - other)[4:12].mean() < 12
    assert told[-1] == (9, 9)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"film.{ending}"]
    with pytest.raises(UserError, match="would be overwritten"):
        work(jobs, lambda opened: opened)


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_turned_videos_come_out_upright(tmp_path, turn):
    source = video(tmp_path / "film.mp4", turn=turn, sound=False)
    shapes = []

    def look(opened: Opened) -> Opened:
        shapes.append(tuple(opened.colour.shape[2:]))
        return opened

    work(gather([source], tmp_path / "out"), look)
    frame = seen(tmp_path / "out" / "film.mp4")[0][0]
    assert shapes[0] == frame.shape[:2] == ((32, 48) if turn == 180 else (48, 32))
    # Red was above: `turn` degrees clockwise are where players show it.
    with av.open(str(source)) as container:
        rotation = next(container.decode(video=0)).rotation
    red = frame[:, :, 0].astype(int) - frame[:, :, 2]
    if abs(rotation) == 180:
        assert red[24:].mean() > 0 > red[:8].mean()
    else:
        sides = (red[:, :12].mean(), red[:, -12:].mean())
        assert (sides[0] > 0 > sides[1]) if rotation == 90 else (sides[1] > 0 > sides[0])


def test_a_model_that_enlarges_and_one_that_draws_make_videos(tmp_path):
    """Twice the size; and frames that are equal are answered alike, or they would flicker."""
    device = Device(name="cpu", precision="float32")
    source = video(tmp_path / "film.avi", sound=False, frames=2)
    superres = load_family("superres")
    config = superres.Config(width=4, blocks=1, discriminator_width=4)
    family = superres(config, Pictures(channels=3, height=16, width=16, input_channels=3))
    work(gather([source], tmp_path / "out"), lambda opened: answer(family, device, opened))
    frames = seen(tmp_path / "out" / "film.mkv")[0]
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 2


def test_what_is_no_video_is_listed_and_the_others_are_made(tmp_path):
    folder = tmp_path / "in"
    whole = video(folder / "a.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "text.mp4").write_text("no film")
    with av.open(str(folder / "tone.mkv"), "w") as container:
        tone = container.add_stream("aac", rate=48000)
        tone.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 48000, 0
        container.mux(tone.encode(silence))
        container.mux(tone.encode(None))
    failed = work(gather([folder / "*.m*"], tmp_path / "out"), lambda opened: opened)
    reasons = {one.source.name: one.reason for one in failed}
    assert reasons.keys() == {"cut.mp4", "text.mp4", "tone.mkv"}
    assert "damaged" in reasons["text.mp4"]
    assert "no moving picture" in reasons["tone.mkv"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]
    with pytest.raises(UserError, match="no pictures"):
        gather([folder], tmp_path / "other")  # out of folders pictures are taken


def test_without_a_reader_the_way_to_one_is_told(tmp_path, monkeypatch):
    source = video(tmp_path / "film.mp4", sound=False, frames=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="PyAV") as caught:
        work(gather([source], tmp_path / "out"), lambda opened: opened)
    assert "faussaire[video]" in caught.value.hint
    assert not (tmp_path / "out").exists()
