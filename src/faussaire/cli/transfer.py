"""`faussaire transfer PHOTO PAINTING -o out.png`: a photograph in the manner of paintings."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from faussaire.cli.console import Reading, out, parse, warn
from faussaire.core.errors import UserError, nearest
from faussaire.core.quantity import format_duration

if TYPE_CHECKING:
    from PIL import Image

    from faussaire.stylisation import Moment

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Paint a photograph in the manner of one painting or several.

    Attributes:
        content: the photograph.
        styles: the painting, or several to be mixed.
        out: where the picture is written: .png, .jpg, .webp or .tif.
        size: pixels of its longer side; the photograph's shape is kept.
        share: of each style in the mixture, as numbers: 2 1 takes two thirds of the first.
        style_weight: how much the manner counts.
        content_weight: how much the photograph counts.
        tv: how smooth it is to be: weight of the total variation.
        style_scale: size of the paintings, hence of their strokes, relative to the picture's.
        content_layers: the network's layers that compare content, such as fire4 or fire3=1,fire5=0.5.
        style_layers: those that compare style, likewise.
        init: begin with the photograph, or with noise.
        optimiser: adam, or the paper's lbfgs.
        lr: length of steps; none: .04 for adam, in pixel values of [-1, 1], and 1 for lbfgs.
        steps: at each scale; twice as many at the first.
        smallest: pixels of the longer side at the first, coarsest scale.
        keep_colour: give the paintings the photograph's colours first.
        seed: of the noise, and of everything else that is drawn.
        extractor: the network to look through: vgg19, squeezenet1.1, or auto, the first that can be had.
        weights: a file or folder with its weights.
        pool: of that network; none: average.
        preview_every: steps between pictures of how far it is, beside the result; 0: none.
        device: where to run.
        precision: of the network.
        json: print what was done as JSON, and no progress.
        overwrite: replace files of the same names.
    """

    content: Annotated[Path, tyro.conf.Positional]
    styles: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    size: int = 512
    share: tuple[float, ...] | None = None
    style_weight: float = 20.0
    content_weight: float = 1.0
    tv: float = 5.0
    style_scale: float = 1.0
    content_layers: str | None = None
    style_layers: str | None = None
    init: Literal["content", "noise"] = "content"
    optimiser: Literal["adam", "lbfgs"] = "adam"
    lr: float | None = None
    steps: int = 100
    smallest: int = 128
    keep_colour: bool = False
    seed: int = 0
    extractor: str = "auto"
    weights: Path | None = None
    pool: Literal["max", "average"] | None = None
    preview_every: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    json: bool = False
    overwrite: bool = False


def run(arguments: list[str]) -> int:
    """Paint, and write the picture."""
    options = parse("transfer", Options, arguments)
    if options.out.suffix.lower() not in _ENDINGS:
        known = nearest(options.out.suffix.lower(), _ENDINGS)
        raise UserError(
            f"'{options.out}' does not end as a picture's name.{known}", "Name it out.png, say."
        )
    taken = [options.out, *_previews(options.out)] if options.preview_every else [options.out]
    if not options.overwrite and (found := next((p for p in taken if p.exists()), None)):
        raise UserError(f"'{found}' exists.", "Add --overwrite, or name another file.")
    layers = {
        f"{kind}_layers": parse_layers(written)
        for kind in ("content", "style")
        if (written := getattr(options, f"{kind}_layers")) is not None
    }

    from faussaire.stylisation import transfer  # torch begins here

    reading, console = Reading(), Console(options)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if not options.json:
            warn(text)

    try:
        picture = transfer(
            options.content,
            options.styles,
            shares=options.share,
            size=options.size,
            style_scale=options.style_scale,
            keep_colour=options.keep_colour,
            seed=options.seed,
            extractor=options.extractor,
            weights=options.weights,
            pool=options.pool,
            device=options.device,
            precision=options.precision,
            preview_every=options.preview_every,
            watch=console,
            note=note,
            progress=reading,
            style_weight=options.style_weight,
            content_weight=options.content_weight,
            tv_weight=options.tv,
            start=options.init,
            optimiser=options.optimiser,
            lr=options.lr,
            steps=options.steps,
            smallest=options.smallest,
            **layers,
        )
    finally:
        reading.close()
        console.close()
    save(picture, options.out)
    if options.json:
        print(json.dumps(_told(options, picture, console, notes), indent=1, default=str))
        return 0
    width, height = picture.size
    out.print(
        f"{width}x{height} in {options.out}, after {format_duration(console.elapsed)}", markup=False
    )
    return 0


