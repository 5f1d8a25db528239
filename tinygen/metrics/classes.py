"""What a classifier makes of samples: how surely they show anything, and whether every class is among them.

Source: Salimans et al., *Improved Techniques for Training GANs* (2016), §4: good samples have a p(y | x) of low entropy
and a p(y) of high entropy. The Inception score multiplies the two into one number; they are kept apart here, so that
a model that draws only perfect sevens is not mistaken for one that draws all digits badly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.backend import to_numpy
from tinygen.metrics.points import as_points
from tinygen.tensor import Tensor


@dataclass(frozen=True)
class ClassReport:
    """What :func:`class_report` found.

    Attributes:
        confident: the share of samples whose likeliest class has p ≥ threshold.
        shares: for each of K classes, the share of samples for which it is the likeliest; they sum to 1.
        confident_shares: the same counted among confident samples only, over all samples; they sum to ``confident``.
        entropy: H of the shares in nats; ln K when all classes are drawn equally often.
        right: the share whose likeliest class is the wanted one; None where no labels were given.
        threshold: as given.
    """

    confident: float
    shares: tuple[float, ...]
    confident_shares: tuple[float, ...]
    entropy: float
    right: float | None
    threshold: float

    @property
    def smallest(self) -> float:
        """The share of the class that is drawn least often."""
        return min(self.shares)

    @property
    def largest(self) -> float:
        """The share of the class that is drawn most often."""
        return max(self.shares)


def class_report(probabilities: Any, threshold: float = 0.9, labels: Any = None) -> ClassReport:
    """Count what a classifier sees in samples: ŷ = argmax p(y | x), sure where p(ŷ | x) ≥ threshold.

    Args:
        probabilities: p(y | x), (N, K), each row in [0, 1] with sum 1: a Tensor or an array.
        threshold: in [0, 1]; p equal to it counts as sure.
        labels: the classes that were asked for, (N,) integers, where the model is conditional.

    Raises:
        TypeError, ValueError: not probabilities of that shape; the threshold is out of range; labels do not fit.
    """
    p = to_numpy(as_points(probabilities, "class_report", "probabilities"))
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise ValueError("class_report: expected rows of probabilities, ≥ 0 with sum 1; are these logits?")
    if not 0 <= threshold <= 1:
        raise ValueError(f"class_report: expected 0 ≤ threshold ≤ 1, got {threshold}")
    n, K = p.shape
    best = p.argmax(1)
    # Compared in the dtype that came: 0.9 in float32 is not 0.9 in float64, and a tie must not depend on it.
    sure = p.max(1) >= float(np.asarray(threshold, dtype=str(_dtype(probabilities))))
    shares = np.bincount(best, minlength=K) / n
    right = None
    if labels is not None:
        wanted = to_numpy(labels.data) if isinstance(labels, Tensor) else np.asarray(labels)
        if wanted.shape != (n,) or wanted.dtype.kind not in "iu":
            raise ValueError(f"class_report: expected labels as {n} integers, got {wanted.dtype} {wanted.shape}")
        right = float((best == wanted).mean())
    return ClassReport(
        confident=float(sure.mean()),
        shares=tuple(map(float, shares)),
        confident_shares=tuple(map(float, np.bincount(best[sure], minlength=K) / n)),
        entropy=float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
        right=right,
        threshold=threshold,
    )


def _dtype(values: Any) -> Any:
    return values.dtype if values.dtype.kind == "f" else "float64"
