"""The search: Optuna proposes, `faussaire train` tries, and what is hopeless is ended early.

A search is an Optuna study, in a database that several processes may share, and a folder:

    tune.yaml      what is searched, with which settings in common
    study.db       the study, unless --storage says where else
    trials/        a run for each trial, with its settings and what it printed beside it
    tuning.html    the page to look at
    best.yaml      for `faussaire train --config`

**Which pruner.** The median pruner: a trial ends where its best figure so far is worse than the median
of what complete trials had at the same share of their budget. Hyperband and successive halving keep a
half or a quarter at each rung, and trust early figures for it. But early figures of GANs rank the late
ones badly (low rates and strong penalties start slowly), and Hyperband's brackets need more trials than
the dozens that a search for a GAN has. The doctor sees what no comparison does: a game that is lost.

**When processes die.** Each has a lock in the folder while it lives, and says now and then in the
study that it does. The trial of one that is gone is done again as another trial, with the same settings
and in the same folder, where the run goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import math
import shlex
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import optuna
import sqlalchemy.exc
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL

from faussaire.core.config import read_yaml, write_yaml
from faussaire.core.errors import Interrupted, UserError
from faussaire.core.figures import Figure, Provenance, explain_differences
from faussaire.core.files import replace_file, require_folder
from faussaire.core.quantity import format_duration, format_plain
from faussaire.core.signals import Signals
from faussaire.report.figures import format_figure
from faussaire.report.tuning import write_page
from faussaire.tuning.plan import Found, Plan, Row
from faussaire.tuning.space import Dimension
from faussaire.tuning.training import Command, Training, train_command

#: Seconds between signs of life in the study, and the silence after which a process on another
#: machine counts as gone.
_SIGN, _SILENCE = 30.0, 600.0
#: Complete trials before the median means something.
_BEFORE_PRUNING = 4
#: The first comparison, in fifths of a budget: before, all samples are noise.
_FIRST_RUNG = 2
#: Complete trials before importances do.
_BEFORE_IMPORTANCES = 8
#: Failures in a row that end a search: what is wrong is not one trial's settings.
_FAILURES = 5
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_GONE = (ValueError, optuna.exceptions.UpdateFinishedTrialError)


class Search:
    """One process's part in a search.

    Args:
        plan: what to do.
        told: given sentences on the way.
        command: trains; None: `faussaire train`.
    """

    def __init__(
        self, plan: Plan, told: Callable[[str], None], command: Command | None = None
    ) -> None:
        self.plan, self.told = plan, told
        settings = plan.settings
        self.command = command or train_command(settings.family, settings.source)
        self.flat = settings.flat()
        self.distributions = {one.name: _distribution(one) for one in plan.space.dimensions}
        self.trials = plan.out / "trials"
        self._host = socket.gethostname()
        self._name = f"{self._host}-{uuid.uuid4().hex[:8]}"
        self._locks = plan.out / ".processes"
        self._storage: optuna.storages.RDBStorage | None = None

    # ---- The search ----

    def run(self) -> Found:
        """Search until there are as many trials as are wanted.

        Raises:
            Interrupted: a signal; the running trial is saved, and the same command goes on with it.
            UserError: the folder or the storage cannot be used, or nothing can be trained.
        """
        with Signals() as signals, self._alive():
            try:
                with filelock.FileLock(self._locks / "study.lock"):  # two may begin at once
                    self.study = self._open()
                    self._begin()
                signals.patient = True
                return self._search(signals)
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
                raise UserError(
                    f"The study could not be read or written: {_first_line(error)}",
                    "Nothing that was trained is lost: the same command goes on.",
                ) from error
            finally:
                self._close()

    def _search(self, signals: Signals) -> Found:
        failures = 0
        while self._wanted():
            trouble = self._try(signals)
            self._report()
            failures = failures + 1 if trouble else 0
            if failures == _FAILURES:
                raise UserError(
                    f"{failures} trials in a row failed; the last one: {trouble}",
                    f"What they said stands in '{self.trials}'. Mend it, then give the same command "
                    "again.",
                )
        return self._report()

    def _open(self) -> optuna.Study:
        """The study, which is begun where there is none.

        Raises:
            UserError: the storage cannot be opened.
        """
        plan = self.plan
        # Its news are told by this class, in sentences.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        file = URL.create("sqlite", database=str((plan.out / "study.db").resolve()))
        url = plan.storage or file.render_as_string(hide_password=False)
        # Processes that share a file wait for each other.
        how = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        try:
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs=how)
            return optuna.create_study(
                study_name=plan.out.resolve().name,
                storage=self._storage,
                direction=plan.direction,
                load_if_exists=True,
                sampler=Sampler(
                    plan.settings.training.seed, startup=min(10, max(4, plan.trials // 3))
                ),
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=_BEFORE_PRUNING,
                    n_warmup_steps=_FIRST_RUNG,
                    n_min_trials=_BEFORE_PRUNING - 1,
                ),
            )
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
            where = "--storage" if plan.storage else f"'{plan.out / 'study.db'}'"
            step = (
                "Check that it is there; --storage takes what Optuna takes, such as "
                "postgresql://user@host/database."
            )
            if isinstance(error, ImportError):
                step = (
                    "Databases need a driver: for PostgreSQL, pip install 'psycopg[binary]'; "
                    "for others see SQLAlchemy's list of dialects."
                )
            raise UserError(  # not the address, which may hold a password
                f"The study in {where} cannot be opened: {_first_line(error)}", step
            ) from error

    def _close(self) -> None:
        """Let go of the storage."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def _begin(self) -> None:
        """Make sure that this is the search that stands here, and that its first trial is set.

        Raises:
            UserError: another search does.
        """
        plan, study = self.plan, self.study
        record, path = plan.record(), plan.out / "tune.yaml"
        if path.exists():
            plan.require_same(read_yaml(path), f"The search in '{plan.out}'", here=True)
        if stored := study.user_attrs.get("plan"):
            plan.require_same(stored, f"The study '{study.study_name}'", here=plan.storage is None)
        for trial in study.get_trials(deepcopy=False):
            for name in trial.distributions.keys() & self.distributions.keys():
                self._require_compatible(name, trial.distributions[name])
        replace_file(path, write_yaml(record))
        study.set_user_attr("plan", record)
        if not study.get_trials(deepcopy=False):
            # The search can never end worse than without one: these settings are tried first.
            study.enqueue_trial(plan.space.start(self.flat), user_attrs={"start": True})

    def _require_compatible(self, name: str, before: BaseDistribution) -> None:
        try:
            check_distribution_compatibility(before, self.distributions[name])
        except ValueError as error:
            raise UserError(
                f"{name} was searched in another kind of space, with which a study cannot go on.",
                "Only the ends of a range may change; for other choices, choose another --out.",
            ) from error

    def _wanted(self) -> bool:
        """Whether there is a trial left for this process."""
        self._rescue()
        trials = self._counted()
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return waiting or len(trials) < self.plan.trials

    def _counted(self) -> list[FrozenTrial]:
        """The trials, those left out that were begun again in a later one."""
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("again") for trial in trials}
        return [trial for trial in trials if trial.number not in again]

    # ---- One trial ----

    def _try(self, signals: Signals) -> str:
        """The next trial, from its beginning to its end; returns why it failed, if it did.

        Raises:
            Interrupted: a signal.
            UserError: the settings without a search cannot be trained.
        """
        plan, study = self.plan, self.study
        trial = study.ask(self.distributions)
        attributes = trial.user_attrs
        start = bool(attributes.get("start"))
        folder = self.trials / str(attributes.get("folder") or f"{trial.number:04d}")
        for key, value in {
            "process": self._name,
            "host": self._host,
            "out": str(plan.out.resolve()),
            "folder": folder.name,
            "sign": time.time(),
        }.items():
            trial.set_user_attr(key, value)
        settings = plan.space.settings(trial.params, self.flat)
        again = " (goes on)" if (folder / "config.yaml").exists() else ""
        self.told(
            f"trial {folder.name}, {len(self._counted())} of {plan.trials}: "
            f"{describe(trial.params)}{_first(start)}{again}"
        )
        require_folder(self.trials)
        training = Training(
            folder,
            {**self.flat, **settings, "evaluate_every": plan.interval(self._speed(settings))},
            self.command,
            plan.metric.name,
        )
        try:
            reason = self._attend(trial, training, signals, start)
            training.stop()
            if signals.asked():
                self._note(trial, training)
                self._again(self._frozen(trial.number))
                raise Interrupted(
                    f"Stopped by {signals.asked()} in trial {folder.name}; it is saved.",
                    "The same command goes on with it.",
                    code={"Ctrl-C": 130, "SIGTERM": 143}.get(signals.asked(), 2),
                )
        finally:
            training.stop()
        self._note(trial, training)
        return self._conclude(trial, training, reason, start)

    def _attend(self, trial: Trial, training: Training, signals: Signals, start: bool) -> str:
        """Listen until the trial ends or should; returns why it should, or an empty string.

        The settings without a search are never pruned: the others are read beside them.
        """
        signed = time.monotonic()
        while not signals.asked():
            ended = training.ended()  # asked first, so that its last words are heard
            for one in training.listen():
                self._require_same_measure(one.figure)
                share = self.plan.share(one.examples, one.elapsed)
                value = self.plan.objective(one.figure)
                self.told(
                    f"  {one.figure.provenance.metric} {format_figure(one.figure.value)} "
                    f"after {share:.0%}, {one.examples:,} examples"
                )
                rung = self.plan.rung(one.examples, one.elapsed)
                known = self._frozen(trial.number).intermediate_values
                if share < 1.0 and rung > 0 and rung not in known:
                    trial.report(value, rung)
                    if trial.should_prune() and not start:
                        return self._behind(rung, share, value)
            if training.verdict and not start:
                return training.verdict
            if ended:
                return ""
            if time.monotonic() - signed > _SIGN:
                signed = time.monotonic()
                trial.set_user_attr("sign", time.time())
            time.sleep(0.2)
        return ""

    def _behind(self, rung: int, share: float, value: float) -> str:
        """Why the pruner ended a trial."""
        others = [
            other.intermediate_values[rung]
            for other in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if rung in other.intermediate_values
        ]
        return (
            f"{format_figure(value)} after {share:.0%} of its budget, where the median of "
            f"{len(others)} is {format_figure(float(np.median(others)))}"
        )

    def _require_same_measure(self, figure: Figure) -> None:
        """All trials of a study are measured in the same way, or they mean nothing together.

        Raises:
            UserError: this one is not, with the differences.
        """
        stored = self.study.user_attrs.get("provenance")
        if stored is None:
            self.study.set_user_attr("provenance", vars(figure.provenance))
            self.study.set_user_attr("figure", figure.name)
        elif (before := Provenance(**stored)) != figure.provenance:
            raise UserError(
                "This search's trials were measured in another way before: "
                f"{explain_differences(before, figure.provenance)}.",
                "Give --extractor and --weights, and the same pictures, or choose another --out.",
            )

    def _note(self, trial: Trial, training: Training) -> None:
        """Store what a table shows, which can be done only while the trial runs."""
        course = [
            (self.plan.share(one.examples, one.elapsed), one.figure.value)
            for one in training.measured
        ]
        trial.set_user_attr("course", course)
        trial.set_user_attr("examples", training.examples)
        trial.set_user_attr("seconds", round(training.elapsed, 2))

    def _conclude(self, trial: Trial, training: Training, reason: str, start: bool) -> str:
        """Tell the study how a trial ended; returns why it failed, if it did.

        A trial that fails or diverges is told as pruned: samplers pass over what Optuna calls failed,
        and would come back to settings that do not fit into memory again and again.

        Raises:
            UserError: the settings without a search failed, so nothing else would be trained.
        """
        last = training.measured[-1] if training.measured else None
        whole = training.code == 0 and last is not None and last.examples == training.examples
        failed = False
        if not reason and training.outcome == "diverged":
            reason = f"diverged: {training.message.partition(': training diverged')[0]}"
        elif not reason and not whole:
            reason, failed = training.trouble(), True
        if failed and start:
            self._again(self._frozen(trial.number))
            raise UserError(
                f"The settings that the search begins with cannot be trained: {reason}",
                f"What was said stands in '{training.run.path}.log'. The same command tries again.",
            )
        if reason:
            trial.set_user_attr("reason", reason)
            trial.set_user_attr("failed", failed)
        with suppress(*_GONE):  # taken for dead, and done again elsewhere
            if reason:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                assert last is not None
                self.study.tell(trial, self.plan.objective(last.figure))
        if reason:
            self.told(f"  {'failed' if failed else 'pruned'}: {reason}")
        else:
            mark = ", the best so far" if self._is_best(trial.number) else ""
            self.told(f"  complete: {training.examples:,} examples{mark}")
        return reason if failed else ""

    def _is_best(self, number: int) -> bool:
        rows = self._rows()
        return bool(rows) and rows[0].number == number

    def _speed(self, settings: Mapping[str, Any]) -> float:
        """Examples a second that a trial will make, about: what others of its batch did."""
        batch = settings.get("batch", self.flat["batch"])
        speeds = [
            trial.user_attrs["examples"] / trial.user_attrs["seconds"]
            for trial in self.study.get_trials(deepcopy=False)
            if trial.params.get("batch", self.flat["batch"]) == batch
            and trial.user_attrs.get("host") == self._host
            and trial.user_attrs.get("seconds")
        ]
        return float(np.median(speeds)) if speeds else self.plan.per_second

    # ---- Trials of processes that died ----

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """While entered, others can tell that this process lives: its lock ends with it."""
        require_folder(self.plan.out)
        require_folder(self._locks)
        path = self._locks / f"{self._name}.lock"
        with filelock.FileLock(path):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def _rescue(self) -> None:
        """Begin the trials again whose process is gone."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial) and self._again(trial):
                folder = trial.user_attrs.get("folder", f"{trial.number:04d}")
                self.told(f"trial {folder} was left by a process that died; it is done again")

    def _is_dead(self, trial: FrozenTrial) -> bool:
        known = trial.user_attrs
        if known.get("host") == self._host and known.get("out") == str(self.plan.out.resolve()):
            lock = self._locks / f"{known.get('process')}.lock"
            try:
                with filelock.FileLock(lock, timeout=0):
                    lock.unlink(missing_ok=True)
            except filelock.Timeout:
                return False
            return True
        # On another machine its word must do. One without a word has just begun.
        return "sign" in known and time.time() - float(known["sign"]) > _SILENCE

    def _again(self, trial: FrozenTrial) -> bool:
        """Have a trial done once more, in its folder; False where another process was first."""
        try:
            self.study.tell(trial.number, state=TrialState.FAIL)
        except _GONE:
            return False
        kept = {
            key: trial.user_attrs[key] for key in ("folder", "start") if key in trial.user_attrs
        }
        self.study.enqueue_trial(trial.params, user_attrs={**kept, "again": trial.number})
        return True

    # ---- What was found ----

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _rows(self) -> list[Row]:
        """Complete trials by rank, then the others as they came."""
        rows = [self._row(trial) for trial in self._counted()]
        complete = [row for row in rows if row.state == "complete"]
        complete.sort(key=lambda row: self.plan.loss(row.objective))
        return [*complete, *(row for row in rows if row.state != "complete")]

    def _row(self, trial: FrozenTrial) -> Row:
        known = trial.user_attrs
        course = tuple((float(share), float(value)) for share, value in known.get("course", ()))
        whole = trial.params.keys() == self.distributions.keys()
        out, folder = known.get("out"), known.get("folder")
        return Row(
            number=trial.number,
            state="failed" if known.get("failed") else _STATES[trial.state],
            value=course[-1][1] if course else None,
            objective=trial.value,
            point=dict(trial.params),
            settings=self.plan.space.settings(trial.params, self.flat) if whole else {},
            reason=str(known.get("reason", "")),
            examples=int(known.get("examples", 0)),
            seconds=float(known.get("seconds", 0.0)),
            start=bool(known.get("start")),
            run=str(Path(out) / "trials" / folder) if out and folder else "",
            course=course,
        )

    def _report(self) -> Found:
        """Write what was found so far: best.yaml and the page."""
        plan, rows = self.plan, self._rows()
        found = Found(
            plan=plan,
            study=self.study.study_name,
            rows=tuple(rows),
            figure=str(self.study.user_attrs.get("figure", "")),
            importances=self._importances(),
            notes=tuple(self._notes(rows)),
        )
        if found.best is not None:
            replace_file(plan.out / "best.yaml", best_yaml(found))
        write_page(found, plan.out / "tuning.html")
        return found

    def _notes(self, rows: list[Row]) -> Iterator[str]:
        """What the reader should know."""
        space = self.plan.space
        if outside := space.outside(self.flat):
            yield (
                f"Without a search, {', '.join(outside)} would lie outside of what is searched: the "
                "first trial takes what is nearest, and the search may end worse than without one."
            )
        if rows and rows[0].state == "complete" and not rows[0].start:
            for one in space.dimensions:
                value = rows[0].point[one.name]
                if one.edge(value):
                    yield (
                        f"The best {one.name}, {format_plain(value)}, lies at the end of what was "
                        f"searched, {one.text()}: `--search` with a wider range may find better."
                    )
        if running := [row.name for row in rows if row.state == "running"]:
            yield f"Trials that other processes still train: {', '.join(running)}."

    def _importances(self) -> dict[str, float]:
        """How much each dimension tells the good trials from the rest, in all 1; empty for too few.

        PED-ANOVA (Watanabe 2023, arXiv 2304.10255), which needs no forest of trees as fANOVA does.
        """
        count = len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        if count < _BEFORE_IMPORTANCES or len(self.distributions) < 2:
            return {}
        # The good ones are the best fifth, but at least three of them.
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.2, 3 / count))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental, and that all may be equal
            found = get_param_importances(self.study, evaluator=evaluator)
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}


class Sampler(BaseSampler):
    """TPE whose random numbers are those of a trial's number.

    So a search that went on after a pause is that of one without, and processes that share a study
    do not draw the same.

    Args:
        seed: of the search.
        startup: trials before proposals are made from what was found.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._seed, self._startup = seed, startup
        self._tpe = self._of(0)

    def _of(self, number: int) -> TPESampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return TPESampler(seed=seed, n_startup_trials=self._startup)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._tpe = self._of(trial.number)  # this is asked first of all
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def _distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's words."""
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _first_line(error: BaseException) -> str:
    """What a storage's error says first; Optuna's own words hide the database's."""
    return str(error.__cause__ or error).partition("\n")[0]


def _first(start: bool) -> str:
    return " (as it would be trained without a search)" if start else ""


def describe(point: Mapping[str, Any]) -> str:
    """`lr 2e-4, batch 64`."""
    return ", ".join(f"{name} {format_plain(value)}" for name, value in point.items())


def best_yaml(found: Found) -> str:
    """The settings of the best trial, and where they come from."""
    plan, best = found.plan, found.best
    assert best is not None
    assert best.value is not None
    budget = plan.settings.training
    each = f"{budget.examples:,} examples" if budget.examples else ""
    each = each or f"{format_duration(budget.duration or 0.0)} of training"
    complete = sum(row.state == "complete" for row in found.rows)
    return (
        f"# {found.figure} {format_figure(best.value)} after {each}: the best of {complete} complete\n"
        f"# trials, {date.today():%d %B %Y}. Add --for or --examples for a run of your own length.\n"
        + write_yaml(plan.best_settings(best.point))
    )


def best_command(found: Found) -> str:
    """What trains with the settings that were found."""
    settings = found.plan.settings
    words = ["faussaire", "train", settings.family, settings.source]
    return shlex.join([*words, "--config", str(found.plan.out / "best.yaml")])
