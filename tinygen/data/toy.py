"""Named two-dimensional data sets: small enough to see at a glance what a model has learned.

ring  grid  checkerboard  moons  spirals  swiss_roll  pinwheel
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.data.dataset import Dataset
from tinygen.data.densities import (
    Checkerboard,
    Curve,
    Density,
    GaussianMixture,
    NoisyCurves,
    Pinwheel,
    require_positive,
)
from tinygen.random import Generator


def toy(name: str, n: int, rng: Generator | None = None, **options: Any) -> Dataset:
    """Draw n points of a named 2-D density.

    Args:
        name: one of ``toy_names()``.
        n: how many points, ≥ 0.
        rng: a ``tg.Generator``; None takes the default one.
        options: those of the density, such as ``std=0.1``: see the function of that name in this file, or the
            class ``Checkerboard`` or ``Pinwheel``.

    Returns:
        A Dataset: x float32 (n, 2), and y int64 (n,), the component, square, arm or petal of each point.

    Raises:
        ValueError: no density has this name, an option is out of its range, or n is negative or not whole.
        TypeError: the density has no such option, or rng is not a ``tg.Generator``.
    """
    density = toy_density(name, **options)
    x, y = density.sample_with_labels(n, rng)
    return Dataset(x, y, name, tuple(f"{name} {part}" for part in range(density.n_parts)))


def toy_density(name: str, **options: Any) -> Density:
    """The density behind ``toy(name, n, **options)``, with its ``sample`` and ``log_prob``.

    Raises:
        ValueError: no density has this name, or an option is out of its range.
        TypeError: the density has no such option.
    """
    if name not in DENSITIES:
        raise ValueError(f"there is no toy density {name!r}; there are {', '.join(DENSITIES)}")
    return DENSITIES[name](**options)


def toy_names() -> tuple[str, ...]:
    """The names that ``toy`` and ``toy_density`` know."""
    return tuple(DENSITIES)


def ring(k: int = 8, radius: float = 2.0, std: float = 0.02) -> GaussianMixture:
    """k equal Gaussians on a circle: μ_j = r (cos 2πj/k, sin 2πj/k), Σ = σ²I.

    The test of whether a GAN finds all ``modes``.

    Raises:
        ValueError: k < 1, radius < 0 or std ≤ 0.

    Source: the defaults are those of Metz et al. 2017, *Unrolled Generative Adversarial Networks*, appendix A.
    """
    require_positive("ring", k=k, std=std)
    if not 0 <= radius < math.inf:
        raise ValueError(f"ring: radius must be at least 0, got {radius}")
    angle = 2 * np.pi * np.arange(k) / k
    return _equal_gaussians(radius * np.stack([np.cos(angle), np.sin(angle)], 1), std)


def grid(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> GaussianMixture:
    """side² equal Gaussians on a square lattice around 0, Σ = σ²I.

    Raises:
        ValueError: side < 1, spacing ≤ 0 or std ≤ 0.

    Source: the 25 of Srivastava et al. 2017, *VEEGAN*.
    """
    require_positive("grid", side=side, spacing=spacing, std=std)
    at = spacing * (np.arange(side) - (side - 1) / 2)
    return _equal_gaussians(np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2), std)


def moons(std: float = 0.1) -> NoisyCurves:
    """Two half circles that hold each other: (cos t, sin t) and (1 − cos t, ½ − sin t), t ∈ [0, π], σ = std.

    Raises:
        ValueError: std ≤ 0.

    Source: scikit-learn's ``make_moons``.
    """

    def outer(t: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(t), np.sin(t)], 1)

    def inner(t: np.ndarray) -> np.ndarray:
        return np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)

    return NoisyCurves([outer, inner], (0.0, math.pi), std)


def spirals(k: int = 2, turns: float = 1.5, radius: float = 3.0, std: float = 0.1) -> NoisyCurves:
    """k Archimedean arms: c_j(s) = r s (cos φ, sin φ), φ = 2π (turns·s + j/k), s = √t, t ∈ [0.01, 1], σ = std.

    The length of an arm grows about as s², so points uniform in t = s² lie about equally dense along it.

    Raises:
        ValueError: k < 1, turns ≤ 0, radius ≤ 0 or std ≤ 0.
    """
    require_positive("spirals", k=k, turns=turns, radius=radius, std=std)

    def arm(j: int) -> Curve:
        def c(t: np.ndarray) -> np.ndarray:
            s = np.sqrt(t)
            φ = 2 * np.pi * (turns * s + j / k)
            return radius * s[:, None] * np.stack([np.cos(φ), np.sin(φ)], 1)

        return c

    return NoisyCurves([arm(j) for j in range(k)], (0.01, 1.0), std)


def swiss_roll(std: float = 0.1) -> NoisyCurves:
    """A rolled-up sheet seen from its end: c(t) = t (cos t, sin t)/5, t ∈ [3π/2, 9π/2], σ = std.

    Raises:
        ValueError: std ≤ 0.

    Source: scikit-learn's ``make_swiss_roll`` without the axis along the roll, divided by 5.
    """

    def c(t: np.ndarray) -> np.ndarray:
        return t[:, None] / 5 * np.stack([np.cos(t), np.sin(t)], 1)

    return NoisyCurves([c], (1.5 * math.pi, 4.5 * math.pi), std)


DENSITIES: dict[str, Callable[..., Density]] = {
    "ring": ring,
    "grid": grid,
    "checkerboard": Checkerboard,
    "moons": moons,
    "spirals": spirals,
    "swiss_roll": swiss_roll,
    "pinwheel": Pinwheel,
}


def _equal_gaussians(means: np.ndarray, std: float) -> GaussianMixture:
    return GaussianMixture(means, np.tile(std**2 * np.eye(2), (len(means), 1, 1)))
