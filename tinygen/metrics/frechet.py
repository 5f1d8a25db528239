"""The Fréchet distance between two clouds of features, and how large it is between two halves of one.

Fit a Gaussian to each cloud. The Fréchet distance (the Wasserstein-2 distance) between the two Gaussians is

    d² = ‖μ_a − μ_b‖² + tr(C_a + C_b − 2 (C_a^½ C_b C_a^½)^½)

and d² is what "FID" names, and what is called the distance here. Zero means equal means and covariances.

Computed without a square root of a matrix that is not symmetric: with S = C_a^½ and T = C_b^½ from eigenvalues,

    (S C_b S)^½ = (S T · (S T)ᵀ)^½,    whose trace is Σ σᵢ(S T),    the sum of the singular values.

Nothing is inverted, so covariances of few samples or of dead features are no trouble, and no root is taken of an
eigenvalue that should be 0 and is −10⁻¹⁶.

*Few samples bias it upwards.* Two clouds of n points from one distribution in ℝᵈ are at a distance > 0 that falls like
1/n (Bińkowski et al. 2018, §4; Chong & Forsyth 2020). So a figure means something only beside two others: the number
of samples, and :func:`frechet_floor`, the distance between two halves of the real data.

Source: Heusel et al., *GANs Trained by a Two Time-Scale Update Rule …* (2017), eq. 6; Dowson & Landau (1982).
"""

from __future__ import annotations

from typing import Any

from tinygen.backend import array_module
from tinygen.metrics.points import as_pair, as_points, shuffled
from tinygen.random import Generator


def frechet_distance(a: Any, b: Any) -> float:
    """d² = ‖μ_a − μ_b‖² + tr(C_a + C_b − 2 (C_a^½ C_b C_a^½)^½), with C the unbiased covariances (n − 1).

    Args:
        a, b: features (N, d) and (M, d), N, M ≥ 2: Tensors or arrays.

    Returns:
        d² ≥ 0, in squared units of the features.

    Raises:
        TypeError, ValueError: they are not features of one length, hold nan, or are fewer than two.
        DeviceError: they are on two devices.

    Source: Heusel et al. (2017), eq. 6.
    """
    a, b = as_pair(a, b, "frechet_distance", ("a", "b"), least=2)
    return _distance(a, b)


def frechet_floor(features: Any, size: int | None = None, repeats: int = 20, rng: Generator | None = None) -> float:
    """d²_floor = E d²(half, other half): between two disjoint random halves, as perfect samples would get it.

    Averaged over ``repeats`` splits of one set of features.

    Args:
        features: (N, d), of real images.
        size: the number in each part, ⌊N/2⌋ where omitted. The bias depends on it: a floor is one for distances
            between as many.
        repeats: how many splits.
        rng: what splits.

    Raises:
        TypeError, ValueError: as :func:`frechet_distance`; size is not in 2 … N/2; repeats < 1.
    """
    points = as_points(features, "frechet_floor", "features", least=4)
    n = len(points)
    size = n // 2 if size is None else size
    if not 2 <= size <= n // 2:
        raise ValueError(f"frechet_floor: expected 2 ≤ size ≤ {n // 2}, half of the {n} points, got {size}")
    _check_repeats(repeats, "frechet_floor")
    total = 0.0
    for _ in range(repeats):
        order = array_module(points).asarray(shuffled(n, rng))
        total += _distance(points[order[:size]], points[order[size : 2 * size]])
    return total / repeats


def frechet_between(a: Any, b: Any, size: int, repeats: int = 20, rng: Generator | None = None) -> float:
    """d̄² = E d²(a_i, b_j) with ``size`` random points of each cloud, averaged over ``repeats`` draws.

    With the ``size`` of :func:`frechet_floor` the two have the same bias, and their ratio is 1 for perfect samples;
    where every point is used, more samples make a smaller bias and the ratio flatters.

    Args:
        a, b: features (N, d) and (M, d).
        size: from 2 up to the smaller of N and M.
        repeats, rng: how many draws, and what draws.

    Raises:
        TypeError, ValueError: as :func:`frechet_distance`; size is out of range; repeats < 1.
    """
    a, b = as_pair(a, b, "frechet_between", ("a", "b"), least=2)
    if not 2 <= size <= min(len(a), len(b)):
        raise ValueError(f"frechet_between: expected 2 ≤ size ≤ {min(len(a), len(b))}, got {size}")
    _check_repeats(repeats, "frechet_between")
    xp = array_module(a)
    total = 0.0
    for _ in range(repeats):
        some, others = xp.asarray(shuffled(len(a), rng)[:size]), xp.asarray(shuffled(len(b), rng)[:size])
        total += _distance(a[some], b[others])
    return total / repeats


def _check_repeats(repeats: int, who: str) -> None:
    if repeats < 1:
        raise ValueError(f"{who}: expected repeats ≥ 1, got {repeats}")


def _distance(a: Any, b: Any) -> float:
    xp = array_module(a)
    difference = a.mean(axis=0) - b.mean(axis=0)
    C_a, C_b = _covariance(a), _covariance(b)
    σ = xp.linalg.svd(_root(C_a) @ _root(C_b), compute_uv=False)
    d2 = difference @ difference + xp.trace(C_a) + xp.trace(C_b) - 2 * σ.sum()
    return max(float(d2), 0.0)  # rounding may leave −10⁻¹⁵ for equal clouds


def _covariance(x: Any) -> Any:
    """C = Σ (x − μ)(x − μ)ᵀ / (n − 1)."""
    centred = x - x.mean(axis=0)
    return centred.T @ centred / (len(x) - 1)


def _root(C: Any) -> Any:
    """C^½ = V diag(√λ) Vᵀ of a symmetric C ≥ 0; eigenvalues that rounding made negative are 0."""
    xp = array_module(C)
    λ, V = xp.linalg.eigh(C)
    return (V * xp.sqrt(xp.maximum(λ, 0))) @ V.T
