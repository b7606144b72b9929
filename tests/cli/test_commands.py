"""What a user types, typed for real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import faussaire as package
from cli.commands import TINY, environment, faussaire, make_pictures, start, weights
from doctor.bars import write_bars
from faussaire.cli import COMMANDS, main

SOURCE = Path(package.__file__).parent

pytestmark = pytest.mark.xdist_group("commands")  # they share a run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("photos"), classes=True)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, class-conditional run."""
    out = tmp_path_factory.mktemp("runs") / "first"
    said, _ = faussaire(
        "train", "dcgan", photos, "--out", out, *TINY,
        "--examples", "640", "--classes", "folders", "--conditional", "--flip",
    )  # fmt: skip
    assert "100.0%" in said
    assert "D(x)" in said
    assert f"faussaire sample {out}" in said
    return out


def test_a_run_leaves_what_was_promised(run):
    for name in ("config.yaml", "env.json", "data.json", "events.jsonl", "report.html"):
        assert (run / name).stat().st_size > 0, name
    assert (run / "samples" / "reals.png").exists()
    grids = sorted((run / "samples").glob("0*.png"))
    assert grids[0].name == "000000000000.png"
    assert grids[-1].name == "000000000640.png"
    assert json.loads((run / "data.json").read_text())["classes"] == ["blue", "red"]
    assert not list(run.rglob("*.pkl")) + list(run.rglob("*.pt")) + list(run.rglob("*.tmp"))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "started"
    assert events[-1] == {**events[-1], "event": "finished", "outcome": "complete"}


