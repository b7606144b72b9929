"""DINOv2 and CLIP as feature extractors, through Hugging Face transformers.

- DINOv2 (Oquab et al. 2023, arXiv 2304.07193): the class token after the last norm, at 224x224.
  Stein et al. 2023 (arXiv 2306.04675) find that distances of these features agree with people where
  those of Inception do not; their figures use the large model. Positions are interpolated from
  518x518 as transformers does it, which is close to, but not bit for bit, the authors' own code.
- CLIP (Radford et al. 2021, arXiv 2103.00020): image embeddings, not normalised here. CMMD
  (Jayasumana et al. 2024, arXiv 2401.09603) is defined on those of the large model at 336x336.

A model is a folder with `config.json` and `model.safetensors`; no other format is read, so nothing
in it can execute. Where a repository's main branch has only a pickle, the safetensors file that
Hugging Face's own bot has proposed there is taken, as transformers does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from faussaire.core.errors import UserError
from faussaire.metrics.weights import Unavailable, offline, places, weights_dir

_FILES = ("config.json", "model.safetensors")
_BOT = "SFconvertbot"

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class HubModel:
    """A published vision model.

    Attributes:
        repository: `owner/name` on the Hugging Face hub.
        kind: which network, and which of its outputs.
        dimensions: D of its features.
        size: side of the input in pixels.
        mean, std: of the input's RGB in [0, 1].
    """

    repository: str
    kind: Literal["dinov2", "clip"]
    dimensions: int
    size: int
    mean: Colour
    std: Colour


MODELS = {
    "dinov2-small": HubModel("facebook/dinov2-small", "dinov2", 384, 224, *_IMAGENET),
    "dinov2-base": HubModel("facebook/dinov2-base", "dinov2", 768, 224, *_IMAGENET),
    "dinov2-large": HubModel("facebook/dinov2-large", "dinov2", 1024, 224, *_IMAGENET),
    "clip-vit-base-patch32": HubModel("openai/clip-vit-base-patch32", "clip", 512, 224, *_CLIP),
    "clip-vit-large-patch14-336": HubModel(
        "openai/clip-vit-large-patch14-336", "clip", 768, 336, *_CLIP
    ),
}  # fmt: skip


class ClassToken(nn.Module):
    """(N, 3, H, W) -> (N, D): DINOv2's class token after the last norm."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).last_hidden_state[:, 0]


class ImageEmbedding(nn.Module):
    """(N, 3, H, W) -> (N, D): where CLIP's two encoders meet."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).image_embeds


def open_model(name: str, chosen: Path | None = None) -> tuple[nn.Module, Path]:
    """A model by its name in `MODELS`, and the path of its weight file.

    Args:
        name: one of `MODELS`.
        chosen: a folder that is the model, or holds it under its name or its repository's.

    Raises:
        Unavailable: it is not on this machine and cannot be downloaded.
        UserError: transformers is missing, or the folder holds another or a damaged model.
    """
    if find_spec("transformers") is None:
        raise UserError(
            f"{name} needs the package transformers, which is not installed.",
            'Run pip install "faussaire[features]".',
        )
    spec = MODELS[name]
    folder = locate(name, chosen) or fetch(name)
    return _load(spec, folder), folder / _FILES[1]


def locate(name: str, chosen: Path | None = None) -> Path | None:
    """The folder of a model that is on this machine already, else None.

    Raises:
        UserError: the folder that was given is missing, or has no safetensors file.
    """
    spec = MODELS[name]
    if chosen is not None and chosen.is_file():
        chosen = chosen.parent
    looked = places(chosen)
    if chosen is not None and (chosen / _FILES[0]).is_file() and not _complete(chosen):
        raise UserError(
            f"The folder '{chosen}' has no {_FILES[1]}.",
            "Load the model once with transformers and save it with save_pretrained, which writes "
            "that file.",
        )
    subfolders = (name, spec.repository.rpartition("/")[2])
    folders = [folder / subfolder for folder in looked for subfolder in subfolders]
    if chosen is not None:
        folders.insert(0, chosen)
    return next((folder for folder in folders if _complete(folder)), _hugging_face_cache(spec))


def fetch(name: str) -> Path:
    """Download a model into `<cache>/weights/NAME`.

    Raises:
        Unavailable: no network, or the hub has no safetensors file of it.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, folder = MODELS[name].repository, weights_dir() / name
    if offline():
        raise _unavailable(name, "FAUSSAIRE_OFFLINE forbids it")
    config, tensors = _FILES
    try:
        with _quiet():
            huggingface_hub.hf_hub_download(repository, config, local_dir=folder)
            try:
                huggingface_hub.hf_hub_download(repository, tensors, local_dir=folder)
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError):
                    raise
                converted = huggingface_hub.get_repo_discussions(
                    repository, author=_BOT, discussion_type="pull_request"
                )
                revision = next((pull.git_reference for pull in converted), None)
                if revision is None:
                    raise _unavailable(name, "the hub has no safetensors file of it") from error
                huggingface_hub.hf_hub_download(
                    repository, tensors, revision=revision, local_dir=folder
                )
    except LocalEntryNotFoundError as error:
        raise _unavailable(name, "no connection to the Hugging Face hub") from error
    except OSError as error:
        words = str(error).partition("\n")[0]
        raise _unavailable(name, f"the Hugging Face hub: {words}") from error
    return folder


