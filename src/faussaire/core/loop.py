"""The loop: one plain `while` for every family.

It draws batches, visits the phases of the stage in force, averages, counts, and between rounds sees to
ticks, previews, checkpoints and the wish to stop. It never asks which family it runs.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from faussaire.core import events
from faussaire.core.batch import Batch, BatchDraws, Ledger, mix
from faussaire.core.checkpoint import Checkpoints, load_checkpoint
from faussaire.core.distributed import World
from faussaire.core.errors import Diverged, Interrupted, UserError
from faussaire.core.events import Audience
from faussaire.core.forecast import Pace
from faussaire.core.gauges import Means, Pulse
from faussaire.core.phase import Phase, Stage, stage_at
from faussaire.core.state import State
from faussaire.core.treatment import Treatment

Order = Literal["go on", "stop", "finish"]
"""What a doctor asks for: to stop, as a signal would, or to come to the run's end at once."""


class Stream(Protocol):
    """An endless, seekable sequence of examples whose whole state is a position."""

    def read(self, position: int, count: int) -> Mapping[str, np.ndarray]:
        """This process's share of examples `position` to `position + count - 1`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen.

    Attributes:
        batch: examples in a batch over all processes, where the stage does not say.
        micro: examples that a process handles at once; larger batches are gone through in parts,
            whose gradients are added up. None: all at once.
        seed: of every random number in training.
        seconds: training time after which to stop; None: when `total` examples are seen.
        preview_every: examples between previews; 0: none.
        save_every: seconds between checkpoints.
        evaluate_every: examples between measurements; 0: none.
        explosion: a loss this many times larger than at the first tick stops the run.
    """

    batch: int
    micro: int | None = None
    seed: int = 0
    seconds: float | None = None
    preview_every: int = 0
    save_every: float = 120.0
    evaluate_every: int = 0
    explosion: float = 1e5


class Doctor(Protocol):
    """Looks at the players, on the leading process, and changes nothing unless it was asked to."""

    @property
    def every(self) -> int:
        """Examples between looks; 0: as often as its share of the time allows."""
        ...

    @property
    def looked_at(self) -> int:
        """Examples seen at the last look; -1 before the first."""
        ...

    def examine(self) -> Mapping[str, float]:
        """Vital signs by name; empty where there is nothing to be found, now or later."""
        ...

    def hurry(self) -> None:
        """Look at fewer examples from now on, down to some limit."""
        ...

    def diagnose(self, look: events.Examined) -> events.Diagnosed | None:
        """What is to be said of a look and those before it, where that is news."""
        ...

    @property
    def order(self) -> Order:
        """Whether the run is to end here."""
        ...

    @property
    def well(self) -> bool:
        """Whether a checkpoint made now would be worth going back to."""
        ...

    def treat(self, checkpoints: Sequence[int]) -> Treatment | None:
        """What is to be changed after the last look; None: nothing.

        Args:
            checkpoints: examples seen at those that a run can go back to.
        """
        ...

    def rescue(self, checkpoints: Sequence[int]) -> Treatment | None:
        """What is to be changed after a breakdown; None: let it end."""
        ...

    def record(self) -> Mapping[str, Any]:
        """What a checkpoint must hold, so that a resumed run is treated as this one would be."""
        ...


