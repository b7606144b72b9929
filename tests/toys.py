"""Toy families, as unlike each other as the field's algorithms are, for proving the engine.

Each runs through the same loop and the whole contract suite. Networks are tiny and data are made
here; the algorithms are whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faussaire import losses
from faussaire.core.batch import Batch, Draws
from faussaire.core.clock import Clock
from faussaire.core.family import Family
from faussaire.core.optim import SGD, Adam, OptimiserSpec
from faussaire.core.phase import Phase, Stage
from faussaire.core.schedule import cosine, linear
from faussaire.data.stream import Stream


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for ins, outs in itertools.pairwise(widths):
        layers += [nn.Linear(ins, outs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def ring(count: int = 512, modes: int = 8) -> dict[str, np.ndarray]:
    """Points (N, 2) on a ring of Gaussians, and the mode each came from as its label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(modes, size=count)
    angles = 2 * np.pi * labels / modes
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = points + 0.05 * rng.normal(size=points.shape)
    return {"points": points.astype(np.float32), "labels": labels}


class PointGAN(Family[Any]):
    """Base of the two-dimensional toys: z (4) -> point (2)."""

    averaged = ("generator",)
    modality = "points"

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.nets = {"generator": mlp(4, 32, 32, 2), "critic": mlp(2, 32, 32, 1)}

    def fake(self, batch: Batch) -> Tensor:
        return self.nets["generator"](batch.normal(4))

    def critic(self, points: Tensor) -> Tensor:
        return self.nets["critic"](points).squeeze(1)

    def sample(
        self, draws: Draws, *, labels: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        return self.nets["generator"](draws.normal(4) if latents is None else latents)

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(4)


class WGANGP(PointGAN):
    """Wasserstein with gradient penalty: five critic steps, each on a fresh batch."""

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        # E[D(x)] - E[D(G(z))] does not depend on a bias at the end.
        self.nets["critic"] = nn.Sequential(mlp(2, 32, 32), nn.SiLU(), nn.Linear(32, 1, bias=False))

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {net: Adam(nets=(net,), lr=linear(1e-3, 0.0), betas=(0.0, 0.9)) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (
            Stage(
                name="adversarial",
                phases=(
                    Phase(name="critic", nets=("critic",), loss=self.critic_loss, repeat=5),
                    Phase(name="generator", nets=("generator",), loss=self.generator_loss),
                ),
            ),
        )

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        real, fake = batch["points"], self.fake(batch).detach()
        penalty = losses.gradient_penalty(self.critic, real, fake, batch.uniform())
        wasserstein = losses.critic_wasserstein(self.critic(real), self.critic(fake))
        return {"wasserstein": wasserstein, "gradient penalty": 10.0 * penalty}

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"wasserstein": losses.generator_wasserstein(self.critic(self.fake(batch)))}


class Lazy(PointGAN):
    """StyleGAN2's rhythm: R1 every 16 rounds, a path-length penalty with tracked mean every 4."""

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.path_mean = torch.zeros(())

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {net: Adam(nets=(net,), lr=2e-3, betas=(0.0, 0.99)) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        generator, critic = ("generator",), ("critic",)
        return (
            Stage(
                name="adversarial",
                phases=(
                    Phase(name="G", nets=generator, loss=self.generator_loss),
                    Phase(name="G path", nets=generator, loss=self.path_loss, every=4),
                    Phase(name="D", nets=critic, loss=self.critic_loss),
                    Phase(name="D r1", nets=critic, loss=self.r1_loss, every=16),
                ),
            ),
        )

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        fake = batch.shared("fake", lambda: self.fake(batch))
        return {"adversarial": losses.generator_nonsaturating(self.critic(fake))}

    def path_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        z = batch.normal(4).requires_grad_(True)
        noise = batch.normal(2)
        (gradient,) = torch.autograd.grad(
            (self.nets["generator"](z) * noise).sum(), z, create_graph=True
        )
        lengths = gradient.norm(dim=1)
        self.path_mean = self.path_mean.lerp(batch.gather(lengths).mean(), 0.01)
        return {"path length": 0.1 * (lengths - self.path_mean).square().mean()}

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        real = self.critic(batch["points"])
        fake = self.critic(batch.shared("fake", lambda: self.fake(batch)).detach())
        batch.observe({"D(x)": real.sigmoid(), "D(G(z))": fake.sigmoid()})
        return {"adversarial": losses.discriminator_minimax(real, fake)}

    def r1_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"r1": 0.1 * losses.zero_centred_penalty(self.critic, batch["points"])}

    def extra_state(self) -> dict[str, Tensor]:
        return {"path mean": self.path_mean}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        self.path_mean = state["path mean"]


class Conditional(PointGAN):
    """Class-conditional, trained on draws that the stream owns: `BalancedStream`."""

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.nets = {"generator": mlp(4 + 8, 32, 2), "critic": mlp(2 + 8, 32, 1)}

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {net: Adam(nets=(net,), lr=cosine(2e-3, 1e-3, examples=4000)) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (
            Stage(
                name="adversarial",
                phases=(
                    Phase(name="D", nets=("critic",), loss=self.critic_loss),
                    Phase(name="G", nets=("generator",), loss=self.generator_loss, fresh=True),
                ),
            ),
        )

    def judge(self, points: Tensor, labels: Tensor) -> Tensor:
        return self.nets["critic"](torch.cat([points, F.one_hot(labels, 8)], 1)).squeeze(1)

    def forge(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.nets["generator"](torch.cat([z, F.one_hot(labels, 8)], 1))

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        labels = batch["labels"]
        fake = self.forge(batch.normal(4), labels).detach()
        real = self.judge(batch["points"], labels)
        return {"least squares": losses.discriminator_least_squares(real, self.judge(fake, labels))}

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        labels = batch["labels"]
        fake = self.judge(self.forge(batch.normal(4), labels), labels)
        return {"least squares": losses.generator_least_squares(fake)}

    def sample(
        self, draws: Draws, *, labels: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        labels = draws.integers(8) if labels is None else labels
        return self.forge(draws.normal(4) if latents is None else latents, labels)


class BalancedStream:
    """Training by sampling: a class is drawn first, by the log of its count, then a row of it."""

    def __init__(self, table: dict[str, np.ndarray], *, rank: int = 0, world: int = 1) -> None:
        self.table, self.rank, self.world = table, rank, world
        self.rows = [np.flatnonzero(table["labels"] == label) for label in range(8)]
        weights = np.log([len(rows) + 1.0 for rows in self.rows])
        self.shares = weights / weights.sum()

    def read(self, position: int, count: int) -> dict[str, np.ndarray]:
        rng = np.random.Generator(np.random.Philox(key=[7, position]))
        labels = rng.choice(8, size=count, p=self.shares)
        picks = np.array([rng.choice(self.rows[label]) for label in labels])
        share = count // self.world
        own = picks[self.rank * share : (self.rank + 1) * share]
        return {name: values[own] for name, values in self.table.items()}


class Cycle(Family[Any]):
    """CycleGAN on two clouds of points, with the pool of past fakes (Shrivastava 2017)."""

    modality = "points"
    averaged = ("a to b",)
    slots = 16

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.nets = {
            "a to b": mlp(2, 32, 2),
            "b to a": mlp(2, 32, 2),
            "judge a": mlp(2, 32, 1),
            "judge b": mlp(2, 32, 1),
        }
        self.pool = {side: torch.zeros(self.slots, 2) for side in "ab"}
        self.filled = torch.zeros(2, dtype=torch.int64)

    def optimisers(self) -> dict[str, OptimiserSpec]:
        rate = linear(1e-3, 0.0, begin=0.5)
        return {
            "generators": Adam(nets=("a to b", "b to a"), lr=rate),
            "judges": Adam(nets=("judge a", "judge b"), lr=rate),
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (
            Stage(
                name="adversarial",
                phases=(
                    Phase(name="generators", nets=("a to b", "b to a"), loss=self.generator_loss),
                    Phase(name="judges", nets=("judge a", "judge b"), loss=self.judge_loss),
                ),
            ),
        )

    def translate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.shared(
            "fakes", lambda: (self.nets["b to a"](batch["b"]), self.nets["a to b"](batch["a"]))
        )

    def generator_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        fake_a, fake_b = self.translate(batch)
        judged = torch.cat([self.nets["judge a"](fake_a), self.nets["judge b"](fake_b)])
        there_and_back = (self.nets["b to a"](fake_b) - batch["a"]).abs().mean()
        back_and_there = (self.nets["a to b"](fake_a) - batch["b"]).abs().mean()
        same = (self.nets["a to b"](batch["b"]) - batch["b"]).abs().mean()
        return {
            "adversarial": losses.generator_least_squares(judged),
            "cycle": 10.0 * (there_and_back + back_and_there),
            "identity": 5.0 * same,
        }

    def remember(self, side: int, fakes: Tensor, batch: Batch) -> Tensor:
        """Half of the fakes are swapped for old ones; every process keeps the same pool."""
        pool = self.pool["ab"[side]]
        rows = batch.gather(fakes).clone()
        chances = batch.gather(batch.uniform(2))
        for row, (swap, where) in zip(rows, chances.tolist(), strict=True):
            filled = int(self.filled[side])
            if filled < self.slots:
                pool[filled] = row
                self.filled[side] += 1
            elif swap < 0.5:
                slot = int(where * self.slots)
                old = pool[slot].clone()
                pool[slot] = row
                row.copy_(old)
        return batch.own(rows)

    def judge_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        terms = {}
        for side, fakes in enumerate(self.translate(batch)):
            judge = self.nets[f"judge {'ab'[side]}"]
            old = self.remember(side, fakes.detach(), batch)
            real = judge(batch["ab"[side]])
            terms["ab"[side]] = losses.discriminator_least_squares(real, judge(old))
        return terms

    def extra_state(self) -> dict[str, Tensor]:
        return {"pool a": self.pool["a"], "pool b": self.pool["b"], "filled": self.filled}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        self.pool = {"a": state["pool a"], "b": state["pool b"]}
        self.filled = state["filled"]

    def sample(
        self, draws: Draws, *, labels: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        return self.nets["a to b"](draws.normal(2) if latents is None else latents)


class SequenceGenerator(nn.Module):
    """A GRU language model over `vocabulary` tokens; token 0 also starts every sequence."""

    def __init__(self, vocabulary: int, hidden: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.cell = nn.GRUCell(hidden, hidden)
        self.predict = nn.Linear(hidden, vocabulary)
        self.hidden = hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probabilities (N, T, V) of each token given those before it; tokens (N, T)."""
        state = torch.zeros(len(tokens), self.hidden)
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], dim=1)
        out = []
        for step in range(tokens.shape[1]):
            state = self.cell(self.embed(before[:, step]), state)
            out.append(self.predict(state))
        return torch.stack(out, dim=1).log_softmax(-1)


class SequenceCritic(nn.Module):
    """Tokens (N, T) to logits (N,)."""

    def __init__(self, vocabulary: int, hidden: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.convolve = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.classify = nn.Linear(hidden, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        features = self.convolve(self.embed(tokens).transpose(1, 2)).relu().amax(dim=2)
        return self.classify(features).squeeze(1)


class Sequences(Family[Any]):
    """SeqGAN: likelihood, then the critic, then REINFORCE with Monte-Carlo rollouts, in stages."""

    modality = "tokens"
    averaged = ()
    vocabulary, length, rollouts = 6, 4, 1

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": SequenceGenerator(self.vocabulary),
            "critic": SequenceCritic(self.vocabulary),
        }

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {
            "generator": Adam(nets=("generator",), lr=5e-3, betas=(0.9, 0.999)),
            "critic": Adam(nets=("critic",), lr=1e-3, betas=(0.9, 0.999)),
        }

    def stages(self, total: int) -> tuple[Stage, ...]:
        likelihood = Phase(name="mle", nets=("generator",), loss=self.likelihood_loss)
        critic = Phase(name="critic", nets=("critic",), loss=self.critic_loss)
        policy = Phase(name="policy", nets=("generator",), loss=self.policy_loss)
        return (
            Stage(name="likelihood", phases=(likelihood,), until=total // 3),
            Stage(name="critic", phases=(critic,), until=total // 2),
            Stage(name="adversarial", phases=(policy, critic)),
        )

    def likelihood_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        tokens = batch["tokens"]
        chosen = self.nets["generator"](tokens).gather(2, tokens[:, :, None])
        return {"nll": -chosen.mean()}

    @torch.no_grad()
    def continue_from(self, tokens: Tensor, chances: Tensor) -> Tensor:
        """Complete (N, t) tokens to (N, T) by sampling; chances (N, T) uniform in [0, 1)."""
        for step in range(tokens.shape[1], self.length):
            padded = F.pad(tokens, (0, self.length - step))
            share = self.nets["generator"](padded)[:, step].exp().cumsum(-1)
            nxt = (share < chances[:, step, None]).sum(-1).clamp(max=self.vocabulary - 1)
            tokens = torch.cat([tokens, nxt[:, None]], dim=1)
        return tokens

    def generate(self, count: int, uniform: Callable[..., Tensor]) -> Tensor:
        start = torch.zeros(count, 0, dtype=torch.int64)
        return self.continue_from(start, uniform(self.length))

    def critic_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        fake = self.generate(batch.size, batch.uniform)
        real = self.nets["critic"](batch["tokens"])
        return {"adversarial": losses.discriminator_minimax(real, self.nets["critic"](fake))}

    def policy_loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        tokens = self.generate(batch.size, batch.uniform)
        rewards = []
        for step in range(1, self.length + 1):
            ends = [
                self.continue_from(tokens[:, :step], batch.uniform(self.length))
                for _ in range(self.rollouts)
            ]
            with torch.no_grad():
                rewards.append(
                    torch.stack([self.nets["critic"](end) for end in ends]).sigmoid().mean(0)
                )
        reward = torch.stack(rewards, dim=1)
        batch.observe({"reward": reward})
        chosen = self.nets["generator"](tokens).gather(2, tokens[:, :, None]).squeeze(2)
        advantage = reward - batch.gather(reward).mean()
        return {"reinforce": -(chosen * advantage).mean()}

    def sample(
        self, draws: Draws, *, labels: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        return self.generate(draws.size, draws.uniform)


class VAE(Family[Any]):
    """One phase, two nets, one optimiser, and a reparametrised draw."""

    modality = "points"
    averaged = ("decoder",)

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.nets = {"encoder": mlp(2, 32, 4), "decoder": mlp(2, 32, 2)}

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {"both": Adam(nets=("encoder", "decoder"), lr=2e-3, betas=(0.9, 0.999))}

    def stages(self, total: int) -> tuple[Stage, ...]:
        return (
            Stage(
                name="elbo",
                phases=(Phase(name="vae", nets=("encoder", "decoder"), loss=self.loss),),
            ),
        )

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        mean, log_variance = self.nets["encoder"](batch["points"]).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * batch.normal(2)
        error = (self.nets["decoder"](z) - batch["points"]).square().sum(dim=1)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return {"reconstruction": 10.0 * error.mean(), "kl": kl.mean()}

    def latents(self, draws: Draws) -> Tensor:
        return draws.normal(2)

    def sample(
        self, draws: Draws, *, labels: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        return self.nets["decoder"](self.latents(draws) if latents is None else latents)


class Canvas(nn.Module):
    """A picture as a network: its pixels are its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Parameter(0.1 * torch.randn(1, 3, 12, 12))

    def forward(self) -> Tensor:
        return self.pixels


class Painting(Family[Any]):
    """Style transfer: the only net is the picture; Gram matrices of a frozen random extractor."""

    modality = "points"
    averaged = ()

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        generator = torch.Generator().manual_seed(3)
        self.filters = torch.randn(8, 3, 3, 3, generator=generator)
        self.content = torch.rand(1, 3, 12, 12, generator=generator)
        self.style = torch.rand(1, 3, 12, 12, generator=generator)
        self.nets = {"picture": Canvas()}

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {"picture": Adam(nets=("picture",), lr=2e-2, betas=(0.9, 0.999))}

    def stages(self, total: int) -> tuple[Stage, ...]:
        paint = Phase(name="paint", nets=("picture",), loss=self.loss)
        return (Stage(name="paint", phases=(paint,)),)

    def features(self, picture: Tensor) -> Tensor:
        return F.conv2d(picture, self.filters).relu()

    def gram(self, picture: Tensor) -> Tensor:
        maps = self.features(picture).flatten(2)
        return maps @ maps.transpose(1, 2) / maps.shape[2]

    def loss(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        picture = self.nets["picture"]()
        return {
            "content": F.mse_loss(self.features(picture), self.features(self.content)),
            "style": F.mse_loss(self.gram(picture), self.gram(self.style)),
            "total variation": 0.01 * picture.diff(dim=-1).square().mean(),
        }

    def sample(
        self, draws: Draws, *, labels: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        return self.nets["picture"]().expand(draws.size, -1, -1, -1)


class Growing(PointGAN):
    """Stages with batches of their own, plain SGD, and dropout, which draws inside a network."""

    def __init__(self, config: Any = None, spec: Any = None) -> None:
        super().__init__(config, spec)
        self.nets = {
            "generator": mlp(4, 32, 2),
            "critic": nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1)),
        }

    def optimisers(self) -> dict[str, OptimiserSpec]:
        return {net: SGD(nets=(net,), lr=0.05, momentum=0.5) for net in self.nets}

    def stages(self, total: int) -> tuple[Stage, ...]:
        phases = (
            Phase(name="D", nets=("critic",), loss=self.critic_loss),
            Phase(name="G", nets=("generator",), loss=self.generator_loss),
        )
        return (
            Stage(name="small", phases=phases, until=total // 2, batch=64),
            Stage(name="large", phases=phases),
        )

    critic_loss = Lazy.critic_loss
    generator_loss = Lazy.generator_loss


@dataclass(frozen=True)
class Toy:
    """A family and the stream it eats."""

    family: Callable[[], Family[Any]]
    stream: Callable[[int, int], Any]


def _points(rank: int, world: int) -> Stream:
    return Stream([ring()], seed=1, rank=rank, world=world)


def _domains(rank: int, world: int) -> Stream:
    points = ring()["points"]
    return Stream(
        [{"a": points[:300]}, {"b": points[300:] @ np.float32([[0, 1], [-1, 0]])}],
        seed=1,
        rank=rank,
        world=world,
    )


def _tokens(rank: int, world: int) -> Stream:
    rng = np.random.default_rng(2)
    starts = rng.integers(6, size=(256, 1))
    return Stream([{"tokens": (starts + np.arange(4)) % 6}], seed=1, rank=rank, world=world)


TOYS = {
    "wgan-gp": Toy(WGANGP, _points),
    "lazy": Toy(Lazy, _points),
    "conditional": Toy(
        Conditional, lambda rank, world: BalancedStream(ring(), rank=rank, world=world)
    ),
    "cycle": Toy(Cycle, _domains),
    "seqgan": Toy(Sequences, _tokens),
    "vae": Toy(VAE, _points),
    "painting": Toy(Painting, _points),
    "growing": Toy(Growing, _points),
}
