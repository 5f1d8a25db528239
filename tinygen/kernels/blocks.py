"""A formula of several NumPy steps, computed one block of the arrays after another, on several threads.

``x * (1 + x * s)`` on a large array writes every intermediate result to memory and reads it back, and memory is what
such a formula waits for. On a block of a few hundred kilobytes the intermediate results stay in the processor's
cache. A block's result does not depend on which thread computes it, so neither does the whole.

CuPy arrays, and small ones, are computed in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np

from tinygen.kernels.threads import run

_BLOCK = 1 << 19  # bytes of each array in a block: the few that a step touches fit into a second-level cache
_SMALL = 1 << 17  # bytes of an array that is not worth dividing


def elementwise(f: Callable, *arrays: Any) -> Any:
    """f(*arrays) for an f that computes each number of its result from the numbers in the same place.

    Args:
        f: a function of arrays of equal shapes that returns one such array.
        arrays: of equal shapes. Those that lie in memory alike, without gaps, are walked through in the order of
            their memory; others are computed in one go.

    Returns:
        The result, in the memory order of the arrays.
    """
    x = arrays[0]
    if x.ndim == 0:  # NumPy would hand f's steps scalars, not arrays
        return f(*(a.reshape(1) for a in arrays)).reshape(())
    if type(x) is not np.ndarray or x.nbytes <= _SMALL or any(a.strides != x.strides for a in arrays):
        return f(*arrays)
    order = sorted(range(x.ndim), key=lambda d: -x.strides[d])
    if not x.transpose(order).flags.c_contiguous:
        return f(*arrays)
    y = along_first(f, *(a.transpose(order).reshape(-1) for a in arrays))
    back = sorted(range(x.ndim), key=order.__getitem__)
    return y.reshape([x.shape[d] for d in order]).transpose(back)


def along_first(f: Callable, *arrays: Any) -> Any:
    """f(*arrays) for an f that treats the slices along the first axis independently of each other.

    Args:
        f: a function of arrays that returns an array, or a tuple of arrays, whose first axis is the arrays'.
        arrays: with first axes of one length n; arrays whose first axis has length 1 are handed on whole.
    """
    n = max(len(a) for a in arrays)
    large = max(arrays, key=lambda a: a.nbytes)
    if type(large) is not np.ndarray or large.nbytes <= _SMALL or n < 2:
        return f(*arrays)
    step = max(1, _BLOCK * n // large.nbytes)
    lock = Lock()
    whole: list[np.ndarray] = []
    single = True

    def work(start: int) -> None:
        nonlocal single
        part = slice(start, start + step)
        found = f(*(a[part] if len(a) == n else a for a in arrays))
        blocks = (found,) if isinstance(found, np.ndarray) else found
        with lock:
            if not whole:
                single = found is blocks[0]
                # Made after a block's own order of axes in memory: channels last stay last.
                whole.extend(np.empty_like(b, shape=(n, *b.shape[1:])) for b in blocks)
        for y, block in zip(whole, blocks, strict=True):
            y[part] = block

    run([lambda start=start: work(start) for start in range(0, n, step)])  # type: ignore[misc]
    return whole[0] if single else tuple(whole)
