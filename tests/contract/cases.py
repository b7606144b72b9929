"""The cases that every contract test runs over: real families in tiny form, and the toys.

A new family adds one line to `FAMILIES`, and inherits the whole suite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faussaire.captions.spec import Captioned
from faussaire.captions.stream import CaptionStream
from faussaire.core.batch import RowDraws
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.family import Family, Pictures
from faussaire.core.loop import Loop, Plan
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.families import load_family
from faussaire.metrics.maps import NETWORKS, FeatureMaps, Recipe
from faussaire.music.spec import Score
from faussaire.sound.spec import Sound
from faussaire.tables.spec import Column, TableSpec
from faussaire.tables.stream import ConditionStream
from faussaire.texts.tokens import TextSpec
from toys import TOYS


@dataclass(frozen=True)
class Case:
    """A family small enough for a test.

    Attributes:
        name: of the test's parameter.
        make: builds the family for a picture shape and classes (ignored by toys).
        stream: builds its data for (rank, world).
        same_split: whether two processes must end with the weights of one (dropout, which draws
            inside a network, is different on each process).
        pictures: whether it is a picture family.
        batch: examples in a batch.
        scale: length of its runs relative to the toys'.
        grey: whether it learns from grey pictures, too.
        slow: whether only `make test-all` has it: another configuration of a family that it has.
        game: whether two players play, whom the doctor could look at.
    """

    name: str
    make: Callable[..., Family[Any]]
    stream: Callable[[int, int], Any]
    same_split: bool = True
    pictures: bool = False
    batch: int = 16
    scale: float = 1.0
    grey: bool = True
    slow: bool = False
    game: bool = True
    table: Callable[[Pictures], dict[str, np.ndarray]] | None = None
    """What the doctor is shown of its data."""

    def examples(self, count: int) -> int:
        """`count` examples of a toy run, in proportion to what this case can afford."""
        return round(count * self.scale)

    def __str__(self) -> str:
        return self.name


def pictures(spec: Pictures, count: int = 96) -> dict[str, np.ndarray]:
    """Discs of random place and colour, with labels: (N, H, W, C) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: spec.height, : spec.width]
    centres = rng.uniform(0.3, 0.7, size=(count, 2)) * (spec.height, spec.width)
    radius = min(spec.height, spec.width) / 4
    inside = np.hypot(y - centres[:, :1, None], x - centres[:, 1:, None]) < radius
    colours = rng.integers(0, 256, size=(count, 1, 1, spec.channels))
    return {
        "images": np.where(inside[..., None], colours, 255 - colours).astype(np.uint8),
        "labels": rng.integers(max(1, len(spec.classes)), size=count),
    }


def pairs(spec: Pictures) -> dict[str, np.ndarray]:
    """Discs, and the same in negative with `spec.input_channels` to make them from."""
    images = pictures(spec)["images"]
    inputs = np.repeat(255 - images[..., :1], spec.input_channels, axis=3)
    return {"inputs": inputs, "images": images}


SMALL = Pictures(channels=3, height=16, width=16, classes=("a", "b", "c"))


def _family(name: str, **settings: Any) -> Case:
    def make(spec: Pictures = SMALL) -> Family[Any]:
        family = load_family(name)
        return family(family.Config(**settings), spec)

    label = "-".join(
        [name, *(f"{key}={value}" for key, value in settings.items() if key in LABELS)]
    )
    return Case(
        name=label,
        make=make,
        stream=lambda rank, world: Stream(
            [pictures(SMALL)], seed=3, flip=("images",), rank=rank, world=world
        ),
        pictures=True,
        batch=4,
        scale=1 / 40,
        table=pictures,
    )


def _partly_labelled(name: str, **settings: Any) -> Case:
    """A family that learns from pictures with a label and from others without."""

    def tables(spec: Pictures) -> list[dict[str, np.ndarray]]:
        known = pictures(spec)
        told = {"labelled": known["images"][::3], "labels": known["labels"][::3]}
        return [{"images": known["images"]}, told]

    def together(spec: Pictures) -> dict[str, np.ndarray]:
        known = pictures(spec)
        return {"images": known["images"], "labelled": known["images"], "labels": known["labels"]}

    return replace(
        _family(name, **settings),
        stream=lambda rank, world: Stream(
            tables(SMALL), seed=3, flip=("images", "labelled"), rank=rank, world=world
        ),
        table=together,
    )