def _told(
    options: Options, picture: Image.Image, console: Console, notes: list[str]
) -> dict[str, Any]:
    return {
        "out": options.out,
        "width": picture.size[0],
        "height": picture.size[1],
        "seconds": round(console.elapsed, 1),
        "losses": {name: list(values) for name, values in console.losses.items()},
        "previews": console.written,
        "notes": notes,
    }


def parse_layers(written: str) -> dict[str, float]:
    """Layers with weights: `"fire4"` -> {"fire4": 1.0}, `"relu1=0.5,fire3=0.2"`.

    Raises:
        UserError: it is no such list.
    """
    found = {}
    for part in written.replace(" ", "").split(","):
        name, _, weight = part.partition("=")
        try:
            found[name] = float(weight or "1")
        except ValueError:
            name = ""
        if not name:
            raise UserError(
                f"'{written}' is not a list of layers.", "Write it as fire4 or relu1=0.5,fire3=0.2."
            )
    return found


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format that its name tells; JPEG has no transparency, which becomes white.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    from PIL import Image

    from faussaire.report.files import whole

    how: dict[str, Any] = {}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        how = {"quality": 95, "subsampling": 0}
        if picture.mode == "RGBA":
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture).convert("RGB")
    elif path.suffix.lower() == ".webp":
        how = {"quality": 95}
    with whole(path) as temporary:
        picture.save(temporary, **how)


def _previews(path: Path) -> list[Path]:
    """Progress pictures that lie beside a result, from any run."""
    return sorted(path.parent.glob(f"{path.stem}-step[0-9]*{path.suffix}"))


class Console:
    """Shows how a picture forms, and writes it on the way where that was asked for.

    Attributes:
        losses: the first and the last seen of each term.
        elapsed: seconds of painting.
        written: progress pictures.
    """

    def __init__(self, options: Options) -> None:
        self.losses: dict[str, tuple[float, float]] = {}
        self.elapsed = 0.0
        self.written: list[Path] = []
        self._options = options
        self._next = 0.0
        self._bar: Progress | None = None

    def __call__(self, moment: Moment) -> None:
        self.elapsed = moment.elapsed
        for name, value in moment.losses.items():
            self.losses[name] = (self.losses.get(name, (value,))[0], value)
        if moment.picture is not None:
            place = self._options.out
            path = place.with_name(f"{place.stem}-step{moment.step:05d}{place.suffix}")
            save(moment.picture, path)
            self.written.append(path)
        if not self._options.json:
            self._show(moment)

    def _show(self, moment: Moment) -> None:
        words = f"{describe(moment.losses)}  left {format_duration(moment.remaining)}"
        if out.is_terminal and sys.stdout.isatty():
            if self._bar is None:
                self._bar = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    TextColumn("{task.percentage:>5.1f}%  {task.fields[words]}"),
                    console=out,
                    auto_refresh=False,
                )
                self._bar.add_task("", total=1.0, words="")
                self._bar.start()
            self._bar.update(
                self._bar.task_ids[0],
                description=moment.scale,
                completed=moment.progress,
                words=escape(words),
            )
            self._bar.refresh()
        elif moment.elapsed >= self._next or moment.progress >= 1.0:
            self._next = moment.elapsed + min(30.0, max(2.0, moment.elapsed * 0.1))
            print(f"{moment.progress:6.1%}  {moment.scale:>9}  {words}", flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(losses: Mapping[str, float]) -> str:
    """`content 0.53  style 0.22  tv 0.34`."""
    return "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
