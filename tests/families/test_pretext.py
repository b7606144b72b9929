"""Self-supervision: questions that pictures answer themselves, and clips in the order of time."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import faussaire
from cli.commands import faussaire as command
from cli.commands import make_pictures
from faussaire.core.batch import Batch, BatchDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.figures import read_figures
from faussaire.families.dcgan import DCGAN, DCGANConfig
from faussaire.families.fastgan import FastGAN, FastGANConfig
from faussaire.families.pretext import (
    AROUND,
    Pretext,
    PretextConfig,
    cut_out,
    only_channel,
    room_of,
    spaces,
    without_tint,
)
from faussaire.nn.turns import turned, turned_all_ways
from faussaire.pretext.clips import FRAMES, TripletStream, read_clips
from faussaire.pretext.evaluation import mark
from faussaire.pretext.exam import Exam
from faussaire.pretext.spec import PretextData

SQUARE = Pictures(channels=3, height=48, width=48)


def batch_of(count: int, start: int = 0, **fields: torch.Tensor) -> Batch:
    draws = BatchDraws(5, total=start + count, rows=slice(start, start + count))
    return Batch(fields, draws, count)


def numbered(count: int, size: int = 48) -> torch.Tensor:
    """Pictures whose three channels are the row, the column and the number of the picture."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    which = torch.arange(count)[:, None, None].expand(count, size, size)
    parts = [rows.expand(count, -1, -1), columns.expand(count, -1, -1), which]
    return torch.stack(parts, dim=1).float()


# ---- Turns ----


def test_rows_are_turned_by_their_number_in_the_batch():
    x = torch.randn(7, 3, 5, 5)
    whole, quarters = turned(x)
    assert quarters.tolist() == [0, 0, 1, 1, 2, 2, 3]
    for picture, quarter, row in zip(whole, quarters.tolist(), (0, 4, 1, 5, 2, 6, 3), strict=True):
        assert torch.equal(picture, x[row].rot90(quarter, (1, 2)))
    late, later = turned(x[3:], first=3)  # the same rows, as a part of the batch
    assert sorted(later.tolist()) == [0, 1, 2, 3]
    assert torch.equal(late[later == 3][0], x[3].rot90(3, (1, 2)))
    every, all_ways = turned_all_ways(x)
    assert torch.equal(every[all_ways == 2], x.flip(2, 3))


# ---- Rotation in a game ----


class Watched(DCGAN):
    """Remembers what its discriminator was asked, and about what."""

    def watch(self) -> list[tuple[str, torch.Tensor]]:
        asked: list[tuple[str, torch.Tensor]] = []
        plain = self.nets["discriminator"].forward

        def forward(x, condition=None, what="logits"):
            asked.append((what, x.detach().clone()))
            return plain(x, condition, what)

        self.nets["discriminator"].forward = forward
        return asked


SMALL = Pictures(channels=1, height=16, width=16)


@pytest.mark.parametrize("augment", ["none", "diffaugment"])
def test_only_upright_pictures_are_judged(augment):
    """Turned fakes that pass for real are what a faithful copy of the paper must not teach."""
    config = DCGANConfig(width=4, latent=8, rotation=1.0, rotation_generator=0.2, augment=augment)
    family = Watched(config, SMALL)
    asked = family.watch()
    reals = torch.rand(8, 1, 16, 16) * 2 - 1
    batch = batch_of(8, images=reals)
    terms = family.discriminator_loss(batch, Clock(total=100))
    judged = [x for what, x in asked if what == "logits"]
    told = [x for what, x in asked if what == "turns"]
    assert len(told) == 1  # reals alone: fakes are told in the generator's turn
    assert torch.equal(told[0], turned(reals)[0])  # and nothing else was done to them
    if augment == "none":
        assert torch.equal(judged[0], reals)
        assert torch.equal(judged[1], family.fakes(batch, Clock(total=100)).detach())
    asked.clear()
    answer = family.generator_loss(batch, Clock(total=100))
    assert [what for what, _ in asked] == ["logits", "turns"]
    fakes = family.fakes(batch, Clock(total=100)).detach()
    assert torch.equal(asked[1][1], turned(fakes)[0])
    assert {"adversarial", "rotation"} == set(terms) == set(answer)


