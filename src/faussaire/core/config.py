"""Settings: dataclasses in Python, one flat namespace for flags and YAML, one precedence.

Defaults lie under the preset, the preset under `--config run.yaml`, that under flags (or keyword
arguments). A name means the same everywhere: the flag `--max-width`, the YAML key and the keyword
`max_width`. The one exception is `for`, a reserved word in Python, whose keyword is `duration`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro
import yaml

from faussaire.core.errors import UserError, nearest
from faussaire.core.figures import choose_metrics
from faussaire.core.quantity import (
    format_resolution,
    parse_count,
    parse_duration,
    parse_resolution,
)


@dataclass(frozen=True)
class Quantity:
    """Marks a type whose values people write with a unit.

    Attributes:
        parse: text to value; raises UserError.
        write: value to text that `parse` reads back.
    """

    parse: Callable[[Any], Any]
    write: Callable[[Any], str]


def _flag(quantity: Quantity, metavar: str, kind: type) -> Any:
    """How tyro reads and shows a quantity."""

    def read(arguments: list[str]) -> Any:
        try:
            return quantity.parse(arguments[0])
        except UserError as error:
            raise ValueError(str(error)) from error

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [quantity.write(value)],
    )


def _parse_micro(text: Any) -> int:
    return AUTO if str(text).strip().lower() == "auto" else parse_count(text)


AUTO = 0
"""The value of `micro` that is yet to be found."""

_COUNT = Quantity(parse_count, str)
_MICRO = Quantity(_parse_micro, lambda rows: "auto" if rows == AUTO else str(rows))
_INTERVAL = Quantity(partial(parse_count, least=0), str)
_DURATION = Quantity(parse_duration, lambda seconds: f"{seconds:g}s")
_RESOLUTION = Quantity(parse_resolution, lambda size: format_resolution(*size))

Count = Annotated[int, _COUNT, _flag(_COUNT, "N", int)]
Micro = Annotated[int, _MICRO, _flag(_MICRO, "auto|N", int)]
Interval = Annotated[int, _INTERVAL, _flag(_INTERVAL, "N", int)]
Duration = Annotated[float, _DURATION, _flag(_DURATION, "TIME", float)]
Resolution = Annotated[tuple[int, int], _RESOLUTION, _flag(_RESOLUTION, "SIZE", tuple)]


def check_range(config: Any, **bounds: tuple[float | None, float | None]) -> None:
    """Refuse numbers outside their bounds, which belong to the range; None leaves a side open.

    Raises:
        UserError: with the setting, its value and its range.
    """
    for name, (least, most) in bounds.items():
        value = getattr(config, name)
        low = least is None or value >= least
        high = most is None or value <= most
        if not (low and high):
            above = "" if least is None else f"at least {least}"
            below = "" if most is None else f"at most {most}"
            raise UserError(
                f"{name} cannot be {value}.",
                f"It must be {' and '.join(filter(None, (above, below)))}.",
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How data of any kind are read.

    Attributes:
        holdout: share of the data that is not trained on, by which the doctor tells learning from
            learning by heart. None: 2 %, of 500 at most, where there are 1,000 examples or more.
    """

    holdout: float | None = None

    def __post_init__(self) -> None:
        if self.holdout is not None:
            check_range(self, holdout=(0, 0.9))

    def share(self, unseen: int, count: int) -> float:
        """What `config.yaml` keeps as `holdout`: the share asked for, else that of `unseen` of `count`.

        Not what an asked share comes to: the same command must find its own run unchanged.
        """
        return unseen / count if self.holdout is None else self.holdout


@dataclass(frozen=True, kw_only=True)
class PictureData(DataConfig):
    """How pictures are read.

    Attributes:
        resolution: pixels to train at: 64, or WIDTHxHEIGHT such as 128x96. None: the pictures' own
            size if all are equal and small, else 64.
        channels: `auto` keeps grey pictures grey and makes the rest RGB; `grey`, `rgb` or `rgba`
            asks for one.
        fit: `crop` resizes the shorter side and cuts the middle, `pad` shows all with borders,
            `squash` distorts. `tiles` does not resize: it cuts each picture into as many pieces of the
            resolution as fit.
        background: colour behind transparent pixels and in borders, as a name or #rrggbb.
        classes: where class names come from: `folders` takes sub-folders, `none` ignores all,
            `auto` takes what the source states (labels.csv, a label column, an array's labels), and
            any other word names a column of the table.
        labels: a CSV file with the columns file and label.
        flip: mirror half of the pictures left to right; not for text or digits.
        margin: keep pictures larger than the resolution by this share, and cut each at a random place
            whenever it is trained on; 0.12 is the jitter of pix2pix, 286 pixels for 256.
    """

    resolution: Resolution | None = None
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    fit: Literal["crop", "pad", "squash", "tiles"] = "crop"
    background: str = "white"
    classes: str = "auto"
    labels: Path | None = None
    flip: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, margin=(0, 1))


