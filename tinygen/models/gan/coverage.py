"""Mode coverage: has a generator found all the modes of a mixture, and do its points lie on them?

Where the data are a mixture of well separated Gaussians N(μ_k, σ²I) with known centres, the two ways a GAN goes wrong
can be counted one by one: modes that it never makes (collapse), and points between the modes (low quality).

Source: Srivastava et al., *VEEGAN* (2017), section 4.1; Dumoulin et al., *Adversarially Learned Inference* (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.backend import to_numpy
from tinygen.tensor import Tensor


@dataclass(frozen=True)
class Coverage:
    """What :func:`mode_coverage` counted.

    Attributes:
        covered: how many modes have at least ``least`` points on them.
        modes: K, how many there are.
        high_quality: the share of points within the radius of some mode, in [0, 1].
        counts: (K,), the points on each mode.
        imbalance: KL(counts‖uniform) in nats: 0 where all modes are hit alike, ln K where one takes all; ∞ if none
            is hit at all.
    """

    covered: int
    modes: int
    high_quality: float
    counts: np.ndarray
    imbalance: float


def mode_coverage(points: Any, modes: Any, std: float, radius: float = 3.0, least: int = 1) -> Coverage:
    """n_k = #{x : ‖x − μ_k‖ ≤ rσ, μ_k the nearest mode}: count the points near each mode.

    Of true samples of one Gaussian in the plane the share 1 − e^(−r²/2) lies within r·σ: 98.9 % for r = 3.

    Args:
        points: (N, D), a Tensor or array.
        modes: μ, (K, D).
        std: σ > 0, of every mode.
        radius: r > 0, in units of σ.
        least: points that a mode needs to count as covered, ≥ 1.

    Returns:
        A :class:`Coverage`.

    Raises:
        ValueError: the shapes do not fit, there are no points, or std, radius or least is out of range.
    """
    x, μ = _host(points), _host(modes)
    if x.ndim != 2 or μ.ndim != 2 or x.shape[1:] != μ.shape[1:] or 0 in x.shape or 0 in μ.shape:
        raise ValueError(f"mode_coverage: expected points (N, D) and modes (K, D), got {x.shape} and {μ.shape}")
    if not std > 0 or not radius > 0 or least < 1:
        raise ValueError(f"mode_coverage: expected std > 0, radius > 0 and least ≥ 1, got {std}, {radius}, {least}")
    distance = np.linalg.norm(x[:, None] - μ, axis=2)
    nearest = distance.argmin(1)
    good = distance.min(1) <= radius * std
    counts = np.bincount(nearest[good], minlength=len(μ))
    share = counts[counts > 0] / max(1, counts.sum())
    imbalance = float((share * np.log(share * len(μ))).sum()) if share.size else math.inf
    return Coverage(int((counts >= least).sum()), len(μ), float(good.mean()), counts, imbalance)


def _host(value: Any) -> np.ndarray:
    return np.asarray(to_numpy(value.data) if isinstance(value, Tensor) else value, dtype=np.float64)
