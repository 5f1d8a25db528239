"""Copies of NumPy arrays from one order of memory to another, such as (H, C, W, N) to (N, C, H, W).

Such a copy reads or writes numbers that are far apart, one of each cache line, and is quick if a line is still in the
cache when its next number is wanted. NumPy writes along the target's memory. Measured on (128, 64, 14, 14) float32, one
core of a Sapphire Rapids Xeon, NumPy 2.4.6, 2026-11-21: to (H, C, W, N) 2.8 ms at once and 1.5 ms by 32 pictures at a
time; back 9.9 ms at once and 2.1 ms by one channel at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tinygen.kernels.threads import aligned, run

_RUN = 32  # numbers that are written one after the other: two cache lines of float32
_WORTH = 1 << 17  # numbers from where on two threads are quicker than one
_PIECES = 4  # of one copy
_NUMBERS = 1 << 14  # in a slice, if it may: calls that are too short hinder the other thread


def copy_into(y: np.ndarray, x: np.ndarray) -> None:
    """y[...] = x for equal shapes, in slices in which both orders of memory stay in the cache.

    Where the target's innermost axis is long, its numbers are written 32 at a time. Where it is short (the width of a
    picture), one slice after another along an axis that is innermost in neither: a few channels, or rows. Threads share
    the longest such axis too, so that each has lines of memory to itself.
    """
    axes = sorted((d for d in range(y.ndim) if y.shape[d] > 1), key=lambda d: -abs(y.strides[d]))
    if not axes or y.size == 0:
        np.copyto(y, x)
        return
    last, first = axes[-1], min(axes, key=lambda d: abs(x.strides[d]))
    between = [d for d in axes if d not in (last, first)] if last != first else axes
    shared = max(between, key=lambda d: y.shape[d]) if between else last
    n = y.shape[shared]
    piece = -(-n // _PIECES)
    if last == first:  # runs of numbers, as they are
        axis, step = shared, piece
    elif y.shape[last] >= 2 * _RUN:
        axis, step = last, _RUN
        piece = piece if between else -(-piece // _RUN) * _RUN
    elif between:
        axis, step = shared, max(1, min(_NUMBERS * n // y.size, piece))
    else:
        axis, step = shared, n
    tasks: list[Callable[[], None]] = []
    for i in range(0, n, piece):
        part = (*(slice(None),) * shared, slice(i, i + piece))
        tasks.append(partial(_copy, y[part].swapaxes(0, axis), x[part].swapaxes(0, axis), step))
    run(tasks, x.size >= _WORTH)


def _copy(y: np.ndarray, x: np.ndarray, step: int) -> None:
    for i in range(0, len(y), step):
        np.copyto(y[i : i + step], x[i : i + step])


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
