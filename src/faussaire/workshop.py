"""What a run needs before its folder is touched: data, device, and how to build a state."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faussaire.core.batch import mix
from faussaire.core.config import AUTO, Settings, resolve
from faussaire.core.device import Device, has_compiler, keep_memory
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.family import Family
from faussaire.core.forecast import Forecast
from faussaire.core.loop import Plan, Rounds, Stream
from faussaire.core.phase import Stage, stage_at
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.families import load_family
from faussaire.kinds import another_kind
from faussaire.modality import Material, Modality, load_modality
from faussaire.nn import fused

DEFAULT_EXAMPLES = 200_000
_PREVIEWS = 24

# ---- Building ----


@dataclass
class Workshop:
    """Everything a run needs before its folder is touched: data, device, and how to build a state."""

    settings: Settings
    kind: type[Family[Any]]
    material: Material
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
        modality = load_modality(kind)
        try:
            material = modality.read(settings, kind, progress=progress) if world.leads else None
            world.barrier()
            material = material or modality.read(settings, kind, preflight=False)
        except UserError as error:
            raise another_kind(error, settings.source, kind.modality) from error
        chosen = kind.completed(settings.model, progress or (lambda what, done, total: None))
        settings = dataclasses.replace(settings, model=chosen)
        shop = cls(settings, kind, material, world, device)
        with torch.device("meta"):
            kind(settings.model, shop.spec)  # what does not fit is told before anything is written
        return shop

    @property
    def modality(self) -> Modality:
        """How data of this kind are handled."""
        return load_modality(self.kind)

    @property
    def spec(self) -> Any:
        """What the family is told of the data."""
        return self.material.spec

    def split(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each table of the data the rows that are trained on and those held out."""
        return self.material.split(self.settings.data.holdout)

    def rows_at_once(self, state: State) -> int:
        """Examples that the nets of a process get at once in the state's stage."""
        batch = stage_at(state.stages, state.clock.examples).batch or self.settings.training.batch
        share = batch // self.world.size
        return min(self.settings.training.micro or share, share)

    def stream(self) -> Stream:
        """The endless stream of this process."""
        return self.material.stream(
            self.settings.data,
            seed=mix(self.settings.training.seed, "order"),
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
            micro=training.micro or None,
            seed=training.seed,
            seconds=training.duration,
            preview_every=preview,
            save_every=training.save_every,
            evaluate_every=training.evaluate_every,
        )

    def measure(self, rounds: int = 3) -> Measurement:
        """Play a few real rounds of every stage on a throw-away state and time them."""
        state = self.state(DEFAULT_EXAMPLES)
        playing = Rounds(state, self.stream(), self.plan(DEFAULT_EXAMPLES), self.world)
        seconds = {}
        for stage in self.visit_stages(state):
            playing.play()  # allocations, kernel choice and compilation happen once
            seconds[stage.name] = self.seconds_an_example(
                playing, stage, rounds if len(state.stages) == 1 else 1
            )
        means = torch.tensor(list(seconds.values()))
        self.world.mean_([means])
        return Measurement(
            forecast=Forecast(dict(zip(seconds, means.tolist(), strict=True)), state.family.stages),
            memory=self.device.peak_memory(),
            parameters=count_parameters(state),
        )

    def visit_stages(self, state: State) -> Iterator[Stage]:
        """Put the clock of a throw-away state to the beginning of each stage, one after the other.

        Rounds count from 0 there, so that the first plays every lazy phase.
        """
        begin = 0
        for stage in state.stages:
            state.clock = dataclasses.replace(
                state.clock, examples=begin, rounds=0, stage=stage.name
            )
            yield stage
            begin = stage.until or begin

    def seconds_an_example(self, playing: Rounds, stage: Stage, rounds: int) -> float:
        """Seconds an example of a stage costs, lazy phases counted as often as they come."""

        def play(at: int) -> float:
            state = playing.state
            state.clock = dataclasses.replace(state.clock, rounds=at)
            self.device.synchronise()
            before, seen = time.perf_counter(), state.clock.examples
            playing.play()
            playing.means.take(self.world)
            self.device.synchronise()
            taken = (time.perf_counter() - before) / (state.clock.examples - seen)
            # Time stands still, or a short stage would be left while it is measured.
            state.clock = dataclasses.replace(state.clock, examples=seen)
            return taken

        plain = sum(play(1) for _ in range(rounds)) / rounds
        extra: dict[int, float] = {}
        for every in sorted({phase.every for phase in stage.phases} - {1}):
            along = sum(cost for other, cost in extra.items() if every % other == 0)
            extra[every] = max(0.0, play(every) - plain - along)
        return plain + sum(cost / every for every, cost in extra.items())

    def settle_micro(self) -> None:
        """Put the number in place where `micro` is left to choose."""
        if self.settings.training.micro == AUTO:
            found = dataclasses.replace(self.settings.training, micro=self.fit())
            self.settings = dataclasses.replace(self.settings, training=found)

    def fit(self) -> int:
        """Examples of a batch that a process can handle at once in any stage: all, or a power of two.

        A GPU is tried with ever smaller parts until one fits. Elsewhere, where too much would end
        the process, two parts are measured in processes of their own, and the rest is a straight
        line through them, up to four fifths of the memory that is free.
        """
        with torch.device("meta"):
            stages = self.kind(self.settings.model, self.spec).stages(DEFAULT_EXAMPLES)
        rows = self.world.rows(max(stage.batch or self.settings.training.batch for stage in stages))
        share = rows.stop - rows.start
        sizes = [share, *(2**power for power in range(20, -1, -1) if 2**power < share)]
        if self.device.kind == "cuda":
            found = next((size for size in sizes if self._fits(size)), 1)
        elif share < 4:
            found = share
        else:
            found = self._fitting(sizes) if self.world.leads else share
        # Every process takes what the most modest one found.
        votes = torch.tensor([found], device=self.device.name)
        return int(self.world.gather(votes).min())

    def _fitting(self, sizes: Sequence[int]) -> int:
        """The first of these sizes that the free memory of a machine without a GPU allows."""
        small, large = max(1, sizes[0] // 8), max(2, sizes[0] // 2)
        peaks = [_peak_elsewhere(self.settings, size) for size in (small, large)]
        slope = max(1.0, (peaks[1] - peaks[0]) / (large - small))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", str(self.world.size)))
        free = 0.8 * available_memory() / here
        return next((size for size in sizes if peaks[0] + (size - small) * slope < free), 1)

    def _fits(self, micro: int) -> bool:
        try:
            self.peak(micro)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return False
        return True

    def peak(self, micro: int) -> int:
        """Bytes at the peak of one round of every stage, with parts of this size."""
        state = self.state(DEFAULT_EXAMPLES)
        plan = dataclasses.replace(self.plan(DEFAULT_EXAMPLES), micro=micro)
        playing = Rounds(state, self.stream(), plan, self.world)
        for _ in self.visit_stages(state):
            playing.play()
        return self.device.peak_memory()


def _peak_elsewhere(settings: Settings, micro: int) -> int:
    """`Workshop.peak` in a process of its own: a process's peak never falls, so it tells only once.

    Raises:
        UserError: the process ended early, which is what too little memory looks like.
    """
    lonely = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    }
    done = subprocess.run(
        [sys.executable, "-c", "from faussaire.workshop import tell_peak; tell_peak()"],
        input=json.dumps({**settings.flat(), "micro": micro}),
        capture_output=True,
        text=True,
        env={**lonely, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode:
        raise UserError(
            f"Even {micro} pictures at once did not fit into memory, or the trial failed otherwise: "
            f"{done.stderr.strip()[-300:]}",
            "Choose a smaller --size or --resolution, or a --batch by hand.",
        )
    return int(done.stdout)


def tell_peak() -> None:
    """Print the peak memory of the settings on standard input."""
    flat = json.load(sys.stdin)
    kind = load_family(flat["family"])
    settings = resolve(flat["family"], flat["source"], kind.Config, flat)
    micro = settings.training.micro
    assert micro  # `_peak_elsewhere` gives one
    print(Workshop.open(settings).peak(micro))


@dataclass(frozen=True)
class Measurement:
    """What a few real rounds tell.

    Attributes:
        forecast: what a run takes.
        memory: peak memory in bytes.
        parameters: trainable numbers by net.
    """

    forecast: Forecast
    memory: int
    parameters: Mapping[str, int]


def available_memory() -> int:
    """Bytes that programs can still take, as Linux tells; elsewhere half of the machine's."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        return 1024 * int(text.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        pages, size = (os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
        return pages * size // 2


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
