"""Extractors: what pictures become before a network, which one `auto` takes, what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from faussaire.core.errors import UserError
from faussaire.metrics import hub, pixels
from faussaire.metrics.extractors import (
    Extractor,
    Features,
    NetworkExtractor,
    names,
    on_white,
    open_extractor,
    state_digest,
)
from faussaire.metrics.inception import Inception2015, to_input
from faussaire.metrics.resize import How, resize
from faussaire.metrics.squeezenet import SqueezeNet
from faussaire.metrics.weights import checksum


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No downloads, and nothing of the user's; returns an empty folder."""
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("FAUSSAIRE_WEIGHTS", raising=False)
    monkeypatch.setenv("FAUSSAIRE_KERNELS", "0")  # nothing to compile into each test's cache
    if find_spec("huggingface_hub"):
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


def pictures(count: int, height: int = 12, width: int = 10, channels: int = 3) -> np.ndarray:
    shape = (count, height, width, channels)
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def eye(size: int | tuple[int, int] = (12, 10), **how: object) -> NetworkExtractor:
    """An extractor whose vectors are the network's very inputs, (n, 3 h w)."""
    return NetworkExtractor(nn.Flatten(), name="eye", size=size, **how)  # type: ignore[arg-type]


def squeezenet_file(folder: Path, version: str, name: str, classes: int = 0) -> Path:
    torch.manual_seed(1)
    save_file(SqueezeNet(version, classes).state_dict(), folder / name)  # type: ignore[arg-type]
    return folder / name


def test_a_network_sees_pictures_scaled_by_mean_and_deviation():
    seen = pictures(3)
    wanted = torch.from_numpy(seen).permute(0, 3, 1, 2).double() / 255
    found = eye()(seen).vectors.view(3, 3, 12, 10).double()
    assert float((found - (wanted * 2 - 1)).abs().max()) < 1e-6
    mean, std = (0.1, 0.2, 0.3), (0.5, 2.0, 1.0)
    found = eye(mean=mean, std=std)(seen).vectors.view(3, 3, 12, 10).double()
    middle, spread = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
    assert float((found - (wanted - middle) / spread).abs().max()) < 1e-6


def test_grey_is_three_equal_channels():
    grey = pictures(2, channels=1)
    assert torch.equal(eye()(grey).vectors, eye()(np.repeat(grey, 3, axis=3)).vectors)
    resized = eye(size=8)
    assert torch.equal(resized(grey).vectors, resized(np.repeat(grey, 3, axis=3)).vectors)


def test_transparency_is_laid_on_white():
    rgba = pictures(4, channels=4)
    rgba[0, ..., 3], rgba[1, ..., 3] = 255, 0
    white = on_white(torch.from_numpy(rgba))
    assert torch.equal(white[0], torch.from_numpy(rgba[0, ..., :3]).float())
    assert bool((white[1] == 255).all())
    assert torch.equal(on_white(torch.tensor([[[[200, 0, 100, 51]]]], dtype=torch.uint8)),
                       torch.tensor([[[[244.0, 204.0, 224.0]]]]))  # fmt: skip
    assert torch.equal(eye()(rgba).vectors, eye()(white.to(torch.uint8)).vectors)


def test_the_project_lays_training_pictures_on_white_alike():
    from PIL import Image

    from faussaire.data.fit import on_background

    rgba = pictures(1, 40, 40, 4)
    laid = np.asarray(on_background(Image.fromarray(rgba[0]), (255, 255, 255)))
    assert np.abs(on_white(torch.from_numpy(rgba))[0].numpy() - laid).max() <= 1


@pytest.mark.parametrize("how", ["clean", "legacy", "pytorch"])
def test_pictures_reach_the_network_by_the_named_resizing(how: How):
    seen = pictures(2, 30, 20)
    wanted = resize(torch.from_numpy(seen).permute(0, 3, 1, 2), (9, 11), how) / 127.5 - 1
    extractor = eye(size=(9, 11), resize=how)
    assert extractor.resize == how
    assert float((extractor(seen).vectors - wanted.flatten(1)).abs().max()) < 1e-5


