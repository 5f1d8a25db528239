"""Copies of NumPy arrays from one order of memory to another, such as (H, C, W, N) to (N, C, H, W).

Such a copy reads or writes numbers that are far apart, one of each cache line, and is quick if a line is still in the
cache when its next number is wanted. NumPy writes along the target's memory. Measured on (128, 64, 14, 14) float32, one
core of a Sapphire Rapids Xeon, NumPy 2.4.6, 2026-11-21: to (H, C, W, N) 2.8 ms at once and 1.5 ms by 32 pictures at a
time; back 9.9 ms at once and 2.1 ms by one channel at a time.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tinygen.kernels.threads import aligned, run

_RUN = 32  # numbers that are written one after the other: two cache lines of float32
_WORTH = 1 << 17  # numbers from where on two threads are quicker than one
_PIECES = 8  # of one copy


def copy_into(y: np.ndarray, x: np.ndarray) -> None:
    """y[...] = x for equal shapes, in slices in which both orders of memory stay in the cache.

    Where the target's innermost axis is long, its numbers are written 32 at a time. Where it is short (the width of a
    picture), one slice after another along an axis that is innermost in neither: one channel, or one row.
    """
    axis, step = _slices(y, x)
    if axis is None:
        np.copyto(y, x)
        return
    y, x = y.swapaxes(0, axis), x.swapaxes(0, axis)
    n = len(y)
    piece = max(step, -(-n // _PIECES // step) * step)
    run([partial(_copy, y[i : i + piece], x[i : i + piece], step) for i in range(0, n, piece)], x.size >= _WORTH)


def _copy(y: np.ndarray, x: np.ndarray, step: int) -> None:
    for i in range(0, len(y), step):
        np.copyto(y[i : i + step], x[i : i + step])


def _slices(y: np.ndarray, x: np.ndarray) -> tuple[int | None, int]:
    """The axis along which a copy is cut, and how far; None where cutting is of no use."""
    axes = [d for d in range(y.ndim) if y.shape[d] > 1]
    if not axes or y.size == 0:
        return None, 1
    last, first = (min(axes, key=lambda d: abs(a.strides[d])) for a in (y, x))
    outer = sorted(axes, key=lambda d: -abs(y.strides[d]))
    if last == first:  # runs of numbers, as they are
        return outer[0], max(1, y.shape[outer[0]] // _PIECES)
    if y.shape[last] >= 2 * _RUN:
        return last, _RUN
    between = [d for d in outer if d not in (last, first)]
    return (between[0], 1) if between else (None, 1)


def concatenate(arrays: list[np.ndarray], axis: int) -> np.ndarray:
    """``numpy.concatenate``, of one dtype, in the memory order of the first array; large ones on several threads."""
    first = arrays[0]
    shape = [sum(a.shape[axis] for a in arrays) if d == axis else n for d, n in enumerate(first.shape)]
    order = sorted(range(first.ndim), key=lambda d: -abs(first.strides[d]))
    y = aligned(tuple(shape[d] for d in order), first.dtype).transpose([order.index(d) for d in range(first.ndim)])
    start = 0
    for a in arrays:
        stop = start + a.shape[axis]
        copy_into(y[(*(slice(None),) * axis, slice(start, stop))], a)
        start = stop
    return y
