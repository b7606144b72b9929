"""The README's commands, run as a reader would, on a small folder with short budgets."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli.commands import environment, faussaire, make_pictures

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """Code blocks of a language that are marked as tested."""
    pattern = rf"<!-- tested -->\n```{language}\n(.*?)```"
    found = re.findall(pattern, README.read_text("utf-8"), re.DOTALL)
    assert found, f"the README has no tested {language} block"
    return found


def hurry(text: str) -> str:
    """The same with a budget of seconds and the smallest resolution."""
    text = re.sub(r"--for \w+", "--for 2s", text)
    text = re.sub(r'duration="\w+"', 'duration="2s"', text)
    text = re.sub(r"--resolution \w+", "--resolution 16 --width 8", text)
    text = re.sub(r"(train pix2pix .*?--width 8)", r"\1 --examples 60", text)
    text = re.sub(r"(train pretext .*?--width 8)", r"\1 --examples 60", text)
    text = re.sub(r"(train stackgan .*?)--for 2s", r"\1--examples 100 --batch 4", text)
    text = re.sub(r"(train lm \S+)", r"\1 --size tiny --examples 320", text)
    text = re.sub(r"(train vae .*?--width 8)", r"\1 --examples 256", text)
    text = re.sub(r"(evaluate runs/dcgan\S+)", r"\1 --extractor pixels --count 60", text)
    text = re.sub(r"(train tvae \S+)", r"\1 --examples 2000", text)
    text = re.sub(r"--count 1000 (--where)", r"--count 20 \1", text)
    text = re.sub(r"(evaluate runs/people)", r"\1 --count 200", text)
    text = re.sub(r"(evaluate runs/written)", r"\1 --count 60 --metrics nll,bleu", text)
    text = text.replace(
        "--evaluate-every 50k", "--examples 320 --evaluate-every 160 --extractor pixels"
    )
    return re.sub(r"resolution=\d+", "resolution=16, width=8", text)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    make_pictures(folder / "photos")
    names = sorted(path.name for path in (folder / "photos").iterdir())
    told = [f"{name},a {'red' if row % 2 else 'blue'} car" for row, name in enumerate(names)]
    (folder / "captions.csv").write_text("file,text\n" + "\n".join(told) + "\n", encoding="utf-8")
    lines = (f"a {cat} {does} you." for cat in ("cat", "dog", "bird") for does in ("sees", "likes"))
    (folder / "sentences.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rng = random.Random(0)
    rows = [f"{rng.randint(18, 80)},{rng.choice('mf')},{rng.random():.3f}" for _ in range(1200)]
    (folder / "people.csv").write_text("age,sex,share\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.mark.long
def test_the_commands_work_in_their_order(desk):
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(hurry(line), comments=True)
        assert words[0] == "faussaire", f"not a faussaire command: {line}"
        faussaire(*words[1:], cwd=desk, timeout=180)
    assert (desk / "runs" / "dcgan-photos" / "report.html").exists()
    assert (desk / "grid.png").exists()
    assert (desk / "walk.gif").exists()
    assert len(list((desk / "samples").iterdir())) == 10


def test_the_python_works(desk):
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", hurry(block)],
            cwd=desk,
            env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_links_lead_somewhere():
    for page in (README, *README.parent.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
