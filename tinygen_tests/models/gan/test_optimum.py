"""The game on distributions that are known: D* = p/(p + q), V = −ln 4 + 2·JS, and what a trained D finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

import tinygen as tg
from tinygen.models.gan import (
    Minimax,
    game_value,
    jensen_shannon,
    kullback_leibler,
    optimal_discriminator,
)
from tinygen.testing import check_grad
from tinygen_tests.draws import examples, seeds
from tinygen_tests.judge import host


def f64(values) -> tg.Tensor:
    return tg.tensor(np.asarray(values, dtype=np.float64))


def densities(seed: int, k: int = 6, zeros: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k))
    if zeros:
        p[0] = q[1] = p[2] = q[2] = 0
    return p / p.sum(), q / q.sum()


@given(seed=seeds)
@examples(30)
def test_the_value_of_the_best_discriminator_is_twice_js_minus_ln_4(seed):
    p, q = (f64(d) for d in densities(seed))
    value = host(game_value(optimal_discriminator(p, q), p, q))
    assert value == pytest.approx(-math.log(4) + 2 * float(host(jensen_shannon(p, q))), abs=1e-12)


@given(seed=seeds)
@examples(30)
def test_no_other_discriminator_has_a_higher_value(seed):
    """Proves: optimal_discriminator, game_value."""
    p, q = densities(seed)
    D = host(optimal_discriminator(f64(p), f64(q)))
    np.testing.assert_allclose(D, np.where(p + q > 0, p / np.where(p + q > 0, p + q, 1), 0.5))
    best = host(game_value(f64(D), f64(p), f64(q)))
    real, fake = p > 0, q > 0
    by_hand = (p[real] * np.log(D[real])).sum() + (q[fake] * np.log(1 - D[fake])).sum()
    assert best == pytest.approx(by_hand, abs=1e-12)
    rng = np.random.default_rng(seed)
    for scale in (1e-3, 0.1, 1.0):
        other = np.clip(D + scale * rng.standard_normal(D.shape), 1e-6, 1 - 1e-6)
        assert host(game_value(f64(other), f64(p), f64(q))) <= best + 1e-12


@given(seed=seeds)
@examples(30)
def test_divergences_are_scipys_and_keep_their_bounds(seed):
    p, q = densities(seed)
    js = float(host(jensen_shannon(f64(p), f64(q))))
    assert js == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-12)
    assert -1e-12 <= js <= math.log(2)
    assert js == pytest.approx(float(host(jensen_shannon(f64(q), f64(p)))), abs=1e-12)
    p, q = densities(seed, zeros=False)
    kl = float(host(kullback_leibler(f64(p), f64(q))))
    assert kl >= 0 and kl == pytest.approx(entropy(p, q), abs=1e-10)


def test_ends_of_the_scale():
    p = f64([0.25, 0.75, 0.0])
    assert host(jensen_shannon(p, p)) == pytest.approx(0)
    assert host(game_value(optimal_discriminator(p, p), p, p)) == pytest.approx(-math.log(4))
    apart = f64([0.0, 0.0, 1.0])
    assert host(jensen_shannon(p, apart)) == pytest.approx(math.log(2))
    assert host(game_value(optimal_discriminator(p, apart), p, apart)) == 0, "0·ln 0 is 0"
    np.testing.assert_array_equal(host(optimal_discriminator(p, apart)), [1, 1, 0])
    np.testing.assert_array_equal(host(optimal_discriminator(f64([0.0]), f64([0.0]))), [0.5])
    with np.errstate(divide="ignore"):
        assert host(kullback_leibler(p, apart)) == math.inf
        assert host(game_value(f64([0.0, 1.0, 1.0]), p, p)) == -math.inf, "certain and wrong"


def test_gradients_are_right_and_finite_where_an_outcome_has_no_mass():
    p, q = densities(3, zeros=False)
    check_grad(jensen_shannon, p, q)
    check_grad(lambda p, q: optimal_discriminator(p, q), p, q)
    q = f64([0.5, 0.5, 0.0]).requires_grad_()
    jensen_shannon(f64([0.0, 0.4, 0.6]), q).backward()
    assert np.isfinite(host(q.grad)).all()


def test_a_discriminator_trained_on_counts_becomes_p_over_p_plus_q():
    """One logit for each outcome, the loss of the game, gradient descent: the table ends at D*."""
    p, q = densities(1, zeros=False)
    n = 40_000
    real, fake = (np.repeat(np.arange(6), np.rint(d * n).astype(int)) for d in (p, q))
    p, q = np.bincount(real) / len(real), np.bincount(fake) / len(fake)
    a = tg.zeros(6, dtype=tg.float64).requires_grad_()
    real, fake, loss = tg.tensor(real), tg.tensor(fake), Minimax()
    sgd = tg.optim.Adam([a], lr=0.1)
    for _ in range(250):
        sgd.zero_grad()
        value = loss.discriminator(a[real], a[fake])
        value.backward()
        sgd.step()
    np.testing.assert_allclose(host(tg.sigmoid(a)), host(optimal_discriminator(f64(p), f64(q))), atol=2e-3)
    js = float(host(jensen_shannon(f64(p), f64(q))))
    assert host(value) == pytest.approx(math.log(4) - 2 * js, abs=1e-4)


def test_gradient_descent_on_js_carries_the_generator_to_the_data():
    """Theorem 1: against the best discriminator G minimises JS, and its minimum is q = p."""
    p = f64(densities(2, zeros=False)[0])
    logits = tg.zeros(6, dtype=tg.float64).requires_grad_()
    adam = tg.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        adam.zero_grad()
        q = tg.softmax(logits, 0)
        D = optimal_discriminator(p, q.detach())
        game_value(D, p, q).backward()  # G descends V, with D held at its best
        adam.step()
    np.testing.assert_allclose(host(tg.softmax(logits, 0)), host(p), atol=5e-3)