def test_sampling_is_determined_by_seed_and_class(run, tmp_path):
    faussaire("sample", run, "--count", 4, "--seed", 3, "--grid", tmp_path / "a.png")
    faussaire("sample", run, "--count", 4, "--seed", 3, "--grid", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    faussaire("sample", run, "--count", 3, "--out", tmp_path / "each", "--class", "red")
    files = sorted((tmp_path / "each").iterdir())
    assert len(files) == 3
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (16, 16)
    _, err = faussaire("sample", run, "--class", "rde", "--grid", tmp_path / "c.png", expect=2)
    assert "Did you mean 'red'?" in err
    _, err = faussaire("sample", run, "--grid", tmp_path / "a.png", expect=2)
    assert "exists" in err


def test_seeds_and_truncation(run, tmp_path):
    faussaire("sample", run, "--seeds", "3,5-6", "--out", tmp_path / "each", "--class", "red")
    names = sorted(path.name for path in (tmp_path / "each").iterdir())
    assert names == ["seed3-00000.png", "seed5-00000.png", "seed6-00000.png"]
    model = package.load(run)
    one = model.sample(1, seed=5, label="red")
    two = model.sample(seeds=[3, 5, 6], label="red")
    torch.testing.assert_close(two[1:2], one, atol=2e-2, rtol=0)  # bf16, in batches of 1 and 3
    typical = model.sample(seeds=[3, 5, 6], label="red", truncation=0.01)
    assert typical.var(dim=0).mean() < two.var(dim=0).mean()
    _, err = faussaire("sample", run, "--seeds", "7-3", "--grid", tmp_path / "n.png", expect=2)
    assert "0-31" in err


@pytest.mark.long
def test_advice_names_a_command_that_works(photos):
    said, _ = faussaire("advise", photos, "--classes", "folders", "--for", "1m", "--json")
    found = json.loads(said)
    assert found["advice"]["family"] == "fastgan"  # there are few
    assert found["examples_per_second"] > 0
    words = found["command"].split()[1:]
    assert words[:3] == ["train", "fastgan", str(photos)]
    said, _ = faussaire(*words, "--dry-run", "--json")
    assert json.loads(said)["family"] == "fastgan"
    said, _ = faussaire("advise", "digits", "--for", "10s")  # 8x8: training enlarges them
    assert "16x16" in said or ", 16" in said


@pytest.mark.long
def test_a_batch_that_fits_is_found_and_kept(photos, tmp_path):
    common = ["train", "dcgan", photos, *TINY, "--examples", "64", "--out", tmp_path / "parts"]
    faussaire(*common, "--micro", "5")
    config = (tmp_path / "parts" / "config.yaml").read_text()
    assert "batch: 16" in config
    assert "micro: '5'" in config
    said, _ = faussaire("train", "dcgan", photos, *TINY, "--batch", "auto", "--dry-run", "--json")
    plan = json.loads(said)
    assert plan["batch"] == 16
    assert plan["micro"] == 16  # pictures this small all fit


@pytest.mark.long
def test_sizes_lie_under_flags(photos):
    plans = {}
    for words in (("--size", "tiny"), ("--size", "base"), ("--size", "base", "--width", "8")):
        said, _ = faussaire(
            "train", "dcgan", photos, "--resolution", "16", "--batch", "4", *words, "--dry-run",
            "--json",
        )  # fmt: skip
        plans[words] = json.loads(said)["settings"]["width"]
    assert list(plans.values()) == [32, 64, 8]
    _, err = faussaire("train", "dcgan", photos, "--size", "huge", expect=2)
    assert "tiny, small, base, large" in err


def test_biggan_says_when_it_is_the_wrong_choice(photos):
    said, _ = faussaire(
        "train", "biggan", photos, "--resolution", "16", "--size", "tiny", "--dry-run"
    )
    assert "known to collapse" in said


def test_the_same_from_python(run):
    model = package.load(run)
    samples = model.sample(5, seed=1)
    assert samples.shape == (5, 3, 16, 16)
    assert 0.0 <= samples.min() <= samples.max() <= 1.0
    torch.testing.assert_close(model.sample(2, seed=1), samples[:2], atol=2e-2, rtol=0)
    assert torch.equal(model.sample(5, seed=1), samples)
    assert model.grid(4).mode == "RGB"
    assert len(model.pictures(3, label="blue")) == 3
    assert package.load(next((run / "checkpoints").glob("0*"))).examples == 640


def test_films(run, tmp_path):
    faussaire("film", run, tmp_path / "walk.gif", "--seconds", 0.5, "--fps", 8, "--columns", 2)
    with Image.open(tmp_path / "walk.gif") as film:
        assert getattr(film, "n_frames", 1) >= 3
    faussaire("film", run, tmp_path / "growing.gif", "--kind", "training")
    _, err = faussaire("film", run, tmp_path / "film.xyz", expect=2)
    assert ".gif" in err


@pytest.mark.long
def test_reading_commands_have_json(run, photos):
    for words in (["runs", run.parent], ["info", run], ["check", photos], ["families"], ["env"]):
        said, _ = faussaire(*words, "--json")
        assert json.loads(said), words
        said, _ = faussaire(*words)
        assert said.strip(), words
    said, _ = faussaire("info", run)
    assert "640" in said


def test_the_doctor_explains_a_run_and_its_exit_code_tells_a_script(run, tmp_path):
    process = start("doctor", run, "--json")
    found = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == (3 if found["ill"] else 0)
    assert found["looks"] >= 1
    assert {"distance", "win rate", "labels told"} <= found["signs"].keys()

    # The same run, but for what the looks saw: a generator that makes one picture.
    ill = tmp_path / "ill"
    shutil.copytree(run, ill)
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    look = next(line for line in lines if line["event"] == "examined")
    others = [line for line in lines if line["event"] not in ("examined", "diagnosed")]
    looks = [
        {
            **look,
            "examples": 32 * step,
            "progress": step / 20,
            "signs": {**look["signs"], "diversity": 0.02, "duplicates": 1.0, "distance": 1.0},
        }
        for step in range(1, 20)
    ]
    events = [others[0], *looks, *others[1:]]
    (ill / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    said, _ = faussaire("doctor", ill, expect=3)
    assert "collapse" in said
    assert "diversity 0.02, below" in said
    assert "--loss relativistic" in said  # what to type
    said, _ = faussaire("doctor", ill, "--json", expect=3)
    verdict = json.loads(said)["verdicts"][0]
    assert verdict["name"] == "collapse"
    assert verdict["advice"]
    faussaire("report", ill)
    page = (ill / "report.html").read_text()
    assert "The doctor's verdict" in page
    assert "the generator makes the same few things" in page

    (ill / "events.jsonl").write_text(json.dumps(others[0]) + "\n")
    said, _ = faussaire("doctor", ill)
    assert "has not looked" in said


def test_training_again_from_its_config_gives_the_same_weights(run, photos, tmp_path):
    config = run / "config.yaml"
    faussaire("train", "dcgan", photos, "--config", config, "--out", tmp_path / "again")
    assert weights(run) == weights(tmp_path / "again")


def test_the_same_command_on_a_finished_run_does_no_harm(run, photos):
    before = weights(run)
    faussaire("train", "dcgan", photos, "--config", run / "config.yaml", "--out", run)
    assert weights(run) == before


@pytest.mark.long
def test_python_trains_and_continues(photos, tmp_path):
    settings = {"width": 4, "latent": 8, "batch": 16, "resolution": 16, "quiet": True}
    out = tmp_path / "run"
    done = package.train("dcgan", photos, out=out, examples="150", **settings)
    assert done.path == out
    before = weights(out)
    package.train("dcgan", photos, out=out, examples="150", **settings)
    assert package.load(out).examples == 160  # whole batches
    assert weights(out) == before
    with pytest.raises(package.UserError, match="already seen 160 examples, more than 100"):
        package.train("dcgan", photos, out=out, examples=100, allow_changes=True, **settings)
    with pytest.raises(package.UserError, match="examples is 150, not 320"):
        package.train("dcgan", photos, out=out, examples=320, **settings)
    package.train("dcgan", photos, out=out, examples=320, allow_changes=True, **settings)
    assert package.load(out).examples == 320
    faussaire("resume", out, "--examples", "480")
    assert package.load(out).examples == 480


def test_dry_run_measures_and_writes_nothing(photos, tmp_path):
    said, _ = faussaire(
        "train", "classic", photos, "--out", tmp_path / "no", "--dry-run", "--json",
        "--resolution", "16", "--batch", "8", "--for", "2m",
    )  # fmt: skip
    plan = json.loads(said)
    assert plan["parameters"]["generator"] > 1e5
    assert plan["examples_per_second"] > 0
    assert plan["peak_memory_bytes"] > 1e6
    assert plan["seconds"] == 120
    assert not (tmp_path / "no").exists()


@pytest.mark.long
def test_a_time_budget_is_kept(photos, tmp_path):
    said, _ = faussaire("train", "dcgan", photos, "--out", tmp_path / "r", *TINY, "--for", "3s")
    info, _ = faussaire("info", tmp_path / "r", "--json")
    assert 2.9 < json.loads(info)["elapsed"] < 10
    assert "100.0%" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "dcgann", "x"], "Did you mean 'dcgan'?"),
        (["train", "dcgan"], "needs data"),
        (["train", "dcgan", "/nowhere/at/all"], "/nowhere"),
        (["train", "dcgan", "digits", "--resolution", "8"], "at least 16x16"),
        (["train", "classic", "digits", "--resolution", "20"], "multiples of 8"),
        (["train", "dcgan", "digits", "--preset", "papper"], "Did you mean 'paper'?"),
        (["train", "dcgan", "digits", "--config", "/no.yaml"], "cannot be read"),
        (["train", "dcgan", "digits", "--examples", "9", "--for", "1m"], "Both"),
        (["train", "dcgan", "digits", "--background", "blurple"], "not a colour"),
        (["train", "dcgan", "digits", "--device", "cuda"], "CUDA"),
        (["train", "dcgan", "digits", "--beta1", "1.5"], "beta1 cannot be 1.5"),
        (["train", "dcgan", "digits", "--latent", "0"], "latent cannot be 0"),
        (["train", "dcgan", "digits", "--lr", "-1"], "lr cannot be -1"),
        (["train", "dcgan", "digits", "--keep", "0"], "keep cannot be 0"),
        (["train", "classic", "digits", "--critic-steps", "0"], "critic_steps"),
        (["train", "dcgan", "digits", "--processes", "0"], "--processes 0"),
        (["train", "dcgan", "digits", "--batch", "15", "--processes", "2"], "multiple of 2"),
        (["train", "--batch", "16", "dcgan", "digits"], "before any flag"),
        (["resume", "/nowhere"], "not a run"),
        (["info", "/nowhere"], "not a run"),
        (["sample", "/nowhere"], "not a run"),
        (["check", "/nowhere"], "/nowhere"),
        (["families", "biggun"], "There is no family"),
    ],
)
def test_mistakes_are_sentences(words, expected, capsys, tmp_path, monkeypatch):
    if words[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert expected in said.replace("\n  ", " ")
    assert said.startswith("faussaire:")
    assert not list(tmp_path.iterdir()), "something was written before the mistake was noticed"


def test_unknown_flags_and_keys_name_the_nearest(photos, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "dcgan", str(photos), "--bacth", "3"])
    assert ended.value.code == 2
    assert "--batch" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text("bacth: 3\n")
    assert main(["train", "dcgan", str(photos), "--config", str(tmp_path / "c.yaml")]) == 2
    assert "Did you mean 'batch'?" in capsys.readouterr().err


