"""How likely a diffusion finds images it has never seen: a bound on −log₂ p(x₀), in bits for each pixel.

    −log p(x₀) ≤ L_T + Σ_{t=2}^T L_{t−1} + L_0

    L_T      = KL( q(x_T | x₀) ‖ N(0, I) )                  what of the image is left at T; nothing to learn
    L_{t−1}  = KL( q(x_{t−1} | x_t, x₀) ‖ p(x_{t−1} | x_t) ) = ½(SNR_{t−1} − SNR_t)·‖x₀ − x̂₀(x_t)‖²
    L_0      = −log p(x₀ | x₁)                              a Gaussian N(x̂₀, σ²I), cut into the grey levels

p(x_{t−1} | x_t) has the posterior's own variance β̃_t, as the sampler has it (``variance="small"``).

Source: Ho, Jain & Abbeel (2020), eq. 5, 8 and 13.
"""

from __future__ import annotations

import math

from tinygen.backend import float64
from tinygen.creation import arange, full
from tinygen.models.diffusion.ddpm import DDPM
from tinygen.models.diffusion.schedule import NoiseSchedule
from tinygen.models.diffusion.targets import add_noise
from tinygen.ops.comparison import ge, le
from tinygen.ops.elementwise import clamp, erf, floor, log, where
from tinygen.random import Generator, rand, randn_like
from tinygen.recording import no_grad
from tinygen.tensor import Tensor

LEAST = 1e-12  # of a probability whose logarithm is taken: float32's erf cannot tell less from 0


def prior_nats(schedule: NoiseSchedule, x0: Tensor) -> Tensor:
    """L_T = ½Σ( ᾱ_T x₀² + (1 − ᾱ_T) − 1 − ln(1 − ᾱ_T) ), in nats for each example: (N, …) → (N).

    KL between N(√ᾱ_T x₀, (1 − ᾱ_T)I) and N(0, I).

    Source: Ho et al. (2020), eq. 5.
    """
    A = float(schedule.alpha_bar[-1])
    constant = -A - math.log1p(-A)
    return (0.5 * (A * x0 * x0 + constant)).flatten(1).sum(1)


def step_nats(schedule: NoiseSchedule, x0: Tensor, x0_hat: Tensor, t: Tensor | int) -> Tensor:
    """L_{t−1} = ½(SNR_{t−1} − SNR_t)·‖x₀ − x̂₀‖², in nats for each example, t = 2 … T: (N, …) → (N).

    Both Gaussians have the variance β̃_t and means c₁·x₀ + c₂·x_t and c₁·x̂₀ + c₂·x_t, so KL = c₁²‖Δx₀‖²/(2β̃_t).

    Source: Ho et al. (2020), eq. 8; Kingma et al. (2021), eq. 13.
    """
    before = schedule.at("snr", t - 1, x0)
    difference = x0 - x0_hat
    return (0.5 * (before - schedule.at("snr", t, x0)) * difference * difference).flatten(1).sum(1)


def discretised_gaussian(x: Tensor, mean: Tensor, deviation: float, levels: int = 256) -> Tensor:
    """log P(x) of grey levels under N(mean, σ²) cut into bins: log ∫ over the bin, of half-width δ = 1/(levels − 1).

    The levels are −1, −1 + 2δ, …, 1; the bins of the first and last reach to ∓∞, so that the probabilities of all
    levels sum to 1.   ∫ = Φ((x + δ − μ)/σ) − Φ((x − δ − μ)/σ),  Φ(z) = ½(1 + erf(z/√2)).

    Shapes: x and mean broadcast → their shape, in nats.

    Raises:
        ValueError: σ ≤ 0 or levels < 2.

    Source: Ho et al. (2020), eq. 13.
    """
    if not deviation > 0 or levels < 2:
        raise ValueError(f"discretised_gaussian: expected σ > 0 and levels ≥ 2, got {deviation} and {levels}")
    δ = 1 / (levels - 1)
    Φ = lambda z: 0.5 * (1 + erf(z * (1 / (deviation * math.sqrt(2)))))
    # Mirrored so that both Φ are of the lower tail, where float keeps their difference: Φ(b) − Φ(a) = Φ(−a) − Φ(−b).
    above = ge(x, mean)
    near = where(above, mean - x, x - mean)
    first = where(above, ge(x, 1 - δ), le(x, -1 + δ))  # the bin reaches to infinity on the far side
    last = where(above, le(x, -1 + δ), ge(x, 1 - δ))
    upper = where(last, 1.0, Φ(near + δ))
    lower = where(first, 0.0, Φ(near - δ))
    return log(clamp(upper - lower, LEAST))


