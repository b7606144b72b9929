"""From settings to a trained run: where the workshop, the loop and the run folder meet."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from faussaire.core import events
from faussaire.core.batch import mix
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.config import Settings, resolve
from faussaire.core.errors import Diverged, Interrupted, UserError, nearest
from faussaire.core.events import Audience, Observer
from faussaire.core.forecast import Forecast, Pace
from faussaire.core.loop import Loop
from faussaire.core.run import EventFile, Run, environment
from faussaire.core.signals import Signals
from faussaire.core.state import State
from faussaire.data.parallel import Progress
from faussaire.doctor.balance import Balance
from faussaire.doctor.examiner import Examiner
from faussaire.doctor.watch import Watch
from faussaire.families import load_family
from faussaire.modality import Measurer
from faussaire.nn import fused
from faussaire.observers import Reporter
from faussaire.report.history import read_events
from faussaire.workshop import (
    DEFAULT_EXAMPLES,
    Workshop,
    choose_compilation,
    count_parameters,
    enough_memory,
    join,
)

#: Looks in a run whose doctor acts, and rounds between two of them, at least.
_LOOKS, _APART = 60, 16

#: Settings that do not touch the weights: changing them on the way is no change of the run.
_HARMLESS = {
    "source",
    "target",
    "preview_every",
    "save_every",
    "keep",
    "evaluate_every",
    "evaluate_metrics",
    "evaluate_count",
    "extractor",
    "weights",
    "doctor",
    "stop_when",
}


def default_out(family: str, source: str) -> Path:
    """`runs/<family>-<name of the source>`."""
    stem = source.removeprefix("hf:").rstrip("/").replace("\\", "/").rpartition("/")[2]
    word = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem.partition(".")[0])
    return Path("runs") / f"{family}-{word or 'data'}"


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: name -> (stored, wanted). What is left to choose does not differ.

    Nor does the source's path: whether the data are the same is told by their content.
    """
    return {
        key: (stored.get(key), value)
        for key, value in wanted.items()
        if value not in (None, "auto") and stored.get(key) != value and key not in _HARMLESS
    }


def run_settings(
    settings: Settings,
    run: Run,
    *,
    allow_changes: bool = False,
    new_budget: bool = False,
    observers: Callable[[Settings], Sequence[Observer]] = lambda settings: (),
    progress: Progress | None = None,
    command: list[str] | None = None,
) -> Run:
    """Begin the run, or continue it where its last checkpoint stands.

    Args:
        settings: what is wanted; where the run exists, they must agree with its own.
        run: the folder.
        allow_changes: go on with changed settings.
        new_budget: go on with another number of examples, or time, than the run began with.
        observers: makes the leading process's further observers, such as a console.
        progress: told of the reading of the data.
        command: for env.json.

    Raises:
        UserError: see its sentence; Interrupted and Diverged are kinds of it.
    """
    settings = dataclasses.replace(settings, source=_lasting(settings.source))
    if target := getattr(settings.data, "target", None):
        lasting = dataclasses.replace(settings.data, target=_lasting(target))
        settings = dataclasses.replace(settings, data=lasting)
        _apart(run, target)
    _apart(run, settings.source)
    world = join(settings)
    try:
        with Signals() as signals, enough_memory(settings), torch.random.fork_rng(devices=[]):
            # The folder is taken before anything is compared or read: two starts cannot mix.
            if world.leads:
                run.acquire()
            world.barrier()
            settings = _reconcile(settings, run, allow_changes, new_budget)
            shop = Workshop.open(settings, progress=progress, world=world)
            _train(shop, run, signals, observers, command, allow_changes, progress)
    finally:
        if world.leads:
            run.release()
        fused.reduce_statistics = None
        world.leave()
    return run


