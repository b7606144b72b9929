"""One page that shows a run: `report.html`, complete in itself, made from the run's folder."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape
from PIL import Image, features

from faussaire.core.errors import UserError
from faussaire.core.figures import Figure, read_figures
from faussaire.core.quantity import format_bytes, format_count, format_duration
from faussaire.report.curves import line_chart
from faussaire.report.figures import Curve, figure_curves, figure_rows, given
from faussaire.report.files import whole
from faussaire.report.history import History, Series, read_events
from faussaire.report.vitals import told_verdicts, vital_charts

_FRAMES = 12
# Bytes and pixels a side, at most; base64 adds a third. Together they keep a page below
# 5 MB.
_LATEST = (1_500_000, 1600)
_REALS = (800_000, 1600)
_FRAME = (95_000, 720)
_NEIGHBOURS = (900_000, 1600)
_TEXT, _SOUND = 20_000, 900_000  # bytes

_STANDINGS = {
    "complete": "Complete",
    "interrupted": "Interrupted",
    "diverged": "Diverged",
    "running": "Running",
    "stopped": "Stopped without a word",
    "waiting": "Not begun",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: `data:image/png;base64,...`, or WebP for what would be too large a PNG.
        width, height: pixels, so that the page keeps its place while it loads.
        examples: examples seen when it was made, or None for pictures of the data.
    """

    uri: str
    width: int
    height: int
    examples: int | None = None


@dataclass(frozen=True)
class Excerpt:
    """What was made or is real, where it is no picture, or not a picture alone.

    Attributes:
        text: sentences, or the rows of a table; empty: none.
        sound: `data:audio/wav;base64,...`; empty: none.
        examples: examples seen when it was made, or None for the data.
    """

    text: str = ""
    sound: str = ""
    examples: int | None = None


@dataclass(frozen=True)
class Sheet:
    """What a measurement left to look at.

    Attributes:
        caption: what it shows.
        picture, text, drawing: a picture, a text, or an SVG; one of them is there.
    """

    caption: str
    picture: Picture | None = None
    text: str = ""
    drawing: Markup | None = None


