"""The tasks of a convolution in the memory order (H, C, W, N), and where their windows lie; see kernels/batch_last.py.

What a task is depends on shapes alone, so that sums are added in an order that does, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinygen.kernels.products import BLOCK
from tinygen.kernels.threads import scratch
from tinygen.kernels.windows import Pair

_MOST = 192  # pictures in a task
_WORK = 1 << 25  # multiplications in a task: about half a millisecond
_MANY = 8  # tasks, above four; less work is done in four longer ones
_SERIAL = 5 << 24  # multiplications below which one thread is as fast as two: about a millisecond
_MOVED = 64  # multiplications that take as long as a number read, written or copied
_STEP = 1 << 19  # bytes of the products that are added up at a time
_CHUNK = 256  # columns of a product that is done without packing


class Span(NamedTuple):
    """Output places start … stop, all of which see the taps first … last − 1 inside the picture."""

    start: int
    stop: int
    first: int
    last: int


def worth(multiplications: int, moved: int) -> bool:
    """Whether two threads are quicker than one, for so many numbers read, written or copied."""
    return multiplications + _MOVED * moved >= _SERIAL


@lru_cache(maxsize=1024)
def spans(start: int, stop: int, size: int, taps: int, stride: int, padding: int) -> tuple[Span, ...]:
    """Output places start … stop of one axis, in runs that see the same taps."""
    found: list[Span] = []
    for i in range(start, stop):
        first = min(max(padding - stride * i, 0), taps)
        last = max(min(size + padding - stride * i, taps), first)
        if found and found[-1][2:] == (first, last):
            found[-1] = found[-1]._replace(stop=i + 1)
        else:
            found.append(Span(i, i + 1, first, last))
    return tuple(found)


@lru_cache(maxsize=1024)
def reached(out: int, size: int, taps: int, stride: int, padding: int) -> tuple[tuple[int, int, int], ...]:
    """(tap, start, stop) for each tap of one axis: output places where it is inside; widest first."""
    found = []
    for v in range(taps):
        start = max(-((v - padding) // stride), 0)
        stop = min((size - 1 + padding - v) // stride + 1, out)
        if start < stop:
            found.append((v, start, stop))
    return tuple(sorted(found, key=lambda span: (span[1] - span[2], span[0])))


@lru_cache(maxsize=1024)
def chunk(n: int, k: int, o: int) -> int:
    """How many of n columns are multiplied at a time: a divisor of n small enough, or all of them, packed."""
    for d in range(min(n, _CHUNK, BLOCK // (k * o)), 31, -1):
        if n % d == 0 and d % 16 == 0:
            return d
    return n


@lru_cache(maxsize=1024)
def cut(N: int, oh: int, work: int, shared: bool) -> tuple[tuple[int, int, int, int], ...]:
    """(n0, n1, i0, i1) of the tasks, for ``work`` multiplications in an output row of one picture.

    One thread alone takes all rows at once. For several, tasks are taken one by one, so an even number of equal ones,
    or a short one at the end, leaves no thread idle. Where an odd number of tasks of one row each remains, the last
    row's pictures are shared by two.
    """
    parts = -(-N // _MOST)
    pictures = [N * k // parts // 16 * 16 for k in range(parts)] + [N]
    if not shared:
        return tuple((n0, n1, 0, oh) for n0, n1 in zip(pictures, pictures[1:]))
    total = oh * work * N
    least = 4 if total > _WORK else 2  # calls of 100 µs rather than work for more threads than two
    wanted = total // parts // _WORK if total > _MANY * _WORK else 0
    pieces = min(max(wanted, -(-least // parts)) + 1 & ~1, oh)
    if wanted and 2 * pieces > oh and 2 * work * N > _WORK:
        pieces = oh  # rather than tasks of one row beside tasks of two
    short, longer = divmod(oh, pieces)
    rows = [*(i * (short + 1) for i in range(longer)), *(oh - i * short for i in range(pieces - longer, -1, -1))]
    tiles = [(n0, n1, i0, i1) for i0, i1 in zip(rows, rows[1:]) for n0, n1 in zip(pictures, pictures[1:])]
    n0, n1, i0, i1 = tiles[-1]
    half = (n0 + n1) // 32 * 16
    if len(tiles) % 2 and oh == pieces and n0 < half:
        tiles[-1:] = [(n0, half, i0, i1), (half, n1, i0, i1)]
    return tuple(tiles)


def windows(
    x: np.ndarray, top: int, left: int, n0: int, shape: tuple[int, ...], stride: Pair, chunk: Callable[[int], int]
) -> np.ndarray:
    """X_{i,v} for rows and columns of windows that begin at (top, left), K = kernel rows × channels, cut into chunks.

    Shapes: (I, J, n/c, K, c) with c = chunk(n); with stride 1 and all pictures, the J columns are one run of J·n.
    """
    _, C, W, N = x.shape
    I, J, K, n = shape
    item = x.itemsize
    row = C * W * N * item
    if stride[1] == 1 and n == N:
        J, n = 1, J * n
    c = chunk(n)
    # One call instead of four: two threads cannot share the time that Python takes.
    strides = (stride[0] * row, stride[1] * N * item, c * item, W * N * item, item)
    return np.ndarray((I, J, n // c, K, c), x.dtype, x, top * row + (left * N + n0) * item, strides)


def steps(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of ``size`` bytes each, about _STEP bytes in a run."""
    step = max(_STEP // max(size, 1), 1)
    return ((i, min(i + step, stop)) for i in range(start, stop, step))


def gathered(
    x: np.ndarray,
    tile: tuple[int, int, int, int],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ow: int,
    chunk: Callable[[int], int],
) -> np.ndarray:
    """The windows of a tile, copied: (I, 1, ow·n/c, kw·kh·C, c) in scratch memory, with c = chunk(ow·n).

    The tile's part of the picture is put into zeros first, so that all its windows are one view and one copy.
    """
    H, C, W, _ = x.shape
    n0, n1, i0, i1 = tile
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    top, left = sh * i0 - ph, -pw
    high, wide, n = sh * (i1 - i0 - 1) + kh, sw * (ow - 1) + kw, n1 - n0
    a, b = max(top, 0), min(top + high, H)
    c, d = max(left, 0), min(left + wide, W)
    if (a, b, c, d) == (top, top + high, left, left + wide):
        near, offset = x, x.strides[0] * a + x.strides[2] * c + x.strides[3] * n0
    else:
        near, offset = scratch("padded", (high, C, wide, n), x.dtype), 0
        near[...] = 0
        if a < b and c < d:
            near[a - top : b - top, :, c - left : d - left] = x[a:b, :, c:d, n0:n1]
    u, k, v, m = near.strides
    # not as_strided: it takes ten times as long
    windows = np.ndarray((i1 - i0, kw, kh, C, ow, n), x.dtype, near, offset, (sh * u, v, u, k, sw * v, m))
    copied = scratch("windows", windows.shape, x.dtype)
    np.copyto(copied, windows)
    c = chunk(ow * n)
    return copied.reshape(i1 - i0, 1, kw * kh * C, ow * n // c, c).swapaxes(2, 3)