def _lasting(source: str) -> str:
    """A path that means the same from every folder; names such as `digits` stay."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def _apart(run: Run, source: str) -> None:
    """A run inside its own source would be read as data."""
    folder = Path(source)
    if folder.is_dir() and run.path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"The run '{run.path}' would lie inside its source '{source}'.",
            "Choose an --out elsewhere: your data are never written to.",
        )


def _reconcile(settings: Settings, run: Run, allow_changes: bool, new_budget: bool) -> Settings:
    """The run's own settings where it exists, after making sure that nothing differs unasked."""
    if not run.exists():
        return settings
    stored = run.config_of(settings.family)
    wanted = settings.flat()
    changed = differences(stored, wanted)
    budget = {"examples", "for"} if new_budget else set()
    if changed.keys() - budget and not allow_changes:
        lines = "; ".join(
            f"{key} is {old}, not {new}" for key, (old, new) in changed.items() if key not in budget
        )
        raise UserError(
            f"'{run.path}' was begun with other settings: {lines}.",
            "Add --allow-changes to go on with the new ones, or choose another --out.",
        )
    updates = {key: new for key, (_, new) in changed.items()}
    for key in _HARMLESS - {"source"}:
        if wanted.get(key) is not None:
            updates[key] = wanted[key]
    model = load_family(settings.family).Config
    return resolve(settings.family, settings.source, model, stored, updates)


def _train(
    shop: Workshop,
    run: Run,
    signals: Signals,
    observers: Callable[[Settings], Sequence[Observer]],
    command: list[str] | None,
    allow_changes: bool,
    progress: Progress | None,
) -> None:
    """Build or restore the state, play the loop, and leave the folder complete."""
    world, settings = shop.world, shop.settings
    checkpoints = Checkpoints(run.checkpoints, keep=settings.training.keep)
    restored = checkpoints.load_latest()
    shop.settle_micro()
    settings = shop.settings
    total, seconds, costs = _budget(shop, restored[1] if restored else None)
    shop.device = dataclasses.replace(
        shop.device, compile=choose_compilation(settings, shop.device.kind, seconds)
    )
    settings = shop.settings = _settled(settings, shop, total)
    state = shop.state(total)
    treatment: Mapping[str, Any] = {}
    notes: list[str] = []
    if restored:
        groups, record, complaints = restored
        _same_data(run, shop, allow_changes)
        state.load(groups, record)
        treatment = record.get("treatment", {})
        state.change(**treatment)
        notes = [f"{text} An older checkpoint is used." for text in complaints.values()]
        world.barrier()  # every process has read what the leader now puts aside
        for path in complaints if world.leads else ():
            checkpoints.set_aside(path)
    state.family.begin()
    _agree(shop, state)
    # The last round of a finished run goes beyond what was asked for: the same again is no mistake.
    finished = restored is not None and restored[1]["total"] == total
    if settings.training.duration is None and total < state.clock.examples and not finished:
        raise UserError(
            f"'{run.path}' has already seen {state.clock.examples:,} examples, more than {total:,}.",
            "Ask for more with --examples.",
        )
    evaluator: Measurer | None = None
    if world.leads and settings.training.evaluate_every:
        evaluator = shop.modality.measurer(
            state,
            run,
            checkpoints,
            shop.material,
            settings,
            stop_asked=signals.asked,
            progress=progress,
            note=notes.append,
        )
        named = evaluator.extractor or settings.training.extractor
        chosen = dataclasses.replace(
            settings.training, extractor=named, evaluate_metrics=evaluator.metrics
        )
        settings = shop.settings = dataclasses.replace(settings, training=chosen)
    if world.leads:
        if not run.exists():
            run.write("env.json", {**environment(command), "device": shop.device.describe()})
        elif (before := run.read("env.json").get("device")) != (now := shop.device.describe()):
            notes.append(
                f"This run began on {before} and goes on with {now}: its weights will no longer be "
                "those of an uninterrupted run, bit for bit."
            )
        target = getattr(settings.data, "target", None)
        described = shop.material.describe(settings.source, target)
        shown: dict[str, Any] = {"modality": shop.kind.modality}
        if shop.kind.panels:
            shown |= {"panels": shop.kind.panels, "rebuilds": shop.kind.rebuilds}
        run.write("data.json", {**shown, **described})
        run.write_config(settings.flat())
    audience = Audience()
    plan = shop.plan(total)
    try:
        if world.leads:
            audience.observers.append(EventFile(run.events))
            audience.observers.append(
                shop.modality.previews(state, run, shop.material, settings.data.holdout, plan.seed)
            )
            audience.observers.extend(observers(settings))
            audience.observers.append(Reporter(run))
        doctor = _doctor(state, shop, run, restored[1].get("doctor", {}) if restored else {})
        if doctor is not None:
            audience.observers.append(doctor)
        loop = Loop(
            state,
            shop.stream(),
            plan,
            world=world,
            audience=audience,
            checkpoints=checkpoints,
            record={
                "family": settings.family,
                "model": _model_settings(settings),
                "spec": dataclasses.asdict(shop.spec),
                "seconds": plan.seconds,
                "costs": costs,
                "treatment": treatment,
            },
            stop_asked=signals.asked,
            evaluate=evaluator,
            doctor=doctor,
            pace=_pace(state, costs, plan.seconds),
        )
        signals.patient = True
        _play(loop, state, shop, notes, audience)
    finally:
        audience.close()


