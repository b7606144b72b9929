"""What to do about a verdict, as settings that can be typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from faussaire.doctor.verdicts import Verdict

Settings = Mapping[str, Any]


def advice(verdict: Verdict, settings: Settings) -> list[str]:
    """Sentences, the most promising first; empty where nothing is wrong.

    Args:
        settings: the run's, flat, by the names of flags; those that a family lacks are not advised.
    """
    remedy = _REMEDIES.get(verdict.name)
    if remedy is None:
        return []
    return [*remedy(settings)] or ["Try a family that is hard to upset: sngan or r3gan."]


def _rates(settings: Settings, player: str, factor: float) -> str | None:
    """`--discriminator-lr 1e-4`: a player's rate times a factor; None where it has no such setting."""
    lr = settings.get("lr")
    if not isinstance(lr, float | int) or not lr:
        return None
    if player == "both":
        own = settings.get("discriminator_lr")
        other = f" --discriminator-lr {factor * own:.2g}" if own else ""
        return f"--lr {factor * lr:.2g}{other}"
    if player == "generator":
        # The discriminator follows lr where it has no rate of its own.
        keep = settings.get("discriminator_lr") or lr
        other = f" --discriminator-lr {keep:.2g}" if "discriminator_lr" in settings else ""
        return f"--lr {factor * lr:.2g}{other}"
    if "discriminator_lr" not in settings:
        return None
    return f"--discriminator-lr {factor * (settings['discriminator_lr'] or lr):.2g}"


def _penalise(settings: Settings) -> Iterator[str]:
    """Penalties on D's gradient, where the game has them and this run does not."""
    if "r1" not in settings:
        return
    r1, penalty = settings.get("r1"), settings.get("gradient_penalty")
    if not r1 and not penalty:
        flag = "--gradient-penalty 10" if settings.get("loss") == "wasserstein" else "--r1 1"
        yield (
            f"Restrain the discriminator: {flag} keeps its slope, and so the generator's gradient, "
            "in bounds."
        )
    elif r1:
        yield f"Restrain the discriminator more: --r1 {4 * r1:.2g}."


def _too_strong(settings: Settings) -> Iterator[str]:
    if (settings.get("critic_steps") or 1) > 1 and not settings.get("gradient_penalty"):
        yield f"Train it less often: --critic-steps 1 in place of {settings['critic_steps']}."
    yield from _penalise(settings)
    if flag := _rates(settings, "discriminator", 0.25):
        yield f"Slow it down: {flag}."
    if settings.get("loss") == "minimax":
        yield "--loss nonsaturating: minimax gives no gradient where the discriminator wins."
    if settings.get("augment") == "none":
        yield "With fewer than some thousand pictures: --augment diffaugment."
    if "loss" in settings and settings["loss"] in ("nonsaturating", "minimax"):
        yield "--loss hinge or --loss relativistic keep teaching where it wins."


def _too_weak(settings: Settings) -> Iterator[str]:
    if flag := _rates(settings, "discriminator", 4.0):
        yield f"Let it learn faster: {flag}."
    if "critic_steps" in settings:
        yield f"Train it more often: --critic-steps {2 * (settings['critic_steps'] or 1)}."
    if settings.get("r1"):
        yield f"Restrain it less: --r1 {settings['r1'] / 4:.2g}."
    yield "Give it more width: --size one step up (see `faussaire families FAMILY`)."


def _collapse(settings: Settings) -> Iterator[str]:
    latent = settings.get("latent")
    if isinstance(latent, int) and latent < 16:
        yield f"More latent numbers: --latent 64 in place of {latent}."
    if settings.get("loss") in ("nonsaturating", "minimax", "least-squares") and "r1" in settings:
        yield "--loss relativistic --r1 0.1 --r2 0.1: this game has no collapsed state to rest in."
    else:
        yield from _penalise(settings)
    if flag := _rates(settings, "both", 0.25):
        yield f"Smaller steps: {flag}."
    batch = settings.get("batch")
    if isinstance(batch, int) and batch < 32:
        yield "Larger batches: --batch 64 shows the discriminator that samples are all alike."
    yield (
        "Look at the data: `faussaire check SOURCE` counts duplicates; pictures that are nearly all "
        "alike teach nothing else."
    )


def _diverging(settings: Settings) -> Iterator[str]:
    if flag := _rates(settings, "both", 0.25):
        yield f"Smaller steps: {flag}."
    if settings.get("loss") == "wasserstein" and not (
        settings.get("gradient_penalty") or settings.get("clip")
    ):
        yield "A Wasserstein critic needs bounds: --gradient-penalty 10, or --clip 0.01."
    else:
        yield from _penalise(settings)
    if (settings.get("beta1") or 0) > 0.5:
        yield f"--beta1 0.5 or 0 in place of {settings['beta1']:g}: momentum feeds the circling."


def _memorising(settings: Settings) -> Iterator[str]:
    if settings.get("augment") == "none":
        yield "--augment diffaugment: the discriminator no longer sees the same picture twice."
    if settings.get("flip") is False:
        yield "--flip, if a mirrored picture is as good as the picture."
    yield (
        "More pictures; or take an earlier checkpoint: `faussaire evaluate RUN --checkpoint ...` "
        "compares them."
    )
    yield "The family fastgan is made for a few hundred pictures."


def _stalled(settings: Settings) -> Iterator[str]:
    lr = settings.get("lr")
    if isinstance(lr, float | int) and lr < 5e-5:
        yield f"The generator hardly moves: --lr 2e-4 in place of {lr:g}."
    yield "Larger networks: --size one step up; or another family: `faussaire advise SOURCE`."
    if flag := _rates(settings, "both", 2.0):
        yield f"Larger steps: {flag}."


def _oscillating(settings: Settings) -> Iterator[str]:
    yield from _diverging(settings)
    if settings.get("lr_decay") == "none":
        yield "--lr-decay linear lets the players settle."


def _labels_ignored(settings: Settings) -> Iterator[str]:
    yield "sngan and biggan judge pictures and labels together (projection): try `--conditional` there."
    yield "Give it more time: labels are mostly learnt after looks."


def _labels_unfit(settings: Settings) -> Iterator[str]:
    yield (
        "Look at the labels: `faussaire check SOURCE` shows pictures by class; a shifted or shuffled "
        "labels.csv is the usual cause."
    )
    yield "If they mean something that the eye does not see at a glance, ignore this."


_REMEDIES: Mapping[str, Callable[[Settings], Iterator[str]]] = {
    "collapse": _collapse,
    "partial collapse": _collapse,
    "discriminator too strong": _too_strong,
    "discriminator too weak": _too_weak,
    "oscillating": _oscillating,
    "diverging": _diverging,
    "memorising": _memorising,
    "stalled": _stalled,
    "labels ignored": _labels_ignored,
    "labels unfit": _labels_unfit,
}
