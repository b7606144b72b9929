"""Faussaire: train, watch and use generative adversarial networks on your own data.

    run = faussaire.train("dcgan", "photos/", resolution=64, duration="10m")
    faussaire.load(run.path).sample(16, seed=0)

Importing the package imports no torch; the first call that needs it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from faussaire import families
from faussaire.core.errors import UserError
from faussaire.core.files import require_folder

if TYPE_CHECKING:
    from PIL.Image import Image

    from faussaire.comparison import Comparison
    from faussaire.core.run import Run
    from faussaire.data.check import Check
    from faussaire.latent.editor import Editor
    from faussaire.measuring import Evaluation
    from faussaire.metrics.extractors import Extractor
    from faussaire.metrics.maps import FeatureMaps
    from faussaire.stylisation import Moment

__all__ = [
    "UserError",
    "__version__",
    "check",
    "compare",
    "editor",
    "evaluate",
    "families",
    "load",
    "train",
    "transfer",
]
__version__ = "0.1.0"


def train(
    family: str,
    source: str | Path,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    size: Literal["tiny", "small", "base", "large"] | None = None,
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
        size: how large the networks are, underneath a preset.
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
    below = training.layers(family, stored, preset=preset, size=size)
    resolved = resolve(family, str(source), model, *below, layer, settings)
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
) -> Any:
    """A trained model from a run folder or a checkpoint: `.sample(16, seed=0)`.

    Args:
        path: `RUN` or `RUN/checkpoints/...`; or a file of ESRGAN's or Real-ESRGAN's weights.
        checkpoint: `latest`, a mark, or a number of examples seen.
        device: where to put it.

    Returns:
        `faussaire.model.Model` for what makes pictures, `faussaire.texts.model.TextModel` for what
        writes sentences.

    Raises:
        UserError: nothing to load there, or it is damaged.
    """
    from faussaire.model import load as load_model

    return load_model(path, checkpoint=checkpoint, device=device)


def editor(
    run: str | Path,
    *,
    checkpoint: str = "latest",
    label: str | int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> Editor:
    """A run's latent space to edit pictures in: `.project`, `.find`, `.learn`, `.edit`, `.picture`.

    Args:
        run: the run's folder, or one of its checkpoints, of a family with latents.
        checkpoint: `latest`, a mark, or a number of examples seen.
        label: the class that all pictures show, for a class-conditional run.
        device: where to run.

    Raises:
        UserError: there is no run, or it makes no pictures of latents.
    """
    from faussaire.latent.editor import Editor

    return Editor.open(run, checkpoint=checkpoint, device=device, label=label)


def evaluate(
    run: str | Path | None = None,
    *,
    fake: str | Path | None = None,
    real: str | Path | None = None,
    against: str | Path | None = None,
    target: str | Path | None = None,
    metrics: str | Sequence[str] | None = None,
    count: int | None = None,
    reference_count: int | None = None,
    extractor: str | Extractor = "auto",
    weights: str | Path | None = None,
    resize: Literal["clean", "legacy", "pytorch"] = "clean",
    checkpoint: str = "latest",
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    resolution: int | tuple[int, int] | None = None,
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto",
    classes: str | None = None,
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Measure a run, or one set of pictures against another: `evaluate("runs/x")["fid"].value`.

    The figures of a run are added to its `metrics.jsonl`; those of pictures to `out`, if given.

    Args:
        run: a run's folder, or one of its checkpoints.
        fake, real: sources to measure in place of a run.
        against: pictures to compare a run with, in place of those it was trained on.
        target: what the pictures of `against` should become, or the second of two sets.
        metrics: names, such as "fid,kid,prdc"; None: the usual ones that fit.
        count: samples; None: 50,000 on a GPU, 10,000 on a CPU. Of a run that makes pictures from
            pictures, how many pairs at most.
        reference_count: pictures to compare with, at random; None: all on a GPU, 10,000 on a CPU.
        extractor: a name, or any object that is a `faussaire.metrics.extractors.Extractor`.
        weights: a file or folder with weights of extractors.
        resize: how pictures reach the extractor's size.
        checkpoint: `latest`, a mark such as `best`, or a number of examples.
        seed: of the samples.
        device: where networks run.
        resolution: with `fake`: (height, width), or one number for a square, to bring both to.
        channels: with `fake`: how pictures are read.
        classes: with `fake` or `against`: where classes come from, as in training.
        out: with `fake`: a folder for `metrics.jsonl` and the pictures to look at.
        progress: called as progress(what, done, total).

    Raises:
        UserError: the sentence says what is wrong and what to do.
    """
    if run is not None and (resolution is not None or channels != "auto"):
        raise UserError(
            "resolution and channels do not apply to a run, whose pictures have its own.",
            "Leave them out.",
        )
    if out is not None:
        require_folder(Path(out))  # told now, not after all the work
    from faussaire import evaluation

    options = evaluation.Options(
        metrics=metrics,
        count=count,
        reference_count=reference_count,
        extractor=extractor,
        weights=None if weights is None else Path(weights),
        resize=resize,
        seed=seed,
        device=device,
    )
    if run is not None and fake is None and real is None:
        found = evaluation.evaluate_run(
            Path(run),
            options,
            checkpoint=checkpoint,
            against=None if against is None else str(against),
            target=None if target is None else str(target),
            classes=classes,
            progress=progress,
        )
    elif run is None and fake is not None and real is not None:
        found = evaluation.evaluate_sources(
            str(fake),
            str(real),
            options,
            resolution=(resolution, resolution) if isinstance(resolution, int) else resolution,
            channels=channels,
            classes=classes or "auto",
            progress=progress,
        )
    else:
        raise UserError(
            "Measuring needs either a run, or both fake and real.",
            'For example: faussaire.evaluate("runs/x"), or faussaire.evaluate(fake="a", real="b").',
        )
    folder = found.run if out is None else Path(out)
    if folder is not None:
        found.save(folder)
    return found