def test_rotation_is_weighed_in_each_players_loss():
    found = {}
    for real, fake in ((1.0, 0.2), (3.0, 0.4)):
        torch.manual_seed(0)
        config = DCGANConfig(width=4, latent=8, rotation=real, rotation_generator=fake)
        family = DCGAN(config, SMALL)
        batch = batch_of(8, images=torch.linspace(-1, 1, 8 * 256).reshape(8, 1, 16, 16))
        clock = Clock(total=100)
        found[real] = (
            family.discriminator_loss(batch, clock)["rotation"].item(),
            family.generator_loss(batch, clock)["rotation"].item(),
        )
    assert found[3.0][0] == pytest.approx(3 * found[1.0][0], rel=1e-4)
    assert found[3.0][1] == pytest.approx(2 * found[1.0][1], rel=1e-4)
    family = DCGAN(DCGANConfig(width=4, latent=8), SMALL)
    batch = batch_of(4, images=torch.zeros(4, 1, 16, 16))
    assert set(family.discriminator_loss(batch, Clock(total=100))) == {"adversarial"}
    assert not any("turns" in name for name in family.nets["discriminator"].state_dict())


def test_rotation_refuses_shapes_that_tell_and_families_without_a_head():
    with pytest.raises(UserError, match=r"24x16: their shape would tell"):
        DCGAN(DCGANConfig(rotation=1.0), Pictures(channels=3, height=16, width=24))
    with pytest.raises(UserError, match="fastgan cannot"):
        FastGAN(FastGANConfig(rotation=1.0), Pictures(channels=3, height=32, width=32))


# ---- Places ----


def test_second_patches_lie_where_the_answer_says():
    config = PretextConfig(task="position", width=4, hidden=8, pairs=3, colour="keep")
    family = Pretext(config, SQUARE)
    patch, (gap, jitter) = family.patch, spaces(family.patch)
    assert (patch, gap, jitter) == (9, 4, 1)
    views, truth = family.questions(batch_of(64, images=numbered(64)))
    assert views.shape == (192, 2, 3, 9, 9)
    assert set(truth.tolist()) == set(range(8))
    assert views.mean(dim=(3, 4)).abs().max() < 1e-4  # each patch is without its mean
    # So only differences are left; where the corners were is asked of the cutting itself.
    assert torch.allclose(views[:, :, 0, 1:, 0] - views[:, :, 0, :-1, 0], torch.ones(192, 2, 8))


def test_corners_stay_inside_and_jitter_is_small(monkeypatch):
    corners: list[torch.Tensor] = []

    def watched(x, top, left, side):
        corners.append(torch.stack([top, left], dim=1))
        return cut_out(x, top, left, side)

    monkeypatch.setattr("faussaire.families.pretext.cut_out", watched)
    config = PretextConfig(task="position", width=4, hidden=8, pairs=1, colour="keep")
    family = Pretext(config, SQUARE)
    _, truth = family.questions(batch_of(500, images=numbered(500)))
    first, second = corners
    assert first.min() >= 0
    assert second.min() >= 0
    assert torch.stack(corners).max() + family.patch <= 48
    moved = second - first - 13 * torch.tensor(AROUND)[truth]
    assert moved.abs().max() == 1
    # The first lies alike whatever is asked: its place tells nothing.
    assert first.amin() == first[truth == 0].amin() == first[truth == 7].amin() == 14


def test_a_cut_is_a_slice():
    x = numbered(3)
    found = cut_out(x, torch.tensor([0, 5, 40]), torch.tensor([1, 2, 3]), 8)
    for row, (top, left) in enumerate(((0, 1), (5, 2), (40, 3))):
        assert torch.equal(found[row], x[row, :, top : top + 8, left : left + 8])