def _translator(
    name: str,
    *,
    together: bool = True,
    inputs: int = 3,
    grey: bool = True,
    slow: bool = False,
    **settings: Any,
) -> Case:
    """A family that makes pictures of pictures, from pairs or from two sets."""

    def fitting(spec: Pictures) -> Pictures:
        return replace(spec, input_channels=inputs, classes=())

    def make(spec: Pictures = SMALL) -> Family[Any]:
        family = load_family(name)
        own = family.makes(family.Config(**settings), spec.channels)
        spec = replace(fitting(spec), input_channels=own or inputs)
        return family(family.Config(**settings), spec)

    def tables(spec: Pictures) -> list[dict[str, np.ndarray]]:
        fields = pairs(fitting(spec))
        return [fields] if together else [{key: value} for key, value in fields.items()]

    label = "-".join(
        [name, *(f"{key}={value}" for key, value in settings.items() if key in LABELS)]
    )
    return Case(
        name=label,
        make=make,
        stream=lambda rank, world: Stream(
            tables(SMALL), seed=3, flip=("images", "inputs"), rank=rank, world=world
        ),
        pictures=True,
        batch=4,
        scale=1 / 40,
        grey=grey,
        slow=slow,
        table=lambda spec: pairs(fitting(spec)),
    )


def _looking(case: Case) -> Case:
    """The same without files: its frozen network is random, and so is what it is to paint like."""

    def make(spec: Pictures = SMALL) -> Family[Any]:
        family = case.make(spec)
        family.maps = random_maps(family.recipe)  # type: ignore[attr-defined]
        if hasattr(family, "learn"):
            generator = torch.Generator().manual_seed(12)
            family.learn(torch.rand(1, 3, 24, 20, generator=generator) * 2.0 - 1.0)
        return family

    return replace(case, make=make, game=False)


