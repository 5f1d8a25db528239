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
from tinygen.kernels.buffers import rows_of
from tinygen.kernels.gpu.pointwise import compute
from tinygen.kernels.reordering import copy_into
from tinygen.kernels.threads import LINE, run

# On two threads a step of 60 µs scales and one of 15 µs does not: each hands Python's lock over (see threads.py). Half
# as much fits into a second-level cache better: up to 15 % quicker on one thread, but 10 to 30 % slower on two.
_BLOCK = 1 << 20  # bytes of each array in a block
_SMALL = 1 << 17  # bytes of an array that is not worth dividing
_SERIAL = 1 << 21  # bytes of an array below which waking another thread costs what it saves


def share(tasks: list[Callable[[], Any]], large: np.ndarray) -> None:
    """Do the tasks, on several threads where the largest array is large."""
    run(tasks, large.nbytes >= _SERIAL)


def _parts(n: int, nbytes: int, whole: int = 1, blocks: int = 1) -> list[slice]:
    """A range 0 … n of so many bytes, in parts of a block or less, as equal as can be.

    The number of parts is even unless it is one, so that two threads get as many.

    Args:
        whole: what the parts begin at a multiple of.
        blocks: how many blocks make a part.
    """
    units = -(-n // whole)
    pieces = -(-units // max(1, blocks * _BLOCK * n // max(nbytes * whole, 1)))
    pieces = min(pieces + pieces % 2, units) if pieces > 1 else pieces
    ends = [units * k // pieces * whole for k in range(pieces)] + [n]
    return [slice(start, stop) for start, stop in zip(ends, ends[1:])]


def examples_in_blocks(f: Callable[[slice], None], n: int, nbytes: int) -> None:
    """Call f(part) for parts of the range 0 … n, of two blocks of an array of n examples and so many bytes.

    Two, because f is of many short calls.
    """
    tasks: list[Callable[[], Any]] = [partial(f, part) for part in _parts(n, nbytes, blocks=2)]
    run(tasks, nbytes >= _SERIAL)


def elementwise(f: Callable, *arrays: Any, gpu: str = "", numbers: tuple[float, ...] = ()) -> Any:
    """The y that f(y, *arrays) writes, for an f that computes each number of y from the numbers in the same place.

    f works in place where it can: a result that it makes anew costs about as much as the arithmetic in it.

    Args:
        f: writes into its first argument, an array with any contents, and returns nothing.
        arrays: of equal shapes and dtypes. Large ones are walked through in the order of the last's memory (a saved x
            or y, beside which a gradient may lie in another order, or be broadcast: it is copied then).
        gpu, numbers: the name of the same formula in kernels/gpu/pointwise.py, and its Python numbers.

    Returns:
        The result: a large one in the memory order of the last array, a small one in that of the first.
    """
    x = arrays[0]
    if gpu and type(x) is not np.ndarray:
        made = compute(array_module(x), gpu, *arrays, numbers=numbers)
        if made is not None:
            return made
    if x.ndim == 0:  # NumPy would hand f's steps scalars, not arrays
        y = array_module(x).empty_like(x)
        f(*(a.reshape(1) for a in (y, *arrays)))
        return y
    large = type(x) is np.ndarray and x.nbytes > _SMALL
    y = empty_like(arrays[-1] if large else x)
    strides = y.strides
    if not large or arrays[-1].strides != strides:  # the last one has gaps
        f(y, *arrays)
        return y
    arrays = tuple(a if a.strides == strides else _copied(a, y) for a in arrays)
    order = sorted(range(x.ndim), key=lambda d: -strides[d])
    flat = [a.transpose(order).reshape(-1) for a in (y, *arrays)]
    parts = _parts(x.size, x.nbytes, LINE // x.itemsize)
    share([lambda part=part: f(*(a[part] for a in flat)) for part in parts], x)  # type: ignore[misc]
    return y


def unary(f: Callable, x: Any) -> Any:
    """f(x) for a function such as ``numpy.exp``; a large NumPy array is shared by threads."""
    if type(x) is not np.ndarray or x.nbytes < _SERIAL or x.dtype.kind != "f":
        return f(x)
    return elementwise(lambda y, x: f(x, out=y), x)


def _copied(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a in the memory order of y."""
    new = empty_like(y)
    copy_into(new, a)
    return new


def reshaped(x: Any, shape: Any) -> Any:
    """x.reshape(shape), where a large NumPy array that must be put into C order for it is copied slice by slice."""
    if type(x) is not np.ndarray or x.nbytes <= _SMALL or x.flags.c_contiguous or x.strides[-1] == x.itemsize:
        return x.reshape(shape)
    try:
        return np.reshape(x, shape, copy=False)
    except (TypeError, ValueError):  # NumPy 2.0 has no such argument; a copy is needed, or the shape does not fit
        pass
    y = np.empty(x.shape, x.dtype)
    copy_into(y, x)
    return y.reshape(shape)


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

    with rows_of(y.shape[-1]):
        share([lambda i=i: work(slice(i, i + step)) for i in range(0, n, step)], y)  # type: ignore[misc]
    return y


def _empty_whole(block: np.ndarray, axis: int, n: int, x: np.ndarray) -> np.ndarray:
    """An array for all blocks: in the memory order of x where the block's own agrees, else in that.

    The block's own says nothing of an axis on which it has length 1.
    """
    shape = (*block.shape[:axis], n, *block.shape[axis + 1 :])
    if block.ndim == x.ndim:
        order = sorted(range(x.ndim), key=lambda d: -x.strides[d])
        steps = [block.strides[d] for d in order if block.shape[d] > 1]
        if steps == sorted(steps, reverse=True):
            return np.empty([shape[d] for d in order], block.dtype).transpose(np.argsort(order))
    return np.empty_like(block, shape=shape)


def along_first(f: Callable, *arrays: Any, block: int | None = None, leading: int = 1) -> Any:
    """f(*arrays) for an f that treats the slices along the first axis independently of each other.

    Where it does so for more axes than the first, the arrays are cut along the one that is outermost in memory: slices
    along the first axis of (N, C, H, W) in memory order (H, C, W, N) would be of a few numbers here and there.

    Args:
        f: a function of arrays that returns an array, or a tuple of arrays, whose first axis is the arrays'.
        arrays: with first axes of one length n; arrays whose first axis has length 1 are handed on whole.
        block: bytes of the largest array in a block, where f is not of several steps that share the cache.
        leading: how many of the first axes f treats so.
    """
    large = max(arrays, key=lambda a: a.nbytes)
    if type(large) is not np.ndarray or large.nbytes <= _SMALL:
        return f(*arrays)
    axis = max(range(leading), key=lambda d: large.strides[d] * (large.shape[d] > 1))
    n = max(a.shape[axis] for a in arrays)
    if n < 2:
        return f(*arrays)
    step = max(1, (block or _BLOCK) * n // large.nbytes)
    lock = Lock()
    whole: list[np.ndarray] = []
    single = True

    def work(start: int) -> None:
        nonlocal single
        part = (*(slice(None),) * axis, slice(start, start + step))
        found = f(*(a[part] if a.shape[axis] == n else a for a in arrays))
        blocks = (found,) if isinstance(found, np.ndarray) else found
        with lock:
            if not whole:
                single = found is blocks[0]
                whole.extend(_empty_whole(b, axis, n, large) for b in blocks)
        for y, block in zip(whole, blocks, strict=True):
            y[part] = block

    share([lambda start=start: work(start) for start in range(0, n, step)], large)  # type: ignore[misc]
    return whole[0] if single else tuple(whole)
