"""Which family, of what size, for these pictures on this machine: rules, each with its reason.

The rules are what `docs/families` and `benchmarks/family_quality.py` found; they are plain code so that
one can read, test and dispute them. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from faussaire.core.quantity import format_count, format_resolution

FEW = 2_000
"""Below this many pictures a plain discriminator learns them by heart within an hour."""

HANDFUL = 100
"""Below this many pictures even FastGAN has shown little but variations of them."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the advice depends on.

    Attributes:
        count: usable pictures.
        side: the shorter side of a usual picture, in pixels.
        resolution: (height, width) that training would choose by itself.
        classes: pictures by class; empty without labels.
        device: `cpu`, `cuda` or `mps`.
        memory: bytes that networks may take.
        seconds: the time there is.
        fixed_resolution: whether the user asked for `resolution`.
    """

    count: int
    side: int
    resolution: tuple[int, int]
    classes: dict[str, int]
    device: str
    memory: int
    seconds: float
    fixed_resolution: bool = False


@dataclass
class Advice:
    """What to type, and why.

    Attributes:
        family: its name.
        size: of its networks; None where it has no sizes.
        resolution: (height, width) to train at; None: what training chooses by itself.
        conditional: whether to learn by class.
        reasons: sentences, the weightiest first.
        others: what else may be tried: (family, when).
    """

    family: str
    size: str | None
    resolution: tuple[int, int] | None
    conditional: bool = False
    reasons: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)

    def flags(self) -> list[str]:
        """As on the command line, without the source."""
        words = []
        if self.resolution is not None:
            words = ["--resolution", format_resolution(*self.resolution)]
        words += ["--size", self.size] if self.size else []
        return words + (["--conditional"] if self.conditional else [])

    def settings(self) -> dict[str, object]:
        """The same as a layer of settings, without the size."""
        return {"resolution": self.resolution, "conditional": self.conditional}


def advise(facts: Facts) -> Advice:
    """The advice for these facts."""
    resolution = _resolution(facts)
    small = facts.device == "cpu"
    pixels = max(resolution or facts.resolution)
    if facts.count < FEW:
        found = Advice("fastgan", "small" if small else "base", resolution)
        found.reasons.append(
            f"{facts.count:,} pictures are few: FastGAN was made for hundreds, its discriminator must "
            "redraw what it sees and sees every picture augmented, so that it cannot learn them by "
            "heart."
        )
        found.others.append(("stylegan2", "with a GPU and a day: ADA holds out as long"))
    elif small:
        found = Advice("stylegan2", "small", resolution)
        found.reasons.append(
            "On a CPU its small size was among the best two at equal time on both sets of our benchmark "
            "(clothes and emoji, ten minutes on one core; benchmarks/family_quality.txt), and has the "
            "latent space to look around in."
        )
        found.others.append(("sngan", "as good on many pictures, with fewer parts"))
        found.others.append(
            ("dcgan", "three times as many pictures a second; shapes in two minutes")
        )
    else:
        size = "base" if facts.memory > 10 * 2**30 and facts.seconds > 4 * 3600 else "small"
        found = Advice("stylegan2", size, resolution)
        found.reasons.append(
            "StyleGAN2 with ADA is the most forgiving of the good families: it needs no tuning from "
            "two thousand pictures to millions."
        )
        if pixels <= 64 and facts.seconds > 24 * 3600:
            found.others.append(("r3gan", "the better one at 64 pixels and less, given days"))
    if len(facts.classes) > 1:
        fewest = min(facts.classes, key=lambda name: facts.classes[name])
        if facts.classes[fewest] >= 50:
            found.conditional = True
            found.reasons.append(
                f"The data have {len(facts.classes)} classes: with --conditional you can ask for one."
            )
        else:
            found.reasons.append(
                f"The class '{fewest}' has {facts.classes[fewest]} pictures, too few to learn it by "
                "itself, so classes are left out."
            )
    if facts.count < HANDFUL:
        found.reasons.append(
            f"Expect variations of your {facts.count} pictures, not new ones: a few hundred would help "
            "more than any setting."
        )
    if not facts.fixed_resolution and facts.side > pixels:
        why = "a CPU can pay for" if small else f"{format_count(facts.count)} pictures can fill"
        found.reasons.append(
            f"{pixels} pixels are what {why}; your pictures have {facts.side}, and "
            "--resolution takes more."
        )
    return found


OTHERS = {
    "tables": Advice(
        "tvae",
        None,
        None,
        reasons=[
            "On census rows who learnt from tvae's told incomes as well as from ctgan's or better, "
            "after a quarter of the time (benchmarks/tables.txt)."
        ],
        others=[("ctgan", "to ask for rows of a kind: sample --where 'job=nurse'")],
    ),
    "texts": Advice(
        "lm",
        None,
        None,
        reasons=[
            "Maximum likelihood, with a temperature: no GAN of texts here is both better and more "
            "varied (benchmarks/text_oracle.txt)."
        ],
        others=[
            ("relgan", "to see what an adversary adds: it begins as lm does"),
            ("seqgan", "the same by rewards, slowly"),
        ],
    ),
    "music": Advice("musegan", None, None, reasons=["Bars of several tracks, from MIDI."]),
    "sound": Advice("wavegan", None, None, reasons=["Clips of up to a few seconds, as waves."]),
}
"""What to train on what is not pictures, by `Family.modality`: there is less to choose from."""


def _resolution(facts: Facts) -> tuple[int, int] | None:
    """The run's own choice on a CPU; on a GPU the largest power of two that data and time allow."""
    height, width = facts.resolution
    if facts.fixed_resolution:
        return height, width
    if facts.device == "cpu":
        return None
    most = 256 if facts.seconds >= 8 * 3600 and facts.count >= 1000 else 128
    side = min(height, width)
    while 2 * side <= min(facts.side, most):
        side *= 2
    scale = side / min(height, width)
    return round(height * scale), round(width * scale)
