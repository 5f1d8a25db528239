"""Densities of points, mostly in the plane: draw from them, and where it is known compute log p.

    GaussianMixture   p(x) = Σ_k π_k N(x; μ_k, Σ_k)
    Checkerboard      p(x) = 1/32 on 8 of the 16 squares of [−4, 4]²
    NoisyCurves       p(x) = 1/(K(b−a)) Σ_k ∫ₐᵇ N(x; c_k(t), σ²I) dt
    Pinwheel          samples only

Everything is computed by NumPy on the CPU in float64; samples are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.data.draws import HostDraws
from tinygen.random import Generator

Curve = Callable[[np.ndarray], np.ndarray]

CHUNK_ENTRIES = 1 << 20  # entries of one points × components table: 8 MiB of float64


class Density:
    """A distribution of points (N, D), with its log density where that is known.

    Attributes:
        dim: D.
        n_parts: how many components, squares, arms or petals the labels tell apart.
    """

    dim = 2
    n_parts = 1

    def sample_with_labels(self, n: int, rng: Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw n independent points, and say which part each came from.

        Args:
            n: how many, ≥ 0.
            rng: a ``tg.Generator``; None takes the default one.

        Returns:
            Points float32 (n, D), and parts int64 (n,) in 0..n_parts−1.

        Raises:
            ValueError: n is negative or not whole.
            TypeError: rng is not a ``tg.Generator``.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"the number of points must be a whole number >= 0, got {n!r}")
        x, part = self._draw(int(n), HostDraws(rng))
        return x.astype(np.float32), part.astype(np.int64)

    def sample(self, n: int, rng: Generator | None = None) -> np.ndarray:
        """Draw n independent points, float32 (n, D); arguments and errors of ``sample_with_labels``."""
        return self.sample_with_labels(n, rng)[0]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p(x) in nats, (N, D) -> (N,), of x's own dtype.

        It is −∞ outside the support and at infinity, and NaN where x holds a NaN.

        Raises:
            NotImplementedError: the density has no known form.
            ValueError: x is not (N, D).
            TypeError: x is not floating.
        """
        x = np.asarray(x)
        if not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"points must be floating, got {x.dtype}; convert first with .astype(np.float32)")
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"points must have shape (N, {self.dim}), got {x.shape}")
        log_p = np.where(np.isnan(x).any(1), np.nan, -np.inf)
        finite = np.isfinite(x).all(1)
        log_p[finite] = self._log_prob(x[finite].astype(np.float64))
        return log_p.astype(x.dtype)

    def _draw(self, n: int, draw: HostDraws) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} has no known log density; it can only be sampled")


