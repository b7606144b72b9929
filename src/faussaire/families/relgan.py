"""RelGAN: sentences made with a relational memory, and gradients that pass through soft tokens.

RelGAN: Relational Generative Adversarial Networks for Text Generation. Weili Nie, Nina Narodytska, Ankit
Patel. 2019. ICLR. openreview rJedV3R5tm.

1. The generator's memory M is a few slots. It reads a token x by attending to itself and to x
   (section 2.1; Santoro et al. 2018, Relational recurrent neural networks, arXiv 1806.01822, section 3):

       M~ = [softmax(M Wq ([M; x] Wk)' / sqrt(d)) [M; x] Wv]  for each head
       M  <- forget * M + input * tanh(MLP(M~))        gates from x and tanh(M)

2. A token is drawn by the Gumbel trick, y = argmax(o + g), and the discriminator gets a soft one in its
   place, through which gradients pass (section 2.2, equation 4):

       y^ = softmax(beta (o + g)),      beta = beta_max ^ (n / N)  at step n of N

   Small beta: soft tokens, gradients with little noise, many sentences tried. Large beta: nearly tokens.

3. The discriminator sees a sentence in S ways (section 2.3): tokens are embedded S times, each way goes
   through the same convolutions, and the loss is the mean over all of the relativistic game (RSGAN,
   arXiv 1807.00734), equation 6:

       loss_D = mean_s -log sigmoid(D(x_s) - D(y_s)),     loss_G with real and fake exchanged

The run has two stages: likelihood, then the game, with `critic_steps` of D for each of the generator.

Where this goes beyond the paper or leaves it:
- N is the number of steps that the run has in its second stage; in the authors' code it is 5,000 however
  long the run is.
- What the generator reads next is the token y, not the soft one, as in the authors' code.
- Gradients are not clipped (the authors' code clips their norm at 5).
- Behind a sentence's end the soft tokens are the end, exactly, and carry no gradient.
- Samples are made with averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.optim import Adam
from faussaire.core.phase import Phase, Stage, stage_at
from faussaire.texts.convolutional import Highway, Phrases
from faussaire.texts.corpus import TextData
from faussaire.texts.recurrent import following
from faussaire.texts.tokens import END, TextSpec
from faussaire.texts.writing import Writer

#: Widths of the discriminator's filters, and how many there are of each: appendix of the paper.
FILTERS = tuple((width, 300) for width in range(2, 6))
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class RelGANConfig:
    """Settings of RelGAN.

    Attributes:
        embedding: numbers that stand for a token in the generator.
        slots: of the memory.
        heads: of its attention.
        head_size: numbers in a head; a slot has heads times as many.
        representations: ways in which the discriminator sees a sentence, S.
        representation_size: numbers that stand for a token in each of them.
        filters: how many filters the discriminator has, as a share of the paper's 1,200.
        dropout: share of the discriminator's features that training drops.
        beta: beta_max, how nearly soft tokens are tokens in the end. The paper's 100 gives more variety
            on real texts, its 1000 more quality; 1 is for its synthetic data.
        likelihood_share: share of the run's examples for the first stage.
        critic_steps: of the discriminator for each of the generator.
        lr: Adam's rate of the generator in the first stage.
        adversarial_lr: Adam's rate of the generator in the game.
        discriminator_lr: Adam's rate of the discriminator.
        temperature: of samples, where none is asked for: 1 is what was learnt, less is more typical.
    """

    Data: ClassVar[type] = TextData

    embedding: int = 32
    slots: int = 1
    heads: int = 2
    head_size: int = 256
    representations: int = 64
    representation_size: int = 1
    filters: float = 1.0
    dropout: float = 0.25
    beta: float = 100.0
    likelihood_share: float = 0.5
    critic_steps: int = 5
    lr: float = 1e-2
    adversarial_lr: float = 1e-4
    discriminator_lr: float = 1e-4
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, embedding=(1, 65536), slots=(1, 1024), heads=(1, 1024))
        check_range(self, head_size=(1, 65536), representations=(1, 65536), filters=(0.01, 100))
        check_range(self, representation_size=(1, 65536), dropout=(0, 0.95), beta=(1, 1e6))
        check_range(self, likelihood_share=(0, 1), critic_steps=(1, 1000), temperature=(0, 100))
        check_range(self, lr=(0, None), adversarial_lr=(0, None), discriminator_lr=(0, None))


class Memory(nn.Module):
    """Relational memory: slots (N, S, C) and what is read (N, E) to slots (N, S, C)."""

    def __init__(self, embedding: int, slots: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.slots, self.heads = slots, heads
        self.size = size = heads * head_size
        self.read = nn.Linear(embedding, size)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.attended, self.thought = nn.LayerNorm(size), nn.LayerNorm(size)
        self.think = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU()
        )
        self.gates_read = nn.Linear(size, 2 * size)
        self.gates_memory = nn.Linear(size, 2 * size, bias=False)

    def initial(self, count: int, like: Tensor) -> Tensor:
        """Slots that differ: the first rows of a unit matrix, (count, S, C)."""
        unit = torch.eye(self.slots, self.size, dtype=like.dtype, device=like.device)
        return unit.expand(count, -1, -1)

    def forward(self, memory: Tensor, x: Tensor) -> Tensor:
        seen = self.read(x)[:, None]  # (N, 1, C)
        everything = torch.cat([memory, seen.to(memory.dtype)], dim=1)
        query, key, value = (
            layer(rows)
            .unflatten(2, (self.heads, -1))
            .transpose(1, 2)  # (N, heads, rows, C / heads)
            for layer, rows in (
                (self.query, memory),
                (self.key, everything),
                (self.value, everything),
            )
        )
        answer = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended = self.attended(memory + answer)
        thought = self.thought(attended + self.think(attended))
        gates = self.gates_read(seen) + self.gates_memory(memory.tanh())
        begin, keep = gates.chunk(2, dim=2)
        return torch.sigmoid(begin) * thought.tanh() + torch.sigmoid(keep + 1.0) * memory


class Generator(nn.Module):
    """Tokens (N, T), the first `spec.begin`, to logits of what follows each, and the memory."""

    def __init__(self, config: RelGANConfig, spec: TextSpec) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.size + 1, config.embedding)
        self.memory = Memory(config.embedding, config.slots, config.heads, config.head_size)
        self.predict = nn.Linear(config.slots * self.memory.size, spec.size)

    def forward(self, tokens: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.embed(tokens)
        memory = self.memory.initial(len(x), x) if states is None else states
        found = []
        for step in range(x.shape[1]):
            memory = self.memory(memory, x[:, step])
            found.append(memory.flatten(1))
        return self.predict(torch.stack(found, dim=1)), memory


class Discriminator(nn.Module):
    """Tokens (N, T), or soft ones (N, T, V), to logits (N, S): one for each way of seeing them."""

    def __init__(self, config: RelGANConfig, spec: TextSpec) -> None:
        super().__init__()
        self.ways, self.each = config.representations, config.representation_size
        filters = [(width, max(1, round(config.filters * count))) for width, count in FILTERS]
        self.embed = nn.Linear(spec.size, self.ways * self.each, bias=False)
        self.phrases = Phrases(self.each, filters, spec.length)
        self.highway = Highway(self.phrases.size)
        self.drop = nn.Dropout(config.dropout)
        # Of two answers only the difference counts, so no bias behind the last bend would do anything.
        self.features = nn.Linear(self.phrases.size, 100, bias=False)
        self.classify = nn.Linear(100, 1, bias=False)
        nn.init.uniform_(self.embed.weight, -1.0, 1.0)

    def forward(self, tokens: Tensor) -> Tensor:
        soft = tokens.is_floating_point()
        x = self.embed(tokens) if soft else F.embedding(tokens, self.embed.weight.T)
        x = x.unflatten(2, (self.ways, self.each)).permute(0, 2, 3, 1)  # (N, S, E, T)
        found = self.drop(self.highway(self.phrases(x.flatten(0, 1))))
        return self.classify(self.features(found)).view(len(tokens), self.ways)


class RelGAN(Writer[RelGANConfig]):
    """A writer with a relational memory, which learns from a discriminator through soft tokens."""

    Config = RelGANConfig
    modality = "texts"
    training: ClassVar = {"batch": 64}
    presets: ClassVar = {
        "oracle": {"beta": 1.0},
    }
    sizes: ClassVar = {
        "tiny": {"head_size": 32, "filters": 0.1, "representations": 8, "representation_size": 4},
        "small": {"head_size": 64, "filters": 0.2, "representations": 16},
        "base": {},
        "large": {"embedding": 128, "head_size": 512},
    }

    def __init__(self, config: RelGANConfig, spec: TextSpec) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }

    # ---- The plan ----

    def optimisers(self) -> dict[str, Adam]:
        config = self.config

        def rate(clock: Clock) -> float:
            return config.lr if self._stage(clock) == "likelihood" else config.adversarial_lr

        def memory(clock: Clock) -> float:
            return 0.999 if self._stage(clock) == "likelihood" else 0.99

        return {
            "generator": Adam(nets=("generator",), lr=rate, betas=(0.9, memory)),
            "discriminator": Adam(
                nets=("discriminator",), lr=config.discriminator_lr, betas=(0.9, 0.999)
            ),
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        likelihood = Phase(name="likelihood", nets=("generator",), loss=self.likelihood)
        generator = Phase(name="generator", nets=("generator",), loss=self.forgery)
        discriminator = Phase(
            name="discriminator",
            nets=("discriminator",),
            loss=self.judgement,
            repeat=self.config.critic_steps,
            fresh=True,
        )
        return (
            Stage(name="likelihood", phases=(likelihood,), until=self._learnt(total)),
            Stage(name="adversarial", phases=(generator, discriminator)),
        )

    def _learnt(self, total: int) -> int:
        return round(self.config.likelihood_share * total)

    def _stage(self, clock: Clock) -> str:
        return stage_at(self.stages(clock.total), clock.examples).name

    def beta(self, clock: Clock) -> float:
        """How nearly soft tokens are tokens now: beta_max ^ (n / N), section 2.2."""
        begin = self._learnt(clock.total)
        share = (clock.examples - begin) / max(1, clock.total - begin)
        return self.config.beta ** min(1.0, max(0.0, share))

    # ---- The players ----

    def forged(self, batch: Batch, clock: Clock) -> Tensor:
        """Sentences of soft tokens, (N, T, V), equation 4."""
        net, spec, beta = self.nets["generator"], self.spec, self.beta(clock)
        before = torch.full((batch.size,), spec.begin, device=batch["tokens"].device)
        end = F.one_hot(torch.tensor(END, device=before.device), spec.size).float()
        states, found = None, []
        for _ in range(spec.length):
            logits, states = net(before[:, None], states)
            gumbel = -(-batch.uniform(spec.size).clamp(min=_TINY).log()).log()
            drawn = logits[:, -1] + gumbel
            token = following(before, drawn.detach().argmax(dim=1), spec)
            soft = (beta * drawn).softmax(dim=1)
            if spec.ends:
                soft = torch.where((before == END)[:, None], end, soft)
            found.append(soft)
            before = token
        return torch.stack(found, dim=1)

    def judgement(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The discriminator's side of equation 6."""
        with torch.no_grad():
            soft = self.forged(batch, clock)
        real = self.nets["discriminator"](batch["tokens"].long())
        fake = self.nets["discriminator"](soft)
        batch.observe({"D(x)": real, "D(G)": fake})
        return {"adversarial": losses.discriminator_relativistic(real, fake)}

    def forgery(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The generator's side of equation 6."""
        real = self.nets["discriminator"](batch["tokens"].long())
        fake = self.nets["discriminator"](self.forged(batch, clock))
        return {"adversarial": losses.generator_relativistic(real, fake)}
