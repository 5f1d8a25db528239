"""Bits per dimension: each term against the divergence it stands for, the whole against data of known entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import (
    DDPM,
    NoiseSchedule,
    add_noise,
    best_deviation,
    bits_per_dimension,
    discretised_gaussian,
)
from tinygen.models.diffusion.likelihood import prior_nats, step_nats
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

S = NoiseSchedule.linear(50)


def kl(m1, v1, m2, v2):
    """KL(N(m1, v1) ‖ N(m2, v2)), the textbook's."""
    return 0.5 * (np.log(v2 / v1) + (v1 + (m1 - m2) ** 2) / v2 - 1)


class Exact(tg.nn.Module):
    """x̂₀ of x₀ = ±1, equally likely: tanh(√ᾱ·x/(1 − ᾱ)), the best that any network can do."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        self.unused = tg.nn.Parameter(tg.zeros(1))

    def forward(self, x, t, y=None):
        k = (t * (self.schedule.T / 1000)).round().to("int64")
        return tg.tanh(self.schedule.at("signal", k, x) / self.schedule.at("noise", k, x) ** 2 * x)


class Constant(Exact):
    """x̂₀ = c, whatever it sees."""

    def forward(self, x, t, y=None):
        return 0 * x + 0.1


def test_the_prior_term_is_the_kl_to_the_standard_normal():
    x0 = tg.randn(3, 2, 2, rng=stream(0), dtype=tg.float64)
    A = S.alpha_bar[-1]
    expected = kl(np.sqrt(A) * host(x0), 1 - A, 0, 1).sum((1, 2))
    np.testing.assert_allclose(host(prior_nats(S, x0)), expected, rtol=1e-6)
    early = NoiseSchedule.from_alpha_bar([1.0, 0.9, 0.5])  # where it is not nearly nothing
    expected = kl(np.sqrt(0.5) * host(x0), 0.5, 0, 1).sum((1, 2))
    np.testing.assert_allclose(host(prior_nats(early, x0)), expected, rtol=1e-10)
    assert float(prior_nats(S.zero_terminal_snr(), x0).sum().item()) == 0


@pytest.mark.parametrize("t", [2, 3, 25, 50])
def test_a_step_is_the_kl_between_posterior_and_model(t):
    x0, guess, x_t = (tg.randn(3, 4, rng=stream(k), dtype=tg.float64) for k in range(3))
    mean = lambda z: S.c1[t] * host(z) + S.c2[t] * host(x_t)
    expected = kl(mean(x0), S.beta_tilde[t], mean(guess), S.beta_tilde[t]).sum(1)
    np.testing.assert_allclose(host(step_nats(S, x0, guess, t)), expected, rtol=1e-7)
    np.testing.assert_allclose(host(step_nats(S, x0, guess, tg.tensor([t] * 3))), expected, rtol=1e-7)


@pytest.mark.parametrize("mean", [-1.7, -1.0, -0.3, 0.0, 0.999, 1.4])
@pytest.mark.parametrize("deviation", [0.002, 0.05, 0.7])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_all_levels_have_probability_one_together(mean, deviation, levels):
    """Proves: discretised_gaussian."""
    x = tg.linspace(-1, 1, levels, dtype=tg.float64)
    log_p = discretised_gaussian(x, tg.tensor(mean, dtype=tg.float64), deviation, levels)
    assert np.exp(host(log_p)).sum() == pytest.approx(1, abs=1e-8)
    if levels == 17 and deviation == 0.05 and abs(mean) < 0.9:
        Φ = lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2)))
        for k in (7, 8, 9):
            edges = [(host(x)[k] + side / 16 - mean) / 0.05 for side in (1, -1)]
            assert math.exp(host(log_p)[k]) == pytest.approx(Φ(edges[0]) - Φ(edges[1]), abs=1e-12)


def test_float32_keeps_its_tails_and_its_dtype():
    x = tg.linspace(-1, 1, 256)
    log_p = discretised_gaussian(x, tg.tensor(0.2), 0.05)
    exact = discretised_gaussian(tg.tensor(host(x).astype(float)), tg.tensor(0.2, dtype=tg.float64), 0.05)
    assert log_p.dtype == tg.float32 and np.isfinite(host(log_p)).all()
    likely = host(exact) > -9
    np.testing.assert_allclose(host(log_p)[likely], host(exact)[likely], atol=0.05)


@pytest.mark.parametrize("passes", [None, 40])
def test_a_coin_costs_one_bit_and_the_best_model_comes_near(passes):
    """x₀ = ±1: the bound is never below the entropy, 1 bit, and with many steps the exact denoiser all but meets it."""
    schedule = NoiseSchedule.cosine(400)
    model = DDPM(Exact(schedule), (4,), schedule, target="x0").to(tg.float64)
    x = (tg.rand(400, 4, rng=stream(0), dtype=tg.float64) > 0.5).to(tg.float64)
    bits = bits_per_dimension(model, x, levels=2, passes=passes, rng=stream(1))
    assert bits["bits per dimension"] == pytest.approx(1, abs=0.06)
    assert bits["bits per dimension"] == pytest.approx(sum(v for k, v in bits.items() if k != "bits per dimension"))


def test_fewer_steps_or_a_worse_model_cost_more():
    def bits(T, kind):
        schedule = NoiseSchedule.cosine(T)
        model = DDPM(kind(schedule), (4,), schedule, target="x0")
        x = (tg.rand(300, 4, rng=stream(0)) > 0.5).to(tg.float32)
        return bits_per_dimension(model, x, levels=2, rng=stream(1))["bits per dimension"]

    assert 0.98 < bits(300, Exact) < bits(10, Exact) < bits(10, Constant)


def test_passes_are_an_unbiased_short_cut():
    schedule = NoiseSchedule.linear(30)
    model = DDPM(Constant(schedule), (3,), schedule, target="x0").to(tg.float64)
    x = tg.rand(30, 3, rng=stream(0), dtype=tg.float64)
    all_of_it = bits_per_dimension(model, x, rng=stream(1))["diffusion"]
    some = [bits_per_dimension(model, x, passes=1, rng=stream(k))["diffusion"] for k in range(400)]
    assert np.mean(some) == pytest.approx(all_of_it, abs=4 * np.std(some) / 20)
    assert np.std(some) > 0


def test_the_constant_models_bits_are_its_formula():
    model = DDPM(Constant(S), (2,), S, target="x0").to(tg.float64)
    x = tg.tensor([[0.0, 1.0], [0.5, 0.25]], dtype=tg.float64)
    x0 = 2 * host(x) - 1
    bits = bits_per_dimension(model, x, rng=stream(0), deviation=0.3)
    diffusion = 0.5 * (S.snr[1] - S.snr[-1]) * ((x0 - 0.1) ** 2).mean() / math.log(2)  # the sum telescopes
    assert bits["diffusion"] == pytest.approx(diffusion, rel=1e-9)
    log_p = host(discretised_gaussian(tg.tensor(x0), tg.tensor(0.1, dtype=tg.float64), 0.3))
    assert bits["reconstruction"] == pytest.approx(-log_p.mean() / math.log(2), rel=1e-9)


def test_the_best_deviation_is_the_likeliest():
    model = DDPM(Constant(S), (2,), S, target="x0").to(tg.float64)
    x = tg.rand(200, 2, rng=stream(0), dtype=tg.float64)
    σ = best_deviation(model, x, rng=stream(1))
    cost = lambda d: bits_per_dimension(model, x, deviation=d, rng=stream(2))["reconstruction"]
    assert σ == pytest.approx(math.sqrt(((2 * host(x) - 1 - 0.1) ** 2).mean()))
    # likeliest for a Gaussian with no edges; the cut-off tails move it by little
    assert cost(σ) < min(cost(σ / 2), cost(2 * σ))


def test_the_noise_that_is_denoised_is_that_of_the_step():
    asked = []

    class Spy(Exact):
        def forward(self, x, t, y=None):
            asked.append((host(t)[0], host(x)))
            return super().forward(x, t, y)

    schedule = NoiseSchedule.cosine(6)
    model = DDPM(Spy(schedule), (2000,), schedule, target="x0")
    bits_per_dimension(model, tg.full((1, 2000), 0.5), rng=stream(0))
    assert sorted(round(t * 6 / 1000) for t, _ in asked) == [1, 2, 3, 4, 5, 6], "every step once, T among them"
    for t, x in asked:
        assert x.std() == pytest.approx(schedule.noise[round(t * 6 / 1000)], rel=0.06)
    assert (host(add_noise(schedule, tg.zeros(1, 2), 0, tg.ones(1, 2))) == 0).all()


@pytest.mark.parametrize("make, message", [
    (lambda: discretised_gaussian(tg.zeros(1), tg.zeros(1), 0.0), "σ > 0 and levels ≥ 2, got 0.0"),
    (lambda: discretised_gaussian(tg.zeros(1), tg.zeros(1), 1.0, 1), "got 1.0 and 1"),
    (lambda: bits_per_dimension(DDPM(Exact(S), (1,), S, value_range=None), tg.zeros(1, 1)), "no value_range"),
    (lambda: bits_per_dimension(DDPM(Exact(S), (1,), S), tg.zeros(0, 1)), "expected images"),
    (lambda: bits_per_dimension(DDPM(Exact(S), (1,), S), tg.zeros(1, 1), passes=0), "passes=0"),
    (lambda: bits_per_dimension(DDPM(Exact(S), (1,), S), tg.zeros(1, 2)), r"\(N, 1\), got \(1, 2\)"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
