"""Matrix products on our own threads instead of OpenBLAS's.

OpenBLAS, which comes with NumPy, shares a large product among threads of its own, and these wait for each other by
spinning. Where another program wants a processor at that moment, all spin until the one that was put aside is back:
on a machine of two cores with a load of five, a training step of the autoencoder demo took 385 ms with OpenBLAS's
two threads and 23 ms with one (NumPy 2.4.6, OpenBLAS 0.3.31, Sapphire Rapids Xeon, 2026-11-21; the same step with
and without :func:`take_over`). So OpenBLAS is left one thread, and large products are cut into pieces for the pool of
kernels/threads.py, whose callers never wait for a helper that has not begun.

How a product is cut depends on its shape alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.kernels import threads

_PIECE = 1 << 24  # multiplications in a piece: above 100 µs, so that cutting costs little
_WORTH = 1 << 23  # multiplications from where on two pieces are quicker than one, though small
_MOST = 16  # pieces


def take_over() -> bool:
    """Tell NumPy's OpenBLAS to use one thread, unless ``OPENBLAS_NUM_THREADS`` says what the user wants.

    Holds for all of NumPy in this process. Where NumPy was built with another BLAS, nothing happens.

    Returns:
        Whether OpenBLAS was found and told.
    """
    if "OPENBLAS_NUM_THREADS" in os.environ:
        return False
    home = Path(np.__file__).parent
    for folder in (home.parent / "numpy.libs", home / ".dylibs"):
        for path in folder.glob("*openblas*"):
            try:
                library: Any = ctypes.CDLL(str(path))
            except OSError:
                continue
            for name in ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"):
                if hasattr(library, name):
                    getattr(library, name)(1)
                    return True
    return False


take_over()


def _pieces(work: int) -> int:
    """In how many pieces so many multiplications are cut."""
    return min(max(work // _PIECE, 2 if work >= _WORTH else 1), _MOST)


def product(a: Any, b: Any) -> Any:
    """A B for NumPy arrays, as ``numpy.matmul``, on several threads where it is large.

    A product of two matrices is cut along the longer side of the result, a stack of products along its first axis.

    Shapes: (…, m, k), (…, k, n) → (…, m, n), at least two axes each; leading axes broadcast.
    """
    n = b.shape[-1]
    if a.size * n < _WORTH:  # of a stack, too, where b is no longer a stack
        return np.matmul(a, b)
    m, k = a.shape[-2:]
    if a.ndim == b.ndim == 2:
        pieces = min(_pieces(m * k * n), max(m, n) // 16)
        if pieces < 2 or a.dtype != b.dtype:
            return np.matmul(a, b)
        c = np.empty((m, n), a.dtype)
        if m >= n:
            parts = [(a[rows], b, c[rows]) for rows in _cuts(m, pieces)]
        else:
            parts = [(a, b[:, columns], c[:, columns]) for columns in _cuts(n, pieces)]
    else:
        stack = a.shape[:-2]
        count = int(np.prod(stack)) if stack == b.shape[:-2] else 0
        pieces = min(_pieces(count * m * k * n), stack[0] if stack else 0)
        if pieces < 2 or a.dtype != b.dtype:
            return np.matmul(a, b)
        c = np.empty((*stack, m, n), a.dtype)
        parts = [(a[part], b[part], c[part]) for part in _cuts(stack[0], pieces)]
    threads.run([partial(np.matmul, left, right, out=out) for left, right, out in parts])
    return c


def _cuts(n: int, pieces: int) -> list[slice]:
    ends = [n * i // pieces for i in range(pieces + 1)]
    return [slice(start, stop) for start, stop in zip(ends, ends[1:])]
