"""`faussaire transfer`, typed for real, with a network of random weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cli.commands import environment, faussaire, start
from faussaire.cli import main
from faussaire.cli.transfer import Options, parse_layers
from faussaire.core.errors import UserError
from faussaire.families.styletransfer import StyleTransferConfig
from faussaire.metrics.squeezenet import SqueezeNet

QUICK = ["--size", 64, "--steps", 2, "--smallest", 48]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that lies on its side, transparent and deep ones, a painting, and weights."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "photo.jpg", exif=exif)
    photo.convert("RGBA").save(folder / "clear.png")
    Image.fromarray(rng.integers(0, 65535, (60, 80)).astype(np.uint16)).save(folder / "deep.png")
    photo.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(rng.integers(0, 255, (70, 50, 3), dtype=np.uint8)).save(folder / "art.png")
    (folder / "text.jpg").write_text("this is no picture")
    torch.manual_seed(0)
    save_file(SqueezeNet("1.1").state_dict(), folder / "squeezenet1_1_features.safetensors")
    return folder


def command(desk: Path, *words: object) -> list[str]:
    weights = ["--weights", desk / "squeezenet1_1_features.safetensors"]
    return [*map(str, ("transfer", *words, *QUICK, *weights))]


def transfer(desk: Path, *words: object, expect: int = 0) -> tuple[str, str]:
    return faussaire(*command(desk, *words), expect=expect)


def test_a_picture_is_painted_upright_and_never_overwritten(desk, tmp_path):
    out = tmp_path / "new folder" / "out.png"
    words = [desk / "photo.jpg", desk / "art.png", "-o", out, "--preview-every", 3]
    said, _ = transfer(desk, *words)
    with Image.open(out) as picture:
        assert picture.size == (48, 64)  # the camera's 80x60, turned as its EXIF says
    assert "100.0%" in said
    assert "style" in said
    assert "left" in said
    assert f"48x64 in {out}" in said
    steps = sorted(path.name for path in out.parent.glob("out-step*.png"))
    assert steps == ["out-step00003.png", "out-step00006.png"]
    before = out.read_bytes()
    _, err = transfer(desk, *words, expect=2)
    assert "exists" in err
    said, _ = transfer(desk, *words, "--overwrite", "--json")
    assert out.read_bytes() == before  # a seed gives the same picture
    told = json.loads(said)
    assert (told["width"], told["height"]) == (48, 64)
    assert set(told["losses"]) == {"content", "style", "tv"}
    assert len(told["previews"]) == 2


def test_styles_and_settings_reach_the_painter(desk, tmp_path):
    out = tmp_path / "out.jpg"
    transfer(
        desk, desk / "clear.png", desk / "art.png", desk / "print.jpg", "--out", out,
        "--share", 2, 1, "--optimiser", "lbfgs", "--init", "noise", "--keep-colour", "--seed", 3,
        "--tv", 0, "--content-layers", "fire3", "--style-layers", "relu1=0.5,fire2", "--pool", "max",
        "--style-scale", 0.8,
    )  # fmt: skip
    with Image.open(out) as picture:
        assert picture.size == (64, 48)
        assert picture.format == "JPEG"


def test_odd_pictures_work_and_mistakes_are_sentences(desk, tmp_path, capsys):
    for name in ("deep.png", "print.jpg"):
        out = tmp_path / f"{name}.webp"
        assert main(command(desk, desk / name, desk / "art.png", "-o", out)) == 0
        assert out.stat().st_size > 0
    art, out = desk / "art.png", tmp_path / "x.png"
    for words, told in (
        ((desk / "missing.jpg", art, "-o", out), "missing.jpg"),
        ((desk / "text.jpg", art, "-o", out), "holds text"),
        ((desk / "photo.jpg", "-o", out), "No style"),
        ((desk / "photo.jpg", art, "-o", tmp_path / "out.pgn"), "Did you mean '.png'"),
        ((desk / "photo.jpg", art, "-o", out, "--style-layers", "fire33"), "Did you mean 'fire3'"),
        ((desk / "photo.jpg", art, "-o", out, "--style-weight", "-1"), "style_weight cannot be"),
        ((desk / "photo.jpg", art, "-o", out, "--share", "1", "2"), "do not fit 1 styles"),
    ):
        assert main(command(desk, *words)) == 2
        err = capsys.readouterr().err
        assert told in err, err
        assert not out.exists()


@pytest.mark.long
def test_without_vgg19_squeezenet_stands_in_and_without_both_the_address_is_told(desk, tmp_path):
    env = {
        **environment(),
        "FAUSSAIRE_OFFLINE": "1",
        "FAUSSAIRE_CACHE": str(tmp_path / "cache"),
        "TORCH_HOME": str(tmp_path / "torch"),
    }
    env.pop("FAUSSAIRE_WEIGHTS", None)
    words = ["transfer", desk / "photo.jpg", desk / "art.png", "-o", tmp_path / "out.png", *QUICK]
    process = start(*words, "--weights", desk, env=env)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "squeezenet1.1 stands in for vgg19" in err
    process = start(*words, "--overwrite", env=env)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in err.replace("\n", "")


def test_layers_are_parsed():
    assert parse_layers("fire4") == {"fire4": 1.0}
    assert parse_layers("relu1=0.5, fire3=2e-1,fire5") == {"relu1": 0.5, "fire3": 0.2, "fire5": 1.0}
    for written in ("", "fire3=much", "=1", "a,,b"):
        with pytest.raises(UserError, match="list of layers"):
            parse_layers(written)


def test_the_command_has_the_defaults_of_the_family():
    family = {field.name: field.default for field in dataclasses.fields(StyleTransferConfig)}
    command = {field.name: field.default for field in dataclasses.fields(Options)}
    renamed = {"tv": "tv_weight", "init": "start"}
    for name in ("style_weight", "content_weight", "tv", "steps", "smallest", "init", "optimiser"):
        assert command[name] == family[renamed.get(name, name)], name