def test_blocks_of_any_length_and_arrays_of_any_kind_are_read():
    extractor = eye(batch=4)
    seen = pictures(11)
    whole = extractor(seen)
    assert whole.vectors.shape == (11, 360)
    assert torch.equal(torch.cat([extractor(seen[i : i + 3]).vectors for i in range(0, 11, 3)]),
                       whole.vectors)  # fmt: skip
    assert torch.equal(extractor(torch.from_numpy(seen)).vectors, whole.vectors)
    read_only = seen.copy()
    read_only.flags.writeable = False
    assert torch.equal(extractor(read_only).vectors, whole.vectors)
    mirrored = extractor(seen[:, :, ::-1]).vectors
    assert torch.equal(mirrored, extractor(seen[:, :, ::-1].copy()).vectors)
    nothing = extractor(seen[:0])
    assert nothing.vectors.shape == (0, 360)
    assert nothing.logits is None


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        torch.zeros(2, 8, 8, 2, dtype=torch.uint8),
    ],
)
def test_other_arrays_are_refused(wrong):
    with pytest.raises(UserError, match="An extractor was given") as caught:
        eye()(wrong)
    assert "uint8 pictures (N, H, W, C)" in caught.value.hint


class Classifier(nn.Module):
    """Features and logits; batch norm and dropout, which eval mode must silence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(x).flatten(1)
        return features, self.head(features)


def test_any_network_becomes_an_extractor_with_its_own_provenance():
    torch.manual_seed(0)
    net = Classifier()
    mine = NetworkExtractor(net, name="mine", size=10, batch=3)
    assert isinstance(mine, Extractor)
    assert (mine.name, mine.dimensions, mine.classes) == ("mine", 6, 4)
    seen = pictures(8)
    found = mine(seen)
    assert found.vectors.shape == (8, 6)
    assert found.logits is not None
    assert found.logits.shape == (8, 4)
    assert found.vectors.dtype == torch.float32
    assert not found.vectors.requires_grad
    assert torch.equal(mine(seen).vectors, found.vectors)
    alone = mine(seen[5:6])
    torch.testing.assert_close(alone.vectors[0], found.vectors[5])
    empty = mine(seen[:0])
    assert empty.logits is not None
    assert empty.logits.shape == (0, 4)
    assert len(mine.weights) == 16
    assert NetworkExtractor(net, name="mine", size=10).weights == mine.weights
    told = [
        NetworkExtractor(net, name="mine", size=12),
        NetworkExtractor(net, name="mine", size=10, mean=(0.4, 0.5, 0.5)),
        NetworkExtractor(net, name="mine", size=10, std=(0.4, 0.5, 0.5)),
    ]
    before = state_digest(net)
    with torch.no_grad():
        net.head.bias[0] += 1
    assert state_digest(net) != before
    told.append(NetworkExtractor(net, name="mine", size=10))
    assert len({mine.weights, *(other.weights for other in told)}) == 5


def test_a_plain_function_is_told_from_every_other():
    def shrink(x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    one, other = (NetworkExtractor(shrink, name="fn", size=8) for _ in range(2))
    assert one.weights != other.weights
    assert NetworkExtractor(shrink, name="fn", size=8, weights="mine").weights == "mine"


def test_training_settings_do_not_reach_the_features():
    torch.manual_seed(0)
    mine = NetworkExtractor(Classifier(), name="mine", size=10)
    seen = pictures(8)
    wanted = mine(seen).vectors
    knob = torch.backends.mkldnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = knob.fp32_precision
    knob.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(mine(seen).vectors, wanted)
        assert knob.fp32_precision == "bf16"
    finally:
        knob.fp32_precision = before


def test_a_network_that_gives_maps_is_refused():
    with pytest.raises(UserError, match=r"tensors of shape \(2, 6, 8, 8\)"):
        NetworkExtractor(nn.Conv2d(3, 6, 3), name="maps", size=10)


def test_an_extractor_passes_through_and_other_objects_do_not():
    class Mine:
        name, weights, resize, dimensions, classes, batch = "mine", "none", "clean", 2, None, 8

        def __call__(self, pictures: np.ndarray | Tensor) -> Features:
            return Features(torch.zeros(len(pictures), 2), None)

    mine = Mine()
    assert open_extractor(mine) is mine
    with pytest.raises(UserError, match="An object of type Flatten is no extractor") as caught:
        open_extractor(nn.Flatten())  # type: ignore[arg-type]
    assert "NetworkExtractor" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("squeezenet", "'squeezenet' is unknown. Did you mean 'squeezenet1.0'?"),
        ("dinov2-smal", "Did you mean 'dinov2-small'?"),
        ("zzz", "The extractor 'zzz' is unknown."),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest(name, words):
    with pytest.raises(UserError) as caught:
        open_extractor(name)
    assert words in caught.value.cause.replace("squeezenet1.1", "squeezenet1.0")
    assert all(known in caught.value.hint for known in names())


def test_unknown_devices_and_resizings_are_refused():
    with pytest.raises(UserError, match="The device 'gpu' is unknown"):
        open_extractor("pixels", device="gpu")
    with pytest.raises(UserError, match=r"Resizing 'cleen' is unknown. Did you mean 'clean'"):
        open_extractor("pixels", resize="cleen")  # type: ignore[arg-type]


def test_auto_steps_down_and_says_so(alone):
    told: list[str] = []
    assert open_extractor(note=told.append).name == "pixels"
    assert [sentence.split(",")[0] for sentence in told] == [
        "squeezenet1.1 stands in for inception-2015",
        "pixels stands in for squeezenet1.1",
    ]
    path = squeezenet_file(alone, "1.1", "squeezenet1_1_features.safetensors")
    told.clear()
    found = open_extractor(weights=alone, note=told.append)
    assert (found.name, found.dimensions, found.classes) == ("squeezenet1.1", 512, None)
    assert found.weights == checksum(path)[:16]
    assert len(told) == 1
    assert "pt_inception-2015-12-05-6726825d.pth is not in" in told[0]
    assert str(alone) in told[0]


def test_auto_takes_the_network_that_a_files_name_tells(alone):
    path = squeezenet_file(alone, "1.0", "squeezenet1_0.safetensors", classes=9)
    found = open_extractor(weights=path)
    assert (found.name, found.classes) == ("squeezenet1.0", 9)
    nameless = path.rename(alone / "mine.safetensors")
    with pytest.raises(UserError, match=r"mine.safetensors' does not tell its network"):
        open_extractor(weights=nameless)
    assert open_extractor("squeezenet1.0", weights=nameless).weights == found.weights


def test_a_named_extractor_without_its_file_says_all_that_helps(alone):
    with pytest.raises(UserError) as caught:
        open_extractor("squeezenet1.1", weights=alone)
    for words in ("squeezenet1_1-b8a52dc0.pth", str(alone), "FAUSSAIRE_OFFLINE", "--weights",
                  "https://download.pytorch.org/models/", "extractor pixels"):  # fmt: skip
        assert words in str(caught.value)


def test_weights_of_another_network_are_refused(alone):
    path = squeezenet_file(alone, "1.0", "squeezenet1_0.safetensors")
    with pytest.raises(UserError, match=r"does not fit SqueezeNet: .* missing") as caught:
        open_extractor("squeezenet1.1", weights=path)
    assert "SqueezeNet 1.1" in caught.value.hint


@pytest.fixture(scope="module")
def inception() -> Inception2015:
    """Random weights as large as keeps the signal's size."""
    torch.manual_seed(0)
    net = Inception2015()
    for value in net.state_dict().values():
        if value.dim() > 1:
            nn.init.kaiming_uniform_(value)
    return net


