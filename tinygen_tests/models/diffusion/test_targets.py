"""ε, x₀ and v: each gives the others, and their errors stand in the ratios that the losses rely on."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import TARGETS, NoiseSchedule, add_noise, target_of, to_epsilon, to_x0
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

S = NoiseSchedule.cosine(40)


def drawn(dtype=tg.float64):
    rng = stream(0)
    x0, ε = tg.randn(5, 2, 3, rng=rng, dtype=dtype), tg.randn(5, 2, 3, rng=rng, dtype=dtype)
    return x0, ε, tg.tensor([1, 3, 20, 39, 40])


def test_noising_at_once_is_its_formula_and_t_0_is_the_image():
    x0, ε, t = drawn()
    x_t = host(add_noise(S, x0, t, ε))
    for i, k in enumerate(host(t)):
        a = S.alpha_bar[k]
        np.testing.assert_allclose(x_t[i], np.sqrt(a) * host(x0)[i] + np.sqrt(1 - a) * host(ε)[i], rtol=1e-12)
    np.testing.assert_array_equal(host(add_noise(S, x0, 0, ε)), host(x0))


def test_every_target_is_its_formula():
    """Of unrelated numbers, so that no two mistakes can undo each other.

    Proves: target_of, to_x0, to_epsilon.
    """
    x0, ε, t = drawn()
    x_t, output = tg.randn_like(x0, rng=stream(1)), tg.randn_like(x0, rng=stream(2))
    A = S.alpha_bar[host(t)].reshape(-1, 1, 1)
    a, s = np.sqrt(A), np.sqrt(1 - A)
    said = {"epsilon": host(ε), "x0": host(x0), "v": a * host(ε) - s * host(x0)}
    meant = {"epsilon": (host(x_t) - s * host(output)) / a, "x0": host(output), "v": a * host(x_t) - s * host(output)}
    for target in TARGETS:
        np.testing.assert_allclose(host(target_of(S, target, x0, t, ε)), said[target], rtol=1e-12)
        np.testing.assert_allclose(host(to_x0(S, target, output, t, x_t)), meant[target], rtol=1e-10)
    np.testing.assert_allclose(host(to_epsilon(S, x0, t, x_t)), (host(x_t) - a * host(x0)) / s, rtol=1e-10)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("at", [1, 25, 40, "each its own"])
def test_every_target_gives_back_the_image_and_the_noise(target, at):
    x0, ε, t = drawn()
    t = t if at == "each its own" else at
    x_t = add_noise(S, x0, t, ε)
    output = target_of(S, target, x0, t, ε)
    np.testing.assert_allclose(host(to_x0(S, target, output, t, x_t)), host(x0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(host(to_epsilon(S, x0, t, x_t)), host(ε), rtol=1e-6, atol=1e-9)


def test_v_is_a_rotation():
    x0, ε, t = drawn()
    x_t, v = add_noise(S, x0, t, ε), target_of(S, "v", x0, t, ε)
    np.testing.assert_allclose(host(x_t**2 + v**2), host(x0**2 + ε**2), rtol=1e-9)
    a, s = S.at("signal", t, x0), S.at("noise", t, x0)
    np.testing.assert_allclose(host(v), host(a * ε - s * x0), rtol=1e-12)
    np.testing.assert_allclose(host(a * x_t - s * v), host(x0), rtol=1e-9)


@pytest.mark.parametrize("t", [1, 7, 33])
def test_one_error_is_the_other_times_the_signal_to_noise_ratio(t):
    x0, ε, _ = drawn()
    x_t = add_noise(S, x0, t, ε)
    wrong = tg.randn_like(x0, rng=stream(1))
    error = {}
    for target in TARGETS:
        exact = target_of(S, target, x0, t, ε)
        # the same wrong picture of x0, said as this target
        other = target_of(S, target, wrong, t, to_epsilon(S, wrong, t, x_t))
        error[target] = float(((exact - other) ** 2).sum().item())
    snr = S.snr[t]
    assert error["epsilon"] == pytest.approx(snr * error["x0"], rel=1e-9)
    assert error["epsilon"] == pytest.approx(error["v"] * snr / (1 + snr), rel=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_float32_stays_float32(target):
    x0, ε, t = drawn(tg.float32)
    x_t = add_noise(S, x0, t, ε)
    for at in (t, 5):
        assert to_x0(S, target, target_of(S, target, x0, at, ε), at, x_t).dtype == tg.float32
        assert to_epsilon(S, x0, at, x_t).dtype == tg.float32


def test_errors():
    x0, ε, t = drawn()
    with pytest.raises(ValueError, match="expected one of epsilon, x0, v, got 'noise'"):
        target_of(S, "noise", x0, t, ε)
    with pytest.raises(ValueError, match='epsilon" cannot give x₀ where ᾱ_T = 0'):
        to_x0(S.zero_terminal_snr(), "epsilon", ε, t, x0)
    to_x0(S.zero_terminal_snr(), "v", ε, 40, x0)
