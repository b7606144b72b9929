"""What a search varies: settings with their ranges or choices, as a user writes them or by default.

`lr=1e-5..1e-2` is a range and `batch=16,32,64` a list of choices. A name such as `discriminator_lr/lr`
is a ratio: what is searched is how many times the second setting the first one is, so that a search for
rates keeps the players' balance apart from their speed.

No torch and no Optuna here.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from faussaire.core.config import Settings, coerce, hints, resolve, sections
from faussaire.core.errors import UserError, nearest
from faussaire.core.quantity import format_plain

#: Settings that trials must agree on, or that do not touch what is trained. Trials of other data or
#: budgets, or measured in other ways, could not be ranked.
_KEPT = {
    *("examples", "for", "evaluate_every", "evaluate_metrics", "evaluate_count", "extractor"),
    *("weights", "resolution", "channels", "fit", "background", "classes", "labels", "holdout"),
    *("device", "compile", "micro", "preview_every", "save_every", "keep", "doctor"),
}
#: A collection with fewer pictures than this needs augmentation: whether, and which, is searched.
FEW_PICTURES = 5_000
_HOW = "Write it as lr=1e-5..1e-2 or batch=16,32,64."


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One thing that is searched: a range, or a list of choices.

    Attributes:
        name: a setting, or `a/b` for how many times setting b the setting a is.
        low, high: ends of the range, both included; not used where there are choices.
        whole: whether only whole numbers are in the range.
        choices: the values, where it is a list.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def log(self) -> bool:
        """Whether factors count, and not distances: where the ends are more than 10 times apart."""
        return not self.choices and self.low > 0 and self.high / self.low > 10

    @property
    def setting(self) -> str:
        """The setting that it decides."""
        return self.name.partition("/")[0]

    @property
    def base(self) -> str:
        """The setting that a ratio refers to; empty for what is no ratio."""
        return self.name.partition("/")[2]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a setting must bear if it is to bear all others."""
        return self.choices or (self.low, self.high)

    def text(self) -> str:
        """As `parse_space` reads it back, without the name."""
        if self.choices:
            return ",".join(map(format_plain, self.choices))
        return f"{format_plain(self.low)}..{format_plain(self.high)}"

    def edge(self, value: float) -> bool:
        """Whether a value lies within a twentieth of an end, as the range is drawn."""
        if self.choices:
            return False
        low, at, high = (
            math.log(one) if self.log else float(one) for one in (self.low, value, self.high)
        )
        return not 0.05 < (at - low) / (high - low) < 0.95

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        return self.nearest(value) == value

    def nearest(self, value: Any) -> Any:
        """The value of this dimension that is closest to `value`, which may be none at all."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not self.choices:
            middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
            inside = min(self.high, max(self.low, value if number else middle))
            return round(inside) if self.whole else float(inside)
        if value in self.choices:
            return value
        numbers = [one for one in self.choices if isinstance(one, int | float)]
        if not number or len(numbers) < len(self.choices):
            return self.choices[0]
        return min(numbers, key=lambda one: abs(one - value))


@dataclass(frozen=True)
class Space:
    """All that a search varies."""

    dimensions: tuple[Dimension, ...]

    def text(self) -> dict[str, str]:
        """Name -> range or choices, as tune.yaml keeps it."""
        return {one.name: one.text() for one in self.dimensions}

    def start(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """The point of the space where the search begins: the settings as they are without it.

        Args:
            flat: the settings, as `Settings.flat` gives them.
        """
        return {one.name: one.nearest(_present(one, flat)) for one in self.dimensions}

    def outside(self, flat: Mapping[str, Any]) -> list[str]:
        """Names of dimensions that the settings as they are do not lie in."""
        found = ((one, _present(one, flat)) for one in self.dimensions)
        return [one.name for one, value in found if not one.holds(value)]

    def settings(self, point: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a point of the space stands for.

        Args:
            point: a value for each dimension.
            flat: the settings underneath, to which ratios refer where their base is not searched.
        """
        found = {one.name: point[one.name] for one in self.dimensions if not one.base}
        for one in self.dimensions:
            if one.base:
                base = found.get(one.base, flat[one.base])
                found[one.setting] = float(point[one.name]) * float(base)
        # More digits than four change nothing but how the settings read.
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in found.items()
        }


def _present(dimension: Dimension, flat: Mapping[str, Any]) -> Any:
    """Where settings stand in a dimension; None where they leave it open."""
    value = flat[dimension.setting]
    if not dimension.base:
        return value
    base = flat[dimension.base]
    if not base:
        return None
    return 1.0 if value is None else value / base  # a rate that is not given is the other one


# ---- As a user writes it ----


def parse_space(words: Sequence[str], settings: Settings) -> Space:
    """The space of `--search lr=1e-5..1e-2 batch=16,32,64`.

    Raises:
        UserError: not so written, an unknown setting (with the nearest name), a range of what is no
            number, a value that the setting does not take, or a setting that trials must agree on.
    """
    known = {
        key: hint for part in sections(type(settings.model)).values() for key, hint in hints(part)
    }
    found: dict[str, Dimension] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not (name and equals and text.strip()):
            raise UserError(f"--search cannot read '{word}'.", _HOW)
        dimension = _dimension(name, text.strip(), known, settings.family)
        if any(dimension.setting == other.setting for other in found.values()):
            raise UserError(f"--search names {dimension.setting} twice.", "Name it once.")
        found[name] = dimension
    space = Space(tuple(found.values()))
    check_space(space, settings)
    return space