def random_maps(recipe: Recipe) -> FeatureMaps:
    """SqueezeNet 1.1 as it is before it has learnt anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        net, layers = NETWORKS["squeezenet1.1"].build()
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
    return FeatureMaps(
        net.get_submodule("features").children(),
        layers,
        recipe.layers,
        mean=(0.5,) * 3,
        deviation=(0.25,) * 3,
        pool=recipe.pool,
    )


def forged(
    family: Family[Any], draws: RowDraws, labels: torch.Tensor | None = None
) -> torch.Tensor:
    """Samples, or what a family makes of pictures such that it is of its own size.

    Row i is made of the same one, however many there are.
    """
    if family.modality == "pretext":  # which makes nothing, and sees
        rows = torch.tensor(pictures(family.spec)["images"][: draws.size])
        return family.features(rows.permute(0, 3, 1, 2) / 127.5 - 1.0)
    if not family.applies:
        return family.sample(draws, labels=labels)
    spec, scale = family.spec, family.scale
    small = replace(
        spec, channels=family.takes, height=spec.height // scale, width=spec.width // scale
    )
    rows = pictures(small)["images"][: draws.size]
    return family.apply(torch.tensor(rows).permute(0, 3, 1, 2) / 127.5 - 1.0, draws)


def _encoder() -> Case:
    """An encoder for a generator that has learnt nothing."""
    kind = load_family("e4e")

    def make(spec: Pictures = SMALL) -> Family[Any]:
        spec = replace(spec, classes=(), input_channels=spec.channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(13)
            target = load_family("stylegan2")
            generator = target(target.Config(latent=8, style=8, width=16, max_width=8), spec)
        family = kind(
            kind.Config(
                **{"generator": Path("run"), "layers": len(generator.affines()), "numbers": 8},
                **{"width": 8, "max_width": 8, "critic_width": 16, "perceptual": "none"},
                **{"offsets_from": 0.0, "offsets_until": 0.0, "lr": 1e-4, "penalty_every": 4},
            ),
            spec,
        )
        family.prove(generator)  # type: ignore[attr-defined]
        return family

    case = _translator("e4e", inputs=3)
    return replace(
        case,
        make=make,
        game=False,
        stream=lambda rank, world: Stream(
            [pictures(SMALL)], seed=3, flip=("images",), rank=rank, world=world
        ),
        table=lambda spec: {"images": pictures(spec)["images"]},
    )


LABELS = {
    "conditional",
    "generator",
    "loss",
    "make",
    "net",
    "noise",
    "optimiser",
    "rotation",
    "spread",
}
STYLEGAN2 = {
    "latent": 8,
    "style": 8,
    "width": 16,
    "max_width": 8,
    "stddev_group": 2,  # what two processes see of a batch of four
    "lr": 0.001,
    **{"noise": True, "mixing": 0.9, "path_length": 2.0},  # the papers' game
}
VAES = (
    {"net": "mlp", "hidden": 16},
    {"width": 4, "likelihood": "gaussian", "conditional": True, "anneal": 0.5},
    {"width": 4, "likelihood": "gaussian", "spread": "pixel", "binarise": True},
)
FAMILIES = [
    _family("classic"),
    _family("classic", loss="minimax", optimiser="sgd", lr=0.01, critic_steps=2),
    _family("dcgan", width=8),
    _family("dcgan", width=8, conditional=True),
    # Batches of their own by level; halves of 2 pictures form the groups of the whole.
    _family(
        "progan",
        **{"fmap_base": 64, "fmap_max": 16, "latent": 8, "stddev_group": 2, "batches": "8:8,16:4"},
        **{"loss": "wasserstein", "gradient_penalty": 10.0, "drift": 1e-3, "lr": 1e-3},
    ),
    _family("progan", fmap_base=64, fmap_max=16, latent=8, stddev_group=2, conditional=True),
    _family(
        "msggan",
        **{"fmap_base": 64, "fmap_max": 16, "latent": 8, "stddev_group": 2, "combine": "lin-cat"},
    ),
    _family(
        "msggan",
        **{"fmap_base": 64, "fmap_max": 16, "latent": 8, "stddev_group": 2, "lr": 1e-3},
        **{"conditional": True, "loss": "wasserstein", "gradient_penalty": 10.0, "drift": 1e-3},
    ),
    # The game's settings, all of which every image family has.
    _family("dcgan", width=8, loss="relativistic", r1=0.1, r2=0.1, augment="diffaugment"),
    _family(
        "dcgan",
        width=8,
        loss="hinge",
        r1=1.0,
        penalty_every=4,
        augment="ada",
        ada_span=100.0,
        lecam=0.3,
        consistency=1.0,
        drift=0.001,
        lr_decay="linear",
    ),
    _family("dcgan", width=8, loss="wasserstein", gradient_penalty=1.0, dragan=1.0, critic_steps=2),
    _family("r3gan", width=16, blocks=1, augment_p=0.3),
    _family("r3gan", width=16, blocks=1, conditional=True),
    _family("sngan", width=8, max_width=16, critic_steps=2),
    _family("biggan", width=4, chunk=4, shared=8),
    _family("biggan", width=4, chunk=4, shared=8, conditional=True, attention=8, critic_steps=2),
    _family("sngan", width=8, max_width=16, conditional=True, attention=8, generator_spectral=True),
    _family("dcgan", width=8, rotation=1.0, conditional=True),
    _family("sngan", width=8, max_width=16, rotation=1.0),
    _family("biggan", width=4, chunk=4, shared=8, rotation=1.0),
    _family("stylegan2", **STYLEGAN2),
    _family("stylegan2", **{**STYLEGAN2, "noise": False, "mixing": 0.0, "path_length": 0.0}),
    _family("stylegan2", **STYLEGAN2, conditional=True, critic="plain"),
    _family("fastgan", width=4, latent=16),
    _family("fastgan", width=4, latent=16, conditional=True, augment="ada", ada_span=100.0),
    _partly_labelled("sgan", width=4, generator_width=4),
    _partly_labelled(
        "sgan", net="dense", hidden="24,16", generator_hidden="16,16", latent=8, lr=1e-3
    ),
    *(replace(_family("vae", **how, latent=4), game=False) for how in VAES),
    _family("vaegan", width=4, latent=4),
    _family("vaegan", width=4, latent=4, conditional=True, loss="minimax", warm_up=0.05),
    _translator("pix2pix", inputs=1, width=8),
    _translator("pix2pix", width=8, make="mask", loss="hinge", r1=1.0, augment="diffaugment"),
    _translator(
        "superres",
        **{"width": 8, "blocks": 2, "discriminator_width": 4},
        **{"perceptual": "none", "pixel_share": 0.05},
    ),
    _translator(
        "superres",
        **{"net": "rrdb", "width": 8, "blocks": 1, "grow": 4, "tail": "steps", "scale": 4},
        **{"loss": "relativistic-average", "degradation": "photo", "residual": False},
        **{"discriminator_width": 4, "perceptual": "none", "pixel_share": 0.1},
        slow=True,
    ),
    _translator("colorize", grey=False, width=8),
    # In so short a run every logit is within the hinge's margins, where D's last bias has no gradient.
    _translator(
        "inpaint", width=4, discriminator_width=8, blocks=1, loss="nonsaturating", r1=0.001
    ),
    _translator(
        "inpaint",
        **{"generator": "gated", "masks": "thin", "loss": "least-squares", "width": 4},
        discriminator_width=8,
        slow=True,
    ),
    _translator("cyclegan", together=False, width=8, discriminator_width=8, blocks=1, pool=6),
    _looking(
        _translator(
            "faststyle",
            **{
                "style": Path("painting.png"),
                "perceptual": "squeezenet1.1",
                "width": 4,
                "blocks": 1,
            },
            lr=1e-4,  # its biases begin at 0, and their gradients are near it: Adam's steps are chance
        )
    ),
    _looking(_translator("adain", together=False, perceptual="squeezenet1.1", width=4, lr=1e-4)),
    _encoder(),
]
WORDED = Captioned(
    channels=3,
    height=16,
    width=16,
    text=TextSpec(vocabulary=("<end>", "<unk>", *"abcdef"), length=4),
    known=("a", "b c", "d e f"),
)


def captioned(spec: Captioned = WORDED, count: int = 96) -> dict[str, np.ndarray]:
    """Discs with captions of one to four letters."""
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice([*"abcdef"], rng.integers(1, 5))) for _ in range(count)]
    return {
        "images": pictures(spec, count)["images"],
        "captions": spec.encode(" ".join(text) for text in texts),
    }


def _worded(name: str, **settings: Any) -> Case:
    """A family that makes pictures of words."""

    def make(spec: Any = None) -> Family[Any]:
        family = load_family(name)
        return family(family.Config(**settings), WORDED)

    def stream(rank: int, world: int) -> CaptionStream:
        table, rows = captioned(), np.arange(96)
        plain = Stream([table], seed=3, flip=("images",), rank=rank, world=world)
        texts, which = np.unique(table["captions"], axis=0, return_inverse=True)
        return CaptionStream(plain, texts, which.reshape(-1, 1), rows=rows, seed=4)

    return Case(
        name="-".join([name, *(key for key in settings if key in ("r1", "augment"))]),
        make=make,
        stream=stream,
        pictures=True,
        batch=4,
        scale=1 / 40,
        table=lambda spec: captioned(),
    )


WORDS = {
    "words_share": 0.04,
    "sentence": 8,
    "reader_width": 8,
    "eye_width": 4,
    "latent": 8,
    "width": 4,
}
CAPTIONED = [
    _worded("stackgan", **WORDS, augmented=4, compressed=4, blocks=1, lr=1e-3),
    _worded("dfgan", **WORDS, lr=1e-4, discriminator_lr=4e-4),
]
SENTENCES = TextSpec(vocabulary=("<end>", "<unk>", *"abcdef"), length=6)


def sentences(count: int = 96) -> dict[str, np.ndarray]:
    """Letters in the order of the alphabet, from any of them on, of 2 to 6 tokens with their end."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(6, size=(count, 1)), rng.integers(1, 6, size=(count, 1))
    places = np.arange(SENTENCES.length)
    return {"tokens": np.where(places < lengths, 2 + (starts + places) % 6, 0).astype(np.int32)}


