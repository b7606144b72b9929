"""SeqGAN: sentences as decisions, one token after the other, rewarded by a discriminator.

SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient. Lantao Yu, Weinan Zhang, Jun Wang,
Yong Yu. 2017. AAAI. arXiv 1609.05473.

A token is no number that could be moved a little, so no gradient leads from the discriminator through
a sentence to the generator. SeqGAN takes the generator as a policy, and what the discriminator D says
of the whole sentence as its reward at the end (equations 1 and 2). What a token on the way is worth is
found by finishing the sentence several times (Monte-Carlo rollouts, equation 4):

    Q(y_1..t-1, y_t) = 1/N sum_n D(finished_n(y_1..t))   for t < T,      D(y_1..T)   for t = T

and the generator follows REINFORCE (equations 6 to 8; Williams 1992):

    grad J = E sum_t Q(y_1..t-1, y_t) grad log G(y_t | y_1..t-1)

The run has three stages (algorithm 1): `likelihood` trains the generator as a language model; `critic`
trains D on sentences of that generator; `adversarial` plays one generator step, then `critic_steps` of
D. The generator that finishes sentences, G_beta, follows behind the one that learns, by `lag`.

Networks (appendix): an LSTM with 32 numbers a token and in the state, weights from N(0, 0.1); D has
convolutions of widths 1 to 10, 15 and 20 over time, the largest answer of each filter, one highway
layer, dropout .25, and 0.2 times half the squared norm of its last layer in its loss (equations 10 and
11).

Where this goes beyond the paper or leaves it:
- A token's reward is what it adds: Q(y_1..t-1, y_t) less Q of what stood before it, which other rollouts
  have told already, and which no choice of y_t changes. The expected gradient stays, its noise
  shrinks. `baseline="mean"` takes off the batch's mean at the place t instead.
- D sees new fakes at every step. In the paper's code it goes three times through each of five sets of
  10,000, which is 4,690 steps of 64 for each step of the generator.
- Likelihood and policy share Adam's moments; while the policy moves, the second one forgets within a
  hundred steps, for its gradients are of another size.
- Behind a sentence's end nothing is decided, so nothing is rewarded.
- Samples are made with averaged weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch
from faussaire.core.clock import Clock
from faussaire.core.config import check_range
from faussaire.core.optim import Adam
from faussaire.core.phase import Phase, Stage, stage_at
from faussaire.texts.convolutional import Highway, Phrases, judging
from faussaire.texts.corpus import TextData
from faussaire.texts.recurrent import Recurrent, choose, following, per_token
from faussaire.texts.tokens import TextSpec
from faussaire.texts.writing import Writer

#: Widths of the discriminator's filters, and how many there are of each: table 4 of the paper.
FILTERS = (
    (1, 100),
    *((width, 200) for width in range(2, 6)),
    *((width, 100) for width in range(6, 11)),
    (15, 160),
    (20, 160),
)


@dataclass(frozen=True, kw_only=True)
class SeqGANConfig:
    """Settings of SeqGAN.

    Attributes:
        embedding: numbers that stand for a token in the generator.
        hidden: numbers in the generator's state.
        discriminator_embedding: numbers that stand for a token in the discriminator.
        filters: how many filters the discriminator has, as a share of the paper's 1,720.
        widest: filters of the discriminator, in tokens; wider ones are left out. The paper's go to 20.
        dropout: share of the discriminator's features that training drops.
        l2: weight of half the squared norm of the discriminator's last layer in its loss.
        likelihood_share: share of the run's examples for the first stage.
        critic_share: share of the run's examples for the discriminator's pretraining.
        critic_steps: of the discriminator for each of the generator.
        rollouts: how often a sentence is finished from each place, to tell what its beginning is worth.
        baseline: what is taken off a token's worth: the worth of what stood before it (`prefix`), or the
            batch's `mean` at its place, or, as in equation 8, nothing (`none`).
        lag: how much of the older weights the generator that finishes sentences keeps, each round.
        lr: Adam's rate of the generator in the first stage.
        policy_lr: Adam's rate of the generator in the game.
        discriminator_lr: Adam's rate of the discriminator.
        temperature: of samples, where none is asked for: 1 is what was learnt, less is more typical.
    """

    Data: ClassVar[type] = TextData

    embedding: int = 32
    hidden: int = 32
    discriminator_embedding: int = 64
    filters: float = 1.0
    widest: int = 20
    dropout: float = 0.25
    l2: float = 0.2
    likelihood_share: float = 0.4
    critic_share: float = 0.2
    critic_steps: int = 15
    rollouts: int = 16
    baseline: Literal["prefix", "mean", "none"] = "prefix"
    lag: float = 0.8
    lr: float = 1e-2
    policy_lr: float = 1e-3
    discriminator_lr: float = 1e-4
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, embedding=(1, 65536), hidden=(1, 65536), filters=(0.01, 100))
        check_range(self, discriminator_embedding=(1, 65536), dropout=(0, 0.95), l2=(0, None))
        check_range(self, likelihood_share=(0, 1), critic_share=(0, 1), critic_steps=(1, 100_000))
        check_range(self, widest=(1, 20), rollouts=(1, 1000), lag=(0, 1), temperature=(0, 100))
        check_range(self, lr=(0, None), policy_lr=(0, None), discriminator_lr=(0, None))


class Discriminator(nn.Module):
    """Sentences (N, T) to logits (N,)."""

    def __init__(self, config: SeqGANConfig, spec: TextSpec) -> None:
        super().__init__()
        size = config.discriminator_embedding
        filters = [
            (width, max(1, round(config.filters * count)))
            for width, count in FILTERS
            if width <= config.widest
        ]
        self.embed = nn.Embedding(spec.size, size)
        self.phrases = Phrases(size, filters, spec.length)
        self.highway = Highway(self.phrases.size)
        self.drop = nn.Dropout(config.dropout)
        self.classify = nn.Linear(self.phrases.size, 1)
        nn.init.uniform_(self.embed.weight, -1.0, 1.0)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).transpose(1, 2)
        return self.classify(self.drop(self.highway(self.phrases(x)))).squeeze(1)


class SeqGAN(Writer[SeqGANConfig]):
    """A language model that goes on learning from what a discriminator says of its sentences."""

    Config = SeqGANConfig
    modality = "texts"
    training: ClassVar = {"batch": 64}
    presets: ClassVar = {
        "paper": {"policy_lr": 1e-2},
    }
    sizes: ClassVar = {
        "tiny": {"filters": 0.1, "discriminator_embedding": 32, "rollouts": 4},
        "small": {"filters": 0.25, "discriminator_embedding": 32, "rollouts": 8},
        "base": {},
        "large": {"embedding": 128, "hidden": 256},
    }

    def __init__(self, config: SeqGANConfig, spec: TextSpec) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": Recurrent(
                spec, embedding=config.embedding, hidden=config.hidden, scale=0.1
            ),
            "discriminator": Discriminator(config, spec),
        }
        self.finisher = copy.deepcopy(self.nets["generator"]).requires_grad_(False)
        self.followed = torch.tensor(-1)  # the round in which the finisher moved last

    def frozen(self) -> Mapping[str, nn.Module]:
        """The generator that finishes sentences; what it has learnt is extra state."""
        return {"finisher": self.finisher}

    def extra_state(self) -> dict[str, Tensor]:
        weights = {f"finisher/{key}": value for key, value in self.finisher.state_dict().items()}
        return {**weights, "followed": self.followed}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        known = self.finisher.state_dict()
        self.finisher.load_state_dict({key: state[f"finisher/{key}"] for key in known})
        self.followed = state["followed"].clone().cpu()

    # ---- The plan ----

    def optimisers(self) -> dict[str, Adam]:
        config = self.config

        def rate(clock: Clock) -> float:
            return config.lr if self._stage(clock) == "likelihood" else config.policy_lr

        def memory(clock: Clock) -> float:
            return 0.999 if self._stage(clock) == "likelihood" else 0.99

        return {
            "generator": Adam(nets=("generator",), lr=rate, betas=(0.9, memory)),
            "discriminator": Adam(
                nets=("discriminator",), lr=config.discriminator_lr, betas=(0.9, 0.999)
            ),
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        config = self.config
        likelihood = Phase(name="likelihood", nets=("generator",), loss=self.likelihood)
        critic = Phase(name="critic", nets=("discriminator",), loss=self.judgement)
        policy = Phase(name="policy", nets=("generator",), loss=self.policy)
        steps = Phase(
            name="discriminator",
            nets=("discriminator",),
            loss=self.judgement,
            repeat=config.critic_steps,
            fresh=True,
        )
        learnt = round(config.likelihood_share * total)
        judged = learnt + round(config.critic_share * total)
        return (
            Stage(name="likelihood", phases=(likelihood,), until=learnt),
            Stage(name="critic", phases=(critic,), until=judged),
            Stage(name="adversarial", phases=(policy, steps)),
        )

    def _stage(self, clock: Clock) -> str:
        return stage_at(self.stages(clock.total), clock.examples).name

    # ---- The discriminator ----

    def judgement(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Real sentences from the generator's, equation 5; and L2 on the last layer."""
        judge = self.nets["discriminator"]
        tokens = batch["tokens"].long()
        both = judge(torch.cat([tokens, self.written(batch)]))
        real, fake = both[: len(tokens)], both[len(tokens) :]
        batch.observe({"D(x)": real.sigmoid(), "D(G)": fake.sigmoid()})
        last = judge.get_submodule("classify")
        norm = torch.stack([parameter.square().sum() for parameter in last.parameters()]).sum()
        return {
            # Half of each, as the mean over a batch that holds both.
            "adversarial": 0.5 * losses.discriminator_minimax(real, fake),
            "l2": 0.5 * self.config.l2 * norm,
        }

    # ---- The generator ----

    def policy(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """REINFORCE with what sentences are worth that begin so, equation 8, negated."""
        self._follow(clock)
        tokens = self.written(batch)
        rewards = self.rewards(tokens, batch.uniform(self.config.rollouts, *[self.spec.length] * 2))
        batch.observe({"reward": rewards[:, -1]})
        usual = batch.gather(rewards).mean(dim=0)
        if self.config.baseline == "prefix":
            usual = torch.cat([usual[:1].expand(len(rewards), 1), rewards[:, :-1]], dim=1)
        elif self.config.baseline == "none":
            usual = torch.zeros_like(usual)
        loss = per_token(self.surprise(tokens) * (rewards - usual), tokens, self.spec, batch)
        return {"reinforce": loss}

    def _follow(self, clock: Clock) -> None:
        """Move the finisher after the generator, once a round; at first to where that stands."""
        if int(self.followed) == clock.rounds:
            return
        keep = self.config.lag if int(self.followed) >= 0 else 0.0
        with torch.no_grad():
            pairs = zip(
                self.finisher.parameters(), self.nets["generator"].parameters(), strict=True
            )
            for ours, theirs in pairs:
                ours.lerp_(theirs, 1.0 - keep)
        self.followed = torch.tensor(clock.rounds)

    @torch.no_grad()
    def rewards(self, tokens: Tensor, chances: Tensor) -> Tensor:
        """What each token is worth, in [0, 1]: Q(y_1..t-1, y_t), equation 4.

        Args:
            tokens: sentences, (N, T).
            chances: uniform in [0, 1), (N, rollouts, T, T).

        Returns:
            (N, T).
        """
        count, length = tokens.shape
        times = self.config.rollouts
        judge = self.nets["discriminator"]
        ends = self.finished(tokens, chances)
        with judging(judge):
            ahead = judge(ends).sigmoid().view(length - 1, count, times).mean(dim=2)
            whole = judge(tokens).sigmoid()
        return torch.cat([ahead.T, whole[:, None]], dim=1)

    def finished(self, tokens: Tensor, chances: Tensor) -> Tensor:
        """Sentences (N, T) finished anew from each place but the last: ((T - 1) N rollouts, T).

        All that are under way go a token forward together: at step s those that were taken from the
        sentences at the places before s.
        """
        length = tokens.shape[1]
        times = self.config.rollouts
        if length == 1:
            return tokens[:0]
        chances = chances.flatten(0, 1)  # (N rollouts, T, T): place of departure, step
        rows = tokens.repeat_interleave(times, dim=0)
        under_way, states = rows[:0, :1], None
        _, along = self.finisher(torch.full_like(tokens[:, :1], self.spec.begin))
        for step in range(length - 1):
            logits, along = self.finisher(tokens[:, step : step + 1], along)
            ahead = logits[:, -1].repeat_interleave(times, dim=0)
            departing = tuple(state.repeat_interleave(times, dim=1) for state in along)
            if states is None:
                states = departing
            else:
                logits, states = self.finisher(under_way[:, -1:], states)
                ahead = torch.cat([logits[:, -1], ahead])
                both = zip(states, departing, strict=True)
                states = tuple(torch.cat(pair, dim=1) for pair in both)
            under_way = torch.cat([under_way, rows[:, : step + 1]])
            drawn = choose(ahead, chances[:, : step + 1, step + 1].T.flatten())
            token = following(under_way[:, -1], drawn, self.spec)
            under_way = torch.cat([under_way, token[:, None]], dim=1)
        return under_way