def _dimension(name: str, text: str, known: Mapping[str, Any], family: str) -> Dimension:
    parts = name.split("/")
    for part in parts:
        if part not in known:
            raise UserError(
                f"--search: there is no setting '{part}' for {family}.{nearest(part, known)}",
                f"`faussaire train {family} --help` lists them.",
            )
        if part in _KEPT:
            raise UserError(
                f"--search: {part} cannot be searched.",
                "Trials must agree on data, budget and measure to be ranked. Give it as a flag.",
            )
    hint = known[parts[0]]
    number = _number(hint)
    if len(parts) > 2 or (len(parts) == 2 and {_number(known[part]) for part in parts} != {float}):
        raise UserError(f"--search: {name} is no ratio of two rates or weights.", _HOW)
    read: Callable[[str], Any] = lambda value: coerce(_yaml(value), hint, name)  # noqa: E731
    if len(parts) == 2:
        read = lambda value: coerce(value, float, name)  # noqa: E731
    if ".." in text:
        if number is None:
            raise UserError(
                f"--search: {name} is no number, so it has no range.",
                f"List its values, such as {name}=a,b.",
            )
        low, _, high = (part.strip() for part in text.partition(".."))
        least, most = read(low), read(high)
        if least is None or most is None or not least < most:
            raise UserError(
                f"--search: {name} cannot go from {low or 'nothing'} to {high or 'nothing'}.",
                "Write the lower end first: lr=1e-5..1e-2.",
            )
        return Dimension(name=name, low=least, high=most, whole=number is int)
    if number is None and not _listed(hint):
        raise UserError(
            f"--search: {name} is neither a number nor one of a few words.",
            "Give it as a flag, the same for all trials.",
        )
    choices = tuple(dict.fromkeys(read(value.strip()) for value in text.split(",")))
    if len(choices) < 2:
        raise UserError(
            f"--search: {name} has one value only, {text}.",
            f"Give it as a flag: --{name.replace('_', '-')} {text}. {_HOW}",
        )
    return Dimension(name=name, choices=choices)


def _yaml(text: str) -> Any:
    """A truth value as YAML has it; everything else is read by the setting's own type."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _number(hint: Any) -> type | None:
    """`int` or `float` where a setting of this type is one, or none at all; else None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _number(arguments[0])
    if origin in (Union, types.UnionType):
        return next((found for part in arguments if (found := _number(part))), None)
    return hint if hint in (int, float) else None


def _listed(hint: Any) -> bool:
    """Whether a setting of this type takes one of a few words."""
    return hint is bool or typing.get_origin(hint) is Literal


def check_space(space: Space, settings: Settings) -> None:
    """Make sure that the family takes the ends of every range, and every choice.

    Raises:
        UserError: nothing is searched, or the setting's own sentence.
    """
    if not space.dimensions:
        raise UserError(
            "Nothing is left to search: every setting of the usual space was given as a flag.",
            "Leave a flag out, or name settings with --search, such as --search lr=1e-5..1e-2.",
        )
    flat = settings.flat()
    start = space.start(flat)
    model = type(settings.model)
    for dimension in space.dimensions:
        for value in dimension.ends:
            point = space.settings({**start, dimension.name: value}, flat)
            resolve(settings.family, settings.source, model, flat, point)


# ---- By default ----


def usual_space(settings: Settings, given: Collection[str], pictures: int) -> Space:
    """What is worth searching for these settings, around what they are without a search.

    Args:
        settings: with what each trial has in common.
        given: settings that the user has decided, which stay.
        pictures: how many there are.

    Raises:
        UserError: nothing is left.
    """
    flat = settings.flat()

    def value(name: str) -> Any:
        return None if name in given else flat.get(name)

    def around(name: str, centre: float, less: float, more: float) -> Dimension:
        # Rounded: a bound of 2.5e-5 is read, compared and typed again more easily than 2.4999e-5.
        low, high = float(f"{centre / less:.3g}"), float(f"{centre * more:.3g}")
        return Dimension(name=name, low=low, high=high)

    def among(name: str, *choices: Any) -> Dimension:
        return Dimension(name=name, choices=tuple(sorted({*choices, flat[name]})))

    found: list[Dimension] = []
    rate = flat.get("lr")
    if rate and "lr" not in given:
        found.append(around("lr", rate, 8, 8))
    if rate and "discriminator_lr" in flat and "discriminator_lr" not in given:
        found.append(around("discriminator_lr/lr", (flat["discriminator_lr"] or rate) / rate, 4, 4))
    if rate and value("lr_end"):  # the rate falls to this one, so it must move along with the rate
        found.append(around("lr_end/lr", flat["lr_end"] / rate, 4, 1))
    if value("beta1") is not None:
        found.append(among("beta1", 0.0, 0.5))
    if value("beta2") is not None:
        found.append(among("beta2", 0.9, 0.99, 0.999))
    if value("batch"):
        power = 2 ** round(math.log2(flat["batch"]))
        found.append(among("batch", *(size for size in (power // 2, power, 2 * power) if size > 1)))
    # Penalties that the game takes; a game without one is another game, and stays without.
    weights = ["r1", "r2", "gradient_penalty", "dragan"]
    if "r1" in flat and flat["r1"] is None:
        weights = ["gamma_factor", *weights]  # R3GAN's r1 is so many times the paper's
    for name in weights:
        if value(name):
            found.append(around(name, flat[name], 10, 10))
    if value("augment") and pictures < FEW_PICTURES:
        kinds = dict.fromkeys((flat["augment"], "none", "diffaugment"))
        found.append(Dimension(name="augment", choices=tuple(kinds)))
    if (steps := value("critic_steps")) and steps > 1:
        found.append(Dimension(name="critic_steps", low=1, high=2 * steps, whole=True))
    space = Space(tuple(found))
    check_space(space, settings)
    return space