def _text(name: str, *, same_split: bool = True, game: bool = True, **settings: Any) -> Case:
    """A family that writes sentences."""

    def make(spec: Any = None) -> Family[Any]:
        family = load_family(name)
        return family(family.Config(**settings), SENTENCES)

    label = "-".join([name, *(f"{key}={settings[key]}" for key in ("dropout",) if key in settings)])
    return Case(
        name=label,
        make=make,
        stream=lambda rank, world: Stream([sentences()], seed=3, rank=rank, world=world),
        same_split=same_split,
        batch=8,
        scale=1 / 4,
        game=game,
        table=lambda spec: sentences(),
    )


SEQGAN = {
    **{"embedding": 8, "hidden": 12, "discriminator_embedding": 8, "filters": 0.02, "dropout": 0.0},
    **{"critic_steps": 2, "rollouts": 2, "lr": 1e-3, "policy_lr": 1e-3, "discriminator_lr": 1e-3},
    **{"likelihood_share": 0.1, "critic_share": 0.1, "game": False},
}
RELGAN = {
    **{"embedding": 8, "head_size": 4, "slots": 2, "representations": 3, "representation_size": 2},
    **{"filters": 0.02, "dropout": 0.0, "critic_steps": 2, "beta": 4.0, "likelihood_share": 0.1},
    **{"lr": 1e-3, "adversarial_lr": 1e-3, "discriminator_lr": 1e-3, "game": False},
}
TEXTS = [
    _text("lm", embedding=8, hidden=16, layers=2, dropout=0.0, game=False),
    _text("seqgan", **SEQGAN),
    _text("seqgan", **{**SEQGAN, "dropout": 0.25}, same_split=False),
    _text("relgan", **RELGAN),
    _text("relgan", **{**RELGAN, "dropout": 0.25}, same_split=False),
]