@dataclass(frozen=True, kw_only=True)
class PartlyLabelledData(PictureData):
    """How pictures are read of which some have a label.

    A picture without one has no row in labels.csv, or an empty one, or -1 among an array's labels. With
    --classes folders it lies in no folder of a class, or in one called `unlabelled`.

    Attributes:
        labels_only: tell training so few labels, as many of each class, and hide the others: to see
            how well it would do with so few. Held-out pictures keep theirs. None: all.
        labels_seed: which they are.
    """

    labels_only: Count | None = None
    labels_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, labels_seed=(0, None))


@dataclass(frozen=True, kw_only=True)
class TwoData(PictureData):
    """How two sets of pictures are read, which are no pairs.

    Attributes:
        target: the second set; the second word after the family says it, too.
    """

    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class PairData(TwoData):
    """How pairs of pictures are read: an input, and what it is to become.

    Attributes:
        target: folder (or another source) of what the pictures of the source are to become, with
            equal names; the second word after the family says it, too.
        halves: the source has both side by side, the input on the left.
        backward: learn the other way round, from the target (or the right half) to the source.
    """

    halves: bool = False
    backward: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.halves and self.target is not None:
            raise UserError(
                f"--halves says that pairs lie side by side, and --target {self.target} that they "
                "lie in two places.",
                "Give one of them.",
            )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, on what and with which care to train.

    Attributes:
        examples: pictures (rows, sentences) to see in all; a picture seen twice counts twice.
        duration: train for this long instead (the flag is --for), such as 90s, 10m or 2h.
        batch: examples in a batch, over all processes. On the command line `auto` keeps the family's
            own and finds out how many of them fit into memory at once (micro).
        micro: examples that each process handles at once; a larger batch is gone through in parts
            whose gradients are added up. `auto`: as many as fit; None: all.
        seed: of every random number; the same seed gives the same run.
        device: `auto` takes a GPU where there is one.
        precision: `bfloat16` multiplies in bf16 and keeps weights and losses in float32; `auto`
            does so where the hardware has it.
        compile: `on` compiles the networks with torch.compile; `auto` does where it has been seen
            to repay its minute, on GPUs and in long runs.
        half_life: of the averaged weights, in examples; None: the family's own.
        preview_every: examples between previews; None: about 24 previews in the run; 0: none.
        save_every: time between checkpoints.
        keep: how many of the latest checkpoints are kept; the best measured one stays besides.
        evaluate_every: examples between measurements; 0: none. Measuring is not counted in --for.
        evaluate_metrics: what is measured; the first decides which checkpoint is best. `auto` is fid
            for samples, and what the family says for pictures made from pictures.
        evaluate_count: samples measured, or pairs at most.
        extractor: network that sees for the metrics; `auto`: the first of inception-2015,
            squeezenet1.1 and pixels that can be had.
        weights: a file or folder with weights of extractors (also: FAUSSAIRE_WEIGHTS).
        doctor: examine the players while they train, and say what is wrong. It changes nothing, and
            takes 2 % of the time.
        stop_when: end the run early, if the doctor is certain: `collapsed` when the samples have
            collapsed or numbers diverge (exit code 3), `finished` when more training changes nothing.
        balance: `auto` acts on the doctor's verdicts: holds back a discriminator that wins, lowers
            rates, augments, and goes back to the last good checkpoint where a run breaks down.
    """

    examples: Count | None = None
    duration: Annotated[Duration | None, tyro.conf.arg(name="for")] = None
    batch: int = 64
    micro: Micro | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    half_life: Count | None = None
    preview_every: Interval | None = None
    save_every: Duration = 120.0
    keep: int = 3
    evaluate_every: Interval = 0
    evaluate_metrics: str = "auto"
    evaluate_count: Count = 5_000
    extractor: str = "auto"
    weights: Path | None = None
    doctor: Literal["on", "off"] = "on"
    stop_when: Literal["never", "collapsed", "finished"] = "never"
    balance: Literal["off", "auto"] = "off"

    def __post_init__(self) -> None:
        check_range(self, batch=(1, 1_000_000), keep=(1, None), seed=(0, None))
        if self.evaluate_metrics != "auto":
            choose_metrics(self.evaluate_metrics)
        if self.balance == "auto" and self.doctor == "off":
            raise UserError(
                "--balance auto acts on the doctor's verdicts, and --doctor off was given.",
                "Leave out one of them.",
            )
        if self.examples is not None and self.duration is not None:
            raise UserError(
                "Both --examples and --for were given, and they may disagree.", "Give one of them."
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides a run, and nothing that does not.

    `data` is a `DataConfig` of the kind that the family asks for, `model` the family's own Config.
    """

    family: str
    source: str
    data: Any
    training: TrainingConfig
    model: Any

    def flat(self) -> dict[str, Any]:
        """One mapping of plain YAML values; `resolve` reads it back."""
        found: dict[str, Any] = {"family": self.family, "source": self.source}
        for section in (self.data, self.training, self.model):
            for key, (hint, value) in _fields(section).items():
                found[key] = _plain(hint, value)
        return found


