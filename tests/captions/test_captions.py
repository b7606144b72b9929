"""Captions: reading them, what batches hold of them, encoders, figures, and the families' own parts."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CAPTIONED, CPU, WORDED, build, captioned
from PIL import Image

from faussaire import losses
from faussaire.captions import ready
from faussaire.captions.encoder import Reader, matching_loss
from faussaire.captions.material import CaptionMaterial, read_captioned
from faussaire.captions.measures import Questions, matched, r_precision, variety
from faussaire.captions.model import CaptionedModel
from faussaire.captions.reading import read_captions
from faussaire.captions.spec import CaptionData, Captioned, normalised
from faussaire.captions.stream import CaptionStream
from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.core.clock import Clock
from faussaire.core.config import resolve
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.data.sources import open_source
from faussaire.data.stream import Stream
from faussaire.families import load_family
from faussaire.families.stackgan import divergence

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "cache"))


def draw(folder: Path, count: int = 12) -> list[str]:
    """Pictures of one colour each; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index, colour in zip(range(count), [*COLOURS.values()] * count, strict=False):
        pixels = np.full((16, 16, 3), colour, np.uint8)
        pixels[index % 16] = index
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        names.append(f"{index:03d}.png")
    return names


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def read(folder: Path, **data: object) -> tuple[list[list[str]], list[str]]:
    with open_source(folder, classes="none") as source:
        return read_captions(source, CaptionData(**data))  # type: ignore[arg-type]


# ---- Reading ----


def test_several_rows_are_several_captions_and_folders_in_names_do_not_matter(tmp_path):
    draw(tmp_path / "p", 3)
    path = table(
        tmp_path / "c.csv", "file;text\nimages\\000.png;one\n001.png;two\n000.png;un\n009.png;x\n"
    )
    found, notes = read(tmp_path / "p", captions=path)
    assert found == [["one", "un"], ["two"], []]
    assert len(notes) == 2
    assert "line 5 names '009.png'" in notes[0]
    assert "1 of 3 pictures" in notes[1]
    assert "'002.png'" in notes[1]


def test_columns_can_be_chosen_and_an_empty_cell_beside_a_full_one_is_no_caption(tmp_path):
    draw(tmp_path / "p", 2)
    text = 'name,tags,file\nred,"a|b",000.png\nblue,,001.png\n'
    path = table(tmp_path / "c.csv", text)
    found, notes = read(tmp_path / "p", captions=path, caption_columns="name, tags")
    assert found == [["red", "a|b"], ["blue"]]
    assert notes == []


def test_a_text_file_beside_each_picture(tmp_path):
    draw(tmp_path / "p", 3)
    table(tmp_path / "p" / "000.txt", "\ufeffa red one\n\nun rouge\n")
    table(tmp_path / "p" / "001.txt", "blue")
    table(tmp_path / "p" / "notes.txt", "nothing")
    found, notes = read(tmp_path / "p")
    assert found == [["a red one", "un rouge"], ["blue"], []]
    assert "notes.txt" in notes[0]
    assert "1 of 3 pictures have no caption beside them, '002.png'" in notes[1]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (
            "file,text\n000.png,\n001.png,x\n",
            {},
            r"Line 2 of '.*' has an empty caption of '000.png'",
        ),
        ("file,text\n000.png,a\n,x\n", {}, "Line 3 of '.*' names no file"),
        ("file,text\n000.png,a,b\n", {}, "Line 2 of '.*' has 3 columns, and the header has 2"),
        (
            "file,words\n000.png,a\n",
            {},
            "no column called text or caption; its columns are file, wo",
        ),
        ("text,words\n000.png,a\n", {}, "no column that names files"),
        ("file,text\n000.png,a\n", {"caption_columns": "texte"}, "no column 'texte'"),
        (
            "file,text\nother.png,a\n",
            {},
            "line 2 names 'other.png', and the first picture is '000.p",
        ),
        ("file,text\n", {}, "no rows"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path, text, options, says):
    draw(tmp_path / "p", 2)
    path = table(tmp_path / "c.csv", text)
    with pytest.raises(UserError, match=says):
        read(tmp_path / "p", captions=path, **options)


def test_other_encodings_and_missing_captions_are_told(tmp_path):
    draw(tmp_path / "p", 2)
    path = table(tmp_path / "c.csv", "file,text\n000.png,rouge\n001.png,été\n", "latin-1")
    with pytest.raises(UserError, match=r"not UTF-8: line 3"):
        read(tmp_path / "p", captions=path)
    with pytest.raises(UserError, match=r"no captions: there is no '000.txt' beside '000.png'"):
        read(tmp_path / "p")
    table(tmp_path / "p" / "000.txt", " \n ")
    with pytest.raises(UserError, match=r"000\.txt"):
        read(tmp_path / "p")


