"""Drawing tokens, and what counts of a sentence."""

from __future__ import annotations

import pytest
import torch

from faussaire.core.batch import Batch, BatchDraws, RowDraws
from faussaire.texts.recurrent import (
    Recurrent,
    choose,
    counted,
    following,
    per_token,
    shifted,
    surprise,
    write,
)
from faussaire.texts.tokens import TextSpec

SPEC = TextSpec(vocabulary=("<end>", "<unk>", "a", "b"), length=5)


def net(spec: TextSpec = SPEC) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(spec, embedding=4, hidden=6, layers=2, scale=1.0)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature):
    logits = torch.tensor([[0.0, 1.0, -2.0, 2.5, -float("inf")]])
    chances = (torch.arange(10_000) + 0.5) / 10_000
    found = choose(logits.expand(10_000, -1), chances, temperature).bincount(minlength=5) / 10_000
    torch.testing.assert_close(found, (logits[0] / temperature).softmax(0), atol=2e-4, rtol=0)


def test_the_last_chance_below_one_is_a_token_and_temperature_0_takes_the_likeliest():
    logits = torch.randn(3, 1000)
    assert choose(logits, torch.full((3,), 1.0 - 2.0**-24)).max() < 1000
    assert torch.equal(choose(logits, torch.rand(3), 0.0), logits.argmax(1))


def test_step_by_step_is_as_all_at_once():
    tokens = torch.tensor([[2, 3, 2, 0, 0], [3, 3, 3, 3, 3]])
    whole, _ = net()(shifted(tokens, SPEC.begin))
    states, parts = None, []
    model = net()
    for step in range(5):
        logits, states = model(shifted(tokens, SPEC.begin)[:, step : step + 1], states)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_what_is_written_has_the_probabilities_that_the_network_gives():
    short = TextSpec(vocabulary=SPEC.vocabulary, length=2)
    model = net(short)
    rows = write(model, short, BatchDraws(0, total=20_000, rows=slice(0, 20_000)))
    seen = (rows[:, 0] * 4 + rows[:, 1]).bincount(minlength=16) / len(rows)
    assert seen[1:4].sum() == 0  # behind an end there is an end
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    nats = surprise(model(shifted(pairs, short.begin))[0], pairs)
    likely = (-(nats * counted(pairs, short)).sum(1)).exp()
    likely[1:4] = 0.0
    torch.testing.assert_close(likely.sum(), torch.tensor(1.0))
    assert (seen - likely).abs().max() < 0.015


def test_a_row_depends_on_its_own_draws_alone():
    model = net()
    few = write(model, SPEC, RowDraws.counted(3, 2))
    assert torch.equal(write(model, SPEC, RowDraws.counted(3, 8))[:2], few)


def test_tokens_count_up_to_the_end():
    tokens = torch.tensor([[2, 0, 0], [0, 0, 0], [2, 3, 2]])
    spec = TextSpec(vocabulary=SPEC.vocabulary, length=3)
    assert counted(tokens, spec).tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    endless = TextSpec(vocabulary=SPEC.vocabulary, length=3, ends=False)
    assert counted(tokens, endless).sum() == 9
    assert following(torch.tensor([0, 2]), torch.tensor([3, 3]), spec).tolist() == [0, 3]
    assert following(torch.tensor([0, 2]), torch.tensor([3, 3]), endless).tolist() == [3, 3]
    batch = Batch({}, BatchDraws(0, total=3, rows=slice(0, 3)), 3)
    numbers = torch.tensor([[1.0, 2.0, 100.0], [3.0, 100.0, 100.0], [4.0, 5.0, 6.0]])
    assert float(per_token(numbers, tokens, spec, batch)) == pytest.approx(21 / 6)
