"""Matrix products of tall, thin matrices, cut into blocks that BLAS multiplies fastest.

OpenBLAS, which comes with NumPy, copies ("packs") both operands before it multiplies, and above some size shares a
product among threads of its own. Those are in the way of ours: they do one product at a time, and when the system
has put one of them aside, all wait for it. Products of up to 2¹⁸ multiplications are left to the calling thread.
The kernels for AVX-512 take up to 10⁶, and without packing (A Bᵀ of contiguous A and B excepted). They want the
operand that is read along its rows to begin on a cache line, which NumPy's arrays do not: 160 to 180 GFlop/s per
core where it does, 110 where it does not, 100 to 135 by packing (OpenBLAS 0.3.31, Sapphire Rapids Xeon, float32,
900×288 times 288×32 and the like). Hence both functions here cut their products into blocks that small, and read
such operands from memory of ours.

Left factors come as a stack (r, m, k) that stands for r·m rows in interleaved order; see kernels/tiles.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.kernels.threads import aligned, scratch


def _largest() -> int:
    """m·n·k of the largest product that OpenBLAS leaves to the calling thread on this processor."""
    config: Any = np.show_config(mode="dicts")
    found = config["SIMD Extensions"]["found"]
    return 1_000_000 if any(name.startswith(("AVX512", "X86_V4")) for name in found) else 1 << 18


BLOCK = _largest()
_INNER = 384  # k of a block
_PANEL = BLOCK // 40  # k·n of a block: what is read again for every row stays in a near cache


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n up to ``most`` that fills vectors (a multiple of 32, else of 16); else n itself."""
    for step in (32, 16):
        for d in range(min(n, most) // step * step, 0, -step):
            if n % d == 0:
                return d
    return n


@lru_cache(maxsize=1024)
def _blocks(m: int, k: int, n: int) -> tuple[int, int, int, int]:
    """Rows, summands and columns of a block of A B, and how many full blocks of rows there are."""
    wide = _divisor(n, 64)
    inner = _divisor(k, max(min(_PANEL // wide, _INNER), 16))
    count = -(-m // max(BLOCK // (inner * wide), 8))
    return m // count, inner, wide, count


def packed(b: np.ndarray) -> np.ndarray:
    """The right factor (k, n) of :func:`multiply`, in blocks (k/inner, n/wide, inner, wide) in new memory."""
    k, n = b.shape
    _, inner, wide, _ = _blocks(1, k, n)
    new = aligned((k // inner, n // wide, inner, wide), b.dtype)
    new[...] = b.reshape(k // inner, inner, n // wide, wide).transpose(0, 2, 1, 3)
    return new


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = A B for A (r, m, k), B (k, n) cut by :func:`packed`, out (r, m, n); all with contiguous rows."""
    r, m, k = a.shape
    n = out.shape[2]
    rows, inner, _, count = _blocks(m, k, n)
    sums = k // inner
    if sums == 1:
        target = out[None]
    else:  # in the order of out's memory: NumPy adds arrays without gaps, in one order, several times faster
        target = scratch("partial", (sums, m, r, n), out.dtype).transpose(0, 2, 1, 3)
    done = rows * count
    _stack(a[:, :done], b, target[:, :, :done], rows)
    if done < m:
        _stack(a[:, done:], b, target[:, :, done:], m - done)
    if sums > 1:
        np.add(target[0], target[1], out=out)
        for part in target[2:]:
            np.add(out, part, out=out)


def _stack(a: np.ndarray, b: np.ndarray, out: np.ndarray, rows: int) -> None:
    """The products of all blocks: out[s] = A[:, s] B[s], for the s-th piece of the sum."""
    sums, across, inner, wide = b.shape
    r, m, _ = a.shape
    left = a.reshape(r, m // rows, rows, sums, inner).transpose(3, 0, 1, 2, 4)[:, :, :, None]
    result = out.reshape(sums, r, m // rows, rows, across, wide).transpose(0, 1, 2, 4, 3, 5)
    np.matmul(left, b[:, None, None], out=result)


@lru_cache(maxsize=1024)
def _transposed_blocks(m: int, k: int, n: int) -> tuple[int, int, int, int]:
    """Rows of both, columns of each in a block of Aᵀ B, and how many full blocks of rows there are."""
    high, wide = _divisor(k, 32), _divisor(n, 64)
    count = -(-m // max(BLOCK // (high * wide), 8))
    return m // count, high, wide, count


def multiply_transposed(a: np.ndarray, b: np.ndarray, out: np.ndarray, add: bool) -> None:
    """out = Σ Aᵀ B, or out += Σ Aᵀ B, over a stack: A (r, m, k), B (r, m, n) in scratch memory, out (k, n)."""
    r, m, k = a.shape
    n = b.shape[2]
    rows, high, wide, count = _transposed_blocks(m, k, n)
    done = rows * count
    pieces = count + (done < m)
    partial = scratch("partial", (r, pieces, k, n), out.dtype)
    _transposed_stack(a[:, :done], b[:, :done], partial[:, :count], high, wide)
    if done < m:
        _transposed_stack(a[:, done:], b[:, done:], partial[:, count:], high, wide)
    first, *rest = partial.reshape(r * pieces, k, n)
    if add:
        np.add(out, first, out=out)
    else:
        out[...] = first
    for part in rest:
        np.add(out, part, out=out)


def _transposed_stack(a: np.ndarray, b: np.ndarray, out: np.ndarray, high: int, wide: int) -> None:
    r, count, k, n = out.shape
    rows = a.shape[1] // count
    left = a.reshape(r, count, rows, k // high, high).transpose(0, 1, 3, 4, 2)[:, :, :, None]
    right = b.reshape(r, count, rows, n // wide, wide).transpose(0, 1, 3, 2, 4)[:, :, None]
    result = out.reshape(r, count, k // high, high, n // wide, wide).transpose(0, 1, 2, 4, 3, 5)
    np.matmul(left, right, out=result)