class Rounds:
    """Plays rounds on a state: the algorithm alone, without clocks on walls or files."""

    def __init__(self, state: State, stream: Stream, plan: Plan, world: World) -> None:
        self.state, self.stream, self.plan, self.world = state, stream, plan, world
        self.means = Means()
        self.pulse: Pulse | None = None
        self._movable = state.movable

    def play(self) -> None:
        """One round: every phase of the stage that is due, then the averages and the clock."""
        state = self.state
        stage = stage_at(state.stages, state.clock.examples)
        # Before anything reads it: a run resumed where a stage begins is in that stage, too.
        clock = state.clock = dataclasses.replace(state.clock, stage=stage.name)
        self._position = clock.examples
        parts = self._draw(stage)
        for phase in stage.phases:
            if clock.rounds % phase.every == 0:
                for visit in range(phase.repeat):
                    again = visit > 0 or phase.fresh
                    self._visit(phase, self._draw(stage) if again else parts)
        self._level_buffers()
        seen = self._position - clock.examples
        state.clock = dataclasses.replace(clock, examples=self._position, rounds=clock.rounds + 1)
        state.average.update(state.clock, seen)

    def _draw(self, stage: Stage) -> list[Batch]:
        """The next batch, in one part or more, with random numbers that depend on seed and position
        alone: a part's are its rows' of the whole batch's."""
        total = stage.batch or self.plan.batch
        position, device = self._position, self.state.device
        self._position += total
        fields = self.stream.read(position, total)
        # For randomness inside nets (dropout, noise): differs by process, repeats after a resume.
        torch.manual_seed(mix(self.plan.seed, "nets", position, self.world.rank))
        ours, rank = self.world.rows(total), self.world.rank
        size = ours.stop - ours.start
        step = min(self.plan.micro or size, size)
        parts: list[Batch] = []
        ledger: Ledger = {}
        for first in range(0, size, step):
            part = slice(first, min(first + step, size))
            count = part.stop - part.start
            parts.append(
                Batch(
                    {name: device.put(array[part]) for name, array in fields.items()},
                    BatchDraws(
                        mix(self.plan.seed, "batch", position),
                        total=total,
                        rows=slice(ours.start + part.start, ours.start + part.stop),
                        device=device.name,
                    ),
                    count * self.world.size,
                    thaw=lambda: self._moving(tuple(self._movable)),
                    gather=self.world.gather,
                    own=slice(rank * count, (rank + 1) * count),
                    sum=self.world.sum,
                    whole=total,
                    ledger=ledger,
                )
            )
        return parts

    def _visit(self, phase: Phase, parts: Sequence[Batch]) -> None:
        """One optimiser step of the phase's nets down the gradient of its loss."""
        state, clock = self.state, self.state.clock
        parameters = [p for net in phase.nets for p in self._movable[net]]
        backs = [part.mark() for part in parts]
        first = [self._differentiate(phase, parts, parameters)]

        def look() -> Tensor:
            if first:  # nothing has moved yet
                return first.pop()
            for back in backs:
                back()
            return self._differentiate(phase, parts, parameters)

        if self.pulse is not None:
            self.pulse.before(phase.name, parameters, [p.grad for p in parameters])
        for optimiser in state.optimisers.values():
            if set(optimiser.nets) & set(phase.nets):
                optimiser.step(clock, look)
        if self.pulse is not None:
            self.pulse.after(phase.name, parameters)
        for parameter in parameters:
            parameter.grad = None

    def _differentiate(
        self, phase: Phase, parts: Sequence[Batch], parameters: Sequence[nn.Parameter]
    ) -> Tensor:
        """The phase's loss over all processes, its gradients left in `.grad`."""
        clock = self.state.clock
        rows = sum(part.total for part in parts)
        gradients: list[Tensor | None] = [None] * len(parameters)
        sums: list[Tensor] = []
        for part in parts:
            with self._moving(phase.nets):
                terms = phase.loss(part, clock)
                loss = phase.every * torch.stack([term.float() for term in terms.values()]).sum()
            share = part.total / rows
            found = torch.autograd.grad(
                loss if share == 1.0 else loss * share, parameters, allow_unused=True
            )
            gradients = [_plus(one, two) for one, two in zip(gradients, found, strict=True)]
            sums.append(share * loss.detach())
            self.means.add({f"{phase.name}.{name}": term for name, term in terms.items()}, "losses")
            self.means.add(part.observed, "signs")
            part.observed = {}
            if share < 1.0:
                part.forget()
        whole = torch.stack(sums).sum()
        self.world.mean_([*(gradient for gradient in gradients if gradient is not None), whole])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out(gradient, parameter)
        return whole

    @contextmanager
    def _moving(self, nets: tuple[str, ...]) -> Iterator[None]:
        """Within it, only these nets are differentiable: no gradient is computed for the others."""
        before = {net: all(p.requires_grad for p in ps) for net, ps in self._movable.items()}
        for net, parameters in self._movable.items():
            for parameter in parameters:
                parameter.requires_grad_(net in nets)
        try:
            yield
        finally:
            for net, parameters in self._movable.items():
                for parameter in parameters:
                    parameter.requires_grad_(before[net])

    def _level_buffers(self) -> None:
        """Running statistics are those of all processes, so that any of them can be saved."""
        if self.world.size > 1:
            buffers = [
                buffer
                for net in self.state.family.nets.values()
                for buffer in net.buffers()
                if buffer.is_floating_point()
            ]
            self.world.mean_(buffers)