@no_grad()
def bits_per_dimension(
    model: DDPM,
    x: Tensor,
    y: Tensor | None = None,
    levels: int = 256,
    passes: int | None = None,
    deviation: float | None = None,
    rng: Generator | None = None,
) -> dict[str, float]:
    """(L_T + Σ_t L_{t−1} + L_0)/(D·ln 2) ≥ −log₂ p(x)/D: the bound for each of D pixels, averaged over the images.

    Args:
        x: images (N, *shape) on the ``levels`` grey levels of the model's value_range.
        y: their classes, for −log₂ p(x | y).
        levels: 256 for bytes; the bundled digits have 17 (0, 1/16, …, 1).
        passes: None goes through all T steps. k takes k steps for each image instead, spread evenly over 2 … T from a
            random start: unbiased, and T/k times as quick.
        deviation: σ of the last step's Gaussian; √β̃₂ where omitted, as β̃₁ = 0.
        rng: draws the noise and the steps.

    Returns:
        "bits per dimension", and its parts "prior" L_T, "diffusion" ΣL_{t−1} and "reconstruction" L_0, same unit.

    Raises:
        ValueError: the model has no value_range; a shape does not fit; passes < 1; no image.

    Source: Ho et al. (2020), table 1; Nichol & Dhariwal (2021), section 3.3 for few steps.
    """
    if model.value_range is None:
        raise ValueError("bits_per_dimension: the model has no value_range, so its data have no grey levels")
    if x.shape[0] < 1 or (passes is not None and passes < 1):
        raise ValueError(f"bits_per_dimension: expected images and passes ≥ 1, got {x.shape} and passes={passes}")
    schedule, x0, n = model.schedule, model.encode(x), x.shape[0]
    unit = 1 / (math.log(2) * math.prod(model.shape))

    def denoised(t: Tensor | int) -> Tensor:
        return model.x0_hat(add_noise(schedule, x0, t, randn_like(x0, rng=rng)), t, y)

    σ = math.sqrt(schedule.beta_tilde[2] if schedule.T > 1 else schedule.beta[1]) if deviation is None else deviation
    reconstruction = -discretised_gaussian(x0, denoised(1), σ, levels).mean().item() * math.prod(model.shape)
    inner = schedule.T - 1
    total = 0.0
    if passes is None:
        total = sum(step_nats(schedule, x0, denoised(t), t).mean().item() for t in range(2, schedule.T + 1))
    elif inner:
        # From one random start all around the circle: each image's steps alone are uniform.
        u = rand(1, rng=rng, dtype=float64, device=x.device) + arange(n, dtype=float64, device=x.device) / n
        for k in range(passes):
            place = u + k / passes
            t = clamp(floor((place - floor(place)) * inner) + 2, max=schedule.T).to("int64")
            total += step_nats(schedule, x0, denoised(t), t).mean().item() * inner / passes
    parts = {"prior": prior_nats(schedule, x0).mean().item(), "diffusion": total, "reconstruction": reconstruction}
    return {name: value * unit for name, value in {"bits per dimension": sum(parts.values()), **parts}.items()}


def best_deviation(model: DDPM, x: Tensor, y: Tensor | None = None, rng: Generator | None = None) -> float:
    """σ = √mean (x₀ − x̂₀(x₁))²: that of the last step under which images are likeliest. Take it from training data.

    Source: the maximum-likelihood variance of a Gaussian; Nichol & Dhariwal (2021) learn it instead.
    """
    x0 = model.encode(x)
    x1 = add_noise(model.schedule, x0, 1, randn_like(x0, rng=rng))
    difference = x0 - model.x0_hat(x1, full((x.shape[0],), 1, dtype="int64", device=x.device), y)
    return math.sqrt((difference * difference).mean().item())
