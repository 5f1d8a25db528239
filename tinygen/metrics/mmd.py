"""Maximum mean discrepancy: are two clouds of points drawn from one distribution?

With a kernel k that tells all distributions apart (a Gaussian one does),

    MMD²(p, q) = E k(x, x') + E k(y, y') − 2 E k(x, y),    x, x' ~ p,  y, y' ~ q,

is 0 if and only if p = q. The estimate without the diagonal is unbiased, so it is 0 on average where p = q, and often
below 0 then:

    MMD²_u = 1/(n(n−1)) Σ_{i≠j} k(xᵢ, xⱼ) + 1/(m(m−1)) Σ_{i≠j} k(yᵢ, yⱼ) − 2/(nm) Σᵢⱼ k(xᵢ, yⱼ).

Here k(x, y) is the mean of exp(−‖x − y‖²/(2s²)) over several bandwidths s, by default ½, 1 and 2 times the median
distance between two points: a single s too small or too large sees nothing.

The test asks how often so large a value comes by chance: shuffle which points are x and which are y, again and again.
Under p = q every order is as likely as the one that came, so

    p = (1 + #{b : MMD²_b ≥ MMD²}) / (1 + B)

is uniform on {1/(1+B), …, 1}; the 1 counts the order that came, and makes the level exact. (So a p of 1/(1+B) says
"less than that".) With many samples the test finds any difference at all: it says *whether*, the value says how much.

Source: Gretton et al., *A Kernel Two-Sample Test* (2012), lemma 6 and §8; Phipson & Smyth (2010) for the 1 in p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinygen.backend import array_module, to_numpy
from tinygen.metrics.points import as_pair, shuffled, squared_distances
from tinygen.random import Generator

SCALES = (0.5, 1.0, 2.0)
AT_A_TIME = 64  # permutations in one matrix product


class MMDTest(NamedTuple):
    """What :func:`mmd_test` found: the unbiased MMD², and the permutation p-value in [1/(1+B), 1]."""

    mmd2: float
    p_value: float


def median_distance(a: Any, b: Any) -> float:
    """s = median ‖x − y‖ over all pairs of two different points of both clouds together.

    Where more than half of the pairs coincide it would be 0, and the median of the positive distances is taken; 1 where
    there are none.

    Args:
        a, b: (N, d) and (M, d).

    Raises:
        TypeError, ValueError, DeviceError: as :func:`mmd2`.

    Source: Gretton et al. (2012), §8.
    """
    a, b = as_pair(a, b, "median_distance", ("a", "b"))
    x = array_module(a).concatenate([a, b])
    return _median(squared_distances(x, x))


def _median(D: Any) -> float:
    xp = array_module(D)
    i, j = xp.triu_indices(len(D), k=1)
    pairs = D[i, j]
    median = float(xp.median(pairs)) if pairs.size else 0.0
    if median == 0 and bool((pairs > 0).any()):
        median = float(xp.median(pairs[pairs > 0]))
    return median**0.5 if median > 0 else 1.0


def _kernel(a: Any, b: Any, bandwidths: Sequence[float] | None, who: str) -> Any:
    """K of all points together, (N + M, N + M), with 0 on its diagonal."""
    if bandwidths is not None and (len(bandwidths) == 0 or not all(s > 0 for s in bandwidths)):
        raise ValueError(f"{who}: expected bandwidths > 0, got {bandwidths!r}")
    xp = array_module(a)
    x = xp.concatenate([a, b])
    D = squared_distances(x, x)
    widths = [scale * _median(D) for scale in SCALES] if bandwidths is None else list(bandwidths)
    K = sum(xp.exp(D / (-2 * s**2)) for s in widths) / len(widths)
    K[xp.arange(len(K)), xp.arange(len(K))] = 0
    return K


def _unbiased(K: Any, S: Any, n: int, m: int) -> Any:
    """MMD²_u for each column of S, (N + M, B), which is 1 where a point counts as x and 0 where as y.

    With s a column and t = 1 − s: Σ_{x,x'} k = sᵀKs, Σ_{x,y} k = sᵀKt, Σ_{y,y'} k = tᵀKt; K's diagonal is 0.
    """
    KS = K @ S
    everything = K.sum()
    within = (S * KS).sum(0)
    from_x = KS.sum(0)  # sᵀK1 = sᵀKs + sᵀKt
    between = from_x - within
    return within / (n * (n - 1)) + (everything - from_x - between) / (m * (m - 1)) - 2 * between / (n * m)


def mmd2(a: Any, b: Any, bandwidths: Sequence[float] | None = None) -> float:
    """MMD²_u = mean k(x, x') + mean k(y, y') − 2·mean k(x, y), x ≠ x', y ≠ y': unbiased, so at times below 0 if p = q.

    Args:
        a, b: (N, d) and (M, d), N, M ≥ 2; images are flattened. Needs memory for (N + M)² numbers.
        bandwidths: each s > 0, in the points' units; ½, 1 and 2 times :func:`median_distance` where omitted.

    Raises:
        TypeError, ValueError: they are not points of one length, hold nan, or are too few; a bandwidth is not positive.
        DeviceError: they are on two devices.

    Source: Gretton et al. (2012), lemma 6, eq. 3.
    """
    a, b = as_pair(a, b, "mmd2", ("a", "b"), least=2)
    K = _kernel(a, b, bandwidths, "mmd2")
    xp = array_module(K)
    first = (xp.arange(len(K)) < len(a)).astype("float64")[:, None]
    return float(_unbiased(K, first, len(a), len(b))[0])


def mmd_test(
    a: Any, b: Any, permutations: int = 199, rng: Generator | None = None, bandwidths: Sequence[float] | None = None
) -> MMDTest:
    """Test p = q by permutations: ``MMDTest(mmd2, p_value)``, p = (1 + #{MMD²_b ≥ MMD²}) / (1 + B).

    Args:
        a, b, bandwidths: as :func:`mmd2`. The median that sets the bandwidths is that of both clouds together, which
            no shuffling changes.
        permutations: B ≥ 1; the least p that can come out is 1/(1 + B).
        rng: what shuffles.

    Raises:
        TypeError, ValueError, DeviceError: as :func:`mmd2`; permutations < 1.

    Source: Gretton et al. (2012), §8.
    """
    if permutations < 1:
        raise ValueError(f"mmd_test: expected permutations ≥ 1, got {permutations}")
    a, b = as_pair(a, b, "mmd_test", ("a", "b"), least=2)
    n, m = len(a), len(b)
    K = _kernel(a, b, bandwidths, "mmd_test")
    xp = array_module(K)
    first = (xp.arange(n + m) < n).astype("float64")
    found = float(_unbiased(K, first[:, None], n, m)[0])
    as_large = 0
    for start in range(0, permutations, AT_A_TIME):
        count = min(AT_A_TIME, permutations - start)
        S = xp.stack([first[xp.asarray(shuffled(n + m, rng))] for _ in range(count)], axis=1)
        drawn = to_numpy(_unbiased(K, S, n, m))
        # What equals it but for the order of summing counts as equal: the order that came is one of the B + 1.
        as_large += int((drawn >= found - 1e-12 * max(1.0, abs(found))).sum())
    return MMDTest(found, (1 + as_large) / (1 + permutations))
