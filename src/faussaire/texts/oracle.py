"""A synthetic language whose every probability is known: an LSTM with random weights.

SeqGAN (Yu et al. 2017, arXiv 1609.05473, section 4): weights from N(0, 1), 32 numbers a token and in
the state, the first token read is number 0. What it writes is taken for real; what a generator writes
is then judged by how likely the oracle finds it:

    NLL_oracle = -E_{y ~ G} 1/T sum_t log p_oracle(y_t | y_1 ... y_t-1)      quality, less is better
    NLL_gen    = -E_{y ~ oracle} 1/T sum_t log p_G(y_t | y_1 ... y_t-1)      variety, less is better

both in nats a token. (The paper's figures are of its own oracle, whose weights can be read here; those
of different oracles cannot be compared. Papers differ in whether they give sums over T or means: these
are means.) A generator that always writes the one likeliest sentence wins the first; the second tells.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faussaire.core.batch import BatchDraws, mix
from faussaire.core.errors import UserError
from faussaire.texts.recurrent import Recurrent, shifted, surprise, write
from faussaire.texts.tokens import TextSpec

_BATCH = 500
#: Arrays of the published file: an embedding, then for each gate W, U and b, then the last layer.
_SHAPES = 15


class Oracle:
    """The language: `write`s sentences, and knows how likely any sentence is.

    Attributes:
        spec: of its texts: `length` tokens without meaning, no ends.
        net: the LSTM.
    """

    def __init__(self, net: Recurrent, spec: TextSpec) -> None:
        self.net, self.spec = net.eval().requires_grad_(False), spec

    @classmethod
    def drawn(
        cls, *, seed: int = 0, vocabulary: int = 5000, length: int = 20, hidden: int = 32
    ) -> Oracle:
        """An oracle with weights from N(0, 1), the same for the same arguments.

        Args:
            seed: of the weights.
            vocabulary: different tokens, V.
            length: tokens in a sentence, T.
            hidden: numbers a token, and in the state.
        """
        spec = _spec(vocabulary, length)
        generator = torch.Generator().manual_seed(mix("oracle", seed))
        weights = [
            torch.randn(shape, generator=generator)
            for shape in (
                (vocabulary, hidden),
                *((hidden, hidden), (hidden, hidden), (hidden,)) * 4,
                (hidden, vocabulary),
                (vocabulary,),
            )
        ]
        return cls(_net(weights, spec), spec)

    @classmethod
    def published(cls, path: str | Path, *, length: int = 20) -> Oracle:
        """The oracle of SeqGAN's authors: `target_params.npz`, 15 arrays named arr_0 to arr_14.

        Raises:
            UserError: the file cannot be read or holds other arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [torch.from_numpy(file[f"arr_{index}"]) for index in range(_SHAPES)]
        except OSError as error:
            raise UserError(
                f"'{path}' cannot be read: {error.strerror}.", "Name the oracle's npz file."
            ) from error
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(
                f"'{path}' holds no oracle of {_SHAPES} arrays ({error}).",
                "It should hold arr_0 to arr_14: an embedding, W, U and b of four gates, and the last "
                "layer's W and b.",
            ) from error
        vocabulary, hidden = arrays[0].shape
        wanted = [(vocabulary, hidden), *[(hidden, hidden), (hidden, hidden), (hidden,)] * 4]
        wanted += [(hidden, vocabulary), (vocabulary,)]
        for index, (array, shape) in enumerate(zip(arrays, wanted, strict=True)):
            if tuple(array.shape) != shape:
                raise UserError(
                    f"'{path}' has arr_{index} of shape {tuple(array.shape)}, not {shape}.",
                    "It is no oracle of SeqGAN's form.",
                )
        spec = _spec(vocabulary, length)
        return cls(_net(arrays, spec), spec)

    def write(self, count: int, *, seed: int = 0) -> np.ndarray:
        """Sentences of its own, (count, T) int32, the same for the same seed."""
        parts = []
        with torch.no_grad():
            for first in range(0, count, _BATCH):
                draws = BatchDraws(mix("oracle", seed, first), total=_BATCH, rows=slice(0, _BATCH))
                parts.append(write(self.net, self.spec, draws))
        return torch.cat(parts)[:count].numpy().astype(np.int32)

    def nll(self, tokens: Tensor | np.ndarray) -> Tensor:
        """-1/T log p of each sentence, in nats a token: (N, T) to (N,)."""
        rows = torch.as_tensor(tokens).cpu().long()
        with torch.no_grad():
            parts = [
                surprise(self.net(shifted(part, self.spec.begin))[0], part).mean(dim=1)
                for part in rows.split(_BATCH)
            ]
        return torch.cat(parts)


def _spec(vocabulary: int, length: int) -> TextSpec:
    return TextSpec(
        vocabulary=tuple(str(number) for number in range(vocabulary)), length=length, ends=False
    )


def _net(weights: Sequence[Tensor], spec: TextSpec) -> Recurrent:
    """An LSTM of an embedding, W, U and b of the input, forget, output and cell gates, and W and b."""
    embed, gates, (last, bias) = weights[0], weights[1:13], weights[13:]
    inputs, forgets, outputs, cells = (gates[at : at + 3] for at in range(0, 12, 3))
    net = Recurrent(spec, embedding=embed.shape[1], hidden=embed.shape[1])
    order = (inputs, forgets, cells, outputs)  # torch's
    with torch.no_grad():
        net.embed.weight.copy_(torch.cat([embed, embed[:1]]))  # begins by reading token 0
        lstm = {
            "weight_ih_l0": torch.cat([gate[0].T for gate in order]),
            "weight_hh_l0": torch.cat([gate[1].T for gate in order]),
            "bias_ih_l0": torch.cat([gate[2] for gate in order]),
            "bias_hh_l0": torch.zeros(4 * embed.shape[1]),
        }
        net.lstm.load_state_dict(lstm)
        net.predict.weight.copy_(last.T)
        net.predict.bias.copy_(bias)
    return net
