"""Samplers on their own: one step against the posterior, whole chains against data whose scores are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import (
    TARGETS,
    DDIMSampler,
    DDPMSampler,
    NoiseSchedule,
    Sampler,
    add_noise,
    target_of,
    to_epsilon,
)
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

S = NoiseSchedule.cosine(60)
LINEAR = NoiseSchedule.linear(60)


def some(*shape, seed=0, dtype=tg.float64):
    return tg.randn(*shape, rng=stream(seed), dtype=dtype)


class Forbidden(tg.Generator):
    """A generator that nobody may ask."""

    def standard_normal(self, *args, **kwargs):
        raise AssertionError("noise was drawn where none belongs")


def forbidden():
    return Forbidden(0, device=tg.get_default_device())


# ------------------------------------------------------------------------------------------ one step


@pytest.mark.parametrize("t", [2, 30, 60])
def test_ancestral_mean_is_algorithm_2s(t):
    """Proves: DDPMSampler."""
    x_t, ε = some(4, 3), some(4, 3, seed=1)
    sampler = DDPMSampler(LINEAR, clip=None)
    μ, σ, _ = sampler.distribution(ε, t, x_t)
    β, α, A = LINEAR.beta[t], LINEAR.alpha[t], LINEAR.alpha_bar[t]
    np.testing.assert_allclose(host(μ), (host(x_t) - β / math.sqrt(1 - A) * host(ε)) / math.sqrt(α), rtol=1e-8)
    assert σ**2 == pytest.approx(LINEAR.beta_tilde[t], rel=1e-9)
    large = DDPMSampler(LINEAR, clip=None, variance="large").distribution(ε, t, x_t)
    assert large[1] ** 2 == pytest.approx(β, rel=1e-9)
    np.testing.assert_array_equal(host(large[0]), host(μ))


@pytest.mark.parametrize("steps", [None, 7, [1, 5, 60]])
def test_the_ancestral_step_is_bayes_rule(steps):
    """q(x_p | x_t, x₀) ∝ N(x_t; √α·x_p, β)·N(x_p; √P·x₀, 1 − P): precisions add, and means weighed by them.

    Proves: DDPMSampler.mean_and_deviation.
    """
    x0, ε, x_t = some(4, 3), some(4, 3, seed=1), some(4, 3, seed=2)
    small, large = (DDPMSampler(S, steps, variance=variance) for variance in ("small", "large"))
    for t in small.steps[:-1]:
        A, P = S.alpha_bar[t], S.alpha_bar[small.previous(t)]
        α, β = A / P, 1 - A / P
        precision = α / β + 1 / (1 - P)
        mean = (math.sqrt(α) / β * host(x_t) + math.sqrt(P) / (1 - P) * host(x0)) / precision
        (μ, σ), (ν, ς) = (s.mean_and_deviation(x0, ε, t, x_t) for s in (small, large))
        np.testing.assert_allclose(host(μ), mean, rtol=1e-7, atol=1e-9)
        np.testing.assert_array_equal(host(ν), host(μ))
        assert σ**2 == pytest.approx(1 / precision, rel=1e-8) and ς**2 == pytest.approx(β, rel=1e-12)


@pytest.mark.parametrize("steps", [None, 7, [1, 5, 60]])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_its_formula(eta, steps):
    """Proves: DDIMSampler, DDIMSampler.mean_and_deviation."""
    x0, ε, x_t = some(4, 3), some(4, 3, seed=1), some(4, 3, seed=2)
    sampler = DDIMSampler(S, steps, eta=eta)
    for t in sampler.steps:
        A, P = S.alpha_bar[t], S.alpha_bar[sampler.previous(t)]
        σ = eta * math.sqrt((1 - P) / (1 - A)) * math.sqrt(1 - A / P)
        expected = math.sqrt(P) * host(x0) + math.sqrt(max(1 - P - σ**2, 0)) * host(ε)
        μ, found = sampler.mean_and_deviation(x0, ε, t, x_t)
        np.testing.assert_allclose(host(μ), expected, rtol=1e-9, atol=1e-12)
        assert found == pytest.approx(σ, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind, options", [(DDPMSampler, {}), (DDIMSampler, {"eta": 0.6})])
def test_a_step_adds_its_noise_to_its_mean(kind, options):
    """Proves: Sampler, Sampler.step."""
    sampler = kind(S, 7, **options)
    x_t, output = some(4, 3), some(4, 3, seed=1)
    for t in sampler.steps:
        x0, ε = sampler.denoised(output, t, x_t)
        μ, σ = sampler.mean_and_deviation(x0, ε, t, x_t)
        expected = host(μ) + σ * host(some(4, 3, seed=5))
        np.testing.assert_allclose(host(sampler.step(output, t, x_t, rng=stream(5))), expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [None, 7, [1, 5, 60]])
def test_ddim_with_eta_1_is_ancestral_sampling_at_any_stride(steps):
    a, b = DDPMSampler(S, steps, clip=None), DDIMSampler(S, steps, clip=None, eta=1.0)
    x_t, ε = some(4, 3), some(4, 3, seed=1)
    for t in a.steps:
        (μ, σ, _), (ν, ς, _) = a.distribution(ε, t, x_t), b.distribution(ε, t, x_t)
        np.testing.assert_allclose(host(μ), host(ν), rtol=1e-7, atol=1e-9)
        assert σ == pytest.approx(ς, rel=1e-7, abs=1e-9)


def test_stride_one_has_the_schedules_own_posterior():
    x0, x_t = some(4, 3), some(4, 3, seed=1)
    sampler = DDPMSampler(S, target="x0", clip=None)
    for t in range(1, S.T + 1):
        μ, σ, _ = sampler.distribution(x0, t, x_t)
        np.testing.assert_allclose(host(μ), S.c1[t] * host(x0) + S.c2[t] * host(x_t), rtol=1e-8, atol=1e-12)
        assert σ**2 == pytest.approx(S.beta_tilde[t], rel=1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 13, 60])
def test_ddim_keeps_the_marginal_at_every_eta_and_stride(eta, steps):
    """Of x_t with mean √A·x0 and variance 1 − A, the true ε leads to mean √P·x0 and variance 1 − P."""
    sampler = DDIMSampler(S, steps, clip=None, eta=eta)
    for t in sampler.steps:
        P = S.alpha_bar[sampler.previous(t)]
        x0, ε = tg.tensor([0.7], dtype=tg.float64), tg.tensor([1.0], dtype=tg.float64)
        μ, σ, _ = sampler.distribution(ε, t, add_noise(S, x0, t, ε))
        from_ε = float(μ.item()) - math.sqrt(P) * 0.7  # linear in ε: its factor
        assert 0 <= σ**2 <= 1 - P + 1e-12
        assert from_ε**2 + σ**2 == pytest.approx(1 - P, abs=1e-9)


@pytest.mark.parametrize("kind", [DDPMSampler, DDIMSampler])
@pytest.mark.parametrize("steps", [1, 5, 60])
def test_the_previous_step_is_the_next_of_the_chain_and_its_variance_is_the_chains(kind, steps):
    options = {"eta": 1.0} if kind is DDIMSampler else {}
    sampler = kind(S, steps, clip=None, **options)
    short = S.respace(steps)  # the same diffusion, as a chain of its own
    assert sampler.steps[0] == S.T and sampler.previous(sampler.steps[-1]) == 0 and len(sampler.steps) == steps
    for k, t in enumerate(sampler.steps):
        assert sampler.previous(t) == (sampler.steps[k + 1] if k + 1 < steps else 0)
        σ = sampler.distribution(some(1, 2), t, some(1, 2, seed=1))[1]
        assert σ**2 == pytest.approx(short.beta_tilde[steps - k], rel=1e-7)


@pytest.mark.parametrize("kind, options", [
    (DDPMSampler, {"variance": "small"}), (DDPMSampler, {"variance": "large"}), (DDIMSampler, {"eta": 1.0}),
])  # fmt: skip
def test_no_noise_is_added_on_the_way_to_the_image(kind, options):
    sampler = kind(S, 9, target="x0", **options)
    t = sampler.steps[-1]
    x0 = tg.tensor([[0.25, -0.5]])
    assert host(sampler.step(x0, t, some(1, 2, dtype=tg.float32), rng=forbidden())).tolist() == [[0.25, -0.5]]
    with pytest.raises(AssertionError, match="noise was drawn"):
        sampler.step(x0, sampler.steps[0], some(1, 2, dtype=tg.float32), rng=forbidden())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("steps", [1, 2, 20, 60])
def test_deterministic_ddim_asks_no_generator_and_ends_at_the_image_of_the_true_noise(target, steps):
    """Proves: Sampler.chain."""
    x0, ε = some(3, 4), some(3, 4, seed=1)
    sampler = DDIMSampler(S, steps, target=target, clip=None)
    seen = []

    def predict(x, t):
        seen.append(t)
        return target_of(S, target, x0, t, to_epsilon(S, x0, t, x))

    walked = list(sampler.chain(predict, add_noise(S, x0, S.T, ε), rng=forbidden()))
    assert seen == sampler.steps and len(seen) == steps and [p for p, _, _ in walked] == [*seen[1:], 0]
    np.testing.assert_allclose(host(walked[-1][1]), host(x0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [DDPMSampler, DDIMSampler])
@pytest.mark.parametrize("target", TARGETS)
def test_x0_is_clamped_and_the_noise_is_what_then_makes_x_t(kind, target):
    sampler = kind(S, target=target)
    x_t, output = 3 * some(4, 3), 3 * some(4, 3, seed=1)
    for t in (60, 30, 2):
        x0, ε = sampler.denoised(output, t, x_t)
        assert float(x0.min().item()) >= -1 and float(x0.max().item()) <= 1
        assert (abs(host(x0)) == 1).any(), "nothing had to be clamped; the test is idle"
        np.testing.assert_allclose(host(add_noise(S, x0, t, ε)), host(x_t), rtol=1e-7, atol=1e-9)
        free = kind(S, target=target, clip=None).denoised(output, t, x_t)
        assert abs(host(free[0])).max() > 1
        # and the step uses the pair
        P = S.alpha_bar[t - 1]
        μ = sampler.distribution(output, t, x_t)[0]
        if kind is DDIMSampler:
            np.testing.assert_allclose(host(μ), host(math.sqrt(P) * x0 + math.sqrt(1 - P) * ε), rtol=1e-7)
        else:
            np.testing.assert_allclose(host(μ), host(S.c1[t] * x0 + S.c2[t] * x_t), rtol=1e-7)


def test_clamping_to_another_range():
    sampler = DDIMSampler(S, target="x0", clip=(0.0, 0.5))
    x0, _ = sampler.denoised(tg.tensor([-1.0, 0.2, 1.0]), 5, tg.zeros(3))
    assert host(x0).tolist() == pytest.approx([0, 0.2, 0.5])


def test_zero_terminal_snr_can_be_sampled_from_by_v_and_x0():
    z = LINEAR.zero_terminal_snr()
    for target in ("v", "x0"):
        for kind in (DDPMSampler, DDIMSampler):
            out = list(kind(z, 5, target=target).chain(lambda x, t: 0 * x, some(2, 3), rng=stream(0)))[-1][1]
            assert np.isfinite(host(out)).all()
    with pytest.raises(ValueError, match="cannot give x₀"):
        DDPMSampler(z)


# -------------------------------------------------------------------------- chains with a known score


def gaussian_epsilon(m: float, s: float):
    """E[ε | x_t] where x₀ ~ N(m, s²): linear, as x_t is Gaussian."""

    def predict(x, t):
        A = S.alpha_bar[t]
        return math.sqrt(1 - A) / (A * s**2 + 1 - A) * (x - math.sqrt(A) * m)

    return predict


@pytest.mark.parametrize("sampler", [
    DDPMSampler(S, clip=None), DDIMSampler(S, 60, clip=None), DDIMSampler(S, 30, clip=None, eta=0.5),
], ids=repr)  # fmt: skip
def test_gaussian_data_come_out_with_their_mean_and_deviation(sampler):
    n = 20_000
    x = list(sampler.chain(gaussian_epsilon(0.4, 0.6), some(n, 1), rng=stream(3)))[-1][1]
    got = host(x)
    assert got.mean() == pytest.approx(0.4, abs=0.02)
    assert got.std() == pytest.approx(0.6, rel=0.06)


@pytest.mark.parametrize("kind", [DDPMSampler, DDIMSampler])
def test_two_points_come_out_as_two_points_equally_often(kind):
    """x₀ = ±1: E[x₀ | x_t] = tanh(√ᾱ x_t/(1 − ᾱ)), and nothing else may come out."""
    predict = lambda x, t: tg.tanh(float(S.signal[t] / (1 - S.alpha_bar[t])) * x)
    x = host(list(kind(S, target="x0").chain(predict, some(4000, 1), rng=stream(3)))[-1][1])
    np.testing.assert_allclose(abs(x), 1, atol=0.02)
    assert x.mean() == pytest.approx(0, abs=0.06)


# ------------------------------------------------------------------------------------------- manners


@pytest.mark.parametrize("kind", [DDPMSampler, DDIMSampler])
def test_float32_stays_and_seeds_repeat(kind):
    sampler = kind(S, 6, **({"eta": 1.0} if kind is DDIMSampler else {}))
    x, out = some(2, 1, 3, 3, dtype=tg.float32), some(2, 1, 3, 3, seed=1, dtype=tg.float32)
    a, b, c = (sampler.step(out, 60, x, rng=stream(k)) for k in (5, 5, 6))
    assert a.dtype == tg.float32 and a.shape == x.shape
    assert (host(a) == host(b)).all() and (host(a) != host(c)).any()


def test_a_chain_can_begin_in_its_middle():
    sampler = DDIMSampler(S, 6)
    assert [p for p, _, _ in sampler.chain(lambda x, t: x, some(1, 2), start=30)] == [20, 10, 0]
    with pytest.raises(ValueError, match="step 31 is not in this sampler's chain"):
        list(sampler.chain(lambda x, t: x, some(1, 2), start=31))


def test_errors():
    x = some(1, 2)
    with pytest.raises(ValueError, match=r"step 59 is not in this sampler's chain \[60, 40, 20\]"):
        DDPMSampler(S, 3).step(x, 59, x)
    with pytest.raises(ValueError, match=r"\[60, 59, 58, 57, …, 1\]"):
        DDPMSampler(S).step(x, 0, x)
    with pytest.raises(ValueError, match=r"output \(1, 2\) and x_t \(2, 1\) differ"):
        DDPMSampler(S).step(x, 60, some(2, 1))
    with pytest.raises(ValueError, match="0 ≤ η ≤ 1, got 1.5"):
        DDIMSampler(S, eta=1.5)
    with pytest.raises(ValueError, match="from 1 to T = 60, got 61"):
        DDIMSampler(S, 61)
    with pytest.raises(ValueError, match='"small" or "large", got .learned.'):
        DDPMSampler(S, variance="learned")
    with pytest.raises(ValueError, match="low < high"):
        DDPMSampler(S, clip=(1.0, -1.0))
    with pytest.raises(ValueError, match="got 'noise'"):
        DDPMSampler(S, target="noise")
    with pytest.raises(NotImplementedError, match="Sampler does not say how it steps"):
        Sampler(S).step(x, 60, x)
