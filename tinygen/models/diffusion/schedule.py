"""Noise schedules: how much of the image is left after t steps.

A diffusion adds a little Gaussian noise T times, x_t = √α_t·x_{t−1} + √β_t·ε_t with α_t = 1 − β_t. Gaussians add up, so
that all t steps can be made at once:

    x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε,      ᾱ_t = α₁ α₂ ⋯ α_t,      SNR_t = ᾱ_t / (1 − ᾱ_t).

Looking back from x_t, with x₀ known, the step before is Gaussian too (Bayes' rule on q(x_t | x_{t−1}) q(x_{t−1} | x₀)):

    q(x_{t−1} | x_t, x₀) = N(c₁·x₀ + c₂·x_t,  β̃_t I)
    1/β̃ = α/β + 1/(1 − ᾱ_{t−1})            precisions add
    β̃   = β·(1 − ᾱ_{t−1})/(1 − ᾱ_t)
    c₁  = √ᾱ_{t−1}·β/(1 − ᾱ_t)             what x₀ says
    c₂  = √α·(1 − ᾱ_{t−1})/(1 − ᾱ_t)       what x_t says

Steps are counted as in the papers: t = 1 … T are noisy, t = 0 is the image itself (ᾱ₀ = 1, no noise).
Everything is computed in float64 on the host, once, and read in the dtype of the images.

Source: Ho, Jain & Abbeel, *Denoising Diffusion Probabilistic Models* (2020), eq. 4, 6 and 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygen.creation import full, tensor
from tinygen.tensor import Tensor

CLIP = 0.999  # no step may take away more than this share of the variance: Nichol & Dhariwal (2021), section 3.2


class NoiseSchedule:
    """β₁ … β_T, α_t = 1 − β_t, ᾱ_t = α₁⋯α_t and all that follows: arrays (T + 1) whose entry 0 is the image itself.

    Args:
        beta: β₁ … β_T, each 0 < β ≤ 1; only the last may be 1 (nothing of the image is left: SNR_T = 0).
        times: what a network is told instead of t, on the scale of 0 to 1000 whatever T is; 1000·t/T where omitted.

    Attributes:
        T: the number of steps.
        beta, alpha, alpha_bar: β_t, α_t, ᾱ_t, with β₀ = 0, α₀ = ᾱ₀ = 1.
        beta_tilde: β̃_t, the posterior's variance; β̃₁ = 0, since x₀ is known.
        c1, c2: the posterior mean's coefficients of x₀ and x_t; c₁ = 1 and c₂ = 0 at t = 1.
        signal, noise: √ᾱ_t and √(1 − ᾱ_t): x_t = signal·x₀ + noise·ε.
        snr: SNR_t, ∞ at t = 0.

    Raises:
        ValueError: a β is out of range, or times does not have T rising entries.

    Source: Ho et al. (2020), eq. 4, 6, 7.
    """

    def __init__(self, beta: Sequence[float] | np.ndarray, times: Sequence[float] | np.ndarray | None = None) -> None:
        β = np.concatenate([[0.0], np.asarray(beta, np.float64).reshape(-1)])
        T = len(β) - 1
        if T < 1 or not (np.isfinite(β).all() and (β[1:] > 0).all() and (β[1:T] < 1).all() and β[T] <= 1):
            raise ValueError(f"NoiseSchedule: expected β₁ … β_T with 0 < β < 1 (β_T = 1 may be), got {_short(β[1:])}")
        self.T = T
        self.times = np.arange(1, T + 1) * 1000.0 / T if times is None else np.asarray(times, np.float64).reshape(-1)
        if self.times.shape != (T,) or not (np.diff(self.times, prepend=0) > 0).all():
            raise ValueError(f"NoiseSchedule: expected {T} rising times above 0, got " + _short(self.times))
        self.times = np.concatenate([[0.0], self.times])
        self.beta, self.alpha = β, 1 - β
        self.alpha_bar = np.cumprod(self.alpha)
        A, P = self.alpha_bar, np.concatenate([[1.0], self.alpha_bar[:-1]])
        self.signal, self.noise = np.sqrt(A), np.sqrt(1 - A)
        variance = np.where(A < 1, 1 - A, 1.0)  # at t = 0, where 1 − ᾱ is 0, nothing is divided by it
        self.beta_tilde = β * (1 - P) / variance
        self.c1, self.c2 = np.sqrt(P) * β / variance, np.sqrt(self.alpha) * (1 - P) / variance
        self.c1[:2] = 1.0  # 1 − ᾱ₁ is β₁ but for rounding
        self.snr = np.concatenate([[math.inf], A[1:] / variance[1:]])
        self._tables: dict[Any, Tensor] = {}
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    # -- the schedules of the papers

    @classmethod
    def linear(cls, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """β rises evenly from ``start`` to ``end``, times 1000/T: the same total noise in T steps as in 1000.

        β_t = (1000/T)·[start + (end − start)(t − 1)/(T − 1)].

        The two numbers were chosen for T = 1000. Left as they are at T = 200 they would leave √ᾱ_T = 0.36 of the image,
        and sampling would begin from what training never saw; at T ≤ 20 the scaled β_T would reach 1.

        Raises:
            ValueError: T ≤ 20, or a β out of range.

        Source: Ho et al. (2020), section 4; the scaling is that of Dhariwal & Nichol (2021).
        """
        T = _steps("linear", T)
        if T <= 20:
            raise ValueError(
                f"NoiseSchedule.linear: expected T > 20, got {T}: scaled by 1000/T, β_T would be {end * 1000 / T:.3g}. "
                "Take .cosine(T), or train with more steps and sample with fewer"
            )
        return cls(np.linspace(start, end, T) * (1000 / T))

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008) -> NoiseSchedule:
        """ᾱ_t = f(t)/f(0),  f(t) = cos²( (t/T + s)/(1 + s) · π/2 ),  and no β above 0.999.

        It destroys the image more slowly at both ends than the linear one. f(T) = 0, so that β_T would be 1 and
        1/√ᾱ_T infinite: that is what the clipping prevents.

        Raises:
            ValueError: T < 1 or s < 0.

        Source: Nichol & Dhariwal, *Improved Denoising Diffusion Probabilistic Models* (2021), eq. 17.
        """
        T = _steps("cosine", T)
        if not 0 <= s < math.inf:
            raise ValueError(f"NoiseSchedule.cosine: expected s ≥ 0, got {s}")
        f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * (math.pi / 2)) ** 2
        return cls.from_alpha_bar(f / f[0])

    @classmethod
    def sigmoid(cls, T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> NoiseSchedule:
        """ᾱ_t = (σ(end/τ) − σ(u_t/τ)) / (σ(end/τ) − σ(start/τ)),  u_t = start + (end − start)·t/T,  no β above 0.999.

        Raises:
            ValueError: T < 1, start ≥ end or tau ≤ 0.

        Source: Jabri, Fleet & Chen, *Scalable Adaptive Computation for Iterative Generation* (2022), algorithm 2.
        """
        T = _steps("sigmoid", T)
        if not start < end or not 0 < tau < math.inf:
            raise ValueError(f"NoiseSchedule.sigmoid: expected start < end and tau > 0, got {start}, {end}, {tau}")
        σ = lambda u: 1 / (1 + np.exp(-u / tau))
        u = np.linspace(start, end, T + 1)
        return cls.from_alpha_bar((σ(end) - σ(u)) / (σ(end) - σ(start)))

    @classmethod
    def from_alpha_bar(
        cls, alpha_bar: Sequence[float] | np.ndarray, clip: float = CLIP, times: Any = None
    ) -> NoiseSchedule:
        """The schedule with these ᾱ₀ = 1, ᾱ₁, …, ᾱ_T:  β_t = min(1 − ᾱ_t/ᾱ_{t−1}, clip).

        Args:
            alpha_bar: T + 1 falling numbers from 1 to 0 or more.
            clip: no β above it, but for ``clip=1``, which lets ᾱ_T be 0.
            times: as in :class:`NoiseSchedule`.

        Raises:
            ValueError: they do not begin with 1 or do not fall.
        """
        A = np.asarray(alpha_bar, np.float64).reshape(-1)
        if len(A) < 2 or A[0] != 1 or not (np.diff(A) < 0).all() or not A[-1] > -1e-12:
            raise ValueError("from_alpha_bar: expected ᾱ₀ = 1 and numbers falling towards 0, got " + _short(A))
        return cls(np.minimum(1 - np.maximum(A[1:], 0) / A[:-1], clip), times)

    # -- schedules made from this one

    def zero_terminal_snr(self) -> NoiseSchedule:
        """The same schedule shifted and stretched so that nothing of the image is left at T.

        √ᾱ'_t = (√ᾱ_t − √ᾱ_T)·√ᾱ₁/(√ᾱ₁ − √ᾱ_T): ᾱ₁ stays, ᾱ_T becomes 0. A network that predicts ε learns nothing of
        x₀ at t = T then; use it with ``target="v"`` or ``"x0"``.

        Raises:
            ValueError: there is but one step.

        Source: Lin, Liu, Li & Yang, *Common Diffusion Noise Schedules and Sample Steps are Flawed* (2024), algorithm 1.
        """
        if self.T < 2:
            raise ValueError("zero_terminal_snr: expected at least two steps, got 1")
        r = np.sqrt(self.alpha_bar)
        r = (r - r[-1]) * (r[1] / (r[1] - r[-1]))
        r[0] = 1.0
        return self.from_alpha_bar(r**2, clip=1.0, times=self.times[1:])

    def respace(self, steps: int | Sequence[int]) -> NoiseSchedule:
        """The diffusion seen only at some of its steps τ₁ < τ₂ < … : ᾱ'_k = ᾱ_{τ_k},  β'_k = 1 − ᾱ_{τ_k}/ᾱ_{τ_{k−1}}.

        A model trained with T steps samples with the shorter schedule; ``times`` keeps what the network is told.

        Args:
            steps: how many, spread evenly up to T (see :func:`spaced`), or the rising steps themselves.

        Raises:
            ValueError: they are not rising, or not between 1 and T.

        Source: Nichol & Dhariwal (2021), section 4, eq. 19.
        """
        τ = np.array(spaced(self.T, steps))
        return self.from_alpha_bar(self.alpha_bar[np.r_[0, τ]], clip=1.0, times=self.times[τ])

    # -- reading it

    def at(self, name: str, t: Tensor | int, x: Tensor) -> Tensor | float:
        """The quantity of this name at step t, to multiply x with: a Python number, or one for each example.

        Shapes: t an integer → a float; t (N) of integers in 0 … T, x (N, …) → (N, 1, …, 1) of x's dtype, on its device.

        Args:
            name: an attribute: ``"beta"``, ``"alpha_bar"``, ``"signal"``, ``"noise"``, ``"snr"``, ``"c1"``, …

        Raises:
            IndexError: t is not in 0 … T.
        """
        if not isinstance(t, Tensor):
            self._check(t)
            return float(getattr(self, name)[t])
        return self._table(name, x.dtype, x.device)[t].reshape(-1, *[1] * (x.ndim - 1))

    def time(self, t: Tensor | int, x: Tensor) -> Tensor:
        """What a network is told at step t, 0 … 1000 whatever T is: an integer or (N) of integers → (N), x's dtype."""
        if not isinstance(t, Tensor):
            self._check(t)
            return full((x.shape[0],), float(self.times[t]), dtype=x.dtype, device=x.device)
        return self._table("times", x.dtype, x.device)[t]

    def _table(self, name: str, dtype: Any, device: Any) -> Tensor:
        """The float64 numbers as a tensor; made once for each dtype and device."""
        key = (name, str(dtype), str(device))
        if key not in self._tables:
            self._tables[key] = tensor(getattr(self, name), dtype=dtype, device=device)
        return self._tables[key]

    def _check(self, t: int) -> None:
        if not 0 <= t <= self.T:
            raise IndexError(f"expected a step t from 0 to T = {self.T}, got {t}")

    def __repr__(self) -> str:
        return f"NoiseSchedule(T={self.T}, β {self.beta[1]:.3g} … {self.beta[-1]:.3g}, ᾱ_T = {self.alpha_bar[-1]:.3g})"