def test_captions_are_read_alike_in_french():
    assert (
        normalised("L\u2019Arc-en-ciel  D'E\u0301TE\u0301")
        == "l ' arc - en - ciel d ' \u00e9t\u00e9"
    )


def emoji(folder: Path, count: int = 120, **settings: object) -> CaptionMaterial:
    """Coloured squares with an English and a French caption, and a number."""
    names = draw(folder / "p", count)
    words = {"red": "rouge", "green": "vert", "blue": "bleu"}
    lines = ["file,text"]
    for index, name in enumerate(names):
        colour = [*words][index % 3]
        lines += [f"{name},{colour} number {index}", f"{name},{words[colour]} numéro {index}"]
    path = table(folder / "c.csv", "\n".join(lines) + "\n")
    kind = load_family("dfgan")
    flat = {"captions": path, "resolution": 16, "holdout": 0.25, **settings}
    return read_captioned(resolve("dfgan", str(folder / "p"), kind.Config, flat), kind)


def test_the_vocabulary_is_of_what_is_trained_on(tmp_path):
    material = emoji(tmp_path)
    spec = material.spec
    train, held = material.split(0.25)[0]
    assert len(held) == 30
    for picture in held:
        assert str(picture) not in spec.text.vocabulary
    assert all(str(picture) in spec.text.vocabulary for picture in train)
    assert spec.unknown("Rouge zebra 3") in (["zebra"], ["zebra", "3"])
    assert spec.strange("zebra horse")
    assert not spec.strange("zebra rouge")
    assert Captioned.of(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    assert any("30 pictures are held out, 60 of whose" in note for note in material.notes)


def test_equal_captions_everywhere_are_refused(tmp_path):
    names = draw(tmp_path / "p", 4)
    path = table(tmp_path / "c.csv", "file,text\n" + "".join(f"{name},Same\n" for name in names))
    kind = load_family("dfgan")
    settings = resolve("dfgan", str(tmp_path / "p"), kind.Config, {"captions": path})
    with pytest.raises(UserError, match="All 4 pictures have the caption 'Same'"):
        read_captioned(settings, kind)


# ---- Batches ----


def test_mismatched_captions_are_never_a_pictures_own_and_portions_do_not_matter():
    which = np.array([[0, 1, -1], [1, -1, -1], [2, 3, 4], [0, -1, -1]])
    texts = np.arange(5, dtype=np.int32)[:, None]
    images = {"images": np.arange(4, dtype=np.uint8)[:, None, None, None]}

    def stream(rank: int = 0, world: int = 1) -> CaptionStream:
        plain = Stream([images], seed=1, rank=rank, world=world)
        return CaptionStream(plain, texts, which, rows=np.arange(4), seed=2)

    whole = stream().read(0, 400)
    pictures = whole["images"].ravel()
    for picture, own, other in zip(
        pictures, whole["captions"][:, 0], whole["mismatched"][:, 0], strict=True
    ):
        assert own in which[picture]
        assert other not in which[picture]
    assert {*whole["captions"][pictures == 2, 0]} == {2, 3, 4}
    assert len({*whole["mismatched"][pictures == 1, 0]}) == 4
    halves = [stream(rank, 2).read(40, 20) for rank in range(2)]
    for name in ("captions", "mismatched"):
        both = np.concatenate([half[name] for half in halves])
        np.testing.assert_array_equal(both, whole[name][40:60])


def test_where_nearly_all_share_a_caption_the_other_is_still_found():
    which = np.zeros((500, 1), np.int64)
    which[77] = 1
    texts = np.arange(2, dtype=np.int32)[:, None]
    plain = Stream([{"images": np.zeros((500, 1, 1, 1), np.uint8)}], seed=1)
    found = CaptionStream(plain, texts, which, rows=np.arange(500), seed=2).read(0, 500)
    assert (found["captions"] != found["mismatched"]).all()


# ---- Encoders ----


def test_what_fills_a_row_does_not_change_what_is_read():
    torch.manual_seed(0)
    net = Reader(WORDED, size=8, width=6)
    short = torch.tensor([[2, 3, 4, 0], [5, 0, 0, 0]])
    long = torch.nn.functional.pad(short, (0, 5))
    torch.testing.assert_close(net(short), net(long))
    assert not torch.allclose(net(short), net(short.flip(0)))
    turned = torch.tensor([[4, 3, 2, 0]])
    assert (net(turned) - net(short[:1])).abs().max() > 1e-3  # the order of words counts


def batch_of(size: int) -> Batch:
    return Batch({}, BatchDraws(0, total=size, rows=slice(0, size)), size)


def test_the_matching_loss_is_the_papers_and_equal_captions_are_no_wrong_answers():
    torch.manual_seed(0)
    v, e = (torch.nn.functional.normalize(torch.randn(4, 6), dim=1) for _ in range(2))
    words = torch.arange(4)[:, None]
    scores = (5.0 * v @ e.T).double()
    both = scores.exp().sum(1).log() - scores.diag(), scores.exp().sum(0).log() - scores.diag()
    expected = sum(part.mean() for part in both)
    torch.testing.assert_close(matching_loss(v, e, words, 5.0, batch_of(4)).double(), expected)
    words[1] = 0
    kept = scores.clone()
    kept[0, 1] = kept[1, 0] = -torch.inf
    both = kept.exp().sum(1).log() - scores.diag(), kept.exp().sum(0).log() - scores.diag()
    expected = sum(part.mean() for part in both)
    torch.testing.assert_close(matching_loss(v, e, words, 5.0, batch_of(4)).double(), expected)


def test_a_ready_encoders_vectors_take_the_place_of_tokens(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, model: str, **options: object) -> None:
            self.model = model

        def encode(self, captions: list[str], **options: object) -> np.ndarray:
            rows = [[len(caption), caption.count("e"), 1.0] for caption in captions]
            return np.array(rows, np.float32)

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    material = emoji(tmp_path, 24, encoder="sentence-transformers:small")
    assert material.texts.dtype == np.float32
    assert material.spec.embedding == 3
    np.testing.assert_allclose(np.linalg.norm(material.texts, axis=1), 1.0, atol=1e-6)
    kind = load_family("dfgan")
    family = kind(
        kind.Config(sentence=4, reader_width=4, eye_width=2, width=2, latent=4), material.spec
    )
    state = State(family, CPU, total=100)
    stream = material.stream(CaptionData(holdout=0.25), seed=0, rank=0, world=1)
    Rounds(state, stream, Plan(batch=4), World()).play()
    model = CaptionedModel(family, material.spec, 0, CPU)
    assert model.sample(2, text=["Red!", "rouge"]).shape == (4, 3, 16, 16)
    with pytest.raises(UserError, match="none were given"):
        family.sample(RowDraws.counted(0, 2))


def test_ready_encoders_that_cannot_be_had_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"needs the package sentence_transformers") as found:
        ready.open_ready("sentence-transformers").vectors(["a"])
    assert "faussaire[words]" in found.value.hint

    def lost(model: str, **options: object) -> None:
        raise OSError("no such thing\nand more")

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = lost  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    with pytest.raises(UserError, match=r"'x/y' cannot be had \(no such thing\)"):
        ready.open_ready("sentence-transformers:x/y").vectors(["a"])
    with pytest.raises(UserError, match="no encoder 'word2vec'"):
        ready.open_ready("word2vec")