def test_colours_that_tell_are_gone():
    x = torch.randn(4, 3, 6, 6)
    plain = without_tint(x)
    axis = torch.tensor([-1.0, 2.0, -1.0])
    assert torch.einsum("nchw,c->nhw", plain, axis).abs().max() < 1e-5
    assert torch.allclose(without_tint(plain), plain, atol=1e-6)
    grey = torch.randn(4, 1, 6, 6).expand(4, 3, 6, 6)
    assert torch.allclose(without_tint(grey), grey, atol=1e-6)
    kept = torch.tensor([0, 1, 2, 1])
    found = only_channel(x, kept, torch.randn(4, 3, 6, 6))
    for row, channel in enumerate(kept.tolist()):
        assert torch.equal(found[row, channel], x[row, channel])
        others = [c for c in range(3) if c != channel]
        assert found[row, others].std() < 0.03 * x[row, channel].std()


def test_patches_that_do_not_fit_are_refused_with_what_does():
    with pytest.raises(UserError, match=r"--patch of 11 at most"):
        Pretext(PretextConfig(task="position", patch=16), SQUARE)
    assert room_of(11) <= 48 < room_of(12)


def test_places_are_learnt_where_patches_tell_them():
    """Rings around the middle: a patch's curvature tells where it lies."""
    torch.manual_seed(0)
    family = Pretext(PretextConfig(task="position", width=8, hidden=32, pairs=4), SQUARE)
    down, across = np.mgrid[:48, :48] - 23.5
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(64, 1, 1, 1))
    rings = np.cos(np.hypot(down, across) / 4 + phases).repeat(3, axis=1)
    images = torch.tensor(rings, dtype=torch.float32)
    parameters = [p for net in family.nets.values() for p in net.parameters()]
    adam = torch.optim.Adam(parameters, 2e-3)
    right = []
    for step in range(50):
        draws = BatchDraws(step, total=16, rows=slice(0, 16))
        some = images[(torch.arange(16) + 16 * step) % 64]
        logits, truth = family.asked(Batch({"images": some}, draws, 16))
        adam.zero_grad()
        F.cross_entropy(logits, truth).backward()
        adam.step()
        right.append((logits.argmax(dim=1) == truth).float().mean().item())
    assert np.mean(right[-10:]) > 0.35  # .125 by guessing


# ---- The order of time ----


