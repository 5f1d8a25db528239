"""The weights of the losses, against the KL divergences and ratios that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from tinygen.models.diffusion import LOSSES, TARGETS, NoiseSchedule, loss_weights

S = NoiseSchedule.linear(60)
SCALE = {"epsilon": S.snr[1:], "x0": np.ones(60), "v": 1 + S.snr[1:]}  # ‖Δ target‖² / ‖Δx₀‖²


@pytest.mark.parametrize("target", TARGETS)
def test_the_bound_is_the_kl_of_two_gaussians_with_means_apart_by_c1_times_the_error(target):
    """Proves: loss_weights."""
    w = loss_weights(S, "vlb", target)
    kl = S.c1[2:] ** 2 / (2 * S.beta_tilde[2:])  # ‖Δμ‖²/2β̃ for ‖Δx₀‖ = 1
    np.testing.assert_allclose(w[2:] * SCALE[target][1:], kl, rtol=1e-8)
    np.testing.assert_allclose(w[2:] * SCALE[target][1:], (S.snr[1:-1] - S.snr[2:]) / 2, rtol=1e-8)
    assert w[1] * SCALE[target][0] == pytest.approx(1 / (2 * S.beta[1]), rel=1e-9)


def test_the_bound_of_the_noise_is_hos_weight():
    t = slice(2, None)
    ho = S.beta[t] ** 2 / (2 * S.beta_tilde[t] * S.alpha[t] * (1 - S.alpha_bar[t]))
    np.testing.assert_allclose(loss_weights(S, "vlb", "epsilon")[t], ho, rtol=1e-8)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_means_the_same_for_every_target_and_never_more_than_gamma(target, gamma):
    w = loss_weights(S, "min_snr", target, gamma)
    np.testing.assert_allclose(w[1:] * SCALE[target], np.minimum(S.snr[1:], gamma), rtol=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_simple_weighs_nothing(target):
    assert (loss_weights(S, "simple", target)[1:] == 1).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("s", [S, NoiseSchedule.cosine(1000), NoiseSchedule.cosine(20).zero_terminal_snr()])
def test_every_weight_is_finite_and_none_is_for_the_image_itself(loss, target, s):
    if target == "epsilon" and s.alpha_bar[-1] == 0:
        with pytest.raises(ValueError, match="cannot give x₀"):
            loss_weights(s, loss, target)
        return
    w = loss_weights(s, loss, target)
    assert w.shape == (s.T + 1,) and w.dtype == np.float64 and np.isfinite(w).all() and w[0] == 0 and (w >= 0).all()


@pytest.mark.parametrize("arguments, message", [
    (("l1", "v"), "expected one of simple, vlb, min_snr, got 'l1'"),
    (("simple", "u"), "expected one of epsilon, x0, v, got 'u'"),
    (("min_snr", "v", 0.0), "γ > 0, got 0.0"),
])
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        loss_weights(S, *arguments)