# ---- Figures ----


class Painter:
    """Paints each caption's number into a picture, and reads it back; blind: paints noise instead."""

    def __init__(self, blind: bool = False, noise: float = 0.0) -> None:
        self.blind, self.noise = blind, noise

    def sample(self, draws, *, labels, latents=None, truncation=None):
        number = labels.float().sum(1)
        if self.blind:
            number = draws.uniform() * 100.0
        canvas = (number / 500.0)[:, None, None, None].expand(-1, 3, 16, 16)
        return canvas + self.noise * draws.normal(3, 16, 16)

    @staticmethod
    def seen(images):
        return _angle(images.mean(dim=(1, 2, 3)) * 500.0)

    @staticmethod
    def read(captions):
        return _angle(captions.float().sum(1))

    def scores(self, images, captions):
        return -(images.mean(dim=(1, 2, 3)) * 500.0 - captions.float().sum(1)).abs()


def _angle(number):
    return torch.stack([(number / 300.0).cos(), (number / 300.0).sin()], dim=1)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> CaptionMaterial:
    """Pictures whose captions, as tokens, sum to numbers that all differ."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("numbered")
        patch.setenv("FAUSSAIRE_CACHE", str(folder / "cache"))
        material = emoji(folder)
    texts = np.arange(1, 1 + len(material.captions), dtype=np.int32)[:, None]
    return replace(material, texts=texts)


def test_r_precision_is_one_for_who_knows_and_chance_for_who_is_blind(numbered):
    questions = Questions(numbered, np.arange(120), count=60, seed=0)
    painter = Painter()
    made = questions.made(painter, CPU)
    assert r_precision(painter, CPU, questions, made).value == 1.0
    assert matched(painter, CPU, questions, made).value == 1.0
    blind = questions.made(Painter(blind=True), CPU)
    assert r_precision(painter, CPU, questions, blind).value < 0.15
    assert 0.3 < matched(painter, CPU, questions, blind).value < 0.7
    for row, picture in enumerate(questions.pictures):
        assert not np.isin(questions.wrong(99)[row], numbered.which[picture]).any()
        break


def test_held_out_questions_are_of_captions_that_no_trained_picture_has(numbered):
    train, held = numbered.split(0.25)[0]
    shared = numbered.which.copy()
    shared[held[0]] = shared[train[0]]
    material = replace(numbered, which=shared)
    questions = Questions(material, held, without=train, count=200, seed=0)
    assert held[0] not in questions.pictures
    assert {*questions.pictures} == {*held[1:]}
    with pytest.raises(UserError, match="is a trained picture's, too"):
        Questions(material, held[:1], without=train, count=2, seed=0)


def test_variety_is_nothing_without_noise_and_one_where_captions_decide_nothing(numbered):
    questions = Questions(numbered, np.arange(120), count=60, seed=0)
    assert variety(Painter(), CPU, questions, 8) == pytest.approx(0.0, abs=1e-3)
    assert variety(Painter(blind=True), CPU, questions, 8) == pytest.approx(1.0, abs=0.25)


# ---- Families ----


def test_the_matching_aware_penalty_of_a_linear_critic_is_known():
    a, b = torch.randn(12), torch.randn(5)
    x, e = torch.randn(7, 3, 2, 2), torch.randn(7, 5)
    found = losses.matching_penalty(lambda x, e: x.flatten(1) @ a + e @ b, x, e, 6.0)
    torch.testing.assert_close(found, (a.norm() + b.norm()) ** 6)


def test_the_divergence_is_that_of_normal_distributions():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    other = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    expected = torch.distributions.kl_divergence(one, other).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_a_dfgan_that_paints_all_white_can_still_learn():
    """Nothing is normalised in it, so with tanh at its end there would be no way back from white."""
    [case] = [case for case in CAPTIONED if case.name == "dfgan"]
    state = build(case, total=1000)
    generator = state.family.nets["generator"]
    with torch.no_grad():
        generator.paint.bias.fill_(20.0)
    fields = {name: torch.from_numpy(field[:4]) for name, field in captioned().items()}
    fields["wrong"] = fields["captions"].flip(0)
    batch = Batch(fields, BatchDraws(0, total=4, rows=slice(0, 4), device="cpu"), 4)
    clock = Clock(examples=500, rounds=0, total=1000, stage="adversarial")
    assert state.family.sample(RowDraws.counted(0, 2), labels=fields["captions"][:2]).min() == 1.0
    torch.stack([*state.family.generator_loss(batch, clock).values()]).sum().backward()
    assert generator.paint.bias.grad.abs().max() > 1e-6


def test_stackgans_samples_are_enlarged_sketches_until_it_refines():
    case = CAPTIONED[0]
    state = build(case)
    family = state.family
    for net in family.nets.values():
        net.eval()
    with torch.no_grad():
        sketch = family.sample(RowDraws.counted(0, 2))
        blocks = sketch.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        assert torch.equal(blocks.amax(4), blocks.amin(4))
        family.nets["refiner"].begun = torch.ones(())
        finished = family.sample(RowDraws.counted(0, 2))
    assert finished.shape == sketch.shape == (2, 3, 16, 16)
    assert not torch.equal(sketch, finished)
    assert [stage.name for stage in state.stages] == ["words", "sketch", "refine"]


@pytest.mark.parametrize("case", CAPTIONED, ids=str)
@pytest.mark.parametrize("shape", [(1, 16, 16), (4, 26, 17), (3, 32, 48)])
def test_families_of_words_take_any_shape(case, shape):
    channels, height, width = shape
    spec = replace(WORDED, channels=channels, height=height, width=width)
    family = type(case.make())(case.make().config, spec)
    state = State(family, CPU, total=12)
    plain = Stream([captioned(spec)], seed=0)
    texts, which = np.unique(captioned(spec)["captions"], axis=0, return_inverse=True)
    stream = CaptionStream(plain, texts, which.reshape(-1, 1), rows=np.arange(96), seed=0)
    rounds = Rounds(state, stream, Plan(batch=4), World())
    while state.clock.examples < 12:
        rounds.play()
    with torch.no_grad():
        asked = torch.from_numpy(spec.encode(["a b", "c"]))
        made = state.sampler().sample(RowDraws.counted(0, 2), labels=asked)
    assert made.shape == (2, channels, height, width)
    assert made.abs().max() <= 1.0


def test_a_model_says_which_words_it_never_met():
    model = CaptionedModel(build(CAPTIONED[1]).family, WORDED, 0, CPU)
    assert model.remarks(["a x"]) == [
        "Training never met 'x' of 'a x': the picture is of the rest."
    ]
    assert model.remarks(["a b"]) == []
    with pytest.raises(UserError, match="met no word of 'x y'"):
        model.sample(1, text="x y")
    with pytest.raises(UserError, match="empty"):
        model.sample(1, text=" ")
    one = model.sample(2, text=["a", "b"], seed=3)
    torch.testing.assert_close(one[2:], model.sample(2, text="b", seed=3))
    assert model.sample(3).shape == (3, 3, 16, 16)
