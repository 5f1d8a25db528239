"""Sums over positions, and scales per channel, of arrays (N, C, …) whose channels may lie last in memory.

An array (N, C, H, W) in channels-last order is N pictures of P = H·W rows of C numbers. NumPy's inner loop over such an
array beside one number for each channel is only C long; K rows side by side, with the scales repeated K times, make it
K·C long.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.arrays import empty_like
from tinygen.kernels.blocks import along_first_into, share
from tinygen.kernels.threads import scratch

LARGE = 1 << 17  # numbers in an array from where on :func:`pairwise` is quicker than the operation itself
_STEP = 1 << 20  # bytes of each array in a block, where there is but one step
_REPEATED = 8  # times that a smaller operand is read, from where on it is written out for longer inner loops
_PLAIN = {np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul, np.divide: operator.truediv}
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


def row_sum(x: Any, dims: int) -> Any:
    """Σ over the first axes, so many, of a NumPy array in C order, by BLAS; None where it is another one."""
    if type(x) is not np.ndarray or not x.flags.c_contiguous or x.dtype.char not in "fd" or x.size == 0:
        return None
    rows = math.prod(x.shape[:dims])
    return (np.ones((1, rows), x.dtype) @ x.reshape(rows, -1)).reshape(x.shape[dims:])


def scaled_sum(terms: list[Any], scales: list[Any], shift: Any | None = None) -> Any:
    """y = Σᵢ xᵢ·sᵢ + b, in the memory order of x₁.

    Args:
        terms: the xᵢ, (N, C, …).
        scales, shift: the sᵢ and b, which broadcast to the shape of x; no b is 0. Fast where they are
            (N or 1, C, 1, …).
    """
    x = terms[0]
    xp = array_module(x)
    y = empty_like(x)
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


def pairwise(f: Any, a: Any, b: Any) -> Any:
    """f(a, b) for f one of NumPy's add, subtract, multiply and divide, and operands that broadcast.

    Large results of float32 or float64 operands are shared among threads, begin on a cache line, and lie in memory as
    a does. One number for each channel, b (N or 1, C, 1, …), is repeated to make the inner loops long
    in channels-last order.
    """
    if not (type(a) is type(b) is np.ndarray and a.dtype == b.dtype and a.dtype.char in "fd" and a.ndim == b.ndim):
        return _PLAIN[f](a, b)
    if a.shape != b.shape:
        if any(m not in (1, n) for n, m in zip(a.shape, b.shape, strict=True)):
            return _PLAIN[f](a, b)
        if a.ndim > 2 and b.shape[1:] == (a.shape[1], *[1] * (a.ndim - 2)) and rows(a) is not None:
            return _with_channels(f, a, b)
    if 0 in a.strides:  # a gradient that was broadcast
        return _PLAIN[f](a, b)
    y = empty_like(a)
    # In the order of a's memory, outermost axis first.
    order = sorted(range(a.ndim), key=lambda d: -a.strides[d])
    y_, a_, b_ = (x.transpose(order) for x in (y, a, b))
    if a.shape == b.shape and a.strides == b.strides == y.strides:
        y_, a_, b_ = (x.reshape(-1) for x in (y_, a_, b_))
    elif len(b_) == 1 and len(a_) >= _REPEATED:
        whole = np.empty((1, *a_.shape[1:]), b.dtype)
        whole[...] = b_
        b_ = whole
    step = max(1, _STEP * len(a_) // max(a.nbytes, 1))
    tasks: list[Callable[[], Any]] = []
    for i in range(0, len(a_), step):
        part = slice(i, i + step)
        tasks.append(partial(f, a_[part], b_[part] if len(b_) == len(a_) else b_, y_[part]))
    share(tasks, a)
    return y


def _with_channels(f: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same for b (N or 1, C, 1, …) and a in channels-last order."""
    y = empty_like(a)
    to, from_ = rows(y), rows(a)
    assert to is not None and from_ is not None
    n, positions, channels = from_.shape
    k = side_by_side(positions, channels)
    to, from_ = (x.reshape(n, positions // k, k * channels) for x in (to, from_))
    along_first_into(to, lambda y, a, b: f(a, b, out=y), from_, _repeated(b.reshape(-1, 1, channels), k))
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
