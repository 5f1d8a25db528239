"""Convolution in small groups of channels, depthwise above all: products with banded matrices, no inserted zeros.

A group of c channels in and o out has too few numbers for a matrix product: depthwise (c = o = 1) every output is
kh·kw products of two numbers, and NumPy would need 2·kh·kw passes. But B neighbouring places of an output row see
kh rows of L = B + kw − 1 places each, and they all are one product,

    Y (o·B, n) = M (o·B, kh·c·L) X (kh·c·L, n),    M[(o, j), (u, c, l)] = w[o, c, u, l − j],  0 outside the filter,

n the pictures, innermost in memory as in kernels/batch_last.py. M is a band of kw diagonals; with a stride s it is
w[…, l − s·j]. Of its entries kw in L are not 0, so B is small: eight places or so waste two products of three, at
which BLAS still is ten times as fast as NumPy's passes. What M multiplies lies in one piece once the rows of a few
groups have been copied to (group, row, c, l, n): every output row reads kh rows of that, one following the other.

The transposed convolution is the same with other diagonals, w[…, j + p − s·l], and a matrix for each remainder of the
output row modulo s. The weight gradient is Y Xᵀ, summed over the rows; its diagonals are summed to the taps. Where a
group has one channel in and the horizontal stride is 1, dot products of long runs are quicker: nothing is copied.

Sums are done in an order that depends on the shapes alone.

Source: a convolution as a product with a Toeplitz matrix, Gray (2006), *Toeplitz and circulant matrices: a review*.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from tinygen.kernels.batch_last import LEAST, batch_last
from tinygen.kernels.threads import aligned, run, scratch
from tinygen.kernels.windows import Pair, Window, phases

_WIDEST = 16  # channels of a group from where on each is a convolution of its own
_HEIGHT = 8  # about so many rows of M: fewer zeros, but more and smaller products
_STEP = 1 << 20  # bytes that are copied at a time: they stay in the second-level cache until they are multiplied
_MOST = 192  # pictures in a step
_SERIAL = 1 << 20  # multiplications, those with zeros included, below which one thread is as fast as two

Task = Callable[[], Any]


def suits(x: np.ndarray, c: int, o: int, window: Window, groups: int) -> bool:
    """Whether a convolution of c channels in and o out in a group is done here."""
    few = groups > 1 and max(c, o) <= _WIDEST
    return few and len(x) >= LEAST and x.size > 0 and window.dilation == (1, 1)


class Band(NamedTuple):
    """How B places of an output row see L places of an input row.

    Attributes:
        places: B; the last run of a row may have fewer.
        reach: L.
        first, step: the b-th run sees the places that begin at first + b·step.
        diagonals: for each tap of the filter's row, the j and the l that it joins.
    """

    places: int
    reach: int
    first: int
    step: int
    diagonals: tuple[tuple[np.ndarray, ...], ...]


@lru_cache(maxsize=512)
def _band(out: int, taps: int, stride: int, padding: int, o: int, transposed: bool) -> Band:
    """The band for rows of ``out`` places."""
    most = max(_HEIGHT // o, 2)
    B = -(-out // -(-out // most))
    if transposed:  # runs begin at multiples of the stride, so that all are alike
        B = -(-B // stride) * stride
        first = -((taps - 1 - padding) // stride)
        reach, step = (B - 1 + padding) // stride - first + 1, B // stride
        tap = np.arange(B)[:, None] + padding - stride * (first + np.arange(reach))
    else:
        first, reach, step = -padding, stride * (B - 1) + taps, stride * B
        tap = np.arange(reach) - stride * np.arange(B)[:, None]
    return Band(B, reach, first, step, tuple(np.nonzero(tap == v) for v in range(taps)))


class Rows(NamedTuple):
    """How output rows see input rows: output row i sees stride·i − padding and those after it, one for each tap."""

    taps: int
    stride: int
    padding: int


class Step(NamedTuple):
    """The pictures, groups and output rows that are worked on at a time."""

    n0: int
    n1: int
    g0: int
    g1: int
    i0: int
    i1: int


@lru_cache(maxsize=512)
def _steps(N: int, groups: int, out: int, rows: Rows, row: int) -> tuple[Step, ...]:
    """All steps, for ``row`` bytes in the copy of one row of one picture and group; those of a group in sequence."""
    parts = -(-N // _MOST)
    pictures = [N * k // parts // 16 * 16 for k in range(parts)] + [N]
    row *= max(b - a for a, b in zip(pictures, pictures[1:]))
    high = min(max((_STEP // row - rows.taps) // rows.stride + 1, 1), out)
    heights = _cuts(out, -(-out // high))
    wide = max(_STEP // (row * max(rows.stride * (high - 1) + rows.taps, 1)), 1)
    widths = _cuts(groups, min(-(-groups // (4 * wide)) * 4, groups))  # a multiple of 4 leaves nobody idle at the end
    return tuple(
        Step(n0, n1, g0, g1, i0, i1)
        for g0, g1 in widths
        for n0, n1 in zip(pictures, pictures[1:])
        for i0, i1 in heights
    )


def _cuts(n: int, pieces: int) -> list[Pair]:
    ends = [n * k // pieces for k in range(pieces + 1)]
    return list(zip(ends, ends[1:]))


def _gathered(x: np.ndarray, step: Step, rows: Rows, band: Band, b: int) -> np.ndarray:
    """What the b-th run of the step's output rows sees, copied: (I, groups, taps·c·L, n), rows overlapping.

    x (H, groups, c, W, N).
    """
    n0, n1, g0, g1, i0, i1 = step
    H, _, c, W, _ = x.shape
    top, left = rows.stride * i0 - rows.padding, band.first + b * band.step
    high, wide, n = rows.stride * (i1 - i0 - 1) + rows.taps, band.reach, n1 - n0
    copied = scratch("rows", (g1 - g0, high, c, wide, n), x.dtype)
    h0, h1 = min(max(top, 0), H), max(min(top + high, H), 0)
    l0, l1 = min(max(left, 0), W), max(min(left + wide, W), 0)
    if h0 >= h1 or l0 >= l1:
        copied[...] = 0
    else:
        inner = copied[:, h0 - top : h1 - top]
        copied[:, : h0 - top] = 0
        copied[:, h1 - top :] = 0
        inner[:, :, :, : l0 - left] = 0
        inner[:, :, :, l1 - left :] = 0
        inner[:, :, :, l0 - left : l1 - left] = x[h0:h1, g0:g1, :, l0:l1, n0:n1].swapaxes(0, 1)
    group, row = copied.strides[:2]
    shape = (i1 - i0, g1 - g0, rows.taps * c * wide, n)
    return np.ndarray(shape, x.dtype, copied, 0, (rows.stride * row, group, n * x.itemsize, x.itemsize))


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, rows: Rows, band: Band) -> list[Task]:
    """The tasks of y = Σ w x + b: x (H, groups, c, W, N), w (groups, o, c, kh, kw), y (Ho, groups, o, Wo, N)."""
    groups, o, c, kh, _ = w.shape
    matrix = np.zeros((groups, o, band.places, kh, c, band.reach), x.dtype)
    for v, (j, l) in enumerate(band.diagonals):
        matrix[:, :, j, :, :, l] = w[..., v].transpose(0, 1, 3, 2)
    matrix = matrix.reshape(groups, o, band.places, -1)
    bias = None if b is None else b.reshape(groups, o, 1, 1)
    steps = _steps(x.shape[4], groups, len(y), rows, c * band.reach * x.itemsize)
    return [partial(_correlate, x, matrix, bias, y, rows, band, step) for step in steps]


def _correlate(
    x: np.ndarray,
    matrix: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    rows: Rows,
    band: Band,
    step: Step,
) -> None:
    n0, n1, g0, g1, i0, i1 = step
    target = y[i0:i1, g0:g1, :, :, n0:n1]
    for b, j in enumerate(range(0, y.shape[3], band.places)):
        windows = _gathered(x, step, rows, band, b)
        part = target[:, :, :, j : j + band.places]
        np.matmul(matrix[g0:g1, :, : part.shape[3]], windows[:, :, None], out=part)
    if bias is not None:  # spread over a row first: NumPy is slow where each run has a number of its own
        row = scratch("bias", target.shape[1:], x.dtype)
        row[...] = bias[g0:g1]
        np.add(target, row, out=target)


# ------------------------------------------------------------------------------------ weight gradient


def accumulate(x: np.ndarray, y: np.ndarray, rows: Rows, band: Band) -> np.ndarray:
    """w = Σ over places and pictures of y · window: x (H, groups, c, W, N), y (Ho, groups, o, Wo, N).

    Returns:
        (groups, o, c, kh, kw).
    """
    oh, groups, o, _, N = y.shape
    c = x.shape[2]
    steps = _steps(N, groups, oh, rows, c * band.reach * x.itemsize)
    total = _total(partial(_products, x, y, rows, band), steps, (groups, o, band.places, rows.taps * c * band.reach), y)
    total = total.reshape(groups, o, band.places, rows.taps, c, band.reach)
    w = np.empty((groups, o, rows.taps, c, len(band.diagonals)), x.dtype)
    for v, (j, l) in enumerate(band.diagonals):
        w[..., v] = total[:, :, j, :, :, l].sum(0)
    return w.swapaxes(2, 3)


def _total(work: Callable[[Step], np.ndarray], steps: tuple[Step, ...], shape: tuple, y: np.ndarray) -> np.ndarray:
    """Σ of what all steps find for their groups, in their order."""
    found: dict[Step, np.ndarray] = {}

    def keep(step: Step) -> None:
        found[step] = work(step)

    run([partial(keep, step) for step in steps], y.size * shape[-1] >= _SERIAL)
    total = np.zeros(shape, y.dtype)
    for step in steps:
        total[step.g0 : step.g1] += found[step]
    return total


def _products(x: np.ndarray, y: np.ndarray, rows: Rows, band: Band, step: Step) -> np.ndarray:
    """Σ Y Xᵀ over the runs of a step's rows: (groups, o, B, taps·c·L)."""
    n0, n1, g0, g1, i0, i1 = step
    o, ow = y.shape[2:4]
    B = band.places
    total = np.zeros((g1 - g0, o, B, rows.taps * x.shape[2] * band.reach), x.dtype)
    for b, j in enumerate(range(0, ow, B)):
        windows = _gathered(x, step, rows, band, b)[:, :, None]
        part = y[i0:i1, g0:g1, :, j : j + B, n0:n1]
        product = scratch("product", (i1 - i0, g1 - g0, o, part.shape[3], windows.shape[3]), x.dtype)
        np.matmul(part, windows.swapaxes(3, 4), out=product)
        total[:, :, : part.shape[3]] += np.add.reduce(product, 0)
    return total


