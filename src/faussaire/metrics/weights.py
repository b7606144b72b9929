"""Weight files of feature extractors: found or fetched, proved, read.

A file is looked for where the user points (`--weights`, a file or a folder), at `FAUSSAIRE_WEIGHTS`
(likewise), in `<cache>/weights`, and where torch.hub keeps what pytorch-fid and torchvision fetched;
then it is downloaded from its publisher. A download becomes a file of the cache only once its
SHA-256 is the published one. `FAUSSAIRE_OFFLINE=1` forbids downloads.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import pickle
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from faussaire.core.errors import UserError
from faussaire.core.quantity import format_bytes
from faussaire.data.cache import cache_dir, locked
from faussaire.data.parallel import Progress

PATIENCE = 20.0
"""Seconds without a byte after which a download is given up."""

_BLOCK = 1 << 18  # bytes read at a time


class Unavailable(UserError):
    """A weight file is not here and cannot be fetched: another extractor may serve."""


class _Failed(Exception):
    """A download did not bring the file; says why, in a few words."""


@dataclass(frozen=True)
class WeightFile:
    """A published file of trained weights.

    Attributes:
        name: its file name; by torch.hub's custom it carries the first digits of its SHA-256.
        url: where its authors publish it.
        sha256: hexadecimal, all of it or as many leading digits as are published.
        size: bytes; None where not known.
        others: names under which the same network's weights are found elsewhere.
    """

    name: str
    url: str
    sha256: str
    size: int | None = None
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All file names that are taken for this network."""
        return (self.name, *self.others)


INCEPTION_2015 = WeightFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    # torch-fidelity publishes the same bytes under a name of its own.
    others=("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05.safetensors"),
)
SQUEEZENET_1_1 = WeightFile(
    name="squeezenet1_1-b8a52dc0.pth",
    url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    size=4_958_839,
    others=("squeezenet1_1.safetensors", "squeezenet1_1_features.safetensors"),
)
SQUEEZENET_1_0 = WeightFile(
    name="squeezenet1_0-b66bff10.pth",
    url="https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
    sha256="b66bff10",
    others=("squeezenet1_0.safetensors", "squeezenet1_0_features.safetensors"),
)
VGG_19 = WeightFile(
    name="vgg19-dcbb9e9d.pth",
    url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    size=574_673_361,
    others=("vgg19.safetensors", "vgg19_features.safetensors"),
)


def weights_dir() -> Path:
    """The folder of downloaded weights, in the cache. Not created here."""
    return cache_dir() / "weights"


def offline() -> bool:
    """Whether `FAUSSAIRE_OFFLINE` forbids downloads."""
    return os.environ.get("FAUSSAIRE_OFFLINE", "0") not in ("", "0")


def checksum(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def obtain(file: WeightFile, chosen: Path | None = None, progress: Progress | None = None) -> Path:
    """The path of a weight file on this machine, downloaded if need be.

    Args:
        file: which.
        chosen: a file, taken whatever its name, or a folder to look into first.
        progress: called as progress(what, bytes so far, bytes in all) during a download.

    Raises:
        Unavailable: it is nowhere, and cannot be downloaded.
        UserError: a path that was given does not exist; a file is damaged; the cache cannot be
            written.
    """
    found = locate(file, chosen)
    return fetch(file, progress, chosen=chosen) if found is None else found


def locate(file: WeightFile, chosen: Path | None = None) -> Path | None:
    """The path of a weight file that is on this machine already, else None.

    Raises:
        UserError: a path that was given does not exist, or the file found is damaged.
    """
    if chosen is not None and chosen.is_file():
        _prove(file, chosen)
        return chosen
    for place in places(chosen):
        # A file named in the environment serves only the network that its name tells.
        folder, only = (place.parent, place.name) if place.is_file() else (place, None)
        for name in file.names:
            path = folder / name
            if only in (None, name) and path.is_file():
                _prove(file, path)
                return path
    return None


def places(chosen: Path | None = None) -> list[Path]:
    """Files and folders where weights are looked for, in this order.

    Raises:
        UserError: one that the user named does not exist.
    """
    named = {"--weights": chosen}
    if in_environment := os.environ.get("FAUSSAIRE_WEIGHTS", ""):
        named["FAUSSAIRE_WEIGHTS"] = Path(in_environment).expanduser()
    for what, place in named.items():
        if place is not None and not place.exists():
            raise UserError(
                f"There is no file or folder '{place}' ({what}).",
                "Give the path of a weight file, or of a folder that holds some.",
            )
    given = [place for place in named.values() if place is not None]
    return [*given, weights_dir(), Path(torch.hub.get_dir()) / "checkpoints"]


def fetch(
    file: WeightFile,
    progress: Progress | None = None,
    patience: float = PATIENCE,
    chosen: Path | None = None,
) -> Path:
    """Download a weight file into the cache.

    Args:
        file, progress: as for `obtain`.
        patience: seconds to wait for the next bytes.
        chosen: where it was looked for first, for the words.

    Raises:
        Unavailable: no network, the server refuses or breaks off, or the bytes are not the file.
        UserError: the cache cannot be written, or its disk is full.
    """
    if offline():
        raise _unavailable(file, "FAUSSAIRE_OFFLINE forbids it", chosen)
    folder = weights_dir()
    target, part = folder / file.name, folder / f".{file.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{file.name}.lock"):  # of two processes, one downloads
            if target.is_file():
                return target
            try:
                _download(file, part, progress, patience)
                part.replace(target)
            except _Failed as failure:
                raise _unavailable(file, str(failure), chosen) from failure
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(file, folder) from error
        raise UserError(
            f"The cache folder '{folder}' cannot be written ({error.strerror or error}).",
            "Set the environment variable FAUSSAIRE_CACHE to a folder that can.",
        ) from error
    return target


