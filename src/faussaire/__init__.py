"""Faussaire: train, watch and use generative adversarial networks on your own data.

    run = faussaire.train("dcgan", "photos/", resolution=64, duration="10m")
    faussaire.load(run.path).sample(16, seed=0)

Importing the package imports no torch; the first call that needs it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from faussaire import families
from faussaire.core.errors import UserError

if TYPE_CHECKING:
    from faussaire.core.run import Run
    from faussaire.data.check import Check
    from faussaire.model import Model

__all__ = ["UserError", "__version__", "check", "families", "load", "train"]
__version__ = "0.1.0"


def train(
    family: str,
    source: str | Path,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    allow_changes: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Train a family on data, or continue the run in `out`; returns the run.

    Args:
        family: a name from `families.names()`.
        source: a folder of pictures, an archive, array or table, `hf:owner/name`, or `digits`.
        out: the run's folder; None: a new one under `runs/`.
        preset: a named set of settings of the family.
        config: settings underneath the keywords: a mapping, or a YAML file.
        allow_changes: continue an existing run although settings or data have changed.
        quiet: print nothing.
        settings: any flag of `faussaire train FAMILY`, with underscores: `resolution=64`,
            `batch=32`, `examples="200k"`, `duration="10m"` (the flag is `--for`), `lr=1e-4`.

    Raises:
        UserError: the sentence says what is wrong and what to do.
    """
    from faussaire import training
    from faussaire.cli.console import LineConsole
    from faussaire.core.config import read_yaml, resolve
    from faussaire.core.run import Run
    from faussaire.families import load_family

    model = load_family(family).Config
    layer = config if isinstance(config, Mapping) else read_yaml(Path(config)) if config else {}
    stored = Run(out).config_of(family) if out is not None else {}
    presets = training.preset_values(family, preset)
    resolved = resolve(family, str(source), model, stored, presets, layer, settings)
    run = Run(out) if out is not None else training.free_run(resolved)
    return training.run_settings(
        resolved,
        run,
        allow_changes=allow_changes,
        observers=lambda final: () if quiet else (LineConsole(),),
        command=["faussaire.train", family, str(source)],
    )


def load(
    path: str | Path,
    *,
    checkpoint: str = "latest",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> Model:
    """A trained model from a run folder or a checkpoint: `.sample(16, seed=0)`, `.grid()`.

    Args:
        path: `RUN` or `RUN/checkpoints/...`.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to put it.

    Raises:
        UserError: nothing to load there, or it is damaged.
    """
    from faussaire.model import load as load_model

    return load_model(path, checkpoint=checkpoint, device=device)


def check(source: str | Path, *, classes: str = "auto", labels: str | Path | None = None) -> Check:
    """The preflight: counts, sizes, duplicates, unreadable files and warnings. Changes nothing.

    Raises:
        UserError: there is no such source.
    """
    from faussaire.data.check import check as check_source
    from faussaire.data.sources import open_source

    with open_source(source, classes=classes, labels=labels) as opened:
        return check_source(opened)