class GaussianMixture(Density):
    """p(x) = Σ_k π_k N(x; μ_k, Σ_k), in any number of dimensions.

    Args:
        means: μ, (K, D).
        covs: Σ, (K, D, D), each symmetric positive definite.
        weights: π, (K,), positive, of sum 1; None means 1/K each.

    All three are kept as float64 attributes.

    Raises:
        ValueError: the shapes do not fit, a covariance is not symmetric positive definite, or the weights are
            not positive with sum 1.
    """

    def __init__(self, means: Any, covs: Any, weights: Any = None) -> None:
        μ, Σ = np.array(means, np.float64), np.array(covs, np.float64)
        if μ.ndim != 2 or 0 in μ.shape:
            raise ValueError(f"means must have shape (K, D), both at least 1, got {μ.shape}")
        K, D = μ.shape
        if Σ.shape != (K, D, D):
            raise ValueError(f"with means of shape (K, D) = {μ.shape}, covs must have shape {(K, D, D)}, got {Σ.shape}")
        π = np.full(K, 1 / K) if weights is None else np.array(weights, np.float64)
        if π.shape != (K,) or not (π > 0).all() or not math.isclose(π.sum(), 1, abs_tol=1e-9):
            raise ValueError(f"weights must be {K} positive numbers that sum to 1, got {weights}")
        if not np.isfinite(μ).all() or not np.allclose(Σ, Σ.mT):
            raise ValueError("every mean must be finite and every covariance symmetric")
        try:
            self._L = np.linalg.cholesky(Σ)  # Σ = L Lᵀ
        except np.linalg.LinAlgError:
            raise ValueError("every covariance must be positive definite") from None
        self.means, self.covs, self.weights = μ, Σ, π
        self.dim, self.n_parts = D, K

    @property
    def modes(self) -> np.ndarray:
        """The centres of the components, float64 (K, D)."""
        return self.means

    def log_joint(self, x: np.ndarray) -> np.ndarray:
        """log π_k + log N(x; μ_k, Σ_k) for every component, (N, D) -> float64 (N, K).

        With Σ = L Lᵀ and u = L⁻¹(x − μ):  log N = −½‖u‖² − Σᵢ log Lᵢᵢ − ½ D log 2π.
        """
        x = np.asarray(x, np.float64)
        u = np.einsum("kij,nkj->nki", np.linalg.inv(self._L), x[:, None] - self.means)
        log_det = np.log(np.diagonal(self._L, axis1=1, axis2=2)).sum(1)
        return np.log(self.weights) - 0.5 * (u**2).sum(-1) - log_det - 0.5 * self.dim * math.log(2 * math.pi)

    def responsibilities(self, x: np.ndarray) -> np.ndarray:
        """p(k | x) = π_k N(x; μ_k, Σ_k) / p(x), (N, D) -> float64 (N, K); rows sum to 1."""
        joint = self.log_joint(x)
        return np.exp(joint - _logsumexp(joint)[:, None])

    def score(self, x: np.ndarray) -> np.ndarray:
        """∇ₓ log p(x) = Σ_k p(k | x) Σ_k⁻¹ (μ_k − x), (N, D) -> float64 (N, D)."""
        x = np.asarray(x, np.float64)
        pull = np.einsum("kij,nkj->nki", np.linalg.inv(self.covs), self.means - x[:, None])
        return (self.responsibilities(x)[..., None] * pull).sum(1)

    def _draw(self, n: int, draw: HostDraws) -> tuple[np.ndarray, np.ndarray]:
        # x = μ_k + L_k ε with ε ~ N(0, I), so that Cov[x | k] = L_k L_kᵀ = Σ_k
        k = np.searchsorted(np.cumsum(self.weights)[:-1], draw.uniform(n), side="right")
        ε = draw.normal(n, self.dim)
        return self.means[k] + np.einsum("nij,nj->ni", self._L[k], ε), k

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        return _in_chunks(lambda part: _logsumexp(self.log_joint(part)), x, self.n_parts * self.dim)


class Checkerboard(Density):
    """Uniform on the 8 dark squares of the 4×4 board [−4, 4]², so p = 1/(8·2²) = 1/32 there.

    A square in column i and row j (0..3 from the lower left) is dark when i + j is even; the squares are closed.
    No model can have a mean −log p below the entropy, ln 32 = 3.4657 nats.

    Source: the board of Grathwohl et al. 2019, *FFJORD*.
    """

    n_parts = 8
    entropy = math.log(32)  # nats
    corners = np.array([(2 * i - 4, 2 * j - 4) for j in range(4) for i in range(4) if (i + j) % 2 == 0], np.float64)

    def _draw(self, n: int, draw: HostDraws) -> tuple[np.ndarray, np.ndarray]:
        square = draw.integers(8, n)
        return self.corners[square] + 2 * draw.uniform(n, 2), square

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        low = self.corners
        dark = ((low <= x[:, None]) & (x[:, None] <= low + 2)).all(-1).any(-1)
        return np.where(dark, -self.entropy, -np.inf)