def _doctor(state: State, shop: Workshop, run: Run, record: Mapping[str, Any]) -> Watch | None:
    """Who looks after the players, on the leading process.

    Args:
        record: what the checkpoint that the run goes on from holds for it.
    """
    training = shop.settings.training
    if training.doctor == "off" or not shop.world.leads:
        return None
    conditional = getattr(shop.settings.model, "conditional", False)
    examiner = Examiner(
        state,
        *shop.material.one_table(shop.settings.data.holdout),
        at_once=partial(shop.rows_at_once, state),
        flip=getattr(shop.settings.data, "flip", False),
        classes=shop.spec.classes if conditional else (),
        seed=training.seed,
    )
    settings = shop.settings.flat()
    if training.balance == "off":
        past = read_events(run.events).looks
        past = [look for look in past if look.examples <= state.clock.examples]
        return Watch(examiner, settings, training.stop_when, past)
    every = max(state.clock.total // _LOOKS, _APART * training.batch)
    balance = Balance(_model_settings(shop.settings))
    watch = Watch(examiner, settings, training.stop_when, balance=balance, every=every)
    watch.load(record)
    return watch


def _play(
    loop: Loop, state: State, shop: Workshop, notes: Sequence[str], audience: Audience
) -> None:
    """Run the loop between its first and its last event."""

    def tell(event: type[events.Event], **facts: Any) -> None:
        audience.tell(event(examples=state.clock.examples, elapsed=state.elapsed, **facts))

    tell(
        events.Started,
        family=shop.settings.family,
        total=state.clock.total,
        seconds=shop.settings.training.duration,
        device=shop.device.describe(),
        parameters=count_parameters(state),
    )
    conditional = getattr(shop.settings.model, "conditional", None)
    classes = len(getattr(shop.spec, "classes", ()))
    if conditional is False and classes > 1:
        tell(
            events.Noted,
            message=f"The data have {classes} classes, which are ignored; --conditional learns them.",
        )
    cautions = state.family.cautions(len(shop.material), shop.settings.training.batch)
    notes = [*shop.material.notes, *shop.material.warnings, *notes, *cautions]
    for note in notes:
        tell(events.Noted, message=note)
    if state.clock.examples == 0:
        tell(events.PreviewDue)
    try:
        loop.run()
    except Interrupted as error:
        tell(events.Finished, outcome="interrupted", message=error.cause)
        raise
    except Diverged as error:
        tell(events.Finished, outcome="diverged", message=str(error))
        raise
    tell(events.PreviewDue)
    tell(events.Finished, outcome="complete")


def _agree(shop: Workshop, state: State) -> None:
    """Make sure that all processes train the same thing from the same instant."""
    weights = [float(p.detach().double().sum()) for ps in state.movable.values() for p in ps]
    mine = mix(state.clock.examples, shop.material.key, repr(shop.settings.flat()), repr(weights))
    if not shop.world.agrees(mine >> 2):
        raise UserError(
            "The processes of this run do not agree on settings, data or checkpoint.",
            "Start all with the same command, and an --out and source that all of them share.",
        )


def _budget(
    shop: Workshop, record: Mapping[str, Any] | None
) -> tuple[int, float, dict[str, float] | None]:
    """Examples planned, about how many seconds they will take, and what one costs in each stage.

    For a run of so many minutes the count is measured once and then kept: schedules end there, and
    only `Pace` may lower it.
    """
    training = shop.settings.training
    if training.duration is None:
        total = training.examples or DEFAULT_EXAMPLES
        unsure = shop.device.kind == "cuda" and training.compile == "auto"
        return total, shop.measure().forecast.time(total) if unsure else math.inf, None
    if record and record.get("seconds") == training.duration:
        return int(record["total"]), training.duration, record.get("costs")
    forecast = shop.measure().forecast
    costs = dict(forecast.seconds)
    if record and (left := training.duration - float(record["elapsed"])) > 0:
        return forecast.examples(left, int(record["examples"])), training.duration, costs
    return forecast.examples(training.duration), training.duration, costs


def _pace(state: State, costs: Mapping[str, float] | None, seconds: float | None) -> Pace | None:
    """What keeps a run with a budget of time in time."""
    if costs is None or seconds is None:
        return None
    return Pace(Forecast(costs, state.family.stages), seconds)


def _settled(settings: Settings, shop: Workshop, total: int) -> Settings:
    """Settings with everything that was left to choose filled in, as config.yaml keeps them."""
    training = dataclasses.replace(
        settings.training,
        examples=total if settings.training.duration is None else None,
        device=shop.device.kind,  # pyright: ignore[reportArgumentType]
        precision=shop.device.precision,
        compile="on" if shop.device.compile else "off",
    )
    data = shop.material.settled(settings.data)
    return dataclasses.replace(settings, training=training, data=data)


def _same_data(run: Run, shop: Workshop, allow_changes: bool) -> None:
    """A resumed run must see the data that it began with."""
    before = run.read("data.json")
    if before.get("key") not in (None, shop.material.key) and not allow_changes:
        raise UserError(
            f"The {shop.modality.noun} in '{shop.settings.source}' have changed since '{run.path}' was "
            f"begun: there were {before.get('count')}, now there are {len(shop.material)}.",
            "Add --allow-changes to go on with the new ones, or restore the old ones.",
        )


def _model_settings(settings: Settings) -> dict[str, Any]:
    """The family's own settings as plain values."""
    flat = settings.flat()
    return {field.name: flat[field.name] for field in dataclasses.fields(settings.model)}


# ---- For Python ----


def layers(
    family: str, stored: Mapping[str, Any], *, preset: str | None = None, size: str | None = None
) -> list[Mapping[str, Any]]:
    """What lies under a user's own settings, lowest first.

    The family's defaults of training settings, an existing run's settings, a size, a preset.

    Raises:
        UserError: the family has no such preset or size.
    """
    kind = load_family(family)
    chosen = [
        _named(family, what, name, known)
        for what, name, known in (("size", size, kind.sizes), ("preset", preset, kind.presets))
    ]
    return [kind.training, stored, *chosen]


def _named(
    family: str, what: str, name: str | None, known: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The settings that a name stands for; none without a name."""
    if name is None:
        return {}
    if name not in known:
        raise UserError(
            f"{family} has no {what} '{name}'.{nearest(name, known)}",
            f"It has: {', '.join(known) or 'none'}.",
        )
    return known[name]


def free_run(settings: Settings) -> Run:
    """The run under `runs/` that is meant when the user names none.

    One that was begun with the same settings and has not come to its end, else a new one.
    """
    base = default_out(settings.family, settings.source)
    number = 1
    while (path := base if number == 1 else base.with_name(f"{base.name}-{number}")).exists():
        run = Run(path)
        same = run.exists() and not differences(run.config(), settings.flat())
        target = getattr(settings.data, "target", None)
        same = same and _lasting(settings.source) == run.config().get("source")
        same = same and (target and _lasting(target)) == run.config().get("target")
        if same and read_events(run.events).outcome != "complete":
            return run
        number += 1
    return Run(path)


def under_torchrun() -> bool:
    """Whether this process is one of several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def leads() -> bool:
    """Whether this process is the one that talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0