def test_changed_settings_and_changed_data_are_refused(photos, tmp_path, capsys):
    out = tmp_path / "run"
    mine = make_pictures(tmp_path / "mine", count=24)
    faussaire("train", "dcgan", mine, "--out", out, *TINY, "--examples", "64")
    words = ["train", "dcgan", str(mine), "--out", str(out), *TINY, "--examples", "128"]
    assert main([*words, "--lr", "0.01"]) == 2
    said = capsys.readouterr().err
    assert "lr is 0.0002, not 0.01" in said
    assert "--allow-changes" in said
    (mine / "picture 3.jpg").unlink()
    assert main(["resume", str(out), "--examples", "128"]) == 2
    assert "have changed" in capsys.readouterr().err
    before = weights(out)
    for picture in mine.iterdir():
        picture.unlink()
    mine.rmdir()
    assert main(["resume", str(out), "--examples", "128"]) == 2
    assert "mine" in capsys.readouterr().err
    assert weights(out) == before


def _without_torch(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from faussaire.cli import main\n"
        f"code = main({words!r})\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert code == 0, code\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["resume", "--help"],
        ["completion", "bash"],
        ["completion", "words", "train", "dcgan", "x", "--m"],
        ["families"],
        ["families", "dcgan"],
    ],
    ids=" ".join,
)
def test_answers_without_importing_torch(words):
    _without_torch(words)


