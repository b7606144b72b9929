"""Sound: files to clips, what is measured of them, and the networks' arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from faussaire.core.batch import RowDraws
from faussaire.core.errors import UserError
from faussaire.families.musegan import binary_neurons, onsets_and_offsets
from faussaire.families.wavegan import Down, Up, WaveGAN, WaveGANConfig, layers, shuffle_phase
from faussaire.sound.classifier import inception_score, teach
from faussaire.sound.material import read_sound
from faussaire.sound.mel import log_mel, mel_distance, nearest_distance, noise_like, paint, power
from faussaire.sound.spec import Sound, SoundData
from faussaire.sound.waves import read_wave, resample, write_wave

soundfile = pytest.importorskip("soundfile")

RATE = 8000


def tone(frequency: float, samples: int, rate: int = RATE, loud: float = 0.5) -> np.ndarray:
    return (loud * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)).astype(np.float32)


def folder(path, **lengths: int):
    path.mkdir(exist_ok=True, parents=True)
    for name, samples in lengths.items():
        write_wave(path / f"{name}.wav", tone(440, samples), RATE)
    return path


# ---- Reading ----


def test_recordings_become_clips(tmp_path):
    folder(tmp_path / "a", x_1=3000, y_2=9000)
    write_wave(tmp_path / "a" / "z-3.flac", tone(440, 4096), RATE)
    found = read_sound(str(tmp_path / "a"), SoundData(classes="prefix", length=4096))
    assert found.spec == Sound(rate=RATE, length=4096, classes=("x", "y", "z"))
    # y has two whole clips; its last 808 samples are less than a quarter of one.
    assert found.labels.tolist() == [0, 1, 1, 2]
    waves = found.waves[:]
    assert waves.shape == (4, 4096)
    assert waves[0, 3000:].any() == np.False_
    assert np.array_equal(waves[3], np.rint(tone(440, 4096) * 32768).astype(np.int16))
    first = read_sound(str(tmp_path / "a"), SoundData(length=4096, slices="first"))
    assert len(first) == 3
    assert any("longer than a clip" in warning for warning in first.warnings)
    dense = read_sound(str(tmp_path / "a"), SoundData(length=4096, overlap=0.5))
    assert len(dense) == 1 + 4 + 2  # 3,000 samples; 9,000 at 0, 2,048, ...; 4,096 at 0 and 2,048
    assert read_sound(str(tmp_path / "a"), SoundData()).spec.length == 8192


def test_classes_of_folders_and_tables(tmp_path):
    folder(tmp_path / "s" / "cat", one=4096)
    folder(tmp_path / "s" / "dog", two=4096)
    plain = read_sound(str(tmp_path / "s"), SoundData())
    assert plain.labels is None
    assert any("2 sub-folders are read as one set" in note for note in plain.notes)
    by_folder = read_sound(str(tmp_path / "s"), SoundData(classes="folders"))
    assert by_folder.spec.classes == ("cat", "dog")
    (tmp_path / "s" / "labels.csv").write_text("file,label\ncat/one.wav,b\ndog/two.wav,a\n")
    table = read_sound(str(tmp_path / "s"), SoundData())
    assert table.labels.tolist() == [1, 0]
    folder(tmp_path / "s", stray=4096)
    with pytest.raises(UserError, match=r"'stray.wav' lies in no sub-folder"):
        read_sound(str(tmp_path / "s"), SoundData(classes="folders"))
    with pytest.raises(UserError, match="has no _ or -"):
        read_sound(str(tmp_path / "s"), SoundData(classes="prefix"))


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(UserError, match="There is no"):
        read_sound(str(tmp_path / "nowhere"), SoundData())
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"no sound files .*no files at all"):
        read_sound(str(tmp_path / "b"), SoundData())
    folder(tmp_path / "b", whole=5000)
    data = (tmp_path / "b" / "whole.wav").read_bytes()
    (tmp_path / "b" / "short.wav").write_bytes(data[: len(data) // 2])
    (tmp_path / "b" / "text.wav").write_bytes(b"this is no sound")
    soundfile.write(str(tmp_path / "b" / "empty.wav"), np.zeros(0, np.float32), RATE)
    found = read_sound(str(tmp_path / "b"), SoundData())
    reasons = {one["name"]: one["reason"] for one in found.packed.left_out}
    assert len(found) == 1
    assert "is truncated" in reasons["short.wav"]
    assert "no sound file" in reasons["text.wav"]
    assert "no samples" in reasons["empty.wav"]
    assert any("3 files are left out" in warning for warning in found.warnings)
    with pytest.raises(UserError, match=r"'short.wav'.*is truncated: 5,0"):
        read_sound(str(tmp_path / "b" / "short.wav"), SoundData())


def test_rates_that_differ_are_told_or_brought_to_one(tmp_path):
    folder(tmp_path, low=8192)
    write_wave(tmp_path / "z.wav", tone(440, 16384, 16000), 16000)
    with pytest.raises(UserError, match=r"'low.wav' has 8000 Hz, 'z.wav' 16000 Hz"):
        read_sound(str(tmp_path), SoundData())
    found = read_sound(str(tmp_path), SoundData(rate=8000, length=8192))
    low, high = found.waves[:] / 32768.0
    assert np.abs(low - high)[100:-100].max() < 2e-3


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (8000, 11025), (16000, 8000)])
def test_resampling_keeps_a_tone_and_takes_out_what_does_not_fit(rate, wanted):
    found = resample(tone(1000, rate // 2, rate), rate, wanted)
    assert len(found) == -(-wanted // 2)
    assert np.abs(found - tone(1000, len(found), wanted))[200:-200].max() < 2e-3
    if wanted < rate:
        alias = resample(tone(0.46 * rate, rate // 2, rate), rate, wanted)
        assert np.abs(alias[200:-200]).max() < 2e-3


def test_stereo_is_averaged_and_settings_are_checked(tmp_path):
    both = np.stack([tone(300, 4096), tone(300, 4096, loud=0.1)], axis=1)
    soundfile.write(str(tmp_path / "s.wav"), both, RATE)
    wave, rate = read_wave(tmp_path / "s.wav")
    assert rate == RATE
    assert np.abs(wave - tone(300, 4096, loud=0.3)).max() < 1e-3
    loud = read_sound(str(tmp_path), SoundData(loudness="peak"))
    assert np.abs(loud.waves[:]).max() >= 32766, "up to the rounding of 16 bits"
    with pytest.raises(UserError, match="length cannot be 5000"):
        SoundData(length=5000)


# ---- Figures ----


def test_spectrograms():
    waves = np.stack([tone(1000, 4096, loud=1.0), np.zeros(4096, np.float32)])
    spectrum = power(waves)
    assert (
        spectrum[0].argmax(axis=1).tolist() == [32] * spectrum.shape[1]
    )  # 1,000 Hz of 31.25 a bin
    assert spectrum[0].max() == pytest.approx(1.0, rel=0.01)
    levels = log_mel(waves, RATE)
    assert levels[1].max() == -80.0
    assert levels[0].max() > -15.0
    assert paint(waves[0], RATE).dtype == np.uint8


def test_noise_is_further_from_tones_than_tones_are():
    rng = np.random.default_rng(0)
    tones = np.stack([tone(f, 4096) for f in rng.uniform(300, 900, 40)])
    one, two = tones[:20], tones[20:]
    noise = noise_like(one, 20, 0)
    assert noise.std() == pytest.approx(one.std(), rel=0.05)
    assert mel_distance(one, one, RATE) == 0.0
    assert mel_distance(one, two, RATE) < 0.3 * mel_distance(noise, two, RATE)
    assert nearest_distance(one, one, RATE) < 1e-3
    assert nearest_distance(one, two, RATE) < nearest_distance(noise, two, RATE)


def test_a_classifier_tells_tones_apart_and_scores_them():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    waves = np.stack([tone(f * rng.uniform(0.9, 1.1), 4096) for f in 300 * 2.0**labels])
    ear = teach(waves[:45], labels[:45], 3, RATE, test=(waves[45:], labels[45:]), steps=40)
    assert ear.accuracy > 0.8
    assert ear.unseen == 15
    told = ear(waves)
    assert told.sum(axis=1) == pytest.approx(1.0)
    assert inception_score(np.eye(3)) == pytest.approx(3.0, rel=1e-6)
    assert inception_score(np.full((5, 3), 1 / 3)) == pytest.approx(1.0)
    assert inception_score(told) > inception_score(ear(noise_like(waves, 30, 0)))


# ---- Networks ----


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_on_frames_are_those_of_the_definition(channels):
    torch.manual_seed(0)
    down, up = Down(channels, 5), Up(5, channels)
    torch.nn.init.normal_(up.bias)
    x = torch.randn(2, channels, 1, 64)
    expected = F.conv2d(x, down.weight, down.bias, stride=(1, 4), padding=(0, 11))
    torch.testing.assert_close(down(x), expected)
    y = torch.randn(2, 5, 1, 16)
    expected = F.conv_transpose2d(
        y, up.weight, up.bias, stride=(1, 4), padding=(0, 11), output_padding=(0, 1)
    )
    torch.testing.assert_close(up(y), expected)


def test_phases_are_moved_and_reflected():
    x = torch.arange(5.0).view(1, 1, 1, 5).repeat(3, 2, 1, 1)
    moved = shuffle_phase(x, torch.tensor([2, -2, 0]))
    assert moved[0, 1, 0].tolist() == [2, 1, 0, 1, 2]
    assert moved[1, 0, 0].tolist() == [2, 3, 4, 3, 2]
    assert torch.equal(moved[2], x[2])


@pytest.mark.parametrize(
    ("length", "count", "base"), [(4096, 4, 16), (8192, 4, 32), (16384, 5, 16), (65536, 6, 16)]
)
def test_every_length_has_its_layers(length, count, base):
    assert layers(length) == (count, base)
    family = WaveGAN(WaveGANConfig(width=1, latent=4), Sound(rate=8000, length=length))
    with torch.no_grad():
        made = family.sample(RowDraws.counted(0, 2))
        assert made.shape == (2, length)
        assert family.judge(made, None, RowDraws.counted(0, 2)).shape == (2,)


def test_what_wavegan_cannot_make():
    with pytest.raises(UserError, match="no clips of 5000"):
        WaveGAN(WaveGANConfig(), Sound(rate=8000, length=5000))
    with pytest.raises(UserError, match="at least two classes"):
        WaveGAN(WaveGANConfig(conditional=True), Sound(rate=8000, length=4096))


def test_binary_neurons_are_binary_and_have_a_slope():
    h = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    out = binary_neurons(h, 0.5, slope=2.0)
    assert out.tolist() == [0.0, 1.0, 1.0]
    out.sum().backward()
    soft = torch.sigmoid(2.0 * h.detach())
    torch.testing.assert_close(h.grad, 2.0 * soft * (1 - soft))


def test_onsets_and_offsets_do_not_cancel():
    x = torch.zeros(1, 2, 4, 3, 1)
    x[0, 0, 0:2, 0] = 1.0
    x[0, 0, 2:4, 1] = 1.0  # legato: one ends where the other begins
    edges = onsets_and_offsets(x)[0].flatten(0, 1)
    assert edges[:, 0].tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert edges[:, 1].tolist() == [0, 0, 1, 0, 1, 0, 0, 0]
