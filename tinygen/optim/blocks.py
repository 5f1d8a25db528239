"""Elementwise work in place, on many arrays, one cache-sized block after another, on several threads.

An optimizer's step passes over every array a dozen times. On a block that fits into the processor's cache only the
first pass waits for memory. No number depends on how the arrays were divided, or by whom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.threads import run, scratch

_BLOCK = 1 << 18  # bytes of each array in a block
_WHOLE = 1 << 15  # bytes of an array that is not worth dividing
_SMALL = 1 << 18  # bytes, of all divided arrays together, that are not worth waking a thread for

# f(*arrays, d, e): writes into the arrays that are its own; d and e are work space like the first array.
Job = tuple[Callable[..., None], list[Any]]


def in_place(jobs: list[Job]) -> None:
    """Do every job ``(f, arrays)``: f on its arrays, which have one shape and dtype, whole or block by block.

    Blocks are taken in the order in which the first array lies in memory.
    """
    tasks: list[Callable[[], None]] = []
    size = 0
    for f, arrays in jobs:
        first = arrays[0]
        flat = _flat(arrays) if first.nbytes > _WHOLE else None
        if flat is None:
            empty_like = array_module(first).empty_like
            f(*arrays, empty_like(first), empty_like(first))
            continue
        size += first.nbytes
        step = -(-first.size // -(-first.nbytes // _BLOCK))  # equal blocks, both divisions rounded up
        for i in range(0, first.size, step):
            tasks.append(partial(_on_block, f, [a[i : i + step] for a in flat]))
    if size <= _SMALL:
        for task in tasks:
            task()
    else:
        run(tasks)


def _on_block(f: Callable[..., None], arrays: list[np.ndarray]) -> None:
    n, dtype = arrays[0].shape, arrays[0].dtype
    f(*arrays, scratch("optim d", n, dtype), scratch("optim e", n, dtype))


def _flat(arrays: list[Any]) -> list[np.ndarray] | None:
    """The arrays as vectors, in the order in which the first lies in memory; None where there is no such view.

    The second is only read: where it lies differently (a gradient may), a copy that lies as the first does.
    """
    first = arrays[0]
    if type(first) is not np.ndarray:
        return None
    order = (
        range(first.ndim) if first.flags.c_contiguous else sorted(range(first.ndim), key=lambda k: -first.strides[k])
    )
    flat = []
    for i, array in enumerate(arrays):
        turned = array.transpose(order)
        if not turned.flags.c_contiguous:
            if i != 1:
                return None
            turned = np.ascontiguousarray(turned)
        flat.append(turned.reshape(-1))
    return flat
