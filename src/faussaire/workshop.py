"""What a run needs before its folder is touched: pictures, device, and how to build a state."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import ImageColor

from faussaire.core.batch import mix
from faussaire.core.config import Settings
from faussaire.core.device import Device, has_compiler, keep_memory
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.family import Family, Pictures
from faussaire.core.loop import Plan, Rounds
from faussaire.core.quantity import format_resolution
from faussaire.core.state import State
from faussaire.data.check import Check, check
from faussaire.data.pack import Images, pack
from faussaire.data.plan import PackOptions
from faussaire.data.sources import open_source
from faussaire.data.stream import Stream
from faussaire.families import load_family
from faussaire.nn import fused

DEFAULT_EXAMPLES = 200_000
_PREVIEWS = 24
_CHANNELS = {"auto": "auto", "grey": "L", "rgb": "RGB", "rgba": "RGBA"}

Progress = Callable[[str, int, int], None]


# ---- Data ----


def read_pictures(
    settings: Settings,
    kind: type[Family[Any]],
    *,
    progress: Progress | None = None,
    preflight: bool = True,
) -> tuple[Images, Check | None]:
    """The pictures of a source, packed, and what the preflight says of them, if it is wanted.

    Raises:
        UserError: nothing usable, or an option that does not fit.
    """
    data = settings.data
    try:
        background = ImageColor.getrgb(data.background)[:3]
    except ValueError as error:
        raise UserError(
            f"'{data.background}' is not a colour.", "Write white, black or #rrggbb."
        ) from error
    options = PackOptions(
        resolution=data.resolution,
        channels=_CHANNELS[data.channels],  # pyright: ignore[reportArgumentType]
        fit=data.fit,
        background=background,  # pyright: ignore[reportArgumentType]
    )
    with open_source(settings.source, classes=data.classes, labels=data.labels) as source:
        images = pack(source, options, progress=progress)
        height, width = images.resolution
        if data.resolution is None and min(height, width) < kind.least_side:
            times = math.ceil(kind.least_side / min(height, width))
            larger = dataclasses.replace(options, resolution=(height * times, width * times))
            images = pack(source, larger, progress=progress)
        asked = data.resolution
        report = (
            check(source, asked, channels=options.channels, progress=progress)
            if preflight
            else None
        )
        return images, report


def describe_data(images: Images, report: Check, source: str) -> dict[str, Any]:
    """What `data.json` holds."""
    height, width = images.resolution
    return {
        "source": source,
        "kind": report.kind,
        "count": len(images),
        "resolution": format_resolution(height, width),
        "resolution_why": images.meta.get("resolution_why", ""),
        "channels": images.channels,
        "classes": images.classes,
        "class_counts": dict(report.classes),
        "key": images.key,
        "left_out": images.left_out,
        "warnings": [warning.text for warning in report.warnings],
        "notes": images.notes,
    }


# ---- Building ----


@dataclass
class Workshop:
    """Everything a run needs before its folder is touched: data, device, and how to build a state."""

    settings: Settings
    kind: type[Family[Any]]
    images: Images
    report: Check | None
    world: World
    device: Device

    @classmethod
    def open(
        cls, settings: Settings, *, progress: Progress | None = None, world: World | None = None
    ) -> Workshop:
        """Read the data and choose the device.

        Raises:
            UserError: a setting, the source or the device does not fit.
        """
        kind = load_family(settings.family)
        training = settings.training
        world = world or join(settings)
        device = Device.choose(
            training.device,
            training.precision,
            compile=training.compile == "on",
            local_rank=world.local_rank,
        )
        world.rows(training.batch)
        if device.kind == "cpu":
            keep_memory()
        if device.kind == "cpu" and world.size > 1:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world.size)))
            torch.set_num_threads(max(1, torch.get_num_threads() // here))
        fused.reduce_statistics = world.sum if world.size > 1 else None
        if world.leads:
            images, report = read_pictures(settings, kind, progress=progress)
        world.barrier()
        if not world.leads:
            images, report = read_pictures(settings, kind, preflight=False)
        shop = cls(settings, kind, images, report, world, device)
        with torch.device("meta"):
            kind(settings.model, shop.spec)  # what does not fit is told before anything is written
        return shop

    @property
    def spec(self) -> Pictures:
        """What the family is told of the data."""
        height, width = self.images.resolution
        return Pictures(
            channels=self.images.channels,
            height=height,
            width=width,
            classes=tuple(self.images.classes),
        )

    def stream(self) -> Stream:
        """The endless stream of this process."""
        table = {"images": self.images.pixels}
        if self.images.labels is not None:
            table["labels"] = self.images.labels
        return Stream(
            [table],
            seed=mix(self.settings.training.seed, "order"),
            flip=("images",) if self.settings.data.flip else (),
            rank=self.world.rank,
            world=self.world.size,
        )

    def state(self, total: int) -> State:
        """A fresh state; initial weights depend on the seed alone, so all processes agree."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.settings.training.seed, "weights"))
            family = self.kind(self.settings.model, self.spec)
            return State(
                family, self.device, total=total, half_life=self.settings.training.half_life
            )

    def plan(self, total: int) -> Plan:
        """The loop's plan."""
        training = self.settings.training
        preview = training.preview_every
        if preview is None:
            preview = max(training.batch, round(total / _PREVIEWS))
        return Plan(
            batch=training.batch,
            seed=training.seed,
            seconds=training.duration,
            preview_every=preview,
            save_every=training.save_every,
            evaluate_every=training.evaluate_every,
        )

    def measure(self, rounds: int = 3) -> Measurement:
        """Play a few real rounds on a throw-away state and time them."""
        state = self.state(DEFAULT_EXAMPLES)
        playing = Rounds(state, self.stream(), self.plan(DEFAULT_EXAMPLES), self.world)
        playing.play()  # allocations, kernel choice and compilation happen once
        self.device.synchronise()
        before, seen = time.perf_counter(), state.clock.examples
        for _ in range(rounds):
            playing.play()
        playing.means.take(self.world)
        self.device.synchronise()
        taken = time.perf_counter() - before
        per_second = torch.tensor([(state.clock.examples - seen) / taken])
        self.world.mean_([per_second])
        return Measurement(
            per_second=float(per_second),
            memory=self.device.peak_memory(),
            parameters=count_parameters(state),
        )