def spaced(T: int, steps: int | Sequence[int]) -> list[int]:
    """The steps τ₁ < … < τ_S = T to sample at: S of them, τ_k = round(k·T/S), or those given, checked.

    The last is T, where sampling begins; what comes after the first is the image, t = 0, which is no step.

    Raises:
        ValueError: S is not in 1 … T, or the steps do not rise within 1 … T.

    Source: Song, Meng & Ermon, *Denoising Diffusion Implicit Models* (2021), appendix D.2, with the T-th step kept.
    """
    if isinstance(steps, (int, np.integer)):
        if not 1 <= steps <= T:
            raise ValueError(f"steps: expected a number from 1 to T = {T}, got {steps}")
        return [int(round(k * T / steps)) for k in range(1, steps + 1)]
    τ = [int(step) for step in steps]
    if not τ or τ[0] < 1 or τ[-1] > T or any(a >= b for a, b in zip(τ[:-1], τ[1:], strict=True)):
        raise ValueError(f"steps: expected rising steps between 1 and T = {T}, got {τ}")
    return τ


def _steps(who: str, T: int) -> int:
    if isinstance(T, bool) or not isinstance(T, (int, np.integer)) or T < 1:
        raise ValueError(f"NoiseSchedule.{who}: expected a whole number of steps T ≥ 1, got {T!r}")
    return int(T)


def _short(values: np.ndarray) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:4])
    return f"[{shown}{', …, ' + format(values[-1], '.4g') if len(values) > 4 else ''}] ({len(values)} numbers)"
