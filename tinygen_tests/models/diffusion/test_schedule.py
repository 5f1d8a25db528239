"""Noise schedules: the identities of their coefficients, and the ends where others divide by zero."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import NoiseSchedule, spaced
from tinygen_tests.judge import host

SCHEDULES = {
    "linear": NoiseSchedule.linear(100),
    "linear 1000": NoiseSchedule.linear(1000),
    "cosine": NoiseSchedule.cosine(50),
    "cosine 1": NoiseSchedule.cosine(1),
    "sigmoid": NoiseSchedule.sigmoid(80),
    "no signal at T": NoiseSchedule.linear(60).zero_terminal_snr(),
    "respaced": NoiseSchedule.cosine(200).respace(7),
    "respaced by hand": NoiseSchedule.linear(100).respace([1, 2, 50, 99]),
}
each = pytest.mark.parametrize("s", SCHEDULES.values(), ids=SCHEDULES)


@each
def test_noising_step_by_step_has_the_mean_and_variance_of_noising_at_once(s):
    """Proves: NoiseSchedule."""
    mean, variance = 1.0, 0.0
    for t in range(1, s.T + 1):
        mean, variance = mean * np.sqrt(s.alpha[t]), s.alpha[t] * variance + s.beta[t]
        np.testing.assert_allclose([mean, variance], [s.signal[t], s.noise[t] ** 2], rtol=1e-9, atol=1e-14)


@each
def test_the_posterior_is_the_product_of_its_two_gaussians(s):
    A, P, t = s.alpha_bar[1:], s.alpha_bar[:-1], slice(1, None)
    np.testing.assert_allclose(s.c1[t] + s.c2[t] * np.sqrt(A), np.sqrt(P), rtol=1e-9)
    np.testing.assert_allclose(s.c2[t] ** 2 * (1 - A) + s.beta_tilde[t], 1 - P, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(1 / s.beta_tilde[2:], s.alpha[2:] / s.beta[2:] + 1 / (1 - P[1:]), rtol=1e-9)
    assert s.beta_tilde[1] == 0 and s.c1[1] == 1 and s.c2[1] == 0, "x0 is known: the step to it is sure"
    assert (s.beta_tilde <= s.beta).all() and (s.beta_tilde[2:] > 0).all()


@each
def test_everything_is_finite_float64_and_read_only_and_begins_with_the_image_itself(s):
    for name in ("beta", "alpha", "alpha_bar", "signal", "noise", "beta_tilde", "c1", "c2", "times"):
        values = getattr(s, name)
        assert values.dtype == np.float64 and values.shape == (s.T + 1,) and np.isfinite(values).all(), name
        with pytest.raises(ValueError):
            values[0] = 1
    assert s.alpha_bar[0] == 1 and s.beta[0] == 0 and s.snr[0] == np.inf and np.isfinite(s.snr[1:]).all()
    assert (np.diff(s.alpha_bar) < 0).all() and (np.diff(s.snr) < 0).all()
    np.testing.assert_allclose(s.snr[1:], s.alpha_bar[1:] / (1 - s.alpha_bar[1:]), rtol=1e-9)


def test_linear_is_hos_at_1000_and_as_noisy_with_fewer_steps():
    s = NoiseSchedule.linear(1000)
    np.testing.assert_allclose(s.beta[[1, 2, 1000]], [1e-4, 1e-4 + (0.02 - 1e-4) / 999, 0.02], rtol=1e-12)
    for T in (100, 200, 500):
        np.testing.assert_allclose(NoiseSchedule.linear(T).beta[1:], 1000 / T * np.linspace(1e-4, 0.02, T), rtol=1e-12)
        assert NoiseSchedule.linear(T).alpha_bar[-1] < 1e-4, "betas tuned for T = 1000 were used as they are"
    # What happens otherwise: at T = 200 more than a third of the image would be left.
    assert np.sqrt(np.prod(1 - np.linspace(1e-4, 0.02, 200))) == pytest.approx(0.36, abs=0.01)


@pytest.mark.parametrize("T, expected", [(100, -10.80), (1000, -10.118), (10_000, -10.057)])
def test_the_linear_schedule_tends_to_the_variance_preserving_sde(T, expected):
    assert np.log(NoiseSchedule.linear(T).alpha_bar[-1]) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("T", [1, 2, 20])
def test_linear_refuses_so_few_steps_that_beta_would_reach_one(T):
    with pytest.raises(ValueError, match=rf"expected T > 20, got {T}.*\.cosine\(T\)"):
        NoiseSchedule.linear(T)
    NoiseSchedule.linear(21)


def test_cosine_is_clipped_where_it_would_divide_by_zero():
    s = NoiseSchedule.cosine(1000)
    assert (s.beta == 0.999).sum() == 1 and s.beta[-1] == 0.999
    assert s.alpha_bar[-1] > 0 and np.isfinite(1 / s.signal).all()
    f = np.cos((np.arange(1000) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(s.alpha_bar[:-1], f / f[0], rtol=1e-9)
    assert NoiseSchedule.cosine(1).beta[1] == 0.999


def test_sigmoid_follows_its_formula():
    s = NoiseSchedule.sigmoid(10, start=-2.0, end=3.0, tau=0.7)
    σ = lambda u: 1 / (1 + np.exp(-u / 0.7))
    for t in range(1, 10):
        assert s.alpha_bar[t] == pytest.approx((σ(3) - σ(-2 + 5 * t / 10)) / (σ(3) - σ(-2)), rel=1e-9)
    assert s.beta[-1] == 0.999


def test_a_schedule_of_given_alpha_bars_has_the_betas_that_lead_to_them():
    """Proves: NoiseSchedule.from_alpha_bar."""
    s = NoiseSchedule.from_alpha_bar([1.0, 0.9, 0.45, 0.1])
    np.testing.assert_allclose(s.beta, [0, 0.1, 0.5, 1 - 0.1 / 0.45], rtol=1e-12)
    np.testing.assert_allclose(s.alpha_bar, [1.0, 0.9, 0.45, 0.1], rtol=1e-12)
    clipped = NoiseSchedule.from_alpha_bar([1.0, 0.9, 1e-5])
    np.testing.assert_allclose(clipped.beta, [0, 0.1, 0.999], rtol=1e-12)
    np.testing.assert_allclose(clipped.alpha_bar[-1], 0.9 * 0.001, rtol=1e-12)


@pytest.mark.parametrize("s", [NoiseSchedule.linear(100), NoiseSchedule.cosine(30), NoiseSchedule.sigmoid(20)])
def test_zero_terminal_snr_leaves_nothing_at_T_and_the_first_step_as_it_was(s):
    z = s.zero_terminal_snr()
    assert z.alpha_bar[-1] == 0 and z.snr[-1] == 0 and z.beta[-1] == 1
    assert z.alpha_bar[1] == pytest.approx(s.alpha_bar[1], rel=1e-12)
    assert (np.diff(z.alpha_bar) < 0).all() and z.T == s.T
    shifted = (s.signal - s.signal[-1]) * s.signal[1] / (s.signal[1] - s.signal[-1])
    np.testing.assert_allclose(z.signal[1:], shifted[1:], rtol=1e-9, atol=1e-12)


def test_respacing_keeps_alpha_bar_and_what_the_network_is_told():
    s = NoiseSchedule.cosine(100)
    r = s.respace([3, 10, 100])
    np.testing.assert_allclose(r.alpha_bar, s.alpha_bar[[0, 3, 10, 100]], rtol=1e-8)
    np.testing.assert_array_equal(r.times, [0, 30, 100, 1000])
    A = s.alpha_bar
    assert r.beta_tilde[2] == pytest.approx((1 - A[3]) / (1 - A[10]) * (1 - A[10] / A[3]), rel=1e-9)
    assert abs(r.beta_tilde[2] / s.beta_tilde[10] - 1) > 0.2, "the full chain's variance would be another"


@pytest.mark.parametrize("T, n, expected", [(10, 10, list(range(1, 11))), (10, 1, [10]), (10, 3, [3, 7, 10])])
def test_spaced_steps_end_at_T_and_rise(T, n, expected):
    assert spaced(T, n) == expected


@pytest.mark.parametrize("T", [7, 100, 1000])
def test_spaced_steps_are_as_many_as_asked_for(T):
    for n in range(1, T + 1, 3):
        τ = spaced(T, n)
        assert len(τ) == n and τ[-1] == T and τ[0] >= 1 and all(a < b for a, b in zip(τ, τ[1:], strict=False))


def test_times_are_on_a_scale_of_a_thousand_whatever_T_is():
    x = tg.zeros(2, 3)
    for T in (50, 200, 1000):
        s = NoiseSchedule.cosine(T)
        assert host(s.time(T, x)).tolist() == [1000, 1000]
        assert host(s.time(tg.tensor([T // 2, T]), x)).tolist() == [500, 1000]


def test_at_reads_numbers_and_batches_in_the_dtype_of_the_images():
    s = NoiseSchedule.linear(100)
    assert s.at("signal", 7, tg.zeros(1)) == s.signal[7] and isinstance(s.at("signal", 7, tg.zeros(1)), float)
    for dtype in (tg.float32, tg.float64):
        x = tg.zeros(3, 1, 2, 2, dtype=dtype)
        got = s.at("c1", tg.tensor([1, 50, 100]), x)
        assert got.shape == (3, 1, 1, 1) and got.dtype == dtype
        np.testing.assert_array_equal(host(got).ravel(), s.c1[[1, 50, 100]].astype(dtype))
    with pytest.raises(IndexError, match="from 0 to T = 100, got 101"):
        s.at("beta", 101, tg.zeros(1))
    with pytest.raises(IndexError, match="got -1"):
        s.time(-1, tg.zeros(1))


def test_the_shape_of_what_is_printed():
    assert repr(NoiseSchedule.linear(1000)) == "NoiseSchedule(T=1000, β 0.0001 … 0.02, ᾱ_T = 4.04e-05)"


@pytest.mark.parametrize("make, message", [
    (lambda: NoiseSchedule([]), "expected β₁"),
    (lambda: NoiseSchedule([0.1, 0.0]), "expected β₁"),
    (lambda: NoiseSchedule([1.0, 0.1]), "expected β₁"),
    (lambda: NoiseSchedule([0.1, float("nan")]), "expected β₁"),
    (lambda: NoiseSchedule([0.1, 0.2], times=[5.0]), "expected 2 rising times"),
    (lambda: NoiseSchedule([0.1, 0.2], times=[5.0, 5.0]), "expected 2 rising times"),
    (lambda: NoiseSchedule.cosine(0), "T ≥ 1, got 0"),
    (lambda: NoiseSchedule.cosine(10.5), "T ≥ 1, got 10.5"),
    (lambda: NoiseSchedule.cosine(10, s=-1), "s ≥ 0"),
    (lambda: NoiseSchedule.sigmoid(10, start=1, end=0), "start < end"),
    (lambda: NoiseSchedule.sigmoid(10, tau=0), "tau > 0"),
    (lambda: NoiseSchedule.from_alpha_bar([0.9, 0.5]), "ᾱ₀ = 1"),
    (lambda: NoiseSchedule.from_alpha_bar([1.0, 0.5, 0.6]), "falling"),
    (lambda: NoiseSchedule.cosine(1).zero_terminal_snr(), "at least two steps"),
    (lambda: NoiseSchedule.cosine(10).respace(11), "from 1 to T = 10, got 11"),
    (lambda: NoiseSchedule.cosine(10).respace([0, 5]), "rising steps between 1 and T = 10"),
    (lambda: NoiseSchedule.cosine(10).respace([5, 5]), "rising steps"),
    (lambda: spaced(10, []), "rising steps"),
])
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
