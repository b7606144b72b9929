"""The runs that the doctor is measured on: what is trained, and what is wrong with it, if anything.

`design` is what we meant to happen; what did happen is decided by `truth.py`, without the doctor's
signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

HEALTHY = "healthy"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training run.

    Attributes:
        data: a set of `data.py`, or `ring` or `grid`.
        family: of pictures; None for points.
        settings: that differ from the family's defaults (pictures) or from `POINTS`.
        examples: the budget.
        design: `healthy`, or the illness that the settings should bring.
        seed: of the run.
    """

    data: str
    design: str
    examples: int
    family: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def name(self) -> str:
        """Says all of it, and is a file's name."""
        words = [
            self.data,
            self.family or "points",
            *(f"{k}={v}" for k, v in self.settings.items()),
        ]
        return "-".join([self.design.replace(" ", "_"), *words, f"s{self.seed}"]).replace("/", "_")


# Dense networks of modes.py, quick to learn.
POINTS = {"width": 128, "lr": 1e-3}
# About a minute on one core.
BUDGET = {
    "dcgan": 80_000,
    "classic": 30_000,
    "sngan": 40_000,
    "r3gan": 20_000,
    "stylegan2": 20_000,
    "msggan": 14_000,
    "progan": 24_000,
    "biggan": 24_000,
}
SETS = {"first": 0, "second": 10, "third": 20}
"""What is added to the seeds of a set; the second and third were trained after the rules stood."""
PATIENT = 2
"""How many times its pictures R3GAN has in the third set; of 20,000 it may have half of the classes yet,
and looks like what it is, young, whether it is ill or not."""


def points(data: str, design: str, seed: int = 0, **settings: Any) -> Case:
    """A million points; a critic that is trained more often sees more."""
    return Case(data=data, design=design, examples=1_000_000, settings=settings, seed=seed)


def pictures(family: str, data: str, design: str, seed: int = 0, **settings: Any) -> Case:
    """A minute of pictures of 32x32."""
    return Case(
        data=data,
        design=design,
        examples=BUDGET[family],
        family=family,
        settings=settings,
        seed=seed,
    )


def cases(which: str = "first") -> Iterator[Case]:
    """All of a set, in an order in which any beginning has something of everything."""
    healthy, ill = list(_healthy()), list(_ill())
    for index in range(max(len(healthy), len(ill))):
        for case in healthy[index : index + 1] + ill[index : index + 1]:
            patient = PATIENT if which == "third" and case.family == "r3gan" else 1
            examples = patient * case.examples
            yield replace(case, seed=case.seed + SETS[which], examples=examples)


def _healthy() -> Iterator[Case]:
    paired = {"loss": "relativistic", "r1": 0.1, "r2": 0.1}
    penalised = {"r1": 0.1}
    critic = {"loss": "wasserstein", "gradient_penalty": 10.0, "critic_steps": 5}
    yield points("ring", HEALTHY, 0, **paired)
    yield pictures("dcgan", "fashion", HEALTHY, 0)
    yield points("grid", HEALTHY, 0, **paired)
    yield pictures("sngan", "digits", HEALTHY, 0)
    yield points("ring", HEALTHY, 0, **penalised)
    yield pictures("r3gan", "fashion", HEALTHY, 0)
    yield pictures("dcgan", "emoji", HEALTHY, 0)
    yield points("grid", HEALTHY, 0, **penalised)
    yield pictures("stylegan2", "fashion", HEALTHY, 0)
    yield pictures("sngan", "digits", HEALTHY, 0, conditional=True)
    yield points("ring", HEALTHY, 0, **critic)
    yield pictures("classic", "digits", HEALTHY, 0)
    yield pictures("sngan", "emoji", HEALTHY, 0)
    yield points("ring", HEALTHY, 1, **paired)
    yield pictures("dcgan", "digits", HEALTHY, 1)
    yield pictures("r3gan", "emoji", HEALTHY, 0)
    yield points("grid", HEALTHY, 1, **paired)
    yield pictures("dcgan", "fashion-boots", HEALTHY, 0)  # one kind of thing is no collapse
    yield pictures("stylegan2", "emoji", HEALTHY, 0)
    yield points("ring", HEALTHY, 1, **penalised)
    yield pictures("sngan", "fashion", HEALTHY, 0)
    yield pictures("r3gan", "digits", HEALTHY, 0)
    yield points("grid", HEALTHY, 0, **critic)
    yield pictures("msggan", "fashion", HEALTHY, 0)
    yield pictures("dcgan", "fashion", HEALTHY, 1)
    yield pictures("sngan", "fashion", HEALTHY, 0, conditional=True)
    yield pictures("stylegan2", "digits", HEALTHY, 0)
    yield pictures("classic", "fashion", HEALTHY, 0)
    yield points("grid", HEALTHY, 1, **penalised)
    yield pictures("dcgan", "emoji", HEALTHY, 1)
    yield pictures("progan", "fashion", HEALTHY, 0)
    yield pictures("biggan", "digits", HEALTHY, 0, conditional=True)
    yield pictures("sngan", "digits", HEALTHY, 1)
    yield pictures("r3gan", "fashion-boots", HEALTHY, 0)
    yield pictures("classic", "emoji", HEALTHY, 0)
    yield pictures("dcgan", "digits", HEALTHY, 0)