def sections(model: type) -> dict[str, type]:
    """The dataclasses that share the flat namespace; a family's own may ask for other data."""
    return {"data": getattr(model, "Data", PictureData), "training": TrainingConfig, "model": model}


def resolve(family: str, source: str, model: type, *layers: Mapping[str, Any]) -> Settings:
    """Settings from layers of flat values, later ones over earlier ones.

    Args:
        family: its name.
        source: where the data are.
        model: the family's Config.
        layers: keys as in YAML; values as in YAML or already of their type. The keys `family` and
            `source`, which a stored run has beside its settings, are passed over.

    Raises:
        UserError: an unknown key (with the nearest known one), or a value of the wrong kind.
    """
    known = {key: (name, hint) for name, cls in sections(model).items() for key, hint in hints(cls)}
    values: dict[str, dict[str, Any]] = {name: {} for name in sections(model)}
    for layer in layers:
        for written, value in layer.items():
            if written in ("family", "source"):
                continue
            key = {"duration": "for"}.get(written, written.replace("-", "_"))
            if key == "batch" and value == "auto":
                key = "micro"
            if key not in known:
                raise UserError(
                    f"There is no setting '{written}' for {family}.{nearest(key, known)}",
                    f"`faussaire train {family} --help` lists them.",
                )
            section, hint = known[key]
            values[section][_attribute(key)] = coerce(value, hint, key)
        # A budget given on top replaces the kind of budget below it.
        for key, other in (("examples", "duration"), ("duration", "examples")):
            written = {"duration": "for"}.get(key, key)
            beside = {"duration": "for"}.get(other, other)
            given = layer.get(written, layer.get(key)) is not None
            if given and layer.get(beside, layer.get(other)) is None:
                values["training"][other] = None
    built = {name: cls(**values[name]) for name, cls in sections(model).items()}
    return Settings(family=family, source=source, **built)


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat mapping from a YAML file.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}.", "Check --config.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise UserError(f"'{path}' is not YAML: {where}.", "Mend the line it names.") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"'{path}' is not a list of settings.", "Write lines such as `batch: 64`.")
    return content


def write_yaml(values: Mapping[str, Any]) -> str:
    """The YAML text of a flat mapping, order kept."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def coerce(value: Any, hint: Any, key: str) -> Any:
    """A value from YAML or Python as the type that a field declares.

    Raises:
        UserError: it does not fit, with what would.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        quantity = next((note for note in arguments[1:] if isinstance(note, Quantity)), None)
        return quantity.parse(value) if quantity else coerce(value, arguments[0], key)
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return coerce(value, next(part for part in arguments if part is not type(None)), key)
    if origin is Literal:
        text = _literal(value)
        if text not in arguments:
            raise UserError(
                f"{key} cannot be '{text}'.{nearest(str(text), map(str, arguments))}",
                f"It is one of: {', '.join(map(str, arguments))}.",
            )
        return text
    if hint is bool and isinstance(value, bool):
        return value
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is str and isinstance(value, str):
        return value
    if hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 2e-4 as text
        except (TypeError, ValueError):
            number = float("nan")
        if hint is float and math.isfinite(number):
            return number
        if hint is int and math.isfinite(number) and number == int(number):
            return int(number)
    wanted = getattr(hint, "__name__", str(hint))
    raise UserError(f"{key} cannot be {value!r}.", f"It must be of the kind: {wanted}.")


def _literal(value: Any) -> Any:
    """YAML reads on and off as truth values; settings mean the words."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _attribute(key: str) -> str:
    return "duration" if key == "for" else key


def hints(cls: type) -> list[tuple[str, Any]]:
    """Keys in the flat namespace and their types, metadata kept."""
    found = typing.get_type_hints(cls, include_extras=True)
    return [
        ("for" if field.name == "duration" else field.name, found[field.name])
        for field in dataclasses.fields(cls)
    ]


def _fields(section: Any) -> dict[str, tuple[Any, Any]]:
    return {key: (hint, getattr(section, _attribute(key))) for key, hint in hints(type(section))}


def _plain(hint: Any, value: Any) -> Any:
    """A field's value as YAML holds it."""
    if value is None:
        return None
    quantity = _quantity(hint)
    if quantity is not None and quantity not in (_COUNT, _INTERVAL):
        return quantity.write(value)
    return str(value) if isinstance(value, Path) else value


def _quantity(hint: Any) -> Quantity | None:
    """The quantity somewhere in a type such as `Annotated[Duration | None, ...]`."""
    if isinstance(hint, Quantity):
        return hint
    parts = typing.get_args(hint) if typing.get_origin(hint) is not Literal else ()
    return next((found for part in parts if (found := _quantity(part)) is not None), None)
