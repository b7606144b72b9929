"""lm: a language model of maximum likelihood, the honest baseline of all adversarial texts.

Recurrent neural network based language model. Tomas Mikolov, Martin Karafiát, Lukáš Burget, Jan
Černocký, Sanjeev Khudanpur. 2010. Interspeech. With the cells of Long Short-Term Memory. Sepp
Hochreiter, Jürgen Schmidhuber. 1997. Neural Computation 9(8).

There is no game. A network reads the tokens of a sentence one after the other, says how likely each
token of the vocabulary is to come next, and learns to make what came likely:

    loss = -1/n sum_t log p(y_t | y_1 ... y_t-1)

It is in nats for each token, and exp(loss) is the perplexity. A sentence is drawn token by token from
softmax(logits / temperature). A temperature below 1 gives more typical sentences and fewer kinds of
them: Language GANs Falling Short (Caccia et al. 2018, arXiv 1811.02549) and Evaluating Text GANs as
Language Models (Tevet et al. 2018, arXiv 1810.12686) found that, compared at every temperature, such a
model is better than the GANs of their time in both quality and variety. So measure it first.

Where this goes beyond the papers or leaves it: Adam in place of SGD; dropout (Zaremba et al. 2014, arXiv
1409.2329); samples are made with averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from faussaire.core.config import check_range
from faussaire.core.optim import Adam
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import linear
from faussaire.texts.corpus import TextData
from faussaire.texts.recurrent import Recurrent
from faussaire.texts.tokens import TextSpec
from faussaire.texts.writing import Writer


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """Settings of the language model.

    Attributes:
        embedding: numbers that stand for a token.
        hidden: numbers in the state of each layer.
        layers: of the LSTM.
        dropout: share of embedded tokens and of layers' outputs that are dropped in training.
        lr: Adam's rate at the beginning; it falls to 0 in a straight line.
        temperature: of samples, where none is asked for: 1 is what was learnt, less is more typical.
    """

    Data: ClassVar[type] = TextData

    embedding: int = 128
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.2
    lr: float = 2e-3
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, embedding=(1, 65536), hidden=(1, 65536), layers=(1, 64))
        check_range(self, dropout=(0, 0.95), lr=(0, None), temperature=(0, 100))


class LM(Writer[LMConfig]):
    """An LSTM that learns sentences by maximum likelihood."""

    Config = LMConfig
    modality = "texts"
    adversarial = False
    training: ClassVar = {"batch": 64}
    presets: ClassVar = {
        # SeqGAN's generator, for comparison with it.
        "seqgan": {"embedding": 32, "hidden": 32, "dropout": 0.0, "lr": 1e-2},
    }
    sizes: ClassVar = {
        "tiny": {"embedding": 32, "hidden": 64, "dropout": 0.0},
        "small": {"embedding": 128, "hidden": 256},
        "base": {"embedding": 256, "hidden": 512, "dropout": 0.3},
        "large": {"embedding": 512, "hidden": 1024, "layers": 2, "dropout": 0.5},
    }

    def __init__(self, config: LMConfig, spec: TextSpec) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": Recurrent(
                spec,
                embedding=config.embedding,
                hidden=config.hidden,
                layers=config.layers,
                dropout=config.dropout,
            )
        }

    def optimisers(self) -> dict[str, Adam]:
        rate = linear(self.config.lr, 0.0)
        return {"generator": Adam(nets=("generator",), lr=rate, betas=(0.9, 0.999))}

    def stages(self, total: int) -> tuple[Stage, ...]:
        phase = Phase(name="generator", nets=("generator",), loss=self.likelihood)
        return (Stage(name="likelihood", phases=(phase,)),)
