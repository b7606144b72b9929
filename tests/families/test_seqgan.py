"""SeqGAN's stages, rollouts and rewards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from faussaire.core.batch import Batch, BatchDraws
from faussaire.core.clock import Clock
from faussaire.core.errors import UserError
from faussaire.families.seqgan import SeqGAN, SeqGANConfig
from faussaire.texts.recurrent import choose, write
from faussaire.texts.tokens import END, TextSpec

SPEC = TextSpec(vocabulary=("<end>", "<unk>", *"abcdefg"), length=5)
TINY = {"embedding": 6, "hidden": 8, "discriminator_embedding": 6, "filters": 0.02}


def made(spec: TextSpec = SPEC, **settings) -> SeqGAN:
    torch.manual_seed(0)
    family = SeqGAN(SeqGANConfig(**{**TINY, "rollouts": 3, **settings}), spec)
    for parameter in [*family.finisher.parameters(), *family.nets["generator"].parameters()]:
        parameter.data.mul_(8.0)
    return family


def draws(count: int) -> BatchDraws:
    return BatchDraws(0, total=count, rows=slice(0, count))


def test_sentences_are_finished_from_each_place_as_one_by_one():
    family = made()
    tokens = write(family.finisher, SPEC, draws(4))
    chances = torch.rand(4, 3, 5, 5)
    ends = family.finished(tokens, chances).view(4, 4, 3, 5)
    for place in range(4):
        for row in range(4):
            for time in range(3):
                done = tokens[row : row + 1, : place + 1]
                for step in range(place + 1, 5):
                    before = torch.cat([torch.tensor([[SPEC.begin]]), done], 1)
                    logits = family.finisher(before)[0][:, -1]
                    token = choose(logits, chances[row, time, place, step][None])
                    token = torch.where(done[:, -1] == END, END, token)
                    done = torch.cat([done, token[:, None]], 1)
                assert torch.equal(ends[place, row, time], done[0]), (place, row, time)


class CountsA(nn.Module):
    """A discriminator who likes the letter a: logits (N,)."""

    def forward(self, tokens):
        return torch.logit((tokens == 2).float().mean(1).clamp(0.01, 0.99))


def test_a_reward_is_what_the_judge_says_of_the_finished_sentences():
    family = made()
    family.nets["discriminator"] = CountsA()
    tokens = torch.tensor([[2, 2, 2, 2, 2], [3, 0, 0, 0, 0]])
    rewards = family.rewards(tokens, torch.rand(2, 3, 5, 5))
    assert rewards.shape == (2, 5)
    assert rewards[0, 4] == pytest.approx(0.99)
    assert rewards[0, 3] >= 0.8 - 1e-6  # four of five, whatever the last becomes
    assert rewards[1].tolist() == pytest.approx([rewards[1, 0].item(), *[0.01] * 4])


def test_the_policy_learns_what_the_judge_likes():
    family = made()
    family.nets["discriminator"] = CountsA()
    net = family.nets["generator"]
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    shares = []
    for step in range(25):
        rows = BatchDraws(step, total=32, rows=slice(0, 32))
        batch = Batch({"tokens": torch.zeros(32, 5, dtype=torch.int32)}, rows, 32)
        loss = family.policy(batch, Clock(rounds=step, total=100))["reinforce"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        shares.append(float(batch.observed["reward"]))
    assert sum(shares[-5:]) / 5 > sum(shares[:5]) / 5 + 0.3


def test_the_finisher_begins_as_the_generator_and_follows_once_a_round():
    family = made(lag=0.75)
    ours, theirs = family.finisher.embed.weight, family.nets["generator"].embed.weight
    family._follow(Clock(rounds=7))
    assert torch.equal(ours, theirs)
    before = ours.clone()
    theirs.data.add_(1.0)
    family._follow(Clock(rounds=7))
    assert torch.equal(ours, before)
    family._follow(Clock(rounds=8))
    torch.testing.assert_close(ours, before + 0.25)
    other = made()
    other.load_extra_state(family.extra_state())
    assert torch.equal(other.finisher.embed.weight, ours)
    assert int(other.followed) == 8


def test_rates_and_stages_follow_the_clock():
    family = made(likelihood_share=0.5, critic_share=0.25, lr=0.01, policy_lr=0.001)
    stages = family.stages(1000)
    assert [(stage.name, stage.until) for stage in stages] == [
        ("likelihood", 500),
        ("critic", 750),
        ("adversarial", None),
    ]
    assert stages[2].phases[1].repeat == 15
    spec = family.optimisers()["generator"]
    assert spec.settings(Clock(examples=499, total=1000), 1.0)["lr"] == 0.01
    assert spec.settings(Clock(examples=750, total=1000), 1.0)["lr"] == 0.001


def test_the_papers_discriminator():
    spec = TextSpec(vocabulary=tuple(map(str, range(5000))), length=20, ends=False)
    family = SeqGAN(SeqGANConfig(), spec)
    judge = family.nets["discriminator"]
    assert judge.phrases.size == 1720
    widths = [filters.kernel_size[0] for filters in judge.phrases.filters]
    assert widths == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20]
    assert sum(p.numel() for p in family.nets["generator"].lstm.parameters()) == 8 * 32 * 33
    assert made().nets["discriminator"].phrases.size < 1720 * 0.03  # widths above 5 are left out


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="rollouts cannot be 0"):
        SeqGANConfig(rollouts=0)
    with pytest.raises(UserError, match="temperature of -1"):
        made().sample(draws(2), truncation=-1.0)
