"""Precision and recall, density and coverage: are samples like real images, and are all real images like samples?

Around every point of a cloud lies the ball that reaches to its k-th nearest neighbour in that cloud; together the
balls stand for the region where the distribution lives.

    precision  the share of samples that lie in some ball of a real image: is what is drawn good?
    recall     the share of real images that lie in some ball of a sample: is everything drawn?
    density    how many real balls a sample lies in, over k: 1 on average for perfect samples, and may exceed 1
    coverage   the share of real balls in which a sample lies: of real images, so that no lone bad sample,
               whose ball is huge, covers half the data (which recall suffers from)

One cloud that is another's copy has all four at their best. Samples that are too tame (a blurred mean of everything)
have high precision and low recall.

Source: Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models* (2019), eq. 1–3;
Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative Models* (2020), eq. 3 and 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygen.backend import array_module
from tinygen.metrics.points import as_pair, squared_distances

CHUNK = 1000  # rows of the matrix of distances that are there at a time


class PrecisionRecall(NamedTuple):
    """What :func:`precision_recall` found; precision, recall and coverage in [0, 1], density ≥ 0."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: Any, fake: Any, k: int = 3) -> PrecisionRecall:
    """Precision, recall, density and coverage of samples, by balls that reach to the k-th nearest neighbour.

    With r_k(x) the distance from x to its k-th nearest other point of its own cloud:

        precision = mean_j [∃ i: ‖yⱼ − xᵢ‖ ≤ r_k(xᵢ)],    recall = mean_i [∃ j: ‖xᵢ − yⱼ‖ ≤ r_k(yⱼ)],
        density = 1/k · mean_j #{i : ‖yⱼ − xᵢ‖ ≤ r_k(xᵢ)},    coverage = mean_i [∃ j: ‖xᵢ − yⱼ‖ ≤ r_k(xᵢ)].

    All four depend on N and M: state them, and compare only what has the same.

    Args:
        real: x, features (N, d), N > k.
        fake: y, features (M, d), M > k.
        k: which neighbour.

    Raises:
        TypeError, ValueError: they are not features of one length, hold nan, or k is not in 1 … min(N, M) − 1.
        DeviceError: they are on two devices.

    Source: Kynkäänniemi et al. (2019), eq. 1–3 (k = 3 there); Naeem et al. (2020), eq. 3 and 4.
    """
    x, y = as_pair(real, fake, "precision_recall", ("real", "fake"))
    if not 1 <= k < min(len(x), len(y)):
        raise ValueError(f"precision_recall: expected 1 ≤ k < {min(len(x), len(y))}, the smaller cloud, got k={k}")
    xp = array_module(x)
    radius_x, radius_y = _kth_distance(x, k), _kth_distance(y, k)
    inside = xp.zeros(len(y), dtype="int64")  # how many real balls each sample lies in
    recalled = covered = 0
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        D = squared_distances(x[rows], y)
        in_real_ball = D <= radius_x[rows, None]
        inside += in_real_ball.sum(0)
        recalled += int((D <= radius_y).any(1).sum())
        covered += int(in_real_ball.any(1).sum())
    return PrecisionRecall(
        precision=float((inside > 0).mean()),
        recall=recalled / len(x),
        density=float(inside.mean()) / k,
        coverage=covered / len(x),
    )


def _kth_distance(x: Any, k: int) -> Any:
    """r_k(x)², (N): the squared distance to the k-th nearest other point; widened by rounding's share."""
    xp = array_module(x)
    found = []
    for start in range(0, len(x), CHUNK):
        D = squared_distances(x[start : start + CHUNK], x)
        rows = xp.arange(len(D))
        D[rows, rows + start] = -1  # the point itself, first however many others coincide with it
        found.append(xp.partition(D, k, axis=1)[:, k])
    r2 = xp.concatenate(found)
    # ‖a‖² + ‖b‖² − 2ab of one pair differs in the last bits from cloud to cloud; a point on the sphere is inside.
    spread = x - x.mean(axis=0)
    return r2 * (1 + 1e-12) + 1e-14 * (spread * spread).sum(1).max()