@pytest.mark.parametrize("how", ["clean", "pytorch"])
def test_inception_reads_what_its_resizing_prescribes(alone, inception, how: How):
    net, path = inception, alone / "mine.pth"
    torch.save(net.state_dict(), path)
    extractor = open_extractor("inception-2015", weights=path, resize=how, device="cpu")
    assert (extractor.dimensions, extractor.classes) == (2048, 1008)
    assert extractor.weights == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    seen = pictures(1, 32, 24)
    x = resize(torch.from_numpy(seen).permute(0, 3, 1, 2), (299, 299), how)
    features, logits = net(to_input(x, how))
    found = extractor(seen)
    assert float(features.norm()) > 0
    for mine, wanted in ((found.vectors, features), (found.logits, logits)):
        assert mine is not None
        assert float((mine - wanted).norm() / wanted.norm()) < 1e-4


# --- pixels -------------------------------------------------------------------------------------


def test_the_projection_is_the_same_for_all_time():
    draws = pixels.gaussian(1000, 100, pixels.SEED)
    assert draws.shape == (1000, 100)
    np.testing.assert_allclose(
        draws[0, :3], [-1.0424614610207845, 0.7171311457507528, 0.923438051008999], rtol=1e-12
    )
    assert abs(draws.mean()) < 0.02
    assert abs(draws.std() - 1) < 0.01
    assert abs(np.mean(draws**4) - 3) < 0.1
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.1