def write_report(run: Path) -> Path:
    """Write `RUN/report.html` from whatever the folder holds; returns its path.

    Raises:
        UserError: `run` is not a run's folder, or the page cannot be written.
    """
    if not any((run / name).is_file() for name in ("config.yaml", "events.jsonl", "env.json")):
        raise UserError(
            f"'{run}' is not the folder of a run: it holds no config.yaml and no events.jsonl.",
            "Give the folder that `faussaire train` named; `faussaire runs` lists them.",
        )
    html = render(run)
    path = run / "report.html"
    with whole(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render(run: Path, now: float | None = None) -> str:
    """The page's text.

    Args:
        run: the run's folder.
        now: seconds since 1970, to tell a running run from a dead one; None: the present.
    """
    present = time.time() if now is None else now
    problems: list[str] = []
    config = _mapping(run / "config.yaml", problems)
    environment = _mapping(run / "env.json", problems)
    data = _mapping(run / "data.json", problems)
    history = read_events(run / "events.jsonl")
    pictures = _pictures(run, problems)
    measured = _measurements(run / "metrics.jsonl", problems)
    standing = history.standing(present) if history.written else "waiting"
    modality = str(data.get("modality", "pictures"))
    return template("template.html").render(
        family=str(config.get("family") or history.family or "run"),
        source=_source_name(config, data),
        name=run.resolve().name,
        standing=standing,
        standing_word=_STANDINGS.get(standing, standing.capitalize()),
        history=history,
        facts=_facts(history, standing, data),
        course=_course(history),
        latest=pictures[-1] if pictures else None,
        frames=_frames(run, problems) if len(pictures) else [],
        reals=_embed(run / "samples" / "reals.png", _REALS, problems),
        made=_excerpt(_newest(run), problems),
        real=_excerpt(run / "samples" / "reals", problems),
        modality=modality,
        panels=_listed(_strings(data.get("panels"))),
        rebuilds=bool(data.get("rebuilds")),
        curves=_curves(history),
        verdicts=told_verdicts(history, config),
        vitals=vital_charts(history.vitals, _marks(history)),
        measured=figure_rows(measured),
        given=given(measured),
        any_given=any(figure.given is not None for figure in measured),
        measured_curves=figure_curves(measured, _marks(history)),
        neighbours=_embed(run / "evaluation" / "neighbours.png", _NEIGHBOURS, problems),
        answers=_embed(run / "evaluation" / "answers.png", _NEIGHBOURS, problems),
        sheets=_sheets(run / "evaluation", problems),
        data=_data_facts(data),
        classes=_classes(data),
        left_out=_left_out(data),
        warnings=_strings(data.get("warnings")),
        settings=_rows(config),
        environment=_rows(environment),
        checkpoints=_checkpoints(run),
        commands=_commands(run, standing, modality),
        problems=problems,
        written=date(present),
        version=str(environment.get("faussaire", "")),
    )


def template(name: str) -> jinja2.Template:
    """A page's template; pages share the style and the script of `template.html`."""
    folder = resources.files("faussaire.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=format_count,
        duration=format_duration,
        whole=lambda number: f"{number:,}",
        code=_code,
    )
    return environment.get_template(name)


def _code(text: str) -> Markup:
    """A sentence in which what stands between backticks is code."""
    parts = escape(text).split("`")
    marked = (Markup("<code>%s</code>") % part if i % 2 else part for i, part in enumerate(parts))
    return Markup("").join(marked) if len(parts) % 2 else escape(text)


def date(seconds: float) -> str:
    """Seconds since 1970 as `3 May 2026, 14:05`."""
    return time.strftime("%d %B %Y, %H:%M", time.localtime(seconds)).lstrip("0")


# --- files of the run -----------------------------------------------------------------------------


def _mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON or YAML file as a mapping; empty, with a complaint, where it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        problems.append(f"{path.name} could not be read, so what it says is missing here.")
        return {}
    return content if isinstance(content, dict) else {}


def _previews(run: Path) -> list[Path]:
    """Preview grids, oldest first."""
    found = (run / "samples").glob("*.png")
    return sorted((path for path in found if path.stem.isdecimal()), key=lambda p: int(p.stem))


def _pictures(run: Path, problems: list[str]) -> list[Picture]:
    """The newest readable preview, if there is one."""
    for path in reversed(_previews(run)[-3:]):  # the newest may be damaged where a disk filled up
        picture = _embed(path, _LATEST, problems, int(path.stem))
        if picture is not None:
            return [picture]
    return []


def _newest(run: Path) -> Path | None:
    """The newest preview's path without its suffix."""
    stems = {path.stem for path in (run / "samples").glob("*") if path.stem.isdecimal()}
    return run / "samples" / max(stems, key=int) if stems else None


def _excerpt(path: Path | None, problems: list[str]) -> Excerpt | None:
    """The text and the sound of a preview; None where there are none.

    Args:
        path: without suffix.
        problems: to be added to.
    """
    if path is None:
        return None
    text, sound = path.with_suffix(".txt"), path.with_suffix(".wav")
    found = {}
    try:
        if text.is_file():
            found["text"] = text.read_text("utf-8")[:_TEXT]
        if sound.is_file() and sound.stat().st_size <= _SOUND:
            found["sound"] = "data:audio/wav;base64," + base64.b64encode(sound.read_bytes()).decode(
                "ascii"
            )
    except (OSError, ValueError):
        problems.append(f"The preview {path.name} could not be read.")
    examples = int(path.name) if path.name.isdecimal() else None
    return Excerpt(**found, examples=examples) if found else None


def _sheets(folder: Path, problems: list[str]) -> list[Sheet]:
    """What the last measurement left to look at, with its captions."""
    found = []
    for name, caption in _mapping(folder / "sheets.json", problems).items():
        path = folder / Path(name).name
        try:
            if path.suffix == ".svg":
                # Made by this program from figures, and so trusted as its own charts are.
                found.append(Sheet(caption, drawing=Markup(path.read_text("utf-8"))))
            elif path.suffix == ".png":
                found.append(Sheet(caption, picture=embed(path.read_bytes(), _NEIGHBOURS)))
            else:
                found.append(Sheet(caption, text=path.read_text("utf-8")[:_TEXT]))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            problems.append(f"The sheet {path.name} could not be read.")
    return found


def _frames(run: Path, problems: list[str]) -> list[Picture]:
    """Up to 12 previews spread evenly over the run, first and last among them."""
    paths = _previews(run)
    last = len(paths) - 1
    chosen = {round(step * last / (_FRAMES - 1)) for step in range(_FRAMES)}
    embedded = (
        _embed(paths[index], _FRAME, problems, int(paths[index].stem)) for index in sorted(chosen)
    )
    return [picture for picture in embedded if picture is not None]


def _measurements(path: Path, problems: list[str]) -> list[Figure]:
    """The figures of a `metrics.jsonl`; none, with a complaint, where it cannot be read."""
    try:
        return read_figures(path)
    except OSError:
        problems.append(f"{path.name} could not be read, so the figures are missing here.")
        return []


def _embed(
    path: Path, most: tuple[int, int], problems: list[str], examples: int | None = None
) -> Picture | None:
    """A picture file, unless it is missing or damaged."""
    try:
        return embed(path.read_bytes(), most, examples)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        problems.append(f"The picture {path.name} could not be read.")
        return None


def embed(content: bytes, most: tuple[int, int], examples: int | None = None) -> Picture:
    """The bytes of a PNG as they are if small enough, else lossy or smaller until they are.

    Args:
        content: a PNG file.
        most: bytes, and pixels a side.
        examples: examples seen when the picture was made.

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: it is damaged.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        size, kind = image.size, "png"
        if len(content) > most[0] or max(size) > most[1]:
            content, size, kind = _squeezed(image, *most)
    uri = f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
    return Picture(uri, *size, examples)


def _squeezed(image: Image.Image, budget: int, side: int) -> tuple[bytes, tuple[int, int], str]:
    """The picture in at most `budget` bytes and `side` pixels: content, size and format.

    Photographs as PNG would have to shrink to stamps, so WebP does it where Pillow knows it.
    """
    kind = "webp" if features.check("webp") else "png"
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    factor, quality = min(1.0, side / max(image.size)), 94
    while True:
        size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
        small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        small.save(buffer, format=kind.upper(), quality=quality, method=2)
        content = buffer.getvalue()
        if len(content) <= budget or max(size) <= 64:
            return content, size, kind
        # Aim straight at the budget: bytes grow with the area, and halve from quality 94 to 85.
        gain = 2.0 if quality == 94 and kind == "webp" else 0.94
        factor *= min(1.0 if gain > 1.0 else 0.92, max(0.3, (gain * budget / len(content)) ** 0.5))
        quality = 85


def _checkpoints(run: Path) -> list[dict[str, Any]]:
    """Complete checkpoints, newest first, with what marks them."""
    folder = run / "checkpoints"
    marks = _mapping(folder / "marks.json", [])
    rows = []
    for state in sorted(folder.glob("[0-9]*/state.json"), reverse=True):
        name = state.parent.name
        if not name.isdecimal():
            continue
        size = sum(file.stat().st_size for file in state.parent.iterdir() if file.is_file())
        named = [str(mark) for mark, marked in marks.items() if marked == name]
        rows.append({"examples": int(name), "size": format_bytes(size), "marks": named})
    if rows:
        rows[0]["marks"].insert(0, "latest")
    return rows


# --- what to say ----------------------------------------------------------------------------------


def _source_name(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The data's name: a folder's last part, for the rest of a path says little."""
    source = str(config.get("source") or data.get("source") or "")
    return source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or source


def _facts(history: History, standing: str, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few figures under the title."""
    facts = [("examples seen", f"{history.examples:,}")]
    if history.total > history.examples:
        facts[0] = ("examples seen", f"{history.examples:,} of {format_count(history.total)}")
    facts.append(("training time", format_duration(history.elapsed)))
    if standing == "running" and history.remaining > 0:
        facts.append(("time left", f"about {format_duration(history.remaining)}"))
    if history.per_second is not None:
        ticks = history.per_second.values
        usual = sorted(ticks.tolist())[len(ticks) // 2]
        facts.append(("examples a second", format_count(usual)))
    count = data.get("count")
    if isinstance(count, int) and count > 0 and history.examples:
        facts.append(("times through the data", f"{history.examples / count:,.1f}"))
    if history.parameters:
        total = sum(size for size in history.parameters.values() if isinstance(size, int))
        facts.append(("parameters", format_count(total)))
    if history.device:
        facts.append(("device", history.device))
    return facts


def _course(history: History) -> list[tuple[str, str]]:
    """When and what, in order, where there is more to tell than that the only stage began."""
    moments = [(one.examples, one.elapsed, f"Stage {one.name} began.") for one in history.stages]
    moments = moments if len(moments) > 1 else []
    moments += [(at, 0.0, "Training went on from a checkpoint.") for at in history.resumed]
    moments += [(note.examples, note.elapsed, note.message) for note in history.notes]
    rows = []
    for examples, elapsed, what in sorted(moments, key=lambda moment: moment[0]):
        when = f"{examples:,} examples" + (f", {format_duration(elapsed)}" if elapsed else "")
        rows.append((when if examples else "At the start", what))
    return rows


def _marks(history: History) -> list[tuple[float, str]]:
    """Where stages after the first began."""
    return [(stage.examples, stage.name) for stage in history.stages[1:]]


def _curves(history: History) -> list[Curve]:
    """The charts, each with a sentence for who has never seen one."""
    marks = _marks(history)
    curves: list[Curve] = []

    def add(series: Sequence[Series], title: str, reading: str, **how: Any) -> None:
        chart = line_chart(series, title=title, description=reading, marks=marks, **how)
        if chart is not None:
            curves.append(Curve(chart, reading))

    signs = dict(history.signs)
    balance = [signs.pop(name) for name in ("D(x)", "D(G(z))") if name in signs]
    add(
        balance,
        "Balance of the two players",
        "How sure the discriminator is that something is real: D(x) for real examples, D(G(z)) for "
        "forgeries. Both near 0.5 means balance. D(x) near 1 and D(G(z)) near 0 for long means "
        "that every forgery is seen through, and the generator learns little.",
        limits=(0.0, 1.0),
        reference=(0.5, "balance"),
    )
    players = {name.split(".", 1)[0] for name in history.losses}
    reading = (
        "What each player tries to lower. In a GAN one player's gain is the other's loss, so "
        "these lines do not tell quality and need not fall: look at the samples. Beware only "
        "of sudden leaps."
    )
    if len(players) == 1:
        reading = (
            "What training lowers: it should fall, soon and then slowly. That it goes on falling does "
            "not say that what is made becomes better: look at the samples."
        )
    for title, group in _loss_groups(history):
        add(group, title, reading)
    for sign in signs.values():
        add([sign], sign.name, "A quantity that this family watches but does not lower.")
    if history.per_second is not None:
        add(
            [history.per_second],
            "Speed",
            "Examples a second. A level line is healthy; a lasting fall means that something else "
            "uses the machine, or that it has grown hot.",
            limits=(0.0, None),
        )
    changing = [rate for rate in history.rates.values() if rate.values.min() < rate.values.max()]
    add(
        changing,
        "Learning rates",
        "How large a step each optimiser takes, as its schedule says.",
        smooth=False,
    )
    return curves


def _loss_groups(history: History) -> list[tuple[str, list[Series]]]:
    """All losses in one chart, or one for each phase where they are many."""
    losses = list(history.losses.values())
    if len(losses) <= 4:
        return [("Losses", losses)]
    phases: dict[str, list[Series]] = {}
    for loss in losses:
        phases.setdefault(loss.name.split(".", 1)[0], []).append(loss)
    return [(f"Losses of {phase}", group) for phase, group in phases.items()]


_DATA_WORDS = {
    "source": "Source",
    "kind": "Kind",
    "count": "Examples",
    "resolution": "Resolution",
    "channels": "Colours",
    "key": "Fingerprint",
}
_TOLD_ELSEWHERE = ("warnings", "left_out", "class_counts", "modality", "panels", "rebuilds")
_CHANNELS = {1: "grey", 2: "grey with transparency", 3: "colour", 4: "colour with transparency"}


def _data_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts of data.json by the words of people; what has no word of its own keeps its name."""
    shown: dict[str, Any] = {}
    for key, value in data.items():
        if key in _TOLD_ELSEWHERE or value in (None, "", [], {}):
            continue
        if key == "classes" and isinstance(value, list | tuple):
            shown["Classes"] = len(value)
        elif key == "channels":
            shown["Colours"] = _CHANNELS.get(value, value) if isinstance(value, int) else value
        elif key == "resolution":
            shown["Resolution"] = f"{value} pixels"
        else:
            shown[_DATA_WORDS.get(key, str(key).replace("_", " ").capitalize())] = value
    if data.get("left_out"):
        shown["Left out"] = len(_left_out(data))
    return _rows(shown)


def _classes(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, count and share of the largest class, for small bars; bare names without counts."""
    counts = data.get("class_counts")
    if isinstance(counts, dict) and counts:
        known = {str(k): v for k, v in counts.items() if isinstance(v, int | float)}
        most = max(known.values(), default=0) or 1
        return [
            {"name": name, "count": f"{count:,}", "share": round(100 * count / most, 1)}
            for name, count in known.items()
        ]
    return [{"name": name, "count": "", "share": 0} for name in _strings(data.get("classes"))]


def _left_out(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and reason of each file that was not used."""
    files = data.get("left_out")
    rows = []
    for file in files if isinstance(files, list) else []:
        if isinstance(file, dict):
            rows.append((str(file.get("name", "")), str(file.get("reason", ""))))
        else:
            rows.append((str(file), ""))
    return rows


def _strings(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _listed(names: Sequence[str]) -> str:
    """Words as a sentence lists them: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _rows(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values as text; nested mappings by dotted names."""
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _rows(value, f"{name}.")
        elif isinstance(value, list | tuple):
            joined = shlex.join(map(str, value)) if key == "command" else ", ".join(map(str, value))
            rows.append((name, joined or "none"))
        elif isinstance(value, bool):
            rows.append((name, "yes" if value else "no"))
        elif value is None or value == "":
            rows.append((name, "none"))
        elif isinstance(value, int) and abs(value) >= 10_000 and key != "seed":
            rows.append((name, f"{value:,}"))
        else:
            rows.append((name, str(value)))
    return rows


def _commands(run: Path, standing: str, modality: str) -> list[dict[str, str]]:
    """What to do next, ready to be copied."""
    folder = quoted(str(run))
    output = {
        "pictures": "--grid grid.png",
        "captions": "--grid grid.png",
        "texts": "--out sentences.txt",
        "tables": "--out synthetic.csv",
    }.get(modality, "--out made/")
    steps = [
        ("Make new samples", f"faussaire sample {folder} --count 64 {output}"),
    ]
    if modality == "pretext":
        use = f"faussaire features {folder} pictures/ --out features.npz"
        steps = [("Features for your own classifier", use)]
    resume = ("Go on training from the last checkpoint", f"faussaire resume {folder}")
    steps.insert(len(steps) if standing == "complete" else 0, resume)
    steps.append(("Measure how good it is", f"faussaire evaluate {folder}"))
    if modality == "pictures":
        steps.append(("Film a walk through what it learnt", f"faussaire film {folder} film.gif"))
    # JSON writes a string as Python reads it.
    name = json.dumps(str(run), ensure_ascii=False)
    python = f"import faussaire\n\nsamples = faussaire.load({name}).sample(16, seed=0)"
    if modality == "pretext":
        python = f"import faussaire\n\nfeatures = faussaire.load({name}).features(['picture.png'])"
    steps.append(("Use it from Python", python))
    return [{"what": what, "command": command} for what, command in steps]


def quoted(text: str) -> str:
    """One word of a command line, in the way of this system's shell."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)
