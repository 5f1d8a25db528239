"""Sums over positions, and scales per channel, of arrays (N, C, …) whose channels may lie last in memory.

An array (N, C, H, W) in channels-last order is N pictures of P = H·W rows of C numbers. NumPy's inner loop over such an
array beside one number for each channel is only C long; K rows side by side, with the scales repeated K times, make it
K·C long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.blocks import along_first_into
from tinygen.kernels.threads import scratch

_LONG = 1024  # numbers of an inner loop, from where on its beginning costs nothing


def sum_product(dims: Iterable[int], *factors: Any) -> Any:
    """Σ over the axes ``dims`` of the product of one or two arrays of equal shapes, without these axes."""
    x, dims = factors[0], list(dims)
    if len(factors) == 1 and dims == list(range(2, x.ndim)) and (found := rows(x)) is not None:
        return np.matmul(np.ones((1, found.shape[1]), found.dtype), found)[:, 0]
    if array_module(x) is not np:  # CuPy's einsum calls cuBLAS, which cannot be captured in a graph
        return (x if len(factors) == 1 else x * factors[1]).sum(axis=tuple(dims))
    letters = "abcdefghijklmnop"[: x.ndim]
    kept = "".join(c for d, c in enumerate(letters) if d not in dims)
    return array_module(x).einsum(f"{','.join([letters] * len(factors))}->{kept}", *factors)


def scaled_sum(terms: list[Any], scales: list[Any], shift: Any | None = None) -> Any:
    """y = Σᵢ xᵢ·sᵢ + b, in the memory order of x₁.

    Args:
        terms: the xᵢ, (N, C, …).
        scales, shift: the sᵢ and b, which broadcast to the shape of x; no b is 0. Fast where they are
            (N or 1, C, 1, …).
    """
    x = terms[0]
    xp = array_module(x)
    y = xp.empty_like(x)
    views, beside = [y, *terms], [*scales] if shift is None else [*scales, shift]
    flat = [rows(a) for a in views]
    per_channel = (x.shape[1], *[1] * (x.ndim - 2)) if x.ndim > 1 else ()
    if all(a is not None for a in flat) and all(a.shape[1:] == per_channel for a in beside):
        n, positions, channels = flat[0].shape  # type: ignore[union-attr]
        k = side_by_side(positions, channels)
        views = [a.reshape(n, positions // k, k * channels) for a in flat]  # type: ignore[union-attr]
        beside = [_repeated(a.reshape(-1, 1, channels), k) for a in beside]
    count = len(terms)

    def block(y: Any, *parts: Any) -> None:
        xp.multiply(parts[0], parts[count], out=y)
        for i in range(1, count):
            product = scratch("product", y.shape, y.dtype) if type(y) is np.ndarray else xp.empty_like(y)
            xp.multiply(parts[i], parts[count + i], out=product)
            y += product
        if shift is not None:
            y += parts[-1]

    along_first_into(views[0], block, *views[1:], *beside)
    return y


def rows(x: Any) -> np.ndarray | None:
    """A channels-last NumPy array (N, C, …) as (N, P, C), or None where it is another one."""
    if type(x) is not np.ndarray or x.ndim < 3:
        return None
    last = np.moveaxis(x, 1, -1)
    if not last.flags.c_contiguous or x.size == 0:
        return None
    return last.reshape(len(x), -1, x.shape[1])


def positions_last(x: Any) -> bool:
    """Whether x is a NumPy array (N, C, …) in C order."""
    return type(x) is np.ndarray and x.ndim > 2 and x.size > 0 and x.flags.c_contiguous


@lru_cache(1024)
def side_by_side(positions: int, channels: int) -> int:
    """K: a divisor of P small enough that repeating the scales costs little beside the work."""
    most = max(1, min(positions // 8, _LONG // channels))
    return max(k for k in range(1, most + 1) if positions % k == 0)


def _repeated(s: np.ndarray, k: int) -> np.ndarray:
    """(n, 1, C) → (n, 1, K·C)."""
    if k == 1:
        return s
    wide = np.empty((len(s), k, s.shape[2]), s.dtype)
    wide[...] = s
    return wide.reshape(len(s), 1, math.prod(wide.shape[1:]))
