"""What written texts are judged by."""

from __future__ import annotations

import math
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from faussaire.core.errors import UserError
from faussaire.families.lm import LM, LMConfig
from faussaire.texts import judge
from faussaire.texts.tokens import TextSpec

SPEC = TextSpec(vocabulary=("<end>", "<unk>", *"abcdef"), length=6)


def plain_bleu(sentence, references, order):
    """Papineni's sentence BLEU, step by step, with 0.1 for an order without matches."""

    def grams(text, size):
        return Counter(tuple(text[at : at + size]) for at in range(len(text) - size + 1))

    total = 0.0
    for size in range(1, order + 1):
        most = Counter()
        for reference in references:
            most |= grams(reference, size)
        ours = grams(sentence, size)
        matches = sum((ours & most).values())
        total += math.log((matches or 0.1) / max(1, sum(ours.values()))) / order
    closest = min((abs(len(ref) - len(sentence)), len(ref)) for ref in references)[1]
    if len(sentence) < closest:
        total += 1 - closest / len(sentence)
    return math.exp(total)


def texts(count, seed, tokens=5):
    rng = np.random.default_rng(seed)
    return [[*rng.integers(tokens, size=rng.integers(1, 9))] for _ in range(count)]


@pytest.mark.parametrize("order", [2, 4])
def test_bleu_is_papinenis(order):
    ours, theirs = texts(40, 0), texts(15, 1)
    found = judge.bleu(ours, theirs, order=order)
    np.testing.assert_allclose(found, [plain_bleu(one, theirs, order) for one in ours])


def test_self_bleu_leaves_each_sentence_out():
    ours = texts(25, 2)
    wanted = [plain_bleu(one, ours[:at] + ours[at + 1 :], 3) for at, one in enumerate(ours)]
    np.testing.assert_allclose(judge.bleu(ours, order=3), wanted)
    assert judge.self_bleu(ours, order=3) == pytest.approx(np.mean(wanted))
    assert judge.self_bleu([list("abcd")] * 3) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="others"):
        judge.self_bleu([list("abcd")])


def test_lengths_that_no_other_text_has_are_compared_with_the_nearest():
    ours = [[1] * 2, [1] * 4, [1] * 7, [1] * 7]
    wanted = [plain_bleu(one, ours[:at] + ours[at + 1 :], 2) for at, one in enumerate(ours)]
    np.testing.assert_allclose(judge.bleu(ours, order=2), wanted)


def test_corpus_bleu_is_sacrebleus_and_says_how():
    sacrebleu = pytest.importorskip("sacrebleu")
    written = ["a cat sat on the mat.", "dogs bark at night outside"]
    real = ["the cat sat on the mat.", "dogs bark at night", "a bird sings"]
    score, signature = judge.corpus_bleu(written, real)
    wanted = sacrebleu.corpus_bleu(written, [[one] * 2 for one in real])
    assert score == pytest.approx(wanted.score)
    assert "tok:13a" in signature
    assert "version" in signature


def test_one_sentence_scores_as_sacrebleus_does():
    sacrebleu = pytest.importorskip("sacrebleu")
    metric = sacrebleu.metrics.bleu.BLEU(
        tokenize="none", smooth_method="floor", smooth_value=0.1, effective_order=False
    )
    ours = ["a b c d e f", "a a c b d d e"]
    theirs = ["a b c d d f", "b a c c d e f g"]
    wanted = [metric.sentence_score(one, theirs).score / 100 for one in ours]
    found = judge.bleu([one.split() for one in ours], [one.split() for one in theirs])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_sacrebleu_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(UserError, match=r"faussaire\[texts\]"):
        judge.corpus_bleu(["a"], ["a"])


def test_copies_are_counted():
    known = np.array([[2, 3, 0], [4, 0, 0]], np.int32)
    rows = torch.tensor([[2, 3, 0], [2, 4, 0], [4, 0, 0], [3, 2, 0]])
    assert judge.copied(rows, known) == 0.5


def family() -> LM:
    torch.manual_seed(0)
    made = LM(LMConfig(embedding=4, hidden=8, dropout=0.0), SPEC)
    made.nets["generator"].eval()
    return made


def test_nll_is_of_tokens_up_to_the_end_and_of_the_temperature():
    one = family()
    rows = np.array([[2, 0, 0, 0, 0, 0], [3, 4, 5, 0, 0, 0]])
    wanted = 0.0
    for row, length in zip(rows, (2, 4), strict=True):
        tokens = torch.tensor(row[None])
        wanted += float(one.surprise(tokens)[0, :length].detach().sum())
    assert judge.nll_gen(one, rows) == pytest.approx(wanted / 6, rel=1e-5)
    # An even distribution, at an endless temperature.
    assert judge.nll_gen(one, rows, temperature=1e6) == pytest.approx(math.log(8), rel=1e-4)


def test_samples_do_not_depend_on_their_number(monkeypatch):
    one = family()
    whole = judge.sampled(one, 7, seed=3)
    monkeypatch.setattr(judge, "_BATCH", 3)
    assert torch.equal(judge.sampled(one, 7, seed=3), whole)
    assert whole.shape == (7, 6)


def test_a_curve_trades_variety_for_what_is_typical():
    one = family()
    for parameter in one.nets["generator"].parameters():
        parameter.data.mul_(6.0)
    points = judge.curve(
        one,
        [1.0, 0.3],
        quality=lambda rows: judge.nll_gen(one, rows),
        variety=lambda rows, heat: judge.self_bleu(rows.tolist()),
        count=60,
    )
    assert [point.temperature for point in points] == [1.0, 0.3]
    assert points[1].quality < points[0].quality
    assert points[1].variety > points[0].variety
