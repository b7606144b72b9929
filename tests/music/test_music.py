"""Music: files to phrases and back, and what is measured of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from faussaire.core.errors import UserError
from faussaire.data.packing import Piece, Windows, WindowStream, pack_pieces
from faussaire.music import metrics
from faussaire.music.material import read_music
from faussaire.music.midi import find_synth, notes_of, play, write_midi
from faussaire.music.notes import held
from faussaire.music.picture import colours, paint
from faussaire.music.spec import DRUMS, MusicData, Score

SCORE = Score(
    tracks=("drums", "bass"),
    programs=(DRUMS, 33),
    bars=2,
    beats=4,
    beat_steps=4,
    pitches=24,
    lowest=36,
    tempo=90.0,
)
SMALL = MusicData(bars=2)


def rolls(score: Score = SCORE, count: int = 1, seed: int = 0) -> np.ndarray:
    """A beat on every eighth, and a bass that holds a pitch through each half of a bar."""
    rng = np.random.default_rng(seed)
    found = np.zeros((count, *score.shape), np.uint8)
    found[:, :, ::2, 2, 0] = 1
    for phrase in range(count):
        for bar in range(score.bars):
            for half in (0, 8):
                found[phrase, bar, half : half + 8, rng.integers(24), 1] = 1
    return found


def chorale(steps: int = 64) -> list[list[int]]:
    return [[72 + (step // 8) % 3, 67, 64, 48 + (step // 4) % 5] for step in range(steps)]


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


# ---- Reading ----


def test_midi_comes_back_as_it_was_written(tmp_path):
    pytest.importorskip("pretty_midi")
    phrase = rolls()[0]
    for name in ("one.mid", "two.MIDI"):
        write_midi(tmp_path / name.lower(), phrase, SCORE)
    found = read_music(str(tmp_path), SMALL)
    assert found.spec.tracks == SCORE.tracks
    assert found.spec.programs == SCORE.programs
    assert found.spec.tempo == pytest.approx(90.0, abs=0.01)
    assert len(found) == 2
    back = np.zeros_like(phrase)
    shift = found.spec.lowest - SCORE.lowest
    ours = found.rolls[0]
    back[:, :, shift : shift + ours.shape[2]] = ours[:, :, : 24 - shift]
    assert np.array_equal(back, phrase)


def test_tracks_by_groups_of_instruments(tmp_path):
    pytest.importorskip("pretty_midi")
    write_midi(tmp_path / "a.mid", rolls()[0], SCORE)
    trio = Score(**{**vars(SCORE), "tracks": ("a", "b", "c"), "programs": (0, 73, 33)})
    phrase = np.zeros(trio.shape, np.uint8)
    phrase[:, :, 3, 0] = phrase[:, :, 7, 1] = phrase[:, :, 5, 2] = 1
    write_midi(tmp_path / "b.mid", phrase, trio)
    band = read_music(str(tmp_path), SMALL)  # files differ, so `auto` is the band
    assert band.spec.tracks == ("drums", "piano", "guitar", "bass", "strings")
    lines = band.rolls[1]  # b: piano, bass, and the flute among the strings
    assert [bool(lines[..., track].any()) for track in range(5)] == [False, True, False, True, True]
    assert any("guitar plays in 0.0%" in warning for warning in band.warnings)
    two = read_music(str(tmp_path), MusicData(bars=2, tracks="pipe,bass"))
    assert two.spec.tracks == ("pipe", "bass")
    with pytest.raises(UserError, match=r"'bas'.*Did you mean 'bass'"):
        read_music(str(tmp_path), MusicData(bars=2, tracks="bas"))
    with pytest.raises(UserError, match=r"'[ab].mid' has [23] instruments"):
        read_music(str(tmp_path), MusicData(bars=2, tracks="order"))


def test_json_of_four_voices(tmp_path):
    source = write_json(
        tmp_path / "c.json", {"train": [chorale(), chorale(36)], "test": [chorale()]}
    )
    found = read_music(source, SMALL)
    assert found.spec.tracks == ("soprano", "alto", "tenor", "bass")
    assert (found.spec.lowest, found.spec.pitches) == (48, 36)
    assert len(found) == 3 + 2  # four bars, and two and a bit
    assert found.rolls[0].sum() == 2 * 16 * 4
    assert read_music(source, MusicData(bars=2, stride=2)).rolls.shape == (2 + 1, 2, 16, 36, 4)
    other = read_music(source, MusicData(bars=2, part="test"))
    assert len(other) == 3
    assert other.key != found.key
    assert read_music(source, SMALL).key == found.key
    with pytest.raises(UserError, match=r"no part 'tests'.*Did you mean 'test'"):
        read_music(source, MusicData(bars=2, part="tests"))


def test_where_voices_are_silent(tmp_path):
    piece = chorale(32)
    piece[3] = []
    piece[4] = [72.0, 64, 48]  # the alto's 67 is missing
    piece[5] = [None, 67, 0, -1]
    found = read_music(write_json(tmp_path / "c.json", [piece]), SMALL)
    sounding = found.rolls[0][0].any(axis=1)  # (steps, voices)
    assert sounding[3].tolist() == [False] * 4
    assert sounding[4].tolist() == [True, False, True, True]
    assert sounding[5].tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[[60], [61]", "line 1, column 13"),
        ("3", "no list of pieces"),
        ("[[[60], 61]]", "piece c.json/0, step 1 is 61"),
        ('[[[60], ["C"]]]', "step 1 has C, which is no pitch"),
        ("[[[60, 200]]]", "has 200, which is no pitch"),
        ("[[[0], [0]]]", "has no notes"),
        ("[[[60], [62]]]", "has 1 bars, fewer than 2"),
    ],
)
def test_json_that_is_none_is_told_with_its_place(tmp_path, content, words):
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as told:
        read_music(str(tmp_path / "c.json"), SMALL)
    assert "c.json" in str(told.value)
    assert words in str(told.value)


def test_json_of_another_encoding(tmp_path):
    (tmp_path / "c.json").write_bytes(b'{"caf\xe9": [[[60]]]}')
    with pytest.raises(UserError, match="not UTF-8 text \\(byte 5\\)"):
        read_music(str(tmp_path), SMALL)


def test_midi_that_cannot_be_used_is_named(tmp_path):
    pretty_midi = pytest.importorskip("pretty_midi")
    with pytest.raises(UserError, match="no MIDI or JSON files"):
        read_music(str(tmp_path), SMALL)
    silent = pretty_midi.PrettyMIDI()
    silent.instruments.append(pretty_midi.Instrument(program=0))
    silent.write(str(tmp_path / "silent.mid"))
    with pytest.raises(UserError, match=r"'silent.mid'.*has no notes"):
        read_music(str(tmp_path), SMALL)
    (tmp_path / "torn.mid").write_bytes((tmp_path / "silent.mid").read_bytes()[:20])
    (tmp_path / "text.mid").write_bytes(b"no music at all")
    waltz = Score(**{**vars(SCORE), "beats": 3})
    write_midi(tmp_path / "waltz.mid", rolls(waltz)[0][:, :12], waltz)
    write_midi(tmp_path / "good.mid", rolls()[0], SCORE)
    found = read_music(str(tmp_path), SMALL)
    reasons = {one["name"]: one["reason"] for one in found.packed.left_out}
    assert len(found) == 1
    assert reasons["silent.mid"] == "has no notes"
    assert "in 3/4, 3 quarter notes a bar and not 4" in reasons["waltz.mid"]
    assert "no MIDI file" in reasons["torn.mid"]
    assert "no MIDI file" in reasons["text.mid"]
    assert any(warning.startswith("4 pieces are left out") for warning in found.warnings)


def test_settings_that_do_not_fit(tmp_path):
    source = write_json(tmp_path / "c.json", [chorale()])
    with pytest.raises(UserError, match="40 are no whole octaves"):
        read_music(source, MusicData(bars=2, pitches=40))
    with pytest.raises(UserError, match="end above 127"):
        read_music(source, MusicData(bars=2, lowest=110, pitches=24))
    with pytest.raises(UserError, match="lie outside the pitches 0 to 11"):
        read_music(source, MusicData(bars=2, lowest=0, pitches=12))
    few = read_music(source, MusicData(bars=2, lowest=60, pitches=24))
    assert any("lie outside" in note for note in few.notes)


def test_phrases_of_a_piece_are_held_out_together(tmp_path):
    source = write_json(tmp_path / "c.json", [chorale(96) for _ in range(20)])
    found = read_music(source, SMALL)
    train, unseen = found.split(0.2)[0]
    owners = found.phrases[0]
    assert not {*owners[train]} & {*owners[unseen]}
    assert len(unseen) == 20
    stream = found.stream(MusicData(bars=2, holdout=0.2), seed=1, rank=0, world=1)
    assert stream.read(0, 8)["rolls"].shape == (8, 2, 16, 36, 4)


# ---- Packing ----


def test_windows_show_what_was_packed_and_end_in_zeros():
    values = np.arange(1, 11)[:, None]
    windows = Windows(values, np.array([0, 4, 8]), np.array([6, 6, 10]), 4)
    assert windows[:].squeeze(2).tolist() == [[1, 2, 3, 4], [5, 6, 0, 0], [9, 10, 0, 0]]
    assert windows[1].shape == (4, 1)
    stream = [
        WindowStream({"x": windows}, rows=np.array([0, 2]), seed=3, rank=rank, world=2)
        for rank in (0, 1)
    ]
    whole = WindowStream({"x": windows}, rows=np.array([0, 2]), seed=3)
    both = np.concatenate([part.read(4, 6)["x"] for part in stream])
    assert np.array_equal(whole.read(4, 6)["x"], both)
    assert {*both[:, 0, 0].tolist()} == {1, 9}


def test_a_damaged_pack_is_made_again(tmp_path):
    from faussaire.data.packing import Contents

    reads = []

    def read():
        reads.append(1)
        return Contents(pieces=[Piece(name="a", values=np.arange(6, dtype=np.int16))])

    first = pack_pieces("stamp", read, cache=tmp_path)
    assert pack_pieces("stamp", read, cache=tmp_path).key == first.key
    assert len(reads) == 1
    file = tmp_path / "pieces" / "stamp" / "values.bin"
    file.write_bytes(file.read_bytes()[:-1])
    again = pack_pieces("stamp", read, cache=tmp_path)
    assert len(reads) == 2
    assert again.values.tolist() == list(range(6))


# ---- Writing ----


def test_notes_of_a_roll():
    roll = np.zeros((8, 3), np.uint8)
    roll[0:2, 1] = roll[4:8, 1] = roll[3, 0] = 1
    assert notes_of(roll).tolist() == [[0, 2, 1], [3, 4, 0], [4, 8, 1]]
    assert held(np.array([5, 5, 0, 5, 7])).tolist() == [[0, 2, 5], [3, 4, 5], [4, 5, 7]]


def test_a_soft_synth_plays(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_synth() is None
    program = tmp_path / "timidity"
    program.write_text('#!/bin/sh\n/bin/cp "$5" "$4"\n')
    program.chmod(0o755)
    (tmp_path / "a.mid").write_bytes(b"music")
    synth = find_synth()
    play(tmp_path / "a.mid", tmp_path / "a.wav", synth)
    assert (tmp_path / "a.wav").read_bytes() == b"music"
    program.write_text("#!/bin/sh\necho no sound >&2\nexit 3\n")
    with pytest.raises(UserError, match=r"timidity could not play 'a.mid': no sound"):
        play(tmp_path / "a.mid", tmp_path / "b.wav", synth)
    fluid = tmp_path / "fluidsynth"
    fluid.write_text("#!/bin/sh\nexit 1\n")
    fluid.chmod(0o755)
    (tmp_path / "font.sf2").write_bytes(b"")
    monkeypatch.setenv("FAUSSAIRE_SOUNDFONT", str(tmp_path / "font.sf2"))
    assert find_synth()[-1] == str(tmp_path / "font.sf2")


def test_a_picture_has_high_notes_on_top_and_a_colour_for_each_track():
    phrase = np.zeros(SCORE.shape, np.uint8)
    phrase[0, :4, 23, 0] = phrase[1, :4, 0, 1] = 1
    picture = paint(phrase, SCORE)
    assert picture.shape == (24 * 3, 32 * 4, 3)
    drums, bass = colours(2)
    assert tuple(picture[1, 2]) == drums
    assert tuple(picture[-2, 16 * 4 + 2]) == bass


# ---- Metrics ----


def test_octaves_are_one_pitch_class_and_semitones_are_not():
    """What the published code has the other way round."""
    score = Score(**{**vars(SCORE), "tracks": ("a", "b"), "programs": (0, 0), "pitches": 36})
    phrase = np.zeros((1, *score.shape), np.uint8)
    phrase[0, 0, :, [0, 12, 24], 0] = 1  # three Cs
    phrase[0, 0, :, [0, 1, 2, 3], 1] = 1  # C to D sharp
    assert metrics.used_pitch_classes(phrase, 36).tolist() == [1.0, 4.0]
    assert metrics.empty_bars(phrase).tolist() == [0.5, 0.5]
    assert metrics.chroma(phrase, 36)[0, 0, 0, :, 0].tolist() == [3] + [0] * 11
    assert metrics.chroma(phrase, 38)[0, 0, 0, :, 0].tolist() == [0, 0, 3] + [0] * 9


def test_qualified_notes_follow_over_bars_and_leave_out_what_is_cut():
    phrase = np.zeros((1, *SCORE.shape), np.uint8)
    line = phrase.reshape(1, 32, 24, 2)
    line[0, 0:3, 0, 1] = 1  # long
    line[0, 5, 0, 1] = 1  # short
    line[0, 15:17, 3, 1] = 1  # over the bar line
    line[0, 31, 5, 1] = 1  # cut off by the end: neither
    assert metrics.qualified_notes(phrase)[1] == pytest.approx(2 / 3)
    assert metrics.qualified_notes(phrase, 3)[1] == pytest.approx(1 / 3)
    assert np.isnan(metrics.qualified_notes(phrase)[0])


def test_tonal_distance_grows_with_distance_in_harmony():
    score = Score(**{**vars(SCORE), "tracks": ("a", "b"), "programs": (0, 0)})

    def distance(one: list[int], two: list[int]) -> float:
        phrase = np.zeros((1, *score.shape), np.uint8)
        phrase[0, :, :, one, 0] = 1
        phrase[0, :, :, two, 1] = 1
        return float(metrics.tonal_distance(phrase, 36, 4, [(0, 1)])[0])

    assert distance([0], [12]) == pytest.approx(0.0, abs=1e-6)
    assert distance([0], [7]) < distance([0], [1]) < distance([0], [6])
    # Seven semitones are so many turns on the circles of fifths, of minor and of major thirds.
    turns = 7 * np.array([7 / 6, 3 / 2, 2 / 3]) * np.pi
    chords = (2 - 2 * np.cos(turns)) * np.array([1.0, 1.0, 0.25])
    assert distance([0], [7]) == pytest.approx(np.sqrt(chords.sum()), rel=1e-5)


def test_drums_on_the_beat():
    phrase = rolls()
    assert metrics.drum_pattern(phrase, SCORE)[0] == 1.0
    fine = Score(**{**vars(SCORE), "beat_steps": 12})
    beats = np.zeros((1, *fine.shape), np.uint8)
    beats[0, 0, [0, 3, 7], 0, 0] = 1
    beats[0, 0, [9], 1, 0] = 1
    assert metrics.drum_pattern(beats, fine)[0] == pytest.approx(3 / 4)
    assert np.isnan(metrics.drum_pattern(beats, fine)[1])


def test_noise_and_shuffled_voices_are_further_from_the_data():
    score = Score(**{**vars(SCORE), "tracks": ("a", "b"), "programs": (0, 0)})
    rng = np.random.default_rng(0)
    data = np.zeros((60, *score.shape), np.uint8)
    for phrase in range(60):
        for bar in range(2):
            root = int(rng.integers(12))
            data[phrase, bar, :, root, 0] = data[phrase, bar, :, (root + 7) % 12 + 12, 1] = 1
    real = metrics.measure(data, score)
    noise = metrics.discrepancy(metrics.measure(metrics.noise_like(data, 60, 0), score), real)
    mixed = metrics.measure(metrics.shuffled(data, 0), score)
    apart = metrics.discrepancy(mixed, real)
    assert noise["used_pitch_classes"] > 1
    assert noise["qualified_notes"] > 0.5
    assert mixed["tonal_distance"]["a-b"] > real["tonal_distance"]["a-b"] + 0.1
    assert apart["used_pitch_classes"] == pytest.approx(0.0)
    assert metrics.discrepancy({}, real)["polyphony"] == np.inf


@pytest.mark.slow
def test_figures_of_chorales_are_those_of_the_reference(real_data):
    """Measured before on the same data by other code, with pitches modulo 12."""
    found = read_music(str(real_data / "music_jsb"), MusicData(stride=4))
    measured = metrics.measure(found.rolls[:], found.spec)
    assert list(measured["used_pitch_classes"].values()) == pytest.approx(
        [2.96, 3.02, 3.26, 3.78], abs=0.08
    )
    assert list(measured["qualified_notes"].values()) == pytest.approx(
        [0.987, 0.966, 0.958, 0.996], abs=0.01
    )
    assert list(measured["tonal_distance"].values()) == pytest.approx(
        [1.75, 1.62, 1.45, 1.71, 1.44, 1.44], abs=0.03
    )
