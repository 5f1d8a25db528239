"""ln p(x) of a model with latent variables, from importance weights.

Draw z_1 … z_K from any q(z | x) and weigh each with w_k = p(x, z_k)/q(z_k | x). The mean weight is an unbiased estimate
of p(x), and its logarithm, by Jensen's inequality, a lower bound of ln p(x) on average:

    L_K = E ln( 1/K Σ_k w_k ),    L_1 ≤ L_2 ≤ … ≤ ln p(x),    L_K → ln p(x).

L_1 is the ELBO. L_K in training is the importance-weighted autoencoder's objective; with K in the thousands in
evaluation it is what papers report as NLL = −L_K.

Weights are handled as logarithms throughout, for e^(−90) times e^(−90) is a common product here:

    ln 1/K Σ w_k = m + ln Σ e^(ln w_k − m) − ln K,    m = max_k ln w_k.

Source: Burda, Grosse & Salakhutdinov, *Importance Weighted Autoencoders* (2015), eq. 8 and theorem 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinygen.backend import is_array, to_numpy
from tinygen.ops.reduction import logsumexp
from tinygen.tensor import Tensor


def iwae_bound(log_weights: Tensor, k: int | None = None) -> Tensor:
    """L̂_k = mean over groups of ln (1/k Σ_i w_i), for each image: the S draws make S/k groups of k.

    ∂L̂/∂ln w_j = k/S · w̃_j, where w̃ are the weights normalised within their group: a draw counts as its share.

    Args:
        log_weights: ln w = ln p(x, z_s) − ln q(z_s | x), (S, N), the draws first; differentiable.
        k: how many weights are averaged inside the logarithm; all S where omitted. k = 1 is the ELBO.

    Returns:
        (N,), in nats an image.

    Raises:
        ValueError: log_weights has no axis of draws, or k does not divide S.

    Source: Burda et al. (2015), eq. 8; its gradient eq. 14.
    """
    if log_weights.ndim < 1 or log_weights.shape[0] < 1:
        raise ValueError(f"iwae_bound: expected log_weights (S, N), the draws first, got shape {log_weights.shape}")
    S = log_weights.shape[0]
    k = S if k is None else k
    if not 1 <= k <= S or S % k:
        raise ValueError(f"iwae_bound: expected k to divide the {S} draws, got k={k}")
    groups = log_weights.reshape(S // k, k, *log_weights.shape[1:])
    return (logsumexp(groups, dim=1) - math.log(k)).mean(0)


class LikelihoodEstimate(NamedTuple):
    """What :func:`importance_log_likelihood` found.

    Attributes:
        mean: L_K averaged over the images, nats an image; minus this is the NLL.
        standard_error: of that mean, std/√N over the images (the bias of L_K below ln p is not in it).
        effective_samples: the mean over images of (Σ w)²/Σ w², between 1 and K: near 1 one draw carries everything,
            and L_K is far below ln p.
    """

    mean: float
    standard_error: float
    effective_samples: float


def importance_log_likelihood(log_weights: Any) -> LikelihoodEstimate:
    """L_K = ln (1/K Σ_k w_k) of a set of images, with its standard error and effective sample size, in float64.

    Args:
        log_weights: ln w, (K, N), the draws first: a Tensor or an array; −∞ (an impossible draw) is allowed.

    Raises:
        TypeError: they are neither.
        ValueError: they are not (K, N) with K, N ≥ 1, or hold nan or +∞.

    Source: Burda et al. (2015), §5, with K = 5,000 there; Kong (1992) for the effective sample size.
    """
    raw = log_weights.data if isinstance(log_weights, Tensor) else log_weights
    if not is_array(raw):
        raise TypeError(
            f"importance_log_likelihood: expected log_weights as a Tensor or an array, got {type(raw).__name__}"
        )
    w = to_numpy(raw).astype("float64")
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"importance_log_likelihood: expected log_weights (K, N), the draws first, got {w.shape}")
    if np.isnan(w).any() or (w == math.inf).any():
        raise ValueError("importance_log_likelihood: log_weights hold nan or +∞")
    K, N = w.shape
    bound = np.logaddexp.reduce(w, axis=0) - math.log(K)
    largest = w.max(axis=0)
    share = np.exp(w - np.where(np.isfinite(largest), largest, 0))
    squares = (share**2).sum(0)
    effective = np.divide(share.sum(0) ** 2, squares, out=np.zeros(N), where=squares > 0)
    error = float(bound.std()) / math.sqrt(N) if np.isfinite(bound).all() else math.nan
    return LikelihoodEstimate(float(bound.mean()), error, float(effective.mean()))