def _download(file: WeightFile, part: Path, progress: Progress | None, patience: float) -> None:
    """Stream the file to `part`, and prove it.

    Raises:
        _Failed: the bytes could not be had, or are wrong.
        OSError: they could not be written.
    """
    try:
        response = urllib.request.urlopen(file.url, timeout=patience)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise _Failed(f"the server answers {error.code} {error.reason}".rstrip()) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(_reason(error, patience)) from error
    with response, part.open("wb") as out:
        total = int(response.headers.get("Content-Length") or file.size or 0)
        if shutil.disk_usage(part.parent).free < total:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done, digest = 0, hashlib.sha256()
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                why = f"it broke off after {done:,} bytes, {_reason(error, patience)}"
                raise _Failed(why) from error
            if not block:
                break
            out.write(block)
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(f"downloading {file.name}", done, max(total, done))
    if done < total:
        raise _Failed(f"it broke off after {done:,} of {total:,} bytes")
    found = digest.hexdigest()
    if not found.startswith(file.sha256):
        raise _Failed(
            f"what came is another file: its SHA-256 begins with {found[:8]}, "
            f"not with {file.sha256[:8]}"
        )


def _reason(error: Exception, patience: float) -> str:
    """A download's failure in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {patience:g} s"
    words = cause.strerror if isinstance(cause, OSError) else None
    return f"no connection: {words or cause}"


def _unavailable(file: WeightFile, why: str, chosen: Path | None) -> Unavailable:
    looked = ", ".join(f"'{place}'" for place in places(chosen))
    return Unavailable(
        f"The weight file {file.name} is not in {looked}, and could not be downloaded ({why}).",
        f"Fetch {file.url} by hand and pass its path by --weights, or use the extractor pixels, "
        "which needs no file.",
    )


def _disk_full(file: WeightFile, folder: Path) -> UserError:
    need = f" ({format_bytes(file.size)})" if file.size else ""
    free = format_bytes(shutil.disk_usage(folder).free)
    return UserError(
        f"{file.name}{need} does not fit on the disk of the cache folder '{folder}' ({free} free).",
        "Free some space, or set FAUSSAIRE_CACHE to a larger disk.",
    )


def _prove(file: WeightFile, path: Path) -> None:
    """Refuse a file whose name carries the published digits while its content has others."""
    if file.sha256[:8] not in path.name:
        return
    found = checksum(path)
    if not found.startswith(file.sha256):
        raise UserError(
            f"The weight file '{path}' is damaged: its SHA-256 begins with {found[:8]}, not with "
            f"{file.sha256[:8]}.",
            f"Delete it, and it is downloaded again from {file.url}.",
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name; nothing that the file holds is executed.

    Args:
        path: `.safetensors`, or a state dict saved by torch under any other ending.

    Raises:
        UserError: it cannot be read, or holds no state dict.
    """
    hint = "Fetch the file again."
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"'{path}' holds more than weights, or is damaged.", hint) from error
    except (OSError, RuntimeError, ValueError, LookupError, EOFError) as error:
        words = str(error).partition("\n")[0]
        raise UserError(f"'{path}' cannot be read as weights ({words}).", hint) from error
    if isinstance(state, Mapping):
        # Programs of the BasicSR kind save their averaged and their plain weights side by side.
        inner = [state[key] for key in ("params_ema", "params") if key in state]
        state = inner[0] if inner else state
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"'{path}' holds {type(state).__name__}, not a state dict.", hint)
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def fill(net: nn.Module, state: Mapping[str, Tensor], path: Path, hint: str) -> None:
    """Load a state dict into a network, having compared names, shapes and values.

    Batch norm's counters may be missing: they mean nothing outside training.

    Args:
        net: receives the tensors.
        state: what `path` holds.
        path: for the words.
        hint: what to do about a file of another network.

    Raises:
        UserError: the file is of another network, or holds NaN or infinity.
    """
    wanted = net.state_dict()
    names, given = (
        {n for n in d if not n.endswith("num_batches_tracked")} for d in (wanted, state)
    )
    what = type(net).__name__
    if missing := sorted(names - given):
        raise UserError(
            f"'{path}' does not fit {what}: {len(missing)} of its {len(names)} tensors are missing, "
            f"{missing[0]} first.",
            hint,
        )
    if extra := sorted(given - names):
        raise UserError(
            f"'{path}' does not fit {what}: it has {len(extra)} tensors too many, {extra[0]} first.",
            hint,
        )
    for name in sorted(names):
        if state[name].shape != wanted[name].shape:
            raise UserError(
                f"'{path}' does not fit {what}: {name} has the shape {tuple(state[name].shape)}, "
                f"not {tuple(wanted[name].shape)}.",
                hint,
            )
        if not state[name].isfinite().all():
            raise UserError(f"'{path}' is damaged: {name} holds NaN or infinity.", hint)
    net.load_state_dict(state, strict=False)