class NoisyCurves(Density):
    """Points on K plane curves, blurred: x = c_k(t) + σ ε, with k and t ∈ [a, b] uniform and ε ~ N(0, I).

    p(x) = 1/(K(b−a)) Σ_k ∫ₐᵇ N(x; c_k(t), σ²I) dt has no closed form. Gauss–Legendre quadrature gives log p to
    about 1e-6 within 6σ of a curve: 8 nodes on every stretch of curve of length at most 2σ.

    Args:
        curves: K functions c_k, (M,) -> (M, 2).
        span: (a, b), a < b.
        std: σ > 0.

    Raises:
        ValueError: no curves, a ≥ b, or σ ≤ 0.
    """

    def __init__(self, curves: Sequence[Curve], span: tuple[float, float], std: float) -> None:
        if not curves or not span[0] < span[1] or not 0 < std < math.inf:
            raise ValueError(
                f"expected at least one curve, a < b and std > 0, got {len(curves)} curves, (a, b) = {span} "
                f"and std={std}"
            )
        self.curves, self.span, self.std = tuple(curves), span, float(std)
        self.n_parts = len(self.curves)

    def _draw(self, n: int, draw: HostDraws) -> tuple[np.ndarray, np.ndarray]:
        a, b = self.span
        k = draw.integers(self.n_parts, n)
        t = a + (b - a) * draw.uniform(n)
        c = np.empty((n, 2))
        for part, curve in enumerate(self.curves):
            c[k == part] = curve(t[k == part])
        return c + self.std * draw.normal(n, 2), k

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        each = [self._log_prob_of(curve, x) for curve in self.curves]
        return np.logaddexp.reduce(each) - math.log(self.n_parts)

    def _log_prob_of(self, curve: Curve, x: np.ndarray) -> np.ndarray:
        (a, b), σ = self.span, self.std
        steps = 4096
        fastest = np.linalg.norm(np.diff(curve(np.linspace(a, b, steps + 1)), axis=0), axis=1).max() * steps
        panels = max(1, math.ceil(1.01 * fastest / (2 * σ)))  # at the fastest speed each is no longer than 2σ
        node, weight = np.polynomial.legendre.leggauss(8)
        t = a + (b - a) * (np.arange(panels)[:, None] + (node + 1) / 2).ravel() / panels
        log_w = np.log(np.tile(weight / 2, panels) / panels)  # w sums to 1: the mean over [a, b]
        c = curve(t)

        def log_mean_normal(part: np.ndarray) -> np.ndarray:
            distance2 = (part[:, :1] - c[:, 0]) ** 2 + (part[:, 1:] - c[:, 1]) ** 2
            return _logsumexp(log_w - distance2 / (2 * σ**2)) - math.log(2 * math.pi * σ**2)

        return _in_chunks(log_mean_normal, x, 2 * len(c))


class Pinwheel(Density):
    """k petals: a Gaussian stretched along the radius, then turned the further the further out it is.

        u = (1 + σ_r ε₁, σ_t ε₂),   θ = 2πj/k + rate·exp(u₁),   x = 2 R(θ) u

    with R(θ) the rotation by θ. The turning folds the plane, so the density has no simple form: samples only.

    Args:
        k: petals, a whole number ≥ 1.
        radial_std: σ_r > 0.
        tangential_std: σ_t > 0.
        rate: how fast the petals turn, in radians.

    Raises:
        ValueError: an argument is out of its range.

    Source: Johnson et al. 2016, *Composing graphical models with neural networks*.
    """

    def __init__(self, k: int = 5, radial_std: float = 0.3, tangential_std: float = 0.1, rate: float = 0.25) -> None:
        require_positive("pinwheel", k=k, radial_std=radial_std, tangential_std=tangential_std)
        self.n_parts, self.radial_std, self.tangential_std, self.rate = k, radial_std, tangential_std, rate

    def _draw(self, n: int, draw: HostDraws) -> tuple[np.ndarray, np.ndarray]:
        j = draw.integers(self.n_parts, n)
        u1, u2 = (draw.normal(n, 2) * (self.radial_std, self.tangential_std) + (1, 0)).T
        θ = 2 * np.pi * j / self.n_parts + self.rate * np.exp(u1)
        cos, sin = np.cos(θ), np.sin(θ)
        return 2 * np.stack([cos * u1 - sin * u2, sin * u1 + cos * u2], 1), j


def require_positive(what: str, **values: float) -> None:
    """Raise ValueError, naming the argument, unless every value is positive and finite, and counts are whole."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{what}: {name} must be positive, got {value}")
        if name in ("k", "side") and value != int(value):
            raise ValueError(f"{what}: {name} must be a whole number, got {value}")


def _logsumexp(a: np.ndarray) -> np.ndarray:
    """log Σ exp over the last axis; −∞ where every entry is −∞."""
    m = np.maximum(a.max(-1, keepdims=True), np.finfo(np.float64).min)  # −∞ − (−∞) would be NaN
    with np.errstate(divide="ignore"):
        return (m + np.log(np.exp(a - m).sum(-1, keepdims=True)))[..., 0]


def _in_chunks(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, width: int) -> np.ndarray:
    """f over blocks of rows, so that a points × width table stays small."""
    rows = max(1, CHUNK_ENTRIES // width)
    return np.concatenate([f(x[i : i + rows]) for i in range(0, max(len(x), 1), rows)])
