"""The prior over rows of codes: nobody sees what comes after, the probabilities sum to 1, and draws follow them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.vae.autoregressive import CodePrior, MaskedLinear
from tinygen_tests.draws import stream
from tinygen_tests.judge import host


def prior(length=3, codes=3):
    return CodePrior(length, codes, embed=4, hidden=5, rng=stream(0)).double()


@pytest.mark.parametrize("strict", [False, True])
def test_a_masked_layer_sees_the_groups_it_may(strict):
    layer = MaskedLinear(3, 2, 4, strict, rng=stream(0))
    mask = host(layer.mask).reshape(3, 4, 3, 2)
    for i, j in itertools.product(range(3), range(3)):
        assert (mask[i, :, j] == (j < i if strict else j <= i)).all()
    assert layer(tg.ones(2, 6)).shape == (2, 12)


def test_a_code_changes_only_what_comes_after_it():
    p = prior(4, 3)
    k = tg.tensor([[0, 2, 1, 1]])
    before = host(p(k).logits.detach())
    for i in range(4):
        changed = k.clone()
        changed[0, i] = (int(k[0, i].item()) + 1) % 3
        after = host(p(changed).logits.detach())
        np.testing.assert_array_equal(after[0, : i + 1], before[0, : i + 1])
        assert i == 3 or (np.abs(after[0, i + 1 :] - before[0, i + 1 :]) > 0).all()


def test_the_probabilities_of_all_rows_sum_to_one_and_draws_follow_them():
    """Proves: CodePrior, CodePrior.log_prob."""
    p = prior()
    with tg.no_grad():
        for parameter in p.parameters():
            parameter *= 3.0
    rows = np.array(list(itertools.product(range(3), repeat=3)))
    probability = np.exp(host(p.log_prob(tg.tensor(rows)).detach()))
    assert probability.sum() == pytest.approx(1, rel=1e-10)
    assert probability.std() > 0.005
    n = 20_000
    drawn = host(p.sample(n, stream(1))) @ np.array([9, 3, 1])
    share = np.bincount(drawn, minlength=27) / n
    assert (np.abs(share - probability) < 5 * np.sqrt(probability / n) + 1e-3).all()


def test_it_learns_a_language():
    """Words that rise by one each letter: after training, nearly all that it draws are such words."""
    rows = tg.tensor([[a, (a + 1) % 5, (a + 2) % 5, (a + 3) % 5] for a in range(5)])
    p = CodePrior(4, 5, rng=stream(0))
    adam = tg.optim.Adam(p.parameters(), lr=1e-2)
    for _ in range(200):
        adam.zero_grad()
        loss = -p.log_prob(rows).mean()
        loss.backward()
        adam.step()
    assert loss.item() == pytest.approx(np.log(5), abs=0.05)
    drawn = host(p.sample(200, stream(1)))
    assert ((np.diff(drawn, axis=1) % 5) == 1).all(1).mean() > 0.95


def test_errors_name_what_came():
    with pytest.raises(ValueError, match=r"expected codes \(N, 3\), got \(2, 4\)"):
        prior()(tg.zeros(2, 4, dtype=tg.int64))
    with pytest.raises(ValueError, match="positive sizes, got length=0"):
        CodePrior(0, 3)