def dots(x: np.ndarray, y: np.ndarray, rows: Rows, taps: int, padding: int) -> np.ndarray:
    """The same for one channel in a group and a horizontal stride of 1: a dot product for each tap and output row.

    What a tap sees of a row, from all places and pictures, is one run, so no zero is multiplied and nothing copied.
    """
    (H, groups, _, W, N), (oh, _, o, ow, _) = x.shape, y.shape
    steps = _steps(1, groups, oh, rows, W * N * x.itemsize)  # all pictures: a run is not to be cut
    across: list[tuple[int, ...]] = [
        (v, l * N, r * N, (l + v - padding) * N, (r + v - padding) * N) for v, l, r in _reached(ow, W, taps, 1, padding)
    ]
    runs = x.reshape(H, groups, 1, -1), y.reshape(oh, groups, o, -1)
    w = _total(partial(_dots, *runs, rows, across, taps), steps, (groups, o, rows.taps, taps), y)
    return w[:, :, None]


def _reached(out: int, size: int, taps: int, stride: int, padding: int) -> list[tuple[int, int, int]]:
    """(tap, start, stop) for each tap that is inside for some output places of one axis, and these places."""
    found = []
    for v in range(taps):
        start, stop = max(-((v - padding) // stride), 0), min((size - 1 + padding - v) // stride + 1, out)
        if start < stop:
            found.append((v, start, stop))
    return found


def _dots(x: np.ndarray, y: np.ndarray, rows: Rows, across: list[tuple[int, ...]], taps: int, step: Step) -> np.ndarray:
    """What the step's rows add to w: x (H, groups, 1, W·N), y (Ho, groups, o, Wo·N)."""
    _, _, g0, g1, i0, i1 = step
    a, g = x[:, g0:g1], y[i0:i1, g0:g1]
    w = np.zeros((*g.shape[1:3], rows.taps, taps), x.dtype)
    for u, first, last in _reached(i1 - i0, len(x), rows.taps, rows.stride, rows.padding - rows.stride * i0):
        top = rows.stride * (i0 + first) + u - rows.padding
        part, seen = g[first:last], a[top : top + rows.stride * (last - first) : rows.stride]
        for v, left, right, start, stop in across:
            w[:, :, u, v] = np.vecdot(part[..., left:right], seen[..., start:stop]).sum(0)
    return w


# ------------------------------------------------------------------------- the three products of a convolution


def _split(rows: np.ndarray, groups: int) -> np.ndarray:
    """(H, groups·c, W, N) → (H, groups, c, W, N)."""
    H, C, W, N = rows.shape
    return rows.reshape(H, groups, C // groups, W, N)


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, window: Window, groups: int) -> np.ndarray:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo), batch last in memory."""
    O, c, kh, kw = w.shape
    o = O // groups
    y = aligned((window.out[0], O, window.out[1], len(x)), x.dtype)
    if y.size:
        band = _band(window.out[1], kw, window.stride[1], window.padding[1], o, False)
        rows = Rows(kh, window.stride[0], window.padding[0])
        filters = w.reshape(groups, o, c, kh, kw)
        tasks = correlate(_split(batch_last(x), groups), filters, b, _split(y, groups), rows, band)
        run(tasks, y.size * c * kh * band.reach >= _SERIAL)
    return y.transpose(3, 1, 0, 2)


def conv_transpose2d(y: np.ndarray, w: np.ndarray, b: np.ndarray | None, window: Window, groups: int) -> np.ndarray:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W), batch last in memory."""
    O, c, kh, kw = w.shape
    x = aligned((window.size[0], groups * c, window.size[1], len(y)), y.dtype)
    if x.size:
        band = _band(window.size[1], kw, window.stride[1], window.padding[1], c, True)
        source, target = _split(batch_last(y), groups), _split(x, groups)
        filters = w.reshape(groups, O // groups, c, kh, kw).swapaxes(1, 2)
        tasks: list[Task] = []
        for phase in phases(0, window):
            taps = filters[:, :, :, phase.taps]
            rows = Rows(taps.shape[3], 1, phase.padding)
            tasks += correlate(source, taps, b, target[phase.remainder :: window.stride[0]], rows, band)
        run(tasks, y.size * c * kh * band.reach * window.stride[1] >= _SERIAL)
    return x.transpose(3, 1, 0, 2)


def conv2d_weight_gradient(x: np.ndarray, y: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw)."""
    O, (kh, kw) = y.shape[1], window.kernel
    c = x.shape[1] // groups
    if not y.size:
        return np.zeros((O, c, kh, kw), x.dtype)
    rows = Rows(kh, window.stride[0], window.padding[0])
    a, g = _split(batch_last(x), groups), _split(batch_last(y), groups)
    if c == window.stride[1] == 1:
        w = dots(a, g, rows, kw, window.padding[1])
    else:
        w = accumulate(a, g, rows, _band(window.out[1], kw, window.stride[1], window.padding[1], O // groups, False))
    return w.reshape(O, c, kh, kw)