def _complete(folder: Path) -> bool:
    return all((folder / file).is_file() for file in _FILES)


def _hugging_face_cache(spec: HubModel) -> Path | None:
    """The snapshot that other programs of this user have fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(spec.repository, _FILES[1])
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder is not None and _complete(folder) else None


def _unavailable(name: str, why: str) -> Unavailable:
    repository = MODELS[name].repository
    return Unavailable(
        f"The model {repository} is not in '{weights_dir() / name}' nor in the Hugging Face cache, "
        f"and could not be downloaded ({why}).",
        f"Fetch {' and '.join(_FILES)} of https://huggingface.co/{repository} into a folder and "
        "pass it by --weights, or use the extractor pixels, which needs no file.",
    )


def _load(spec: HubModel, folder: Path) -> nn.Module:
    import transformers
    from safetensors import SafetensorError

    hint = f"Give the folder of {spec.repository}, or delete it to have it downloaded again."
    try:
        kind = json.loads((folder / _FILES[0]).read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"'{folder / _FILES[0]}' is damaged ({error}).", hint) from error
    if kind not in (spec.kind, f"{spec.kind}_vision_model"):
        raise UserError(f"The folder '{folder}' holds a model of the type {kind}.", hint)
    dinov2 = spec.kind == "dinov2"
    network = transformers.Dinov2Model if dinov2 else transformers.CLIPVisionModelWithProjection
    try:
        with _quiet():
            loaded: Any = network.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
        words = str(error).partition("\n")[0]
        raise UserError(f"The model in '{folder}' cannot be loaded ({words}).", hint) from error
    model, report = loaded
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise UserError(
            f"The model in '{folder}' lacks {len(lacking)} tensors, {lacking[0]} first.", hint
        )
    width = model.config.hidden_size if dinov2 else model.config.projection_dim
    if width != spec.dimensions:
        raise UserError(
            f"The model in '{folder}' has {width} features, not the {spec.dimensions} of "
            f"{spec.repository}.",
            hint,
        )
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise UserError(f"The model in '{folder}' is damaged: it holds NaN or infinity.", hint)
    return (ClassToken if dinov2 else ImageEmbedding)(model.float())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own reports: what is left out on purpose, retries, bars of loading."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    level, hub_level, bars = (
        logging.get_verbosity(), hub_logging.get_verbosity(), logging.is_progress_bar_enabled()
    )  # fmt: skip
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()
