"""Parzen-window log-likelihood: put a small Gaussian on every sample, and ask how likely test images are.

For a model that can only draw, with samples s_1 … s_n in ℝᵈ,

    p̂(x) = 1/n Σ_j N(x; s_j, σ² I),    ln p̂(x) = ln Σ_j exp(−‖x − s_j‖²/(2σ²)) − ln n − d/2 · ln(2πσ²).

The protocol of 2014: n = 10,000 samples; σ is the one of ten between 0.1 and 1, evenly spaced in logarithm, under which
*validation* images are likeliest; then the mean of ln p̂ over the test images, in nats an image, and its standard error
std/√N. Pixels lie in [0, 1] and are taken as real numbers, so the values are logarithms of densities, and positive.

It is given because the literature of 2014 is stated in it, and no more: in hundreds of dimensions the estimate is far
below the true likelihood at any affordable n, and it prefers the centres of k-means to the data itself (Theis et al.
2016, §3.3). Compare with equal n, equal test images and equal pixels only.

Source: Breuleux et al., *Quickly Generating Representative Samples from an RBM-Derived Process* (2011); Goodfellow et
al., *Generative Adversarial Networks* (2014), §5, table 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tinygen.backend import array_module
from tinygen.metrics.points import as_pair, squared_distances

SIGMAS = tuple(10 ** (-1 + i / 9) for i in range(10))  # logspace(−1, 0, 10)
CHUNK = 200  # test images whose distances to all samples are there at a time


class ParzenEstimate(NamedTuple):
    """What :func:`parzen_log_likelihood` found: the mean in nats an image, its standard error, and the σ used."""

    mean: float
    standard_error: float
    sigma: float


def parzen_log_likelihood(
    samples: Any, test: Any, validation: Any = None, sigma: float | None = None, sigmas: Sequence[float] = SIGMAS
) -> ParzenEstimate:
    """ln p̂(x) = ln (1/n Σ_j N(x; s_j, σ²I)) of test images x and samples s, with σ chosen on validation images.

    Args:
        samples: (n, d) or images (n, C, H, W), values in [0, 1]: 10,000 in the protocol.
        test: (N, …), what the figure is for.
        validation: (V, …), none of them among the test images; chooses σ from ``sigmas``.
        sigma: σ itself, instead of validation images.
        sigmas: what to choose from; logspace(−1, 0, 10) in the protocol.

    Returns:
        ``ParzenEstimate(mean, standard_error, sigma)``; standard_error = std(ln p̂)/√N.

    Raises:
        ValueError: neither or both of validation and sigma; a σ is not positive; shapes differ, or nan.
        TypeError, DeviceError: they are no arrays, or on several devices.

    Source: Goodfellow et al. (2014), §5.
    """
    who = "parzen_log_likelihood"
    if (validation is None) == (sigma is None):
        raise ValueError(f"{who}: expected either validation images to choose σ on, or sigma")
    widths = list(sigmas) if sigma is None else [sigma]
    if not widths or not all(s > 0 for s in widths):
        raise ValueError(f"{who}: expected σ > 0, got {widths}")
    if validation is not None and len(widths) > 1:
        held_out, centres = as_pair(validation, samples, who, ("validation", "samples"))
        means = [float(v.mean()) for v in _log_densities(held_out, centres, widths)]
        widths = [widths[max(range(len(means)), key=means.__getitem__)]]
    x, centres = as_pair(test, samples, who, ("test", "samples"))
    (values,) = _log_densities(x, centres, widths)
    return ParzenEstimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)), float(widths[0]))


def _log_densities(x: Any, centres: Any, widths: Sequence[float]) -> list[Any]:
    """ln p̂(x) for every x and each width; the distances are computed once for all widths."""
    xp = array_module(x)
    n, d = centres.shape
    found: list[list[Any]] = [[] for _ in widths]
    for start in range(0, len(x), CHUNK):
        D = squared_distances(x[start : start + CHUNK], centres)
        nearest = D.min(axis=1, keepdims=True)
        for values, σ in zip(found, widths):
            # ln Σ e^(a_j) = max a + ln Σ e^(a_j − max a), in which nothing underflows to ln 0
            total = xp.exp((nearest - D) / (2 * σ**2)).sum(axis=1)
            exponent = xp.log(total) - nearest[:, 0] / (2 * σ**2)
            values.append(exponent - math.log(n) - d / 2 * math.log(2 * math.pi * σ**2))
    return [xp.concatenate(values) for values in found]
