"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all.

Nothing here can execute code from a file. A checkpoint is written under a temporary name, flushed to
the disk and renamed, so a process killed at any moment leaves the previous one in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from faussaire.core.errors import UserError
from faussaire.core.files import flush_folder, replace_file, write_error, write_flushed

FORMAT = 1
_STATE = "state.json"
_NAME = re.compile(r"\d{12}")


class Checkpoints:
    """The checkpoints of one run, oldest first, in folders named after their examples seen.

    Args:
        folder: `RUN/checkpoints`.
        keep: how many of the latest stay; marked ones stay besides.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder = folder
        self.keep = keep

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = (path.parent for path in self.folder.glob(f"*/{_STATE}"))
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def set_aside(self, path: Path) -> None:
        """Put a damaged checkpoint out of the way, so that it does not count as the newest."""
        path.rename(path.with_name(f".damaged-{path.name}-{os.getpid()}"))

    def save(self, groups: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]) -> Path:
        """Write one checkpoint and retire old ones; returns its folder.

        Raises:
            UserError: the disk is full or the folder cannot be written; older checkpoints are intact.
        """
        final = self.folder / f"{record['examples']:012d}"
        temporary = self.folder / f".writing-{os.getpid()}"
        try:
            self._clear_leftovers()
            temporary.mkdir(parents=True)
            sums = {
                f"{name}.safetensors": write_flushed(
                    temporary / f"{name}.safetensors", safetensors.torch.save(_plain(tensors))
                )
                for name, tensors in groups.items()
            }
            state = {"format": FORMAT, **record, "sha256": sums}
            write_flushed(temporary / _STATE, json.dumps(state, indent=1).encode())
            flush_folder(temporary)
            if final.exists():  # of the same instant: damaged, or saved before a change of settings
                self._remove(final)
            temporary.rename(final)
            flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise write_error(error, self.folder, "The checkpoint could not be written") from error
        self._retire()
        return final

    def forget_after(self, examples: int) -> None:
        """Remove checkpoints of more examples than these: a run that went back never did them."""
        for path in self.all():
            if int(path.name) > examples:
                self._remove(path)
        left = {path.name for path in self.all()}
        if lost := {mark for mark, name in self.marks().items() if name not in left}:
            marks = {mark: name for mark, name in self.marks().items() if mark not in lost}
            replace_file(self.folder / "marks.json", json.dumps(marks, indent=1))

    def mark(self, path: Path, name: str) -> None:
        """Give a checkpoint a lasting name (`best`): it is kept whatever comes after."""
        marks = self.marks()
        marks[name] = path.name
        replace_file(self.folder / "marks.json", json.dumps(marks, indent=1))
        self._retire()

    def marks(self) -> dict[str, str]:
        """Folder names of marked checkpoints by mark."""
        path = self.folder / "marks.json"
        if not path.exists():
            return {}
        try:
            return {str(mark): str(name) for mark, name in json.loads(path.read_text()).items()}
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"'{path}' is damaged ({error}).", "Delete it: only marks are lost."
            ) from error

    def find(self, which: str = "latest") -> Path:
        """A checkpoint by `latest`, a mark such as `best`, or a number of examples.

        Raises:
            UserError: there is none of that name.
        """
        found = self.all()
        if not found:
            raise UserError(
                f"'{self.folder.parent}' holds no checkpoint yet.",
                "Train for longer, or give another run.",
            )
        if which == "latest":
            return found[-1]
        name = self.marks().get(which, which)
        for path in found:
            if path.name == name or (name.isdigit() and int(path.name) == int(name)):
                return path
        known = ", ".join([str(int(path.name)) for path in found] + sorted(self.marks()))
        raise UserError(f"There is no checkpoint '{which}'.", f"There are: latest, {known}.")

    def load_latest(
        self,
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], dict[Path, str]] | None:
        """The newest undamaged checkpoint, and what is wrong with newer ones; None if none.

        Raises:
            UserError: there are checkpoints, but all are damaged.
        """
        complaints: dict[Path, str] = {}
        for path in reversed(self.all()):
            try:
                groups, record = load_checkpoint(path)
            except UserError as error:
                complaints[path] = error.cause
                continue
            return groups, record, complaints
        if complaints:
            first = next(iter(complaints.values()))
            raise UserError(
                f"Every checkpoint in '{self.folder}' is damaged. {first}",
                "Restore the run from a copy, or train anew with another --out.",
            )
        return None

    def _retire(self) -> None:
        marked = set(self.marks().values())
        for path in self.all()[: -self.keep]:
            if path.name not in marked:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Renamed first: a kill during removal must not leave half a checkpoint in its place."""
        doomed = path.with_name(f".removing-{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)

    def _clear_leftovers(self) -> None:
        for pattern in (".writing-*", ".removing-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path)


def load_checkpoint(
    path: Path, only: tuple[str, ...] | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file, on the CPU, and the JSON record of one checkpoint.

    Args:
        path: the checkpoint's folder.
        only: names of the files wanted (`averaged`); None: all.

    Raises:
        UserError: a file is missing, damaged or of an unknown format.
    """
    try:
        record = json.loads((path / _STATE).read_text())
        if record["format"] != FORMAT:
            raise UserError(
                f"'{path}' has checkpoint format {record['format']}; this version reads {FORMAT}.",
                "Use the version of faussaire named in the run's env.json.",
            )
        groups = {}
        for file, expected in record["sha256"].items():
            name = file.removesuffix(".safetensors")
            if only is not None and name not in only:
                continue
            content = (path / file).read_bytes()
            if hashlib.sha256(content).hexdigest() != expected:
                raise UserError(
                    f"'{path / file}' is damaged: its checksum is wrong.",
                    "Use an older checkpoint with --checkpoint.",
                )
            groups[name] = safetensors.torch.load(content)
        if missing := set(only or ()) - groups.keys():
            raise UserError(
                f"'{path}' lacks {', '.join(sorted(missing))}.",
                "Use an older checkpoint with --checkpoint.",
            )
        for number in ("examples", "rounds", "elapsed"):
            float(record.get(number, 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"'{path}' is not a readable checkpoint ({error}).",
            "Use an older checkpoint with --checkpoint.",
        ) from error
    return groups, record


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies: safetensors knows neither strides nor shared storage."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
