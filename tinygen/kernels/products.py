"""Matrix products of tall, thin matrices, cut into blocks that BLAS multiplies fastest.

OpenBLAS, which comes with NumPy, copies ("packs") both operands before it multiplies, and wakes its own threads
when m·n·k is large. For a block of at most 10⁶ multiplications its AVX-512 kernels do neither: on a matrix with few
columns they reached 165 GFlop/s per core, the packing path 105 to 140, of 180 that the core can do (OpenBLAS 0.3.31
on a Sapphire Rapids Xeon, float32, (900×288)·(288×32) and the like). Blocks also leave several of our own threads to
multiply at the same time, where OpenBLAS would make one wait for the other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.kernels.threads import scratch

BLOCK = 1_000_000  # m·n·k of a block
_PANEL = 9216  # k·n of a block: numbers of B that stay in the first-level cache
_WIDE = 64  # n of a block


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most ``most``; n itself where that would be less than most/3."""
    best = next(d for d in range(min(n, most), 0, -1) if n % d == 0)
    return best if 3 * best >= min(n, most) else n


@lru_cache(maxsize=1024)
def _blocks(m: int, k: int, n: int) -> tuple[int, int, int, int]:
    """Rows, summands and columns of a block, and how many full blocks of rows there are."""
    wide = _divisor(n, _WIDE) if n % 16 == 0 else n
    inner = _divisor(k, max(_PANEL // wide, 16))
    count = -(-m // max(BLOCK // (inner * wide), 8))
    return m // count, inner, wide, count


def packed(b: np.ndarray) -> np.ndarray:
    """The right factor (k, n) cut into contiguous blocks (k/inner, n/wide, inner, wide) for :func:`multiply`."""
    k, n = b.shape
    _, inner, wide, _ = _blocks(1, k, n)
    return np.ascontiguousarray(b.reshape(k // inner, inner, n // wide, wide).transpose(0, 2, 1, 3))


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = A B for A (m, k), B (k, n) cut by :func:`packed`, out (m, n) with contiguous rows."""
    m, k = a.shape
    n = out.shape[1]
    rows, inner, wide, count = _blocks(m, k, n)
    sums = k // inner
    if sums == 1:
        target = out[None]
    else:
        target = scratch("partial", (sums, m, n), out.dtype)
    done = rows * count
    _stack(a[:done], b, target[:, :done], rows)
    if done < m:
        _stack(a[done:], b, target[:, done:], m - done)
    if sums > 1:
        np.add(target[0], target[1], out=out)
        for part in target[2:]:
            np.add(out, part, out=out)


def _stack(a: np.ndarray, b: np.ndarray, out: np.ndarray, rows: int) -> None:
    """The products of all blocks: out[s] = A[:, s] B[s], for the s-th piece of the sum."""
    sums, across, inner, wide = b.shape
    m = a.shape[0]
    left = a.reshape(m // rows, rows, sums, inner).transpose(2, 0, 1, 3)[:, :, None]
    result = out.reshape(sums, m // rows, rows, across, wide).transpose(0, 1, 3, 2, 4)
    np.matmul(left, b[:, None], out=result)


@lru_cache(maxsize=1024)
def _transposed_blocks(m: int, k: int, n: int) -> tuple[int, int, int, int]:
    """The same for Aᵀ B: there the sum over m is the long one."""
    wide = _divisor(n, _WIDE) if n % 16 == 0 else n
    across = _divisor(k, 96)
    count = -(-m // max(BLOCK // (across * wide), 8))
    return m // count, across, wide, count


def multiply_transposed(a: np.ndarray, b: np.ndarray, out: np.ndarray, add: bool) -> None:
    """out = Aᵀ B, or out += Aᵀ B, for A (m, k), B (m, n), out (k, n) contiguous."""
    m, k = a.shape
    n = b.shape[1]
    rows, across, wide, count = _transposed_blocks(m, k, n)
    done = rows * count
    pieces = count + (done < m)
    partial = out[None] if pieces == 1 and not add else scratch("partial", (pieces, k, n), out.dtype)
    _transposed_stack(a[:done], b[:done], partial[:count], across, wide)
    if done < m:
        _transposed_stack(a[done:], b[done:], partial[count:], across, wide)
    if partial.base is not out:
        for i, part in enumerate(partial):
            if add or i > 0:
                np.add(out, part, out=out)
            else:
                out[...] = part


def _transposed_stack(a: np.ndarray, b: np.ndarray, out: np.ndarray, across: int, wide: int) -> None:
    count, k, n = out.shape
    rows = a.shape[0] // count
    left = a.reshape(count, rows, k // across, across).transpose(0, 2, 3, 1)[:, :, None]
    right = b.reshape(count, rows, n // wide, wide).transpose(0, 2, 1, 3)[:, None]
    np.matmul(left, right, out=out.reshape(count, k // across, across, n // wide, wide).transpose(0, 1, 3, 2, 4))
