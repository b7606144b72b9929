"""Does a game make a better writer than likelihood alone? On a language whose probabilities are known.

    python benchmarks/text_oracle.py [--oracle small|drawn|FILE.npz] [--family seqgan|relgan]
        [--examples 10000] [--epochs 60] [--critic 1000] [--rounds 150] [--seed 0] [--set KEY=VALUE ...]
        [--keep FILE | --begin FILE]

SeqGAN's measurement (Yu et al. 2017, arXiv 1609.05473, section 4). An oracle, an LSTM with weights from
N(0, 1), writes `examples` sentences to learn from and as many as that again to be tested with. `small`
has 500 tokens and sentences of 12, `drawn` 5,000 and 20 as in the paper; a file is the authors' own
oracle (`target_params.npz`).

1. Maximum likelihood for `epochs`. Half an epoch is measured at a time on 1,000 sentences held out,
   and the weights that were best there are the baseline, and what the game begins with.
2. `critic` steps of the discriminator (seqgan).
3. `rounds` of the game.

NLL_oracle: nats a token that the oracle gives to the model's sentences: quality. NLL_gen: nats a token
that the model gives to the oracle's: variety. Both less is better, and what counts is both: cooling any
model lowers the first and raises the second, so the baseline is given at several temperatures, too.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from faussaire.core.batch import mix
from faussaire.core.config import resolve
from faussaire.core.device import Device, keep_memory
from faussaire.core.distributed import World
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.families import load_family
from faussaire.texts.convolutional import judging
from faussaire.texts.corpus import Corpus, TextData
from faussaire.texts.judge import nll_gen, sampled
from faussaire.texts.oracle import Oracle

MEASURED = 4000
TEMPERATURES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)


def opened(name: str, seed: int) -> Oracle:
    """The oracle of a name."""
    if name == "small":
        return Oracle.drawn(seed=seed, vocabulary=500, length=12)
    return Oracle.drawn(seed=seed) if name == "drawn" else Oracle.published(name)


class Bench:
    """One run, measured as it goes."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.oracle = opened(arguments.oracle, 0)
        spec, count = self.oracle.spec, arguments.examples
        wrote = self.oracle.write(count + 1000 + MEASURED, seed=arguments.seed)
        self.train = Corpus.of_tokens(wrote[:count], spec)
        self.held, self.test = wrote[count : count + 1000], wrote[count + 1000 :]
        random = np.random.default_rng(0).integers(spec.size, size=(1000, spec.length))
        print(" ".join(sys.argv))
        print(f"oracle {arguments.oracle}: {spec.size} tokens, sentences of {spec.length}")
        print(f"NLL_oracle of itself {self.oracle.nll(self.test).mean():.3f}", end=", ")
        print(f"of uniform noise {self.oracle.nll(random).mean():.3f}", flush=True)
        family = load_family(arguments.family)
        given = dict(each.split("=", 1) for each in arguments.set)
        config = resolve(arguments.family, "oracle", family.Config, given).model
        self.batch = 64
        learnt = arguments.epochs * count // self.batch * self.batch
        judged = arguments.critic * self.batch
        played = arguments.rounds * self.batch * (1 + config.critic_steps)
        total = learnt + judged + played
        shares = {"likelihood_share": learnt / total}
        if hasattr(config, "critic_share"):
            shares["critic_share"] = judged / total
        config = dataclasses.replace(config, **shares)
        torch.manual_seed(mix("weights", arguments.seed))
        device = Device(name="cpu", precision="float32")
        self.state = State(family(config, spec), device, total=total)
        stream = self.train.stream(TextData(holdout=0.0), seed=arguments.seed, rank=0, world=1)
        self.playing = Rounds(
            self.state, stream, Plan(batch=self.batch, seed=arguments.seed), World()
        )
        self.began = time.process_time()

    def measure(self, temperature: float | None = None) -> tuple[float, float, float]:
        """NLL_oracle, its standard error, and NLL_gen."""
        family = self.state.family
        found = self.oracle.nll(sampled(family, MEASURED, seed=1, temperature=temperature))
        error = float(found.std()) / len(found) ** 0.5
        return float(found.mean()), error, nll_gen(family, self.test, temperature=temperature)

    def tell(self, what: str, temperature: float | None = None) -> None:
        quality, error, variety = self.measure(temperature)
        spent = time.process_time() - self.began
        signs = self.playing.means.take(World())["signs"]
        rest = "".join(f", {name} {value:.3f}" for name, value in signs.items())
        print(
            f"{what}: NLL_oracle {quality:.3f} +- {error:.3f}, NLL_gen {variety:.3f} "
            f"({spent:.0f} s of processor{rest})",
            flush=True,
        )

    def play(self, stage: str, rounds: int) -> bool:
        """Rounds of a stage; whether it goes on."""
        for _ in range(rounds):
            self.playing.play()
            if self.state.family._stage(self.state.clock) != stage:
                return False
        return True

    def run(self) -> None:
        arguments, state = self.arguments, self.state
        net = state.family.nets["generator"]
        half = arguments.examples // self.batch // 2
        best, kept, when, step = np.inf, None, 0, 0
        going = arguments.epochs > 0
        while going:
            going = self.play("likelihood", half)
            if not going and step:
                break  # a few batches more than the last half epoch
            step += 1
            loss = nll_gen(state.family, self.held)
            if loss < best:
                best, kept, when = loss, copy.deepcopy(net.state_dict()), step
            if step % 20 == 0:
                print(f"epoch {step / 2:g}: held out {loss:.3f}, best {best:.3f}", end="; ")
                self.tell("now")
        if kept is not None:
            self.tell(f"likelihood, at its end (epoch {step / 2:g})")
            net.load_state_dict(kept)
            for temperature in TEMPERATURES:
                self.tell(
                    f"likelihood, best held out (epoch {when / 2:g}), T {temperature}", temperature
                )
        if arguments.begin:
            for name, weights in torch.load(arguments.begin, weights_only=True).items():
                if (
                    name == "generator" or not arguments.critic
                ):  # a critic that is taught begins anew
                    state.family.nets[name].load_state_dict(weights)
            self.tell("as kept")
        going = arguments.critic > 0 and hasattr(state.family.config, "critic_share")
        while going:
            going = self.play("critic", 200)
            signs = self.playing.means.take(World())["signs"]
            print("critic:", {name: round(value, 3) for name, value in signs.items()}, flush=True)
        if arguments.keep:
            nets = state.family.nets.items()
            torch.save({name: one.state_dict() for name, one in nets}, arguments.keep)
        if hasattr(state.family.config, "critic_share"):
            self.agreement()
        for done in range(arguments.every, arguments.rounds + 1, arguments.every):
            self.play("adversarial", arguments.every)
            self.tell(f"adversarial, {done} rounds")
        if hasattr(state.family.config, "critic_share") and arguments.rounds:
            self.agreement()

    @torch.no_grad()
    def agreement(self) -> None:
        """What the discriminator says of sentences that it never saw."""
        family, judge = self.state.family, self.state.family.nets["discriminator"]
        tokens = sampled(family, 1000, seed=2)
        with judging(judge):
            fake, held = judge(tokens), judge(torch.from_numpy(self.held).long())
        likely = -self.oracle.nll(tokens)
        together = float(torch.corrcoef(torch.stack([fake, likely]))[0, 1])
        print(
            f"discriminator: D {held.sigmoid().mean():.3f} of held-out sentences and "
            f"{fake.sigmoid().mean():.3f} of the generator's; its logit's correlation with the oracle's "
            f"log-likelihood {together:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--oracle", default="small")
    parser.add_argument("--family", default="seqgan")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--critic", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--keep", help="where to write the weights before the game")
    parser.add_argument("--begin", help="weights to begin with, as --keep wrote them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[])
    torch.set_num_threads(1)
    keep_memory()
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
