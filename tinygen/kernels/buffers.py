"""NumPy's buffers, kept out of the way of long rows.

A NumPy operation on rows of numbers and one number for each row, such as ``x * s[:, None]``, goes through buffers of
``numpy.getbufsize()`` = 8192 numbers, into which both are copied where a row is shorter. With a buffer no longer than
the row nothing is copied. Nanoseconds for a number of the result (float32 in the cache, NumPy 2.4.6, one core of a
Sapphire Rapids Xeon, 2026-11-21), for rows of 196, 784, 3136 and 12544 numbers:

    8192    0.39   0.31   0.29   0.11
    4096    0.26   0.26   0.11   0.11
     512    0.42   0.12   0.11   0.11
     128    0.25   0.12   0.11   0.11
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def _suits(n: int) -> int:
    """The length of the buffer: no longer than a row, unless rows are so short that several go through it together."""
    return 512 if n >= 512 else 128 if n >= 128 else 4096


@contextmanager
def rows_of(n: int) -> Iterator[None]:
    """A buffer that suits rows of n numbers, in this thread and in those that share its work (kernels/threads.py)."""
    before = np.setbufsize(_suits(n))
    try:
        yield
    finally:
        np.setbufsize(before)
