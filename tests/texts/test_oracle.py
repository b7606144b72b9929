"""The synthetic language."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faussaire.core.errors import UserError
from faussaire.texts.oracle import Oracle


def arrays(vocabulary=7, hidden=3):
    rng = np.random.default_rng(0)
    shapes = [(vocabulary, hidden)]
    shapes += [(hidden, hidden), (hidden, hidden), (hidden,)] * 4
    shapes += [(hidden, vocabulary), (vocabulary,)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def by_hand(weights, row):
    """-1/T log p, the LSTM written out as in the paper's appendix."""
    embed, *gates, last, bias = [weight.astype(np.float64) for weight in weights]
    hidden = cell = np.zeros(embed.shape[1])
    token, total = 0, 0.0
    for nxt in row:
        before = [
            embed[token] @ gates[3 * k] + hidden @ gates[3 * k + 1] + gates[3 * k + 2]
            for k in range(4)
        ]
        keep_in, forget, out = (1 / (1 + np.exp(-gate)) for gate in before[:3])
        cell = forget * cell + keep_in * np.tanh(before[3])
        hidden = out * np.tanh(cell)
        logits = hidden @ last + bias
        total -= logits[nxt] - np.log(np.exp(logits).sum())
        token = nxt
    return total / len(row)


def test_a_file_of_weights_is_read_gate_by_gate(tmp_path):
    weights = arrays()
    np.savez(tmp_path / "o.npz", *weights)
    oracle = Oracle.published(tmp_path / "o.npz", length=4)
    rows = np.array([[0, 3, 6, 1], [2, 2, 2, 2]])
    wanted = [by_hand(weights, row) for row in rows]
    np.testing.assert_allclose(oracle.nll(rows).numpy(), wanted, rtol=1e-5)


def test_files_that_hold_no_oracle_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Oracle.published(tmp_path / "none.npz")
    np.savez(tmp_path / "few.npz", *arrays()[:4])
    with pytest.raises(UserError, match="no oracle of 15 arrays"):
        Oracle.published(tmp_path / "few.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="no oracle of 15 arrays"):
        Oracle.published(tmp_path / "text.npz")
    weights = arrays()
    weights[3] = weights[3][:2]
    np.savez(tmp_path / "bent.npz", *weights)
    with pytest.raises(UserError, match=r"arr_3 of shape \(2,\), not \(3,\)"):
        Oracle.published(tmp_path / "bent.npz")


def test_it_finds_its_own_sentences_likely_and_noise_not():
    oracle = Oracle.drawn(vocabulary=50, length=6, hidden=16)
    rows = oracle.write(600, seed=1)
    assert rows.shape == (600, 6)
    assert np.array_equal(rows[:100], oracle.write(100, seed=1))
    assert not np.array_equal(rows, oracle.write(600, seed=2))
    noise = np.random.default_rng(0).integers(50, size=(600, 6))
    assert oracle.nll(rows).mean() < oracle.nll(noise).mean() - 1.0
    # What it gives its own is its entropy: about that of its first tokens' distribution, per token.
    begin = torch.full((1, 1), oracle.spec.begin)
    shares = oracle.net(begin)[0][0, 0].softmax(0)
    seen = np.bincount(rows[:, 0], minlength=50) / 600
    assert np.abs(seen - shares.numpy()).max() < 0.06


def test_the_authors_oracle_scores_itself_as_they_say(real_data):
    path = real_data / "seqgan_oracle" / "target_params.npz"
    if not path.exists():
        pytest.skip("the oracle of SeqGAN's authors is not here")
    oracle = Oracle.published(path)
    assert oracle.spec.size == 5000
    assert float(oracle.nll(oracle.write(300)).mean()) == pytest.approx(5.75, abs=0.1)