def _ill() -> Iterator[Case]:
    rates, weak, strong = "rates too high", "critic too weak", "critic too strong"
    frozen, bare, narrow = "generator frozen", "no penalty", "one latent number"
    slow, tiny = "rates too low", "critic too small"
    few, labels = "ten pictures", "labels shuffled"
    yield points("ring", rates, lr=0.05)
    yield pictures("dcgan", "fashion", rates, lr=0.02)
    yield pictures("dcgan", "digits-ten", few)
    yield pictures("sngan", "digits-shuffled", labels, conditional=True)
    yield points("grid", bare)
    yield pictures("r3gan", "fashion", weak, discriminator_lr=1e-7)
    yield pictures("dcgan", "digits", frozen, lr=1e-7, discriminator_lr=2e-4)
    yield points("ring", frozen, lr=1e-7, discriminator_lr=1e-3)
    yield pictures("dcgan", "fashion", bare, loss="wasserstein")
    yield pictures("dcgan", "fashion", narrow, latent=1)
    yield points("grid", weak, lr=1e-3, discriminator_lr=1e-7)
    yield pictures("classic", "digits", rates, lr=0.01)
    yield pictures("sngan", "fashion-ten", few)
    yield points("ring", bare)
    yield pictures("dcgan", "fashion", strong, critic_steps=20, discriminator_lr=2e-3, lr=2e-5)
    yield pictures("sngan", "emoji", frozen, lr=1e-7, discriminator_lr=2e-4)
    yield points("grid", rates, lr=0.05)
    yield pictures("r3gan", "digits", rates, lr=0.03)
    yield pictures("stylegan2", "emoji-ten", few)
    yield points("ring", strong, critic_steps=20, discriminator_lr=1e-2, lr=1e-5)
    yield pictures("sngan", "fashion-shuffled", labels, conditional=True)
    yield pictures("dcgan", "fashion", weak, discriminator_lr=1e-6)
    yield points("grid", frozen, lr=1e-7, discriminator_lr=1e-3)
    yield pictures("r3gan", "fashion", bare, r1=0.0, r2=0.0)
    yield pictures("sngan", "digits", narrow, latent=1)
    small = {"discriminator_width": 2, "discriminator_max_width": 2}
    yield pictures("sngan", "fashion", tiny, **small)
    yield pictures("stylegan2", "fashion", rates, lr=0.1)
    yield points("ring", weak, lr=1e-3, discriminator_lr=1e-7)
    yield pictures("sngan", "fashion", rates, lr=0.02)
    yield pictures("r3gan", "fashion-ten", few)
    yield points("grid", strong, critic_steps=20, discriminator_lr=1e-2, lr=1e-5)
    yield pictures("stylegan2", "fashion", frozen, lr=1e-7, discriminator_lr=2e-3)
    yield pictures("biggan", "digits-shuffled", labels, conditional=True)
    yield pictures("sngan", "digits", weak, discriminator_lr=1e-7)
    yield pictures("classic", "digits", slow, loss="minimax", optimiser="sgd", lr=0.001)
    yield pictures("dcgan", "emoji-ten", few)
    yield pictures("r3gan", "digits", narrow, latent=1)
