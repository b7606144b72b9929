"""Ready encoders of captions, CLIP's and sentence-transformers', whose vectors are computed once.

- `clip`: the text half of CLIP (Radford et al. 2021, arXiv 2103.00020) through transformers.
- `sentence-transformers`: any model of that library (Reimers and Gurevych 2019, arXiv 1908.10084); the
  usual one here knows some fifty languages.

Neither library is imported before a run asks for it, and only safetensors are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faussaire.core.errors import UserError
from faussaire.data.cache import cache_dir
from faussaire.data.parallel import Progress
from faussaire.data.source import digest

USUAL = {
    "clip": "openai/clip-vit-base-patch32",
    "sentence-transformers": "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
}
"""The model of each kind that is taken where none is named."""
_EXTRAS = {"clip": "features", "sentence-transformers": "words"}
_BATCH = 256


@dataclass(frozen=True)
class Ready:
    """A ready encoder, which is opened when it first has something to encode.

    Attributes:
        name: as a run's settings have it, with the model: `clip:openai/clip-vit-base-patch32`.
        open: gives what makes (N, E) float32 of N captions.
    """

    name: str
    open: Callable[[], Callable[[Sequence[str]], np.ndarray]]

    def vectors(self, captions: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """(N, E) float32 of captions, each of length 1; those of a large set are kept in the cache.

        Raises:
            UserError: the package or the weights cannot be had.
        """
        place = cache_dir() / "captions" / f"{digest(self.name, *captions)}.npy"
        if len(captions) > _BATCH and place.exists():
            return np.load(place, allow_pickle=False)
        encode = self.open()
        parts = []
        for first in range(0, len(captions), _BATCH):
            if progress is not None:
                progress("encoding captions", first, len(captions))
            found = np.asarray(encode(list(captions[first : first + _BATCH])), np.float32)
            parts.append(found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12))
        vectors = np.concatenate(parts)
        if len(captions) > _BATCH:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_suffix(".part.npy")
            np.save(temporary, vectors)
            temporary.replace(place)
        return vectors


def open_ready(encoder: str) -> Ready:
    """The encoder that a run's settings name: `clip`, `sentence-transformers`, or with `:model`.

    Raises:
        UserError: there is none of that name.
    """
    kind, _, model = encoder.partition(":")
    if kind not in USUAL:
        raise UserError(
            f"There is no encoder '{encoder}'.",
            f"It is own, {' or '.join(USUAL)}; with a model's name behind a colon, if you like.",
        )
    model = model or USUAL[kind]
    openers = {"clip": _clip, "sentence-transformers": _sentences}
    return Ready(f"{kind}:{model}", lambda: openers[kind](model))


def _clip(model: str) -> Callable[[Sequence[str]], np.ndarray]:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise _missing("clip", error) from error
    import torch

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        net = transformers.CLIPTextModelWithProjection.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise _unavailable("clip", model, error) from error
    net.eval()

    @torch.no_grad()
    def encode(captions: Sequence[str]) -> np.ndarray:
        tokens = tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt")
        return net(**tokens).text_embeds.float().numpy()

    return encode


def _sentences(model: str) -> Callable[[Sequence[str]], np.ndarray]:
    try:
        import sentence_transformers  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise _missing("sentence-transformers", error) from error
    options: dict[str, Any] = {"model_kwargs": {"use_safetensors": True}}
    try:
        net = sentence_transformers.SentenceTransformer(model, **options)
    except (OSError, ValueError) as error:
        raise _unavailable("sentence-transformers", model, error) from error
    return lambda captions: net.encode(list(captions), show_progress_bar=False)


def _missing(kind: str, error: ModuleNotFoundError) -> UserError:
    return UserError(
        f"--encoder {kind} needs the package {error.name}, which is not installed.",
        f"Run: pip install 'faussaire[{_EXTRAS[kind]}]', or leave --encoder out: the own encoder needs "
        "nothing.",
    )


def _unavailable(kind: str, model: str, error: Exception) -> UserError:
    words = str(error).strip().split("\n")[0]
    return UserError(
        f"The weights of '{model}' cannot be had ({words}).",
        f"Where there is no network, copy the model's folder here and give --encoder {kind}:FOLDER; or "
        "leave --encoder out: the own encoder needs nothing.",
    )
