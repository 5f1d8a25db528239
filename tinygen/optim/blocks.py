"""Elementwise work in place, on many arrays, in pieces of a handy size, on several threads.

An optimizer's step passes over every array a dozen times. Large arrays are divided, so that the passes find most of
their numbers in a cache, and small ones are joined, so that a dozen calls of NumPy move all of them. A piece is as
large as it may be: a call that takes less than some 16 µs makes the threads wait for each other (kernels/threads.py).
No number depends on how the arrays were divided or joined, or by whom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.threads import get_num_threads, run, scratch

_BLOCK = 1 << 20  # bytes of each array in a piece, at most
_LEAST = 1 << 18  # bytes of one that is divided further so that every thread has a piece
_WHOLE = 1 << 15  # bytes of an array that is not worth dividing
_JOINED = 1 << 13  # bytes of an array that takes longer to ask for than to copy
_SMALL = 1 << 18  # bytes of all arrays together that are not worth waking a thread for

# f(*arrays, d, e): writes into the arrays that are its own, never into the second; d and e are work space like the
# first. Jobs of one f may be joined.
Job = tuple[Callable[..., None], list[Any]]


def in_place(jobs: list[Job]) -> None:
    """Do every job ``(f, arrays)``: f on its arrays, which have one shape and dtype, whole, in blocks or joined.

    Blocks are taken in the order in which the first array lies in memory.
    """
    size = sum(arrays[0].nbytes for _, arrays in jobs)
    most = max(min(_BLOCK, size // get_num_threads()), min(_LEAST, _BLOCK))
    pieces: list[tuple[int, Callable[[], None]]] = []
    small: dict[Any, list[list[Any]]] = {}
    for f, arrays in jobs:
        first = arrays[0]
        if type(first) is not np.ndarray:  # a GPU has threads of its own
            _whole(f, arrays)
            continue
        if first.nbytes <= _JOINED:
            small.setdefault((f, first.dtype.char), []).append(arrays)
            continue
        flat = _flat(arrays) if first.nbytes > _WHOLE else None
        if flat is None:
            pieces.append((first.nbytes, partial(_whole, f, arrays)))
            continue
        step = -(-first.size // -(-first.nbytes // most))  # equal blocks, both divisions rounded up
        for i in range(0, first.size, step):
            block = [a[i : i + step] for a in flat]
            pieces.append((block[0].nbytes, partial(_on_block, f, block)))
    for (f, _), several in small.items():
        many = max(_LEAST // _JOINED, 1)
        for i in range(0, len(several), many):
            some = several[i : i + many]
            pieces.append((sum(arrays[0].nbytes for arrays in some), partial(_joined, f, some)))
    pieces.sort(key=lambda piece: -piece[0])
    tasks = [task for _, task in pieces]
    large = sum(nbytes >= min(_LEAST, _BLOCK) for nbytes, _ in pieces)
    # The largest first, and at both ends, where the threads begin. All small calls are one thread's: two that make
    # them at once take longer.
    rest: list[Callable[[], None]] = [partial(_in_turn, tasks[large:])] if tasks[large:] else []
    run([*tasks[:large:2], *rest, *tasks[1:large:2][::-1]], size > _SMALL)


def _in_turn(tasks: list[Callable[[], None]]) -> None:
    for task in tasks:
        task()


def _joined(f: Callable[..., None], several: list[list[np.ndarray]]) -> None:
    """f on many small arrays as if they were one."""
    if len(several) == 1:
        _on_block(f, several[0])
        return
    whole = [np.concatenate([a.reshape(-1) for a in role]) for role in zip(*several)]
    _on_block(f, whole)
    for k, role in enumerate(zip(*several)):
        start = 0
        for a in role if k != 1 else ():
            a[...] = whole[k][start : start + a.size].reshape(a.shape)
            start += a.size


def _whole(f: Callable[..., None], arrays: list[Any]) -> None:
    empty_like = array_module(arrays[0]).empty_like
    f(*arrays, empty_like(arrays[0]), empty_like(arrays[0]))


def _on_block(f: Callable[..., None], arrays: list[np.ndarray]) -> None:
    n, dtype = arrays[0].shape, arrays[0].dtype
    f(*arrays, scratch("optim d", n, dtype), scratch("optim e", n, dtype))


def _flat(arrays: list[Any]) -> list[np.ndarray] | None:
    """The arrays as vectors, in the order in which the first lies in memory; None where there is no such view.

    The second is only read: where it lies differently (a gradient may), a copy that lies as the first does.
    """
    first = arrays[0]
    if all([a.flags.c_contiguous for a in arrays]):
        return [a.reshape(-1) for a in arrays]
    order = sorted(range(first.ndim), key=lambda k: -first.strides[k])
    flat = []
    for i, array in enumerate(arrays):
        turned = array.transpose(order)
        if not turned.flags.c_contiguous:
            if i != 1:
                return None
            turned = np.ascontiguousarray(turned)
        flat.append(turned.reshape(-1))
    return flat