def compare(
    *runs: str | Path,
    checkpoint: str = "latest",
    samples: int = 0,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> Comparison:
    """Runs side by side: settings that differ, figures that mean the same, samples.

    Args:
        runs: two or more run folders.
        checkpoint: of each run: `latest`, a mark such as `best`, or a number of examples.
        samples: pictures of each run from the same latent vectors, for `write_html`.
        seed: of the samples.
        device: where the samples are made.

    Raises:
        UserError: fewer than two runs, or one that is none.
    """
    from faussaire import comparison

    return comparison.compare(
        runs, checkpoint=checkpoint, samples=samples, seed=seed, device=device
    )


def check(source: str | Path, *, classes: str = "auto", labels: str | Path | None = None) -> Check:
    """The preflight: counts, sizes, duplicates, unreadable files and warnings. Changes nothing.

    Raises:
        UserError: there is no such source.
    """
    from faussaire.data.check import check as check_source
    from faussaire.data.sources import open_source

    with open_source(source, classes=classes, labels=labels) as opened:
        return check_source(opened)


def transfer(
    content: str | Path | Image,
    style: str | Path | Image | Sequence[str | Path | Image],
    *,
    shares: Sequence[float] | None = None,
    size: int = 512,
    style_scale: float = 1.0,
    keep_colour: bool = False,
    seed: int = 0,
    extractor: str | FeatureMaps = "auto",
    weights: str | Path | None = None,
    pool: Literal["max", "average"] | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    precision: Literal["auto", "bfloat16", "float32"] = "auto",
    preview_every: int = 0,
    watch: Callable[[Moment], None] | None = None,
    note: Callable[[str], None] | None = None,
    **settings: Any,
) -> Image:
    """Paint a photograph in the manner of a painting: `transfer("me.jpg", "art.jpg").save("out.png")`.

    Args:
        content: the photograph: a path, or a picture of Pillow's.
        style: the painting, or several to be mixed.
        shares: of each style in the mixture; None: equal ones.
        size: pixels of the result's longer side; its shape is the content's.
        style_scale: size of the paintings, hence of their strokes, relative to the result's.
        keep_colour: give the paintings the photograph's colours first.
        seed: of all that is drawn.
        extractor: `vgg19`, `squeezenet1.1`, `auto` (the first of these that can be had), or a
            `faussaire.metrics.maps.FeatureMaps` together with `content_layers` and `style_layers`.
        weights: a file or folder with the network's weights.
        pool: of the network; None: average, as the paper advises.
        device: where to run.
        precision: of the network.
        preview_every: steps between moments that have the picture as it stands; 0: none.
        watch: called about twice a second with how far it is.
        note: called with a sentence where the user should know something.
        settings: of `faussaire.families.styletransfer.StyleTransferConfig`: `style_weight=40.0`,
            `steps=200`, `optimiser="lbfgs"`, `start="noise"`.

    Returns:
        A picture of Pillow's, RGB, or RGBA where the content is transparent.

    Raises:
        UserError: the sentence says what is wrong and what to do.
    """
    from PIL import Image as pillow

    from faussaire import stylisation

    one = isinstance(style, str | Path | pillow.Image)
    return stylisation.transfer(
        content,
        [style] if one else list(style),
        shares=shares,
        size=size,
        style_scale=style_scale,
        keep_colour=keep_colour,
        seed=seed,
        extractor=extractor,
        weights=None if weights is None else Path(weights),
        pool=pool,
        device=device,
        precision=precision,
        preview_every=preview_every,
        watch=watch,
        note=note or (lambda sentence: None),
        **settings,
    )
