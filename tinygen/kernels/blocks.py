"""A formula of several NumPy steps, computed one block of the arrays after another, on several threads.

``x * (1 + x * s)`` on a large array writes every intermediate result to memory and reads it back, and memory is what
such a formula waits for. On a block of a few hundred kilobytes the intermediate results stay in the processor's
cache. A block's result does not depend on which thread computes it, so neither does the whole.

Small arrays are computed in one go; on a GPU the formula is one kernel (kernels/gpu/pointwise.py), where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.arrays import empty_like
from tinygen.kernels.gpu.pointwise import compute
from tinygen.kernels.threads import run

# On two threads a step of 60 µs scales and one of 15 µs does not: each hands Python's lock over (see threads.py).
_BLOCK = 1 << 19  # bytes of each array in a block: the few that a step touches fit into a second-level cache
_SMALL = 1 << 17  # bytes of an array that is not worth dividing
_SERIAL = 1 << 21  # bytes of an array below which waking another thread costs what it saves


def share(tasks: list[Callable[[], Any]], large: np.ndarray) -> None:
    """Do the tasks, on several threads where the largest array is large."""
    if large.nbytes < _SERIAL:
        for task in tasks:
            task()
    else:
        run(tasks)


def examples_in_blocks(f: Callable[[slice], None], n: int, nbytes: int) -> None:
    """Call f(part) for parts of the range 0 … n, of blocks of an array of n examples and so many bytes."""
    step = max(1, _BLOCK * n // max(nbytes, 1))
    tasks: list[Callable[[], Any]] = [partial(f, slice(i, min(i + step, n))) for i in range(0, n, step)]
    if nbytes < _SERIAL:
        for task in tasks:
            task()
    else:
        run(tasks)


def elementwise(f: Callable, *arrays: Any, gpu: str = "", numbers: tuple[float, ...] = ()) -> Any:
    """The y that f(y, *arrays) writes, for an f that computes each number of y from the numbers in the same place.

    f works in place where it can: a result that it makes anew costs about as much as the arithmetic in it.

    Args:
        f: writes into its first argument, an array with any contents, and returns nothing.
        arrays: of equal shapes. Those that lie in memory alike, without gaps, are walked through in the order of
            their memory; others are computed in one go.
        gpu, numbers: the name of the same formula in kernels/gpu/pointwise.py, and its Python numbers.

    Returns:
        The result, with the dtype and in the memory order of the first array that is not broadcast.
    """
    x = arrays[0]
    if 0 in x.strides and type(x) is np.ndarray:  # a gradient that was broadcast
        x = next((a for a in arrays if 0 not in a.strides), x)
    if gpu and type(x) is not np.ndarray:
        made = compute(array_module(x), gpu, *arrays, numbers=numbers)
        if made is not None:
            return made
    y = empty_like(x)
    if x.ndim == 0:  # NumPy would hand f's steps scalars, not arrays
        f(*(a.reshape(1) for a in (y, *arrays)))
        return y
    if type(x) is not np.ndarray or x.nbytes <= _SMALL:
        f(y, *arrays)
        return y
    strides = x.strides
    if y.strides != strides or any(a.strides != strides for a in arrays):
        f(y, *arrays)
        return y
    order = sorted(range(x.ndim), key=lambda d: -strides[d])
    flat = [a.transpose(order).reshape(-1) for a in (y, *arrays)]
    step = _BLOCK // x.itemsize
    share([lambda i=i: f(*(a[i : i + step] for a in flat)) for i in range(0, x.size, step)], x)  # type: ignore[misc]
    return y


def along_first_into(y: Any, f: Callable, *arrays: Any) -> Any:
    """y, after f(y, *arrays) has written it, for an f that treats the slices along the first axis independently.

    Args:
        y: an array of first axis n.
        f: writes into its first argument and returns nothing.
        arrays: with first axes of length n, or of length 1: those are handed on whole.
    """
    n = len(y)
    if type(y) is not np.ndarray or y.nbytes <= _SMALL or n < 2:
        f(y, *arrays)
        return y
    step = max(1, _BLOCK * n // y.nbytes)

    def work(part: slice) -> None:
        f(y[part], *(a[part] if len(a) == n else a for a in arrays))

    share([lambda i=i: work(slice(i, i + step)) for i in range(0, n, step)], y)  # type: ignore[misc]
    return y


def along_first(f: Callable, *arrays: Any, block: int | None = None) -> Any:
    """f(*arrays) for an f that treats the slices along the first axis independently of each other.

    Args:
        f: a function of arrays that returns an array, or a tuple of arrays, whose first axis is the arrays'.
        arrays: with first axes of one length n; arrays whose first axis has length 1 are handed on whole.
        block: bytes of the largest array in a block, where f is not of several steps that share the cache.
    """
    n = max(len(a) for a in arrays)
    large = max(arrays, key=lambda a: a.nbytes)
    if type(large) is not np.ndarray or large.nbytes <= _SMALL or n < 2:
        return f(*arrays)
    step = max(1, (block or _BLOCK) * n // large.nbytes)
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

    share([lambda start=start: work(start) for start in range(0, n, step)], large)  # type: ignore[misc]
    return whole[0] if single else tuple(whole)
