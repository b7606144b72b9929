"""`--balance auto`: what is changed in a run that is ill, and when.

A declared controller. It acts on the doctor's verdicts at fixed numbers of examples, changes nothing but
settings that the family's page explains (rates, steps, penalty, augmentation), a step at a time, waits
to see what comes of it, and goes back to the last good checkpoint where a run broke down. What it did is
told by `treated` events and kept in the checkpoints, so that a resumed run is treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faussaire.core.treatment import Treatment
from faussaire.doctor.verdicts import Verdict

PATIENCE = 4
"""Looks between two treatments: a change needs time to show."""
SURE = 0.95
"""Confidence from which a verdict is acted on: five looks that say so."""
AWAKE = 0.25
"""Progress before which a generator may still make one blot beside a discriminator that is never wrong,
and get over it: DCGAN on emoji does. Held back at 18 % of its run, that discriminator taught nothing."""
_OF_THE_YOUNG = ("collapse", "discriminator too strong")
MOST = 8
"""Treatments in a run; what they did not help is beyond rates and penalties."""
RESCUES = 4
"""Times that a run is taken back."""
GENTLER = 0.5
"""Factor on both rates where a run breaks down or goes in circles."""
APART = 0.5
"""Factor on the rate of the player that is too strong."""
LOST = 3.0
"""Distance from which a generator that was taught nothing does not find back: it begins anew."""
RATIO = 4.0
"""How many times the generator's rate the discriminator's is, at most."""
HELD_BACK = 4
"""Steps of the generator for each of a discriminator that wins, at most."""

Settings = Mapping[str, Any]
Remedy = Callable[[Settings], dict[str, Any]]


@dataclass
class Balance:
    """Decides on treatments.

    Attributes:
        settings: the family's, as they are now.
        changed: those that were changed, with their present values.
        treatments, rescues: how many there were.
        waited: looks since the last one.
    """

    settings: dict[str, Any]
    changed: dict[str, Any] = field(default_factory=dict)
    treatments: int = 0
    rescues: int = 0
    waited: int = 0

    def treat(
        self, verdict: Verdict, checkpoints: Sequence[int], well: int, progress: float = 1.0
    ) -> Treatment | None:
        """What is to be done about a verdict, once after each look.

        Args:
            verdict: of this look.
            progress: of the run.
            checkpoints: examples seen at those that can be gone back to.
            well: examples seen at the last look that found nothing wrong; -1: none did.
        """
        self.waited += 1
        remedy = _REMEDIES.get(verdict.name)
        if remedy is None or self.waited < PATIENCE or self.treatments >= MOST:
            return None
        if progress < AWAKE and verdict.name in _OF_THE_YOUNG:
            return None
        if verdict.confidence < SURE and verdict.name != "diverging":
            return None
        lost = any(one.sign == "distance" and one.value > LOST for one in verdict.evidence)
        if lost or verdict.name in ("diverging", "collapse"):
            return self.rescue(verdict.title, checkpoints, well, remedy)
        settings = remedy({**self.settings, **self.changed})
        if not settings:
            return None
        return self._prescribe(settings, f"{verdict.title}: {_words(settings)}")

    def rescue(
        self,
        what: str,
        checkpoints: Sequence[int],
        well: int,
        remedy: Remedy | None = None,
    ) -> Treatment | None:
        """Back to the last good checkpoint, with a remedy; without one, with smaller steps."""
        if self.rescues >= RESCUES:
            return None
        settings = (remedy or _gentler)({**self.settings, **self.changed})
        good = [examples for examples in checkpoints if examples <= max(well, 0)]
        if not settings or not good:
            return None
        self.rescues += 1
        why = f"{what}: back to {good[-1]:,} examples, and {_words(settings)}"
        return self._prescribe(settings, why, back_to=good[-1])

    def _prescribe(
        self, settings: dict[str, Any], why: str, back_to: int | None = None
    ) -> Treatment:
        self.changed |= settings
        self.treatments, self.waited = self.treatments + 1, 0
        return Treatment(settings=settings, why=why, back_to=back_to)

    def record(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        return {
            "changed": dict(self.changed),
            "treatments": self.treatments,
            "rescues": self.rescues,
            "waited": self.waited,
        }

    def load(self, record: Mapping[str, Any]) -> None:
        """Put back what `record` gave."""
        self.changed = dict(record["changed"])
        self.treatments, self.rescues = int(record["treatments"]), int(record["rescues"])
        self.waited = int(record["waited"])


def _words(settings: Settings) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )


def _discriminator_rate(settings: Settings) -> float:
    return float(settings.get("discriminator_lr") or settings["lr"])


def _gentler(settings: Settings) -> dict[str, Any]:
    """Both rates lower."""
    if "lr" not in settings:
        return {}
    found = {"lr": GENTLER * settings["lr"]}
    if settings.get("discriminator_lr"):
        found["discriminator_lr"] = GENTLER * settings["discriminator_lr"]
    return found


def _recover(settings: Settings) -> dict[str, Any]:
    """What never came to life beside a much faster discriminator catches up; else both are gentler."""
    if "discriminator_lr" in settings and settings["lr"] < _discriminator_rate(settings) / RATIO:
        return {"lr": _discriminator_rate(settings) / RATIO}
    return _gentler(settings)


def _weaken(settings: Settings) -> dict[str, Any]:
    """A discriminator that wins is trained less often, then held back, and its rate lowered.

    A generator that is much slower than it (two rates differ by four at most in the papers) catches up.
    """
    if "discriminator_lr" not in settings or settings.get("gradient_penalty"):
        return _fewer_steps(settings)
    rate = _discriminator_rate(settings)
    found = {**_fewer_steps(settings), "discriminator_lr": APART * rate}
    if settings["lr"] < rate / RATIO:
        found["lr"] = rate / RATIO
    return found


def _fewer_steps(settings: Settings) -> dict[str, Any]:
    if (steps := settings.get("critic_steps", 1)) > 1:
        return {"critic_steps": max(1, steps // 4)}
    if "generator_steps" in settings and settings["generator_steps"] < HELD_BACK:
        return {"generator_steps": 2 * settings["generator_steps"]}
    return {}


def _strengthen(settings: Settings) -> dict[str, Any]:
    """A discriminator that sees nothing learns as fast as its opponent, or that one waits for it."""
    if "discriminator_lr" not in settings:
        return {}
    found: dict[str, Any] = {}
    if settings.get("generator_steps", 1) > 1:
        found["generator_steps"] = settings["generator_steps"] // 2
    rate = _discriminator_rate(settings)
    if rate < settings["lr"]:
        found["discriminator_lr"] = settings["lr"]
    else:
        found["lr"] = APART * settings["lr"]
        found["discriminator_lr"] = rate
    return found


def _distract(settings: Settings) -> dict[str, Any]:
    """A discriminator that learns by heart sees each picture differently, or is restrained."""
    if settings.get("augment") == "none":
        return {"augment": "diffaugment"}
    if settings.get("r1"):
        return {"r1": 2.0 * settings["r1"]}
    if "discriminator_lr" in settings:
        return {"discriminator_lr": APART * _discriminator_rate(settings)}
    return {}


_REMEDIES: Mapping[str, Remedy] = {
    "diverging": _gentler,
    "collapse": _recover,
    "oscillating": _gentler,
    "discriminator too strong": _weaken,
    "discriminator too weak": _strengthen,
    "memorising": _distract,
}
