"""A run is a folder, and the folder is the only truth.

    config.yaml    every setting, resolved; `faussaire train --config config.yaml` runs it again
    env.json       versions, machine, command
    data.json      what the data are: count, classes, content key, files left out
    events.jsonl   everything that happened, a line each
    samples/       reals.png and previews named after the examples seen
    checkpoints/   safetensors and JSON
    report.html    the page to look at

No torch here: listing and reading runs is instant.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from faussaire import __version__
from faussaire.core.config import read_yaml, write_yaml
from faussaire.core.errors import UserError
from faussaire.core.events import Event
from faussaire.core.files import end_last_line, replace_file, write_error


class Run:
    """The folder of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = filelock.FileLock(self.path / ".lock", timeout=0)
        self._made: list[Path] = []

    @classmethod
    def find(cls, path: str | Path) -> Run:
        """An existing run.

        Raises:
            UserError: there is no run in this folder.
        """
        run = cls(path)
        if not run.exists():
            folder = Path(path)
            near = sorted(found.parent.name for found in folder.parent.glob("*/config.yaml"))
            hint = f"Runs beside it: {', '.join(near[:8])}." if near else "See `faussaire runs`."
            raise UserError(f"'{folder}' is not a run: it has no config.yaml.", hint)
        return run

    @classmethod
    def around(cls, path: str | Path) -> Run:
        """The run that a path names: its folder, or one of its checkpoints.

        Raises:
            UserError: there is no run there.
        """
        folder = Path(path)
        inside = folder.parent.name == "checkpoints" and (folder / "state.json").exists()
        return cls.find(folder.parent.parent if inside else folder)

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.yaml").is_file()

    @property
    def samples(self) -> Path:
        """Folder of preview grids."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    def saved(self) -> list[int]:
        """Examples seen at each checkpoint, oldest first."""
        names = (path.parent.name for path in self.checkpoints.glob("*/state.json"))
        return sorted(int(name) for name in names if len(name) == 12 and name.isdigit())

    @property
    def events(self) -> Path:
        """The events file."""
        return self.path / "events.jsonl"

    def acquire(self) -> None:
        """Make this process the only one that trains here, until it ends.

        Raises:
            UserError: another process does, the folder holds other things, or cannot be written.
        """
        if self.path.is_dir() and not self.exists() and self._strangers():
            raise UserError(
                f"'{self.path}' is not a run and holds other files, such as "
                f"'{self._strangers()[0]}'.",
                "Choose a new folder with --out: a run does not mix with other things.",
            )
        try:
            self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self.samples.mkdir(exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        except filelock.Timeout as error:
            raise UserError(
                f"Another process is training '{self.path}' right now.",
                "Wait for it, stop it, or choose another --out.",
            ) from error
        except OSError as error:
            raise write_error(error, self.path, "The run could not be begun") from error

    def release(self) -> None:
        """Let other processes train here; a run that never began leaves no folder behind."""
        if not self._lock.is_locked:
            return
        self._lock.release()
        if not self.exists() and not self._strangers():
            for folder in (self.samples, self.checkpoints):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            (self.path / ".lock").unlink(missing_ok=True)
            for folder in self._made or [self.path]:
                if not any(folder.iterdir()):
                    folder.rmdir()

    def _strangers(self) -> list[str]:
        """Names in the folder that no run that is about to begin would have."""
        ours = {".lock", "samples", "checkpoints", "env.json", "data.json"}
        return sorted(path.name for path in self.path.iterdir() if path.name not in ours)

    def config(self) -> dict[str, Any]:
        """The settings, flat."""
        return read_yaml(self.path / "config.yaml")

    def config_of(self, family: str) -> dict[str, Any]:
        """The settings of a run that is to train `family`; empty where none was begun yet.

        Raises:
            UserError: the run trains another family.
        """
        if not self.exists():
            return {}
        stored = self.config()
        if stored.get("family") != family:
            raise UserError(
                f"'{self.path}' trains {stored.get('family', 'an unknown family')}, not {family}.",
                "Choose another --out.",
            )
        return stored

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Store the settings."""
        replace_file(self.path / "config.yaml", write_yaml(values))

    def read(self, name: str) -> dict[str, Any]:
        """`env.json` or `data.json`, empty where there is none yet."""
        path = self.path / name
        try:
            found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        except (ValueError, OSError) as error:
            raise UserError(
                f"'{path}' is damaged: {error}.", "Delete it; it is only read."
            ) from error
        if not isinstance(found, dict):
            raise UserError(f"'{path}' is damaged: no mapping.", "Delete it; it is only read.")
        return found

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Store `env.json` or `data.json`."""
        replace_file(
            self.path / name, json.dumps(values, indent=1, ensure_ascii=False, default=str)
        )


class EventFile:
    """An observer that appends every event to `events.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Unbuffered: each line reaches the system whole, and closing has nothing left to write.
            self._file = path.open("a+b", buffering=0)
            end_last_line(self._file)
        except OSError as error:
            raise write_error(error, path.parent, "The events file cannot be opened") from error

    def see(self, event: Event) -> None:
        try:
            self._file.write(json.dumps(event.record()).encode() + b"\n")
        except OSError as error:
            raise write_error(
                error, self._path.parent, "The events could not be written"
            ) from error

    def close(self) -> None:
        self._file.close()


def environment(command: list[str] | None = None) -> dict[str, Any]:
    """Versions and machine, for env.json and bug reports; no torch is imported."""
    packages = {}
    for name in ("torch", "numpy", "pillow", "safetensors", "tyro"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "faussaire": __version__,
        **packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "command": command if command is not None else sys.argv,
        "git": _git_commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the working directory, if it is a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