def test_pixels_keep_distances():
    extractor = open_extractor("pixels")
    assert (extractor.name, extractor.weights, extractor.dimensions) == ("pixels", "none", 256)
    seen = pictures(60, 32, 32)
    flat = torch.from_numpy(seen).flatten(1).double() / 255
    before = torch.cdist(flat, flat)[np.triu_indices(60, 1)]
    vectors = extractor(seen).vectors.double()
    ratio = (torch.cdist(vectors, vectors)[np.triu_indices(60, 1)] / before).square()
    assert abs(float(ratio.mean()) - 1) < 0.05
    assert float(ratio.std()) < 0.15


def test_pixels_see_colour_and_layout_but_not_fine_texture():
    extractor = open_extractor("pixels")
    plain = np.full((1, 128, 128, 3), 100, np.uint8)
    rows, columns = np.indices((128, 128))
    checks = (plain + ((rows + columns) % 2 * 40 - 20)[None, :, :, None]).astype(np.uint8)
    warm = plain + np.array([20, 0, 0], np.uint8)
    half = plain + (columns > 64).astype(np.uint8)[None, :, :, None] * 20
    start, *others = (extractor(p).vectors for p in (plain, checks, warm, half))
    texture, colour, layout = (float((other - start).norm()) for other in others)
    assert texture < 0.05 * min(colour, layout)


# --- DINOv2 and CLIP: tiny random models in the published format ---------------------------------

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)


def save_dinov2(folder: Path, width: int = 16) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=2, image_size=42, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Both encoders, as published: the text's must be passed over."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 2, "projection_dim": 12}  # fmt: skip
    config = CLIPConfig(
        text_config={**small, "vocab_size": 30},
        vision_config={**small, "image_size": 28, "patch_size": 14},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch):
    """The small models' names stand for models that are smaller still."""
    smaller = {
        "dinov2-small": replace(hub.MODELS["dinov2-small"], dimensions=16, size=56),
        "clip-vit-base-patch32": replace(
            hub.MODELS["clip-vit-base-patch32"], dimensions=12, size=28
        ),
    }
    for name, model in smaller.items():
        monkeypatch.setitem(hub.MODELS, name, model)


@needs_transformers
def test_dinov2_gives_its_class_token(alone, tiny):
    from transformers import Dinov2Model

    save_dinov2(alone / "dinov2-small")
    found = open_extractor("dinov2-small", weights=alone, device="cpu")
    assert (found.dimensions, found.classes) == (16, None)
    assert found.weights == checksum(alone / "dinov2-small" / "model.safetensors")[:16]
    seen = pictures(2, 56, 56)
    x = torch.from_numpy(seen).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    model = Dinov2Model.from_pretrained(alone / "dinov2-small").eval()
    with torch.no_grad():
        wanted = model(x).pooler_output
    torch.testing.assert_close(found(seen).vectors, wanted, rtol=1e-4, atol=1e-5)