@dataclass(frozen=True)
class Measurement:
    """What three real rounds tell.

    Attributes:
        per_second: examples per second over all processes.
        memory: peak memory in bytes.
        parameters: trainable numbers by net.
    """

    per_second: float
    memory: int
    parameters: Mapping[str, int]


def count_parameters(state: State) -> dict[str, int]:
    """Trainable numbers by net."""
    return {
        name: sum(parameter.numel() for parameter in net.parameters())
        for name, net in state.family.nets.items()
    }


def choose_compilation(settings: Settings, kind: str, seconds: float) -> bool:
    """Whether compiling repays itself in a run of about `seconds`.

    On CPUs the layers of `nn.fused` leave a compiler little to gain, so it is used where asked for.
    On GPUs it pays once a run lasts much longer than the minute or two that it takes.
    """
    if settings.training.compile != "auto":
        return settings.training.compile == "on"
    return kind == "cuda" and has_compiler() and seconds > 1800


def join(settings: Settings) -> World:
    """The processes of this run, connected as its device needs."""
    device = settings.training.device
    return World.join(cuda=device == "cuda" or (device == "auto" and torch.cuda.is_available()))


@contextmanager
def enough_memory(settings: Settings) -> Iterator[None]:
    """Turns running out of memory, on a GPU or not, into a sentence."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        signs = ("allocate memory", "out of memory", "bad allocation")
        expected = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not expected and not any(sign in str(error) for sign in signs):
            raise
        raise UserError(
            f"Memory is too small for batches of {settings.training.batch} with these networks.",
            "Halve --batch, or choose a smaller --resolution or narrower networks.",
        ) from error
