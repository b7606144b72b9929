"""One trial is one `faussaire train` in a process of its own: started, listened to, ended.

What happens in it is read from the events file of its run, which is written for this; a trial that falls
over takes nothing else along. No Optuna here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import filelock

from faussaire.core.config import write_yaml
from faussaire.core.errors import UserError
from faussaire.core.figures import Figure, read_figures
from faussaire.core.files import replace_file
from faussaire.core.run import Run

#: Seconds in which a process that was asked to end may save: a checkpoint of a large network.
_PATIENCE = 120.0
#: A verdict of the doctor's that is as sure as this ends a trial: the others repay waiting.
SURE = 0.9
_FATAL = re.compile(r"collapse|diverg|discriminator.*too (weak|strong)")

#: Run folder, settings file -> the words of a command that trains there.
Command = Callable[[Path, Path], list[str]]


def train_command(family: str, source: str) -> Command:
    """`faussaire train FAMILY SOURCE`, in this interpreter."""

    def words(run: Path, config: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "faussaire", "train", family, source),
            *("--config", str(config), "--out", str(run)),
        ]

    return words


@dataclass(frozen=True)
class Measurement:
    """A figure of a trial, and when it was measured.

    Attributes:
        figure: with its provenance.
        examples: seen by then.
        elapsed: seconds of training by then, measuring not counted.
    """

    figure: Figure
    examples: int
    elapsed: float


class Training:
    """The process of one trial.

    Attributes:
        measured: every measurement so far, oldest first.
        verdict: the doctor's sentence that ends the trial; empty while there is none.
        examples, elapsed: how far the run is.
        outcome: how it ended, as its last event says: `complete`, `interrupted`, `diverged`.
        message: what that event says.
    """

    def __init__(
        self, run: Path, settings: Mapping[str, Any], command: Command, metric: str
    ) -> None:
        self.run = Run(run)
        self.measured: list[Measurement] = []
        self.verdict = self.outcome = self.message = ""
        self.examples, self.elapsed = 0, 0.0
        self._metric = metric
        self._note = ""
        self._events = Lines(self.run.events)
        self._log = run.with_suffix(".log")
        _wait_until_free(run)
        config = run.with_suffix(".yaml")
        replace_file(config, write_yaml(settings))
        with self._log.open("ab") as log:
            self._said_at = log.tell()
            self._process = subprocess.Popen(
                command(run, config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # It saves and ends where this process dies without a word: see core/signals.py.
                env={**os.environ, "FAUSSAIRE_LAUNCHER": str(os.getpid()), "NO_COLOR": "1"},
                start_new_session=True,  # Ctrl-C reaches the search alone, which then ends its trial
            )

    def listen(self) -> list[Measurement]:
        """Take in what has happened; returns the measurements that are new."""
        fresh: list[Measurement] = []
        for event in self._events.read():
            self.examples = int(event.get("examples", self.examples))
            self.elapsed = float(event.get("elapsed", self.elapsed))
            kind = event.get("event")
            if kind == "measured" and (found := self._measurement(event)):
                fresh.append(found)
            elif kind == "diagnosed" and not self.verdict:
                self.verdict = _verdict(event)
            elif kind == "started":
                self.outcome = self.message = ""
            elif kind == "noted":
                self._note = str(event.get("message", ""))
            elif kind == "finished":
                self.outcome = str(event.get("outcome", ""))
                self.message = str(event.get("message", ""))
        self.measured += fresh
        return fresh

    def _measurement(self, event: Mapping[str, Any]) -> Measurement | None:
        """The figure behind a `measured` event: a trial that goes on finds its old ones, too."""
        if any(one.examples == self.examples for one in self.measured):
            return None
        for figure in read_figures(self.run.path / "metrics.jsonl"):
            known = figure.provenance.metric == self._metric and figure.examples == self.examples
            if known and figure.name in (event.get("figures") or {}):
                return Measurement(figure, self.examples, self.elapsed)
        return None

    def ended(self) -> bool:
        """Whether the process has."""
        return self._process.poll() is not None

    @property
    def code(self) -> int | None:
        """Its exit code."""
        return self._process.returncode

    def stop(self) -> None:
        """Have it save and end; kill it where it does not."""
        if not self.ended():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                pass
            finally:  # a second Ctrl-C does not wait, either
                self._process.kill()
                self._process.wait()
        self.listen()

    def trouble(self) -> str:
        """Why it failed, in its own words."""
        if self.code == 0:
            return self._note or "It was not measured at its end."
        with self._log.open("rb") as log:
            log.seek(self._said_at)
            said = log.read().decode("utf-8", "replace").rstrip()
        if "faussaire: " in said:
            return " ".join(said.rpartition("faussaire: ")[2].split())
        if self.code is not None and self.code < 0:
            name = signal.Signals(-self.code).name
            return f"Its process was killed ({name}): the machine may have run out of memory."
        last = said.rpartition("\n")[2].strip()
        return last or f"It ended with code {self.code} and without a word."


def _wait_until_free(run: Path) -> None:
    """Give a process that trains there for a search that was killed the time to save and end."""
    if run.is_dir():
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(run / ".lock", _PATIENCE):
            pass


def _verdict(event: Mapping[str, Any]) -> str:
    """What the doctor found, where it is sure that the trial is lost; else an empty string."""
    name = str(event.get("name", "")).lower().replace("_", " ").replace("-", " ")
    confidence = event.get("confidence")
    sure = isinstance(confidence, int | float) and confidence >= SURE
    if event.get("ill") is not True or not sure or not _FATAL.search(name):
        return ""
    return f"the doctor: {name} ({confidence:.0%} sure)"


class Lines:
    """The events of a file that grows: each call of `read` returns the new ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def read(self) -> list[dict[str, Any]]:
        """Records of the lines that have been completed since; torn and foreign ones are passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._place += len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    found.append(record)
        return found


@dataclass(frozen=True)
class Rehearsal:
    """What three real steps say of a search's trials.

    Attributes:
        pictures: in the source.
        per_second: examples a second.
    """

    pictures: int
    per_second: float


def rehearse(settings: Mapping[str, Any], command: Command) -> Rehearsal:
    """Try the settings for three steps, so that what is wrong with them is told before the search.

    In a process of its own, for on a GPU this one would keep memory that trials need.

    Args:
        settings: flat.
        command: trains.

    Raises:
        UserError: what `faussaire train` has to say against them.
    """
    with TemporaryDirectory() as folder:
        config = Path(folder) / "settings.yaml"
        replace_file(config, write_yaml(settings))
        done = subprocess.run(
            [*command(Path(folder) / "run", config), "--dry-run", "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
    if done.returncode != 0:
        cause, _, hint = done.stderr.strip().rpartition("faussaire: ")[2].partition("\n")
        raise UserError(cause or "The settings cannot be trained.", " ".join(hint.split()))
    found = json.loads(done.stdout)
    return Rehearsal(int(found["pictures"]), float(found["examples_per_second"]))
