import dataclasses
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faussaire.core import events
from faussaire.core.errors import UserError
from faussaire.core.figures import Figure, Provenance, append_figures
from faussaire.report.page import render, write_report


def make_run(
    folder: Path,
    *,
    previews: int = 3,
    ticks: int = 50,
    outcome: str = "complete",
    mode: str = "L",
    source: str = "digits",
) -> Path:
    """A run folder as training leaves it."""
    (folder / "samples").mkdir(parents=True)
    total = 100 * max(1, ticks)
    base = {"examples": 0, "elapsed": 0.0}
    records = [
        events.Started(
            **base, family="dcgan", total=total, device="cpu", parameters={"generator": 99_000}
        ).record(),
        events.StageBegan(**base, stage="adversarial").record(),
    ]
    for index in range(1, ticks + 1):
        records.append(
            events.Tick(
                examples=100 * index,
                elapsed=index / 2,
                rounds=index,
                stage="adversarial",
                losses={"discriminator.adversarial": 1.3, "generator.adversarial": 0.7 + 1 / index},
                signs={"D(x)": 0.6, "D(G(z))": 0.4, "gradient norm": 1.0},
                rates={"generator": 2e-4 / index},
                per_second=200.0,
                progress=index / max(1, ticks),
            ).record()
        )
    if outcome:
        records.append(
            events.Finished(
                examples=100 * ticks, elapsed=ticks / 2, outcome=outcome, message="So it ended."
            ).record()
        )
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "events.jsonl").write_text(text)
    (folder / "config.yaml").write_text(json.dumps({"family": "dcgan", "source": source}))
    (folder / "env.json").write_text(
        json.dumps({"faussaire": "0.1.0", "device": {"name": "cpu", "bf16": True}, "git": None})
    )
    (folder / "data.json").write_text(
        json.dumps(
            {
                "source": source,
                "count": 1797,
                "channels": 1,
                "classes": ["zero", "one"],
                "class_counts": {"zero": 900, "one": 897},
                "left_out": [{"name": "bad.jpg", "reason": "It is cut short."}],
                "warnings": ["Few pictures."],
                "unheard_of": {"deep": [1, 2]},
            }
        )
    )
    for index in range(previews):
        Image.new(mode, (60, 40), 7).save(folder / f"samples/{(index + 1) * 100:012d}.png")
    if previews:
        Image.new(mode, (60, 40)).save(folder / "samples/reals.png")
    return folder


