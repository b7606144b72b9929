"""RelGAN's memory, soft tokens and ways of seeing."""

from __future__ import annotations

import pytest
import torch

from faussaire.core.batch import Batch, BatchDraws
from faussaire.core.clock import Clock
from faussaire.families.relgan import Memory, RelGAN, RelGANConfig
from faussaire.texts.recurrent import shifted
from faussaire.texts.tokens import END, TextSpec

SPEC = TextSpec(vocabulary=("<end>", "<unk>", *"abcdefg"), length=6)
TINY = {
    **{"embedding": 6, "head_size": 4, "slots": 3, "representations": 5, "representation_size": 2},
    "filters": 0.02,
}


def made(**settings) -> RelGAN:
    torch.manual_seed(0)
    return RelGAN(RelGANConfig(**{**TINY, **settings}), SPEC)


def batch(count: int = 8) -> Batch:
    tokens = torch.randint(1, 9, (count, 6), generator=torch.Generator().manual_seed(1)).int()
    return Batch({"tokens": tokens}, BatchDraws(0, total=count, rows=slice(0, count)), count)


def test_step_by_step_is_as_all_at_once():
    net, tokens = made().nets["generator"], batch()["tokens"].long()
    whole, memory = net(shifted(tokens, SPEC.begin))
    assert whole.shape == (8, 6, 9)
    assert memory.shape == (8, 3, 8)
    states, parts = None, []
    for step in range(6):
        logits, states = net(shifted(tokens, SPEC.begin)[:, step : step + 1], states)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_memory_attends_to_its_slots_and_to_what_it_reads():
    torch.manual_seed(0)
    memory = Memory(6, slots=3, heads=2, head_size=4)
    begin = memory.initial(2, torch.zeros(1))
    assert torch.equal(begin[0], torch.eye(3, 8))
    for layer in (
        memory.query,
        memory.key,
    ):  # even attention: each slot gets the mean of all values
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 6)
    everything = torch.cat([begin, memory.read(x)[:, None]], dim=1)
    mean = memory.value(everything).mean(dim=1, keepdim=True)
    attended = memory.attended(begin + mean)
    thought = memory.thought(attended + memory.think(attended)).tanh()
    gates = memory.gates_read(memory.read(x)[:, None]) + memory.gates_memory(begin.tanh())
    wanted = gates[..., :8].sigmoid() * thought + (gates[..., 8:] + 1.0).sigmoid() * begin
    torch.testing.assert_close(memory(begin, x), wanted)


def test_soft_tokens_become_tokens_as_beta_grows():
    clock = Clock(examples=1000, total=1000)
    soft, hard = (made(beta=beta).forged(batch(), clock) for beta in (1.0, 1e6))
    torch.testing.assert_close(soft.sum(2), torch.ones(8, 6))
    assert torch.equal(soft.argmax(2), hard.argmax(2))  # the same token is drawn
    torch.testing.assert_close(hard.amax(2), torch.ones(8, 6), atol=1e-3, rtol=0)
    family = made(beta=100.0, likelihood_share=0.5)
    betas = [family.beta(Clock(examples=seen, total=1000)) for seen in (0, 500, 750, 1000)]
    assert betas == pytest.approx([1.0, 1.0, 10.0, 100.0])


def test_behind_an_end_there_are_ends_without_gradient():
    family = made()
    family.nets["generator"].predict.bias.data[END] = 1.0
    soft = family.forged(batch(64), Clock())
    ended = (soft.detach().argmax(2) == END).cumsum(1).roll(1, 1)
    ended[:, 0] = 0
    behind = ended > 0
    assert behind.any()
    assert (soft[behind] == torch.eye(9)[END]).all()
    assert (soft[~behind].detach().amax(1) < 1.0).all()


def test_tokens_and_soft_tokens_are_seen_alike():
    judge = made(dropout=0.0).nets["discriminator"]
    tokens = batch()["tokens"].long()
    seen = judge(tokens)
    assert seen.shape == (8, 5)
    torch.testing.assert_close(judge(torch.nn.functional.one_hot(tokens, 9).float()), seen)


def test_each_way_of_seeing_judges_by_its_own_embedding():
    judge = made(dropout=0.0).nets["discriminator"]
    tokens = batch()["tokens"].long()
    before = judge(tokens)
    judge.embed.weight.data[2:4].add_(1.0)  # the second way, of two numbers
    changed = (judge(tokens) != before).any(dim=0)
    assert changed.tolist() == [False, True, False, False, False]


def test_the_papers_networks():
    spec = TextSpec(vocabulary=tuple(map(str, range(5000))), length=20, ends=False)
    family = RelGAN(RelGANConfig(), spec)
    generator, judge = family.nets["generator"], family.nets["discriminator"]
    assert generator.predict.weight.shape == (5000, 512)
    assert judge.embed.weight.shape == (64, 5000)
    assert judge.phrases.size == 1200
    assert family.stages(100)[1].phases[1].repeat == 5
