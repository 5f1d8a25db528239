"""What the network may be asked for: the noise, the image, or v; each is as good as the others, and gives the others.

    x_t = a·x₀ + s·ε,    a = √ᾱ_t,  s = √(1 − ᾱ_t),  a² + s² = 1

    "epsilon"   ε                      x₀ = (x_t − s·ε)/a         breaks down as a → 0
    "x0"        x₀                     ε = (x_t − a·x₀)/s         breaks down as s → 0
    "v"         v = a·ε − s·x₀         x₀ = a·x_t − s·v           breaks down nowhere

(x_t, v) is (x₀, ε) turned by an angle φ with cos φ = a and sin φ = s, hence x_t² + v² = x₀² + ε². An error of one is an
error of the others: SNR·‖Δx₀‖² = ‖Δε‖² = ‖Δv‖²·SNR/(1 + SNR).

Source: Ho et al. (2020), eq. 4, 9 and 15; Salimans & Ho, *Progressive Distillation* (2022), section 4 and appendix D.
"""

from __future__ import annotations

from tinygen.models.diffusion.schedule import NoiseSchedule
from tinygen.tensor import Tensor

TARGETS = ("epsilon", "x0", "v")


def add_noise(schedule: NoiseSchedule, x0: Tensor, t: Tensor | int, epsilon: Tensor) -> Tensor:
    """x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε, a draw from q(x_t | x₀) where ε ~ N(0, I); t = 0 gives x₀.

    Shapes: x₀ and ε (N, …), t (N) of integers or one integer in 0 … T → (N, …).

    Raises:
        IndexError: t is out of range.

    Source: Ho et al. (2020), eq. 4.
    """
    return schedule.at("signal", t, x0) * x0 + schedule.at("noise", t, x0) * epsilon


def target_of(schedule: NoiseSchedule, target: str, x0: Tensor, t: Tensor | int, epsilon: Tensor) -> Tensor:
    """What the network should say: ε, x₀, or v = √ᾱ_t·ε − √(1 − ᾱ_t)·x₀.

    Raises:
        ValueError: the target is none of ``TARGETS``.
    """
    check_target(target, schedule)
    if target == "epsilon":
        return epsilon
    if target == "x0":
        return x0
    return schedule.at("signal", t, x0) * epsilon - schedule.at("noise", t, x0) * x0


def to_x0(schedule: NoiseSchedule, target: str, output: Tensor, t: Tensor | int, x_t: Tensor) -> Tensor:
    """x̂₀ = (x_t − s·ε̂)/a, the output itself, or a·x_t − s·v̂: the clean image that the network's output means.

    Raises:
        ValueError: the target is none of ``TARGETS``.
    """
    check_target(target, schedule)
    if target == "x0":
        return output
    a, s = schedule.at("signal", t, x_t), schedule.at("noise", t, x_t)
    if target == "epsilon":
        return (x_t - s * output) / a
    return a * x_t - s * output


def to_epsilon(schedule: NoiseSchedule, x0: Tensor, t: Tensor | int, x_t: Tensor) -> Tensor:
    """ε = (x_t − √ᾱ_t·x₀)/√(1 − ᾱ_t): the noise that makes x_t of x₀, for t ≥ 1.

    After x̂₀ was clamped, ε̂ must be taken from it anew, or the two would no longer make x_t.
    """
    return (x_t - schedule.at("signal", t, x_t) * x0) / schedule.at("noise", t, x_t)


def check_target(target: str, schedule: NoiseSchedule) -> None:
    """Refuse a target that there is not, and ε where x_T is pure noise, which says nothing of x₀.

    Raises:
        ValueError: one of the two.
    """
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    if target == "epsilon" and schedule.alpha_bar[-1] == 0:
        raise ValueError('target="epsilon" cannot give x₀ where ᾱ_T = 0 (it divides by √ᾱ_T): take "v" or "x0"')
