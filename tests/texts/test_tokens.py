"""Sentences as numbers and back."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from faussaire.core.errors import UserError
from faussaire.texts.tokens import (
    END,
    UNKNOWN,
    TextSpec,
    cleaned,
    count,
    learn_pairs,
    words,
)

SENTENCES = [
    "A cat (black) sat; it didn't move.",
    "« L'été », dit-elle : 3,5 km… ##vite##!",
    "naïve 猫が好き ±x_1 #1 ##",
]


def spec_of(sentences, level, **more):
    kept = [word for word, _ in count(sentences, level)]
    return TextSpec(level=level, vocabulary=("<end>", "<unk>", *kept), length=60, **more)


@pytest.mark.parametrize("level", ["word", "char"])
def test_what_is_encoded_is_decoded_whatever_its_marks(level):
    spec = spec_of(SENTENCES, level)
    rows = spec.encode(SENTENCES)
    assert rows.shape == (3, 60)
    assert rows.dtype == np.int32
    assert not (rows == UNKNOWN).any()
    assert spec.decode(rows) == SENTENCES
    assert spec.decode(torch.from_numpy(rows).long()) == SENTENCES


def test_words_have_apostrophes_and_hyphens_and_marks_stand_alone():
    assert words("don't stop (now).") == ["don't", "stop", "(", "##now", "##)", "##."]
    assert words("dit-elle") == ["dit-elle"]
    assert words("-x-") == ["-", "##x", "##-"]


def test_sentences_are_composed_and_have_single_spaces():
    assert cleaned("  e\u0301te\u0301 \t  x\u00a0y ") == "été x y"


def test_what_is_not_in_the_vocabulary_is_unknown_and_said_so():
    spec = TextSpec(vocabulary=("<end>", "<unk>", "a", "##."), length=4)
    rows = spec.encode(["a zebra.", "a a a a a a"])
    assert rows.tolist() == [[2, UNKNOWN, 3, END], [2, 2, 2, 2]]
    assert spec.decode(rows) == ["a <unk>.", "a a a a"]
    assert spec.lengths_of(rows).tolist() == [3, 4]
    # A text that speaks of the special tokens does not become them.
    assert (spec.encode(["<end> <unk>"]) > END).sum() == 4


def test_most_frequent_words_come_first_and_ties_are_in_order():
    assert count(["b a", "c a"], "word") == [("a", 2), ("b", 1), ("c", 1)]


def test_byte_pairs_know_every_text_and_join_frequent_ones():
    pytest.importorskip("tokenizers")
    corpus = ["the cat sat on the mat", "the cat ate the rat"] * 20
    vocabulary, merges = learn_pairs(corpus, 280)
    assert len(vocabulary) <= 280
    assert len(merges) == len(vocabulary) - 258
    spec = TextSpec(level="bpe", vocabulary=vocabulary, length=200, merges=merges)
    rows = spec.encode([*corpus[:2], *SENTENCES, "<end>"])
    assert not (rows == UNKNOWN).any()
    assert spec.decode(rows) == [*corpus[:2], *SENTENCES, "<end>"]
    assert spec.lengths_of(rows[:1])[0] < len(corpus[0].encode()) / 2


def test_a_spec_survives_json():
    pytest.importorskip("tokenizers")
    vocabulary, merges = learn_pairs(["ab ab ab"], 262)
    spec = TextSpec(level="bpe", vocabulary=vocabulary, length=5, merges=merges)
    assert TextSpec.of(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    with pytest.raises((KeyError, TypeError)):
        TextSpec.of({"channels": 3})


def test_byte_pairs_name_the_extra_where_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"faussaire\[texts\]"):
        learn_pairs(["a"], 300)


def test_a_vocabulary_too_small_for_bytes_is_refused():
    with pytest.raises(UserError, match="258"):
        learn_pairs(["a"], 200)


def test_an_oracles_tokens_have_no_end():
    spec = TextSpec(vocabulary=("0", "1", "2"), length=3, ends=False)
    rows = np.array([[0, 1, 0]])
    assert spec.decode(rows) == ["0 1 0"]
    assert spec.lengths_of(rows).tolist() == [3]
    assert spec.begin == 3