class Links(html.parser.HTMLParser):
    """Everything that a page asks for, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        self.targets += [value or "" for name, value in attrs if name in names]


def check(page: str) -> Links:
    """The page is complete in itself; returns what it is made of."""
    links = Links()
    links.feed(page)
    assert all(target.startswith("data:image/") for target in links.targets)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in page
    return links


def test_report_of_a_complete_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text()
    links = check(page)
    assert len(links.targets) == 1 + 1 + 1 + 3  # latest, reals, viewer, frames
    words = ["Complete", "So it ended.", "D(x)", "D(G(z))", "balance", "Speed", "1797", "bad.jpg"]
    for word in (*words, "Few pictures.", "device.bf16", "Unheard of.deep", "gradient norm"):
        assert word in page
    for command in (
        f"faussaire resume {run}",
        f"faussaire sample {run} --count 64 --grid grid.png",
        f"faussaire film {run} film.gif",
    ):
        assert command in page
    assert "faussaire.load(" in page
    assert [file.name for file in run.iterdir() if file.name.startswith(".")] == []


def test_report_of_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("family: dcgan\nsource: digits\n")
    page = write_report(run).read_text()
    check(page)
    assert "Not begun" in page
    assert "No checkpoint is saved yet" in page


def test_report_before_the_first_tick(tmp_path: Path) -> None:
    page = render(make_run(tmp_path / "run", previews=0, ticks=0, outcome=""))
    check(page)
    assert "Running" in page
    assert "The first samples appear here" in page


def test_report_of_a_run_without_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", previews=0)
    (run / "samples").rmdir()
    (run / "data.json").write_text('{"modality": "tables", "source": "adult", "columns": 14}')
    page = render(run)
    links = check(page)
    assert "img" not in links.tags
    assert "--grid" not in page
    assert "faussaire film" not in page


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"panels": ["grey", "coloured", "real"]}, "From left to right: grey, coloured and real."),
        ({"panels": ["real", "rebuilt"], "rebuilds": True}, "in pairs: real and rebuilt."),
        ({"modality": "pretext"}, "The same questions each time"),
    ],
)
def test_what_previews_show_is_said(tmp_path: Path, data: dict[str, object], says: str) -> None:
    run = make_run(tmp_path / "run")
    (run / "data.json").write_text(json.dumps(data))
    page = write_report(run).read_text()
    check(page)
    assert says in page
    assert ("hidden vector" in page) == (data.get("rebuilds", False))


def test_report_of_a_crashed_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", outcome="")
    with (run / "events.jsonl").open("a") as file:
        file.write('{"event":"tick","exam')
    (run / "samples/000000099999.png").write_bytes(b"\x89PNG half")
    (run / "env.json").write_text("{")
    (run / "config.yaml").write_text("a: [")
    page = render(run, now=4e9)
    check(page)
    assert "Stopped without a word" in page
    assert "env.json could not be read" in page
    assert "config.yaml could not be read" in page
    assert "after 300 examples" in page  # the newest picture that can be shown


@pytest.mark.parametrize("outcome", ["interrupted", "diverged"])
def test_report_says_how_a_run_ended(tmp_path: Path, outcome: str) -> None:
    page = render(make_run(tmp_path / "run", outcome=outcome))
    assert outcome.capitalize() in page
    assert "So it ended." in page


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    evil = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&' {{ 1234*5678 }}"
    run = make_run(tmp_path / evil.replace("/", "∕"), source=evil)
    (run / "env.json").write_text(json.dumps({evil: evil, "device": {evil: [evil]}}))
    (run / "data.json").write_text(
        json.dumps(
            {
                "classes": [evil],
                "class_counts": {evil: 3},
                "left_out": [{"name": evil, "reason": evil}, evil],
                "warnings": [evil],
                "channels": evil,
                evil: evil,
            }
        )
    )
    record = events.Tick(
        examples=9000,
        elapsed=9.0,
        rounds=1,
        stage=evil,
        losses={evil: 1.0},
        signs={evil: 2.0},
        rates={evil: 1.0},
    ).record()
    begun = events.StageBegan(examples=5500, elapsed=9.0, stage=evil).record()
    noted = events.Noted(examples=9000, elapsed=9.0, message=evil).record()
    ended = events.Finished(examples=9000, elapsed=9.0, outcome=evil, message=evil).record()
    with (run / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in (begun, record, noted, ended))
    page = render(run)
    links = check(page)
    assert links.tags.count("script") == 1
    assert "<script>alert" not in page
    assert "onerror=alert(2)>" not in page
    assert (
        "7006652" not in re.sub(r"base64,[^\"]+", "", page).split("<header>")[1].split("</h1>")[0]
    )


def test_previews_are_chosen_evenly(tmp_path: Path) -> None:
    page = render(make_run(tmp_path / "run", previews=100))
    shown = [int(n.replace(",", "")) for n in re.findall(r'data-full="([\d,]+) ', page)]
    assert len(shown) == 12
    assert (shown[0], shown[-1]) == (100, 10_000)
    assert max(np.diff(shown)) - min(np.diff(shown)) <= 100


def test_large_pictures_keep_the_page_below_five_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", previews=3, mode="RGB")
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    for path in (run / "samples").iterdir():
        Image.fromarray(noise).save(path, compress_level=0)
    report = write_report(run)
    assert report.stat().st_size < 2_600_000 * 4 / 3
    check(report.read_text())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_pictures_of_any_mode(tmp_path: Path, mode: str) -> None:
    check(render(make_run(tmp_path / "run", mode=mode)))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        write_report(tmp_path)


def test_many_losses_are_drawn_by_phase(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ticks=0, outcome="")
    losses = {f"{phase}.{term}": 1.0 for phase in ("d", "g") for term in ("adv", "r1", "pl")}
    tick = events.Tick(examples=10, elapsed=1.0, rounds=1, stage="s", losses=losses).record()
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(tick) + "\n")
    page = render(run)
    assert "Losses of d" in page
    assert "Losses of g" in page


def figure(
    value: float, examples: int, metric: str = "fid", real: float | None = 2.0, **provenance: object
) -> Figure:
    facts = {"extractor": "pixels", "count": 1000, "reference": "train", **provenance}
    return Figure(
        provenance=Provenance(metric=metric, **facts),  # type: ignore[arg-type]
        value=value,
        error=0.125,
        real=real,
        circumstances={"examples": examples, "seed": 0},
    )


def test_figures_are_shown_with_their_course_and_their_best(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    course = [figure(40.0, 1000), figure(12.3, 150_000), figure(15.0, 200_000)]
    append_figures(run / "metrics.jsonl", [*course, figure(0.5, 200_000, "precision", 0.9)])
    page = render(run)
    check(page)
    rows = re.findall(r"<code>([^<]+)</code>.*?</tr>", page, re.DOTALL)
    assert rows == ["fid[pixels,1000/train]", "precision[pixels,1000/train]"]
    for words in (
        "15 ± 0.12",
        "200,000 examples",
        "Share of samples that lie where real",
        "higher",
    ):
        assert words in page
    assert "best: 12.3 at 150,000 examples" in page
    assert "Lower is better" in page
    assert "Higher is better" not in page, "one measurement has no course"
    assert "fid[pixels,1000/train] over examples seen." in page
    assert ">real pictures</text>" in page, "the line of real pictures is within the axis"
    assert f"faussaire evaluate {run}" in page


def test_of_two_seeds_at_one_point_the_newest_is_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first, last = figure(9.0, 10), figure(8.0, 20)
    again = dataclasses.replace(last, value=6.5, circumstances={"examples": 20, "seed": 1})
    append_figures(run / "metrics.jsonl", [last, again, first])
    page = render(run)
    assert "best: 6.5 at 20 examples" in page
    assert "fid[pixels,1000/train]</span> <b>6.50</b>" in page, "the line ends at its last point"


def test_no_figures_no_section(tmp_path: Path) -> None:
    page = render(make_run(tmp_path / "run"))
    assert "<h2>Figures</h2>" not in page


def test_the_best_of_a_metric_that_should_be_as_for_real_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    course = [figure(value, at, "authenticity", 0.5) for at, value in ((10, 0.9), (20, 0.45))]
    unknown = [figure(value, at, "ms-ssim", None) for at, value in ((10, 0.9), (20, 0.45))]
    append_figures(run / "metrics.jsonl", [*course, *unknown])
    page = render(run)
    assert "As for real pictures is best; best: 0.45 at 20 examples." in page
    assert page.count("best: ") == 1


def test_figures_of_other_provenance_have_charts_of_their_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ticks=0)
    course = [figure(value, at) for at, value in ((10, 9.0), (20, 8.0))]
    other = [figure(value, at, count=50) for at, value in ((10, 90.0), (20, 91.0))]
    append_figures(run / "metrics.jsonl", course + other)
    page = render(run)
    assert len(re.findall(r'<svg class="chart"', page)) == 2
    assert "best: 8 at 20 examples" in page
    assert "best: 90 at 10 examples" in page


def test_torn_and_foreign_lines_of_figures_do_no_harm(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    append_figures(run / "metrics.jsonl", [figure(7.5, 100)])
    record = figure(3.5, 100, count=3).record()
    lines = [
        json.dumps({**record, "examples": "soon"}),
        json.dumps({**record, "value": float("nan")}),
        json.dumps({**record, "metric": "beauty"}),
        "[]",
        '{"name": "fid[pix',
    ]
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n".join(lines))
    page = render(run)
    check(page)
    assert "7.5 ± 0.12" in page
    assert "beauty" not in page


def test_figures_that_cannot_be_read_are_missed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").mkdir()
    assert "metrics.jsonl could not be read" in render(run)


def test_neighbours_are_shown_and_explained(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "evaluation").mkdir()
    Image.new("RGB", (80, 40)).save(run / "evaluation" / "neighbours.png")
    page = render(run)
    assert len(check(page).targets) == 1 + 1 + 1 + 3 + 1
    assert "Near copies mean memorising." in page
    (run / "evaluation" / "neighbours.png").write_bytes(b"\x89PNG half")
    assert "The picture neighbours.png could not be read." in render(run)
