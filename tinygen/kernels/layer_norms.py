"""Normalisation of rows, x (M, D) → γ·(x − μ)·r + β with one μ and r for each row and one γ and β for each column.

One number for each row or each column beside an array of short rows makes short inner loops in NumPy. Here both come
from products of thin matrices, which BLAS does at the speed of a copy:

    scale  S_md = r_m·γ_d            = [r 0] [γ; 0]
    shift  T_md = β_d − μ_m·r_m·γ_d  = [1 −μr] [β; γ]        y = S·x + T

and so do the sums: with p = g·x, Σ_d γ_d g_md = g γ, Σ_d γ_d g_md x_md = p γ, and Σ_m g_md x̂_md = (r p − (μr) g)_d.
(Two columns, because a product over one goes another, slower way in NumPy: 1.4 ns for a number instead of 0.1; NumPy
2.4.6, one core of a Sapphire Rapids Xeon, 2026-11-21.)

The formulas are derived in ops/standardization.py; kernels/norms.py has the other layouts, and σ² as there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinygen.kernels.norms_batch_last import LOST
from tinygen.kernels.threads import run, scratch

_SMALL = 1 << 17  # bytes of an array that is not worth dividing
_SERIAL = 1 << 21  # bytes of an array below which waking another thread costs what it saves
_BLOCK = 1 << 20  # bytes of each array that a task goes over: calls long enough for two threads (see blocks.py)
_NARROW = 8  # columns, below which products of thin matrices gain nothing

Sums = tuple[np.ndarray, np.ndarray]


def rows(x: Any, d: int) -> np.ndarray | None:
    """x as (M, d), d the product of its last axes, or None where it is small or lies in another order."""
    if type(x) is not np.ndarray or x.nbytes < _SMALL or d < _NARROW or not x.flags.c_contiguous:
        return None
    return x.reshape(-1, d) if x.dtype.char in "fd" else None


def _tasks(work: Callable[[int, slice], None], x: np.ndarray) -> int:
    """Do work(number, rows) for blocks of rows, an even number of them; return how many."""
    m = len(x)
    count = min(-(-x.nbytes // _BLOCK) + 1 & ~1, m)
    ends = [m * i // count for i in range(count + 1)]
    run([partial(work, i, slice(*ends[i : i + 2])) for i in range(count)], x.nbytes >= _SERIAL)
    return count


def _outer(name: str, a: Any, b: Any, c: Any, d: Any, m: int, n: int, dtype: np.dtype) -> np.ndarray:
    """a_m·b_n + c_m·d_n for vectors or numbers, in scratch memory."""
    left, right = scratch("left", (m, 2), dtype), scratch("right", (2, n), dtype)
    left[:, 0], left[:, 1], right[0], right[1] = a, c, b, d
    return np.matmul(left, right, out=scratch(name, (m, n), dtype))


def _moments(x: np.ndarray, ones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ and σ² of each row in float64: σ² = M(x − c)² − (μ − c)², first with c = 0.

    Where that would lose more than a digit of σ², it is done again with c about μ.
    """
    d = x.shape[1]
    μ = np.matmul(x, ones).astype(np.float64) / d
    var = np.vecdot(x, x).astype(np.float64) / d - μ * μ
    if (var * LOST < μ * μ).any():
        c = μ.astype(x.dtype)
        t = np.subtract(x, c[:, None], out=scratch("layer", x.shape, x.dtype))
        δ = np.matmul(t, ones).astype(np.float64) / d
        μ, var = c + δ, np.maximum(np.vecdot(t, t).astype(np.float64) / d - δ * δ, 0)
    return μ, var


def normalize(
    y: np.ndarray, x: np.ndarray, γ: np.ndarray | None, β: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write y = γ·x̂ + β; return μ, σ² and r = 1/√(σ² + ε).

    Shapes: y, x (M, D); γ, β (D) or None → (M) three times.
    """
    (m, d), dtype = x.shape, x.dtype
    means, variances, scales = np.empty((3, m), dtype)
    ones = np.ones(d, dtype)

    def work(_: int, part: slice) -> None:
        x_, y_ = x[part], y[part]
        n = len(x_)
        μ, var = _moments(x_, ones)
        r = 1 / np.sqrt(var + eps)
        means[part], variances[part], scales[part] = μ, var, r
        scale = 1 if γ is None else γ
        np.multiply(x_, _outer("layer", r, scale, 0, 0, n, d, dtype), out=y_)
        y_ += _outer("layer", -μ * r, scale, 1, 0 if β is None else β, n, d, dtype)

    _tasks(work, x)
    return means, variances, scales


def gradient(
    h: np.ndarray | None, g: np.ndarray, x: np.ndarray, γ: np.ndarray | None, μ: np.ndarray, r: np.ndarray
) -> np.ndarray:
    """Write h(γ·g, x) = r(γ·g − M(γ·g) − x̂·M(x̂·γ·g)), unless h is None; return Σ g·x̂ over rows.

    Shapes: h, g, x (M, D); γ (D) or None; μ, r (M) → (D).
    """
    d, dtype = x.shape[1], x.dtype
    weight = np.ones(d, dtype) if γ is None else γ
    sums: dict[int, np.ndarray] = {}

    def work(k: int, part: slice) -> None:
        g_, x_, μ_, r_ = g[part], x[part], μ[part], r[part]
        n = len(g_)
        p = np.multiply(g_, x_, out=scratch("product", g_.shape, dtype))
        sums[k] = r_ @ p - (μ_ * r_) @ g_
        if h is None:
            return
        h_ = h[part]
        mean = (g_ @ weight) / d
        slope = -(r_ * r_ * r_) * ((p @ weight) / d - μ_ * mean)
        np.multiply(g_, _outer("layer", r_, weight, 0, 0, n, d, dtype), out=h_)
        np.multiply(x_, _outer("layer", slope, 1, 0, 0, n, d, dtype), out=p)
        h_ += p
        h_ += _outer("layer", -μ_ * slope - r_ * mean, 1, 0, 0, n, d, dtype)

    count = _tasks(work, x)
    return np.sum([sums[k] for k in range(count)], axis=0, dtype=np.float64).astype(dtype)