def _plus(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    """The sum of two gradients, of which either may be none."""
    if one is None or two is None:
        return two if one is None else one
    return one + two


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in its parameter's memory layout: fused optimisers walk both side by side."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


class Loop:
    """A run from wherever its state stands to its end.

    Args:
        state: what is trained.
        stream: where examples come from.
        plan: when things happen.
        world: the processes.
        audience: who watches; only the leading process has observers.
        checkpoints: where to save; None: nowhere.
        record: facts to store in each checkpoint beside the state.
        stop_asked: tells whether a signal asked the run to end, and which.
        evaluate: measures the state that was just saved, on the leading process; what it returns
            are the facts of a `Measured` event, or None where it was given up.
        pace: plans a run with a budget of time anew where its speed changes, on the leading process.
        doctor: looks at the state, on the leading process; where it fails, training goes on without.
    """

    EXAMINING = 0.02
    """Share of a run's time that the doctor may take."""
    AT_FIRST = 0.06
    """The share while the run is young: what goes wrong mostly goes wrong early."""
    LOOKS = 24
    """Looks that a run should have; where its time allows fewer, they are made at fewer examples."""

    def __init__(
        self,
        state: State,
        stream: Stream,
        plan: Plan,
        *,
        world: World | None = None,
        audience: Audience | None = None,
        checkpoints: Checkpoints | None = None,
        record: Mapping[str, Any] | None = None,
        stop_asked: Callable[[], str] = lambda: "",
        evaluate: Callable[[], Mapping[str, Any] | None] | None = None,
        pace: Pace | None = None,
        doctor: Doctor | None = None,
    ) -> None:
        self.state, self.plan = state, plan
        self.world = world or World()
        self.audience = audience or Audience()
        self.checkpoints = checkpoints
        self.record = dict(record or {})
        self.stop_asked = stop_asked
        self.evaluate = evaluate
        self.pace = pace
        self.doctor = doctor
        self.rounds = Rounds(state, stream, plan, self.world)
        self._usual: float | None = None
        self._saved_at = state.clock.examples  # a state that was just loaded is on disk already
        self._evaluated_at = -1

    def run(self) -> None:
        """Train to the end of the plan.

        Raises:
            Interrupted: a signal asked for the end; the state is saved.
            Diverged: a loss or weight is no longer finite, or exploded; the last checkpoint is good.
            UserError: a checkpoint could not be written.
        """
        state = self.state
        self._began = time.monotonic() - state.elapsed
        self._last_tick = self._last_save = time.monotonic()
        self._tick_examples = state.clock.examples
        self._aside = 0.0
        self._stage = ""
        self._next_look, self._looked = 0.0, self._allowance()
        acting = self.doctor is not None and bool(self.doctor.every)
        if self.world.any(acting and state.clock.examples == 0)[0]:
            self._save_start()
        going = True
        while going and not self._complete():
            try:
                going = self._advance()
            except Diverged:
                if not self._rescued():
                    raise
        self._tick()
        self._sound()
        self._save()
        if self.plan.evaluate_every:
            self._evaluate()
            if self.world.any(bool(self.stop_asked()))[0]:
                self._stop()

    def _save_start(self) -> None:
        """Somewhere to go back to, whatever happens."""
        self._saved_at = -1
        self._save()
        if self.world.leads and self.checkpoints is not None:
            self.checkpoints.mark(self.checkpoints.all()[-1], "start")

    def _advance(self) -> bool:
        """One round, and whatever is due after it; whether to go on."""
        self._announce_stage()
        before = self.state.clock.examples
        look = self._look_due()
        self.rounds.pulse = Pulse() if look else None
        self.rounds.play()
        self._elapse()
        treatment = self._look() if look else None
        order = self.doctor.order if self.doctor is not None else "go on"
        stop, tick, save, finish, treat = self.world.any(
            bool(self.stop_asked()) or order == "stop",
            self._tick_due(),
            self._save_due(),
            order == "finish",
            treatment is not None,
        )
        preview = self._due(self.plan.preview_every, before)
        evaluate = self._due(self.plan.evaluate_every, before)
        if tick or save or stop or preview or evaluate or treat:
            self._tick()
            self._keep_pace()
        if treat:
            self._apply(treatment)
            return True
        if preview:
            self._sound()
            self._tell(events.PreviewDue)
        if save or evaluate:
            self._save()
        if evaluate and not stop:
            self._evaluate()
        if stop:
            self._save()
            self._stop()
        return not finish

    def _kept(self) -> list[int]:
        """Examples seen at the checkpoints there are."""
        found = self.checkpoints.all() if self.checkpoints is not None else []
        return [int(path.name) for path in found]

    def _rescued(self) -> bool:
        """After a breakdown: whether the doctor knew how to go on."""
        treatment = None if self.doctor is None else self.doctor.rescue(self._kept())
        if self.world.any(treatment is not None)[0]:
            self._apply(treatment)
            return True
        return False

    def _apply(self, treatment: Treatment | None) -> None:
        """Change settings as the leading process's doctor asks, on every process alike."""
        told = self.world.tell(treatment.text() if treatment is not None else "")
        treatment = Treatment.of(told)
        state, before = self.state, self.state.clock.examples
        self._elapse()
        if treatment.back_to is not None:
            assert self.checkpoints is not None
            elapsed = state.elapsed
            state.load(*load_checkpoint(self.checkpoints.find(str(treatment.back_to))))
            state.elapsed = elapsed  # the time is spent
            self.world.barrier()  # every process has read what is now removed
            if self.world.leads:
                self.checkpoints.forget_after(treatment.back_to)
            self.rounds.means.take(World())
            self._tick_examples, self._saved_at = state.clock.examples, state.clock.examples
            self._last_tick = time.monotonic()
        state.change(**treatment.settings)
        self.record["treatment"] = {**self.record.get("treatment", {}), **treatment.settings}
        self._tell(
            events.Treated,
            settings=dict(treatment.settings),
            why=treatment.why,
            from_examples=before,
        )
        if treatment.back_to is not None:
            self._tell(events.PreviewDue)

    def _stop(self) -> None:
        """End before the end."""
        seen = f"{self.state.clock.examples:,} examples"
        if not self.stop_asked() and self.doctor is not None and self.doctor.order == "stop":
            raise Interrupted(
                f"Stopped by the doctor's verdict after {seen}; everything is saved.",
                f"`faussaire doctor {self._name}` explains it and names settings to try.",
                code=3,
            )
        reason = self.stop_asked()
        raise Interrupted(
            f"Stopped by {reason or 'another process'} after {seen}; everything is saved.",
            f"Continue with `faussaire resume {self._name}`.",
            code={"Ctrl-C": 130, "SIGTERM": 143}.get(reason, 2),
        )

    def _complete(self) -> bool:
        if self.plan.seconds is None:
            return self.state.clock.examples >= self.state.clock.total
        return self.world.any(self.world.leads and self.state.elapsed >= self.plan.seconds)[0]

    def _elapse(self) -> None:
        self.state.elapsed = time.monotonic() - self._began

    def _tell(self, event: type[events.Event], **facts: Any) -> None:
        self._inform(event(examples=self.state.clock.examples, elapsed=self.state.elapsed, **facts))

    def _inform(self, event: events.Event) -> None:
        began = time.monotonic()
        self.audience.tell(event)
        self._aside += time.monotonic() - began

    def _allowance(self) -> float:
        """Seconds that looks may have taken by now: more of their share goes to the beginning."""
        progress = self._outlook()[0]
        return self.EXAMINING * self.state.elapsed / math.sqrt(progress) if progress else 0.0

    def _look_due(self) -> bool:
        if self.doctor is None:
            return False
        if every := self.doctor.every:  # what it says decides on the course: never by the clock
            return self.state.clock.examples // every > self.doctor.looked_at // every
        if time.monotonic() < self._next_look:
            return False
        return self._looked <= self._allowance()

    def _look(self) -> Treatment | None:
        """Have the doctor look at the players; what it asks for."""
        assert self.doctor is not None
        assert self.rounds.pulse is not None
        began = time.monotonic()
        try:
            signs = self.doctor.examine()
            if not signs:
                if stage_at(self.state.stages, self.state.clock.examples) is self.state.stages[-1]:
                    self.doctor = None  # nothing to be found, now or later
                self._next_look = time.monotonic() + self._interval
                return None
            taken = time.monotonic() - began
            look = events.Examined(
                examples=self.state.clock.examples,
                elapsed=self.state.elapsed,
                rounds=self.state.clock.rounds,
                stage=stage_at(self.state.stages, self.state.clock.examples).name,
                # What decides on the course must not depend on the clock on the wall.
                progress=self.state.clock.progress if self.doctor.every else self._outlook()[0],
                signs={**signs, **self.rounds.pulse.signs()},
                seconds=round(taken, 3),
            )
            news = self.doctor.diagnose(look)
            treatment = self.doctor.treat(self._kept())
        except Exception as error:  # noqa: BLE001 whatever its mistake is, training must go on
            self.doctor = None
            self._tell(events.Noted, message=f"The doctor had to give up: {error!r}.")
            return None
        self._looked += taken
        # The first look takes longer, and knows nothing of the speed yet.
        allowed = self.EXAMINING * (self.state.elapsed + self._outlook()[1])
        if self._looked > taken and not self.doctor.every and taken * self.LOOKS > allowed:
            self.doctor.hurry()
        self._next_look = time.monotonic() + max(taken / self.AT_FIRST, self._interval)
        for event in (look, news):
            if event is not None:
                self._inform(event)
        return treatment

    def _announce_stage(self) -> None:
        stage = stage_at(self.state.stages, self.state.clock.examples).name
        if stage != self._stage:
            self._stage = stage
            self._tell(events.StageBegan, stage=stage)

    def _tick_due(self) -> bool:
        """About twice a second at first, every half minute in a run of hours."""
        return self.world.leads and time.monotonic() - self._last_tick >= self._interval

    @property
    def _interval(self) -> float:
        """Seconds between ticks, and at least between looks."""
        return min(30.0, max(0.5, 0.004 * self.state.elapsed))

    def _save_due(self) -> bool:
        return self.world.leads and time.monotonic() - self._last_save >= self.plan.save_every

    def _due(self, every: int, before: int) -> bool:
        """Whether a multiple of `every` examples was passed since `before`."""
        return every > 0 and self.state.clock.examples // every > before // every

    def _tick(self) -> None:
        """Report the means since the last tick, and make sure that they are sound."""
        state, clock = self.state, self.state.clock
        taken = self.rounds.means.take(self.world)
        self._elapse()
        if not taken["losses"]:
            return
        self._guard(taken["losses"])
        now = time.monotonic()
        # The speed of training itself: drawing previews and writing pages is not counted.
        busy = now - self._last_tick - self._aside
        per_second = (clock.examples - self._tick_examples) / max(1e-9, busy)
        self._last_tick, self._tick_examples, self._aside = now, clock.examples, 0.0
        progress, remaining = self._outlook()
        self._tell(
            events.Tick,
            rounds=clock.rounds,
            stage=clock.stage,
            losses=taken["losses"],
            signs=taken["signs"],
            rates={name: opt.rate(clock) for name, opt in state.optimisers.items()},
            per_second=per_second,
            remaining=remaining,
            progress=progress,
            memory=state.device.peak_memory(),
        )

    def _keep_pace(self) -> None:
        """Plan for other numbers of examples where the run would end too late, or too early."""
        clock = self.state.clock
        if self.plan.seconds is None:
            return
        total = clock.total
        if self.pace is not None:
            total = self.pace.total(clock, self.state.elapsed)
        if not self.world.any(total != clock.total)[0]:
            return
        totals = torch.tensor([total], device=self.state.device.name)
        self.state.plan(int(self.world.gather(totals)[0]))  # the leading process has the pace
        how = "slower" if self.state.clock.total < clock.total else "faster"
        self._tell(
            events.Noted,
            message=f"Training has become {how}: it is planned for {self.state.clock.total:,} "
            f"examples now, not {clock.total:,}, to be complete in time.",
        )

    def _outlook(self) -> tuple[float, float]:
        """Share done and seconds left."""
        elapsed, clock = self.state.elapsed, self.state.clock
        if self.plan.seconds is not None:
            left = max(0.0, self.plan.seconds - elapsed)
            return min(1.0, elapsed / self.plan.seconds), left
        per_second = clock.examples / max(1e-9, elapsed)
        return clock.progress, max(0, clock.total - clock.examples) / max(1e-9, per_second)

    def _guard(self, losses: Mapping[str, float]) -> None:
        """Stop before a bad state can be saved. Every process sees the same means, so all stop."""
        worst = max(losses, key=lambda name: _magnitude(losses[name]))
        size = _magnitude(losses[worst])
        if self._usual is None and math.isfinite(size):
            self._usual = max(1.0, size)
        if not math.isfinite(size) or size > self.plan.explosion * (self._usual or 1.0):
            self._diverge(f"The loss {worst} became {losses[worst]:.4g}")

    def _diverge(self, what: str) -> None:
        kept = "Nothing had been saved yet."
        if self.checkpoints is not None and (saved := self.checkpoints.all()):
            kept = f"The checkpoint of {int(saved[-1].name):,} examples is good and was kept."
        raise Diverged(
            f"{what} after {self.state.clock.examples:,} examples: training diverged. {kept}",
            "Try a smaller learning rate, a larger batch or --precision float32; "
            f"`faussaire resume {self._name} --allow-changes`, with the setting, goes on from there.",
        )

    def _sound(self) -> None:
        """Stop where weights are no longer numbers: such a state is neither shown nor kept."""
        if not self.state.is_finite():
            self._diverge("A network's weights became infinite or NaN")

    @property
    def _name(self) -> str:
        """The run's folder as a shell word."""
        return shlex.quote(str(self.checkpoints.folder.parent)) if self.checkpoints else "RUN"

    def _save(self) -> None:
        """Write a checkpoint, unless the state is not worth keeping."""
        if self.checkpoints is None or self._saved_at == self.state.clock.examples:
            return
        self._sound()
        self._last_save = time.monotonic()
        self._saved_at = self.state.clock.examples
        if self.world.leads:
            path = self.checkpoints.save(
                self.state.tensors(), {**self.record, **self._remembered(), **self.state.record()}
            )
            if self.doctor is not None and self.doctor.every and self.doctor.well:
                self.checkpoints.mark(path, "well")
            seconds = time.monotonic() - self._last_save
            self._last_save = time.monotonic()
            self._tell(events.Saved, path=path.name, seconds=round(seconds, 3))
        self.world.barrier()

    def _remembered(self) -> dict[str, Any]:
        """What the doctor must know after a resume."""
        return {"doctor": dict(self.doctor.record())} if self.doctor is not None else {}

    def _evaluate(self) -> None:
        """Measure what was just saved. It takes its time aside: schedules by time mean training."""
        if self._evaluated_at == self.state.clock.examples:
            return
        self._evaluated_at = self.state.clock.examples
        began = time.monotonic()
        facts, trouble = None, None
        if self.world.leads and self.evaluate is not None:
            try:
                facts = self.evaluate()
            except UserError as error:
                trouble = error  # hours of training are not given up for a figure
        taken = time.monotonic() - began
        self._began += taken
        self._last_tick += taken
        self._last_save += taken
        if facts is not None:
            self._tell(events.Measured, seconds=round(taken, 1), **facts)
        if trouble is not None:
            self._tell(events.Noted, message=f"Nothing was measured: {trouble}")
        self.world.barrier()


def _magnitude(value: float) -> float:
    return abs(value) if math.isfinite(value) else math.inf
