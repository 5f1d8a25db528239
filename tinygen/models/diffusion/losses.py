"""What an error at step t costs. Every loss is a weighted square error, E_t[ w_t·‖output − target‖² ].

Said of x₀, whatever the network is asked for:

    "simple"    ‖Δ target‖²                         w = 1: the mean square error of what the network says
    "vlb"       ½(SNR_{t−1} − SNR_t)·‖Δx₀‖²         the variational bound on −log p(x₀), a KL divergence for each t
    "min_snr"   min(SNR_t, γ)·‖Δx₀‖²                no time counts for more than γ

and turned into a weight for the target by  SNR·‖Δx₀‖² = ‖Δε‖² = ‖Δv‖²·SNR/(1 + SNR).

The bound's KL: both Gaussians have the variance β̃, so that it is ‖Δμ‖²/2β̃, and as the means differ by c₁·Δx₀,

    c₁²/(2β̃) = ½·ᾱ_{t−1}β²/(1−ᾱ_t)² · (1−ᾱ_t)/(β(1−ᾱ_{t−1})) = ½·ᾱ_{t−1}β/((1−ᾱ_t)(1−ᾱ_{t−1})) = ½(SNR_{t−1} − SNR_t).

At t = 1, where β̃ = 0 and SNR₀ = ∞, the term is −log p(x₀ | x₁) instead, with variance β₁: ½‖Δx₀‖²/β₁ and a constant.

Source: Ho et al. (2020), eq. 5, 8, 12, 14; Kingma, Salimans, Poole & Ho, *Variational Diffusion Models* (2021), eq. 13;
Hang et al., *Efficient Diffusion Training via Min-SNR Weighting Strategy* (2023), section 3.4.
"""

from __future__ import annotations

import numpy as np

from tinygen.models.diffusion.schedule import NoiseSchedule
from tinygen.models.diffusion.targets import check_target

LOSSES = ("simple", "vlb", "min_snr")


def loss_weights(schedule: NoiseSchedule, loss: str, target: str, gamma: float = 5.0) -> np.ndarray:
    """w_t for t = 0 … T, by which the squared error of the target is multiplied; w₀ = 0, as nothing is learned there.

    "vlb" is per step: its mean over t, times T, is the bound in nats.

    Args:
        loss: one of ``LOSSES``.
        target: what the network is asked for: ``"epsilon"``, ``"x0"`` or ``"v"``.
        gamma: γ of min-SNR.

    Returns:
        float64 (T + 1).

    Raises:
        ValueError: there is no such loss or target, γ ≤ 0, or the loss is infinite for the target (``"vlb"`` of v or ε
            where SNR_T = 0).

    Source: see the top of this file.
    """
    check_target(target, schedule)
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if not gamma > 0:
        raise ValueError(f"gamma: expected γ > 0, got {gamma}")
    snr = schedule.snr[1:]
    # ‖Δ target‖² = scale·‖Δx₀‖²
    scale = {"epsilon": snr, "x0": np.ones_like(snr), "v": 1 + snr}[target]
    if loss == "simple":
        w = np.ones_like(snr)
    elif loss == "min_snr":
        w = np.minimum(snr, gamma) / scale
    else:
        before = schedule.snr[:-1].copy()
        before[0] = snr[0] + 1 / schedule.beta[1]
        w = (before - snr) / 2 / scale
    return np.concatenate([[0.0], w])