@needs_transformers
def test_clip_gives_its_image_embedding(alone, tiny):
    from transformers import CLIPModel

    save_clip(alone)
    # The folder itself may be the model; so may the file in it.
    for weights in (alone, alone / "model.safetensors"):
        found = open_extractor("clip-vit-base-patch32", weights=weights, device="cpu")
        assert (found.dimensions, found.classes) == (12, None)
    seen = pictures(2, 28, 28)
    x = torch.from_numpy(seen).permute(0, 3, 1, 2) / 255
    mean, std = hub.MODELS["clip-vit-base-patch32"].mean, hub.MODELS["clip-vit-base-patch32"].std
    x = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    model = CLIPModel.from_pretrained(alone).eval()
    with torch.no_grad():
        wanted = model.visual_projection(model.vision_model(x).pooler_output)
    torch.testing.assert_close(found(seen).vectors, wanted, rtol=1e-4, atol=1e-5)


@needs_transformers
def test_hub_models_are_looked_for_under_both_names_and_in_the_environment(
    alone, tiny, monkeypatch
):
    save_clip(alone / "clip-vit-base-patch32")
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(alone))
    assert hub.locate("clip-vit-base-patch32") == alone / "clip-vit-base-patch32"
    assert hub.locate("dinov2-small") is None


def break_tensors(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return spoil


def drop_one(state: dict[str, Tensor]) -> None:
    del state[next(name for name in state if name.startswith("layernorm"))]


def poison(state: dict[str, Tensor]) -> None:
    next(iter(state.values())).view(-1)[0] = float("nan")


@needs_transformers
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
         "has no model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json' is damaged"),
        (lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "bert"})),
         "a model of the type bert"),
        (lambda folder: save_dinov2(folder, width=8), "has 8 features, not the 16"),
        (break_tensors(drop_one), "lacks 1 tensors, layernorm"),
        (break_tensors(poison), "holds NaN or infinity"),
    ],
)  # fmt: skip
def test_damaged_and_other_models_are_refused(alone, tiny, spoil, words):
    save_dinov2(alone)
    spoil(alone)
    with pytest.raises(UserError, match=words) as caught:
        open_extractor("dinov2-small", weights=alone)
    assert "\n" not in str(caught.value)


@needs_transformers
def test_what_the_hub_has_is_fetched_once_and_a_bots_conversion_where_it_must(
    alone, tiny, monkeypatch
):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    save_dinov2(alone)
    monkeypatch.delenv("FAUSSAIRE_OFFLINE")
    asked: list[tuple[str, str | None]] = []

    def download(repository, filename, *, revision=None, local_dir):
        asked.append((filename, revision))
        if filename == "model.safetensors" and revision is None:
            raise EntryNotFoundError("404")
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / filename).write_bytes((alone / filename).read_bytes())

    class Pull:
        git_reference = "refs/pr/7"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **how: iter([Pull()]))
    assert open_extractor("dinov2-small").dimensions == 16
    assert asked == [
        ("config.json", None), ("model.safetensors", None), ("model.safetensors", "refs/pr/7")
    ]  # fmt: skip
    asked.clear()
    assert open_extractor("dinov2-small").dimensions == 16
    assert asked == []

    def unreachable(*_, **how):
        raise LocalEntryNotFoundError("no route")

    monkeypatch.setenv("FAUSSAIRE_CACHE", str(alone / "empty"))
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **how: iter([]))
    with pytest.raises(UserError, match="the hub has no safetensors file of it"):
        open_extractor("dinov2-small")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match="no connection to the Hugging Face hub") as caught:
        open_extractor("dinov2-small")
    assert "https://huggingface.co/facebook/dinov2-small" in caught.value.hint


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        open_extractor("dinov2-large")
    assert 'pip install "faussaire[features]"' in caught.value.hint