SCORE = Score(
    tracks=("drums", "bass"),
    programs=(-1, 33),
    **{"bars": 2, "beats": 2, "beat_steps": 2, "pitches": 24, "lowest": 36},
)


def chords(score: Score = SCORE, count: int = 96) -> dict[str, np.ndarray]:
    """Rolls in which each track holds one pitch of its own through a bar."""
    rng = np.random.default_rng(0)
    rolls = np.zeros((count, *score.shape), np.uint8)
    places = np.indices((count, score.bars, len(score.tracks)))
    pitches = rng.integers(score.pitches, size=places.shape[1:])
    rolls[places[0], places[1], :, pitches, places[2]] = 1
    return {"rolls": rolls}


CLIP = Sound(rate=8000, length=4096, classes=("low", "high"))


def tones(spec: Sound = CLIP, count: int = 96) -> dict[str, np.ndarray]:
    """Sines of two pitches, int16, and which."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=count)
    time = np.arange(spec.length) / spec.rate
    phases = rng.uniform(0, 2 * np.pi, size=(count, 1))
    frequencies = np.array([200.0, 800.0])[labels][:, None]
    waves = np.sin(2 * np.pi * frequencies * time + phases)
    return {"waves": (16000 * waves).astype(np.int16), "labels": labels}


def _other(
    name: str,
    spec: Any,
    table: dict[str, np.ndarray],
    *,
    scale: float = 1 / 40,
    slow: bool = False,
    **settings: Any,
) -> Case:
    """A family of music or sound."""
    family = load_family(name)
    words = [
        f"{key}={value}" for key, value in settings.items() if key in ("binary", "conditional")
    ]
    return Case(
        name="-".join([name, *words]),
        make=lambda given=None: family(family.Config(**settings), spec),
        stream=lambda rank, world: Stream([table], seed=3, rank=rank, world=world),
        batch=4,
        scale=scale,
        slow=slow,
    )


PHRASES = {"shared": 8, "private": 4, "width": 8, "critic_steps": 2}
WAVES = {"latent": 8, "width": 2, "critic_steps": 2}
OTHERS = [
    # Hardly trained, a fixed threshold leaves nothing but silence, which is the same for all seeds.
    _other("musegan", SCORE, chords(), **PHRASES, binary="stochastic"),
    _other("musegan", SCORE, chords(), **{**PHRASES, "private": 0}, binary="stochastic", slow=True),
    _other("wavegan", CLIP, tones(), **WAVES, lr=1e-3),
    _other("wavegan", CLIP, tones(), **WAVES, lr=1e-3, conditional=True, post_filter=32, slow=True),
]
MODES = {"means": (0.0, 5.0), "deviations": (1.0, 1.0), "weights": (0.5, 0.5)}
ROWS = TableSpec(
    columns=(
        Column(name="x", kind="real", **MODES, points=(2.0,), missing="", low=-4.0, high=9.0),
        Column(name="sex", kind="category", values=("f", "m"), shares=(0.6, 0.4)),
        Column(name="y", kind="integer", **MODES, low=-4.0, high=9.0),
        Column(name="job", kind="category", values=("a", "b", "c"), shares=(0.7, 0.2, 0.1)),
    )
)


def table_rows(count: int = 96) -> dict[str, np.ndarray]:
    """Encoded rows in which one column tells much of the others."""
    rng = np.random.default_rng(0)
    job = rng.choice(3, count, p=(0.7, 0.2, 0.1))
    sex = np.where(rng.random(count) < 0.8, job > 0, rng.integers(2, size=count))
    modes = [rng.integers(4, size=count), (job + rng.integers(2, size=count)) % 2]
    alphas = rng.uniform(-0.5, 0.5, (count, 2)) * np.stack([modes[0] < 2, modes[1] < 2], 1)
    places = np.stack([*modes, sex, job], axis=1)
    return {"alphas": alphas.astype(np.float32), "places": places.astype(np.int32)}


def _table(name: str, *, same_split: bool = True, game: bool = True, **settings: Any) -> Case:
    """A family that makes rows of a table."""

    def make(spec: Any = None) -> Family[Any]:
        family = load_family(name)
        return family(family.Config(**settings), ROWS)

    def stream(rank: int, world: int) -> Any:
        if name == "ctgan":
            return ConditionStream(ROWS, **table_rows(), seed=3, rank=rank, world=world)
        return Stream([table_rows()], seed=3, rank=rank, world=world)

    label = "-".join([name, *(f"{key}={settings[key]}" for key in ("dropout",) if key in settings)])
    return Case(
        name=label,
        make=make,
        stream=stream,
        same_split=same_split,
        batch=16,
        scale=1 / 2,
        game=game,
        table=lambda spec: table_rows(),
    )


ASKED = Pictures(channels=3, height=32, width=32)


def frames(spec: Pictures = ASKED) -> dict[str, np.ndarray]:
    """Three frames of a disc that moves, and one that lies beyond them: see `pretext/clips.py`."""
    images = pictures(spec)["images"]
    moved = {"first": 0, "inside": 3, "last": 6, "outside": 9}
    return {name: np.roll(images, step, axis=2) for name, step in moved.items()}


def _pretext(task: str, **settings: Any) -> Case:
    """A family that answers questions."""
    family = load_family("pretext")
    table = frames() if task == "order" else pictures(ASKED)
    config = family.Config(task=task, width=4, hidden=8, **settings)
    return Case(
        name=f"pretext-task={task}",
        make=lambda spec=None: family(config, ASKED),
        stream=lambda rank, world: Stream([table], seed=3, rank=rank, world=world),
        batch=4,
        scale=1 / 40,
    )


PRETEXT = [_pretext("rotation"), _pretext("position", pairs=2), _pretext("order")]
CTGAN = {"latent": 4, "width": 16, "critic_width": 16, "pac": 4, "lr": 1e-3, "critic_lr": 1e-3}
TABLES = [
    _table("ctgan", **CTGAN, dropout=0.0),
    _table("ctgan", **CTGAN, dropout=0.5, critic_steps=2, same_split=False),
    _table("tvae", latent=4, width=16, game=False),
]
CASES = [
    *FAMILIES,
    *CAPTIONED,
    *TEXTS,
    *TABLES,
    *OTHERS,
    *PRETEXT,
    *(
        Case(
            name=name,
            make=lambda spec=None, toy=toy: toy.family(),
            stream=toy.stream,
            same_split=name != "growing",
        )
        for name, toy in TOYS.items()
    ),
]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """Parametrises a test by cases; slow ones are marked."""
    marked = [pytest.param(one, marks=pytest.mark.slow if one.slow else ()) for one in cases]
    return pytest.mark.parametrize("case", marked, ids=str)


CPU = Device(name="cpu", precision="float32")
TOTAL = 3840


def build(case: Case, *, seed: int = 0, device: Device = CPU, total: int = TOTAL) -> State:
    """A fresh state whose initial weights depend on the seed alone."""
    torch.manual_seed(seed)
    return State(case.make(), device, total=case.examples(total))


def train(case: Case, state: State, until: int, *, world: World | None = None, **loop: Any) -> Loop:
    """Train the state to `case.examples(until)` (or a little more, where rounds are large)."""
    world = world or World()
    plan = Plan(batch=case.batch, seed=5, **loop.pop("plan", {}))
    stream = case.stream(world.rank, world.size)
    running = Loop(state, stream, plan, world=world, **loop)
    running._complete = lambda: state.clock.examples >= case.examples(until)  # type: ignore[method-assign]
    running.run()
    return running


def content(state: State) -> dict[str, torch.Tensor]:
    """All that training changes, as clones."""
    return {
        f"{group}/{name}": value.detach().clone()
        for group, tensors in state.tensors().items()
        for name, value in tensors.items()
    }


def differing(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not equal bit for bit."""
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]