def test_check_and_info_import_no_torch(run, photos):
    _without_torch(["check", str(photos)])
    _without_torch(["info", str(run)])
    _without_torch(["runs", str(run.parent)])


def test_completion_knows_families_and_flags(capsys):
    main(["completion", "words", "train", "dc"])
    assert capsys.readouterr().out.split() == ["dcgan"]
    main(["completion", "words", "train", "dcgan", "photos", "--max"])
    assert capsys.readouterr().out.split() == ["--max-width"]
    main(["completion", "words", "train", "dcgan", "photos", "--f"])
    assert set(capsys.readouterr().out.split()) == {"--fit", "--flip", "--for"}
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0


def test_every_command_has_a_module_and_help():
    for command in COMMANDS:
        faussaire(command, "--help")


def test_nothing_imports_torchvision():
    for path in SOURCE.rglob("*.py"):
        assert "import torchvision" not in path.read_text(), path
        assert "from torchvision" not in path.read_text(), path
    code = (
        "import sys, faussaire, faussaire.training, faussaire.model\n"
        "assert 'torchvision' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0


@pytest.mark.long
def test_bench_modes_counts_and_draws(tmp_path):
    words = ("bench", "modes", "--sets", "ring8", "--recipes", "gan", "r3gan", "--examples", "2k")
    plot = tmp_path / "modes.png"
    said, _ = faussaire(*words, "--plot", plot, "--json")
    records = json.loads(said)
    assert [one["recipe"] for one in records] == ["gan", "r3gan"]
    assert all(one["modes"] == 8 for one in records)
    assert plot.stat().st_size > 1000
    said, _ = faussaire(*words)
    assert "ring8" in said
    assert "published" in said


@pytest.mark.long
def test_bench_stacked_counts_and_draws(tmp_path, capsys):
    bars, plot = write_bars(tmp_path), tmp_path / "stacks.png"
    words = ["bench", "stacked", str(bars), "--resolution", "16", "--device", "cpu"]
    small = ["--digits", "2", "--examples", "640", "--samples", "300", "--width", "4"]
    few = ["--recipes", "gan", "r3gan"]
    said, _ = faussaire(*words, *small, *few, "--plot", plot, "--json")
    found = json.loads(said)
    real, *others = found["results"]
    assert (real["recipe"], real["touched"], real["modes"]) == ("(real)", 9, 9)
    assert [one["recipe"] for one in others] == ["gan", "r3gan"]
    # Ten rounds teach nothing: what they made are no digits.
    assert all(one["examples"] == 640 and one["quality"] < 0.1 < real["quality"] for one in others)
    assert found["classifier"]["accuracy"] > 0.9
    assert (found["classifier"]["taught"], found["classifier"]["asked"]) == (192, 48)
    with Image.open(plot) as picture:
        assert picture.size[1] > 6 * 16  # two rows of real stacks, and of each recipe
    assert main([*words, "--plot", str(plot)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--recipes", "gun"]) == 2
    assert "There are: gan" in capsys.readouterr().err
    assert main([*words[:3], "--resolution", "8"]) == 2
    bars.with_name("train-labels-idx1-ubyte").unlink()
    assert main([*words]) == 2
    assert "Add --labels FILE" in capsys.readouterr().err


def test_completion_knows_the_kinds_of_benches(capsys):
    main(["completion", "words", "bench", "s"])
    assert capsys.readouterr().out.split() == ["stacked"]
    main(["completion", "words", "bench", "stacked", "digits", "--la"])
    assert capsys.readouterr().out.split() == ["--labels"]
    main(["completion", "words", "bench", "modes", "--la"])
    assert capsys.readouterr().out.split() == []