def make_strips(folder, count: int = 6, frames: int = 20, side: int = 16):
    """A bright column that moves right by a pixel a frame (and comes back at the edge)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        clip = np.zeros((side, frames, side, 3), np.uint8)
        for frame in range(frames):
            clip[:, frame, (frame + number) % side, number % 3] = 255
        Image.fromarray(clip.reshape(side, frames * side, 3)).save(folder / f"{number}.png")
    return folder


def test_triplets_are_b_c_d_and_what_lies_beyond(tmp_path):
    material = read_clips(str(make_strips(tmp_path / "s")), PretextData())
    assert material.packed.values.shape == (120, 16, 16, 3)
    assert (material.span, material.apart, material.window) == (9, 2, 18)
    assert len(material) == 6 * 3
    train, unseen = material.split(0.2)[0]
    clips = material.windows[0]
    assert not set(clips[train]) & set(clips[unseen])
    assert len(unseen) == 6  # whole clips: two of three windows each
    stream = TripletStream(material, train, seed=1)
    first, inside, last, outside = stream.places(0, 2000)
    begin, end = np.minimum(first, last), np.maximum(first, last)
    assert (end - begin == 9).all()
    assert ((begin < inside) & (inside < end)).all()
    before, behind = begin - outside, outside - end
    assert (np.maximum(before, behind) >= 2).all()
    assert (np.maximum(before, behind) <= 4).all()
    assert 0.4 < (before > 0).mean() < 0.6
    assert 0.4 < (first < last).mean() < 0.6
    owners = np.searchsorted(material.packed.starts, np.stack([begin, end, outside]), side="right")
    assert (owners == owners[0]).all()  # all of one clip
    assert set((owners[0] - 1).tolist()) == set(clips[train].tolist())


def test_a_triplet_stream_is_seekable_and_shared(tmp_path):
    material = read_clips(str(make_strips(tmp_path / "s")), PretextData())
    rows = np.arange(len(material))
    whole = TripletStream(material, rows, seed=1).read(0, 12)
    assert set(whole) == set(FRAMES)
    later = TripletStream(material, rows, seed=1).read(8, 4)
    parts = [TripletStream(material, rows, seed=1, rank=r, world=2).read(8, 4) for r in (0, 1)]
    for name in FRAMES:
        assert np.array_equal(later[name], whole[name][8:])
        assert np.array_equal(np.concatenate([part[name] for part in parts]), later[name])


def test_windows_that_move_are_preferred(tmp_path):
    make_strips(tmp_path / "s", count=1, frames=40)
    strip = np.asarray(Image.open(tmp_path / "s" / "0.png")).reshape(16, 40, 16, 3).copy()
    strip[:, :20] = strip[:, :1]  # the first half stands still
    Image.fromarray(strip.reshape(16, 640, 3)).save(tmp_path / "s" / "0.png")
    material = read_clips(str(tmp_path / "s"), PretextData(span=4, apart=1))
    first, *_ = TripletStream(material, np.arange(len(material)), seed=0).places(0, 500)
    assert (first >= 12).all()


def test_folders_of_frames_in_the_order_of_their_numbers(tmp_path):
    for clip in "ab":
        (tmp_path / "f" / clip).mkdir(parents=True)
        for frame in range(16):
            Image.new("RGB", (16, 16), (15 * frame, 0, 0)).save(
                tmp_path / "f" / clip / f"{frame}.png"
            )
    material = read_clips(str(tmp_path / "f"), PretextData(span=3, apart=1))
    assert material.packed.names == ["a", "b"]
    assert material.packed.values[:16, 0, 0, 0].tolist() == [15 * frame for frame in range(16)]
    half = read_clips(str(tmp_path / "f"), PretextData(span=2, apart=1, every=2, clips="folders"))
    assert half.packed.lengths.tolist() == [8, 8]
    with pytest.raises(UserError, match=r"longest has 16.*smaller --span"):
        read_clips(str(tmp_path / "f"), PretextData(span=10))


def test_videos_are_clips(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for frame in range(20):
            pixels = np.full((32, 32, 3), 10 * frame, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        film.mux(stream.encode(None))
    material = read_clips(str(tmp_path), PretextData(span=4, apart=1))
    levels = material.packed.values.mean(axis=(1, 2, 3))
    assert len(levels) == 20
    assert (np.diff(levels) > 5).all()


def test_every_other_question_is_in_order():
    fields = {name: torch.full((6, 3, 8, 8), float(i)) for i, name in enumerate(FRAMES)}
    family = Pretext(PretextConfig(task="order", width=4, hidden=8), SQUARE)
    views, truth = family.questions(batch_of(6, start=3, **fields))
    assert truth.tolist() == [1, 0, 1, 0, 1, 0]
    assert views[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [0, 3, 2]] * 3
    assert family.answers[1] == "in order"


# ---- Answers, and what is seen ----


def test_an_answer_that_is_always_right_is_marked_so(tmp_path):
    material = read_clips(str(make_strips(tmp_path / "s")), PretextData())
    family = Pretext(PretextConfig(task="order", width=4, hidden=8), material.spec)
    exam = Exam.of(material, 0.2, most=40)
    assert exam.name == "held-out"
    family.asked = lambda batch: (  # type: ignore[method-assign]
        F.one_hot(family.questions(batch)[1], 2).float(),
        family.questions(batch)[1],
    )
    figure = mark(family, Device(name="cpu", precision="float32"), exam)
    assert (figure.value, figure.given, figure.parts) == (
        1.0,
        0.5,
        {"out of order": 1.0, "in order": 1.0},
    )
    assert figure.name == "pretext-accuracy[40/held-out,order,2 answers]"


@pytest.mark.long
def test_from_training_to_features_by_the_command_line(tmp_path):
    folder = make_pictures(tmp_path / "photos", count=20, classes=True)
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    run = tmp_path / "run"
    words = ["--task", "rotation", "--width", "4", "--resolution", "16", "--batch", "4"]
    out, _ = command(
        "train", "pretext", folder, "--out", run, *words,
        *("--examples", 16, "--evaluate-every", 8, "--doctor", "off"),
    )  # fmt: skip
    assert "faussaire features" in out
    figures = read_figures(run / "metrics.jsonl")
    assert [one.examples for one in figures] == [8, 16]
    assert figures[0].provenance.reference == "held-out"
    assert (run / "samples" / "000000000016.png").exists()
    assert "Questions and answers" in (run / "report.html").read_text("utf-8")
    target = tmp_path / "features.npz"
    out, err = command("features", run, folder, "--classes", "folders", "--out", target, expect=1)
    assert "20 pictures, 32 features each" in out
    assert "broken.png" in err
    with np.load(target) as found:
        assert found["features"].shape == (20, 32)
        assert found["features"].dtype == np.float32
        assert {name.split("/")[0] for name in found["names"]} == {"red", "blue"}
        assert found["classes"][found["labels"]].tolist() == [
            name.split("/")[0] for name in found["names"]
        ]
        by_name = dict(zip(found["names"].tolist(), found["features"], strict=True))
    command("features", run, folder, "--out", target, expect=2)  # never overwritten unasked
    (folder / "red" / "broken.png").unlink()
    command("features", run, folder, "--out", tmp_path / "f.csv")
    rows = list(csv.DictReader((tmp_path / "f.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 20
    for row in rows:
        assert float(row["f3"]) == pytest.approx(by_name[row["file"]][3], abs=1e-5)
    model = faussaire.load(run)
    name = next(iter(by_name))
    assert torch.allclose(
        model.features([folder / name])[0], torch.from_numpy(by_name[name]), atol=1e-4
    )
    with pytest.raises(UserError, match="makes nothing"):
        model.sample(4)
    _, err = command("sample", run, expect=2)
    assert "makes nothing" in err
    out, _ = command("evaluate", run, "--json")
    told = json.loads(out)
    assert "pretext-accuracy" in json.dumps(told)
    assert (run / "evaluation" / "questions.png").exists()


def test_features_of_discriminators_and_of_those_that_show_none(tmp_path):
    folder = make_pictures(tmp_path / "photos", count=12)
    run = faussaire.train(
        "dcgan", folder, out=tmp_path / "run", examples=16, batch=8, width=4, latent=8,
        resolution=16, rotation=1.0, doctor="off", quiet=True,
    )  # fmt: skip
    model = faussaire.load(run.path)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    seen = model.features(pictures)
    assert seen.shape == (5, 8)
    one = model.features(torch.from_numpy(pictures[2:3]).permute(0, 3, 1, 2) / 255.0)
    assert torch.allclose(seen[2:3], one, atol=1e-4)  # a row depends on its picture alone
    with pytest.raises(UserError, match=r"16x16 with 3 channels"):
        model.features(pictures[:, :8])
    with pytest.raises(UserError, match="no set of pictures"):
        model.features(pictures.astype(np.float64))
    with pytest.raises(UserError, match="cannot be read"):
        model.features([tmp_path / "nowhere.png"])
    plain = faussaire.train(
        "classic", folder, out=tmp_path / "plain", examples=16, batch=8,
        resolution=16, doctor="off", quiet=True,
    )  # fmt: skip
    with pytest.raises(UserError, match="classic does not show what it sees"):
        faussaire.load(plain.path).features(pictures)


def test_settings_that_belong_to_other_tasks_are_refused(tmp_path):
    strips = make_strips(tmp_path / "s")
    with pytest.raises(UserError, match="--flip is for pictures"):
        faussaire.train("pretext", strips, task="order", flip=True, out=tmp_path / "r", quiet=True)
    with pytest.raises(UserError, match="--span counts frames"):
        faussaire.train("pretext", strips, span=4, out=tmp_path / "r", quiet=True)
